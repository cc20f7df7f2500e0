"""Replays the replies of a recorded router on loopback.

They are sent with correct HTTP framing, as a recording does not include wrong framing. Several recorded replies to the
same request are sent in their order, and the last one is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from . import network
from .conversation import Conversation, DatagramEvent, HttpEvent, read
from .http import Admission, End, HttpRequest, HttpServer, Response, Transmission
from .ssdp import Datagram, Search, SsdpServer

__all__ = ["ReplayedGateway"]

_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "content-encoding"})
"""Headers that are not replayed, because the framing is new."""
_TARGET = re.compile(rb"^(?:ST|NT)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


class ReplayedGateway:
    """A router that replies as recorded; an asynchronous context manager.

    ``address`` is its loopback address, None for one that no other gateway uses. ``location`` is the URL of its first
    description. ``unexpected`` are the requests for which there is no reply in the recording.
    """

    def __init__(self, path: str | Path, *, address: str | None = None) -> None:
        self._conversation = Conversation.load(path)
        self._address = None if address is None else network.check_loopback(address)
        self._reservation = ExitStack()
        self._servers: dict[str, HttpServer] = {}
        self._places: dict[str, str] = {}
        self._ssdp: SsdpServer | None = None
        self._replies = {origin: _Replies(events) for origin, events in self._by_origin().items()}
        self.unexpected: list[str] = []

    async def __aenter__(self) -> Self:
        if self._address is None:
            self._address = self._reservation.enter_context(network.loopback_address())
        try:
            for origin in self._replies:
                self._serve(origin)
            self._ssdp = SsdpServer(self.address, self._hear)
            await self._ssdp.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
    def location(self) -> str:
        """The URL of its description."""
        for event in self._conversation.exchanges:
            if event.method == "GET":
                return self._moved(event.url)
        raise ValueError("no description was read in this recording")

    def _by_origin(self) -> dict[str, list[HttpEvent]]:
        found: dict[str, list[HttpEvent]] = {}
        for event in self._conversation.exchanges:
            found.setdefault(urlsplit(event.url).netloc, []).append(event)
        return found

    def _serve(self, origin: str) -> None:
        listener = network.http_socket(self.address)
        self._places[origin] = f"{self.address}:{listener.getsockname()[1]}"
        server = HttpServer(lambda request: self._receive(origin, request), lambda others: Admission.SERVE)
        self._servers[origin] = server
        server.start(listener)

    def _receive(self, origin: str, request: HttpRequest) -> Callable[[], Transmission]:
        event = self._replies[origin].next(request)
        if event is None:
            self.unexpected.append(f"{request.method} {request.target}")
            return Response(404).transmission
        if event.failure:
            end = End.HANG if event.failure == "DeadlineError" else End.RESET
            return lambda: Transmission((), end)
        headers = tuple(
            (name, self._moved(value)) for name, value in event.reply_headers.items() if name.lower() not in _FRAMING
        )
        status = event.status or 200
        return Response(
            status, headers, self._moved(read(event.reply).decode("latin-1")).encode("latin-1")
        ).transmission

    def _hear(self, search: Search) -> Callable[[], Iterable[Datagram]]:
        return lambda: list(self._answers(search.target))

    def _answers(self, target: str) -> Iterable[Datagram]:
        asked = min((event.time for event in self._datagrams("out") if _target(event) == target), default=None)
        if asked is None:
            return
        for event in self._datagrams("in"):
            if _target(event) == target and event.time >= asked:
                payload = self._moved(read(event.payload).decode("latin-1")).encode("latin-1")
                yield Datagram(payload, delay=event.time - asked)

    def _datagrams(self, direction: str) -> list[DatagramEvent]:
        return [event for event in self._conversation.datagrams if event.direction == direction]

    def _moved(self, text: str) -> str:
        """Return a text with the recorded addresses replaced by the current ones."""
        for origin, place in self._places.items():
            text = text.replace(origin, place)
            host, _, port = origin.rpartition(":")
            if port == "80":
                text = text.replace(f"//{host}/", f"//{place}/")
        for host in {origin.rpartition(":")[0] for origin in self._places}:
            text = text.replace(host, self.address)
        return text


class _Replies:
    """The recorded replies of one server, each sent once before the last of its kind is repeated."""

    def __init__(self, events: Sequence[HttpEvent]) -> None:
        self._left = list(events)
        self._last: dict[tuple[str, str, str], HttpEvent] = {}

    def next(self, request: HttpRequest) -> HttpEvent | None:
        """Return the reply to the same request if there is one left, else to one of its kind."""
        kind = (request.method, request.target, request.header("SOAPAction") or "")
        alike = [event for event in self._left if _kind(event) == kind]
        ports = _numbers(request.body)
        same = [event for event in alike if _numbers(read(event.body)) == ports]
        chosen = next(iter(same or alike), None)
        if chosen is None:
            return self._last.get(kind)
        self._left.remove(chosen)
        self._last[kind] = chosen
        return chosen


def _kind(event: HttpEvent) -> tuple[str, str, str]:
    parts = urlsplit(event.url)
    headers = {name.lower(): value for name, value in event.headers.items()}
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return event.method, target, headers.get("soapaction", "")


def _numbers(body: bytes) -> list[bytes]:
    """Return the values by which two requests for one action differ, without addresses."""
    return re.findall(rb">([^<.]*)<", body)


def _target(event: DatagramEvent) -> str:
    found = _TARGET.search(read(event.payload))
    return found[1].decode("latin-1").strip() if found else ""
