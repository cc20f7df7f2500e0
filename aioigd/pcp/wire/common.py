"""What do NAT-PMP and PCP have in common on the wire? Ports, groups, protocol numbers and addresses."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import Final

from ...models import Proto

__all__ = [
    "CLIENT_PORT",
    "GROUP_V4",
    "GROUP_V6",
    "NUMBER_OF",
    "PROTO_OF",
    "SERVER_PORT",
    "Address",
    "pack_address",
    "unpack_address",
    "unspecified_like",
]

SERVER_PORT: Final = 5351
"""The UDP port of routers (RFC 6886 section 3.1, RFC 6887 section 19.1)."""
CLIENT_PORT: Final = 5350
"""The UDP port to which announcements are multicast (RFC 6886 section 3.2.1, RFC 6887 section 14.1)."""
GROUP_V4: Final = "224.0.0.1"
"""The multicast group of announcements: all hosts of the link."""
GROUP_V6: Final = "ff02::1"

NUMBER_OF: Final[Mapping[Proto, int]] = MappingProxyType({"TCP": 6, "UDP": 17})
"""IANA numbers of the transport protocols."""
PROTO_OF: Final[Mapping[int, Proto]] = MappingProxyType({number: proto for proto, number in NUMBER_OF.items()})

Address = IPv4Address | IPv6Address

_MAPPED: Final = bytes(10) + b"\xff\xff"
"""The first 96 bits of an IPv4-mapped IPv6 address, all of which count (RFC 6887 section 5)."""


def pack_address(address: Address) -> bytes:
    """Return an address as PCP has it: 16 bytes, an IPv4 address in its IPv4-mapped form (RFC 6887 section 5)."""
    return _MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed


def unpack_address(packed: bytes) -> Address:
    """Return the address in 16 bytes."""
    return IPv4Address(packed[12:]) if packed[:12] == _MAPPED else IPv6Address(packed)


def unspecified_like(address: Address) -> Address:
    """Return the all-zeros address of the same family: "any", where an external address is suggested."""
    return IPv4Address(0) if isinstance(address, IPv4Address) else IPv6Address(0)
