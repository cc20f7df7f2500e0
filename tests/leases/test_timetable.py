from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from aioigd.leases.timetable import NEVER, Timetable


@dataclass(eq=False)
class Thing:
    name: str
    due: float = NEVER


def test_what_is_due_comes_out_in_order_and_once() -> None:
    timetable: Timetable[Thing] = Timetable()
    a, b, c = Thing("a"), Thing("b"), Thing("c")
    assert (timetable.next, len(timetable)) == (NEVER, 0)
    for thing, due in ((a, 3.0), (b, 1.0), (c, 2.0)):
        timetable.set(thing, due)
    assert (timetable.next, len(timetable)) == (1.0, 3)
    assert timetable.take(0.5, 9) == []
    assert timetable.take(2.0, 9) == [b, c]
    assert timetable.take(9.0, 0) == []
    assert timetable.take(9.0, 9) == [a]
    assert (timetable.next, len(timetable), a.due) == (NEVER, 0, NEVER)


def test_the_last_time_set_counts_and_a_removed_thing_is_never_due() -> None:
    timetable: Timetable[Thing] = Timetable()
    a, b = Thing("a"), Thing("b")
    timetable.set(a, 1.0)
    timetable.set(a, 5.0)
    timetable.set(b, 3.0)
    timetable.remove(b)
    timetable.remove(b)
    assert (timetable.next, len(timetable)) == (5.0, 1)
    assert timetable.take(5.0, 9) == [a]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20) | st.none()), max_size=300))
def test_whatever_is_set_and_removed_it_is_like_a_plain_table(steps: list[tuple[int, int | None]]) -> None:
    timetable: Timetable[Thing] = Timetable()
    things = [Thing(str(number)) for number in range(6)]
    plain: dict[int, float] = {}
    for number, due in steps:
        if due is None:
            timetable.remove(things[number])
            plain.pop(number, None)
        else:
            timetable.set(things[number], float(due))
            plain[number] = due
        assert len(timetable) == len(plain)
        assert timetable.next == min(plain.values(), default=NEVER)
    taken = timetable.take(10.0, 99)
    assert sorted(thing.name for thing in taken) == sorted(str(one) for one, due in plain.items() if due <= 10)
