"""What an emulated gateway does by NAT-PMP (RFC 6886)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv4Address

import pytest
import pytest_asyncio

from aioigd.models import PortMapping
from aioigd.pcp.wire.nat_pmp import AddressResponse, MapResponse, Refusal, Response, ResultCode
from aioigd.testing import EmulatedGateway
from aioigd.testing.network import neighbour_of

from .client import mapping, outcome, values
from .pcp_client import address_of, ask, map_by_nat_pmp, map_by_pcp, one_reply, pcp_request
from .test_gateway import on_linux

pytestmark = pytest.mark.waits


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[EmulatedGateway]:
    async with EmulatedGateway(address=None, protocols=("upnp", "nat-pmp")) as running:
        yield running


def granted(internal: int, external: int, lifetime: int = 3600) -> Response:
    return MapResponse(0, "TCP", internal, external, lifetime)


async def test_it_tells_its_address(gateway: EmulatedGateway) -> None:
    assert await address_of(gateway) == AddressResponse(0, IPv4Address("11.22.33.44"))
    (asked,) = gateway.requests
    assert (asked.kind, asked.action, asked.raw) == ("NAT-PMP", "ADDRESS", b"\0\0")


async def test_a_port_is_mapped_renewed_and_deleted(gateway: EmulatedGateway) -> None:
    assert await map_by_nat_pmp(gateway, 80, 8080) == granted(80, 8080)
    assert gateway.mappings == [PortMapping(8080, 80, gateway.address, "TCP", "NAT-PMP 8080 tcp", 3600)]
    assert await map_by_nat_pmp(gateway, 80, 8080, 7200) == granted(80, 8080, 7200)
    assert await map_by_nat_pmp(gateway, 80, 0, 0) == granted(80, 0, 0)
    assert gateway.mappings == []
    assert await map_by_nat_pmp(gateway, 80, 0, 0) == granted(80, 0, 0)
    assert gateway.count("NAT-PMP") == gateway.count("MAP") == 4
    assert gateway.problems == []
    assert gateway.requests[0].arguments == {
        "proto": "TCP",
        "internal_port": "80",
        "external_port": "8080",
        "lifetime": "3600",
    }


@pytest.mark.parametrize("lifetime", [1, 60, 7200, 0xFFFFFFFF])
async def test_it_grants_the_lifetime_that_is_asked_for(gateway: EmulatedGateway, lifetime: int) -> None:
    assert await map_by_nat_pmp(gateway, 80, 0, lifetime) == granted(80, 80, lifetime)


async def test_another_port_is_given_where_one_is_taken(gateway: EmulatedGateway) -> None:
    gateway.add_mapping(8080, proto="TCP")
    assert await map_by_nat_pmp(gateway, 80, 8080) == granted(80, 8081)
    gateway.add_mapping(65535, proto="TCP")
    assert await map_by_nat_pmp(gateway, 81, 65535) == granted(81, 1024)


async def test_an_internal_port_has_one_external_port(gateway: EmulatedGateway) -> None:
    await map_by_nat_pmp(gateway, 80, 8080)
    assert await map_by_nat_pmp(gateway, 80, 0) == granted(80, 8080)
    assert await map_by_nat_pmp(gateway, 80, 9090) == granted(80, 9090)
    assert [each.external_port for each in gateway.mappings] == [9090]


async def test_all_mappings_of_a_host_and_protocol_can_be_deleted_at_once(gateway: EmulatedGateway) -> None:
    for port in (80, 81):
        await map_by_nat_pmp(gateway, port)
    await map_by_nat_pmp(gateway, 82, proto="UDP")
    await outcome(gateway, "AddPortMapping", mapping(83, client=gateway.address))
    assert await map_by_nat_pmp(gateway, 0, 0, 0) == granted(0, 0, 0)
    assert {each.external_port for each in gateway.mappings} == {82, 83}


@on_linux
async def test_another_host_takes_nothing_away(gateway: EmulatedGateway) -> None:
    await map_by_nat_pmp(gateway, 80, 8080)
    other = neighbour_of(gateway.address)
    for port in (80, 0):
        assert await map_by_nat_pmp(gateway, port, 0, 0, source=other) == granted(port, 0, 0)
    assert await map_by_nat_pmp(gateway, 80, 8080, source=other) == granted(80, 8081)
    assert len(gateway.mappings) == 2


async def test_upnp_lists_it(gateway: EmulatedGateway) -> None:
    await map_by_nat_pmp(gateway, 80, 8080)
    listed = await values(gateway, "GetGenericPortMappingEntry", {"NewPortMappingIndex": "0"})
    assert listed["newportmappingdescription"] == "NAT-PMP 8080 tcp"
    assert listed["newinternalclient"] == gateway.address


async def test_a_mapping_of_upnp_for_another_host_is_not_replaced(gateway: EmulatedGateway) -> None:
    await outcome(gateway, "AddPortMapping", mapping(8080, client="192.168.1.9"))
    assert await map_by_nat_pmp(gateway, 8080, 8080) == granted(8080, 8081)


# What is refused


async def test_a_mapping_needs_an_internal_port(gateway: EmulatedGateway) -> None:
    assert await map_by_nat_pmp(gateway, 0, 80) == Refusal(2, ResultCode.NOT_AUTHORIZED, 0)
    assert gateway.problems == ["NAT-PMP MAP: there is no internal port"]


async def test_a_deletion_has_no_external_port(gateway: EmulatedGateway) -> None:
    assert await map_by_nat_pmp(gateway, 80, 80, 0) == granted(80, 0, 0)
    assert gateway.problems == ["NAT-PMP MAP: a deletion has an external port"]


async def test_a_full_table_is_out_of_resources() -> None:
    async with EmulatedGateway(address=None, protocols=("nat-pmp",), table_size=0) as gateway:
        assert await map_by_nat_pmp(gateway) == Refusal(2, ResultCode.OUT_OF_RESOURCES, 0)


async def test_without_an_address_there_is_a_network_failure(gateway: EmulatedGateway) -> None:
    gateway.connected = False
    assert await address_of(gateway) == Refusal(0, ResultCode.NETWORK_FAILURE, 0)
    assert await map_by_nat_pmp(gateway) == Refusal(2, ResultCode.NETWORK_FAILURE, 0)


async def test_unknown_opcodes_are_refused(gateway: EmulatedGateway) -> None:
    assert await one_reply(gateway, b"\0\5") == bytes((0, 0x85, 0, 5, 0, 0, 0, 0))


async def test_pcp_is_told_its_version(gateway: EmulatedGateway) -> None:
    """RFC 6887 section 9."""
    assert await one_reply(gateway, pcp_request(gateway.address)) == bytes((0, 0x81, 0, 1, 0, 0, 0, 0))
    assert gateway.mappings == []


@pytest.mark.parametrize("odd", [b"", b"\0", b"\0\0\0", b"\0\1\0\0", b"\0\x80", b"\2\x81" + bytes(58)])
async def test_what_is_no_request_gets_no_reply(gateway: EmulatedGateway, odd: bytes) -> None:
    assert await ask(gateway, odd) == []
    assert gateway.problems == ["NAT-PMP: it is no request, or has the wrong length"]


async def test_both_protocols_are_told_apart_by_their_version() -> None:
    async with EmulatedGateway(address=None, protocols=("nat-pmp", "pcp")) as gateway:
        await map_by_nat_pmp(gateway, 80, 8080)
        await map_by_pcp(gateway, 81, 8081)
        assert [each.kind for each in gateway.requests] == ["NAT-PMP", "PCP"]
        assert [entry.protocol for port in (8080, 8081) if (entry := gateway.entry(port, "TCP"))] == ["nat-pmp", "pcp"]
