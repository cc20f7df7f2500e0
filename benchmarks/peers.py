"""What is compared: aioigd, what people use today, and two floors; each runs in a process of its own.

``python -m benchmarks.peers NAME SOURCE`` is that process; it can be asked for the public methods of :class:`Peer`.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import json
import os
import pstats
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from datetime import timedelta
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urljoin, urlsplit

import aiohttp

from aioigd import IGDError, PortMapper
from aioigd.arguments import check_request
from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.pcp.wire.common import NUMBER_OF, SERVER_PORT
from aioigd.upnp.wire.soap import build_request
from aioigd.upnp.wire.ssdp import MULTICAST_V4, build_search
from aioigd.upnp.wire.wan_ip_connection import add_port_mapping
from tests.lab.network import ROUTER_ADDRESS

from .gateway_server import DEVICE, GROUP, PORT
from .process import answer
from .workload import cold_start

ONE_BY_ONE: Final = "one by one"
AT_ONCE: Final = "at once"
PORTS: Final = range(1_000, 11_000)  # what is mapped in batches, the first so many
THREADS: Final = 128
CONCURRENCY: Final = 8  # the largest window of aioigd's limiter
BEAT: Final = 0.001
TIMEOUT: Final = 5.0
LEASE: Final = 3600
LIMIT: Final = 120.0  # seconds for a command

Add = Callable[[int], Any]
"""Maps a port: to be awaited, or blocking."""


@asynccontextmanager
async def heartbeat() -> AsyncIterator[dict[str, float]]:
    """Tick each millisecond: how late at most (seconds), and how long this thread worked without a pause at most.

    The latter is the same without what the machine did in the meantime for others.
    """
    worst = {"stall": 0.0, "worked": 0.0}

    async def beat() -> None:
        while True:
            wall, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(BEAT)
            worst["stall"] = max(worst["stall"], time.perf_counter() - wall - BEAT)
            worst["worked"] = max(worst["worked"], time.thread_time() - cpu)

    beating = asyncio.create_task(beat())
    await asyncio.sleep(10 * BEAT)  # the first ticks come before what is to be measured
    worst.update(stall=0.0, worked=0.0)
    yield worst
    await asyncio.sleep(2 * BEAT)  # what stalls at the very end is noticed by the next tick only
    beating.cancel()


class Peer:
    """One way to map ports; this one is awaited. ``source``: the address of this machine that it is to work from.

    ``needs`` is what it imports, or the command that it runs; ``took`` the seconds that it tells itself.
    """

    needs: ClassVar[Sequence[str]] = ()
    blocks: ClassVar[bool] = False
    took: float | None = None

    def __init__(self, source: str) -> None:
        self.source = source
        self.router = source if source.startswith("127.") else ROUTER_ADDRESS
        self.modules = [import_module(name) for name in self.needs if not shutil.which(name)]

    @classmethod
    def is_installed(cls) -> bool:
        """Return whether it can be compared with."""
        return all(shutil.which(name) or find_spec(name.partition(".")[0]) for name in cls.needs)

    async def batch(self, location: str, count: int, way: str, watch: bool = False) -> dict[str, Any]:
        """Map on a gateway whose description is known; ``watch`` the event loop for stalls."""
        async with self._opened(location) as add:
            await self._one_by_one(add, PORTS[:1])
            gc.collect()
            async with heartbeat() if watch else nullcontext(dict[str, float]()) as worst:
                started, cpu, kernel = time.perf_counter(), *_cpu()
                made = await (self._one_by_one if way == ONE_BY_ONE else self._at_once)(add, PORTS[:count])
                seconds, after = time.perf_counter() - started, _cpu()
        return {"seconds": seconds, "cpu": after[0] - cpu, "kernel": after[1] - kernel, "made": made, **worst}

    async def memory(self, location: str, count: int) -> dict[str, Any]:
        """Measure Python's memory (bytes) from the description on, and on a known gateway: its peak, and what stays."""

        async def from_description(some: Iterable[int]) -> None:
            async with self._opened(location) as add:
                await self._one_by_one(add, some)

        ports = PORTS[:count]
        await from_description(ports[:20])  # what is allocated once, by the first
        first, all_of_them = await _traced(from_description(ports[:1])), await _traced(from_description(ports))
        async with self._opened(location) as add:
            await self._one_by_one(add, ports[:50])
            one, many = await _traced(self._one_by_one(add, ports[:1])), await _traced(self._one_by_one(add, ports))
            batch = await _traced(self._at_once(add, ports))
        known = {"kept": many[1] / count, "batch_peak": batch[0] / count, "batch_kept": batch[1] / count}
        each = (all_of_them[0] - first[0]) / (count - 1)
        return {"first": first[0], "each": each, "known": {"peak": one[0], **known}}

    async def swallow(self, location: str) -> dict[str, Any]:
        """Read a description that is hostile and map a port there; a blocking peer stalls any loop all the time."""
        async with heartbeat() as worst:
            started = time.perf_counter()
            with suppress(Exception):
                async with self._opened(location) as add:
                    await self._one_by_one(add, PORTS[:1])
            seconds = time.perf_counter() - started
        return {"seconds": seconds, "stall": None if self.blocks else worst["stall"]}

    async def profile(self, location: str, count: int) -> dict[str, Any]:
        """Return the CPU seconds of each function's own for one mapping, one after another."""
        async with self._opened(location) as add:
            await self._one_by_one(add, PORTS[:50])
            with cProfile.Profile(time.process_time) as profile:
                await self._one_by_one(add, PORTS[:count])
        found: dict[tuple[str, int, str], Any] = vars(pstats.Stats(profile))["stats"]
        return {f"{path}:{line} {name}": own[2] / count for (path, line, name), own in found.items()}

    def start(self, port: int) -> dict[str, Any]:
        """Measure a cold start with a mapping; with port 0 a search."""
        started = time.perf_counter()
        found = self._start(port)
        return {"seconds": self.took or time.perf_counter() - started, "found": found}

    def _start(self, port: int) -> int:
        raise NotImplementedError  # searches with its own defaults, and maps a port if there is one; returns gateways

    def _opened(self, location: str) -> AbstractAsyncContextManager[Add]:
        raise NotImplementedError  # in it the gateway of a description is known; it gives what maps a port

    async def _one_by_one(self, add: Add, ports: Iterable[int]) -> int:
        made = 0
        for port in ports:
            with suppress(Exception):
                mapping = add(port)
                if not self.blocks:
                    await mapping
                made += 1
        return made

    async def _at_once(self, add: Add, ports: Iterable[int]) -> int:
        return await _succeeded(add(port) for port in ports)


class BlockingPeer(Peer):
    """A peer that blocks its thread: called in a loop, or by 128 threads next to an event loop."""

    blocks = True

    @asynccontextmanager
    async def _opened(self, location: str) -> AsyncIterator[Add]:
        yield self._open(location)

    def _open(self, location: str) -> Add:
        raise NotImplementedError  # reads the description, and returns what maps a port

    async def _at_once(self, add: Add, ports: Iterable[int]) -> int:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(THREADS) as pool:
            return await _succeeded(loop.run_in_executor(pool, add, port) for port in ports)


class Ours(Peer):
    """Aioigd as its documentation shows it: one mapper, awaited or gathered."""

    needs = ("aioigd",)
    protocols: ClassVar[Sequence[str]] = ("upnp", "pcp", "nat-pmp")

    def _start(self, port: int) -> int:
        try:
            # In a loop that runs, as that of any program that uses it.
            self.took = asyncio.run(cold_start(self.source, port, protocols=self.protocols))
        except IGDError:
            if port:
                raise
            self.took = None
            return 0
        return 1

    @asynccontextmanager
    async def _opened(self, location: str) -> AsyncIterator[Add]:
        known: Any = {"location": location}
        if "upnp" not in self.protocols:
            known = {"source_address": self.source, "protocols": self.protocols}
        async with PortMapper(**known) as mapper:
            await mapper.get_gateway()
            yield lambda port: mapper.add_port_mapping(port, desc="benchmark", proto="TCP")


def ours_by(*protocols: str) -> type[Ours]:
    """Return the same with other protocols."""
    return type("OursBy", (Ours,), {"protocols": protocols})


class Floor(BlockingPeer):
    """Blocking sockets, one attempt, nothing checked: M-SEARCH, the first reply, the description, AddPortMapping."""

    def _start(self, port: int) -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as searcher:
            searcher.settimeout(TIMEOUT)
            searcher.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(self.source))
            searcher.bind((self.source, 0))
            searcher.sendto(build_search(DEVICE, MULTICAST_V4), (GROUP, PORT))
            location = re.search(rb"(?im)^location:\s*(\S+)", searcher.recv(65535))
        assert location, "a reply without LOCATION"
        self._open(location[1].decode())(port)
        return 1

    def _open(self, location: str) -> Add:
        service, control_url = _controlled(location, self._exchange(location, "GET"))
        template = _template(service, self.source)
        headers = f'SOAPAction: "{service}#AddPortMapping"\r\nContent-Type: text/xml; charset="utf-8"\r\n'

        def add(port: int) -> None:
            reply = self._exchange(control_url, "POST", headers, template.replace(b"55555", b"%d" % port))
            assert b"AddPortMappingResponse" in reply, reply.decode(errors="replace")

        return add

    def _exchange(self, url: str, method: str, headers: str = "", body: bytes = b"") -> bytes:
        parts = urlsplit(url)
        address = (parts.hostname or "", parts.port or 80)
        request = (
            f"{method} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        with socket.create_connection(address, TIMEOUT, (self.source, 0)) as connection:
            connection.sendall(request.encode() + body)
            return b"".join(iter(lambda: connection.recv(65536), b""))


class PcpFloor(BlockingPeer):
    """A blocking socket, one datagram, and its reply, of which the result is looked at."""

    def _start(self, port: int) -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.settimeout(TIMEOUT)
            opened.bind((self.source, 0))
            opened.connect((self.router, SERVER_PORT))
            opened.send(self._datagram(port))
            return int(opened.recv(2048)[3] == 0)

    def _datagram(self, port: int) -> bytes:
        asked = pcp.MapData(os.urandom(pcp.NONCE_SIZE), NUMBER_OF["TCP"], port, port, IPv4Address(0))
        return pcp.build_request(pcp.Request(pcp.Opcode.MAP, IPv4Address(self.source), LEASE, asked))


class NatPmpFloor(PcpFloor):
    """The same by NAT-PMP."""

    def _datagram(self, port: int) -> bytes:
        return nat_pmp.build_request(nat_pmp.MapRequest("TCP", port, port, LEASE))


class PyNatPmp(BlockingPeer):
    """PyPI's py-natpmp, which is told the router."""

    needs = ("natpmp",)

    def _start(self, port: int) -> int:
        return int(self.modules[0].map_tcp_port(port, port, LEASE, gateway_ip=self.router).result == 0)


class Natpmpc(BlockingPeer):
    """Debian's command, which asks for the address, too; the whole process counts."""

    needs = ("natpmpc",)

    def _start(self, port: int) -> int:
        command = ["natpmpc", "-g", self.router, "-a", str(port), str(port), "tcp", str(LEASE)]
        return int(subprocess.run(command, check=True, capture_output=True, timeout=LIMIT).returncode == 0)


class Libtorrent(BlockingPeer):
    """Debian's python3-libtorrent: a session that listens, until its port is mapped by PCP or NAT-PMP."""

    needs = ("libtorrent",)

    def _start(self, port: int) -> int:
        library = self.modules[0]
        settings = {"listen_interfaces": f"{self.source}:{port}", "alert_mask": library.alert.category_t.all_categories}
        session = library.session({**settings, **dict.fromkeys(("enable_upnp", "enable_lsd", "enable_dht"), False)})
        until = time.perf_counter() + LIMIT
        while not any(isinstance(alert, library.portmap_alert) for alert in session.pop_alerts()):
            assert time.perf_counter() < until, "nothing was mapped"
            session.wait_for_alert(1000)
        return 1


class Bare(Peer):
    """aiohttp alone, posting bytes made before, eight at once; the replies are read, and not looked at."""

    needs = ("aiohttp",)
    keep_alive: ClassVar[bool] = False

    @asynccontextmanager
    async def _opened(self, location: str) -> AsyncIterator[Add]:
        connector = aiohttp.TCPConnector(force_close=not self.keep_alive, limit=0)
        skipped = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")
        async with aiohttp.ClientSession(connector=connector, skip_auto_headers=skipped) as session:
            async with session.get(location) as description:
                service, control_url = _controlled(location, await description.read())
            bodies = _bodies(service, self.source)
            headers = {"Accept-Encoding": "identity", "Content-Type": 'text/xml; charset="utf-8"'}
            headers["SOAPAction"] = f'"{service}#AddPortMapping"'

            async def post(port: int) -> None:
                async with session.post(control_url, data=bodies[port], headers=headers) as response:
                    await response.read()

            yield post

    async def _at_once(self, add: Add, ports: Iterable[int]) -> int:
        waiting = iter(ports)
        return sum(await asyncio.gather(*(self._one_by_one(add, waiting) for _ in range(CONCURRENCY))))


class BareKeepAlive(Bare):
    """The same over connections that stay open, where the gateway lets them."""

    keep_alive = True


class Mini(BlockingPeer):
    """PyPI's miniupnpc, the C library everybody uses; it never listens for less than a second, whatever it is told."""

    needs = ("miniupnpc",)
    delay: ClassVar[int] = 0

    def _start(self, port: int) -> int:
        client = self.modules[0].UPnP(multicastif=self.source, discoverdelay=self.delay)
        try:
            found: int = client.discover()
        except Exception:  # where nobody answers the library raises
            found = 0
        if port:
            self._adder(client, None)(port)
        return found

    def _open(self, location: str) -> Add:
        return self._adder(self.modules[0].UPnP(multicastif=self.source), location)

    def _adder(self, client: Any, location: str | None) -> Add:
        client.selectigd(*filter(None, [location]))
        address = client.lanaddr
        return lambda port: client.addportmapping(port, "TCP", address, port, "benchmark", "")


class MiniLong(Mini):
    """It listens for two seconds, as the library's command and Godot do: routers may wait before they answer."""

    delay = 2000


class AsyncUpnp(Peer):
    """PyPI's async-upnp-client, which Home Assistant uses: its profile for gateways, over one session of aiohttp."""

    needs = ("async_upnp_client.profiles.igd", "async_upnp_client.aiohttp", "async_upnp_client.client_factory")

    def _start(self, port: int) -> int:
        async def start() -> int:
            found = await self.modules[0].IgdDevice.async_search(source=(self.source, 0))
            if port:
                async with self._opened(next(iter(found))["location"]) as add:
                    await add(port)
            return len(found)

        return asyncio.run(start())

    @asynccontextmanager
    async def _opened(self, location: str) -> AsyncIterator[Add]:
        igd, requests, devices = self.modules
        async with aiohttp.ClientSession() as session:
            factory = devices.UpnpFactory(requests.AiohttpSessionRequester(session))
            device = igd.IgdDevice(await factory.async_create_device(location), None)
            yield lambda port: device.async_add_port_mapping(
                IPv4Address("0.0.0.0"), port, "TCP", port, IPv4Address(self.source), True, "benchmark", timedelta(0)
            )


class UpnpClient(BlockingPeer):
    """PyPI's upnpclient: requests, and a class for each device and service.

    It searches from every address of the machine but 127.0.0.1, so it has to be in a network of its own.
    """

    needs = ("upnpclient",)

    def _start(self, port: int) -> int:
        found = self.modules[0].discover()
        if port:
            self._adder(found[0])(port)
        return len(found)

    def _open(self, location: str) -> Add:
        return self._adder(self.modules[0].Device(location))

    def _adder(self, device: Any) -> Add:
        service = next(one for one in device.services if "WANIPConnection" in one.service_type)
        terms = {"NewEnabled": "1", "NewPortMappingDescription": "benchmark", "NewLeaseDuration": 0}
        fixed = {"NewRemoteHost": "", "NewProtocol": "TCP", "NewInternalClient": self.source, **terms}
        return lambda port: service.AddPortMapping(NewExternalPort=port, NewInternalPort=port, **fixed)


class Upnpc(BlockingPeer):
    """Debian's command, as shell scripts use it: a process for each mapping, and the whole process counts."""

    needs = ("upnpc",)

    def _start(self, port: int) -> int:
        # The status fails where no gateway is.
        adding = ("-a", self.source, str(port), str(port), "TCP") if port else ("-s",)
        return int(self._run("-m", self.source, *adding, check=port > 0) == 0)

    def _open(self, location: str) -> Add:
        return lambda port: self._run("-u", location, "-a", self.source, str(port), str(port), "TCP")

    def _run(self, *arguments: str, check: bool = True) -> int:
        return subprocess.run(["upnpc", *arguments], check=check, capture_output=True, timeout=LIMIT).returncode


class Godot(BlockingPeer):
    """What aioigd is modelled on; a script that times itself, so that the start of the engine does not count."""

    needs = ("godot3-server",)

    def _start(self, port: int) -> int:
        done = self._run([port] if port else [], 2000, cold=True)  # milliseconds: the default
        assert done["made"] == bool(port), done
        return int(done["found"])

    async def batch(self, location: str, count: int, way: str, watch: bool = False) -> dict[str, Any]:
        """Discover, which cannot be left out and does not count, and add one after another."""
        return self._run(PORTS[:count], 100, cold=False)

    def _run(self, ports: Sequence[int], timeout: int, *, cold: bool) -> dict[str, Any]:
        job = {"source": self.source, "ports": list(ports), "timeout": timeout, "cold": cold}
        with tempfile.TemporaryDirectory() as home:  # it would leave its settings in the user's
            environment = {"PATH": os.environ["PATH"], "HOME": home, "AIOIGD_BENCHMARK": json.dumps(job)}
            command = ["godot3-server", "--script", str(Path(__file__).with_name("godot.gd"))]
            done = subprocess.run(command, env=environment, cwd=home, capture_output=True, timeout=LIMIT, check=True)
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(b"RESULT "))
        result: dict[str, Any] = json.loads(line.removeprefix(b"RESULT "))
        self.took = result["seconds"]
        return result


def _controlled(location: str, description: bytes) -> tuple[str, str]:
    """Return the service and control URL of a description."""
    service = rb"(?s)<serviceType>\s*(\S*:WAN(?:IP|PPP)Connection:\d)\s*</serviceType>"
    found = re.search(service + rb"(?:(?!</service>).)*<controlURL>\s*([^<\s]+)\s*</controlURL>", description)
    assert found, "a description without a WAN connection service"
    return found[1].decode(), urljoin(location, found[2].decode())


def _template(service: str, client: str) -> bytes:
    """Return the bytes that aioigd sends, for port 55555."""
    request = check_request(55555, 0, "benchmark", "TCP", 0, None, "")
    return build_request(service, "AddPortMapping", add_port_mapping(request, client, request.terms).arguments)


@lru_cache
def _bodies(service: str, client: str) -> dict[int, bytes]:
    template = _template(service, client)
    return {port: template.replace(b"55555", b"%d" % port) for port in PORTS}


async def _succeeded(work: Iterable[Awaitable[object]]) -> int:
    return sum(not isinstance(one, BaseException) for one in await asyncio.gather(*work, return_exceptions=True))


def _cpu() -> tuple[float, float]:
    """Return the CPU time of this process and of the children that have ended, and the kernel's part of it."""
    ours, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime, ours.ru_stime + children.ru_stime


async def _traced(work: Awaitable[object]) -> tuple[int, int]:
    """Return the bytes that Python's memory grew by at the highest point of some work, and those that stay."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    await work
    peak = tracemalloc.get_traced_memory()[1]
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return peak - before, kept - before


PEERS: Final[dict[str, type[Peer]]] = {
    (OURS := "aioigd"): Ours,
    (FLOOR := "blocking floor"): Floor,
    (BARE := "bare aiohttp"): Bare,
    (BARE_KEEP_ALIVE := "bare aiohttp, connections kept"): BareKeepAlive,
    (MINI := "miniupnpc"): Mini,
    (MINI_LONG := "miniupnpc, 2 s"): MiniLong,
    (ASYNC_UPNP := "async-upnp-client"): AsyncUpnp,
    (UPNP_CLIENT := "upnpclient"): UpnpClient,
    (GODOT := "godot3-server"): Godot,
    (UPNPC := "upnpc"): Upnpc,
}
"""Those by UPnP, of which most is measured."""
BY_DATAGRAM: Final[dict[str, type[Peer]]] = {
    (OURS_PCP := "aioigd by PCP"): ours_by("pcp"),
    (OURS_NAT_PMP := "aioigd by NAT-PMP"): ours_by("nat-pmp"),
    (OURS_FAST := "aioigd, fast order"): ours_by("pcp", "nat-pmp", "upnp"),
    (PCP_FLOOR := "blocking datagram of PCP"): PcpFloor,
    (NAT_PMP_FLOOR := "blocking datagram of NAT-PMP"): NatPmpFloor,
    (PY_NATPMP := "py-natpmp"): PyNatPmp,
    (NATPMPC := "natpmpc"): Natpmpc,
    (LIBTORRENT := "libtorrent"): Libtorrent,
}
ALL: Final = {**PEERS, **BY_DATAGRAM}


def main() -> None:
    """Answer until the input ends."""
    peer = ALL[sys.argv[1]](sys.argv[2])

    def measure(do: str, **arguments: Any) -> Any:
        found = getattr(peer, do)(**arguments)
        return asyncio.run(found) if asyncio.iscoroutine(found) else found

    answer({}, measure)


if __name__ == "__main__":
    main()
