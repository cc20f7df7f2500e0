"""Many callers that want the same thing at once: what they cost, and what it costs to cancel them all."""

from __future__ import annotations

import asyncio
import gc
import time

from aioigd import PortMapper

from ..figures import Figure, ratios
from ..gateway_server import GatewayProcess, gateway_process

FEW, MANY, MOST = 1_000, 10_000, 100_000
PORT = 4000


async def nothing() -> None:
    """Be awaited."""


async def call_all(gateway: GatewayProcess, callers: int) -> float:
    """Return the seconds that so many identical calls take from nothing, and check what the gateway saw of them."""
    gateway.counts()
    async with PortMapper(source_address=gateway.address) as mapper:
        started = time.perf_counter()
        await asyncio.gather(*(mapper.add_port_mapping(PORT, proto="TCP") for _ in range(callers)))
        took = time.perf_counter() - started
    counts = gateway.counts()
    assert counts["AddPortMapping"] == 1, counts
    assert counts["GET"] == 1, counts
    return took


async def call_known(gateway: GatewayProcess, callers: int) -> float:
    """Return the same for a gateway that was found before."""
    async with PortMapper(location=gateway.location) as mapper:
        await mapper.get_gateway()
        gc.collect()
        started = time.perf_counter()
        await asyncio.gather(*(mapper.add_port_mapping(PORT, proto="TCP") for _ in range(callers)))
        return time.perf_counter() - started


async def gather_nothing(callers: int) -> float:
    """Return the seconds that gathering so many empty coroutines takes."""
    gc.collect()
    started = time.perf_counter()
    await asyncio.gather(*(nothing() for _ in range(callers)))
    return time.perf_counter() - started


async def cancel_plain(callers: int) -> float:
    """Return the same for tasks that wait for nothing but a future each."""
    loop = asyncio.get_running_loop()

    async def wait() -> None:
        await loop.create_future()

    tasks = [asyncio.create_task(wait()) for _ in range(callers)]
    await asyncio.sleep(0.1)
    gc.collect()
    started = time.perf_counter()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return time.perf_counter() - started


async def cancel_all(gateway: GatewayProcess, callers: int) -> float:
    """Return the seconds from cancelling so many callers, while their request is out, until all have ended."""
    gateway.counts(delay=3600.0)
    try:
        async with PortMapper(location=gateway.location) as mapper:
            await mapper.get_gateway()
            tasks = [asyncio.create_task(mapper.add_port_mapping(PORT, proto="TCP")) for _ in range(callers)]
            await asyncio.sleep(0.1)
            gc.collect()
            started = time.perf_counter()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            took = time.perf_counter() - started
            assert all(task.cancelled() for task in tasks)
            gateway.counts(delay=0.0)  # what the mapper sends to take the mapping back is answered
            return took
    finally:
        gateway.counts(delay=0.0)


def measure(runs: int) -> list[Figure]:
    """Measure with 10,000 and 100,000 callers."""
    together, known, empty = [], [], []
    cancelled: dict[int, list[float]] = {FEW: [], MANY: [], MOST: []}
    plain: dict[int, list[float]] = {FEW: [], MANY: [], MOST: []}
    with gateway_process() as gateway:
        for _ in range(runs):
            together.append(asyncio.run(call_all(gateway, MANY)))
            known.append(asyncio.run(call_known(gateway, MOST)))
            empty.append(asyncio.run(gather_nothing(MOST)))
            for callers in cancelled:
                cancelled[callers].append(asyncio.run(cancel_all(gateway, callers)))
                plain[callers].append(asyncio.run(cancel_plain(callers)))
    return [
        Figure(f"{MANY:,} identical calls, discovery included", together, "s", 1.0),
        Figure(f"cancelling {MANY:,} identical calls", cancelled[MANY], "s", 1.0),
        ratios(f"cancelling {MANY:,} identical calls, to making them", cancelled[MANY], together, 1.0),
        Figure(f"{MOST:,} identical calls", known, "s"),
        Figure(f"gathering {MOST:,} empty coroutines", empty, "s"),
        ratios(f"{MOST:,} identical calls, to gathering as many empty coroutines", known, empty, 2.5),
        *(_per_caller(f"cancelling {callers:,}, for each", cancelled[callers], callers) for callers in cancelled),
        *(_per_caller(f"cancelling {callers:,} plain tasks, for each", plain[callers], callers) for callers in plain),
    ]


def _per_caller(name: str, values: list[float], callers: int) -> Figure:
    return Figure(name, [value / callers * 1e6 for value in values], "us")
