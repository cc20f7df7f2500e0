"""Forwarding of the emulated gateway: from its internet side to the hosts to which ports are mapped.

The mapping table is looked up for each connection and each datagram. A mapping to an address that is not loopback
is in the table and forwards nothing.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final, cast

from ..models import Proto
from ..text import get_logger
from . import network
from .wan_connection import Entry

__all__ = ["Forwarder"]

log = get_logger("aioigd.testing.forwarding")

_CHUNK: Final = 65_536
"""Bytes read at once from a connection."""
_MAX_PEERS: Final = 256
"""Senders for which one UDP port keeps a socket; the oldest is dropped, as by a NAT."""
_BACKLOG: Final = 128
"""Connections of one port that are not accepted yet."""
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with a timeout of 0: closing the socket sends a reset."""

ExternalPort = tuple[Proto, int]
"""Protocol and number of an external port. It may have several mappings, each for another remote host."""
_Address = tuple[Any, ...]


class Forwarder:
    """Listens on the internet side of a gateway, on every port that is mapped, and on no other.

    ``address`` is the loopback address of the internet side, ``entries`` returns the current table. :meth:`follow`
    is called when they may have changed; when it returns, new ports are open, and old ones forward nothing. The server
    behind a mapping sees connections from this machine. A connection outlives its mapping, as on most routers.
    ``count`` is called with the numbers of bytes forwarded to the internet and from it.
    """

    def __init__(self, address: str, entries: Callable[[], Iterable[Entry]], count: Callable[[int, int], None]) -> None:
        self.address = address
        self._entries = entries
        self._count = count
        self._open: dict[ExternalPort, asyncio.Task[None]] = {}
        self._closing: set[ExternalPort] = set()
        self._unavailable: set[ExternalPort] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = False

    def __repr__(self) -> str:
        return f"<Forwarder on {self.address}, {len(self._open)} ports>"

    def start(self) -> None:
        """Open the ports of the current mappings."""
        self._running = True
        self.follow()

    async def close(self) -> None:
        """Close every port and every connection."""
        self._running = False
        self._open.clear()
        self._unavailable.clear()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    def follow(self) -> None:
        """Open and close ports according to the mappings."""
        if not self._running:
            return
        wanted: set[ExternalPort] = {
            (one.mapping.proto, one.mapping.external_port)
            for one in self._entries()
            if _is_loopback(one.mapping.internal_client)
        }
        for external in self._open.keys() - wanted:
            self._closing.add(external)
            self._open.pop(external).cancel()
        self._unavailable &= wanted
        for external in wanted - self._open.keys() - self._closing - self._unavailable:
            self._open_port(external)

    def target(self, external: ExternalPort, sender: _Address) -> tuple[str, int] | None:
        """Return host and port to which packets of a sender are forwarded, None where they are dropped."""
        for entry in self._entries():
            one = entry.mapping
            if (one.proto, one.external_port) == external and entry.lets_in(sender[0], sender[1]):
                return (one.internal_client, one.internal_port) if _is_loopback(one.internal_client) else None
        return None

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that is cancelled when the forwarder is closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _open_port(self, external: ExternalPort) -> None:
        proto, port = external
        try:
            if proto == "TCP":
                opened = network.http_socket(self.address, port)
                opened.listen(_BACKLOG)  # at once: clients connect as soon as the port is mapped
            else:
                opened = network.spare_socket(self.address, port)
        except OSError as error:
            log.warning("%s port %d cannot be forwarded from %s: %s", proto, port, self.address, error)
            self._unavailable.add(external)
            return
        serve = self._serve_tcp if proto == "TCP" else self._serve_udp
        task = self._open[external] = self.spawn(serve(opened, external))
        task.add_done_callback(lambda _: self._closed(external))

    def _closed(self, external: ExternalPort) -> None:
        self._closing.discard(external)
        self.follow()  # it may have been mapped again

    # TCP

    async def _serve_tcp(self, listener: socket.socket, external: ExternalPort) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                connection, sender = await loop.sock_accept(listener)
                target = self.target(external, sender)
                if target is None:
                    _reset(connection)
                    self.follow()  # its lease may have expired
                else:
                    self.spawn(self._forward_connection(connection, target))

    async def _forward_connection(self, outside: socket.socket, target: tuple[str, int]) -> None:
        """Forward one connection until both directions have ended."""
        loop = asyncio.get_running_loop()
        with outside, socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET) as inside:
            outside.setblocking(False)
            inside.setblocking(False)
            try:
                await loop.sock_connect(inside, target)
                async with asyncio.TaskGroup() as directions:
                    directions.create_task(self._pump(outside, inside, inward=True))
                    directions.create_task(self._pump(inside, outside, inward=False))
            except (OSError, ExceptionGroup):
                _reset(outside)  # as the server itself would have done

    async def _pump(self, source: socket.socket, target: socket.socket, *, inward: bool) -> None:
        loop = asyncio.get_running_loop()
        while chunk := await loop.sock_recv(source, _CHUNK):
            self.count(len(chunk), inward=inward)
            await loop.sock_sendall(target, chunk)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def count(self, size: int, *, inward: bool) -> None:
        """Count bytes that were forwarded."""
        self._count(0 if inward else size, size if inward else 0)

    # UDP

    async def _serve_udp(self, opened: socket.socket, external: ExternalPort) -> None:
        port = _UdpPort(self, external)
        try:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: port, sock=opened)
        except BaseException:
            opened.close()
            raise
        try:
            await port.lost.wait()
        finally:
            transport.abort()
            port.close_peers()
            await port.lost.wait()  # only then the port is free again


class _UdpPort(asyncio.DatagramProtocol):
    """One UDP port of the internet side, with a socket on the inside for each sender."""

    def __init__(self, forwarder: Forwarder, external: ExternalPort) -> None:
        self.lost = asyncio.Event()
        self._forwarder = forwarder
        self._external = external
        self._peers: dict[tuple[_Address, tuple[str, int]], _UdpPeer] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def datagram_received(self, data: bytes, addr: _Address | None) -> None:
        if addr is None:  # by the proactor loop from Python 3.12 on: an ICMP error, of a client that is gone
            return
        target = self._forwarder.target(self._external, addr)
        if target is None:
            return
        self._forwarder.count(len(data), inward=True)
        peer = self._peers.pop((addr, target), None)
        if peer is None:
            if len(self._peers) >= _MAX_PEERS:
                self._peers.pop(next(iter(self._peers))).close()
            peer = _UdpPeer(lambda reply: self._answer(reply, addr))
            self._forwarder.spawn(peer.connect(target))
        self._peers[addr, target] = peer
        peer.send(data)

    def error_received(self, exc: Exception) -> None:
        log.debug("%s port %d: %s", *self._external, exc)

    def close_peers(self) -> None:
        while self._peers:
            self._peers.popitem()[1].close()

    def _answer(self, reply: bytes, addr: _Address) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._forwarder.count(len(reply), inward=False)
            self._transport.sendto(reply, addr)


class _UdpPeer(asyncio.DatagramProtocol):
    """The socket on the inside for one sender on the internet side."""

    def __init__(self, answer: Callable[[bytes], None]) -> None:
        self._answer = answer
        self._waiting: list[bytes] = []
        self._transport: asyncio.DatagramTransport | None = None
        self._closed = False

    async def connect(self, target: tuple[str, int]) -> None:
        with suppress(OSError):
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, remote_addr=target)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        if self._closed:
            self._transport.abort()
            return
        for datagram in self._waiting:
            self._transport.sendto(datagram)
        self._waiting.clear()

    def datagram_received(self, data: bytes, addr: _Address) -> None:
        self._answer(data)

    def error_received(self, exc: Exception) -> None:
        pass  # no server listens there: the datagram is lost

    def send(self, datagram: bytes) -> None:
        if self._transport is None:
            self._waiting.append(datagram)
        else:
            self._transport.sendto(datagram)

    def close(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.abort()


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _reset(connection: socket.socket) -> None:
    """Close a connection with a reset, as a host does where no server listens."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
