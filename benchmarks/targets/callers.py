"""Many callers that want the same thing at once: what they cost, and what it costs to cancel them all."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import Sequence
from typing import Any, Final

from aioigd import PortMapper

from ..bench import Bench
from ..gateway_server import gateway_process
from ..peers import OURS
from ..process import Process
from ..workload import CALLERS, PORT, call_identical

EMPTY: Final = "empty coroutines"
PLAIN: Final = "plain tasks"
FEWEST_CANCELLED: Final = 1_000


def measure(bench: Bench) -> None:
    """Compare with gathering as many coroutines that do nothing, and cancelling as many tasks that wait."""
    with gateway_process() as gateway:
        for callers, _ in itertools.product(bench.plan.callers, range(bench.plan.runs)):
            of: dict[str, Any] = {"callers": callers}
            bench.add("callers", OURS, "s", asyncio.run(call_identical(gateway.location, callers)), **of)
            bench.add("callers", EMPTY, "s", asyncio.run(_gather_nothing(callers)), **of)
            if callers >= FEWEST_CANCELLED:
                bench.add("callers: cancelled", OURS, "s", asyncio.run(_cancel_identical(gateway, callers)), **of)
                bench.add("callers: cancelled", PLAIN, "s", asyncio.run(_cancel_plain(callers)), **of)
                gc.disable()  # it looks at everything ever more often as there is more of it
                bench.add("callers: uncollected", OURS, "s", asyncio.run(_cancel_identical(gateway, callers)), **of)
                gc.enable()
        several = min(CALLERS, max(bench.plan.callers))
        for _ in range(bench.plan.runs):
            bench.add("callers: cold", OURS, "s", asyncio.run(_call_cold(gateway, several)), n=several)


async def nothing() -> None:
    """Be awaited."""


async def _gather_nothing(callers: int) -> float:
    gc.collect()
    started = time.perf_counter()
    await asyncio.gather(*(nothing() for _ in range(callers)))
    return time.perf_counter() - started


async def _call_cold(gateway: Process, callers: int) -> float:
    """Return the seconds that so many identical calls take from nothing, and check what the gateway saw of them."""
    gateway.ask()
    async with PortMapper(source_address=gateway.address) as mapper:
        started = time.perf_counter()
        await asyncio.gather(*(mapper.add_port_mapping(PORT, proto="TCP") for _ in range(callers)))
        took = time.perf_counter() - started
    counts = gateway.ask()
    assert (counts["GET /rootDesc.xml"], counts["AddPortMapping"]) == (1, 1), counts
    return took


async def _cancel_plain(callers: int) -> float:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    return await _cancel([asyncio.create_task(wait()) for _ in range(callers)])


async def _cancel_identical(gateway: Process, callers: int) -> float:
    """Return the seconds from cancelling so many callers, while their request is out, until all have ended."""
    async with PortMapper(location=gateway.location) as mapper:
        await mapper.get_gateway()
        gateway.ask(delay=3600.0)
        calls = [asyncio.create_task(mapper.add_port_mapping(PORT, proto="TCP")) for _ in range(callers)]
        try:
            return await _cancel(calls)
        finally:
            gateway.ask(delay=0.0)  # what the mapper sends to take the mapping back is answered


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> float:
    await asyncio.sleep(0.1)
    gc.collect()
    started = time.perf_counter()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    took = time.perf_counter() - started
    assert all(task.cancelled() for task in tasks)
    return took
