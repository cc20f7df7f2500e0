"""Replays the replies of a recorded router on loopback, by UPnP here, and by PCP and NAT-PMP in :mod:`.pcp_replay`.

They are sent with correct HTTP framing, as a recording does not include wrong framing. Several recorded replies to the
same request are sent in their order, and the last one is repeated. The recorded addresses are replaced by those of the
replay, and internal clients and descriptions of mappings by what was asked for now, as in the recording they are
stand-ins.

A recording may come from anybody: it decides what is said, and neither how much nor to whom. Replies to a search go to
the address on loopback that has asked, :data:`MAX_REPLIES` of them at most.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

from ..upnp.wire.ssdp import MAX_DATAGRAM
from . import network
from .conversation import Conversation, DatagramEvent, HttpEvent, RecordingError, read
from .http import Admission, End, HttpRequest, HttpServer, Response, Transmission
from .message_text import with_text
from .pcp_endpoint import PcpEndpoint
from .pcp_messages import PcpDatagram
from .pcp_replay import RecordedPcp
from .ssdp import Datagram, Search, SsdpServer

__all__ = ["MAX_REPLIES", "ReplayedGateway"]

MAX_REPLIES: Final = 64
"""Datagrams with which one search is answered. Real devices send up to 30."""
_MAX_REPLY: Final = MAX_DATAGRAM + 1
"""Bytes of a reply. Longer ones are not recorded."""
_MAX_DELAY: Final = 10.0
"""Seconds between a search and the last reply to it. An MX of 5 is the most that the standard has (UDA 1.1)."""
_MAX_VALUES: Final = 1024
"""Internal clients and descriptions that are remembered."""
_MAX_VALUE: Final = 256
"""Characters of each."""
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "content-encoding"})
"""Headers that are not replayed, because the framing is new."""
_TARGET = re.compile(rb"^(?:ST|NT)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_ARGUMENT = re.compile(rb"<(?:[\w.-]+:)?([A-Za-z_]\w*)(?:\s[^<>]*)?>([^<>]*)<")
_STAND_INS: Final = frozenset({b"newinternalclient", b"internalclient", b"newportmappingdescription"})
"""Arguments whose values in a recording are not those that were sent."""
_PUBLIC = re.compile(r"(<(?:[\w.-]+:)?NewExternalIPAddress(?:\s[^<>]*)?>\s*)(?:198\.51\.100|203\.0\.113)(?=\.\d)", re.I)
_PUBLIC_NOW: Final = r"\g<1>192.88.99"
"""A public address is recorded as one for documentation, which is not public. A client acts upon that, so the replay
says one of a range that is public, and used by nobody any more (RFC 7526)."""
_HOST = re.compile(
    r"(?P<host>(?<=//)[\w.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}(?:%[\w.-]{1,32})?\]"
    r"|(?<![\w.-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\w)"
    r"|(?<![\w:.\[])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?![\w:.\]]))"
    r"(?::(?P<port>\d{1,5})(?!\d))?",
    re.ASCII,
)
"""A host and its port; a name is one in a URL only, as it may be any word."""
_NO_HOST = re.compile(r"(?<=http://):(?P<port>\d{1,5})(?!\d)", re.ASCII | re.IGNORECASE)
"""What is left of a URL whose host a router has left out."""
_SILENT: Final = frozenset({"DeadlineError", "CancelledError"})
"""How a request failed that got no answer for as long as it was waited for."""
_VALUE = re.compile(
    r"((?:<|&lt;)(?:[\w.-]+:)?(?:NewInternalClient|NewPortMappingDescription|InternalClient)(?:\s[^<>&]*)?(?:>|&gt;))"
    r"([^<>&]+)",
    re.IGNORECASE,
)


class ReplayedGateway:
    """A router that replies as recorded; an asynchronous context manager.

    ``address`` is its loopback address, None for one that no other gateway uses. It is asked by PCP and NAT-PMP at
    :attr:`pcp_port`. ``location`` is the URL of its first description. ``unexpected`` are the requests for which there
    is no reply in the recording.

    Raises RecordingError, a ValueError, for a file that is no recorded conversation or goes beyond the bounds of one,
    and OSError where it cannot be read.
    """

    def __init__(self, path: str | Path, *, address: str | None = None) -> None:
        self._conversation = Conversation.load(path)
        self._address = None if address is None else network.check_loopback(address)
        self._reservation = ExitStack()
        self._servers: dict[_Origin, HttpServer] = {}
        self._ports: dict[_Origin, int] = {}
        self._hosts = {_origin_of(event.url).host for event in self._conversation.exchanges}
        self._values: dict[str, str] = {}
        self._ssdp: SsdpServer | None = None
        self._pcp: PcpEndpoint | None = None
        self._replies = {origin: _Replies(events) for origin, events in self._by_origin().items()}
        self._answers = _answers(self._conversation.datagrams)
        self.unexpected: list[str] = []
        self._recorded_pcp = RecordedPcp(self._conversation.pcp_datagrams, self.unexpected)

    async def __aenter__(self) -> Self:
        if self._address is None:
            self._address = self._reservation.enter_context(network.loopback_address())
        try:
            for origin in self._replies:
                self._serve(origin)
            self._ssdp = SsdpServer(self.address, self._hear)
            await self._ssdp.start()
            if self._recorded_pcp.is_open:
                self._pcp = PcpEndpoint(self.address, 0, self._hear_pcp)
                await self._pcp.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pcp is not None:
            self._pcp.close()
            await self._pcp.wait_closed()
        if self._ssdp is not None:
            self._ssdp.close()
            await self._ssdp.wait_closed()
        for server in self._servers.values():
            server.close()
            await server.wait_closed()
        self._reservation.close()

    @property
    def address(self) -> str:
        """Its loopback address."""
        if self._address is None:
            raise RuntimeError("a replayed gateway has no address before it is started")
        return self._address

    @property
    def pcp_port(self) -> int:
        """The UDP port of PCP and NAT-PMP: 5351, or another one on ``127.0.0.1`` and ``::1``; 0 if nothing listens."""
        return 0 if self._pcp is None else self._pcp.port

    @property
    def location(self) -> str:
        """The URL of its description. Raises RecordingError where the recording has none."""
        for event in self._conversation.exchanges:
            if event.method == "GET":
                return self._moved(event.url)
        raise RecordingError("no description was read in this recording")

    def _by_origin(self) -> dict[_Origin, list[HttpEvent]]:
        found: dict[_Origin, list[HttpEvent]] = {}
        for event in self._conversation.exchanges:
            found.setdefault(_origin_of(event.url), []).append(event)
        return found

    def _serve(self, origin: _Origin) -> None:
        listener = network.http_socket(self.address)
        self._ports[origin] = listener.getsockname()[1]
        server = HttpServer(lambda request: self._receive(origin, request), lambda others: Admission.SERVE)
        self._servers[origin] = server
        server.start(listener)

    def _receive(self, origin: _Origin, request: HttpRequest) -> Callable[[], Transmission]:
        event = self._replies[origin].next(request)
        if event is None:
            self.unexpected.append(f"{request.method} {request.target}")
            return Response(404).transmission
        if event.failure:
            end = End.HANG if event.failure in _SILENT else End.RESET
            return lambda: Transmission((), end)
        self._learn(read(event.body), request.body)
        headers = tuple(
            (name, self._moved(value)) for name, value in event.reply_headers.items() if name.lower() not in _FRAMING
        )
        return Response(event.status or 200, headers, with_text(read(event.reply), self._now)).transmission

    def _hear(self, search: Search) -> Callable[[], Iterable[Datagram]]:
        if not ip_address(search.sender[0].partition("%")[0]).is_loopback and ":" not in self.address:
            return lambda: ()
        return lambda: [
            Datagram(with_text(answer.payload, self._moved_location), answer.delay)
            for answer in self._answers.get(search.target, ())
        ]

    def _hear_pcp(self, datagram: bytes, sender: tuple[str, int]) -> Callable[[], Iterable[PcpDatagram]]:
        now = asyncio.get_running_loop().time()
        return lambda: self._recorded_pcp.answer(datagram, sender[0], now)

    def _learn(self, recorded: bytes, sent: bytes) -> None:
        """Note what now takes the place of stand-ins in a request."""
        before = _stand_ins(recorded)
        for name, value in _stand_ins(sent).items():
            old = before.get(name)
            if old and old != value and len(value) <= _MAX_VALUE and len(self._values) < _MAX_VALUES:
                self._values[old] = value

    def _now(self, text: str) -> str:
        """Return a text with recorded values and addresses replaced by the current ones."""

        def value(found: re.Match[str]) -> str:
            return found[1] + self._values.get(found[2].strip(), found[2])

        text = _VALUE.sub(value, text) if self._values else text
        return self._moved(_PUBLIC.sub(_PUBLIC_NOW, text))

    def _moved(self, text: str) -> str:
        """Return a text with the recorded addresses replaced by the current ones, in one pass."""
        return _HOST.sub(self._place, text)

    def _moved_location(self, text: str) -> str:
        """Return a search reply for which the same holds, also where it names a host that is not the router.

        Who follows it to the router all the same has to find the port of now.
        """
        text = _HOST.sub(lambda found: self._place(found, is_location=True), text)
        return _NO_HOST.sub(lambda found: f":{self._port_of(int(found['port']))}", text)

    def _port_of(self, recorded: int) -> int:
        """Return the port at which the server is now that was at a recorded one, whatever host it had."""
        return next((port for origin, port in self._ports.items() if origin.port == recorded), recorded)

    def _place(self, found: re.Match[str], *, is_location: bool = False) -> str:
        host, number = found["host"], int(found["port"] or 80)
        bare = host.strip("[]").lower()
        if bare not in self._hosts:
            return f"{host}:{self._port_of(number)}" if is_location and found["port"] else found[0]
        here = f"[{self.address}]" if ":" in self.address else self.address
        if found["port"] is None and not found.string.endswith("//", 0, found.start()):
            return here if host.startswith("[") else self.address
        return f"{here}:{self._ports.get(_Origin(bare, number), number)}"


class _Origin(NamedTuple):
    """Where a recorded server was."""

    host: str
    port: int


class _Replies:
    """The recorded replies of one server, each sent once before the last of its kind is repeated."""

    def __init__(self, events: Sequence[HttpEvent]) -> None:
        self._left: dict[_Kind, list[tuple[_Arguments, HttpEvent]]] = {}
        self._last: dict[_Kind, HttpEvent] = {}
        for event in events:
            self._left.setdefault(_kind_of(event), []).append((_arguments(read(event.body)), event))

    def next(self, request: HttpRequest) -> HttpEvent | None:
        """Return the reply to the same request if there is one left, else to one of its kind."""
        kind = _Kind(request.method, request.target, request.header("SOAPAction") or "")
        left = self._left.get(kind)
        if not left:
            return self._last.get(kind)
        sent = _arguments(request.body)
        same = (number for number, (arguments, _) in enumerate(left) if arguments == sent)
        _, chosen = left.pop(next(same, 0))
        self._last[kind] = chosen
        return chosen


class _Kind(NamedTuple):
    """What is equal in requests for the same thing."""

    method: str
    target: str
    action: str


_Arguments = tuple[tuple[bytes, bytes], ...]


def _origin_of(url: str) -> _Origin:
    parts = urlsplit(url)
    return _Origin(parts.hostname or "", parts.port or 80)


def _kind_of(event: HttpEvent) -> _Kind:
    parts = urlsplit(event.url)
    headers = {name.lower(): value for name, value in event.headers.items()}
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Kind(event.method, target, headers.get("soapaction", ""))


def _arguments(body: bytes) -> _Arguments:
    """Return the values by which two requests for one action differ, without addresses and stand-ins."""
    return tuple(
        (name, value)
        for name, value in _ARGUMENT.findall(body)
        if name.lower() not in _STAND_INS and b"." not in value and b":" not in value
    )


def _stand_ins(body: bytes) -> dict[bytes, str]:
    return {
        name.lower(): value.decode("utf-8", "replace").strip()
        for name, value in _ARGUMENT.findall(body)
        if name.lower() in _STAND_INS
    }


def _answers(datagrams: Sequence[DatagramEvent]) -> dict[str, tuple[Datagram, ...]]:
    """Return the replies to a search for each target, with the time that each took.

    A reply that names a target for which nobody had searched belongs to the search before it.
    """
    asked: dict[str, float] = {}
    latest = ""
    answers: dict[str, dict[bytes, float]] = {}
    for event in sorted(datagrams, key=lambda each: each.time):
        payload = read(event.payload)
        target = _target(payload)
        if event.direction == "out":
            asked.setdefault(target, event.time)
            latest = target
        elif asked:
            question = target if target in asked else latest
            delay = event.time - asked[question]
            replies = answers.setdefault(question, {})
            if delay <= _MAX_DELAY and len(replies) < MAX_REPLIES and len(payload) <= _MAX_REPLY:
                replies.setdefault(payload, delay)
    return {target: tuple(Datagram(*reply) for reply in replies.items()) for target, replies in answers.items()}


def _target(payload: bytes) -> str:
    found = _TARGET.search(payload)
    return found[1].decode("latin-1").strip() if found else ""
