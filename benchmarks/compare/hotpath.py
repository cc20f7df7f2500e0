"""Where the microseconds of one mapping go: the stack is looked at each clock tick of CPU time.

A sample belongs to the package of the innermost frame; what Python does in C belongs to the frame that called it, so
the kernel's work for a socket is asyncio's. How much of the time the kernel has is told by the process's own clock.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import signal
import time
import timeit
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import urljoin

from aioigd import PortMapper
from aioigd.arguments import check_request
from aioigd.upnp.wire import soap, wan_ip_connection, xml

from .. import bare
from ..gateway_server import CONTROL, SERVICE, Gateway, GatewayProcess, Settings, gateway_process
from ..peers.interface import PORTS
from ..peers.registry import BARE, OURS
from .bench import Bench

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
    count = bench.plan.profile
    functions: Counter[str] = Counter()
    with gateway_process() as gateway:
        for _ in range(bench.plan.runs):
            for name, send in ((OURS, _map), (BARE, _post)):
                samples = Samples()
                each, kernel = asyncio.run(send(gateway, count, samples))
                total = samples.areas.total() or 1
                bench.record.add("profile: all", name, "us", each)
                bench.record.add("profile: area", name, "us", kernel, area=KERNEL)
                for area in (*dict.fromkeys(_AREAS.values()), REST):
                    bench.record.add("profile: area", name, "us", samples.areas[area] / total * each, area=area)
                if name == OURS:
                    functions += samples.functions
    ours = bench.record.get("profile: all", OURS)
    if ours:
        for function, seen in functions.most_common(_MOST):
            each = seen / functions.total() * ours.median
            bench.record.add("profile: function", OURS, "us", each, function=function)
    for _ in range(bench.plan.runs):
        for step, call in _steps().items():
            seconds = min(timeit.repeat(call, number=count, repeat=3)) / count
            bench.record.add("profile: step", OURS, "us", seconds * 1e6, step=step)


def _steps() -> dict[str, Callable[[], object]]:
    ports = itertools.cycle(range(1, 65_536))
    request = check_request(8080, 0, "benchmark", "TCP", 0, None, "")
    action = wan_ip_connection.add_port_mapping(request, "192.0.2.2", request.terms)
    reply = Gateway(Settings()).reply("AddPortMapping").partition(b"\r\n\r\n")[2]
    long = reply + b" " * 4096  # over the size that is remembered, by blanks that mean nothing
    return {
        "check the arguments": lambda: check_request(next(ports), 0, "benchmark", "TCP", 0, None, ""),
        "choose the arguments of the action": lambda: wan_ip_connection.add_port_mapping(
            request, "192.0.2.2", request.terms
        ),
        "write the request": lambda: soap.build_request(SERVICE, action.name, action.arguments),
        "see that the reply is whole": lambda: xml.has_root_end_tag(reply),
        "read a reply like the last one": lambda: soap.parse_reply(reply, "AddPortMapping"),
        "read a new reply": lambda: soap.parse_reply(long, "AddPortMapping"),
    }


async def _map(gateway: GatewayProcess, count: int, samples: Samples) -> tuple[float, float]:
    async with PortMapper(location=gateway.location) as mapper:
        await mapper.get_gateway()
        before = _clocks()
        with samples:
            for port in PORTS[:count]:
                await mapper.add_port_mapping(port, desc="benchmark", proto="TCP")
        return _each(before, count)


async def _post(gateway: GatewayProcess, count: int, samples: Samples) -> tuple[float, float]:
    bodies = bare.bodies(gateway.address, PORTS[:count])
    async with bare.open_session() as session:
        await bare.post(session, urljoin(gateway.location, CONTROL), bodies[0])
        before = _clocks()
        with samples:
            for body in bodies:
                await bare.post(session, urljoin(gateway.location, CONTROL), body)
        return _each(before, count)


def _clocks() -> tuple[float, float]:
    return time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_stime


def _each(before: tuple[float, float], count: int) -> tuple[float, float]:
    """Return microseconds of CPU time, and of the kernel's part of it, for one of so many."""
    total, kernel = (now - then for now, then in zip(_clocks(), before, strict=True))
    return total / count * 1e6, kernel / count * 1e6
