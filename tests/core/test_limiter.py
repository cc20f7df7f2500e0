"""The window of requests that one gateway gets at once: how it grows and shrinks, and who comes next."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioigd.core.limiter import FIRST_WINDOW, LARGEST_WINDOW, Limiter, Outcome, Permit

from ..support import settled_loop

pytestmark = pytest.mark.usefixtures("nothing_is_left")


async def fill(limiter: Limiter, number: int | None = None) -> list[Permit]:
    """Take so many permits, or all that there are."""
    return [await limiter.acquire() for _ in range(number if number is not None else int(limiter.window))]


async def succeed(limiter: Limiter, times: int) -> None:
    for _ in range(times):
        limiter.release(await limiter.acquire())


async def test_at_first_a_few_are_let_through_and_the_rest_waits() -> None:
    limiter = Limiter()
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(10)]
    await settled_loop()
    assert [task.done() for task in tasks] == [True] * FIRST_WINDOW + [False] * (10 - FIRST_WINDOW)
    assert repr(limiter) == "<Limiter window=4.0 out=4 waiting=6>"
    for task in tasks:
        limiter.release(await task)


async def test_the_window_grows_to_its_largest_with_successes_and_no_further() -> None:
    limiter = Limiter()
    await succeed(limiter, 500)
    assert limiter.window == LARGEST_WINDOW


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
    permits = await fill(limiter, 4)
    limiter.release(permits[0], Outcome.LOST)
    assert limiter.window == FIRST_WINDOW // 2


async def test_those_lost_together_count_once() -> None:
    limiter = Limiter()
    for permit in await fill(limiter, 4):
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


async def test_the_window_never_falls_below_one() -> None:
    limiter = Limiter()
    for _ in range(20):
        permits = [await limiter.acquire(), *(await fill(limiter, int(limiter.window) - 1))]
        for permit in permits:
            limiter.release(permit, Outcome.LOST)
    assert limiter.window == 1


async def test_after_a_loss_the_size_that_failed_is_avoided_until_many_have_succeeded() -> None:
    limiter = Limiter()
    for permit in await fill(limiter, 4):
        limiter.release(permit, Outcome.LOST)
    await succeed(limiter, 20)
    assert limiter.window == 3
    await succeed(limiter, 40)
    assert limiter.window == 4


async def test_each_further_loss_makes_it_wait_twice_as_long() -> None:
    async def successes_until_two(limiter: Limiter) -> int:
        number = 0
        while limiter.window < 2:
            await succeed(limiter, 1)
            number += 1
        return number

    limiter = Limiter()
    for permit in await fill(limiter, 4):
        limiter.release(permit, Outcome.LOST)
    waits = []
    for _ in range(4):
        await succeed(limiter, 3)
        while int(limiter.window) > 1:
            for permit in await fill(limiter):
                limiter.release(permit, Outcome.LOST)
        waits.append(await successes_until_two(limiter))
    assert waits == sorted(waits)
    assert waits[-1] >= 4 * waits[0]


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
    limiter.release(permits.pop(), Outcome.LOST)  # 3 are out, 2 may be
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


async def batch(capacity: int, requests: int) -> tuple[Limiter, int, int]:
    """Send requests through a limiter to a gateway that loses whatever is over its capacity, until all have come."""
    limiter = Limiter()
    out = peak = sent = 0

    async def request() -> None:
        nonlocal out, peak, sent
        again = False
        while True:
            permit = await limiter.acquire(first=again)
            out += 1
            sent += 1
            peak = max(peak, out)
            lost = out > capacity
            await asyncio.sleep(0)
            out -= 1
            limiter.release(permit, Outcome.LOST if lost else Outcome.ANSWERED)
            if not lost:
                return
            again = True

    await asyncio.gather(*(request() for _ in range(requests)))
    return limiter, peak, sent


@pytest.mark.parametrize("capacity", [1, 2, 3, 5])
async def test_a_batch_settles_at_what_the_gateway_can_take(capacity: int) -> None:
    limiter, peak, sent = await batch(capacity, 1000)
    assert peak <= LARGEST_WINDOW
    assert limiter.window <= capacity + 1
    assert sent <= 1030  # of a thousand requests, few were in vain


async def test_a_strong_gateway_gets_the_whole_window() -> None:
    limiter, peak, sent = await batch(100, 1000)
    assert (limiter.window, peak, sent) == (LARGEST_WINDOW, LARGEST_WINDOW, 1000)


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
        assert len(out) <= max(before, int(limiter.window))
        assert not waiting or len(out) >= int(limiter.window)
    while out or waiting:
        limiter.release(out.pop())
        await settled_loop(2)
        out += [task.result() for task in waiting if task.done()]
        waiting = [task for task in waiting if not task.done()]
    assert "out=0 waiting=0" in repr(limiter)
