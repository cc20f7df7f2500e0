"""The part of the emulated gateway that carries bytes: from its internet side to whoever a port is mapped to.

Everything that moves payload lives here; which ports are mapped is the table's business, and is looked up there
for each connection and each datagram. Only loopback is ever connected to: a mapping to any other address exists
on paper, as all mappings of an emulated gateway do without this.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final, cast

from ..models import PortMapping, Proto
from . import network

__all__ = ["Forwarder"]

log = logging.getLogger("aioigd.testing.forwarding")

_CHUNK: Final = 65_536
_MOST_PEERS: Final = 256
"""Senders that one UDP port remembers; a NAT forgets the oldest, too."""
_BACKLOG: Final = 128
_RESET: Final = struct.pack("ii", 1, 0)

ExternalPort = tuple[Proto, int]
"""An external port, whatever the number of mappings of it (each for another remote host)."""
_Address = tuple[Any, ...]


class Forwarder:
    """Listens on the internet side of a gateway, on every port that is mapped, and on no other.

    ``address`` is the loopback address of the internet side, ``mappings`` tells which mappings there are now.
    :meth:`follow` is called when that may have changed; when it returns, new ports are open, and nothing comes
    through old ones. To the server behind a mapping, connections come from this machine. One that is up when its
    mapping goes stays up, as it does on most routers. ``count`` is told of all bytes: how many went out, how many in.
    """

    def __init__(
        self, address: str, mappings: Callable[[], Iterable[PortMapping]], count: Callable[[int, int], None]
    ) -> None:
        self.address = address
        self._mappings = mappings
        self._count = count
        self._open: dict[ExternalPort, asyncio.Task[None]] = {}
        self._closing: set[ExternalPort] = set()
        self._unavailable: set[ExternalPort] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = False

    def __repr__(self) -> str:
        return f"<Forwarder on {self.address}, {len(self._open)} ports>"

    def start(self) -> None:
        """Begin, with the mappings there are."""
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
        """Open and close ports, so that they are those of the mappings."""
        if not self._running:
            return
        wanted: set[ExternalPort] = {
            (one.proto, one.external_port) for one in self._mappings() if _is_loopback(one.internal_client)
        }
        for door in self._open.keys() - wanted:
            self._closing.add(door)
            self._open.pop(door).cancel()
        self._unavailable &= wanted
        for door in wanted - self._open.keys() - self._closing - self._unavailable:
            self._open_door(door)

    def target(self, door: ExternalPort, sender: str) -> tuple[str, int] | None:
        """Return where a packet from outside goes, None where it does not pass."""
        for one in self._mappings():
            if (one.proto, one.external_port) == door and one.remote_host in ("", sender):
                return (one.internal_client, one.internal_port) if _is_loopback(one.internal_client) else None
        return None

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something until it ends, or the forwarder does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _open_door(self, door: ExternalPort) -> None:
        proto, port = door
        try:
            if proto == "TCP":
                opened = network.http_socket(self.address, port)
                opened.listen(_BACKLOG)  # at once: who is told that the port is mapped may use it
            else:
                opened = network.spare_socket(self.address, port)
        except OSError as error:
            log.warning("%s port %d cannot be forwarded from %s: %s", proto, port, self.address, error)
            self._unavailable.add(door)
            return
        serve = self._serve_tcp if proto == "TCP" else self._serve_udp
        task = self._open[door] = self.spawn(serve(opened, door))
        task.add_done_callback(lambda _: self._closed(door))

    def _closed(self, door: ExternalPort) -> None:
        self._closing.discard(door)
        self.follow()  # it may have been mapped again meanwhile

    # TCP

    async def _serve_tcp(self, listener: socket.socket, door: ExternalPort) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                connection, sender = await loop.sock_accept(listener)
                target = self.target(door, sender[0])
                if target is None:
                    _reset(connection)
                    self.follow()  # perhaps its lease has run out
                else:
                    self.spawn(self._carry(connection, target))

    async def _carry(self, outside: socket.socket, target: tuple[str, int]) -> None:
        """Carry one connection until both directions have ended."""
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
        """Note that bytes were carried."""
        self._count(0 if inward else size, size if inward else 0)

    # UDP

    async def _serve_udp(self, opened: socket.socket, door: ExternalPort) -> None:
        port = _UdpPort(self, door)
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
    """One UDP port of the internet side, with a socket of its own towards the inside for each sender."""

    def __init__(self, forwarder: Forwarder, door: ExternalPort) -> None:
        self.lost = asyncio.Event()
        self._forwarder = forwarder
        self._door = door
        self._peers: dict[tuple[_Address, tuple[str, int]], _UdpPeer] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def datagram_received(self, data: bytes, addr: _Address) -> None:
        target = self._forwarder.target(self._door, addr[0])
        if target is None:
            return
        self._forwarder.count(len(data), inward=True)
        peer = self._peers.pop((addr, target), None)
        if peer is None:
            if len(self._peers) >= _MOST_PEERS:
                self._peers.pop(next(iter(self._peers))).close()
            peer = _UdpPeer(lambda reply: self._answer(reply, addr))
            self._forwarder.spawn(peer.connect(target))
        self._peers[addr, target] = peer
        peer.send(data)

    def error_received(self, exc: Exception) -> None:
        log.debug("%s port %d: %s", *self._door, exc)

    def close_peers(self) -> None:
        while self._peers:
            self._peers.popitem()[1].close()

    def _answer(self, reply: bytes, addr: _Address) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._forwarder.count(len(reply), inward=False)
            self._transport.sendto(reply, addr)


class _UdpPeer(asyncio.DatagramProtocol):
    """The socket towards the inside that stands for one sender outside."""

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
        pass  # nobody listens there: that is for the sender to notice

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
    """Close a connection as a host does where nobody listens."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
