"""What is compared: aioigd, what people use today, and two floors; each runs in a process of its own.

``python -m benchmarks.peers NAME SOURCE`` is that process; what it can be asked for are the first methods of
:class:`Peer`. A peer that is not installed is left out of the comparison.
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
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
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
from aioigd.upnp.wire.soap import build_request
from aioigd.upnp.wire.ssdp import MULTICAST_V4, build_search
from aioigd.upnp.wire.wan_ip_connection import add_port_mapping

from .gateway_server import DEVICE, GROUP, PORT
from .process import answer
from .workload import cold_start

ONE_BY_ONE: Final = "one by one"
AT_ONCE: Final = "at once"
PORTS: Final = range(1_000, 11_000)
"""What is mapped in batches, the first so many."""
THREADS: Final = 128
CONCURRENCY: Final = 8
"""The largest window of aioigd's limiter."""
BEAT: Final = 0.001
LIMIT: Final = 120.0
"""Seconds for a socket, or a command."""

Add = Callable[[int], Any]
"""Maps a port: to be awaited, or blocking."""


class Heartbeat:
    """How late a tick of one millisecond was at most (seconds), and how long this thread ``worked`` between two.

    The latter is the same without what the machine did in the meantime for others.
    """

    longest = 0.0
    worked = 0.0

    async def beat(self) -> None:
        """Tick until cancelled."""
        while True:
            wall, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(BEAT)
            self.longest = max(self.longest, time.perf_counter() - wall - BEAT)
            self.worked = max(self.worked, time.thread_time() - cpu)


@asynccontextmanager
async def heartbeat() -> AsyncIterator[Heartbeat]:
    """Tick while it is entered."""
    heart = Heartbeat()
    beating = asyncio.create_task(heart.beat())
    await asyncio.sleep(10 * BEAT)  # the first ticks come before what is to be measured
    heart.longest = heart.worked = 0.0
    yield heart
    await asyncio.sleep(2 * BEAT)  # what stalls at the very end is noticed by the next tick only
    beating.cancel()


class Peer:
    """One way to map ports; this one is awaited. ``source``: the address of this machine that it is to work from."""

    needs: ClassVar[tuple[str, ...]] = ()
    """What it imports."""
    command: ClassVar[str] = ""
    """The program that has to be there."""
    blocks: ClassVar[bool] = False
    took: float | None = None
    """The seconds of the last cold start or search, where the peer is a process that times itself."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.modules = [import_module(name) for name in self.needs]

    @classmethod
    def is_installed(cls) -> bool:
        """Return whether it can be compared with."""
        return (not cls.command or shutil.which(cls.command) is not None) and all(
            find_spec(name.partition(".")[0]) for name in cls.needs
        )

    def start(self, port: int) -> dict[str, Any]:
        """Measure a cold start with a mapping; with port 0 a search."""
        started = time.perf_counter()
        found = None if port else self._search()
        if port:
            self._cold_start(port)
        return {"seconds": self.took or time.perf_counter() - started, "found": found}

    async def batch(self, location: str, count: int, way: str, watch: bool = False) -> dict[str, Any]:
        """Map on a gateway whose description is known; ``watch`` the event loop for stalls."""
        ports = PORTS[:count]
        async with self._opened(location) as add:
            await self._one_by_one(add, ports[:1])
            gc.collect()
            async with heartbeat() if watch else nullcontext(Heartbeat()) as heart:
                started, cpu, kernel = time.perf_counter(), *_cpu()
                made = await (self._one_by_one if way == ONE_BY_ONE else self._at_once)(add, ports)
                seconds, after = time.perf_counter() - started, _cpu()
        taken = {"seconds": seconds, "cpu": after[0] - cpu, "kernel": after[1] - kernel, "made": made}
        return {**taken, "stall": heart.longest, "worked": heart.worked}

    async def memory(self, location: str, count: int) -> dict[str, Any]:
        """Measure Python's memory (bytes) from the description on, and on a known gateway: its peak, and what stays."""

        async def from_description(some: Iterable[int]) -> None:
            async with self._opened(location) as add:
                await self._one_by_one(add, some)

        ports = PORTS[:count]
        await from_description(ports[:20])  # what is allocated once, by the first
        first = await _traced(from_description(ports[:1]))
        each = await _traced(from_description(ports))
        async with self._opened(location) as add:
            await self._one_by_one(add, ports[:50])
            one = await _traced(self._one_by_one(add, ports[:1]))
            many = await _traced(self._one_by_one(add, ports))
            batch = await _traced(self._at_once(add, ports))
        known = {"kept": many[1] / count, "batch_peak": batch[0] / count, "batch_kept": batch[1] / count}
        return {"first": first[0], "each": (each[0] - first[0]) / (count - 1), "known": {"peak": one[0], **known}}

    async def swallow(self, location: str) -> dict[str, Any]:
        """Read a description that is hostile and map a port there; a blocking peer stalls any loop all the time."""
        async with heartbeat() as heart:
            started = time.perf_counter()
            try:
                async with self._opened(location) as add:
                    await self._one_by_one(add, [1])
            except Exception as error:
                print(repr(error)[:200], file=sys.stderr)
            seconds = time.perf_counter() - started
        return {"seconds": seconds, "stall": None if self.blocks else heart.longest}

    async def profile(self, location: str, count: int) -> dict[str, Any]:
        """Return the seconds of each function's own for one mapping, one after another."""
        async with self._opened(location) as add:
            await self._one_by_one(add, PORTS[:50])
            with cProfile.Profile() as profile:
                await self._one_by_one(add, PORTS[:count])
        found: dict[tuple[str, int, str], Any] = vars(pstats.Stats(profile))["stats"]
        return {f"{path}:{line} {name}": own[2] / count for (path, line, name), own in found.items()}

    def _cold_start(self, port: int) -> None:
        raise NotImplementedError  # from nothing to the first mapping, with the peer's own defaults

    def _search(self) -> int:
        raise NotImplementedError  # searches as the peer does by default; returns the number of gateways

    def _opened(self, location: str) -> AbstractAsyncContextManager[Add]:
        raise NotImplementedError  # in it the gateway of a description is known; it gives what maps a port

    async def _one_by_one(self, add: Add, ports: Iterable[int]) -> int:
        made = 0
        for port in ports:
            try:
                mapping = add(port)
                if not self.blocks:
                    await mapping
                made += 1
            except Exception as error:
                print(repr(error)[:200], file=sys.stderr)
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

    def _cold_start(self, port: int) -> None:
        asyncio.run(cold_start(self.source, port))

    def _search(self) -> int:
        async def found() -> int:
            async with PortMapper(source_address=self.source) as mapper:
                try:
                    return int(bool(await mapper.get_gateway()))
                except IGDError:
                    return 0

        return asyncio.run(found())

    @asynccontextmanager
    async def _opened(self, location: str) -> AsyncIterator[Add]:
        async with PortMapper(location=location) as mapper:
            await mapper.get_gateway()
            yield lambda port: mapper.add_port_mapping(port, desc="benchmark", proto="TCP")


_LOCATION: Final = re.compile(rb"^location:\s*(\S+)", re.IGNORECASE | re.MULTILINE)
_CONNECTION: Final = re.compile(
    rb"<serviceType>\s*(\S*:WAN(?:IP|PPP)Connection:\d)\s*</serviceType>"
    rb"(?:(?!</service>).)*<controlURL>\s*([^<\s]+)\s*</controlURL>",
    re.DOTALL,
)


def _controlled(location: str, description: bytes) -> tuple[str, str]:
    """Return the service and control URL of a description."""
    connection = _CONNECTION.search(description)
    assert connection, "a description without a WAN connection service"
    return connection[1].decode(), urljoin(location, connection[2].decode())


def _template(service: str, client: str) -> bytes:
    """Return the bytes that aioigd sends, for port 55555."""
    request = check_request(55555, 0, "benchmark", "TCP", 0, None, "")
    action = add_port_mapping(request, client, request.terms)
    return build_request(service, action.name, action.arguments)


@lru_cache
def _bodies(service: str, client: str) -> dict[int, bytes]:
    template = _template(service, client)
    return {port: template.replace(b"55555", b"%d" % port) for port in PORTS}


class Floor(BlockingPeer):
    """Blocking sockets, one attempt, nothing checked: M-SEARCH, the first reply, the description, AddPortMapping."""

    def _cold_start(self, port: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as searcher:
            searcher.settimeout(LIMIT)
            searcher.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(self.source))
            searcher.bind((self.source, 0))
            searcher.sendto(build_search(DEVICE, MULTICAST_V4), (GROUP, PORT))
            location = _LOCATION.search(searcher.recv(65535))
        assert location, "a reply without LOCATION"
        self._open(location[1].decode())(port)

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
        request = (
            f"{method} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        with socket.create_connection((parts.hostname or "", parts.port or 80), LIMIT, (self.source, 0)) as connection:
            connection.sendall(request.encode() + body)
            return b"".join(iter(lambda: connection.recv(65536), b""))


class Bare(Peer):
    """aiohttp alone, posting bytes made before over a connection for each request; eight at once.

    The replies are read, and not looked at.
    """

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
            headers = {
                "Accept-Encoding": "identity",
                "Content-Type": 'text/xml; charset="utf-8"',
                "SOAPAction": f'"{service}#AddPortMapping"',
            }

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
    """PyPI's miniupnpc, the C library everybody uses.

    Its default delay becomes a second: the library never listens for less, whatever it is told.
    """

    needs = ("miniupnpc",)
    delay: ClassVar[int] = 0

    def _client(self) -> Any:
        return self.modules[0].UPnP(multicastif=self.source, discoverdelay=self.delay)

    def _adder(self, client: Any) -> Add:
        address = client.lanaddr
        return lambda port: client.addportmapping(port, "TCP", address, port, "benchmark", "")

    def _cold_start(self, port: int) -> None:
        client = self._client()
        client.discover()
        client.selectigd()
        self._adder(client)(port)

    def _search(self) -> int:
        try:
            return int(self._client().discover())
        except Exception:
            return 0

    def _open(self, location: str) -> Add:
        client = self._client()
        client.selectigd(location)
        return self._adder(client)


class MiniLong(Mini):
    """It listens for two seconds, as the library's command and Godot do: routers may wait before they answer."""

    delay = 2000


class AsyncUpnp(Peer):
    """PyPI's async-upnp-client, which Home Assistant uses: its profile for gateways, over one session of aiohttp."""

    needs = ("async_upnp_client.profiles.igd", "async_upnp_client.aiohttp", "async_upnp_client.client_factory")

    def _cold_start(self, port: int) -> None:
        async def start() -> None:
            found = await self.modules[0].IgdDevice.async_search(source=(self.source, 0))
            async with self._opened(next(iter(found))["location"]) as add:
                await add(port)

        asyncio.run(start())

    def _search(self) -> int:
        return len(asyncio.run(self.modules[0].IgdDevice.async_search(source=(self.source, 0))))

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

    def _cold_start(self, port: int) -> None:
        self._adder(self.modules[0].discover()[0])(port)

    def _search(self) -> int:
        return len(self.modules[0].discover())

    def _open(self, location: str) -> Add:
        return self._adder(self.modules[0].Device(location))

    def _adder(self, device: Any) -> Add:
        service = next(one for one in device.services if "WANIPConnection" in one.service_type)
        terms = {"NewEnabled": "1", "NewPortMappingDescription": "benchmark", "NewLeaseDuration": 0}
        fixed = {"NewRemoteHost": "", "NewProtocol": "TCP", "NewInternalClient": self.source, **terms}
        return lambda port: service.AddPortMapping(NewExternalPort=port, NewInternalPort=port, **fixed)


class Upnpc(BlockingPeer):
    """Debian's command, as shell scripts use it: a process for each mapping, and the whole process counts."""

    command = "upnpc"

    def _cold_start(self, port: int) -> None:
        self._run("-m", self.source, "-a", self.source, str(port), str(port), "TCP")

    def _search(self) -> int:
        return int(self._run("-m", self.source, "-s", check=False) == 0)

    def _open(self, location: str) -> Add:
        return lambda port: self._run("-u", location, "-a", self.source, str(port), str(port), "TCP")

    def _run(self, *arguments: str, check: bool = True) -> int:
        command = [self.command, *arguments]
        return subprocess.run(command, check=check, capture_output=True, timeout=LIMIT).returncode


class Godot(BlockingPeer):
    """What aioigd is modelled on; a script that times itself, so that the start of the engine does not count."""

    command = "godot3-server"

    def _cold_start(self, port: int) -> None:
        done = self._run([port], 2000, cold=True)
        assert done["made"] == 1, done

    def _search(self) -> int:
        return int(self._run([], 2000, cold=True)["found"])

    async def batch(self, location: str, count: int, way: str, watch: bool = False) -> dict[str, Any]:
        """Discover, which cannot be left out and does not count, and add one after another."""
        return {"cpu": 0.0, **self._run(PORTS[:count], 100, cold=False)}

    def _run(self, ports: Sequence[int], timeout: int, *, cold: bool) -> dict[str, Any]:
        job = {"source": self.source, "ports": list(ports), "timeout": timeout, "cold": cold}
        with tempfile.TemporaryDirectory() as home:
            # It would leave its settings in the user's home.
            environment = {"PATH": os.environ["PATH"], "HOME": home, "AIOIGD_BENCHMARK": json.dumps(job)}
            command = [self.command, "--script", str(Path(__file__).with_name("godot.gd"))]
            done = subprocess.run(command, env=environment, cwd=home, capture_output=True, timeout=LIMIT, check=True)
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(b"RESULT "))
        result: dict[str, Any] = json.loads(line.removeprefix(b"RESULT "))
        self.took = result["seconds"]
        return result


async def _succeeded(work: Iterable[Awaitable[object]]) -> int:
    results = await asyncio.gather(*work, return_exceptions=True)
    return sum(not isinstance(one, BaseException) for one in results)


def _cpu() -> tuple[float, float]:
    """Return the CPU time of this process and of the children that have ended, and the kernel's part of it."""
    ours, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime, ours.ru_stime + children.ru_stime


async def _traced(work: Awaitable[object]) -> tuple[int, int]:
    """Return the bytes that Python's memory grew by at the highest point of some work, and those that stay."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await work
        peak = tracemalloc.get_traced_memory()[1]
        gc.collect()
        return peak - before, tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


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


def main() -> None:
    """Answer until the input ends."""
    peer = PEERS[sys.argv[1]](sys.argv[2])

    def measure(do: str, **arguments: Any) -> dict[str, Any]:
        found = getattr(peer, do)(**arguments)
        return asyncio.run(found) if asyncio.iscoroutine(found) else found

    answer({}, measure)


if __name__ == "__main__":
    main()
