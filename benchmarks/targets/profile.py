"""Where the microseconds of one mapping go: the stack is looked at each clock tick of CPU time.

A sample belongs to the package of the innermost frame; what Python does in C belongs to the frame that called it, so
the kernel's work for a socket is asyncio's. The kernel's part of the time is read from the process's own clock.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import time
import timeit
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

from ..bench import Bench
from ..codecs import STEPS
from ..gateway_server import gateway_process
from ..peers import BARE, OURS, load
from ..peers.base import PORTS, Peer

INTERVAL: Final = 0.001
KERNEL: Final = "kernel"
REST: Final = "the rest of Python"
_AREAS: Final = {name: name for name in ("aioigd", "aiohttp", "asyncio")} | {"selectors.py": "asyncio"}
_MOST: Final = 12


class Samples:
    """Counts, while it is entered, in which area and in which function the time goes."""

    def __init__(self) -> None:
        self.areas: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()

    def __enter__(self) -> Samples:
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)

    def _look(self, _: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        parts = Path(frame.f_code.co_filename).parts
        found = next((one for one in reversed(parts) if one in _AREAS), None)
        self.areas[_AREAS[found] if found else REST] += 1
        place = "/".join(parts[parts.index(found) :]) if found else parts[-1]
        self.functions[f"{place}: {frame.f_code.co_qualname}"] += 1


def measure(bench: Bench) -> None:
    """Take samples of mappings one after another, by aioigd and by bare aiohttp; and time the library's pure steps."""
    count, record = bench.plan.profile, bench.record
    functions: Counter[str] = Counter()
    with gateway_process() as gateway:
        for _ in range(bench.plan.runs):
            for name in (OURS, BARE):
                samples = Samples()
                each, kernel = asyncio.run(_map(load(name, gateway.address), gateway.location, count, samples))
                total = samples.areas.total() or 1
                record.add("profile: all", name, "us", each)
                record.add("profile: area", name, "us", kernel, area=KERNEL)
                for area in (*dict.fromkeys(_AREAS.values()), REST):
                    record.add("profile: area", name, "us", samples.areas[area] / total * each, area=area)
                if name == OURS:
                    functions += samples.functions
    ours = record.get("profile: all", OURS)
    for function, seen in functions.most_common(_MOST):
        each = seen / functions.total() * (ours.median if ours else 0.0)
        record.add("profile: function", OURS, "us", each, function=function)
    for _ in range(bench.plan.runs):
        for step, (call, _) in STEPS.items():
            seconds = min(timeit.repeat(call, number=count, repeat=3)) / count
            record.add("profile: step", OURS, "us", seconds * 1e6, step=step)


async def _map(peer: Peer, location: str, count: int, samples: Samples) -> tuple[float, float]:
    """Return the microseconds of CPU time of one mapping, and of the kernel's part of it."""
    async with peer.opened(location) as add:
        await add(PORTS[0])
        total, kernel = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_stime
        with samples:
            for port in PORTS[:count]:
                await add(port)
        total = time.process_time() - total
        kernel = resource.getrusage(resource.RUSAGE_SELF).ru_stime - kernel
        return total / count * 1e6, kernel / count * 1e6
