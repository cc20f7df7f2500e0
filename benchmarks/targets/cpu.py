"""What one mapping costs this process in CPU time, against aiohttp alone."""

from __future__ import annotations

import asyncio
import gc
import time
from urllib.parse import urljoin

from aioigd import PortMapper

from .. import bare
from ..figures import Figure, ratios
from ..gateway_server import CONTROL, GatewayProcess, gateway_process

COUNT = 300
WARM_UP = 20
CONCURRENCY = 8
PORTS = range(30_000, 30_000 + COUNT)


async def map_one_by_one(gateway: GatewayProcess) -> float:
    """Return the CPU seconds of one mapping, one after another."""
    async with PortMapper(source_address=gateway.address) as mapper:
        for port in range(1, WARM_UP):
            await mapper.add_port_mapping(port, desc="benchmark", proto="TCP")
        gc.collect()
        started = time.process_time()
        for port in PORTS:
            await mapper.add_port_mapping(port, desc="benchmark", proto="TCP")
        return (time.process_time() - started) / COUNT


async def map_together(gateway: GatewayProcess) -> float:
    """Return the CPU seconds of one mapping in a batch."""
    async with PortMapper(source_address=gateway.address) as mapper:
        for port in range(1, WARM_UP):
            await mapper.add_port_mapping(port, desc="benchmark", proto="TCP")
        gc.collect()
        started = time.process_time()
        await asyncio.gather(*(mapper.add_port_mapping(port, desc="benchmark", proto="TCP") for port in PORTS))
        return (time.process_time() - started) / COUNT


async def post_one_by_one(gateway: GatewayProcess) -> float:
    """Return the CPU seconds of one post, one after another."""
    requests = bare.bodies(gateway.address, PORTS)
    async with bare.open_session() as session:
        for body in requests[:WARM_UP]:
            await bare.post(session, urljoin(gateway.location, CONTROL), body)
        gc.collect()
        started = time.process_time()
        for body in requests:
            await bare.post(session, urljoin(gateway.location, CONTROL), body)
        return (time.process_time() - started) / COUNT


async def post_together(gateway: GatewayProcess) -> float:
    """Return the CPU seconds of one post, several at once."""
    requests = bare.bodies(gateway.address, PORTS)
    await bare.post_all(urljoin(gateway.location, CONTROL), requests[:WARM_UP], CONCURRENCY)
    gc.collect()
    started = time.process_time()
    await bare.post_all(urljoin(gateway.location, CONTROL), requests, CONCURRENCY)
    return (time.process_time() - started) / COUNT


def measure(runs: int) -> list[Figure]:
    """Measure both ways, ours and theirs in turn."""
    ours, theirs, ours_together, theirs_together = [], [], [], []
    with gateway_process() as gateway:
        for _ in range(runs):
            ours.append(asyncio.run(map_one_by_one(gateway)))
            theirs.append(asyncio.run(post_one_by_one(gateway)))
            ours_together.append(asyncio.run(map_together(gateway)))
            theirs_together.append(asyncio.run(post_together(gateway)))
    return [
        Figure("CPU of a mapping, one after another", [one * 1e6 for one in ours], "us"),
        Figure("CPU of a bare post, one after another", [one * 1e6 for one in theirs], "us"),
        ratios("mapping, to bare post, one after another", ours, theirs, 1.25),
        Figure("CPU of a mapping in a batch", [one * 1e6 for one in ours_together], "us"),
        Figure(f"CPU of a bare post, {CONCURRENCY} at once", [one * 1e6 for one in theirs_together], "us"),
        ratios("mapping, to bare post, in a batch", ours_together, theirs_together, 1.25),
    ]
