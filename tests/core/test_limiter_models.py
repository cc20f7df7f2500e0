"""What the limiter makes of gateways of all kinds, on a clock that jumps: how long a batch takes, and who suffers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Final

import pytest

from aioigd import PortMapper
from aioigd.core.limiter import FIRST_WINDOW, LARGEST_WINDOW, Elasticity, Limiter, Outcome, Sample
from aioigd.testing import EmulatedGateway, quirks
from aioigd.testing.http import Admission

from ..leases import virtual
from ..support import odd
from ..testing.test_gateway import on_linux
from .model_gateways import BATCH, MODELS, ModelGateway, results, simulate, table


@dataclass(frozen=True)
class Bound:
    """What a batch may cost at most: ``of_best`` is the ratio to the time of a limiter that knows the gateway."""

    best: float
    of_best: float
    resets: int = 0
    late_most_out: int = LARGEST_WINDOW
    most_out: int = LARGEST_WINDOW


ONE_BY_ONE: Final = BATCH * 0.02
BOUNDS: Final = {
    "parallel, 20 ms": Bound(0.16, 1.8),
    "parallel, 100 ms": Bound(0.8, 1.8),
    "one by one, 20 ms": Bound(ONE_BY_ONE, 1.001, most_out=3),
    "one by one, 18 ms, and 2 ms of the link": Bound(BATCH * 0.018, 1.001, most_out=3),
    "all in turn on one processor, 20 ms": Bound(ONE_BY_ONE, 1.001, most_out=6, late_most_out=3),
    "one connection, 5 ms, resets others": Bound(BATCH * 0.005, 1.02, resets=8, most_out=3, late_most_out=2),
    "5 connections, 20 ms, resets others": Bound(ONE_BY_ONE / 5, 1.05, resets=12, most_out=6),
    "8 workers, 20 ms": Bound(ONE_BY_ONE / 8, 1.15, late_most_out=24),
    "slower from 16 on": Bound(ONE_BY_ONE / 16, 1.15, late_most_out=48),
    "ten times slower from 16 on": Bound(ONE_BY_ONE / 15, 2.4, late_most_out=24),
    "parallel, 5 ms, over Wi-Fi": Bound(0.24, 3.0),
    "one by one, 20 ms, over Wi-Fi": Bound(ONE_BY_ONE, 1.1, most_out=16, late_most_out=8),
    "parallel, slow at first": Bound(0.76, 1.2),
    "one by one, slow at first": Bound(24.4, 1.02, late_most_out=4),
    "parallel, one by one from the middle on": Bound(10.0, 1.2),
    "one by one, parallel from the middle on": Bound(10.0, 1.06),
    "parallel, 20 ms, then 100 ms": Bound(0.6, 1.5),
    "the first at once, 10 connections, resets others": Bound(ONE_BY_ONE / 10, 1.3, resets=16, late_most_out=13),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_is_nearly_as_fast_as_the_gateway_can_be(name: str) -> None:
    bound = BOUNDS[name]
    batch, _ = results(name)
    assert batch.seconds <= bound.best * bound.of_best
    assert batch.resets <= bound.resets
    assert batch.most_out <= bound.most_out
    assert batch.late_most_out <= bound.late_most_out


def test_the_documentation_shows_what_comes_of_them() -> None:
    assert table() in (Path(__file__).parents[2] / "docs" / "guides" / "batches.md").read_text("utf-8")


@pytest.mark.parametrize("name", MODELS)
def test_no_gateway_gets_more_at_first_than_a_weak_one_stands(name: str) -> None:
    gateway = MODELS[name]()
    simulate(gateway, requests=FIRST_WINDOW + 5)
    assert max(gateway.saw[:FIRST_WINDOW]) == gateway.saw[FIRST_WINDOW - 1] <= 4


def test_a_second_batch_begins_where_the_first_one_ended() -> None:
    first, second = results("parallel, 20 ms")
    assert first.seconds >= 1.5 * second.seconds
    assert second.seconds == pytest.approx(BATCH / LARGEST_WINDOW * 0.02, rel=0.05)


def test_a_gateway_that_changed_between_two_batches_is_noticed() -> None:
    gateway = ModelGateway(workers=lambda served: 1 if served >= BATCH else None)
    _, second = simulate(gateway, batches=2)
    assert second.usually_out < LARGEST_WINDOW / 4
    assert gateway.saw[-10:] == pytest.approx([2] * 10, abs=1)
    assert second.seconds <= 1.02 * ONE_BY_ONE


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.long if seed >= 6 else ()) for seed in range(20)]
)
def test_chance_on_a_wifi_neither_stops_the_growth_nor_floods_the_gateway(seed: int) -> None:
    link = MODELS["parallel, 5 ms, over Wi-Fi"].keywords["link"]  # type: ignore[attr-defined]
    (parallel,) = simulate(ModelGateway(0.005, link=link, seed=seed))
    (serial,) = simulate(ModelGateway(workers=1, link=link, seed=seed))
    assert parallel.seconds < 1.5  # one by one it would be 17 seconds, eight at once two
    assert serial.seconds < 1.1 * ONE_BY_ONE
    assert serial.usually_out <= 4


@pytest.mark.parametrize("workers", [1, None])
def test_slow_requests_beside_quick_ones_are_not_compared_with_them(workers: int | None) -> None:
    """A table of 6 seconds, and questions that are answered at once, beside mappings of 20 ms."""
    times = {"add": 0.02, "table": 6.0, "ask": 0.001}
    kinds = ["table", *["ask", "add", "add"] * 400]

    async def main() -> tuple[float, int]:
        limiter, out, most = Limiter(), 0, 0
        turn = asyncio.Semaphore(workers or 1000)

        async def request(kind: str) -> None:
            nonlocal out, most
            permit = await limiter.acquire()
            out += 1
            most = max(most, out)
            # The table is read beside the rest: a gateway that does nothing else meanwhile would not be asked at all.
            if kind == "table":
                await asyncio.sleep(times[kind])
            else:
                async with turn:
                    await asyncio.sleep(times[kind])
            out -= 1
            limiter.release(permit, kind=kind)
            if kind != "table":
                ended.append(asyncio.get_running_loop().time())

        ended: list[float] = []
        await asyncio.gather(*map(request, kinds))
        return max(ended), most

    seconds, most = virtual.run(main(), debug=False)
    if workers:
        assert seconds <= 1.01 * sum(times[kind] for kind in kinds[1:])
        assert most <= 6
    else:
        assert seconds <= 0.5
        assert most > 64


def test_quick_refusals_teach_nothing_about_what_is_granted() -> None:
    """Each mapping is refused at once, and granted on other terms after a while; the gateway works in parallel."""

    async def main() -> float:
        limiter = Limiter()

        async def request() -> None:
            for kind, seconds in ((("add", 500), 0.001), (("add", 200), 0.05)):
                permit = await limiter.acquire(first=kind[1] == 200)
                await asyncio.sleep(seconds)
                limiter.release(permit, kind=kind)

        await asyncio.gather(*(request() for _ in range(BATCH)))
        return asyncio.get_running_loop().time()

    assert virtual.run(main(), debug=False) < 1.5  # one by one it would be 50 seconds


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_what_was_not_answered_teaches_no_times(seconds: float) -> None:
    """Half of the requests are cancelled, at once or late."""

    async def main() -> list[int]:
        limiter = Limiter()
        windows = []

        async def request(number: int) -> None:
            permit = await limiter.acquire()
            is_cancelled = number % 2 == 0
            await asyncio.sleep(seconds if is_cancelled else 0.02)
            limiter.release(permit, Outcome.UNKNOWN if is_cancelled else Outcome.ANSWERED, "add")
            windows.append(limiter.window)

        await asyncio.gather(*(request(number) for number in range(2 * BATCH)))
        return windows

    windows = virtual.run(main(), debug=False)
    assert windows[-1] == LARGEST_WINDOW
    assert sorted(windows) == windows  # it did not shrink once


def test_after_a_long_pause_it_begins_with_few_again() -> None:
    async def main() -> None:
        limiter = Limiter()

        async def request() -> None:
            permit = await limiter.acquire()
            await asyncio.sleep(0.02)
            limiter.release(permit)

        for pause, window in ((10, LARGEST_WINDOW), (60, FIRST_WINDOW)):
            await asyncio.gather(*(request() for _ in range(BATCH)))
            await asyncio.sleep(pause)
            limiter.release(await limiter.acquire())
            assert limiter.window == window

    virtual.run(main())


def test_after_a_loss_fewer_are_out_for_long_and_each_further_loss_makes_that_longer() -> None:
    gateway = ModelGateway(0.005, workers=1, most=1)
    simulate(gateway, requests=3000)
    tries = [place for place, out in enumerate(gateway.saw) if out == 2]
    pauses = [later - earlier for earlier, later in pairwise(tries[2:])]
    assert len(pauses) >= 4
    assert all(later > 1.8 * earlier for earlier, later in pairwise(pauses))


def test_a_loop_without_a_clock_of_its_own_is_not_asked_for_the_time() -> None:
    """Those of Windows and of uvloop are coarse."""

    async def main() -> float:
        limiter = Limiter()
        return (await limiter.acquire()).since

    assert asyncio.run(main()) > 0
    assert virtual.run(main()) == 0.0


# With the rest of the library, and real connections


@on_linux
@pytest.mark.parametrize(("admission", "least", "most"), [(Admission.WAIT, 2, 3), (Admission.SERVE, 48, 128)])
def test_as_many_connections_are_open_at_once_as_a_gateway_makes_use_of(
    admission: Admission, least: int, most: int
) -> None:
    seen: list[int] = []

    def admit(others: int) -> Admission:
        seen.append(others + 1)
        return admission if others else Admission.SERVE

    async def main() -> None:
        async with (
            EmulatedGateway(odd(admit=admit), quirks.slow(0.02), address=None) as gateway,
            PortMapper(location=gateway.location) as mapper,
        ):
            await asyncio.gather(*(mapper.add_port_mapping(port) for port in range(1, 301)))
            assert len(gateway.mappings) == 300

    virtual.run(main(), debug=False)
    assert max(seen[:FIRST_WINDOW]) <= FIRST_WINDOW
    assert least <= max(seen) <= most


# The elasticity


def samples(times: dict[int, float], kind: str = "add") -> list[Sample]:
    return [Sample(kind, log(out), log(seconds)) for out, seconds in times.items()]


@pytest.mark.parametrize(
    ("times", "slope"),
    [
        ({1: 0.02, 2: 0.02, 3: 0.02}, 0.0),
        ({1: 0.02, 2: 0.04, 3: 0.06}, 1.0),
        ({2: 0.02, 8: 0.04, 32: 0.08}, 0.5),
        ({1: 0.06, 2: 0.03, 3: 0.02}, -1.0),
    ],
    ids=["parallel", "one by one", "in between", "faster"],
)
def test_the_elasticity_is_that_of_the_model(times: dict[int, float], slope: float) -> None:
    found = Elasticity.of(samples(times))
    assert found is not None
    assert found.slope == pytest.approx(slope, abs=1e-9)
    assert found.error == pytest.approx(0.0, abs=1e-6)


def test_kinds_are_compared_with_themselves_only() -> None:
    mixed = samples({1: 6.0, 2: 6.0}, "table") + samples({3: 0.02, 9: 0.02}) + samples({5: 0.001}, "ask")
    found = Elasticity.of(mixed)
    assert found is not None
    assert found.slope == pytest.approx(0.0, abs=1e-9)


def test_chance_shows_in_the_error() -> None:
    found = Elasticity.of(samples({1: 0.02, 2: 0.09, 3: 0.03, 4: 0.1}))
    assert found is not None
    assert found.error > 0.5


@pytest.mark.parametrize(
    "some",
    [[], samples({4: 0.02}), samples({4: 0.02}) * 50, samples({4: 0.02, 8: 0.04}), samples({100: 1, 101: 2, 102: 9})],
    ids=["none", "one", "all the same", "two", "hardly different"],
)
def test_too_little_says_nothing(some: list[Sample]) -> None:
    assert Elasticity.of(some) is None
