"""The addresses, networks and default routes of this machine.

Only questions to the operating system; nothing is sent, and no process is started. What is read is bounded, so that
a machine with a full routing table is asked as fast as any other.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final, NamedTuple

from ..arguments import check_flag, check_host
from ..errors import NoRouteError, TransportError, UsageError
from .linux_addresses import MAX_ADDRESSES, AddressEntry, Network, ipv4_addresses, ipv6_addresses

__all__ = [
    "Interface",
    "all_addresses",
    "can_send_from",
    "default_next_hops",
    "interfaces",
    "ipv6_next_hops",
    "is_our_address",
    "leading_to",
    "public_ipv6_address",
    "same_network_ipv6",
    "source_address_for",
    "with_default_route",
]

_ROUTES_V4: Final = Path("/proc/thread-self/net/route")
_ROUTES_V6: Final = Path("/proc/thread-self/net/ipv6_route")
_IS_LINUX: Final = sys.platform in ("linux", "android")
_MAX_ROUTES: Final = 128 * 1024
"""Bytes of a routing table that are read. Linux lists the default routes of IPv4 first, and those of IPv6 last: where
there are more than 800 routes it would take too long to get there, and the next hop over IPv6 is not known."""
_MAX_NETWORKS: Final = 64
"""Networks that are searched, those with a default route first: a host of containers may have hundreds of bridges, and
each takes a socket."""
_MAX_ASKED: Final = 8
"""Routers of default routes that count."""
_RTF_UP: Final = 0x1
_RTF_GATEWAY: Final = 0x2
_RTF_REJECT: Final = 0x200
_DEFAULT_V4: Final = re.compile(
    rb"^(\S+)\t00000000\t([0-9A-F]{8}) *\t([0-9A-F]+)\t\d+\t\d+\t(\d+)\t00000000\t", re.MULTILINE
)
_DEFAULT_V6: Final = re.compile(
    rb"^0{32} 00 0{32} 00 ([0-9a-f]{32}) ([0-9a-f]{8}) [0-9a-f]{8} [0-9a-f]{8} ([0-9a-f]{8}) +(\S+)$", re.MULTILINE
)
_MAX_CACHED: Final = 256
"""Addresses of which it is remembered what they are: a machine has the same ones at each search."""
_SOMEWHERE: Final = "2001:db8::1"
"""An address that nobody has (RFC 3849), for the question how hosts on the internet are reached."""
_SOMEWHERE_V4: Final = "192.0.2.1"
"""The same for IPv4 (RFC 5737)."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One local address from which a search can be sent.

    ``address`` is without a zone id; ``index`` is the interface's number, which IPv6 needs for multicast, 0 where it is
    not known. ``prefix_length`` is that of the address, None where it is not known, ``networks`` are all prefixes of
    the interface, also the peer at its other end if it has one, and ``name`` is what the system calls it.
    """

    address: str
    index: int
    prefix_length: int | None = field(default=None, compare=False)
    networks: tuple[Network, ...] = field(default=(), compare=False)
    name: str = field(default="", compare=False)

    @property
    def is_ipv6(self) -> bool:
        """Whether the address is an IPv6 address."""
        return ":" in self.address

    @property
    def is_loopback(self) -> bool:
        """Whether nothing that is sent from here leaves the machine."""
        return _is_loopback(self.address)

    @property
    def network(self) -> Network:
        """The prefix of the address; where its length is not known, that of a usual LAN: 24 bits, or 64 for IPv6."""
        usual = 64 if self.is_ipv6 else 24
        return _network(self.address, usual if self.prefix_length is None else self.prefix_length)

    @property
    def is_single_address(self) -> bool:
        """Whether nobody else is in its network, as at one end of a tunnel: what is there only routes tell."""
        return self.network.num_addresses == 1

    def is_on_link(self, host: str) -> bool:
        """Return whether a host is in a network of this interface, so that no router lies between.

        ``host``: an IP address; a link-local one has its zone, unless the interface does not matter.
        """
        text, _, zone = host.partition("%")
        try:
            address = ip_address(text)
        except ValueError:
            return False
        if self.is_loopback and address.is_loopback:
            return True
        if isinstance(address, IPv6Address) and address.is_link_local:
            return self.is_ipv6 and (not zone or not self.index or zone in (str(self.index), self.name))
        return any(address in network for network in self.networks or (self.network,))


def interfaces(*, ipv6: bool = False, source_address: str | None = None) -> list[Interface]:
    """Return where a search can be sent from: each network once, loopback only when asked for by address; at most 64.

    A network is a prefix on one interface. Of several addresses in it the one is returned from which the system would
    send to a router of a default route, else the first. With ``source_address`` it is the interface that has that
    address. For IPv6 each interface counts once, with its link-local address where it has one, because that is the
    scope of the search (UDA 1.1 annex A). Raises TransportError (SOCKET_ERROR) where there is none.
    """
    found = all_addresses()
    if source_address is not None:
        return [_with_address(source_address, found)]
    same_family = [interface for interface in found if interface.is_ipv6 == ipv6]
    usable = [interface for interface in same_family if not interface.is_loopback]
    if not same_family or len(same_family) >= MAX_ADDRESSES:
        listed = {interface.address for interface in usable}
        usable += [one for one in _without_a_list(ipv6=ipv6) if not one.is_loopback and one.address not in listed]
    if not usable:
        raise NoRouteError(f"this machine has no network with IPv{6 if ipv6 else 4}")
    if ipv6:
        usable.sort(key=lambda interface: not ip_address(interface.address).is_link_local)
        return _within_bounds(list({interface.index: interface for interface in reversed(usable)}.values()))
    networks: dict[tuple[int, Network], list[Interface]] = {}
    for interface in usable:
        networks.setdefault((interface.index, interface.network), []).append(interface)
    if len(networks) == len(usable):
        return _within_bounds(usable)
    preferred = _sources_for_next_hops(ipv6=False) or _sources_for_internet(ipv6=False)
    chosen = [next((one for one in each if one.address in preferred), each[0]) for each in networks.values()]
    return _within_bounds(chosen)


def with_default_route(places: Sequence[Interface]) -> frozenset[Interface]:
    """Return those of our interfaces, all IPv4 or all IPv6, over whose network a default route leads.

    Routes of any metric count, and the one by which the system would send to the internet where the routing table does
    not tell.
    """
    if not places:
        return frozenset()
    ipv6 = places[0].is_ipv6
    sources = _sources_for_next_hops(ipv6=ipv6) | _sources_for_internet(ipv6=ipv6)
    found = {place for place in places if place.address in sources}
    for route in _default_routes(ipv6=ipv6):
        on_device = [place for place in places if place.name and place.name == route.device]
        if ipv6 or route.next_hop is None:
            found.update(on_device)
        else:
            found.update(place for place in on_device if ip_address(route.next_hop) in place.network)
    return frozenset(found)


def leading_to(host: str, places: Sequence[Interface]) -> list[Interface]:
    """Return the one of our interfaces by which packets to ``host`` (an IP address) would leave.

    All of them where only the interface tells where the host is: for a link-local address without a zone.
    """
    text, _, zone = host.partition("%")
    if ip_address(text).version == 6 and ip_address(text).is_link_local and not zone:
        routers = {route.device for route in _default_routes(ipv6=True) if route.next_hop == text}
        return [place for place in places if place.name in routers] or list(places)
    address = ""
    with suppress(TransportError):
        address = source_address_for(host)
    exact = [place for place in places if place.address == address]
    return (exact or [place for place in places if place.is_on_link(host)] or list(places))[:1]


def default_next_hops(*, ipv6: bool = False) -> frozenset[str]:
    """Return the addresses of the routers behind the best default route; empty where the system does not tell.

    The best route is the one with the lowest metric, and there are several routers only where routes share it. Linux
    tells in its routing table; nowhere else is there a way without a privilege or a subprocess.
    """
    wants_ipv6 = check_flag(ipv6, "ipv6")
    routes = [route for route in _default_routes(ipv6=wants_ipv6) if route.next_hop is not None]
    best = min((route.metric for route in routes), default=0)
    return frozenset(route.next_hop for route in routes if route.next_hop is not None and route.metric == best)


def ipv6_next_hops(*, beside: str = "") -> list[str]:
    """Return the addresses of the routers behind the best IPv6 default route, link-local ones with their zone.

    With ``beside``, an address of this machine, only routes over its interface count. Empty where the system does not
    tell.
    """
    names = {one.name for one in all_addresses() if one.address == beside}
    routes = [
        (route.metric, route.next_hop, route.device)
        for route in _default_routes(ipv6=True)
        if route.next_hop is not None and (not beside or route.device in names)
    ]
    best = min((metric for metric, _, _ in routes), default=0)
    return sorted({_zoned(hop, device) for metric, hop, device in routes if metric == best})


def source_address_for(host: str) -> str:
    """Return the local address from which packets to ``host`` (an IP address) would leave.

    Raises TransportError (SOCKET_ERROR) where there is no route to it, and UsageError where it is no address.
    """
    destination = check_host(host)
    if destination is None:
        raise UsageError("host must be an IP address, not None")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            destination, 9, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setblocking(False)
            probe.connect(address)  # of a datagram socket: looks up the route, sends nothing
            return str(probe.getsockname()[0]).partition("%")[0]
    except (OSError, UnicodeError) as error:  # the latter of a zone that is no name
        raise NoRouteError(f"there is no route to {host}: {getattr(error, 'strerror', None) or error}") from error


def can_send_from(address: str, host: str) -> bool:
    """Return whether packets to ``host`` can be sent from a local address: it is still ours, and has a route there."""
    try:
        family, kind, protocol, _, destination = socket.getaddrinfo(
            host, 9, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # A link-local address is bound with the zone of where it leads.
            zone = destination[3] if len(destination) > 3 else 0
            probe.bind((address, 0, 0, zone) if family == socket.AF_INET6 else (address, 0))
            probe.connect(destination)  # of a datagram socket: looks up the route, sends nothing
    except OSError:
        return False
    return True


def is_our_address(address: str) -> bool:
    """Tell whether this machine has an IP address, so that packets can be sent from it."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:  # also where there is no such family, or no room for one more socket
        return False
    return True


def public_ipv6_address() -> str:
    """Return the IPv6 address by which hosts on the internet know this machine.

    Raises TransportError (SOCKET_ERROR) where it has none.
    """
    address = source_address_for(_SOMEWHERE)
    if ip_address(address).is_link_local:
        raise NoRouteError("this machine has no IPv6 address on the internet")
    return address


def same_network_ipv6(address: str) -> str:
    """Return an IPv6 address of the interface that has an IPv4 address, its link-local one if there is one.

    Raises TransportError (SOCKET_ERROR) where it has none.
    """
    wanted = ip_address(address)
    if wanted.is_loopback:
        return "::1"
    found = all_addresses()
    index = next((one.index for one in found if ip_address(one.address) == wanted), None)
    addresses = [ip_address(one.address) for one in found if one.index == index and one.is_ipv6]
    if not addresses:
        raise NoRouteError(f"the network of {address} has no IPv6 for this machine")
    return str(min(addresses, key=lambda one: not one.is_link_local))


# Addresses


@lru_cache(maxsize=_MAX_CACHED)
def _network(address: str, prefix_length: int) -> Network:
    return ip_network((address, prefix_length), strict=False)


@lru_cache(maxsize=_MAX_CACHED)
def _is_loopback(address: str) -> bool:
    return ip_address(address).is_loopback


def all_addresses() -> list[Interface]:
    """Return each address of each interface; empty where the system does not tell."""
    entries: list[AddressEntry] = []
    for ask in (_ask_ioctl, _ask_ifaddr) if _IS_LINUX else (_ask_ifaddr,):
        # No netlink, no such question, no C library that could be asked, or whatever ifaddr makes of an answer that it
        # did not expect: it reads structures of C.
        with suppress(Exception):
            entries = entries or ask()
    # A prefix of no bits would have the whole internet on the link.
    entries = [entry._replace(prefix_length=entry.prefix_length or None) for entry in entries]
    networks: dict[int | str, dict[Network, None]] = {}
    for entry in entries:
        here = networks.setdefault(entry.number or entry.name, {})
        if entry.prefix_length is not None:
            here[_network(entry.address, entry.prefix_length)] = None
            if entry.peer is not None:
                here[_network(entry.peer, entry.prefix_length)] = None
    return [
        Interface(
            entry.address, entry.number, entry.prefix_length, tuple(networks[entry.number or entry.name]), entry.name
        )
        for entry in entries
    ]


def _with_address(address: str, found: Iterable[Interface]) -> Interface:
    """Return the interface that has an address, from what the system tells, or else by trying."""
    wanted = ip_address(address)
    plain = str(wanted)
    found = list(found)
    for interface in found:
        if interface.address == plain:
            return interface
    if wanted.is_loopback:
        # 127.0.0.2 and its like are usable on Linux without being listed anywhere.
        for interface in found:
            if interface.is_loopback and interface.is_ipv6 == (wanted.version == 6):
                return Interface(address, interface.index, interface.prefix_length, interface.networks, interface.name)
    # A list that is missing (of IPv6, without /proc), or has no room for all of them, says nothing about this one.
    same_family = [interface for interface in found if interface.is_ipv6 == (wanted.version == 6)]
    if (not same_family or len(same_family) >= MAX_ADDRESSES) and is_our_address(address):
        return Interface(address, 0)
    raise NoRouteError(f"no interface of this machine has the address {address}")


def _within_bounds(places: list[Interface]) -> list[Interface]:
    """Return no more networks than are searched, those with a default route first."""
    if len(places) <= _MAX_NETWORKS:
        return places
    first = with_default_route(places)
    return sorted(places, key=lambda place: place not in first)[:_MAX_NETWORKS]


def _without_a_list(*, ipv6: bool) -> list[Interface]:
    """Return from where the system would send to the internet, where it does not list all addresses."""
    sources = _sources_for_next_hops(ipv6=ipv6) | _sources_for_internet(ipv6=ipv6)
    return [Interface(address, 0) for address in sorted(sources)]


def _ask_ioctl() -> list[AddressEntry]:
    """Return the addresses as Linux tells them without netlink, which a sandbox may forbid, and without libc."""
    return [*ipv4_addresses(), *ipv6_addresses()]


def _ask_ifaddr() -> list[AddressEntry]:
    # Not before it is needed: it loads ctypes, and on some systems looks for libc with a process.
    import ifaddr

    return [
        AddressEntry(adapter.name, adapter.index or 0, text.partition("%")[0], entry.network_prefix)
        for adapter in ifaddr.get_adapters()
        for entry in adapter.ips
        for text in [entry.ip if isinstance(entry.ip, str) else entry.ip[0]]
    ]


# Default routes


class _Route(NamedTuple):
    """A default route; ``next_hop`` is None where none is needed, as in a tunnel."""

    metric: int
    next_hop: str | None
    device: str


def _default_routes(*, ipv6: bool) -> list[_Route]:
    """Return the default routes; empty where the system does not tell."""
    with suppress(OSError, ValueError):
        return _default_routes_v6() if ipv6 else _default_routes_v4()
    return []


def _default_routes_v4() -> list[_Route]:
    found = []
    for device, hop, flags, metric in _DEFAULT_V4.findall(_read_start(_ROUTES_V4)):
        if int(flags, 16) & (_RTF_UP | _RTF_REJECT) == _RTF_UP:
            # The kernel prints the number as the machine stores it.
            address = str(IPv4Address(socket.htonl(int(hop, 16)))) if int(flags, 16) & _RTF_GATEWAY else None
            found.append(_Route(int(metric), address, os.fsdecode(device)))
    return found


def _default_routes_v6() -> list[_Route]:
    found = []
    for hop, metric, flags, device in _DEFAULT_V6.findall(_read_start(_ROUTES_V6)):
        if int(flags, 16) & (_RTF_UP | _RTF_REJECT) == _RTF_UP:
            address = str(IPv6Address(int(hop, 16))) if int(flags, 16) & _RTF_GATEWAY else None
            found.append(_Route(int(metric, 16), address, os.fsdecode(device)))
    return found


def _zoned(hop: str, device: str) -> str:
    return f"{hop}%{device}" if ip_address(hop).is_link_local else hop


def _sources_for_next_hops(*, ipv6: bool) -> set[str]:
    """Return our addresses towards the routers of the default routes."""
    return _sources_for([route.next_hop for route in _default_routes(ipv6=ipv6) if route.next_hop is not None])


def _sources_for_internet(*, ipv6: bool) -> set[str]:
    """Return our address towards the internet: none where it cannot be reached."""
    return _sources_for([_SOMEWHERE if ipv6 else _SOMEWHERE_V4])


def _sources_for(hosts: Iterable[str]) -> set[str]:
    found = set()
    for host in list(hosts)[:_MAX_ASKED]:
        with suppress(TransportError):
            found.add(source_address_for(host))
    return found


def _read_start(path: Path) -> bytes:
    """Return the beginning of a file that the kernel writes while it is read."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        parts = []
        left = _MAX_ROUTES
        while left > 0 and (part := os.read(descriptor, left)):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(descriptor)
    return b"".join(parts)
