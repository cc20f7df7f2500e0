"""SSDP on the network: the sockets of searches, what is sent from them, and the replies.

Each reply is passed on at once; the caller decides when to send, and which replies count.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final, NamedTuple, cast

from ...errors import NoRouteError
from ...net.guard import check_destination
from ...net.interfaces import Interface
from ...net.trace import tracer
from ...text import get_logger
from ..wire import ssdp

__all__ = ["Ask", "SearchReply", "SearchSockets", "SsdpSearch"]

_MAX_SEEN: Final = 1024
"""Datagrams cached for each search and socket, the latest ones, so that a repeated one costs no more than a look-up."""

_MAX_HOSTS: Final = 64
"""Hosts of which it is remembered what their addresses are: each is looked at for each datagram."""

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


class Ask(NamedTuple):
    """A host that is sent searches of its own, and the interface from which."""

    host: str
    interface: Interface


class SsdpSearch:
    """One search by SSDP; an asynchronous context manager.

    ``interfaces``: where the group is searched. ``asks``: the hosts that can be asked by unicast, each from a port that
    nobody else learns, so that its replies are confirmed; not where ``local_port`` (0 for any) is fixed. ``on_reply``
    is called for each valid reply, except for exact repeats, from hosts on the link, from those that can be asked, and
    from ``trusted`` ones; datagrams of all others are dropped, since their senders would be sent requests. ``ttl``
    (hops, 0 to 255) limits how far multicasts travel. ``sockets``: those that are shared with other searches.
    """

    def __init__(
        self,
        interfaces: Sequence[Interface],
        on_reply: Callable[[SearchReply], None],
        *,
        ttl: int,
        local_port: int,
        asks: Sequence[Ask] = (),
        trusted: Iterable[str] = (),
        sockets: SearchSockets | None = None,
    ) -> None:
        self.interfaces = interfaces
        self._on_reply = on_reply
        self._ttl = ttl
        self._local_port = local_port
        self._asks = asks
        self._trusted = frozenset(_plain(host) for host in (*trusted, *(ask.host for ask in asks)))
        self._sockets = sockets or SearchSockets()
        self._multicast: dict[Interface, _Endpoint] = {}
        self._unicast: dict[Ask, _Endpoint] = {}
        self._seen: dict[_Endpoint, dict[tuple[str, bytes], None]] = {}
        self._tracer = tracer.get()
        self.port_problem = ""
        """Why the port that the program chose cannot be used on one of the interfaces, "" where it can."""

    async def __aenter__(self) -> SsdpSearch:
        for interface in self.interfaces:
            check_destination(_group(interface), interface.address)
        for ask in self._asks:
            check_destination(ask.host, ask.interface.address)
        errors: list[OSError] = []
        try:
            # One interface may be going away; the others are used.
            for interface in self.interfaces:
                try:
                    self._multicast[interface] = await self._open(interface, self._local_port)
                except OSError as error:
                    errors.append(error)
            for ask in self._asks:
                try:
                    self._unicast[ask] = await self._open_for(ask)
                except OSError as error:
                    errors.append(error)
        except BaseException:
            self.close()
            raise
        self.port_problem = self._port_problem(errors)
        if not self._multicast and not self._unicast:
            reason = self.port_problem or str(errors[0].strerror or errors[0])
            raise NoRouteError(f"no search can be sent from here: {reason}") from errors[0]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def send(self, targets: Iterable[str], interface: Interface, *, site_scope: bool = False) -> None:
        """Multicast one M-SEARCH for each target from an interface.

        ``site_scope``: to the group that reaches beyond the link, where there is another one for that (IPv6).
        """
        if interface in self._multicast:
            for target in targets:
                self._send(self._multicast[interface], target, _group(interface, site_scope=site_scope))

    def ask(self, targets: Iterable[str], ask: Ask) -> None:
        """Send one M-SEARCH for each target to one host."""
        if ask in self._unicast:
            for target in targets:
                self._send(self._unicast[ask], target, ask.host)

    def close(self) -> None:
        """Close all sockets that no other search uses."""
        self._multicast.clear()
        self._unicast.clear()
        while self._seen:
            self._sockets.release(self._seen.popitem()[0], self)

    def receive(self, endpoint: _Endpoint, datagram: bytes, sender: str) -> None:
        """Take what came in at a socket."""
        if endpoint not in self._seen:
            return
        if self._tracer is not None:
            self._tracer.datagram("in", datagram, sender.partition("%")[0])
        if not self._is_wanted(endpoint, sender):
            wire_log.debug("from %s, which is not in the network of %s: ignored", sender, endpoint.interface.address)
            return
        seen = self._seen[endpoint]
        identity = (sender, datagram[: ssdp.MAX_DATAGRAM])
        if identity in seen:
            return
        seen[identity] = None
        if len(seen) > _MAX_SEEN:
            del seen[next(iter(seen))]
        announcement = ssdp.parse_datagram(datagram)
        if announcement is None or announcement.kind != "reply":
            wire_log.debug("from %s: %d bytes that are no search reply", sender, len(datagram))
            return
        wire_log.debug("from %s: %s", sender, announcement)
        is_confirmed = endpoint.asked == _plain(sender)
        self._on_reply(SearchReply(announcement, sender, endpoint.interface.address, is_confirmed))

    def _is_wanted(self, endpoint: _Endpoint, sender: str) -> bool:
        if not self.interfaces and len(endpoint.searches) > 1:
            return _plain(sender) in self._trusted  # others answer other searches
        return endpoint.interface.is_on_link(sender) or sender in self._trusted

    async def _open_for(self, ask: Ask) -> _Endpoint:
        if self._local_port:
            return self._multicast.get(ask.interface) or await self._open(ask.interface, self._local_port)
        return await self._open(ask.interface, 0)

    async def _open(self, interface: Interface, local_port: int) -> _Endpoint:
        endpoint = await self._sockets.open(interface, local_port, self)
        self._seen.setdefault(endpoint, {})
        return endpoint

    def _send(self, endpoint: _Endpoint, target: str, host: str) -> None:
        interface = endpoint.interface
        datagram = ssdp.build_search(target, host if _is_multicast(host) else _group(interface))
        wire_log.debug("from %s to %s: %r", interface.address, host, datagram)
        if self._tracer is not None:
            self._tracer.datagram("out", datagram, host)
        if not _is_multicast(host) and not self._local_port:
            endpoint.asked = _plain(host)
        endpoint.send(datagram, host, self._ttl)

    def _port_problem(self, errors: Sequence[OSError]) -> str:
        for error in errors:
            if self._local_port and error.errno == errno.EADDRINUSE:
                return (
                    f"port {self._local_port} is in use by another program, or by another PortMapper; "
                    "local_port=0 means any port"
                )
            if self._local_port and error.errno == errno.EACCES:
                return f"port {self._local_port} is not allowed ({error.strerror}); local_port=0 means any port"
        return ""


class SearchSockets:
    """The sockets of all searches of a driver, each closed with the last search that uses it.

    Searches share a socket where the program chose its port: without SO_REUSEADDR only one socket can be bound to it,
    and with it whoever does so last, be it another user of the host, would get the replies.
    """

    def __init__(self) -> None:
        self._shared: dict[tuple[Interface, int], _Endpoint] = {}

    async def open(self, interface: Interface, local_port: int, search: SsdpSearch) -> _Endpoint:
        """Return a socket that is bound to an address and a port (0 for any). Raises OSError."""
        key = (interface, local_port)
        while local_port and (endpoint := self._shared.get(key)) is not None:
            if endpoint.is_open:
                endpoint.searches[search] = None
                return endpoint
            await asyncio.wait([endpoint.closed if endpoint.is_closing else endpoint.opened])
        sock = _search_socket(interface, local_port)
        endpoint = _Endpoint(interface, sock)
        endpoint.searches[search] = None
        if local_port:
            self._shared[key] = endpoint
            endpoint.closed.add_done_callback(lambda _: self._shared.pop(key, None))
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: endpoint, sock=sock)
        except BaseException:
            endpoint.close()  # uvloop goes on with opening it when this is cancelled
            sock.close()
            endpoint.connection_lost(None)
            raise
        return endpoint

    def release(self, endpoint: _Endpoint, search: SsdpSearch) -> None:
        """Close a socket, unless another search uses it."""
        endpoint.searches.pop(search, None)
        if not endpoint.searches:
            endpoint.close()


class _Endpoint(asyncio.DatagramProtocol):
    """One socket, and the searches that use it.

    ``asked``: the host that was sent a search from here, where nobody else was; "" where others were, too.
    """

    def __init__(self, interface: Interface, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.interface = interface
        self.searches: dict[SsdpSearch, None] = {}
        self.asked = ""
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.is_closing = False
        self._sock = sock
        self._ttl: int | None = None
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def is_open(self) -> bool:
        return self.opened.done() and not self.is_closing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        if self.is_closing:
            self.close()
            return
        if not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            # uvloop has just set one of them. Not all kernels know both.
            for option in ("SO_REUSEADDR", "SO_REUSEPORT"):
                with suppress(OSError, AttributeError):
                    self._sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 0)
        self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.opened, self.closed):
            if not future.done():
                future.set_result(None)

    def datagram_received(self, datagram: bytes, address: tuple[Any, ...] | None) -> None:
        if address is None:  # by the proactor loop from Python 3.12 on: a port was unreachable
            return
        sender = str(address[0]).partition("%")[0]
        if len(address) == 4 and address[3]:
            sender = f"{sender}%{address[3]}"
        for search in tuple(self.searches):
            search.receive(self, datagram, sender)

    def error_received(self, exc: Exception) -> None:
        # An interface without a route, an unreachable port: the other interfaces and rounds go on.
        wire_log.debug("on %s: %s", self.interface.address, exc)

    def send(self, datagram: bytes, host: str, ttl: int) -> None:
        if self._transport is None:
            return
        interface = self.interface
        if _is_multicast(host) and ttl != self._ttl:
            self._ttl = ttl
            if interface.is_ipv6:
                self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)
            else:
                self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
        if interface.is_ipv6:
            self._transport.sendto(datagram, (host.partition("%")[0], ssdp.PORT, 0, interface.index))
        else:
            self._transport.sendto(datagram, (host, ssdp.PORT))

    def close(self) -> None:
        self.is_closing = True
        if self._transport is not None:
            self._transport.abort()
            self._transport = None


def _group(interface: Interface, *, site_scope: bool = False) -> str:
    return ssdp.MULTICAST_V6[site_scope] if interface.is_ipv6 else ssdp.MULTICAST_V4


@lru_cache(maxsize=_MAX_HOSTS)
def _is_multicast(host: str) -> bool:
    return ip_address(host.partition("%")[0]).is_multicast


@lru_cache(maxsize=_MAX_HOSTS)
def _plain(host: str) -> str:
    """Return an IP address in its usual form, without its zone."""
    return str(ip_address(host.partition("%")[0]))


def _search_socket(interface: Interface, local_port: int) -> socket.socket:
    """Return a socket for searches from an interface. Raises OSError.

    Nobody else may be bound to its port: on Windows that has to be asked for.
    """
    sock = socket.socket(socket.AF_INET6 if interface.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        if interface.is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)
            sock.bind((interface.address, local_port, 0, interface.index))
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface.address))
            sock.bind((interface.address, local_port))
    except BaseException:
        sock.close()
        raise
    return sock
