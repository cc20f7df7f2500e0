"""The work that is measured of aioigd itself. Only the public interface is used, so it runs on any checkout.

As a script it does one kind of work in a process of its own, and prints JSON with the figures in seconds::

    python -P benchmarks/workload.py NAME SOURCE_ADDRESS LOCATION
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
from typing import Final

import aioigd
from aioigd import PortMapper

HERE: Final = Path(__file__).parents[1]
"""The root of this checkout."""
PORT: Final = 4_000
PORTS: Final = range(30_000, 30_400)
WARM_UP: Final = range(1_000, 1_030)
CALLERS: Final = 10_000
REPEATS: Final = 5
COLD_STARTS: Final = 20

Clock = Callable[[], float]

_TIMED_IMPORT = "from time import {0}; started = {0}(); import {1}; print({0}() - started)"


async def cold_start(source: str, port: int) -> float:
    """Return the seconds from making a mapper to having closed it, with a search and a mapping in between."""
    started = time.perf_counter()
    async with PortMapper(source_address=source) as mapper:
        await mapper.add_port_mapping(port, desc="benchmark", proto="TCP")
    return time.perf_counter() - started


async def call_identical(location: str, callers: int, clock: Clock = time.perf_counter) -> float:
    """Return the seconds that so many identical calls take on a known gateway."""
    async with PortMapper(location=location) as mapper:
        await mapper.add_port_mapping(WARM_UP[0], proto="TCP")
        gc.collect()
        started = clock()
        await asyncio.gather(*(mapper.add_port_mapping(PORT, proto="TCP") for _ in range(callers)))
        return clock() - started


async def cpu_per_mapping(location: str, *, at_once: bool) -> float:
    """Return the CPU seconds of this process for one mapping on a known gateway."""
    async with PortMapper(location=location) as mapper:
        for port in WARM_UP:
            await mapper.add_port_mapping(port, desc="benchmark", proto="TCP")
        gc.collect()
        started = time.process_time()
        if at_once:
            await asyncio.gather(*(mapper.add_port_mapping(port, desc="benchmark", proto="TCP") for port in PORTS))
        else:
            for port in PORTS:
                await mapper.add_port_mapping(port, desc="benchmark", proto="TCP")
        return (time.process_time() - started) / len(PORTS)


def seconds_to_import(names: str, checkout: Path = HERE, clock: Clock = time.perf_counter) -> float:
    """Return the seconds that an import takes in a new interpreter, its start excluded; aioigd is a checkout's."""
    command = [sys.executable, "-P", "-c", _TIMED_IMPORT.format(clock.__name__, names)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)


async def _cold(source: str, _: str) -> dict[str, float]:
    first = await cold_start(source, PORT)
    cpu = time.process_time()
    others = [await cold_start(source, PORT + number) for number in range(1, COLD_STARTS + 1)]
    cpu = (time.process_time() - cpu) / COLD_STARTS
    return {"cold start, first in its process": first, "cold start": median(others), "CPU of a cold start": cpu}


async def _cpu(_: str, location: str) -> dict[str, float]:
    return {
        "CPU of a mapping, one by one": await cpu_per_mapping(location, at_once=False),
        "CPU of a mapping, at once": await cpu_per_mapping(location, at_once=True),
    }


async def _identical(_: str, location: str) -> dict[str, float]:
    took = [await call_identical(location, CALLERS, time.process_time) for _ in range(REPEATS)]
    return {f"CPU of {CALLERS:,} identical callers": median(took)}


WORK: Final[Mapping[str, Callable[[str, str], Awaitable[dict[str, float]]]]] = {
    "cold": _cold,
    "cpu": _cpu,
    "identical": _identical,
}


async def main(name: str, source: str, location: str) -> None:
    """Do the work in a running event loop, and print figures and where aioigd was imported from."""
    figures = await WORK[name](source, location)
    print(json.dumps({"figures": figures, "imported": aioigd.__file__}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
