"""The messages of PCP and NAT-PMP as a real router sends them, and what the quirks say that it does."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, ip_address

import pytest

from aioigd.models import Proto
from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.pcp.wire.common import NUMBER_OF, SERVER_PORT, unspecified_like
from aioigd.pcp.wire.pcp import Filter, PreferFailure, ResultCode

from .network import EXTERNAL_ADDRESS, LAN_ADDRESS, NEIGHBOUR_ADDRESS, ROUTER_ADDRESS, Lab, Protocol
from .router import Mapping, Router

NONCE = bytes(range(12))
OTHER_NONCE = bytes(range(20, 32))


def ask(datagram: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((ROUTER_ADDRESS, SERVER_PORT))
        client.send(datagram)
        return client.recv(2000)


def ask_nat_pmp(request: nat_pmp.Request) -> nat_pmp.Response:
    response = nat_pmp.parse_response(ask(nat_pmp.build_request(request)))
    assert response is not None
    return response


def ask_pcp(
    internal: int,
    external: int = 0,
    lifetime: int = 3600,
    proto: Proto = "TCP",
    *options: pcp.Option,
    nonce: bytes = NONCE,
) -> pcp.Response:
    client = ip_address(LAN_ADDRESS)
    mapping = pcp.MapData(nonce, NUMBER_OF[proto], internal, external, unspecified_like(client))
    request = pcp.Request(pcp.Opcode.MAP, client, lifetime, mapping, options)
    response = pcp.parse_response(ask(pcp.build_request(request)))
    assert response is not None
    return response


def port_of(response: pcp.Response) -> int:
    assert response.result == ResultCode.SUCCESS
    assert response.mapping is not None
    return response.mapping.external_port


def has_mappings(router: Router) -> bool:
    try:
        return bool(router.mappings())
    except ValueError:
        return True  # it was read while one of its two rules was already gone


def test_it_answers_both(router: Router, inside_lan: None) -> None:
    address = ask_nat_pmp(nat_pmp.AddressRequest())
    assert isinstance(address, nat_pmp.AddressResponse)
    assert str(address.address) == EXTERNAL_ADDRESS
    announced = pcp.parse_response(ask(pcp.build_request(pcp.Request(0, ip_address(LAN_ADDRESS)))))
    assert announced is not None
    assert (announced.opcode, announced.result) == (pcp.Opcode.ANNOUNCE, ResultCode.SUCCESS)
    assert 0 <= announced.epoch - address.epoch <= 5


@pytest.mark.parametrize("proto", ["TCP", "UDP"])
def test_nat_pmp_maps_and_deletes(lab: Lab, router: Router, inside_lan: None, proto: Protocol) -> None:
    granted = ask_nat_pmp(nat_pmp.MapRequest(proto, 8080, 8081, 0x7FFFFFFF))
    assert isinstance(granted, nat_pmp.MapResponse)
    assert (granted.internal_port, granted.external_port, granted.lifetime) == (8080, 8081, 0x7FFFFFFF)
    send = lab.send_tcp if proto == "TCP" else lab.send_udp
    with lab.listen("lan", proto, 8080):
        assert send("wan", EXTERNAL_ADDRESS, 8081, b"hello") == b"lan: hello"
    deleted = ask_nat_pmp(nat_pmp.MapRequest(proto, 8080, 0, 0))
    assert isinstance(deleted, nat_pmp.MapResponse)
    assert (deleted.external_port, deleted.lifetime) == (0, 0)
    assert router.mappings() == []


@pytest.mark.parametrize("proto", ["TCP", "UDP"])
def test_pcp_maps_and_deletes(lab: Lab, router: Router, inside_lan: None, proto: Protocol) -> None:
    granted = ask_pcp(8080, 8081, 0xFFFFFFFF, proto)
    assert granted.mapping == pcp.MapData(NONCE, NUMBER_OF[proto], 8080, 8081, IPv4Address(EXTERNAL_ADDRESS))
    assert granted.lifetime == 86_400
    send = lab.send_tcp if proto == "TCP" else lab.send_udp
    with lab.listen("lan", proto, 8080):
        assert send("wan", EXTERNAL_ADDRESS, 8081, b"hello") == b"lan: hello"
    refused = ask_pcp(8080, 0, 0, proto, nonce=OTHER_NONCE)
    assert refused.result == ResultCode.NOT_AUTHORIZED
    assert (ask_pcp(8080, 0, 0, proto)).result == ResultCode.SUCCESS
    assert router.mappings() == []


async def test_the_longest_lifetime_of_nat_pmp_is_none_at_all(router: Router, inside_lan: None) -> None:
    """As the quirk longest_lifetime_is_none has it."""
    granted = ask_nat_pmp(nat_pmp.MapRequest("TCP", 8080, 8081, 0xFFFFFFFF))
    assert isinstance(granted, nat_pmp.MapResponse)
    assert granted.lifetime == 0xFFFFFFFF
    async with asyncio.timeout(5):
        while has_mappings(router):  # noqa: ASYNC110 (the packet filter tells nobody of a change)
            await asyncio.sleep(0.05)


def test_a_port_of_another_host_is_not_taken(lab: Lab, router: Router, inside_lan: None) -> None:
    with lab.inside("neighbour"):
        ask_nat_pmp(nat_pmp.MapRequest("TCP", 80, 8080, 3600))
    other = ask_nat_pmp(nat_pmp.MapRequest("TCP", 80, 8080, 3600))
    assert isinstance(other, nat_pmp.MapResponse)
    assert other.external_port != 8080
    refused = ask_pcp(81, 8080, 3600, "TCP", PreferFailure())
    assert (refused.result, refused.lifetime) == (ResultCode.CANNOT_PROVIDE_EXTERNAL, 0)
    assert port_of(ask_pcp(81, 8080)) not in (8080, other.external_port)
    assert Mapping("TCP", 8080, NEIGHBOUR_ADDRESS, 80) in router.mappings()


def test_it_adds_a_second_port_and_lets_nonces_change_hands(router: Router, inside_lan: None) -> None:
    """As the quirks adds_second_port and nonces_change_hands have it."""
    for external in (8080, 9090):
        ask_nat_pmp(nat_pmp.MapRequest("TCP", 80, external, 3600))
    assert {each.external_port for each in router.mappings()} == {8080, 9090}
    ask_nat_pmp(nat_pmp.MapRequest("TCP", 80, 0, 0))
    assert router.mappings() == []
    assert port_of(ask_pcp(80, 8080)) == 8080
    assert port_of(ask_pcp(80, 8080, nonce=OTHER_NONCE)) == 8080
    assert ask_pcp(80, 0, 0).result == ResultCode.NOT_AUTHORIZED
    assert port_of(ask_pcp(80, 9090)) == 9090
    assert {each.external_port for each in router.mappings()} == {8080, 9090}


def test_it_filters_nothing(lab: Lab, router: Router, inside_lan: None) -> None:
    """As the quirk filters_nothing has it."""
    nobody = Filter(128, 0, IPv4Address("203.0.113.99"))
    assert port_of(ask_pcp(8080, 8081, 3600, "UDP", nobody)) == 8081
    with lab.listen("lan", "UDP", 8080):
        assert lab.send_udp("wan", EXTERNAL_ADDRESS, 8081, b"hello") == b"lan: hello"


@pytest.mark.parametrize("size", [23, 61])
def test_odd_lengths_are_answered_by_nat_pmp(router: Router, inside_lan: None, size: int) -> None:
    """As the quirk odd_lengths_are_nat_pmp has it."""
    reply = ask(b"\x02\x01" + bytes(size - 2))
    response = nat_pmp.parse_response(reply)
    assert isinstance(response, nat_pmp.Refusal)
    assert (response.opcode, response.result) == (0, nat_pmp.ResultCode.NETWORK_FAILURE)
    assert pcp.parse_response(reply) is None


@pytest.mark.parametrize("version", [3, 255])
def test_other_versions_are_told_its_own(router: Router, inside_lan: None, version: int) -> None:
    asked = pcp.build_request(pcp.Request(0, ip_address(LAN_ADDRESS)))
    response = pcp.parse_response(ask(bytes((version,)) + asked[1:]))
    assert response is not None
    assert response.result == ResultCode.UNSUPP_VERSION
