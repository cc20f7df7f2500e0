"""How does a request get its reply? By UDP: sent again until one comes, and nothing else is believed.

Each request has a socket of its own, connected to the router: the system then drops whatever comes from another address
or port, and a new random port of ours is one more thing that a forger has to guess. What a reply says is read by the
caller, who refuses what does not answer the request.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, Literal, TypeVar, cast

from ..core.limiter import Limiter, Outcome
from ..errors import DeadlineError, NoRouteError, TransportError
from ..net.guard import check_destination
from ..net.trace import tracer

__all__ = ["FIRST_PAUSE", "MAX_SENT", "PcpClient", "pauses"]

T = TypeVar("T")

FIRST_PAUSE: Final = 0.25
"""Seconds until a request is sent again; each pause is twice as long (RFC 6886 section 3.1).

RFC 6887 section 8.1.1 begins with 3 seconds, for servers that are far away; one in the LAN answers in milliseconds.
"""
MAX_SENT: Final = 9
"""How often a request is sent at most (RFC 6886 section 3.1)."""
_JITTER: Final = 0.1
"""The share by which pauses differ at random (RFC 6887 section 8.1.1), so that requests do not go out in step."""


def pauses() -> Iterator[float]:
    """Yield the pauses between the datagrams of one request, in seconds."""
    for number in range(MAX_SENT - 1):
        spread = 1 + random.uniform(-_JITTER, _JITTER)  # noqa: S311 (it has to differ, not to be secret)
        yield FIRST_PAUSE * 2**number * spread


class PcpClient:
    """Asks one router.

    ``host`` is its address, an IP address, with the zone where it is link-local; ``port`` its UDP port. With
    ``source_address`` (an IP address of this machine) requests are sent from there. The ``limiter`` of the router says
    how many may be out: some write a rule of their firewall in 50 ms, and what is sent again meanwhile costs as much.
    """

    def __init__(self, host: str, port: int, source_address: str | None = None, limiter: Limiter | None = None) -> None:
        self.host = host
        self.port = port
        self.source_address = source_address
        self._limiter = limiter or Limiter()

    def __repr__(self) -> str:
        return f"<PcpClient of {self.host} port {self.port}>"

    async def request(
        self,
        datagram: bytes,
        read: Callable[[bytes], T | None],
        deadline: Callable[[], float],
        *,
        first: bool = False,
    ) -> T:
        """Send a datagram until a reply comes, and return what ``read`` makes of that.

        ``read`` returns None for a datagram that does not answer the request. ``deadline`` is asked when the request
        goes out, for the time of the loop's clock until which to wait. ``first``: it goes before others that wait.

        Raises NoRouteError where nothing can be sent, TransportError where the router says that nobody listens,
        DeadlineError where no reply comes.
        """
        permit = await self._limiter.acquire(first=first)
        outcome = Outcome.UNKNOWN
        try:
            opened = self._socket()
            exchange = _Exchange(read, self.host)
            try:
                until = deadline()
                await asyncio.get_running_loop().create_datagram_endpoint(lambda: exchange, sock=opened)
                reply = await exchange.run(datagram, until)
                # What comes only when it was sent again may be from a router that does not cope.
                outcome = Outcome.ANSWERED if exchange.sent == 1 else Outcome.LOST
                return reply
            finally:
                exchange.close()  # uvloop goes on with opening it when this is cancelled
                opened.close()
        except DeadlineError:
            outcome = Outcome.LOST
            raise
        finally:
            self._limiter.release(permit, outcome, datagram[:2])  # version and opcode

    def _socket(self) -> socket.socket:
        """Return a socket that is connected to the router."""
        check_destination(self.host.partition("%")[0], self.source_address or "")
        family, kind, number, _, address = socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )[0]
        opened = socket.socket(family, kind, number)
        try:
            opened.setblocking(False)
            if self.source_address is not None:
                opened.bind((self.source_address, 0))
            opened.connect(address)
        except OSError as error:
            opened.close()
            raise NoRouteError(f"there is no route to {self.host}: {error.strerror or error}") from error
        return opened


class _Exchange(asyncio.DatagramProtocol, Generic[T]):
    """One request and its reply, on a connected socket."""

    def __init__(self, read: Callable[[bytes], T | None], host: str) -> None:
        self._read = read
        self._host = host
        self._reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.DatagramTransport | None = None
        self._is_closed = False
        self.sent = 0
        """How often the request was sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: asyncio's datagram transport does not derive from DatagramTransport.
        self._transport = cast(asyncio.DatagramTransport, transport)
        if self._is_closed:
            self._transport.abort()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        _trace("in", data, self._host)
        if not self._reply.done():
            try:
                answer = self._read(data)
            except Exception as error:
                self._reply.set_exception(error)
            else:
                if answer is not None:
                    self._reply.set_result(answer)

    def error_received(self, exc: Exception) -> None:
        if self._reply.done():
            return
        if isinstance(exc, ConnectionError):
            error = TransportError(f"nobody listens for PCP or NAT-PMP at {self._host}", may_have_arrived=False)
        else:
            error = NoRouteError(f"nothing can be sent to {self._host}: {exc}")
        error.__cause__ = exc
        self._reply.set_exception(error)

    async def run(self, datagram: bytes, until: float) -> T:
        """Send the datagram, again and again, and return the reply."""
        loop = asyncio.get_running_loop()
        waits = pauses()
        while True:
            self._send(datagram)
            left = until - loop.time()
            wait = next(waits, left)
            done, _ = await asyncio.wait({self._reply}, timeout=max(0.0, min(wait, left)))
            if done:
                return self._reply.result()
            if loop.time() >= until:
                raise DeadlineError(f"{self._host} did not answer by PCP or NAT-PMP in time")

    def close(self) -> None:
        """Close the socket."""
        self._is_closed = True
        self._reply.cancel()
        if self._reply.done() and not self._reply.cancelled():
            self._reply.exception()  # seen, so that asyncio does not warn of an error that came too late
        if self._transport is not None:
            self._transport.abort()

    def _send(self, datagram: bytes) -> None:
        assert self._transport is not None  # noqa: S101 (the endpoint is made)
        self.sent += 1
        _trace("out", datagram, self._host)
        self._transport.sendto(datagram)


def _trace(direction: Literal["in", "out"], datagram: bytes, host: str) -> None:
    recorder = tracer.get()
    if recorder is not None:
        recorder.datagram(direction, datagram, host)
