"""A server of which every byte is chosen by the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from aioigd.testing import network
from aioigd.testing.http import Admission, End, HttpRequest, HttpServer, Transmission
from aioigd.upnp.wire.url import HttpUrl

DOCUMENT = b"<root><device>x</device></root>"


def raw(*steps: bytes | float, end: End = End.CLOSE) -> Transmission:
    """Bytes and pauses, as they are."""
    return Transmission(steps, end)


def good(body: bytes = DOCUMENT, *headers: bytes, status: bytes = b"200 OK") -> Transmission:
    """A reply without a flaw."""
    lines = [b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body), b"Connection: close", b"", b""]
    return raw(b"\r\n".join(lines) + body)


class Server:
    """Answers every request on one loopback address with the same transmission, or one after another of a list."""

    def __init__(self, address: str, *replies: Transmission) -> None:
        self.address = address
        self.requests: list[HttpRequest] = []
        self._replies = list(replies)

    @property
    def url(self) -> HttpUrl:
        return HttpUrl(self.address, self._port, "/desc.xml?a=%20b")

    @property
    def connections(self) -> int:
        """How many have come about."""
        return self._server.tally.accepted

    @property
    def open_connections(self) -> int:
        return len(self._server.connections)

    async def __aenter__(self) -> Self:
        self._server = HttpServer(self._receive, lambda _: Admission.SERVE)
        listener = network.http_socket(self.address)
        self._port = int(listener.getsockname()[1])
        self._server.start(listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _receive(self, request: HttpRequest) -> Callable[[], Transmission]:
        self.requests.append(request)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        return lambda: reply
