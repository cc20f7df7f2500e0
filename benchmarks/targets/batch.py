"""A thousand different mappings at once: how long they take, how long the loop stalls, and that none is lost."""

from __future__ import annotations

import asyncio
import gc
import time
from urllib.parse import urljoin

from aioigd import PortMapper

from .. import bare
from ..figures import Figure, ratios
from ..gateway_server import CONTROL, GatewayProcess, gateway_process
from ..stalls import Heartbeat
from .identical import nothing

COUNT = 1_000
SAMPLE = 50
"""So many are made one after another; all of them would take over 20 seconds."""
DELAY = 0.02
CONCURRENCY = 8
"""The largest window of the library's limiter."""
PORTS = range(20_000, 20_000 + COUNT)


async def map_batch(gateway: GatewayProcess, *, known: bool) -> tuple[float, Heartbeat]:
    """Return the seconds that the batch takes, and the heartbeat of the loop in the meantime."""
    async with PortMapper(source_address=gateway.address) as mapper:
        if known:
            await mapper.get_gateway()
        gc.collect()
        async with Heartbeat() as heartbeat:
            started = time.perf_counter()
            mappings = await asyncio.gather(
                *(mapper.add_port_mapping(port, desc="benchmark", proto="TCP") for port in PORTS)
            )
            took = time.perf_counter() - started
        assert [mapping.external_port for mapping in mappings] == list(PORTS)
    return took, heartbeat


async def map_one_by_one(gateway: GatewayProcess) -> float:
    """Return the seconds that the batch would take one after another, from a sample of it."""
    async with PortMapper(source_address=gateway.address) as mapper:
        await mapper.get_gateway()
        started = time.perf_counter()
        for port in PORTS[:SAMPLE]:
            await mapper.add_port_mapping(port, desc="benchmark", proto="TCP")
        return (time.perf_counter() - started) * COUNT / SAMPLE


async def post_batch(gateway: GatewayProcess) -> float:
    """Return the seconds that a bare aiohttp client takes for the same."""
    requests = bare.bodies(gateway.address, PORTS)
    gc.collect()
    started = time.perf_counter()
    await bare.post_all(urljoin(gateway.location, CONTROL), requests, CONCURRENCY)
    return time.perf_counter() - started


async def gather_nothing() -> Heartbeat:
    """Return the heartbeat while as many empty coroutines are gathered."""
    gc.collect()
    async with Heartbeat() as heartbeat:
        await asyncio.gather(*(nothing() for _ in PORTS))
    return heartbeat


def measure(runs: int) -> list[Figure]:
    """Measure on a gateway that takes 20 ms for each request, and on one that serves one connection at a time."""
    batch, one_by_one, posted, crowded, resets = [], [], [], [], []
    cold, warm, empty = [], [], []
    with gateway_process("--delay", str(DELAY)) as gateway:
        for _ in range(runs):
            took, heartbeat = asyncio.run(map_batch(gateway, known=True))
            batch.append(took)
            warm.append(heartbeat)
            posted.append(asyncio.run(post_batch(gateway)))
            one_by_one.append(asyncio.run(map_one_by_one(gateway)))
            cold.append(asyncio.run(map_batch(gateway, known=False))[1])
            empty.append(asyncio.run(gather_nothing()))
    with gateway_process("--one-at-a-time") as gateway:
        for _ in range(runs):
            gateway.counts()
            crowded.append(asyncio.run(map_batch(gateway, known=True))[0])
            resets.append(float(gateway.counts().get("resets", 0)))
    return [
        Figure(f"{COUNT:,} mappings at 20 ms each", batch, "s"),
        Figure(f"{COUNT:,} mappings one after another (from {SAMPLE})", one_by_one, "s"),
        ratios("batch, to one after another", batch, one_by_one, 0.25),
        Figure(f"{COUNT:,} posts of bare aiohttp, {CONCURRENCY} at once", posted, "s"),
        ratios("batch, to bare aiohttp at the same concurrency", batch, posted, 1.15),
        Figure("longest stall of the loop, gateway known", [one.longest * 1e3 for one in warm], "ms", 20),
        Figure("the same, CPU time of the thread only", [one.longest_cpu * 1e3 for one in warm], "ms"),
        Figure("longest stall of the loop, discovery included", [one.longest * 1e3 for one in cold], "ms", 20),
        Figure("the same, CPU time of the thread only", [one.longest_cpu * 1e3 for one in cold], "ms"),
        Figure(f"longest stall while gathering {COUNT:,} empty coroutines", [one.longest * 1e3 for one in empty], "ms"),
        Figure(f"{COUNT:,} mappings, one connection at a time (all made)", crowded, "s"),
        Figure("connections that it reset", resets, ""),
    ]
