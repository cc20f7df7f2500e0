"""The socket of PCP and NAT-PMP of one gateway, and the announcements that it sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final, cast

from . import network
from .pcp_messages import PcpDatagram

__all__ = ["PcpEndpoint"]

_ANNOUNCEMENTS: Final = 10
"""How often an announcement is sent (RFC 6886 section 3.2.1, RFC 6887 section 14.1.3)."""
_FIRST_PAUSE: Final = 0.25
"""Seconds between the first two; each pause is twice as long as the one before."""

Answer = Callable[[], Iterable[PcpDatagram]]


class PcpEndpoint(asyncio.DatagramProtocol):
    """The UDP socket at ``address`` and ``port``, 0 for the usual one where that can be had.

    ``receive`` is called with each datagram and its sender, and returns a function that returns the replies.
    """

    def __init__(self, address: str, port: int, receive: Callable[[bytes, tuple[str, int]], Answer]) -> None:
        self._address = address
        self._receive = receive
        self._socket = network.pcp_socket(address, port)
        self.port: int = self._socket.getsockname()[1]
        self._transport: asyncio.DatagramTransport | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._announcing: asyncio.TimerHandle | None = None
        self._held: list[tuple[Answer, tuple[Any, ...]]] | None = None
        self._closed: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Listen. If that fails, :meth:`close` closes what was opened."""
        loop = asyncio.get_running_loop()
        self._closed = loop.create_future()
        await loop.create_datagram_endpoint(lambda: self, sock=self._socket)

    def close(self) -> None:
        """Cancel pending datagrams, and close the socket."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._held = None
        if self._transport is None:
            self._socket.close()
        else:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed after :meth:`close`."""
        if self._transport is not None and self._closed is not None:
            await self._closed

    def pause(self) -> None:
        """Queue datagrams instead of replying, like a stopped process."""
        self._held = []

    def resume(self) -> None:
        """Reply to the queued datagrams, and continue."""
        held, self._held = self._held or [], None
        for answer, sender in held:
            self._reply(answer, sender)

    def announce(self, announcements: Callable[[], Iterable[PcpDatagram]]) -> None:
        """Multicast announcements on this machine, now and again with growing pauses, in place of earlier ones.

        On ``::1`` they are lost on most Linux machines, which have no multicast route for IPv6 on loopback.
        """
        if self._announcing is not None:
            self._announcing.cancel()
            self._timers.discard(self._announcing)
        pauses = iter([_FIRST_PAUSE * 2**n for n in range(_ANNOUNCEMENTS - 1)])
        self._announce(announcements, pauses)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # No isinstance: asyncio's datagram transport does not derive from DatagramTransport.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...] | None) -> None:
        """Reply to a datagram, or queue it."""
        if addr is None:  # by the proactor loop from Python 3.12 on: an ICMP error, of a client that is gone
            return
        answer = self._receive(data, (addr[0], addr[1]))
        if self._held is not None:
            self._held.append((answer, addr))
        else:
            self._reply(answer, addr)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that the socket is closed."""
        if self._closed is not None:
            self._closed.set_result(None)

    def _announce(self, announcements: Callable[[], Iterable[PcpDatagram]], pauses: Iterator[float]) -> None:
        if self._held is None:
            for datagram in announcements():
                self._send_later(datagram, network.announcement_group(self._address))
        pause = next(pauses, None)
        if pause is not None:
            self._announcing = self._later(pause, lambda: self._announce(announcements, pauses))

    def _reply(self, answer: Answer, sender: tuple[Any, ...]) -> None:
        for datagram in answer():
            self._send_later(datagram, sender)

    def _send_later(self, datagram: PcpDatagram, destination: tuple[Any, ...]) -> None:
        if datagram.delay:
            self._later(datagram.delay, lambda: self._send(datagram, destination))
        else:
            self._send(datagram, destination)

    def _later(self, delay: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        def act() -> None:
            self._timers.discard(timer)
            action()

        timer = asyncio.get_running_loop().call_later(delay, act)
        self._timers.add(timer)
        return timer

    def _send(self, datagram: PcpDatagram, destination: tuple[Any, ...]) -> None:
        with suppress(OSError):  # the client may have closed its socket
            # asyncio's transports do not send empty datagrams.
            if datagram.other_address or datagram.other_port or not datagram.payload:
                address = network.neighbour_of(self._address) if datagram.other_address else self._address
                port = 0 if datagram.other_port or not datagram.other_address else self.port
                with network.spare_socket(address, port) as sender:
                    sender.sendto(datagram.payload, destination)
            elif self._transport is not None:
                self._transport.sendto(datagram.payload, destination)
