"""How does a request get its reply? By UDP: sent again until one comes, and nothing else is believed.

Each request has a socket of its own, connected to the router: the system then drops whatever comes from another address
or port, and a new random port of ours is one more thing that a forger has to guess. What a reply says is read by the
caller, who refuses what does not answer the request.

There is no task and no transport for it, as a request is one datagram and mostly one reply: a reader of the loop and a
timer do it. Only loops that have no readers (proactor, Windows) get a transport.
"""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from ..core.limiter import Limiter, Outcome
from ..errors import DeadlineError, IGDError, NoRouteError, TransportError
from ..net.guard import check_destination
from ..net.trace import tracer
from .wire.pcp import MAX_SIZE

__all__ = [
    "DOUBT",
    "FIRST_PAUSE",
    "MAX_SENT",
    "Doubtful",
    "Exchange",
    "PcpClient",
    "Reader",
    "connected_socket",
    "pauses",
]

T = TypeVar("T")

FIRST_PAUSE: Final = 0.25
"""Seconds until a request is sent again; each pause is twice as long (RFC 6886 section 3.1).

RFC 6887 section 8.1.1 begins with 3 seconds, for servers that are far away; one in the LAN answers in milliseconds.
"""
MAX_SENT: Final = 9
"""How often a request is sent at most (RFC 6886 section 3.1)."""
DOUBT: Final = 0.03
"""Seconds for which a better reply is waited for, after one that anybody could have sent who guesses the port."""
_JITTER: Final = 0.1
"""The share by which pauses differ at random (RFC 6887 section 8.1.1), so that requests do not go out in step."""
_NO_ROOM: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.EINTR})
_NONBLOCK: Final = getattr(socket, "SOCK_NONBLOCK", 0)
"""What makes a socket that does not block; 0 where the system has none."""
_KIND: Final = socket.SOCK_DGRAM | _NONBLOCK
_MAX_BATCH: Final = 16
"""Datagrams that are read at once; the rest waits for the next turn of the loop."""


class Doubtful(NamedTuple, Generic[T]):
    """An answer that shows nothing of the request, so that it counts only if no other comes within DOUBT."""

    answer: T


Reader = Callable[[bytes], T | Doubtful[T] | None]
"""Returns the answer in a datagram, None where it does not answer the request."""


def pauses(most: int = MAX_SENT) -> Iterator[float]:
    """Yield the pauses between the datagrams of one request, of which there are ``most``, in seconds."""
    for number in range(most - 1):
        spread = 1 + random.uniform(-_JITTER, _JITTER)  # noqa: S311 (it has to differ, not to be secret)
        yield FIRST_PAUSE * 2**number * spread


def connected_socket(host: str, port: int, source_address: str | None = None) -> socket.socket:
    """Return a UDP socket that is connected to a router and does not block; the arguments are those of a client.

    Raises NoRouteError where nothing can be sent.
    """
    check_destination(host.partition("%")[0], source_address or "")
    try:
        family, address = _socket_address(host, port) if "%" not in host else _socket_address.__wrapped__(host, port)
        opened = socket.socket(family, _KIND)
    except (OSError, UnicodeError) as error:  # no such interface, no IPv6, no socket left
        raise _no_route(host, error) from error
    try:
        if not _NONBLOCK:
            opened.setblocking(False)
        if source_address is not None:
            # A link-local address is bound with the zone of where it leads.
            rest = (0, address[3]) if len(address) > 3 else ()
            opened.bind((source_address, 0, *rest))
        opened.connect(address)
    except OSError as error:
        opened.close()
        raise _no_route(host, error) from error
    return opened


@lru_cache(maxsize=64)
def _socket_address(host: str, port: int) -> tuple[int, tuple[Any, ...]]:
    """Return the family and address by which sockets know a host; for a zone that is so only now."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
    return family, address


class Exchange(asyncio.DatagramProtocol, Generic[T]):
    """One request and its reply, on a connected socket, which is closed with it.

    ``datagram`` is sent, ``most`` times at most, until ``read`` returns an answer, or until the time ``until`` of the
    loop's clock. ``on_end`` is
    called once, with the answer or with an error: TransportError where nobody listens, NoRouteError where nothing can
    be sent, DeadlineError where no reply comes, and whatever ``read`` raises. It is not called after :meth:`close`.
    """

    def __init__(
        self,
        opened: socket.socket,
        host: str,
        datagram: bytes,
        read: Reader[T],
        until: float,
        on_end: Callable[[T | Exception], None],
        *,
        most: int = MAX_SENT,
    ) -> None:
        self.sent = 0
        """How often the request was sent."""
        self._loop = asyncio.get_running_loop()
        self._socket = opened
        self._host = host
        self._datagram = datagram
        self._read = read
        self._until = until
        self._on_end = on_end
        self._pauses = pauses(most)
        self._is_over = False
        self._is_last = False
        """Whether the timer is the one for ``until``: by a coarse clock (Windows: 16 ms) it fires before that."""
        self._timer: asyncio.TimerHandle | None = None
        self._doubt: Doubtful[T] | None = None
        self._has_reader = False
        self._opening: asyncio.Task[Any] | None = None
        self._transport: asyncio.BaseTransport | None = None

    def begin(self) -> None:
        """Send the datagram for the first time. It may end at once: where nobody listens on this machine."""
        self._send()
        self._readable()
        if self._is_over:
            return
        try:
            self._loop.add_reader(self._socket.fileno(), self._readable)
            self._has_reader = True
        except NotImplementedError:
            opening = self._loop.create_datagram_endpoint(lambda: self, sock=self._socket)
            self._opening = self._loop.create_task(opening)
            self._opening.add_done_callback(self._opened)

    def close(self) -> None:
        """Close the socket, and end."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._has_reader:
            self._has_reader = False
            self._loop.remove_reader(self._socket.fileno())
        if self._opening is not None:
            self._opening.cancel()
        if self._transport is not None:
            self._transport.abort()  # type: ignore[attr-defined] # every one has it but the base class
        self._socket.close()

    # By a reader

    def _readable(self) -> None:
        for _ in range(_MAX_BATCH):
            if self._is_over:
                return
            try:
                datagram = self._socket.recv(MAX_SIZE + 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.error_received(error)
            else:
                self._receive(datagram)

    # By a transport

    def _opened(self, opening: asyncio.Task[Any]) -> None:
        error = None if opening.cancelled() else opening.exception()
        if isinstance(error, OSError):
            self.error_received(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, which is for reading only."""
        self._transport = transport
        if self._is_over:
            self.close()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Read a reply; without a sender it stands for an ICMP error, by the proactor loop from Python 3.12 on."""
        if addr is None:
            self.error_received(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
        else:
            self._receive(data)

    # Both

    def error_received(self, exc: Exception) -> None:
        """End: nobody listens, or nothing can be sent."""
        if isinstance(exc, ConnectionError):
            _trace("in", b"", self._host, type(exc).__name__)
            error: IGDError = TransportError(
                f"nobody listens for PCP or NAT-PMP at {self._host}", may_have_arrived=False
            )
        else:
            error = NoRouteError(f"nothing can be sent to {self._host}: {exc}")
        error.__cause__ = exc
        self._end(error)

    def _receive(self, data: bytes) -> None:
        if self._is_over:
            return
        _trace("in", data, self._host)
        try:
            answer = self._read(data)
        except Exception as error:
            self._end(error)
            return
        if not isinstance(answer, Doubtful):
            if answer is not None:
                self._end(answer)
        elif self._doubt is None:
            self._doubt = answer
            self._wait(DOUBT)

    def _send(self) -> None:
        self.sent += 1
        _trace("out", self._datagram, self._host)
        try:
            self._socket.send(self._datagram)
        except OSError as error:
            # Without room for it, it is lost as if on the way.
            if error.errno not in _NO_ROOM:
                self.error_received(error)
                return
        left = self._until - self._loop.time()
        pause = next(self._pauses, left)
        self._is_last = pause >= left
        self._wait(min(pause, left))

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, seconds), self._time_is_over)

    def _time_is_over(self) -> None:
        if self._doubt is not None:
            self._end(self._doubt.answer)
        elif self._is_last:
            self._end(DeadlineError(f"{self._host} did not answer by PCP or NAT-PMP in time"))
        else:
            self._send()

    def _end(self, outcome: T | Exception) -> None:
        if not self._is_over:
            self.close()
            self._on_end(outcome)


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
        read: Reader[T],
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
            opened = connected_socket(self.host, self.port, self.source_address)
            reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()

            def end(answer: T | Exception) -> None:
                if reply.done():
                    return  # cancelled in this turn of the loop
                if isinstance(answer, Exception):
                    reply.set_exception(answer)
                else:
                    reply.set_result(answer)

            try:
                exchange = Exchange(opened, self.host, datagram, read, deadline(), end)
            except BaseException:
                opened.close()
                raise
            try:
                exchange.begin()
                answer = await reply
            finally:
                exchange.close()
            # What comes only when it was sent again may be from a router that does not cope.
            outcome = Outcome.ANSWERED if exchange.sent == 1 else Outcome.LOST
            return answer
        except DeadlineError:
            outcome = Outcome.LOST
            raise
        finally:
            self._limiter.release(permit, outcome, datagram[:2])  # version and opcode


def _no_route(host: str, error: Exception) -> NoRouteError:
    return NoRouteError(f"there is no route to {host}: {getattr(error, 'strerror', None) or error}")


def _trace(direction: Literal["in", "out"], datagram: bytes, host: str, failure: str = "") -> None:
    recorder = tracer.get()
    if recorder is not None:
        recorder.pcp_datagram(direction, datagram, host, failure)
