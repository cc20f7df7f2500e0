"""The window of requests that one gateway gets at once: how it grows and shrinks, and who comes next."""

from __future__ import annotations

import asyncio
import math
import random
import runpy
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioigd.core import limiter as limiter_module
from aioigd.core.limiter import AT_A_TIME, FIRST_WINDOW, LARGEST_WINDOW, Limiter, Outcome, Permit, _idle_time

from ..support import settled_loop

pytestmark = pytest.mark.usefixtures("nothing_is_left")


async def fill(limiter: Limiter, number: int | None = None) -> list[Permit]:
    """Take so many permits, or all that there are."""
    return [await limiter.acquire() for _ in range(number if number is not None else limiter.window)]


async def test_at_first_a_few_are_let_through_and_the_rest_waits() -> None:
    limiter = Limiter()
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(10)]
    await settled_loop()
    assert [task.done() for task in tasks] == [True] * FIRST_WINDOW + [False] * (10 - FIRST_WINDOW)
    assert repr(limiter) == "<Limiter window=3 out=3 waiting=7>"
    for task in tasks:
        limiter.release(await task)


async def test_requests_that_nobody_waits_behind_change_nothing() -> None:
    """The window was not what limited them."""
    limiter = Limiter()
    for _ in range(100):
        for permit in await fill(limiter):
            limiter.release(permit)
    assert limiter.window == FIRST_WINDOW


async def test_a_slot_is_shared_once_there_was_another_one_out() -> None:
    limiter = Limiter()
    first = await limiter.acquire()
    assert [first.had_company] == [False]
    second = await limiter.acquire()
    assert first.had_company
    assert second.had_company
    limiter.release(second)
    assert first.had_company  # it was, and what happens to it may be a matter of numbers
    limiter.release(first)
    assert not (await limiter.acquire()).had_company


async def test_a_loss_among_others_halves_the_window() -> None:
    limiter = Limiter()
    permits = await fill(limiter)
    limiter.release(permits[0], Outcome.LOST)
    assert limiter.window == FIRST_WINDOW // 2


async def test_those_lost_together_count_once() -> None:
    limiter = Limiter()
    for permit in await fill(limiter):
        limiter.release(permit, Outcome.LOST)
    assert limiter.window == FIRST_WINDOW // 2


async def test_a_loss_alone_says_nothing_about_numbers() -> None:
    limiter = Limiter()
    for _ in range(5):
        limiter.release(await limiter.acquire(), Outcome.LOST)
    assert limiter.window == FIRST_WINDOW


async def test_an_unknown_outcome_changes_nothing() -> None:
    limiter = Limiter()
    for permit in await fill(limiter):
        limiter.release(permit, Outcome.UNKNOWN)
    assert limiter.window == FIRST_WINDOW


async def test_a_permit_that_was_given_back_counts_no_more() -> None:
    """A request that is silent counts as lost, and may be answered all the same."""
    limiter = Limiter()
    permits = await fill(limiter)
    limiter.release(permits[0], Outcome.LOST)
    for outcome in Outcome:
        limiter.release(permits[0], outcome)
    assert repr(limiter) == "<Limiter window=1 out=2 waiting=0>"
    for permit in permits[1:]:
        limiter.release(permit, Outcome.UNKNOWN)


async def test_the_window_never_falls_below_one() -> None:
    limiter = Limiter()
    for _ in range(20):
        for permit in await fill(limiter):
            limiter.release(permit, Outcome.LOST)
    assert limiter.window == 1


async def test_who_came_first_goes_first_and_who_has_begun_before_all() -> None:
    limiter = Limiter()
    permits = await fill(limiter)
    order: list[str] = []

    async def come(name: str, *, first: bool = False) -> None:
        permit = await limiter.acquire(first=first)
        order.append(name)
        limiter.release(permit)

    comers = [
        asyncio.create_task(come("a")),
        asyncio.create_task(come("b")),
        asyncio.create_task(come("again", first=True)),
    ]
    await settled_loop()
    limiter.release(permits.pop(), Outcome.UNKNOWN)
    await asyncio.gather(*comers)
    assert order == ["again", "a", "b"]
    for permit in permits:
        limiter.release(permit)


async def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    limiter = Limiter()
    permits = await fill(limiter)
    waiting = asyncio.create_task(limiter.acquire())
    await settled_loop()
    limiter.release(permits.pop(), Outcome.UNKNOWN)
    newcomer = asyncio.create_task(limiter.acquire())
    await settled_loop()
    assert (waiting.done(), newcomer.done()) == (True, False)
    for permit in [*permits, await waiting]:
        limiter.release(permit)
    limiter.release(await newcomer)


async def test_who_is_cancelled_while_waiting_is_passed_over() -> None:
    limiter = Limiter()
    permits = await fill(limiter)
    cancelled, patient = (asyncio.create_task(limiter.acquire()) for _ in range(2))
    await settled_loop()
    cancelled.cancel()
    await settled_loop()
    limiter.release(permits.pop(), Outcome.UNKNOWN)
    await settled_loop()
    assert cancelled.cancelled()
    assert patient.done()
    for permit in [*permits, patient.result()]:
        limiter.release(permit)


async def test_a_slot_granted_to_someone_just_cancelled_goes_to_the_next() -> None:
    limiter = Limiter()
    permits = await fill(limiter)
    cancelled, patient = (asyncio.create_task(limiter.acquire()) for _ in range(2))
    await settled_loop()
    limiter.release(permits.pop(), Outcome.UNKNOWN)  # now granted, but its task has not run
    cancelled.cancel()
    await settled_loop()
    assert cancelled.cancelled()
    assert patient.done()
    for permit in [*permits, patient.result()]:
        limiter.release(permit)
    assert "out=0 waiting=0" in repr(limiter)


async def test_a_window_that_has_shrunk_lets_nobody_in_until_it_is_below_its_size() -> None:
    limiter = Limiter()
    permits = await fill(limiter)
    waiting = asyncio.create_task(limiter.acquire())
    await settled_loop()
    limiter.release(permits.pop(), Outcome.LOST)  # 2 are out, 1 may be
    await settled_loop()
    assert not waiting.done()
    limiter.release(permits.pop(), Outcome.LOST)
    await settled_loop()
    assert not waiting.done()
    limiter.release(permits.pop(), Outcome.LOST)
    await settled_loop()
    assert waiting.done()
    for permit in [*permits, await waiting]:
        limiter.release(permit)


@pytest.mark.one_loop
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
async def test_there_are_never_more_out_than_the_window_was_and_nobody_is_forgotten(seed: int) -> None:
    dice = random.Random(seed)
    limiter = Limiter()
    out: list[Permit] = []
    waiting: list[asyncio.Task[Permit]] = []
    for _ in range(200):
        before = len(out)
        match dice.randrange(4):
            case 0 | 1:
                waiting.append(asyncio.create_task(limiter.acquire(first=dice.random() < 0.2)))
            case 2 if out:
                permit = out.pop(dice.randrange(len(out)))
                limiter.release(
                    permit, dice.choice([Outcome.LOST, Outcome.ANSWERED, Outcome.ANSWERED, Outcome.UNKNOWN])
                )
            case 3 if waiting:
                waiting.pop(dice.randrange(len(waiting))).cancel()
        await settled_loop(2)
        arrived = [task for task in waiting if task.done()]
        out += [task.result() for task in arrived]
        waiting = [task for task in waiting if not task.done()]
        assert 1 <= limiter.window <= LARGEST_WINDOW
        assert len(out) <= max(before, limiter.window)
        assert not waiting or len(out) >= limiter.window
    while out or waiting:
        limiter.release(out.pop())
        await settled_loop(2)
        out += [task.result() for task in waiting if task.done()]
        waiting = [task for task in waiting if not task.done()]
    assert "out=0 waiting=0" in repr(limiter)


# Calls that have not begun


class Call:
    """A call that notes its begin, in which it takes a permit."""

    def __init__(self, limiter: Limiter, begun: list[Call]) -> None:
        self.limiter = limiter
        self.begun = begun
        self.permit: Permit | None = None

    def enter(self) -> None:
        if self.limiter.enter(self):
            self.begin()

    def begin(self) -> None:
        self.begun.append(self)

    async def take(self) -> None:
        self.permit = await self.limiter.acquire(first=True)
        self.limiter.end_turn()

    def end(self) -> None:
        assert self.permit is not None
        self.limiter.release(self.permit)


async def test_as_many_calls_begin_as_may_have_requests_out_in_their_order() -> None:
    limiter, begun = Limiter(), list[Call]()
    calls = [Call(limiter, begun) for _ in range(6)]
    for call in calls:
        call.enter()
    assert begun == calls[:FIRST_WINDOW]
    for call in begun:
        await call.take()
    await settled_loop()
    assert begun == calls[:FIRST_WINDOW]
    calls[0].end()
    assert begun == calls[: FIRST_WINDOW + 1]
    assert limiter.waiting == 2


async def test_a_call_that_needs_no_permit_lets_another_one_begin() -> None:
    limiter, begun = Limiter(), list[Call]()
    calls = [Call(limiter, begun) for _ in range(FIRST_WINDOW + 1)]
    for call in calls:
        call.enter()
    limiter.end_turn()
    assert begun == calls


async def test_who_leaves_the_line_does_not_begin() -> None:
    limiter, begun = Limiter(), list[Call]()
    calls = [Call(limiter, begun) for _ in range(FIRST_WINDOW + 2)]
    for call in calls:
        call.enter()
    limiter.leave(calls[FIRST_WINDOW])
    limiter.leave(calls[0])  # it has begun, and is not in line
    limiter.end_turn()
    assert begun == calls[:FIRST_WINDOW] + calls[FIRST_WINDOW + 1 :]


async def test_requests_of_calls_that_have_begun_go_before_those_that_have_not() -> None:
    limiter, begun = Limiter(), list[Call]()
    permits = await fill(limiter)
    second = asyncio.create_task(limiter.acquire(first=True))
    await settled_loop()
    Call(limiter, begun).enter()
    limiter.release(permits[0])
    await second
    assert not begun
    limiter.release(permits[1])
    assert len(begun) == 1


async def test_a_few_go_on_in_one_iteration_of_the_loop() -> None:
    """The replies to what goes out together come together, and then the loop has nothing to do until they do."""
    limiter, begun = Limiter(), list[Call]()
    limiter._window.size = LARGEST_WINDOW
    for _ in range(3 * AT_A_TIME):
        Call(limiter, begun).enter()
    seen = [len(begun)]
    while seen[-1] < 3 * AT_A_TIME:
        await asyncio.sleep(0)
        seen.append(len(begun))
    assert seen == [AT_A_TIME, 2 * AT_A_TIME, 3 * AT_A_TIME]


async def test_requests_that_wait_go_on_a_few_at_a_time_too() -> None:
    limiter = Limiter()
    permits = await fill(limiter)
    done = 0

    async def ask() -> None:
        nonlocal done
        await limiter.acquire()
        done += 1

    tasks = [asyncio.create_task(ask()) for _ in range(3 * AT_A_TIME)]
    await settled_loop()
    limiter._window.size = LARGEST_WINDOW
    limiter.release(permits[0])
    steps = set[int]()
    while done < len(tasks):
        before = done
        await asyncio.sleep(0)
        steps.add(done - before)
    assert max(steps) == AT_A_TIME


async def test_what_this_program_computes_is_not_the_gateway_s_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every gateway would seem to get slower with the number out, on a machine that is slower than it."""
    now, computed = 100.0, 10.0
    monkeypatch.setattr("aioigd.core.limiter.perf_counter", lambda: now)
    monkeypatch.setattr("aioigd.core.limiter.thread_time", lambda: computed)
    limiter = Limiter(_idle_time)
    permits = await fill(limiter)
    waiting = asyncio.create_task(limiter.acquire())
    await settled_loop()
    now, computed = now + 0.09, computed + 0.07
    limiter.release(permits[0])
    await waiting
    (sample,) = limiter._window._samples
    assert math.exp(sample.time) == pytest.approx(0.02)


def test_where_the_time_of_a_thread_is_not_known_all_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "thread_time")
    idle_time = runpy.run_path(limiter_module.__file__, run_name="limiter_elsewhere")["_idle_time"]
    before = time.perf_counter()
    assert before <= idle_time() <= time.perf_counter()


@pytest.mark.parametrize("outcome", [Outcome.ANSWERED, Outcome.LOST])
async def test_an_undo_goes_before_what_has_not_begun_unless_the_gateway_is_silent(outcome: Outcome) -> None:
    """Where it is, each undo would take the time of a call in vain, and a batch twice as long to fail."""
    limiter, begun = Limiter(), list[Call]()
    limiter._window.size = 1
    (permit,) = await fill(limiter)
    call = Call(limiter, begun)
    call.enter()
    limiter.release(permit, outcome)
    limiter.end_turn()
    (permit,) = await fill(limiter)
    behind = Call(limiter, begun)
    behind.enter()
    undo = asyncio.create_task(limiter.acquire())
    await settled_loop()
    assert begun == [call]
    limiter.release(permit, Outcome.UNKNOWN)
    await settled_loop()
    assert undo.done() is (outcome is Outcome.ANSWERED)
    assert (behind in begun) is (outcome is Outcome.LOST)
    if outcome is Outcome.LOST:
        await behind.take()
        behind.end()
    await undo


async def test_an_undo_that_is_cancelled_leaves_the_line() -> None:
    limiter, begun = Limiter(), list[Call]()
    (*_, permit) = await fill(limiter)
    limiter.release(permit, Outcome.LOST)
    Call(limiter, begun).enter()
    undo = asyncio.create_task(limiter.acquire())
    await settled_loop()
    assert limiter.waiting == 2
    undo.cancel()
    await settled_loop()
    assert limiter.waiting == 1
