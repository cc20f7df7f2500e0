"""The window of requests that one gateway gets at once: how it grows and shrinks, and who comes next."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioigd.core.limiter import FIRST_WINDOW, LARGEST_WINDOW, Limiter, Slot

from ..support import settled_loop

pytestmark = pytest.mark.usefixtures("nothing_is_left")


async def fill(limiter: Limiter, number: int | None = None) -> list[Slot]:
    """Take so many slots, or all that there are."""
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
    assert [first.shared] == [False]
    second = await limiter.acquire()
    assert first.shared
    assert second.shared
    limiter.release(second)
    assert first.shared  # it was, and what happens to it may be a matter of numbers
    limiter.release(first)
    assert not (await limiter.acquire()).shared


async def test_a_loss_among_others_halves_the_window() -> None:
    limiter = Limiter()
    slots = await fill(limiter, 4)
    limiter.release(slots[0], lost=True)
    assert limiter.window == FIRST_WINDOW // 2


async def test_those_lost_together_count_once() -> None:
    limiter = Limiter()
    for slot in await fill(limiter, 4):
        limiter.release(slot, lost=True)
    assert limiter.window == FIRST_WINDOW // 2


async def test_a_loss_alone_says_nothing_about_numbers() -> None:
    limiter = Limiter()
    for _ in range(5):
        limiter.release(await limiter.acquire(), lost=True)
    assert limiter.window == FIRST_WINDOW


async def test_an_unknown_outcome_changes_nothing() -> None:
    limiter = Limiter()
    for slot in await fill(limiter):
        limiter.release(slot, lost=None)
    assert limiter.window == FIRST_WINDOW


async def test_the_window_never_falls_below_one() -> None:
    limiter = Limiter()
    for _ in range(20):
        slots = [await limiter.acquire(), *(await fill(limiter, int(limiter.window) - 1))]
        for slot in slots:
            limiter.release(slot, lost=True)
    assert limiter.window == 1


async def test_after_a_loss_the_size_that_failed_is_avoided_until_many_have_succeeded() -> None:
    limiter = Limiter()
    for slot in await fill(limiter, 4):
        limiter.release(slot, lost=True)
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
    for slot in await fill(limiter, 4):
        limiter.release(slot, lost=True)
    waits = []
    for _ in range(4):
        await succeed(limiter, 3)
        while int(limiter.window) > 1:
            for slot in await fill(limiter):
                limiter.release(slot, lost=True)
        waits.append(await successes_until_two(limiter))
    assert waits == sorted(waits)
    assert waits[-1] >= 4 * waits[0]


async def test_who_came_first_goes_first_and_who_has_begun_before_all() -> None:
    limiter = Limiter()
    slots = await fill(limiter)
    order: list[str] = []

    async def come(name: str, *, first: bool = False) -> None:
        slot = await limiter.acquire(first=first)
        order.append(name)
        limiter.release(slot)

    comers = [
        asyncio.create_task(come("a")),
        asyncio.create_task(come("b")),
        asyncio.create_task(come("again", first=True)),
    ]
    await settled_loop()
    limiter.release(slots.pop(), lost=None)
    await asyncio.gather(*comers)
    assert order == ["again", "a", "b"]
    for slot in slots:
        limiter.release(slot)


async def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    limiter = Limiter()
    slots = await fill(limiter)
    waiting = asyncio.create_task(limiter.acquire())
    await settled_loop()
    limiter.release(slots.pop(), lost=None)
    newcomer = asyncio.create_task(limiter.acquire())
    await settled_loop()
    assert (waiting.done(), newcomer.done()) == (True, False)
    for slot in [*slots, await waiting]:
        limiter.release(slot)
    limiter.release(await newcomer)


async def test_who_is_cancelled_while_waiting_is_passed_over() -> None:
    limiter = Limiter()
    slots = await fill(limiter)
    cancelled, patient = (asyncio.create_task(limiter.acquire()) for _ in range(2))
    await settled_loop()
    cancelled.cancel()
    await settled_loop()
    limiter.release(slots.pop(), lost=None)
    await settled_loop()
    assert cancelled.cancelled()
    assert patient.done()
    for slot in [*slots, patient.result()]:
        limiter.release(slot)


async def test_a_slot_granted_to_someone_just_cancelled_goes_to_the_next() -> None:
    limiter = Limiter()
    slots = await fill(limiter)
    cancelled, patient = (asyncio.create_task(limiter.acquire()) for _ in range(2))
    await settled_loop()
    limiter.release(slots.pop(), lost=None)  # now granted, but its task has not run
    cancelled.cancel()
    await settled_loop()
    assert cancelled.cancelled()
    assert patient.done()
    for slot in [*slots, patient.result()]:
        limiter.release(slot)
    assert "out=0 waiting=0" in repr(limiter)


async def test_a_window_that_has_shrunk_lets_nobody_in_until_it_is_below_its_size() -> None:
    limiter = Limiter()
    slots = await fill(limiter)
    waiting = asyncio.create_task(limiter.acquire())
    await settled_loop()
    limiter.release(slots.pop(), lost=True)  # 3 are out, 2 may be
    await settled_loop()
    assert not waiting.done()
    limiter.release(slots.pop(), lost=True)
    await settled_loop()
    assert not waiting.done()
    limiter.release(slots.pop(), lost=True)
    await settled_loop()
    assert waiting.done()
    for slot in [*slots, await waiting]:
        limiter.release(slot)


async def batch(capacity: int, requests: int) -> tuple[Limiter, int, int]:
    """Send requests through a limiter to a gateway that loses whatever is over its capacity, until all have come."""
    limiter = Limiter()
    out = peak = sent = 0

    async def request() -> None:
        nonlocal out, peak, sent
        again = False
        while True:
            slot = await limiter.acquire(first=again)
            out += 1
            sent += 1
            peak = max(peak, out)
            lost = out > capacity
            await asyncio.sleep(0)
            out -= 1
            limiter.release(slot, lost=lost)
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
    out: list[Slot] = []
    waiting: list[asyncio.Task[Slot]] = []
    for _ in range(200):
        before = len(out)
        match dice.randrange(4):
            case 0 | 1:
                waiting.append(asyncio.create_task(limiter.acquire(first=dice.random() < 0.2)))
            case 2 if out:
                slot = out.pop(dice.randrange(len(out)))
                limiter.release(slot, lost=dice.choice([True, False, False, None]))
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
