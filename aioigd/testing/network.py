"""Sockets on loopback, and addresses to bind them to.

Every socket of the emulator is opened here, is bound to a loopback address, and sends multicast to the loopback
interface with a TTL of 0. So no packet of the emulator can leave the machine.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Final

from ..pcp.wire.common import CLIENT_PORT, SERVER_PORT
from ..pcp.wire.common import GROUP_V4 as PCP_GROUP_V4
from ..pcp.wire.common import GROUP_V6 as PCP_GROUP_V6
from ..upnp.wire.ssdp import MULTICAST_V4, PORT

__all__ = [
    "GROUP_V6",
    "announcement_group",
    "group_of",
    "http_socket",
    "loopback_address",
    "neighbour_of",
    "pcp_socket",
    "search_socket",
    "server_socket",
    "spare_socket",
]

GROUP_V6: Final = "ff02::c"
"""The multicast group, of link-local scope (UDA 1.1 annex A.3): wider scopes make no sense on one interface."""

_IP_MULTICAST_ALL: Final = 49  # linux/in.h; not in the socket module of Python 3.11
_ADDRESSES: Final = 254 * 254 * 254
"""Addresses in 127.0.0.0/8 without those that have a part 0 or 255."""
_counter = itertools.count()


@contextmanager
def loopback_address() -> Iterator[str]:
    """Reserve a loopback address that no other emulator uses, in this process or another; a context manager.

    On Linux, where all of 127.0.0.0/8 is loopback, each call yields another address, reserved by a TCP socket that is
    bound (not listening) to its port 1900. Elsewhere there is only 127.0.0.1.
    """
    if sys.platform != "linux":
        yield "127.0.0.1"
        return
    for _ in range(1000):
        number = (os.getpid() * 509 + next(_counter)) % _ADDRESSES
        high, rest = divmod(number, 254 * 254)
        address = f"127.{high + 1}.{rest // 254 + 1}.{rest % 254 + 1}"
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as reservation:
            try:
                reservation.bind((address, PORT))
            except OSError:
                continue
            yield address
            return
    raise OSError("no loopback address is free; a thousand were tried")


def check_loopback(address: str) -> str:
    """Return an address in its usual form; raises ValueError for one that is not a loopback address."""
    parsed = ip_address(address)
    if not parsed.is_loopback:
        raise ValueError(f"an emulated gateway lives on a loopback address, not on {address}")
    return str(parsed)


def group_of(address: str) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the socket address of the SSDP multicast group on the network of a loopback address."""
    return (GROUP_V6, PORT, 0, _loopback_index()) if ":" in address else (MULTICAST_V4, PORT)


def search_socket(address: str) -> socket.socket:
    """Return a UDP socket that receives what is multicast to the SSDP group on loopback, and nothing else."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with _closed_on_error(socket.socket(family, socket.SOCK_DGRAM)) as opened:
        _share(opened)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Windows cannot bind to a group; there the any-address has to do.
            opened.bind(("::", PORT) if sys.platform == "win32" else group_of(address))
            member = socket.inet_pton(socket.AF_INET6, GROUP_V6) + struct.pack("@I", _loopback_index())
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
        else:
            if sys.platform == "linux":
                # Otherwise it receives the group from every interface on which any program has joined it.
                opened.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            opened.bind(("", PORT) if sys.platform == "win32" else group_of(address))
            member = socket.inet_aton(MULTICAST_V4) + socket.inet_aton(address)
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        return opened


def server_socket(address: str) -> socket.socket:
    """Return the UDP socket on port 1900 of the address itself: for unicast searches, replies and NOTIFY."""
    with _closed_on_error(_udp(address)) as opened:
        _share(opened)
        opened.bind((address, PORT))
        return opened


def pcp_socket(address: str, port: int = 0) -> socket.socket:
    """Return the UDP socket of PCP and NAT-PMP; 0 stands for 5351 where the address is not shared, if that is free.

    Every program of this machine uses 127.0.0.1 and ::1: there the system chooses a port.
    """
    if not port and address not in ("127.0.0.1", "::1"):
        try:
            return spare_socket(address, SERVER_PORT)
        except OSError:
            pass
    return spare_socket(address, port)


def announcement_group(address: str) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the socket address to which PCP and NAT-PMP announce, on the network of a loopback address."""
    return (PCP_GROUP_V6, CLIENT_PORT, 0, _loopback_index()) if ":" in address else (PCP_GROUP_V4, CLIENT_PORT)


def neighbour_of(address: str) -> str:
    """Return another address of the same loopback network; the same one where there is no other."""
    if ":" in address or sys.platform != "linux":
        return address
    network, _, host = address.rpartition(".")
    return f"{network}.{int(host) % 254 + 1}"


def spare_socket(address: str, port: int = 0) -> socket.socket:
    """Return a UDP socket of the address; for ``port`` 0 the system chooses one."""
    with _closed_on_error(_udp(address)) as opened:
        opened.bind((address, port))
        return opened


def http_socket(address: str, port: int = 0) -> socket.socket:
    """Return a TCP socket bound to the address; for ``port`` 0 the system chooses one."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with _closed_on_error(socket.socket(family, socket.SOCK_STREAM)) as opened:
        if sys.platform != "win32":
            # So that a restart can bind to the same port despite connections in TIME_WAIT.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setblocking(False)
        opened.bind((address, port))
        return opened


def _udp(address: str) -> socket.socket:
    if ":" in address:
        opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, _loopback_index())
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 0)
    else:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
    opened.setblocking(False)
    return opened


def _share(opened: socket.socket) -> None:
    # Several gateways, and SSDP servers of other programs, share port 1900.
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


@contextmanager
def _closed_on_error(opened: socket.socket) -> Iterator[socket.socket]:
    try:
        yield opened
    except BaseException:
        opened.close()
        raise


def _loopback_index() -> int:
    for index, name in socket.if_nameindex():
        if name in ("lo", "lo0") or name.startswith("loopback"):
            return index
    return 1
