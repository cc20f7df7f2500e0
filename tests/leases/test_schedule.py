"""When what is due: renewal times, backoff, throttled hints, the queue, and the counter of users."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioigd.leases import schedule
from aioigd.leases.schedule import NEVER, DueQueue, RefCounter
from aioigd.models import MappingKey

WEB, DNS = MappingKey(80, "TCP"), MappingKey(53, "UDP")


@pytest.mark.parametrize(
    ("accepted", "held", "lasts"),
    [(3600, None, 3600), (3600, 0, 3600), (3600, 600, 600), (600, 3600, 600), (0, None, 0), (0, 0, 0), (0, 600, 600)],
)
def test_the_shorter_time_counts(accepted: int, held: int | None, lasts: int) -> None:
    assert schedule.effective_duration(accepted, held) == lasts


@pytest.mark.parametrize(("duration", "renewal"), [(3600, 1800.0), (3, 1.5), (2, 1.0), (1, 1.0), (0, 1200.0)])
def test_it_is_renewed_at_half(duration: int, renewal: float) -> None:
    assert schedule.renew_after(duration) == renewal


def test_the_backoff_grows_up_to_a_minute() -> None:
    seconds = [schedule.backoff(failures) for failures in range(1, 10)]
    assert seconds == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert schedule.backoff(0) == 0.5
    assert schedule.backoff(10**9) == 60.0


class TestHintThrottle:
    def test_the_first_hint_is_followed_soon(self) -> None:
        assert schedule.HintThrottle().due(100.0) == 100.2

    def test_after_false_ones_it_takes_ever_longer_up_to_a_minute(self) -> None:
        throttle, now, gaps = schedule.HintThrottle(), 100.0, []
        for _ in range(9):
            throttle.followed(now, right=False)
            gaps.append(throttle.due(now) - now)
            now = throttle.due(now)
        assert gaps == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])

    @pytest.mark.parametrize(("after", "right", "gap"), [(1.0, True, 0.2), (601.0, False, 1.0), (1.0, False, 4.0)])
    def test_a_right_one_or_a_long_silence_ends_it(self, after: float, right: bool, gap: float) -> None:
        throttle = schedule.HintThrottle()
        throttle.followed(0.0, right=False)
        throttle.followed(0.0, right=False)
        throttle.followed(after, right=right)
        assert throttle.due(after) - after == pytest.approx(gap)


@dataclass(eq=False)
class Item:
    name: str
    due: float = NEVER


def test_what_is_due_comes_out_in_order_and_once() -> None:
    queue: DueQueue[Item] = DueQueue()
    a, b, c = Item("a"), Item("b"), Item("c")
    assert (queue.next, len(queue)) == (NEVER, 0)
    for item, due in ((a, 3.0), (b, 1.0), (c, 2.0)):
        queue.set(item, due)
    assert (queue.next, len(queue)) == (1.0, 3)
    assert queue.take(0.5, 9) == []
    assert queue.take(2.0, 9) == [b, c]
    assert queue.take(9.0, 0) == []
    assert queue.take(9.0, 9) == [a]
    assert (queue.next, len(queue), a.due) == (NEVER, 0, NEVER)


def test_the_last_time_set_counts_and_a_removed_item_is_never_due() -> None:
    queue: DueQueue[Item] = DueQueue()
    a, b = Item("a"), Item("b")
    queue.set(a, 1.0)
    queue.set(a, 5.0)
    queue.set(b, 3.0)
    queue.remove(b)
    queue.remove(b)
    assert (queue.next, len(queue)) == (5.0, 1)
    assert queue.take(5.0, 9) == [a]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20) | st.none()), max_size=300))
def test_whatever_is_set_and_removed_it_is_like_a_plain_table(steps: list[tuple[int, int | None]]) -> None:
    queue: DueQueue[Item] = DueQueue()
    items = [Item(str(number)) for number in range(6)]
    table: dict[int, float] = {}
    for number, due in steps:
        if due is None:
            queue.remove(items[number])
            table.pop(number, None)
        else:
            queue.set(items[number], float(due))
            table[number] = due
        assert len(queue) == len(table)
        assert queue.next == min(table.values(), default=NEVER)
    taken = queue.take(10.0, 99)
    assert sorted(item.name for item in taken) == sorted(str(one) for one, due in table.items() if due <= 10)


def test_the_last_release_says_so() -> None:
    ports: RefCounter[MappingKey] = RefCounter()
    assert WEB not in ports
    ports.acquire(WEB)
    ports.acquire(WEB)
    ports.acquire(DNS)
    assert [ports.release(WEB), WEB in ports, ports.release(WEB), WEB in ports] == [False, True, True, False]
    assert DNS in ports
    assert MappingKey(53, "TCP") not in ports
    with pytest.raises(KeyError):
        ports.release(WEB)
