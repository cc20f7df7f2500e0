"""Messages of NAT-PMP, by the diagrams of RFC 6886 and as routers send them."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioigd.pcp.wire.nat_pmp import (
    AddressRequest,
    AddressResponse,
    MapRequest,
    MapResponse,
    Refusal,
    Request,
    Response,
    ResultCode,
    build_request,
    build_response,
    parse_request,
    parse_response,
)

PORTS = st.integers(0, 0xFFFF)
SECONDS = st.integers(0, 0xFFFFFFFF)
PROTOS = st.sampled_from(["TCP", "UDP"])

REQUESTS: list[tuple[Request, str]] = [
    (AddressRequest(), "0000"),
    (MapRequest("UDP", 80, 8080, 7200), "0001 0000 0050 1f90 00001c20"),
    (MapRequest("TCP", 80, 8080, 7200), "0002 0000 0050 1f90 00001c20"),
    (MapRequest("TCP", 80, 0, 0), "0002 0000 0050 0000 00000000"),
    (MapRequest("UDP", 0, 0, 0), "0001 0000 0000 0000 00000000"),
    (MapRequest("UDP", 0xFFFF, 0xFFFF, 0xFFFFFFFF), "0001 0000 ffff ffff ffffffff"),
]
RESPONSES: list[tuple[Response, str]] = [
    (AddressResponse(258, IPv4Address("192.0.2.33")), "0080 0000 00000102 c0000221"),
    (MapResponse(258, "UDP", 80, 8081, 3600), "0081 0000 00000102 0050 1f91 00000e10"),
    (MapResponse(258, "TCP", 80, 8081, 3600), "0082 0000 00000102 0050 1f91 00000e10"),
    (MapResponse(0, "TCP", 80, 0, 0), "0082 0000 00000000 0050 0000 00000000"),
    (Refusal(0, ResultCode.NETWORK_FAILURE, 7), "0080 0003 00000007"),
    (Refusal(2, ResultCode.OUT_OF_RESOURCES, 7), "0082 0004 00000007"),
    (Refusal(99, ResultCode.UNSUPPORTED_OPCODE, 7), "00e3 0005 00000007"),
    (Refusal(1, 4711, 7), "0081 1267 00000007"),
]


@pytest.mark.parametrize(("request_", "golden"), REQUESTS, ids=str)
def test_requests(request_: Request, golden: str) -> None:
    assert build_request(request_) == bytes.fromhex(golden)
    assert parse_request(bytes.fromhex(golden)) == request_


@pytest.mark.parametrize(("response", "golden"), RESPONSES, ids=str)
def test_responses(response: Response, golden: str) -> None:
    assert build_response(response) == bytes.fromhex(golden)
    assert parse_response(bytes.fromhex(golden)) == response


@pytest.mark.parametrize(
    ("golden", "result"),
    [
        # An AirPort and old versions of miniupnpd, asked by PCP.
        ("0081 0001 00000102", Refusal(1, ResultCode.UNSUPPORTED_VERSION, 258)),
        # miniupnpd's error has the request's ports and lifetime in it.
        ("0082 0003 00000102 0050 1f90 00001c20", Refusal(2, ResultCode.NETWORK_FAILURE, 258)),
        # … and a PCP request of a wrong length gets this.
        ("0080 0003 00000102 00000000", Refusal(0, ResultCode.NETWORK_FAILURE, 258)),
        # A router whose refusal has the length of PCP's request.
        ("0081 0001 00000102" + "00" * 52, Refusal(1, ResultCode.UNSUPPORTED_VERSION, 258)),
    ],
)
def test_refusals_of_real_routers(golden: str, result: Refusal) -> None:
    assert parse_response(bytes.fromhex(golden)) == result


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "00",
        "0080",
        "0080 0000 00000102",  # no address
        "0080 0000 00000102 c00002",
        "0080 0000 00000102 c0000221 00",
        "0081 0000 00000102 0050 1f91 00000e",
        "0081 0000 00000102 0050 1f91 00000e10 00",
        "0001 0000 0050 1f90 00001c20",  # a request
        "0283 0000 00000102 0050 1f91 00000e10",  # another version
        "0083 0000 00000102 0050 1f91 00000e10",  # a success of what does not exist
        "0081 0001 000001",
        "0081 0001" + "00" * 1100,
    ],
)
def test_what_is_no_response(odd: str) -> None:
    assert parse_response(bytes.fromhex(odd)) is None


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ("", None),
        ("00", None),
        ("0080", None),
        ("00ff 0000", None),
        ("0000 00", None),
        ("0001 0000 0050 1f90 00001c", None),
        ("0002 0000 0050 1f90 00001c20 00", None),
        ("0003 0000", ResultCode.UNSUPPORTED_OPCODE),
        ("007f", ResultCode.UNSUPPORTED_OPCODE),
        ("0201 0000", ResultCode.UNSUPPORTED_VERSION),
        ("0100", ResultCode.UNSUPPORTED_VERSION),
    ],
)
def test_what_is_no_request(odd: str, expected: ResultCode | None) -> None:
    assert parse_request(bytes.fromhex(odd)) == expected


@given(st.builds(MapRequest, PROTOS, PORTS, PORTS, SECONDS))
def test_a_request_survives(request: MapRequest) -> None:
    assert parse_request(build_request(request)) == request


@given(
    st.builds(AddressResponse, SECONDS, st.ip_addresses(v=4))
    | st.builds(MapResponse, SECONDS, PROTOS, PORTS, PORTS, SECONDS)
    | st.builds(Refusal, st.integers(0, 127), st.integers(1, 0xFFFF), SECONDS)
)
def test_a_response_survives(response: Response) -> None:
    assert parse_response(build_response(response)) == response


def holds_for_any_bytes(datagram: bytes) -> None:
    response, request = parse_response(datagram), parse_request(datagram)
    assert response is None or request is None
    if response is not None and not isinstance(response, Refusal):
        assert build_response(response) == datagram
    if isinstance(request, AddressRequest):
        assert build_request(request) == datagram
    if isinstance(request, MapRequest):
        # The reserved field is ignored.
        assert build_request(request) == datagram[:2] + bytes(2) + datagram[4:]


DATAGRAMS = st.binary(max_size=40) | st.builds(
    lambda opcode, rest: bytes((0, opcode)) + rest,
    st.sampled_from([0, 1, 2, 3, 0x80, 0x81, 0x82, 0x83]),
    st.sampled_from([0, 6, 10, 14, 15]).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
)


@given(DATAGRAMS)
def test_any_bytes_are_read_or_refused(datagram: bytes) -> None:
    holds_for_any_bytes(datagram)


@pytest.mark.long
@settings(max_examples=10_000, deadline=None)
@given(DATAGRAMS)
def test_any_bytes_are_read_or_refused_at_length(datagram: bytes) -> None:
    holds_for_any_bytes(datagram)
