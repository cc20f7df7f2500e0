"""What several test modules need: listeners that must not be touched, gateways made of a few lines, and counters."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

from aioigd import Change, Device, IGDError, IGDStatus, Lease, PortMapper
from aioigd.core.calls import Operation
from aioigd.errors import TransportError
from aioigd.testing import EmulatedGateway, Hooks, Quirk, UPnPError, network, quirk
from aioigd.testing.device_tree import Site, describe_device, gateway_device
from aioigd.testing.hooks import Proceed
from aioigd.testing.http import Admission, End, HttpRequest, HttpServer, Response, Transmission
from aioigd.testing.soap import build_answer, build_fault, parse_call
from aioigd.testing.wan_connection import ActionCall, MappingTable, Outputs, WanConnection
from aioigd.upnp.net.http import HttpClient
from aioigd.upnp.soap_client import GatewayState, SoapClient
from aioigd.upnp.wire.http_reply import BodyRule, HttpReply
from aioigd.upnp.wire.url import HttpUrl

T = TypeVar("T")

SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
OURS = "192.168.1.2"
THEIRS = "192.168.1.77"


def sockets() -> frozenset[str]:
    """The internet sockets that this process has open, each by a number that is never used twice."""
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{entry}")
            # uvloop has sockets of its own, but those are of the family AF_UNIX.
            if target.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry))) as twin:
                    if twin.family in (socket.AF_INET, socket.AF_INET6):
                        found.add(target)
    return frozenset(found)


def is_visible_line(text: str) -> bool:
    """Whether a text is one line in which every character is seen, and is where it stands."""
    hidden = re.compile(
        "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
    )
    marks = "".join("m" if unicodedata.category(each).startswith("M") else "-" for each in text)
    if any("\U000e0100" <= each <= "\U000e01ef" for each in text):
        return False
    return text.isprintable() and not hidden.search(text) and "mmmmm" not in marks and not marks.startswith("m")


async def settled_loop(rounds: int = 5) -> None:
    """Let everything run that can run without waiting for the network or the clock."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class Canary:
    """A TCP listener that only wants to be left alone."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._listener = socket.create_server((address, 0))
        self._listener.setblocking(False)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def location(self) -> str:
        return f"http://{self.address}:{self.port}/rootDesc.xml"

    @property
    def is_touched(self) -> bool:
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._listener.close()


# Emulated gateways


def odd(**hooks: Any) -> Quirk[[]]:
    """A quirk of a gateway in one line; see Hooks for what there is."""

    def odd_in_a_test() -> Hooks:
        return Hooks(**hooks)

    return quirk("soap", reason="a test asks for it", source="the test")(odd_in_a_test)


@asynccontextmanager
async def noted(lease: Lease) -> AsyncIterator[list[Change]]:
    """The changes of a lease."""
    changes: list[Change] = []

    async def note() -> None:
        async for change in lease.changes():
            changes.append(change)

    task = asyncio.create_task(note())
    await asyncio.sleep(0)
    try:
        yield changes
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def connected(*quirks: Quirk[...], **options: Any) -> AsyncIterator[tuple[EmulatedGateway, PortMapper]]:
    """An emulated gateway, and a mapper that finds it and nothing else."""
    async with (
        EmulatedGateway(*quirks, address=None) as gateway,
        PortMapper(source_address=gateway.address, **options) as mapper,
    ):
        yield gateway, mapper


def refuses(action: str, code: int, when: Callable[[ActionCall], bool] = lambda _: True) -> Quirk[[]]:
    """A gateway that refuses an action, always or under a condition."""

    def refuse(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action == action and when(call):
            raise UPnPError(code)
        return proceed(call)

    return odd(action=refuse)


def once() -> Callable[[object], bool]:
    """A condition that holds the first time that it is asked."""
    asked: list[object] = []

    def first(thing: object) -> bool:
        asked.append(thing)
        return len(asked) == 1

    return first


# Devices that are not as simple as an emulated gateway: with an address that differs from their clients', or many


XML = (("Content-Type", "text/xml"),)


NOTHING = Transmission((), End.RESET)
"""A connection that is cut without a byte."""


def page(body: bytes | str, status: int = 200, **changes: Any) -> Response:
    return Response(status, XML, body if isinstance(body, bytes) else body.encode(), **changes)


def description(address: str, port: int, *, wan: bool = True, name: str = "a neighbour") -> bytes:
    """The description of a gateway, or of a device that is none."""
    device = gateway_device(1, f"{address}:{port}/{name}", name)
    if not wan:
        device = replace(device, device_type="urn:schemas-upnp-org:device:MediaServer:1", devices=())
    return describe_device(device, Site(address, port), 1).encode()


class Neighbour:
    """A device at an address of its own, which answers the searches that one client multicasts.

    ``serve`` says what it answers to a request, its own description by default. ``locations`` are announced instead of
    its own. ``delay`` is how long it thinks about a search. ``targets`` are those that it answers to.
    """

    def __init__(
        self,
        client: str,
        address: str,
        *,
        serve: Callable[[HttpRequest], Response | Transmission] | None = None,
        locations: Sequence[str] | None = None,
        delay: float = 0.0,
        targets: Collection[str] = ("upnp:rootdevice",),
        wan: bool = True,
    ) -> None:
        self.client = client
        self.address = address
        self.requests: list[HttpRequest] = []
        self.searches: list[str] = []
        self._serve = serve or (lambda _: page(description(address, self.port, wan=wan)))
        self._locations = locations
        self._delay = delay
        self._targets = targets
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def location(self) -> str:
        return Site(self.address, self.port).location

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._server = HttpServer(self._receive, lambda _: Admission.SERVE)
        listener = network.http_socket(self.address)
        self.port = int(listener.getsockname()[1])
        self._server.start(listener)
        self._ear = network.search_socket(self.client)
        self._mouth = network.spare_socket(self.address)
        self._loop.add_reader(self._ear, self._hear)
        return self

    async def __aexit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.cancel()
        self._loop.remove_reader(self._ear)
        self._ear.close()
        self._mouth.close()
        self._server.close()
        await self._server.wait_closed()

    def say(self, datagram: bytes, to: tuple[str, int]) -> None:
        with suppress(OSError):
            self._mouth.sendto(datagram, to)

    def reply(self, location: str, target: str = "upnp:rootdevice") -> bytes:
        return f"HTTP/1.1 200 OK\r\nLOCATION: {location}\r\nST: {target}\r\nUSN: uuid:x::{target}\r\n\r\n".encode()

    def answer(self, target: str, sender: tuple[str, int]) -> None:
        for location in [self.location] if self._locations is None else self._locations:
            self.say(self.reply(location, target), sender)

    def _receive(self, request: HttpRequest) -> Callable[[], Transmission]:
        self.requests.append(request)
        response = self._serve(request)
        return (lambda: response) if isinstance(response, Transmission) else response.transmission

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            while True:
                datagram, sender = self._ear.recvfrom(4096)
                if sender[0] != self.client or not datagram.startswith(b"M-SEARCH"):
                    continue
                target = datagram.partition(b"\r\nST: ")[2].partition(b"\r\n")[0].decode()
                self.searches.append(target)
                if target in self._targets:
                    self._timers.append(self._loop.call_later(self._delay, self.answer, target, sender))


async def in_a_call(op: Operation, work: Awaitable[T]) -> T:
    """Do work as a call does it: what was sent is undone if nobody waits any more, or if it is cancelled."""
    try:
        return await work
    except asyncio.CancelledError:
        await op.roll_back()
        raise


# A gateway without a network


Respond = Callable[[ActionCall], "Reaction | Awaitable[Reaction] | None"]
Reaction = HttpReply | Exception
"""What an HTTP client would give back: a reply, or what it raises."""


def fault(code: int | None, status: int = 500) -> HttpReply:
    """A SOAP fault as a gateway sends it; without a code it is a bare one."""
    if code is None:
        return HttpReply(status, b"<Envelope><Body><Fault><faultstring>no</faultstring></Fault></Body></Envelope>")
    return HttpReply(status, build_fault(UPnPError(code)).encode())


def answer(action: str, outputs: Outputs | None = None, status: int = 200) -> HttpReply:
    """A good answer to an action."""
    return HttpReply(status, build_answer(SERVICE, action, outputs or {}).encode())


CUT = TransportError("cut", may_have_arrived=True)
UNREACHED = TransportError("refused", may_have_arrived=False)


async def never_answered() -> Reaction:
    """What comes of a request to a gateway that hangs."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("somebody has answered")


@dataclass
class PaperGateway(HttpClient):
    """An HTTP client with a gateway inside, so that policy can be tested without a network.

    ``respond`` may answer an action, raise what a client raises, or leave the action to the gateway by None. What
    has been asked is in ``actions``, and ``sent`` has the arguments as well.
    """

    respond: Respond = lambda _: None
    calls: list[ActionCall] = field(default_factory=list)
    urls: list[HttpUrl] = field(default_factory=list)
    repeatable: list[bool] = field(default_factory=list)

    version: int = 1

    def __post_init__(self) -> None:
        super().__init__()
        self.wan = WanConnection(lambda: 0.0, version=self.version, external_address="11.22.33.44")

    @property
    def actions(self) -> list[str]:
        return [call.action for call in self.calls]

    @property
    def table(self) -> MappingTable:
        return self.wan.table

    def sent(self, action: str, *names: str) -> list[tuple[str, ...]]:
        """The values of some arguments in each request for an action."""
        return [tuple(call.arguments[name] for name in names) for call in self.calls if call.action == action]

    def terms(self) -> list[tuple[str, str]]:
        """Description and lease of each AddPortMapping."""
        return [(d, s) for d, s in self.sent("AddPortMapping", "NewPortMappingDescription", "NewLeaseDuration")]

    async def request(
        self,
        method: str,
        url: HttpUrl,
        *,
        deadline: float,
        source: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        repeatable: bool = True,
        body_rule: BodyRule = BodyRule.EXPECTED,
        keep: object = None,
    ) -> HttpReply:
        assert body is not None
        service_type, action, arguments = parse_call(body)
        call = ActionCall(service_type, action, dict(arguments), OURS)
        self.calls.append(call)
        self.urls.append(url)
        self.repeatable.append(repeatable)
        await asyncio.sleep(0)
        reaction = self.respond(call)
        if isinstance(reaction, Awaitable):
            reaction = await reaction
        if isinstance(reaction, Exception):
            raise reaction.copy() if isinstance(reaction, IGDError) else reaction
        if reaction is not None:
            return reaction
        return self.carry_out(call)

    def carry_out(self, call: ActionCall) -> HttpReply:
        """What a gateway that keeps to the standard does."""
        try:
            return answer(call.action, self.wan.invoke(call))
        except UPnPError as error:
            return fault(error.code)

    def client(self, *alternatives: str, state: GatewayState | None = None) -> SoapClient:
        """A client of this gateway."""
        return SoapClient(self, paper_device(alternatives, self.version), state or GatewayState())


def paper_device(alternatives: tuple[str, ...] = (), version: int = 1) -> Device:
    return Device(
        description_url="http://192.168.1.1:5000/rootDesc.xml",
        igd_control_url="http://192.168.1.1:5000/ctl",
        igd_service_type=SERVICE.replace(":1", f":{version}"),
        igd_our_addr=OURS,
        igd_status=IGDStatus.OK,
        alternative_control_urls=alternatives,
    )
