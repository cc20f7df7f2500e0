"""What an emulated gateway does by PCP (RFC 6887)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address

import pytest
import pytest_asyncio
from hypothesis import given

from aioigd.models import Pinhole, PortMapping
from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.pcp.wire.pcp import Filter, MapData, OtherOption, PreferFailure, ResultCode, ThirdParty
from aioigd.testing import EmulatedGateway
from aioigd.testing.firewall import Firewall
from aioigd.testing.hooks import Pipeline
from aioigd.testing.network import neighbour_of
from aioigd.testing.pcp_server import PcpServer
from aioigd.testing.wan_connection import ProtocolName, WanConnection

from ..pcp.wire.test_nat_pmp import DATAGRAMS as NAT_PMP_DATAGRAMS
from ..pcp.wire.test_pcp import DATAGRAMS
from .client import mapping, outcome, values
from .pcp_client import (
    NONCE,
    OTHER_NONCE,
    announce,
    ask,
    map_by_nat_pmp,
    map_by_pcp,
    one_reply,
    pcp_request,
)
from .test_gateway import on_linux

pytestmark = pytest.mark.waits

EXTERNAL = IPv4Address("11.22.33.44")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[EmulatedGateway]:
    async with EmulatedGateway(address=None, protocols=("upnp", "pcp")) as running:
        yield running


def granted(internal: int, external: int, proto: int = 6, nonce: bytes = NONCE) -> MapData:
    return MapData(nonce, proto, internal, external, EXTERNAL)


async def test_an_announcement_is_answered(gateway: EmulatedGateway) -> None:
    assert await announce(gateway) == pcp.Response(pcp.Opcode.ANNOUNCE, 0, 0, 0)
    (asked,) = gateway.requests
    assert (asked.kind, asked.action, asked.problem) == ("PCP", "ANNOUNCE", "")


async def test_a_port_is_mapped_renewed_and_deleted(gateway: EmulatedGateway) -> None:
    assert await map_by_pcp(gateway, 80, 8080, 3600) == pcp.Response(1, 0, 3600, 0, granted(80, 8080))
    desc = "PCP MAP 000102030405060708090a0b"
    assert gateway.mappings == [PortMapping(8080, 80, gateway.address, "TCP", desc, 3600)]
    renewed = await map_by_pcp(gateway, 80, 8080, 7200)
    assert (renewed.lifetime, renewed.mapping) == (7200, granted(80, 8080))
    deleted = await map_by_pcp(gateway, 80, 0, 0)
    assert (deleted.result, deleted.lifetime) == (0, 0)
    assert gateway.mappings == []
    assert gateway.count("MAP") == 3
    assert gateway.problems == []


async def test_what_is_not_there_counts_as_deleted(gateway: EmulatedGateway) -> None:
    assert (await map_by_pcp(gateway, 80, 0, 0)).result == ResultCode.SUCCESS


async def test_it_records_what_was_asked(gateway: EmulatedGateway) -> None:
    await map_by_pcp(gateway, 80, 8080, 3600, "UDP", options=[PreferFailure()])
    (request,) = gateway.requests
    assert request.arguments == {
        "client": gateway.address,
        "proto": "UDP",
        "internal_port": "80",
        "external_port": "8080",
        "lifetime": "3600",
        "nonce": NONCE.hex(),
        "PreferFailure": "PreferFailure()",
    }


@pytest.mark.parametrize(("asked", "given"), [(1, 120), (119, 120), (3600, 3600), (0xFFFFFFFF, 86_400)])
async def test_lifetimes_are_within_the_recommended_bounds(gateway: EmulatedGateway, asked: int, given: int) -> None:
    assert (await map_by_pcp(gateway, 80, 0, asked)).lifetime == given
    assert gateway.mappings[0].duration == given


async def test_a_mapping_expires() -> None:
    clock = Clock()
    async with EmulatedGateway(address=None, protocols=("pcp",), clock=clock) as gateway:
        await map_by_pcp(gateway, 80, 8080, 120)
        clock.now += 119
        await map_by_pcp(gateway, 81, 8080, 120)
        assert [(each.external_port, each.internal_port) for each in gateway.mappings] == [(8080, 80), (8081, 81)]
        clock.now += 1
        assert [each.external_port for each in gateway.mappings] == [8081]
        again = await map_by_pcp(gateway, 80, 0, 120, nonce=OTHER_NONCE)
        assert again.mapping == granted(80, 80, nonce=OTHER_NONCE)


async def test_without_a_suggestion_it_is_the_internal_port(gateway: EmulatedGateway) -> None:
    assert (await map_by_pcp(gateway, 4000, 0)).mapping == granted(4000, 4000)


async def test_a_mapping_keeps_its_external_port(gateway: EmulatedGateway) -> None:
    """Section 11.3: another suggestion changes nothing."""
    await map_by_pcp(gateway, 80, 8080)
    assert (await map_by_pcp(gateway, 80, 9090)).mapping == granted(80, 8080)
    assert (await map_by_pcp(gateway, 80, 0)).mapping == granted(80, 8080)
    assert len(gateway.mappings) == 1
    refused = await map_by_pcp(gateway, 80, 9090, options=[PreferFailure()])
    assert refused.result == ResultCode.CANNOT_PROVIDE_EXTERNAL


async def test_tcp_and_udp_are_two(gateway: EmulatedGateway) -> None:
    for proto, number in (("TCP", 6), ("UDP", 17)):
        reply = await map_by_pcp(gateway, 80, 8080, 3600, proto, options=[PreferFailure()])
        assert reply.mapping == granted(80, 8080, number)


async def test_another_port_is_given_where_one_is_taken_unless_failure_is_preferred(gateway: EmulatedGateway) -> None:
    gateway.add_mapping(8080, proto="TCP")
    gateway.add_mapping(8081, proto="TCP", remote_host="192.0.2.1")
    assert (await map_by_pcp(gateway, 80, 8080)).mapping == granted(80, 8082)
    refused = await map_by_pcp(gateway, 81, 8080, options=[PreferFailure()])
    assert (refused.result, refused.lifetime) == (ResultCode.CANNOT_PROVIDE_EXTERNAL, 30)
    assert refused.mapping == MapData(NONCE, 6, 81, 8080, IPv4Address(0))
    had = await map_by_pcp(gateway, 81, 8083, options=[PreferFailure()])
    assert had.mapping == granted(81, 8083)
    assert had.options == (PreferFailure(),)


@pytest.mark.parametrize(("address", "result"), [("11.22.33.44", 0), ("11.22.33.45", 11)])
async def test_the_external_address_may_be_suggested(gateway: EmulatedGateway, address: str, result: int) -> None:
    suggested = IPv4Address(address)
    reply = await map_by_pcp(gateway, 80, 0, external_address=suggested, options=[PreferFailure()])
    assert reply.result == result
    assert (await map_by_pcp(gateway, 80, 0, external_address=suggested)).mapping == granted(80, 80)


async def test_what_upnp_mapped_to_the_same_port_is_used_on(gateway: EmulatedGateway) -> None:
    await outcome(gateway, "AddPortMapping", mapping(8080, client=gateway.address, internal_port=80))
    assert (await map_by_pcp(gateway, 80, 8080, options=[PreferFailure()])).mapping == granted(80, 8080)
    assert len(gateway.mappings) == 1
    entry = gateway.entry(8080, "TCP")
    assert entry is not None
    assert (entry.protocol, entry.nonce) == ("pcp", NONCE)


async def test_upnp_lists_and_deletes_it(gateway: EmulatedGateway) -> None:
    await map_by_pcp(gateway, 80, 8080, 3600)
    listed = await values(gateway, "GetGenericPortMappingEntry", {"NewPortMappingIndex": "0"})
    assert listed["newexternalport"] == "8080"
    assert listed["newportmappingdescription"] == "PCP MAP 000102030405060708090a0b"
    assert 3590 <= int(listed["newleaseduration"]) <= 3600
    assert await outcome(gateway, "AddPortMapping", mapping(8080, client="192.168.1.9")) == 718
    key = {"NewRemoteHost": "", "NewExternalPort": "8080", "NewProtocol": "TCP"}
    assert await outcome(gateway, "DeletePortMapping", key) == 0
    assert (await map_by_pcp(gateway, 80, 0, 3600, nonce=OTHER_NONCE)).result == ResultCode.SUCCESS


# Whose mapping it is


async def test_another_nonce_neither_renews_nor_deletes(gateway: EmulatedGateway) -> None:
    await map_by_pcp(gateway, 80, 8080)
    for lifetime in (3600, 0):
        refused = await map_by_pcp(gateway, 80, 0, lifetime, nonce=OTHER_NONCE)
        assert (refused.result, refused.lifetime) == (ResultCode.NOT_AUTHORIZED, 1800)
    assert len(gateway.mappings) == 1


@on_linux
async def test_another_host_takes_nothing_away(gateway: EmulatedGateway) -> None:
    await map_by_pcp(gateway, 80, 8080)
    other = neighbour_of(gateway.address)
    assert (await map_by_pcp(gateway, 80, 0, 0, source=other)).result == ResultCode.SUCCESS
    assert len(gateway.mappings) == 1
    assert (await map_by_pcp(gateway, 80, 8080, source=other)).mapping == granted(80, 8081)


async def test_a_mapping_that_nat_pmp_made_can_be_taken_over() -> None:
    async with EmulatedGateway(address=None, protocols=("pcp", "nat-pmp")) as gateway:
        await map_by_nat_pmp(gateway, 80, 8080)
        assert (await map_by_pcp(gateway, 80, 8080)).mapping == granted(80, 8080)
        refused = await map_by_nat_pmp(gateway, 80, 0, 0)
        assert isinstance(refused, nat_pmp.Refusal)
        assert refused.result == nat_pmp.ResultCode.NOT_AUTHORIZED
        assert len(gateway.mappings) == 1


async def test_the_client_address_has_to_be_that_of_the_sender(gateway: EmulatedGateway) -> None:
    for client in ("192.168.1.9", "2001:db8::1"):
        refused = await map_by_pcp(gateway, client=client)
        assert refused.result == ResultCode.ADDRESS_MISMATCH
    assert gateway.problems == ["PCP MAP: the client address is not that of the sender"] * 2
    assert gateway.mappings == []


async def test_a_port_is_mapped_for_a_third_party(gateway: EmulatedGateway) -> None:
    theirs = [ThirdParty(IPv4Address("192.168.1.9"))]
    assert (await map_by_pcp(gateway, 80, 8080, options=theirs)).mapping == granted(80, 8080)
    assert gateway.mappings[0].internal_client == "192.168.1.9"
    assert (await map_by_pcp(gateway, 80, 8080)).mapping == granted(80, 8081)
    assert (await map_by_pcp(gateway, 80, 0, 0, options=theirs)).result == ResultCode.SUCCESS
    assert [each.internal_client for each in gateway.mappings] == [gateway.address]


async def test_a_third_party_is_somebody_else(gateway: EmulatedGateway) -> None:
    for address in (IPv4Address(gateway.address), IPv6Address("2001:db8::1")):
        assert (await map_by_pcp(gateway, options=[ThirdParty(address)])).result == ResultCode.MALFORMED_REQUEST


async def test_in_secure_mode_hosts_map_ports_to_themselves_only() -> None:
    async with EmulatedGateway(address=None, protocols=("pcp",), secure_mode=True) as gateway:
        refused = await map_by_pcp(gateway, options=[ThirdParty(IPv4Address("192.168.1.9"))])
        assert refused.result == ResultCode.UNSUPP_OPTION


# Filters


async def test_a_filter_lets_in_whom_it_names(gateway: EmulatedGateway) -> None:
    host = Filter(128, 0, IPv4Address("198.51.100.1"))
    reply = await map_by_pcp(gateway, 80, 8080, options=[host])
    assert reply.options == (host,)
    assert gateway.mappings[0].remote_host == "198.51.100.1"
    network = Filter(120, 443, IPv4Address("203.0.113.0"))
    await map_by_pcp(gateway, 80, 8080, options=[network])
    (only,) = gateway.mappings
    entry = gateway.entry(8080, "TCP")
    assert entry is not None
    assert (only, entry.filters) == (entry.mapping, (host, network))
    assert entry.lets_in("198.51.100.1", 5)
    assert entry.lets_in("203.0.113.200", 443)
    assert not entry.lets_in("203.0.113.200", 444)
    assert not entry.lets_in("192.0.2.1", 443)
    await map_by_pcp(gateway, 80, 8080, options=[Filter(0, 0, IPv4Address(0))])
    entry = gateway.entry(8080, "TCP")
    assert entry is not None
    assert entry.filters == ()


# What is refused


@pytest.mark.parametrize(
    ("arguments", "options", "result"),
    [
        ((80, 0, 3600, 132), [], ResultCode.UNSUPP_PROTOCOL),
        ((0, 0, 3600, 0), [], ResultCode.UNSUPP_PROTOCOL),
        ((0, 0, 3600, 6), [], ResultCode.UNSUPP_PROTOCOL),
        ((80, 0, 3600, 0), [], ResultCode.MALFORMED_REQUEST),
        ((80, 0), [PreferFailure()], ResultCode.MALFORMED_OPTION),
        ((80, 0), [OtherOption(99, b"")], ResultCode.UNSUPP_OPTION),
        ((80, 0), [PreferFailure(), PreferFailure()], ResultCode.MALFORMED_OPTION),
    ],
)
async def test_what_is_refused(
    gateway: EmulatedGateway, arguments: tuple[int, ...], options: list[pcp.Option], result: ResultCode
) -> None:
    asked = pcp_request(gateway.address, *arguments, options=options)
    reply = await one_reply(gateway, asked)
    response = pcp.parse_response(reply)
    assert response is not None
    assert (response.result, response.lifetime) == (result, 1800)
    assert reply[24:] == asked[24:]
    assert gateway.mappings == []


async def test_an_option_that_may_be_ignored_is(gateway: EmulatedGateway) -> None:
    assert (await map_by_pcp(gateway, options=[OtherOption(200, b"hello")])).result == ResultCode.SUCCESS


@pytest.mark.parametrize("version", [0, 1, 3, 255])
async def test_other_versions_are_told_its_own(gateway: EmulatedGateway, version: int) -> None:
    """Section 9; that includes NAT-PMP, which this gateway does not speak."""
    reply = await one_reply(gateway, bytes((version, 0)))
    assert reply[:4] == bytes((2, 128, 0, 1))


@pytest.mark.parametrize("odd", [b"", b"\2", b"\2\x81" + bytes(58)])
async def test_what_is_no_request_gets_no_reply(gateway: EmulatedGateway, odd: bytes) -> None:
    assert await ask(gateway, odd) == []
    assert gateway.problems == ["PCP: it is no request"]


async def test_peer_is_not_supported(gateway: EmulatedGateway) -> None:
    reply = await one_reply(gateway, b"\2\2" + bytes(78))
    assert reply[:4] == bytes((2, 0x82, 0, ResultCode.UNSUPP_OPCODE))


async def test_a_full_table_is_no_resources() -> None:
    async with EmulatedGateway(address=None, protocols=("pcp",), table_size=1) as gateway:
        await map_by_pcp(gateway, 80)
        refused = await map_by_pcp(gateway, 81)
        assert (refused.result, refused.lifetime) == (ResultCode.NO_RESOURCES, 30)
        assert (await map_by_pcp(gateway, 80)).result == ResultCode.SUCCESS


@pytest.mark.parametrize("address", ["", "no address"])
async def test_without_an_external_address_there_is_a_network_failure(address: str) -> None:
    async with EmulatedGateway(address=None, protocols=("pcp",), external_address=address) as gateway:
        refused = await map_by_pcp(gateway)
        assert (refused.result, refused.lifetime) == (ResultCode.NETWORK_FAILURE, 30)
        assert (await announce(gateway)).result == ResultCode.SUCCESS


async def test_a_deletion_has_no_external_port(gateway: EmulatedGateway) -> None:
    await map_by_pcp(gateway, 80, 8080)
    await map_by_pcp(gateway, 80, 8080, 0)
    assert gateway.problems == ["PCP MAP: a deletion has an external port or address"]
    assert gateway.mappings == []


# IPv6


async def test_over_ipv6_a_mapping_is_a_pinhole() -> None:
    async with EmulatedGateway(address="::1", protocols=("upnp", "pcp", "nat-pmp"), version=2) as gateway:
        reply = await map_by_pcp(gateway, 80, 0, 3600)
        assert reply.mapping == MapData(NONCE, 6, 80, 80, IPv6Address("::1"))
        assert gateway.firewall.pinholes == [Pinhole(1, "::1", 80, "TCP", "", 0, 3600)]
        assert gateway.mappings == []
        refused = await map_by_pcp(gateway, 80, 81, options=[PreferFailure()])
        assert refused.result == ResultCode.CANNOT_PROVIDE_EXTERNAL
        for lifetime in (3600, 0):
            other = await map_by_pcp(gateway, 80, 0, lifetime, nonce=OTHER_NONCE)
            assert other.result == ResultCode.NOT_AUTHORIZED
        assert (await map_by_pcp(gateway, 80, 0, 0)).result == ResultCode.SUCCESS
        assert gateway.firewall.pinholes == []
        assert (await map_by_pcp(gateway, 80, 0, 60, nonce=OTHER_NONCE)).lifetime == 120


async def test_a_pinhole_is_renewed_and_may_be_for_one_remote_host() -> None:
    async with EmulatedGateway(address="::1", protocols=("pcp",)) as gateway:
        remote = [Filter(128, 443, IPv6Address("2001:db8::1"))]
        for lifetime in (3600, 7200):
            await map_by_pcp(gateway, 80, 0, lifetime, "UDP", options=remote)
        assert gateway.firewall.pinholes == [Pinhole(1, "::1", 80, "UDP", "2001:db8::1", 443, 7200)]


async def test_the_firewall_may_refuse() -> None:
    async with EmulatedGateway(address="::1", protocols=("pcp",)) as gateway:
        gateway.firewall.pinholes_allowed = False
        assert (await map_by_pcp(gateway)).result == ResultCode.NOT_AUTHORIZED
        gateway.firewall.pinholes_allowed = True
        gateway.firewall.size = 0
        assert (await map_by_pcp(gateway)).result == ResultCode.NO_RESOURCES


async def test_ipv6_has_no_nat_pmp() -> None:
    async with EmulatedGateway(address="::1", protocols=("pcp", "nat-pmp")) as gateway:
        reply = await one_reply(gateway, bytes(2))
        assert reply[:4] == bytes((2, 128, 0, 1))
    with pytest.raises(ValueError, match="NAT-PMP is spoken over IPv4 only"):
        EmulatedGateway(address="::1", protocols=("nat-pmp",))


# Anything


@given(DATAGRAMS | NAT_PMP_DATAGRAMS)
@pytest.mark.parametrize("protocols", [("pcp",), ("nat-pmp",), ("pcp", "nat-pmp")])
def test_whatever_is_sent_is_answered_properly_or_not_at_all(
    protocols: tuple[ProtocolName, ...], datagram: bytes
) -> None:
    clock = Clock()
    connection = WanConnection(clock, external_address="11.22.33.44", table_size=3)
    server = PcpServer(Pipeline(()), protocols, connection, Firewall(clock), clock)
    for sender in ("192.168.1.7", "2001:db8::7"):
        query = server.understand(datagram, (sender, 5000))
        sent = server.answer(query)
        assert len(sent) <= 1
        assert bool(sent) == (query.request is not None)
        for reply in sent:
            by_pcp, by_nat_pmp = pcp.parse_response(reply.payload), nat_pmp.parse_response(reply.payload)
            assert (by_pcp is not None) or (by_nat_pmp is not None) or reply.payload[1] & 0x7F > 2
