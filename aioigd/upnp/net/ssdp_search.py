"""SSDP on the network: one search from some interfaces, and its replies.

Each reply is passed on at once; the caller decides when to send, and which replies count.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, cast

from ...errors import NoRouteError
from ...net.guard import check_destination
from ...net.interfaces import Interface
from ...net.trace import tracer
from ...text import get_logger
from ..wire import ssdp

__all__ = ["SearchReply", "SsdpSearch"]

_MAX_SEEN: Final = 1024
"""Datagrams cached for each socket, the latest ones, so that a repeated one costs no more than a look-up."""

wire_log = get_logger("aioigd.traffic.ssdp")


class SearchReply(NamedTuple):
    """A search reply: its contents, the address of its sender, and the local address at which it arrived.

    A link-local ``sender`` has its zone id, so that it can be connected to. ``is_confirmed``: nobody but the sender can
    have known the port to which it came.
    """

    announcement: ssdp.Announcement
    sender: str
    our_address: str
    is_confirmed: bool = False


class SsdpSearch(asyncio.DatagramProtocol):
    """The sockets of one search, one for each interface; an asynchronous context manager.

    ``on_reply`` is called for each valid reply, except for exact repeats.
    ``ttl`` (hops, 0 to 255) limits how far the search travels; ``local_port`` 0 means any.
    """

    def __init__(
        self, interfaces: Sequence[Interface], on_reply: Callable[[SearchReply], None], *, ttl: int, local_port: int
    ) -> None:
        self._interfaces = interfaces
        self._on_reply = on_reply
        self._ttl = ttl
        self._local_port = local_port
        self._endpoints: list[_Endpoint] = []

    async def __aenter__(self) -> SsdpSearch:
        for interface in self._interfaces:
            check_destination(_groups(interface)[0], interface.address)
        errors: list[OSError] = []
        try:
            for interface in self._interfaces:
                try:
                    await self._open(interface)
                except OSError as error:
                    errors.append(error)  # one interface may be going away; the others are used
        except BaseException:
            self.close()
            raise
        if not self._endpoints:
            reason = errors[0].strerror or errors[0]
            raise NoRouteError(f"no search can be sent from here: {reason}") from errors[0]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def send(self, targets: Iterable[str], unicast: Iterable[str] = (), *, multicast: bool = True) -> None:
        """Send one M-SEARCH for each target from each interface: to its groups, and to the ``unicast`` addresses."""
        targets = tuple(targets)
        hosts = tuple(unicast)
        for host in hosts:
            for interface in self._interfaces:
                check_destination(host, interface.address)
        for endpoint in self._endpoints:
            endpoint.search(targets, hosts, multicast=multicast)

    def close(self) -> None:
        """Close all sockets."""
        while self._endpoints:
            self._endpoints.pop().close()

    async def _open(self, interface: Interface) -> None:
        sock = _multicast_socket(interface, self._ttl, self._local_port)
        endpoint = _Endpoint(interface, self._on_reply)
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: endpoint, sock=sock)
        except BaseException:
            endpoint.close()  # uvloop goes on with opening it when this is cancelled
            sock.close()
            raise
        self._endpoints.append(endpoint)


class _Endpoint(asyncio.DatagramProtocol):
    """One socket of a search."""

    def __init__(self, interface: Interface, on_reply: Callable[[SearchReply], None]) -> None:
        self._interface = interface
        self._on_reply = on_reply
        self._transport: asyncio.DatagramTransport | None = None
        self._closed = False
        self._seen: dict[tuple[str, bytes], None] = {}
        self._tracer = tracer.get()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        if self._closed:
            self.close()

    def datagram_received(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        if self._transport is None:
            return
        sender = str(address[0])
        if self._tracer is not None:
            self._tracer.datagram("in", datagram, sender)
        identity = (sender, datagram[: ssdp.MAX_DATAGRAM])
        if identity in self._seen:
            return
        self._seen[identity] = None
        if len(self._seen) > _MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        announcement = ssdp.parse_datagram(datagram)
        if announcement is None or announcement.kind != "reply":
            wire_log.debug("from %s: %d bytes that are no search reply", sender, len(datagram))
            return
        wire_log.debug("from %s: %s", sender, announcement)
        if ":" in sender and "%" not in sender and len(address) == 4 and address[3]:
            sender = f"{sender}%{address[3]}"
        self._on_reply(SearchReply(announcement, sender, self._interface.address))

    def error_received(self, exc: Exception) -> None:
        # An interface without a route, an unreachable port: the other interfaces and rounds go on.
        wire_log.debug("on %s: %s", self._interface.address, exc)

    def search(self, targets: tuple[str, ...], hosts: tuple[str, ...], *, multicast: bool) -> None:
        groups: tuple[str, ...] = ()
        if multicast:
            groups = _groups(self._interface)
        for target in targets:
            for host in (*groups, *hosts):
                self._send(ssdp.build_search(target, host), host)

    def close(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _send(self, datagram: bytes, host: str) -> None:
        if self._transport is None:
            return
        wire_log.debug("from %s to %s: %r", self._interface.address, host, datagram)
        if self._tracer is not None:
            self._tracer.datagram("out", datagram, host)
        if self._interface.is_ipv6:
            self._transport.sendto(datagram, (host, ssdp.PORT, 0, self._interface.index))
        else:
            self._transport.sendto(datagram, (host, ssdp.PORT))


def _groups(interface: Interface) -> tuple[str, ...]:
    return ssdp.MULTICAST_V6 if interface.is_ipv6 else (ssdp.MULTICAST_V4,)


def _multicast_socket(interface: Interface, ttl: int, local_port: int) -> socket.socket:
    family = socket.AF_INET6 if interface.is_ipv6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if interface.is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)
            sock.bind((interface.address, local_port, 0, interface.index))
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface.address))
            sock.bind((interface.address, local_port))
    except BaseException:
        sock.close()
        raise
    return sock
