"""The addresses of this machine, and the next hop of its best default route.

Only questions to the operating system; nothing is sent.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from ..arguments import check_flag, check_host
from ..errors import NoRouteError, UsageError

__all__ = [
    "Interface",
    "default_next_hops",
    "interfaces",
    "is_our_address",
    "public_ipv6_address",
    "same_network_ipv6",
    "source_address_for",
]

_ROUTES_V4: Final = Path("/proc/thread-self/net/route")
_ROUTES_V6: Final = Path("/proc/thread-self/net/ipv6_route")
_RTF_GATEWAY: Final = 0x2
_SOMEWHERE: Final = "2001:db8::1"
"""An address that nobody has (RFC 3849), for the question how hosts on the internet are reached."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One local address from which a search can be sent.

    ``address`` is without a zone id; ``index`` is the interface's number, which IPv6 needs for multicast.
    """

    address: str
    index: int

    @property
    def is_ipv6(self) -> bool:
        """Whether the address is an IPv6 address."""
        return ":" in self.address

    @property
    def is_loopback(self) -> bool:
        """Whether nothing that is sent from here leaves the machine."""
        return ip_address(self.address).is_loopback


def interfaces(*, ipv6: bool = False, source_address: str | None = None) -> list[Interface]:
    """Return where a search can be sent from: each network once, loopback only when asked for by address.

    With ``source_address`` it is the interface that has that address. For IPv6 each interface counts once, with
    its link-local address where it has one, because that is the scope of the search (UDA 1.1 annex A).
    Raises TransportError (SOCKET_ERROR) where there is none.
    """
    found = _all_addresses()
    if source_address is not None:
        wanted = ip_address(source_address)
        chosen = [interface for interface in found if ip_address(interface.address) == wanted]
        if not chosen and wanted.is_loopback:
            # 127.0.0.2 and its like are usable on Linux without being listed anywhere.
            chosen = [
                Interface(source_address, interface.index)
                for interface in found
                if interface.is_loopback and interface.is_ipv6 == (wanted.version == 6)
            ]
        if not chosen:
            raise NoRouteError(f"no interface of this machine has the address {source_address}")
        return chosen[:1]
    usable = [interface for interface in found if not interface.is_loopback and interface.is_ipv6 == ipv6]
    if ipv6:
        usable.sort(key=lambda interface: not ip_address(interface.address).is_link_local)
        usable = list({interface.index: interface for interface in reversed(usable)}.values())
    if not usable:
        raise NoRouteError(f"this machine has no network with IPv{6 if ipv6 else 4}")
    return usable


def default_next_hops(*, ipv6: bool = False) -> frozenset[str]:
    """Return the addresses of the routers behind the best default route; empty where the system does not tell.

    The best route is the one with the lowest metric, and there are several routers only where routes share it. Linux
    tells in its routing table; nowhere else is there a way without a privilege or a subprocess.
    """
    wants_ipv6 = check_flag(ipv6, "ipv6")
    with suppress(OSError, ValueError, IndexError):
        routes = _default_routes_v6() if wants_ipv6 else _default_routes_v4()
        best = min((metric for metric, _ in routes), default=0)
        return frozenset(hop for metric, hop in routes if metric == best)
    return frozenset()


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
            probe.connect(address)  # of a datagram socket: looks up the route, sends nothing
            return str(probe.getsockname()[0]).partition("%")[0]
    except OSError as error:
        raise NoRouteError(f"there is no route to {host}: {error.strerror or error}") from error


def is_our_address(address: str) -> bool:
    """Tell whether this machine has an IPv6 address, so that packets can be sent from it."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
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
    found = _all_addresses()
    index = next((one.index for one in found if ip_address(one.address) == wanted), None)
    addresses = [ip_address(one.address) for one in found if one.index == index and one.is_ipv6]
    if not addresses:
        raise NoRouteError(f"the network of {address} has no IPv6 for this machine")
    return str(min(addresses, key=lambda one: not one.is_link_local))


def _all_addresses() -> list[Interface]:
    # Not before it is needed: it loads ctypes, a good part of what importing this package adds to aiohttp and lxml.
    import ifaddr

    found = []
    for adapter in ifaddr.get_adapters():
        for entry in adapter.ips:
            address = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
            found.append(Interface(address.partition("%")[0], adapter.index or 0))
    return found


def _default_routes_v4() -> list[tuple[int, str]]:
    """Return metric and next hop of each default route that has a router."""
    found = []
    for line in _ROUTES_V4.read_text("ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1] == fields[7] == "00000000" and int(fields[3], 16) & _RTF_GATEWAY:
            # The kernel prints the number as the machine stores it.
            found.append((int(fields[6]), str(IPv4Address(socket.htonl(int(fields[2], 16))))))
    return found


def _default_routes_v6() -> list[tuple[int, str]]:
    found = []
    for line in _ROUTES_V6.read_text("ascii").splitlines():
        fields = line.split()
        if fields[0] == "0" * 32 and fields[1] == "00" and int(fields[8], 16) & _RTF_GATEWAY:
            found.append((int(fields[5], 16), str(IPv6Address(int(fields[4], 16)))))
    return found
