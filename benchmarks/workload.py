"""The work that is measured of aioigd itself. Only the public interface is used, so it runs on any checkout.

As a script it does one kind of work in a process of its own, and prints JSON with the figures in seconds::

    python -P benchmarks/workload.py NAME SOURCE_ADDRESS LOCATION [PROTOCOL]
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

import aioigd
from aioigd import PortMapper

HERE: Final = Path(__file__).parents[1]
PORT: Final = 4_000
PORTS: Final = range(30_000, 30_400)
WARM_UP: Final = range(1_000, 1_030)
CALLERS: Final = 10_000

Clock = Callable[[], float]


async def cold_start(source: str, port: int, **options: Any) -> float:
    """Return the seconds from making a mapper to having closed it, with a search and a mapping (not port 0) between."""
    started = time.perf_counter()
    async with PortMapper(source_address=source, **options) as mapper:
        await (mapper.add_port_mapping(port, desc="benchmark", proto="TCP") if port else mapper.get_gateway())
    return time.perf_counter() - started


async def call_identical(location: str, callers: int, clock: Clock = time.perf_counter) -> float:
    """Return the seconds that so many identical calls take on a known gateway."""
    async with PortMapper(location=location) as mapper:
        await mapper.add_port_mapping(WARM_UP[0], proto="TCP")
        gc.collect()
        started = clock()
        await asyncio.gather(*(mapper.add_port_mapping(PORT, proto="TCP") for _ in range(callers)))
        return clock() - started


def seconds_to_import(names: str, checkout: Path = HERE, clock: str = "perf_counter") -> float:
    """Return the seconds that an import takes in a new interpreter, its start excluded; aioigd is a checkout's."""
    timed = f"from time import {clock} as clock; started = clock(); import {names}; print(clock() - started)"
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": ""}
    return float(subprocess.check_output([sys.executable, "-P", "-c", timed], env=environment))


async def _cpu_per_mapping(at_once: bool, **options: Any) -> float:
    async with PortMapper(**options) as mapper:
        for port in WARM_UP:
            await mapper.add_port_mapping(port, desc="benchmark", proto="TCP")
        gc.collect()
        started = time.process_time()
        mappings = (mapper.add_port_mapping(port, desc="benchmark", proto="TCP") for port in PORTS)
        if at_once:
            await asyncio.gather(*mappings)
        else:
            for mapping in mappings:
                await mapping
        return (time.process_time() - started) / len(PORTS)


async def _cold(source: str, _: str, *protocol: str) -> dict[str, float]:
    options = {"protocols": protocol} if protocol else {}
    first = await cold_start(source, PORT, **options)
    cpu = time.process_time()
    others = [await cold_start(source, PORT + number, **options) for number in range(1, 21)]
    cpu = (time.process_time() - cpu) / len(others)
    return {"cold start, first in its process": first, "cold start": median(others), "CPU of a cold start": cpu}


async def _cpu(source: str, location: str, *protocol: str) -> dict[str, float]:
    options = {"source_address": source, "protocols": protocol} if protocol else {"location": location}
    ways = {"one by one": False, "at once": True}
    return {f"CPU of a mapping, {way}": await _cpu_per_mapping(at, **options) for way, at in ways.items()}


async def _identical(_: str, location: str, *__: str) -> dict[str, float]:
    took = [await call_identical(location, CALLERS, time.process_time) for _ in range(5)]
    return {f"CPU of {CALLERS:,} identical callers": median(took)}


WORK: Final[Mapping[str, Callable[..., Awaitable[dict[str, float]]]]] = {
    "cold": _cold,
    "cpu": _cpu,
    "identical": _identical,
}


async def main(name: str, *where: str) -> None:
    """Do the work in a running event loop, and print figures and where aioigd was imported from."""
    print(json.dumps({"figures": await WORK[name](*where), "imported": aioigd.__file__}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
