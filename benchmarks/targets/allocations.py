"""The memory of one mapping: what it takes while it is made, and what stays."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from urllib.parse import urljoin

from aioigd import PortMapper

from .. import bare
from ..figures import Figure
from ..gateway_server import CONTROL, GatewayProcess, gateway_process

COUNT = 1_000
WARM_UP = 50
PORTS = range(40_000, 40_000 + COUNT)


class Memory:
    """What tracemalloc saw of Python's memory, per mapping: the bytes that stay, and those at the highest point."""

    def __init__(self) -> None:
        gc.collect()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()

    def end(self, count: int) -> tuple[float, float]:
        """Return bytes per mapping: what stays, and the highest point."""
        peak = tracemalloc.get_traced_memory()[1]
        gc.collect()
        now = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return (now - self._before) / count, (peak - self._before) / count


async def map_one_by_one(gateway: GatewayProcess) -> tuple[float, float]:
    """Return what stays of each mapping, and the peak of all together."""
    async with PortMapper(source_address=gateway.address) as mapper:
        for port in PORTS[:WARM_UP]:
            await mapper.add_port_mapping(port - 1000, proto="TCP")
        memory = Memory()
        for port in PORTS:
            await mapper.add_port_mapping(port, proto="TCP")
        return memory.end(COUNT)


async def map_together(gateway: GatewayProcess) -> tuple[float, float]:
    """Return what stays of each mapping of a batch, and the peak per mapping."""
    async with PortMapper(source_address=gateway.address) as mapper:
        for port in PORTS[:WARM_UP]:
            await mapper.add_port_mapping(port - 1000, proto="TCP")
        memory = Memory()
        await asyncio.gather(*(mapper.add_port_mapping(port, proto="TCP") for port in PORTS))
        return memory.end(COUNT)


async def peak_of_one(gateway: GatewayProcess) -> tuple[float, float]:
    """Return the highest point of a single mapping."""
    async with PortMapper(source_address=gateway.address) as mapper:
        for port in PORTS[:WARM_UP]:
            await mapper.add_port_mapping(port - 1000, proto="TCP")
        memory = Memory()
        await mapper.add_port_mapping(PORTS[0], proto="TCP")
        return memory.end(1)


async def peak_of_post(gateway: GatewayProcess) -> tuple[float, float]:
    """Return the highest point of a single bare post."""
    requests = bare.bodies(gateway.address, PORTS[:WARM_UP])
    async with bare.open_session() as session:
        for body in requests:
            await bare.post(session, urljoin(gateway.location, CONTROL), body)
        memory = Memory()
        await bare.post(session, urljoin(gateway.location, CONTROL), requests[0])
        return memory.end(1)


def measure(runs: int) -> list[Figure]:
    """Measure single mappings and a batch."""
    with gateway_process() as gateway:
        sequences = [asyncio.run(map_one_by_one(gateway)) for _ in range(runs)]
        batches = [asyncio.run(map_together(gateway)) for _ in range(runs)]
        singles = [asyncio.run(peak_of_one(gateway)) for _ in range(runs)]
        posts = [asyncio.run(peak_of_post(gateway)) for _ in range(runs)]
    return [
        Figure("memory at the highest point of one mapping", [peak / 1024 for _, peak in singles], "KiB"),
        Figure("memory at the highest point of one bare post", [peak / 1024 for _, peak in posts], "KiB"),
        Figure("memory of each of 1,000 mappings in a batch", [peak / 1024 for _, peak in batches], "KiB"),
        Figure("memory that stays of a mapping, one after another", [stays for stays, _ in sequences], "B"),
        Figure("memory that stays of a mapping in a batch", [stays for stays, _ in batches], "B"),
    ]
