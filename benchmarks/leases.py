"""A month of leases in virtual time: ``python -m benchmarks.leases [LEASES] [DAYS] [--protocol pcp]``.

Every port of one mapper is leased for a week at a time, on an event loop whose clock jumps from timer to timer, and
with a gateway in the place of the network. Printed are the requests (by PCP the datagrams), the most timers that were
pending at once, and the memory for each lease. The places where the gateway is put in, the requests of the HTTP client
and of the PCP client, are not public. To be run from the root of the project.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import re
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any, Final, Literal, cast
from unittest.mock import patch

from aioigd import Device, IGDStatus, LeaseState, PortMapper
from aioigd.pcp.client import PcpClient
from aioigd.pcp.search import device_at
from aioigd.pcp.wire import pcp
from aioigd.upnp.net.http import HttpClient
from aioigd.upnp.wire.http_reply import HttpReply
from tests.leases.virtual import VirtualLoop, run

from .gateway_server import SERVICE

ADDRESS: Final = "127.0.0.1"
URL: Final = f"http://{ADDRESS}:9/"
FOUND: Final = Device(URL, "", URL, SERVICE, ADDRESS, IGDStatus.OK)
EXTERNAL: Final = IPv4Address("11.22.33.44")
DAY: Final = 86_400
AT_ONCE: Final = 64
MEASURED: Final = 4_000
ACTION: Final = re.compile(r"<u:(\w+) ")
ARGUMENT: Final = re.compile(r"<New(\w+)>([^<]*)<")


class Gateway:
    """A gateway of a few lines: a table of ports and of when each ends."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.ends: dict[str, float] = {}
        self.late = 0

    async def pcp(self, datagram: bytes, read: Callable[[bytes], Any], deadline: object, **_: object) -> Any:
        """Answer as a PCP server would; this is called instead of ``PcpClient.request``."""
        request = pcp.parse_request(datagram)
        assert isinstance(request, pcp.Request)
        now = asyncio.get_running_loop().time()
        granted = request.mapping
        if granted is None:
            self.requests["ANNOUNCE"] += 1
        else:
            port = str(granted.internal_port)
            self.requests["MAP" if request.lifetime else "MAP, to delete"] += 1
            if request.lifetime:
                self.late += self.ends.get(port, now) < now
                self.ends[port] = now + request.lifetime
                granted = replace(granted, external_port=granted.internal_port, external_address=EXTERNAL)
            else:
                del self.ends[port]
        epoch = int(now) + DAY
        return read(pcp.build_response(pcp.Response(request.opcode, 0, request.lifetime, epoch, granted)))

    async def request(self, *_: object, body: bytes | None = None, **__: object) -> HttpReply:
        """Answer as a gateway would; this is called instead of ``HttpClient.request``."""
        text = (body or b"").decode()
        action = ACTION.findall(text)[0]
        arguments = dict(ARGUMENT.findall(text))
        port = arguments.get("ExternalPort", "")
        self.requests[action] += 1
        now = asyncio.get_running_loop().time()
        outputs = ""
        if not port:
            outputs = "<NewExternalIPAddress>11.22.33.44</NewExternalIPAddress>"
        elif action == "AddPortMapping":
            self.late += self.ends.get(port, now) < now
            self.ends[port] = now + int(arguments["LeaseDuration"])
        elif action == "DeletePortMapping":
            del self.ends[port]
        elif self.ends.get(port, 0.0) <= now:
            return HttpReply(500, b"<Fault><detail><errorCode>714</errorCode></detail></Fault>")
        else:
            outputs = (
                f"<NewInternalPort>{port}</NewInternalPort><NewInternalClient>{ADDRESS}</NewInternalClient>"
                "<NewEnabled>1</NewEnabled><NewPortMappingDescription></NewPortMappingDescription>"
                f"<NewLeaseDuration>{self.ends[port] - now:.0f}</NewLeaseDuration>"
            )
        return HttpReply(200, f"<e><Body><{action}Response>{outputs}</{action}Response></Body></e>".encode())


@dataclass
class Figures:
    """What came of it."""

    requests: Counter[str] = field(default_factory=Counter)
    most_timers: int = 0
    bytes_per_lease: float = 0.0
    lost: int = 0
    late: int = 0
    left: int = 0
    seconds: float = 0.0


async def month(
    leases: int,
    days: float,
    *,
    poll_interval: float = 60.0,
    measure_memory: bool = False,
    protocol: Literal["upnp", "pcp"] = "upnp",
) -> Figures:
    """Hold so many leases of a week for so many days; the loop must be a VirtualLoop."""
    figures, gateway = Figures(), Gateway()
    started = time.perf_counter()
    mapper = PortMapper(source_address=ADDRESS, protocols=[protocol])
    # A search would take threads, which virtual time does not wait for.
    mapper.devices.append(FOUND if protocol == "upnp" else device_at("pcp", ADDRESS, ADDRESS))
    if measure_memory:
        gc.collect()
        tracemalloc.start()
    async with AsyncExitStack() as stack:
        stack.enter_context(patch.object(HttpClient, "request", gateway.request))
        stack.enter_context(patch.object(PcpClient, "request", lambda _, *sent, **rest: gateway.pcp(*sent, **rest)))
        await stack.enter_async_context(mapper)
        held = []
        for first in range(1, leases + 1, AT_ONCE):
            ports = range(first, min(first + AT_ONCE, leases + 1))
            managers = [
                mapper.lease(port, proto="TCP", duration=7 * DAY, poll_interval=poll_interval) for port in ports
            ]
            held += await asyncio.gather(*(stack.enter_async_context(one) for one in managers))
        if measure_memory:
            gc.collect()
            figures.bytes_per_lease = tracemalloc.get_traced_memory()[0] / leases
            tracemalloc.stop()
        await asyncio.sleep(days * DAY)
        figures.most_timers = cast(VirtualLoop, asyncio.get_running_loop()).most_timers
        figures.requests, figures.late = gateway.requests.copy(), gateway.late
        figures.lost = sum(one.state is not LeaseState.ACTIVE for one in held)
    figures.left, figures.seconds = len(gateway.ends), time.perf_counter() - started
    return figures


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("leases", type=int, nargs="?", default=65_535)
    parser.add_argument("days", type=float, nargs="?", default=30.0)
    parser.add_argument("--protocol", choices=("upnp", "pcp"), default="upnp")
    options = parser.parse_args()
    # On its own, because measuring takes longer than all the rest.
    memory = run(
        month(min(options.leases, MEASURED), 0.0, measure_memory=True, protocol=options.protocol), debug=False
    ).bytes_per_lease
    figures = run(month(options.leases, options.days, protocol=options.protocol), debug=False)
    total = figures.requests.total()
    print(f"{options.leases} leases of a week for {options.days:g} days, in {figures.seconds:.0f} s")
    print(f"requests: {total}, {total / options.leases / options.days:.2f} for each lease and day {figures.requests}")
    print(f"pending timers at once: {figures.most_timers} at most; memory: {memory:.0f} bytes for each lease")
    print(f"lost: {figures.lost}, expired before they were renewed: {figures.late}, left behind: {figures.left}")


if __name__ == "__main__":
    main()
