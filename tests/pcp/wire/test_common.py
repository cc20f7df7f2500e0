"""Addresses in 16 bytes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioigd.pcp.wire.common import Address, pack_address, unpack_address, unspecified_like


@pytest.mark.parametrize(
    ("address", "packed"),
    [
        ("192.0.2.1", "00000000000000000000ffffc0000201"),
        ("0.0.0.0", "00000000000000000000ffff00000000"),
        ("::", "00000000000000000000000000000000"),
        ("2001:db8::1", "20010db8000000000000000000000001"),
        ("::1:ffff:c000:201", "000000000000000000" + "01ffffc0000201"),
    ],
)
def test_an_ipv4_address_is_mapped_and_all_96_bits_count(address: str, packed: str) -> None:
    assert pack_address(ip_address(address)).hex() == packed
    assert unpack_address(bytes.fromhex(packed)) == ip_address(address)


@given(st.ip_addresses())
def test_an_address_survives(address: Address) -> None:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    assert unpack_address(pack_address(address)) == (mapped or address)


def test_any_address_has_a_family() -> None:
    assert unspecified_like(IPv4Address("192.0.2.1")) == IPv4Address("0.0.0.0")
    assert unspecified_like(IPv6Address("2001:db8::1")) == IPv6Address("::")
