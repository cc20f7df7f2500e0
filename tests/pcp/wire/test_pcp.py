"""Messages of PCP, by the diagrams of RFC 6887 and as routers send them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioigd.pcp.wire.common import pack_address, unpack_address
from aioigd.pcp.wire.pcp import (
    MAX_SIZE,
    Filter,
    MapData,
    Opcode,
    Option,
    OtherOption,
    PreferFailure,
    RemotePeer,
    Request,
    Response,
    ResultCode,
    ThirdParty,
    build_refusal,
    build_request,
    build_response,
    parse_request,
    parse_response,
)

CLIENT = IPv4Address("192.168.1.7")
CLIENT_BYTES = "00000000000000000000ffffc0a80107"
NONCE = bytes(range(1, 13))
ANY = IPv4Address(0)
ASKED = MapData(NONCE, 6, 80, 8080, ANY)
ASKED_BYTES = "0102030405060708090a0b0c 06000000 0050 1f90 00000000000000000000ffff00000000"
GRANTED = MapData(NONCE, 6, 80, 8081, IPv4Address("192.0.2.33"))
GRANTED_BYTES = "0102030405060708090a0b0c 06000000 0050 1f91 00000000000000000000ffffc0000221"
PEER = replace(ASKED, peer=RemotePeer(443, IPv4Address("198.51.100.1")))
PEER_BYTES = f"{ASKED_BYTES} 01bb 0000 00000000000000000000ffffc6336401"
MAP_HEAD = f"0201 0000 00000e10 {CLIENT_BYTES}"
MAP = Request(Opcode.MAP, CLIENT, 3600, ASKED)

OPTIONS: list[tuple[Option, str]] = [
    (ThirdParty(IPv4Address("192.168.1.8")), "01 00 0010 00000000000000000000ffffc0a80108"),
    (PreferFailure(), "02 00 0000"),
    (Filter(128, 0, IPv4Address("198.51.100.1")), "03 00 0014 00 80 0000 00000000000000000000ffffc6336401"),
    (Filter(120, 443, IPv4Address("198.51.100.0")), "03 00 0014 00 78 01bb 00000000000000000000ffffc6336400"),
    (Filter(64, 0, IPv6Address("2001:db8::")), "03 00 0014 00 40 0000 20010db8000000000000000000000000"),
    (OtherOption(130, b"\1\2\3\4\5"), "82 00 0005 0102030405 000000"),
    (OtherOption(255, b""), "ff 00 0000"),
]
REQUESTS: list[tuple[Request, str]] = [
    (Request(Opcode.ANNOUNCE, CLIENT), f"0200 0000 00000000 {CLIENT_BYTES}"),
    (MAP, f"{MAP_HEAD} {ASKED_BYTES}"),
    (
        Request(Opcode.MAP, IPv6Address("2001:db8::7"), 120, replace(ASKED, external_address=IPv6Address("::"))),
        "0201 0000 00000078 20010db8000000000000000000000007 "
        "0102030405060708090a0b0c 06000000 0050 1f90 00000000000000000000000000000000",
    ),
    *((replace(MAP, options=(option,)), f"{MAP_HEAD} {ASKED_BYTES} {golden}") for option, golden in OPTIONS),
    (
        replace(MAP, options=tuple(option for option, _ in OPTIONS)),
        f"{MAP_HEAD} {ASKED_BYTES} {' '.join(golden for _, golden in OPTIONS)}",
    ),
]
RESPONSES: list[tuple[Response, str]] = [
    (Response(Opcode.ANNOUNCE, 0, 0, 258), "0280 0000 00000000 00000102" + "00" * 12),
    (
        Response(Opcode.MAP, 0, 3600, 258, GRANTED),
        f"0281 0000 00000e10 00000102 {'00' * 12} {GRANTED_BYTES}",
    ),
    (
        Response(Opcode.MAP, 0, 3600, 258, GRANTED, (PreferFailure(),)),
        f"0281 0000 00000e10 00000102 {'00' * 12} {GRANTED_BYTES} 02 00 0000",
    ),
    (Response(Opcode.PEER, 0, 60, 258, PEER), f"0282 0000 0000003c 00000102 {'00' * 12} {PEER_BYTES}"),
    (
        Response(Opcode.MAP, ResultCode.NOT_AUTHORIZED, 1800, 258, ASKED),
        f"0281 0002 00000708 00000102 {'00' * 12} {ASKED_BYTES}",
    ),
    (Response(Opcode.MAP, 200, 0, 258), f"0281 00c8 00000000 00000102 {'00' * 12}"),
    (
        Response(Opcode.MAP, ResultCode.UNSUPP_VERSION, 1800, 258, version=1),
        f"0181 0001 00000708 00000102 {'00' * 12}",
    ),
]


@pytest.mark.parametrize(("request_", "golden"), REQUESTS, ids=str)
def test_requests(request_: Request, golden: str) -> None:
    assert build_request(request_) == bytes.fromhex(golden)
    assert parse_request(bytes.fromhex(golden)) == request_


@pytest.mark.parametrize(("response", "golden"), RESPONSES, ids=str)
def test_responses(response: Response, golden: str) -> None:
    assert build_response(response) == bytes.fromhex(golden)
    assert parse_response(bytes.fromhex(golden)) == response


def test_a_peer_request_can_be_made() -> None:
    golden = f"0202 0000 00000e10 {CLIENT_BYTES} {PEER_BYTES}"
    assert build_request(Request(Opcode.PEER, CLIENT, 3600, PEER)) == bytes.fromhex(golden)


def test_a_refusal_is_the_request_under_another_header() -> None:
    asked = build_request(replace(MAP, options=(PreferFailure(),)))
    refusal = build_refusal(asked, ResultCode.CANNOT_PROVIDE_EXTERNAL, lifetime=30, epoch=258)
    assert refusal.hex() == "0281000b0000001e00000102" + "00" * 12 + asked[24:].hex()
    assert parse_response(refusal) == Response(Opcode.MAP, ResultCode.CANNOT_PROVIDE_EXTERNAL, 30, 258, ASKED)


@pytest.mark.parametrize("size", [2, 3, 24, 25, 61, 1099, 1100, 1101, 5000])
def test_a_refusal_has_a_good_length_whatever_was_sent(size: int) -> None:
    refusal = build_refusal((b"\x02\x01" + bytes(size))[:size], 3, lifetime=0, epoch=0)
    assert len(refusal) % 4 == 0
    assert 24 <= len(refusal) <= MAX_SIZE
    assert parse_response(refusal) is not None


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        # No reply at all.
        ("", None),
        ("02", None),
        (f"0281 0000 00000e10 {CLIENT_BYTES} {ASKED_BYTES}", None),
        # Other versions, before anything else is looked at.
        ("0000", ResultCode.UNSUPP_VERSION),
        ("0101 0000", ResultCode.UNSUPP_VERSION),
        (f"0301 0000 00000e10 {CLIENT_BYTES} {ASKED_BYTES}", ResultCode.UNSUPP_VERSION),
        # Other opcodes.
        (f"0203 0000 00000e10 {CLIENT_BYTES}", ResultCode.UNSUPP_OPCODE),
        (f"0202 0000 00000e10 {CLIENT_BYTES} {PEER_BYTES}", ResultCode.UNSUPP_OPCODE),
        # Lengths.
        (f"0200 0000 00000000 {CLIENT_BYTES}"[:-2], ResultCode.MALFORMED_REQUEST),
        (f"0200 0000 00000000 {CLIENT_BYTES} 00", ResultCode.MALFORMED_REQUEST),
        (f"0201 0000 00000e10 {CLIENT_BYTES}", ResultCode.MALFORMED_REQUEST),
        (f"{MAP_HEAD} {ASKED_BYTES}"[:-8], ResultCode.MALFORMED_REQUEST),
        (f"{MAP_HEAD} {ASKED_BYTES} {'80000000' * 261}", ResultCode.MALFORMED_REQUEST),
        # Options.
        (f"{MAP_HEAD} {ASKED_BYTES} 04 00 0000", ResultCode.UNSUPP_OPTION),
        (f"{MAP_HEAD} {ASKED_BYTES} 00 00 0000", ResultCode.UNSUPP_OPTION),
        (f"{MAP_HEAD} {ASKED_BYTES} 02 00 0004", ResultCode.MALFORMED_OPTION),
        (f"{MAP_HEAD} {ASKED_BYTES} 02 00 0004 00000000", ResultCode.MALFORMED_OPTION),
        (f"{MAP_HEAD} {ASKED_BYTES} 01 00 0004 c0a80108", ResultCode.MALFORMED_OPTION),
        (f"{MAP_HEAD} {ASKED_BYTES} 82 00 0004", ResultCode.MALFORMED_OPTION),
        (f"{MAP_HEAD} {ASKED_BYTES} 02 00 0000 02 00 0000", ResultCode.MALFORMED_OPTION),
        (f"0200 0000 00000000 {CLIENT_BYTES} 02 00 0000", ResultCode.MALFORMED_OPTION),
    ],
)
def test_what_is_no_request(odd: str, expected: ResultCode | None) -> None:
    assert parse_request(bytes.fromhex(odd)) == expected


@pytest.mark.parametrize(
    ("prefix_length", "address", "is_good"),
    [
        (0, "0.0.0.0", True),
        (95, "192.0.2.0", False),
        (96, "192.0.2.0", True),
        (128, "192.0.2.0", True),
        (129, "192.0.2.0", False),
        (1, "2001:db8::", True),
        (129, "2001:db8::", False),
    ],
)
def test_the_prefix_of_a_filter_is_that_of_128_bits(prefix_length: int, address: str, is_good: bool) -> None:
    host = IPv4Address(address) if "." in address else IPv6Address(address)
    asked = replace(MAP, options=(Filter(prefix_length, 0, host),))
    assert parse_request(build_request(asked)) == (asked if is_good else ResultCode.MALFORMED_OPTION)


@pytest.mark.parametrize(
    ("filter_", "host", "port", "expected"),
    [
        (Filter(128, 0, IPv4Address("192.0.2.1")), "192.0.2.1", 1, True),
        (Filter(128, 0, IPv4Address("192.0.2.1")), "192.0.2.2", 1, False),
        (Filter(120, 0, IPv4Address("192.0.2.1")), "192.0.2.2", 1, True),
        (Filter(120, 0, IPv4Address("192.0.2.1")), "192.0.3.1", 1, False),
        (Filter(96, 5, IPv4Address("192.0.2.1")), "198.51.100.1", 5, True),
        (Filter(96, 5, IPv4Address("192.0.2.1")), "198.51.100.1", 6, False),
        (Filter(96, 0, IPv4Address("192.0.2.1")), "2001:db8::1", 1, False),
    ],
)
def test_whom_a_filter_lets_in(filter_: Filter, host: str, port: int, expected: bool) -> None:
    address = IPv4Address(host) if "." in host else IPv6Address(host)
    assert filter_.lets_in(address, port) is expected


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "02",
        f"{MAP_HEAD} {ASKED_BYTES}",  # a request
        f"0281 0000 00000e10 00000102 {'00' * 12} {GRANTED_BYTES}"[:-2],
        f"0281 0000 00000e10 00000102 {'00' * 12} {GRANTED_BYTES}"[:-8],
        f"0281 0000 00000e10 00000102 {'00' * 12} {GRANTED_BYTES} 00",
        f"0281 0000 00000e10 00000102 {'00' * 12}",  # a success that says nothing
        f"0282 0000 00000e10 00000102 {'00' * 12} {ASKED_BYTES}",
        f"0281 0000 00000e10 00000102 {'00' * 12} {GRANTED_BYTES} 02 00 0004",
        f"0283 0000 00000e10 00000102 {'00' * 12} {GRANTED_BYTES}",  # what was never asked
        f"0181 0000 00000e10 00000102 {'00' * 12} {GRANTED_BYTES}",  # another version, and no word of it
        f"0081 0001 00000e10 00000102 {'00' * 12} {GRANTED_BYTES}",  # NAT-PMP
        f"0281 0002 00000e10 00000102 {'00' * 12} {'00' * 1080}",
    ],
)
def test_what_is_no_response(odd: str) -> None:
    assert parse_response(bytes.fromhex(odd)) is None


PORTS = st.integers(0, 0xFFFF)
SECONDS = st.integers(0, 0xFFFFFFFF)
ADDRESSES = st.ip_addresses().map(lambda address: unpack_address(pack_address(address)))
KNOWN_OPTIONS = (
    st.builds(ThirdParty, ADDRESSES)
    | st.just(PreferFailure())
    | st.builds(Filter, st.integers(0, 255), PORTS, ADDRESSES)
)
OTHER_OPTIONS = st.builds(OtherOption, st.integers(4, 255), st.binary(max_size=24))
MAPPINGS = st.builds(MapData, st.binary(min_size=12, max_size=12), st.integers(0, 255), PORTS, PORTS, ADDRESSES)
ANSWERS = st.builds(
    Response,
    st.just(1),
    st.just(0),
    SECONDS,
    SECONDS,
    MAPPINGS,
    st.lists(KNOWN_OPTIONS | OTHER_OPTIONS, max_size=8).map(tuple),
)


@given(ANSWERS)
def test_a_response_survives(response: Response) -> None:
    assert parse_response(build_response(response)) == response


@given(
    st.builds(
        Request,
        st.just(1),
        ADDRESSES,
        SECONDS,
        MAPPINGS,
        st.lists(KNOWN_OPTIONS | OTHER_OPTIONS, max_size=4).map(tuple),
    )
)
def test_a_request_survives_or_is_refused(request: Request) -> None:
    parsed = parse_request(build_request(request))
    assert parsed == request or parsed in (ResultCode.UNSUPP_OPTION, ResultCode.MALFORMED_OPTION)


def holds_for_any_bytes(datagram: bytes) -> None:
    response, request = parse_response(datagram), parse_request(datagram)
    assert response is None or request is None
    if response is not None and response.result == 0:
        again = parse_response(build_response(response))
        assert again == response
    if isinstance(request, Request):
        assert parse_request(build_request(request)) == request
    if len(datagram) >= 2 and not datagram[1] & 0x80:
        assert parse_response(build_refusal(datagram, 3, lifetime=0, epoch=0)) is not None or datagram[1] > 2


def mangled(datagram: bytes, changes: list[tuple[int, int]], size: int) -> bytes:
    """Return a message with some bytes changed, cut or prolonged."""
    changed = bytearray(datagram)
    for index, value in changes:
        changed[index % len(changed)] = value
    return bytes(changed[:size]) if size < len(changed) else bytes(changed) + bytes(size - len(changed))


BYTES = st.integers(0, 255)
DATAGRAMS = (
    st.binary(max_size=80)
    | st.builds(
        mangled,
        st.sampled_from([bytes.fromhex(text) for _, text in [*REQUESTS, *RESPONSES]]),
        st.lists(st.tuples(st.integers(0, 300), BYTES), max_size=6),
        st.integers(0, 300),
    )
    | st.builds(
        mangled, ANSWERS.map(build_response), st.lists(st.tuples(st.integers(0, 99), BYTES)), st.integers(0, 1200)
    )
)


@given(DATAGRAMS)
def test_any_bytes_are_read_or_refused(datagram: bytes) -> None:
    holds_for_any_bytes(datagram)


@pytest.mark.long
@settings(max_examples=10_000, deadline=None)
@given(DATAGRAMS)
def test_any_bytes_are_read_or_refused_at_length(datagram: bytes) -> None:
    holds_for_any_bytes(datagram)
