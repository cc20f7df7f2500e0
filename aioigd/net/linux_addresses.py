"""The addresses of a Linux machine, asked for without netlink and without the C library.

The C library's getifaddrs() needs a netlink socket, which a sandbox may forbid (systemd's RestrictAddressFamilies), and
ctypes starts a process to find that library. ioctl() on a plain socket tells the same, netdevice(7).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["MAX_ADDRESSES", "AddressEntry", "Network", "ipv4_addresses", "ipv6_addresses"]

Network = IPv4Network | IPv6Network


_ADDRESSES_V6: Final = Path("/proc/thread-self/net/if_inet6")
_SIOCGIFCONF: Final = 0x8912
_SIOCGIFDSTADDR: Final = 0x8917
_SIOCGIFNETMASK: Final = 0x891B
_NAME_SIZE: Final = 16
_IFREQ_SIZE: Final = 40 if struct.calcsize("@P") == 8 else 32
MAX_ADDRESSES: Final = 1024
"""Addresses that are read at most of each version of IP."""


class AddressEntry(NamedTuple):
    """An address of an interface, which has a name and a number.

    ``prefix_length`` is None where it is not known. ``peer``: the address at the other end, where the interface is one
    end of a line, otherwise its own again; None where it is not known.
    """

    name: str
    number: int
    address: str
    prefix_length: int | None
    peer: str | None = None


def ipv4_addresses() -> Iterator[AddressEntry]:
    """Yield the IPv4 addresses. Raises ImportError or OSError where the system does not know these questions."""
    import fcntl
    from array import array

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        room = array("B", bytes(MAX_ADDRESSES * _IFREQ_SIZE))
        request = struct.pack("@iP", len(room), room.buffer_info()[0])
        size = struct.unpack("@iP", fcntl.ioctl(asked, _SIOCGIFCONF, request))[0]
        for start in range(0, size, _IFREQ_SIZE):
            # Name and address together choose one of several addresses of an interface.
            entry = bytes(room[start : start + _IFREQ_SIZE])
            label = os.fsdecode(entry[:_NAME_SIZE].partition(b"\0")[0])
            name = label.partition(":")[0]
            try:
                number = socket.if_nametoindex(name)
            except OSError:
                continue  # it went away meanwhile
            length, peer = None, None
            with suppress(OSError):  # kernels that are not quite Linux may not know the one or the other
                length = int.from_bytes(_address(fcntl.ioctl(asked, _SIOCGIFNETMASK, entry)), "big").bit_count()
                peer = socket.inet_ntoa(_address(fcntl.ioctl(asked, _SIOCGIFDSTADDR, entry)))
            yield AddressEntry(name, number, socket.inet_ntoa(_address(entry)), length, peer)


def ipv6_addresses() -> Iterator[AddressEntry]:
    """Yield the IPv6 addresses; none where the machine has no IPv6."""
    try:
        descriptor = os.open(_ADDRESSES_V6, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    with open(descriptor, "rb", buffering=0) as table:
        content = b""
        while len(content) < MAX_ADDRESSES * 64 and (part := os.read(table.fileno(), MAX_ADDRESSES * 64)):
            content += part
    for line in content.splitlines():
        with suppress(ValueError):
            address, index, length, _, _, name = line.split()
            text = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address.decode("ascii")))
            yield AddressEntry(os.fsdecode(name), int(index, 16), text, int(length, 16))


def _address(entry: bytes) -> bytes:
    """Return the address in the sockaddr of an ifreq: family, port, four bytes."""
    return entry[_NAME_SIZE + 4 : _NAME_SIZE + 8]
