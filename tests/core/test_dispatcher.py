"""What a router refuses by one protocol it is asked for by the others; and who is asked before a search has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from aioigd import ConflictError, DiscoveryError, IGDError, NotFoundError, PortMapper, RefusedError, UPnPResult
from aioigd.results import ProtocolName
from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.testing.hooks import Exchange
from aioigd.testing.http import Response

from ..support import odd, page, refuses, sockets

pytestmark = pytest.mark.usefixtures("nothing_is_left")

DEFAULT: Sequence[ProtocolName] = ("upnp", "pcp", "nat-pmp")
FAST: Sequence[ProtocolName] = ("pcp", "nat-pmp", "upnp")
ADD = "AddPortMapping"


@asynccontextmanager
async def connected(
    *rules: Quirk[...], order: Sequence[ProtocolName] = DEFAULT, speaks: Sequence[ProtocolName] = DEFAULT
) -> AsyncIterator[tuple[EmulatedGateway, PortMapper]]:
    async with (
        EmulatedGateway(*rules, address=None, protocols=speaks) as gateway,
        PortMapper(source_address=gateway.address, protocols=order) as mapper,
    ):
        yield gateway, mapper


def held_by(gateway: EmulatedGateway) -> list[int]:
    return sorted(each.external_port for each in gateway.mappings)


def asked(gateway: EmulatedGateway, *actions: str) -> list[str]:
    return [each.action for each in gateway.requests if each.action in actions]


# Refusals


@pytest.mark.parametrize(
    "rule",
    [
        quirks.refuses_everything(501),
        quirks.refuses_everything(606),
        quirks.denies_control(),
        odd(intercept=lambda each: page("<html>no</html>") if each.purpose == "control" else None),
    ],
    ids=["501", "606", "401", "html"],
)
async def test_what_upnp_refuses_is_had_by_the_next_protocol(rule: Quirk[...]) -> None:
    async with connected(rule) as (gateway, mapper):
        granted = await mapper.add_port_mapping(8080, proto="TCP", duration=600)
        assert (granted.external_port, granted.duration) == (8080, 600)
        assert held_by(gateway) == [8080]
        assert (await mapper.get_gateway()).protocol == "upnp"
        searches = gateway.count("M-SEARCH")
        await mapper.add_port_mapping(8081, proto="TCP", duration=600)
        assert gateway.count("M-SEARCH") == searches
        await mapper.delete_port_mapping(8080, "TCP")
        assert held_by(gateway) == [8081]


async def test_the_next_mapping_is_asked_for_by_the_protocol_that_serves() -> None:
    async with connected(quirks.refuses_everything()) as (gateway, mapper):
        await mapper.add_port_mapping(8080)
        refused = gateway.count(ADD)
        await mapper.add_port_mapping(8081)
        assert gateway.count(ADD) == refused
        assert held_by(gateway) == [8080, 8081]


async def test_the_attempts_are_those_of_all_protocols() -> None:
    rules = quirks.refuses_everything(501), quirks.pcp_refuses_mappings(), quirks.nat_pmp_maps_nothing()
    async with connected(*rules) as (gateway, mapper):
        with pytest.raises(RefusedError) as caught:
            await mapper.add_port_mapping(8080)
        error = caught.value
        assert (error.protocol, error.error_code, error.result) == ("upnp", 501, UPnPResult.ACTION_FAILED)
        assert "UPnP error 501" in str(error)
        by = [each.protocol for each in error.attempts]
        assert by == sorted(by, key=DEFAULT.index)
        assert set(by) == set(DEFAULT)
        assert error.attempts[-1].result is not UPnPResult.SUCCESS
        assert held_by(gateway) == []


async def test_pcp_that_refuses_everything_is_no_harm() -> None:
    async with connected(quirks.pcp_refuses_mappings(), order=FAST) as (gateway, mapper):
        granted = await mapper.add_port_mapping(8080)
        assert granted.external_port == 8080
        assert asked(gateway, "MAP", ADD)[:1] == ["MAP"]
    async with connected(quirks.pcp_refuses_mappings(), order=("pcp",)) as (_, mapper):
        with pytest.raises(RefusedError, match="PCP error 2") as caught:
            await mapper.add_port_mapping(8080)
        assert caught.value.protocol == "pcp"
        assert {each.protocol for each in caught.value.attempts} == {"pcp"}


@pytest.mark.parametrize("order", [DEFAULT, FAST])
async def test_a_conflict_is_final_without_overwrite(order: Sequence[ProtocolName]) -> None:
    async with connected(order=order) as (gateway, mapper):
        await mapper.get_gateway()
        gateway.add_mapping(8080, proto="TCP", internal_client="192.168.1.99")
        before = len(gateway.requests)
        with pytest.raises(ConflictError) as caught:
            await mapper.add_port_mapping(8080, proto="TCP", overwrite=False)
        used = "upnp" if order is DEFAULT else "pcp"
        assert {each.protocol for each in caught.value.attempts} == {used}
        assert caught.value.protocol == used
        assert len(gateway.requests) > before


async def test_what_pcp_cannot_overwrite_upnp_does() -> None:
    async with connected(order=FAST) as (gateway, mapper):
        gateway.add_mapping(8080, proto="TCP", internal_client="192.168.1.99")
        granted = await mapper.add_port_mapping(8080, proto="TCP", desc="mine")
        assert granted.desc == "mine"  # which is by UPnP
        assert [each.internal_client for each in gateway.mappings] == [gateway.address]
        by_upnp = gateway.count(ADD)
        await mapper.add_port_mapping(8081, proto="TCP")  # that a port is taken says nothing about PCP
        assert gateway.count(ADD) == by_upnp


async def test_a_port_of_ours_is_not_moved_by_another_protocol() -> None:
    rules = quirks.moves_second_port(), quirks.never_overwrites()
    async with connected(*rules, order=("pcp", "nat-pmp")) as (gateway, mapper):
        await mapper.add_port_mapping(8080, 80)
        with pytest.raises(ConflictError):
            await mapper.add_port_mapping(8081, 80)
        assert held_by(gateway) == [8080]


async def test_the_callers_mistakes_are_final() -> None:
    async with connected() as (gateway, mapper):
        await mapper.get_gateway()
        before = len(gateway.requests)
        with pytest.raises(IGDError) as caught:
            await mapper.add_port_mapping(0)
        assert caught.value.attempts == ()
        assert len(gateway.requests) == before


async def test_what_the_refusing_protocol_may_have_made_is_undone() -> None:
    def done_and_denied(exchange: Exchange, response: Response) -> Response:
        return page("<html>?</html>") if exchange.action in (ADD, "GetSpecificPortMappingEntry") else response

    async with connected(odd(response=done_and_denied)) as (gateway, mapper):
        granted = await mapper.add_port_mapping(8080, duration=600)
        assert granted.duration == 600
        assert [each.internal_client for each in gateway.mappings] == [gateway.address]


async def test_what_the_old_protocol_has_made_is_deleted_by_it() -> None:
    is_out_of_order = False

    def is_refused(_: object) -> bool:
        return is_out_of_order

    rules = [refuses(action, 501, is_refused) for action in (ADD, "GetSpecificPortMappingEntry")]
    rules.append(refuses("GetGenericPortMappingEntry", 501, is_refused))
    async with connected(*rules) as (gateway, mapper):
        await mapper.add_port_mapping(8080, desc="first")
        is_out_of_order = True
        await mapper.add_port_mapping(8080, desc="second", duration=600)
        assert gateway.count("DeletePortMapping") == 1
        assert len(gateway.mappings) == 1
        await mapper.delete_port_mapping(8080)
        assert gateway.mappings == []


async def test_the_address_is_asked_for_by_the_next_protocol_and_nothing_else_changes() -> None:
    async with connected(quirks.no_external_address()) as (gateway, mapper):
        assert str(await mapper.query_external_address()) == "11.22.33.44"
        await mapper.add_port_mapping(8080)
        assert gateway.count(ADD) == 1


async def test_a_gateway_that_was_handed_out_keeps_its_protocol() -> None:
    async with connected(quirks.refuses_everything()) as (gateway, mapper):
        with pytest.raises(RefusedError) as caught:
            await (await mapper.get_gateway()).add_port_mapping(8080)
        assert caught.value.protocol == "upnp"
        assert gateway.mappings == []


async def test_a_mapping_of_nobody_is_not_looked_for_by_other_protocols() -> None:
    async with connected() as (gateway, mapper):
        with pytest.raises(NotFoundError):
            await mapper.delete_port_mapping(8080)
        assert gateway.count("MAP") == 0


async def test_protocols_that_were_not_heard_of_are_looked_for_once() -> None:
    async with connected(quirks.refuses_everything(), speaks=("upnp",)) as (gateway, mapper):
        for port in (8080, 8081, 8082):
            with pytest.raises(RefusedError):
                await mapper.add_port_mapping(port)
        assert [device.protocol for device in mapper.devices] == ["upnp"]
        assert gateway.count("GET") == 1


# Before the search has ended


async def test_the_first_mapping_by_pcp_takes_one_datagram_before_anything_else() -> None:
    async with connected(order=FAST) as (gateway, mapper):
        await mapper.add_port_mapping(8080)
        assert gateway.requests[0].action == "MAP"
        assert (await mapper.get_gateway()).protocol == "pcp"
        assert gateway.count(ADD) == 0


@pytest.mark.parametrize("order", [FAST, ("nat-pmp", "pcp", "upnp")])
async def test_of_many_first_calls_one_goes_ahead(order: Sequence[ProtocolName]) -> None:
    async with connected(order=order) as (gateway, mapper):
        await asyncio.gather(*(mapper.add_port_mapping(port) for port in range(8000, 8050)))
        assert held_by(gateway) == list(range(8000, 8050))
        assert gateway.count("MAP") == 50


@pytest.mark.parametrize("speaks", [("upnp",), ("nat-pmp",)])
async def test_who_was_presumed_and_is_not_there_costs_nothing(speaks: Sequence[ProtocolName]) -> None:
    async with connected(order=FAST, speaks=speaks) as (gateway, mapper):
        await mapper.add_port_mapping(8080)
        assert held_by(gateway) == [8080]
        assert (await mapper.get_gateway()).protocol == speaks[0]


@pytest.mark.waits
async def test_who_was_presumed_and_is_silent_is_undone_behind_the_call() -> None:
    async with connected(quirks.pcp_ignored(), order=FAST) as (gateway, mapper):
        granted = await mapper.add_port_mapping(8080)
        assert granted.external_port == 8080
        assert (await mapper.get_gateway()).protocol == "nat-pmp"
        await mapper.close()
        assert held_by(gateway) == [8080]


async def test_where_nobody_is_the_call_fails_as_the_search_does() -> None:
    before = sockets()
    async with PortMapper(source_address="127.0.0.77", protocols=("pcp", "nat-pmp")) as mapper:
        with pytest.raises(DiscoveryError) as caught:
            await mapper.add_port_mapping(8080)
        assert caught.value.result is UPnPResult.NO_DEVICES
    assert sockets() == before
