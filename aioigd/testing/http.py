"""An HTTP server with full control over the bytes of a reply, their timing and the end of the connection.

TCP and HTTP/1.x only, no UPnP. Requests are parsed strictly and passed to one synchronous function; the server sends
the :class:`Transmission` that it returns, a series of bytes and pauses with an end. The server owns every connection
and task; none remains after :meth:`HttpServer.wait_closed`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from http import HTTPStatus
from typing import Any, Final, Self, cast

__all__ = ["Admission", "End", "HttpRequest", "HttpServer", "Response", "Tally", "Transmission"]

_MAX_HEAD: Final = 64 * 1024
"""Bytes of the head of a request."""
_MAX_BODY: Final = 1024 * 1024
"""Bytes of the body of a request."""
_BACKLOG: Final = 1024
"""Connections that are not accepted yet."""
_LINGER: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""SO_LINGER with a timeout of 0: closing the socket sends a reset."""


class End(Enum):
    """How a transmission ends."""

    KEEP = "keep"  #: the connection stays open for another request
    CLOSE = "close"  #: it is closed
    RESET = "reset"  #: it is reset; what the client has not read yet is lost
    HANG = "hang"  #: it stays open; nothing more is read or sent


class Admission(Enum):
    """How a new connection is treated."""

    SERVE = "serve"  #: its requests are answered
    RESET = "reset"  #: it is reset at once
    CLOSE = "close"  #: it is closed at once
    WAIT = "wait"  #: its requests are answered when all earlier connections are closed


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it was received.

    ``refusal`` is the HTTP status with which a strict server refuses it, 0 for a valid one, and ``problem`` the reason;
    ``segments`` is the number of pieces in which TCP delivered it, ``connection`` the serial number of the connection,
    from 1, and ``half_closed`` returns whether the client has closed its side of it by now.
    """

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    raw: bytes = field(repr=False)
    problem: str = ""
    refusal: int = 0
    sender: tuple[str, int] = ("", 0)
    segments: int = 1
    connection: int = 0
    half_closed: Callable[[], bool] = field(default=bool, repr=False)

    def header(self, name: str) -> str | None:
        """Return the value of a header by its name in any case, None if the request has no such header."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    @property
    def keeps_alive(self) -> bool:
        """Whether the client expects the connection to stay open (RFC 9112 section 9.3)."""
        options = (self.header("Connection") or "").lower()
        return self.version == "HTTP/1.1" and "close" not in options


@dataclass(frozen=True, slots=True)
class Transmission:
    """What is sent on a connection: ``steps`` are bytes, and pauses in seconds; then the end.

    ``steps`` may be infinite.
    """

    steps: Iterable[bytes | float]
    end: End


@dataclass(frozen=True, slots=True)
class Response:
    """A response before it is serialized.

    ``delay`` is in seconds, before the first byte; ``length`` computes the Content-Length from the body, None omits
    that header; ``eol`` ends the lines of the head.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    reason: str = ""
    version: str = "HTTP/1.1"
    delay: float = 0.0
    end: End = End.CLOSE
    length: Callable[[bytes], int | None] = len
    eol: str = "\r\n"

    def without(self, name: str) -> Self:
        """Return the response without a header."""
        return replace(self, headers=tuple(pair for pair in self.headers if pair[0].lower() != name.lower()))

    def having(self, name: str, value: str) -> Self:
        """Return the response with a header, which replaces those of that name."""
        return replace(self, headers=(*self.without(name).headers, (name, value)))

    def delayed(self, seconds: float) -> Self:
        """Return the response with additional delay."""
        return replace(self, delay=self.delay + seconds)

    def transmission(self) -> Transmission:
        """Return the bytes of the response, head and body in one piece."""
        headers = list(self.headers)
        length = self.length(self.body)
        if length is not None:
            headers.append(("Content-Length", str(length)))
        if self.end in (End.CLOSE, End.RESET):
            headers.append(("Connection", "close"))
        try:
            reason = self.reason or HTTPStatus(self.status).phrase
        except ValueError:
            reason = "Unknown"
        lines = [f"{self.version} {self.status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
        message = self.eol.join(lines).encode("latin-1") + self.body
        return Transmission((self.delay, message) if self.delay else (message,), self.end)


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of connections: accepted, reset, and the greatest number open at the same time."""

    accepted: int = 0
    reset: int = 0
    peak: int = 0

    def plus(self, later: Tally) -> Tally:
        """Return the sum of both."""
        return Tally(self.accepted + later.accepted, self.reset + later.reset, max(self.peak, later.peak))


class HttpServer:
    """A server on one address.

    ``receive`` is called with each complete request, and returns a function that is called for the reply when it is to
    be sent; ``admit`` is called with the number of other open connections. While ``running`` is not set, connections
    are accepted and no replies are sent.
    """

    def __init__(
        self, receive: Callable[[HttpRequest], Callable[[], Transmission]], admit: Callable[[int], Admission]
    ) -> None:
        self.receive = receive
        self.admit = admit
        self.connections: dict[int, Connection] = {}
        self.tally = Tally()
        self.running = asyncio.Event()
        self.running.set()
        self.closing = False
        self.unfinished: set[asyncio.Future[Any]] = set()
        self._listener: socket.socket | None = None
        self._acceptor: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def start(self, listener: socket.socket) -> None:
        """Listen on a bound socket, which the server owns from now on."""
        self._listener = listener
        listener.listen(_BACKLOG)
        # Not loop.create_server(): closing it may leak a connection that is being accepted.
        try:
            self._loop.add_reader(listener, self._accept, listener)
        except NotImplementedError:  # the usual event loop of Windows
            self._acceptor = self._loop.create_task(self._accept_one_by_one(listener))
            self._own(self._acceptor)

    def close(self) -> None:
        """Stop listening, and abort every connection."""
        self.closing = True
        if self._listener is not None:
            if self._acceptor is None:
                self._loop.remove_reader(self._listener)
            else:
                # Before the listener is closed, or the proactor loop leaves the socket open that it accepts with.
                self._acceptor.cancel()
            self._listener.close()
        for connection in list(self.connections.values()):
            connection.abort()

    async def wait_closed(self) -> None:
        """Wait until all connections and tasks have ended after :meth:`close`."""
        while self.unfinished:
            await asyncio.wait(self.unfinished)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_BACKLOG):
            try:
                accepted, _peer = listener.accept()
            except OSError:  # no more connections, or the client has closed it
                return
            self._adopt(accepted)

    async def _accept_one_by_one(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                accepted, _peer = await self._loop.sock_accept(listener)
                self._adopt(accepted)

    def _adopt(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        self._own(self._loop.create_task(self._connect(accepted)))

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: Connection(self), accepted)
        except OSError:
            accepted.close()

    def _own(self, task: asyncio.Task[None]) -> None:
        self.unfinished.add(task)
        task.add_done_callback(self.unfinished.discard)


class Connection(asyncio.Protocol):
    """One connection of the server: receives requests and sends the replies, one after another."""

    def __init__(self, server: HttpServer) -> None:
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended.add_done_callback(server.unfinished.discard)
        self._server = server
        self._serial = 0
        self._buffer = bytearray()
        self._segments = 0
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._turn = asyncio.Event()
        self._ignores_input = False
        self._half_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        server = self._server
        server.tally = server.tally.plus(Tally(accepted=1, peak=len(server.connections) + 1))
        self._serial = server.tally.accepted
        peer = self._transport.get_extra_info("peername") or ("", 0)
        self._sender = (str(peer[0]), int(peer[1]))
        admission = server.admit(len(server.connections))
        server.connections[self._serial] = self
        server.unfinished.add(self._ended)
        if server.closing:
            self.abort()
        elif admission is Admission.RESET:
            self.reset()
        elif admission is Admission.CLOSE:
            self._ignores_input = True
            self._transport.close()
        elif admission is Admission.SERVE or len(server.connections) == 1:
            self._turn.set()

    def data_received(self, data: bytes) -> None:
        if self._ignores_input:
            return
        self._buffer += data
        self._segments += 1
        if self._task is None:
            self._next()

    def eof_received(self) -> bool:
        self._half_closed = True
        if self._buffer and self._task is None:
            self._next()
        # A client that has closed its side may still wait for the reply.
        return self._task is not None

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        connections = self._server.connections
        connections.pop(self._serial, None)
        if connections:
            connections[min(connections)]._turn.set()
        if self._task is None:
            self._ended.set_result(None)

    def reset(self) -> None:
        """Reset the connection."""
        self._server.tally = self._server.tally.plus(Tally(reset=1))
        self._ignores_input = True
        raw = self._transport.get_extra_info("socket")
        if raw is not None:
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        self._transport.abort()

    def abort(self) -> None:
        """Abort the connection and its task."""
        self._ignores_input = True
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()

    def _next(self) -> None:
        request = parse_request(bytes(self._buffer), ended=self._half_closed)
        if request is None:
            return
        del self._buffer[: len(request.raw)]
        request = replace(
            request,
            sender=self._sender,
            segments=self._segments,
            connection=self._serial,
            half_closed=lambda: self._half_closed,
        )
        self._segments = 0
        answer = self._answer(request, self._server.receive(request))
        self._task = asyncio.get_running_loop().create_task(answer)
        self._task.add_done_callback(self._answered)

    async def _answer(self, request: HttpRequest, respond: Callable[[], Transmission]) -> None:
        await self._turn.wait()
        await self._server.running.wait()
        transmission = respond()
        for number, step in enumerate(transmission.steps):
            if number:
                await asyncio.sleep(0)  # a long series must not block the loop
                await self._server.running.wait()
            if isinstance(step, bytes):
                self._transport.write(step)
                await self._writable.wait()
            else:
                await asyncio.sleep(step)
        if transmission.end is End.RESET:
            self.reset()
        elif transmission.end is End.CLOSE:
            self._close(request)
        elif transmission.end is End.HANG:
            self._ignores_input = True

    def _close(self, request: HttpRequest) -> None:
        self._ignores_input = True
        if request.refusal and not self._half_closed:
            # Closing a socket with unread data sends a reset, which may overtake the reply.
            self._transport.write_eof()
        else:
            self._transport.close()

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._task = None
        failed = not task.cancelled() and task.exception()
        if failed:
            context = {"message": "the emulated gateway failed to answer a request", "exception": failed, "task": task}
            asyncio.get_running_loop().call_exception_handler(context)
            self._transport.abort()
        if self._serial not in self._server.connections:
            self._ended.set_result(None)
        elif self._buffer and not self._ignores_input:
            self._next()
        elif self._half_closed:
            self._transport.close()


def parse_request(received: bytes, *, ended: bool = False) -> HttpRequest | None:
    """Return the first request in what was received so far, None while it is not complete.

    ``ended``: the client has closed its side, so an incomplete request is invalid.
    """
    head, blank, rest = received.partition(b"\r\n\r\n")
    if not blank:
        if ended or len(head) > _MAX_HEAD:
            return _bad(received, 400, "the head of the request does not end")
        return None
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
        return _bad(received, 400, f"{lines[0][:80]!r} is no request line")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            return _bad(received, 400, f"{line[:80]!r} is no header")
        headers.append((name, value.strip()))
    request = HttpRequest(words[0], words[1], words[2], tuple(headers), b"", received[: len(received) - len(rest)])
    problem, refusal, length = _check_head(request)
    if len(rest) < length:
        if ended:
            return replace(request, raw=received, body=rest, refusal=400, problem="the body is cut off")
        return None
    raw = request.raw + rest[:length]
    behind = rest[length:]
    if behind and not refusal:
        problem, refusal, raw = "there are bytes behind the body", 400, received
    return replace(request, raw=received if refusal else raw, body=rest[:length], problem=problem, refusal=refusal)


def _check_head(request: HttpRequest) -> tuple[str, int, int]:
    """Return the problem of a request (or ""), the HTTP status that refuses it (or 0), and the length of its body."""
    if request.version == "HTTP/1.1" and not request.header("Host"):
        return "there is no Host header", 400, 0
    if len({name.lower() for name, _ in request.headers}) < len(request.headers):
        return "a header is there twice", 400, 0
    if request.header("Expect") is not None:
        return "there is an Expect header", 417, 0
    if request.header("Transfer-Encoding") is not None:
        return "the body is chunked", 411, 0
    text = request.header("Content-Length")
    if text is None:
        return ("there is no Content-Length", 411, 0) if request.method == "POST" else ("", 0, 0)
    if not (text.isascii() and text.isdigit()):
        return f"the Content-Length is {text[:40]!r}", 400, 0
    if int(text) > _MAX_BODY:
        return f"a body of {text} bytes", 413, 0
    return "", 0, int(text)


def _bad(received: bytes, refusal: int, problem: str) -> HttpRequest:
    method = received.split(b" ", 1)[0][:16].decode("latin-1")
    return HttpRequest(method, "", "HTTP/1.1", (), b"", received, problem, refusal)
