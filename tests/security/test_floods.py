"""However much is said in answer to a search, the real gateway is found, in time, and little else is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from aioigd import IGDError, PortMapper
from aioigd.testing import EmulatedGateway, loopback_address, quirks
from aioigd.upnp.search import MAX_DEVICES

from .cost import MEBIBYTE, Cost
from .flood import FLOODS, Flood

MOST_READS = MAX_DEVICES + 8
"""Requests of one search: a few descriptions may be read again."""


@pytest.fixture
def senders() -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(loopback_address()) for _ in range(4)]


@pytest.mark.parametrize("name", FLOODS)
async def test_the_gateway_is_found_in_a_flood(name: str, senders: list[str]) -> None:
    async with EmulatedGateway(quirks.late_replies(0.3), address=None) as gateway:
        with Flood(gateway.address, senders, FLOODS[name]()) as flood:
            async with PortMapper(source_address=gateway.address) as mapper, Cost() as cost:
                mapping = await mapper.add_port_mapping(8080)
        assert gateway.mappings == [mapping]
        assert flood.sent > 1000
        assert cost.seconds < 5
        assert gateway.count("GET") == 1


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_without_a_gateway_ends_at_the_deadline(name: str, senders: list[str]) -> None:
    with loopback_address() as address, Flood(address, senders, FLOODS[name]()):
        async with PortMapper(source_address=address, discovery_timeout=0.5) as mapper, Cost() as cost:
            with pytest.raises(IGDError):
                await mapper.get_gateway()
    assert cost.seconds < 1.0


async def test_a_survey_of_a_flood_lasts_as_long_as_it_should(senders: list[str]) -> None:
    with loopback_address() as address, Flood(address, senders, FLOODS["distinct locations"]()):
        async with PortMapper(source_address=address) as mapper, Cost(memory=True) as cost:
            devices = await mapper.discover(0.7)
    assert 0.7 <= cost.seconds < 1.2
    assert len(devices) <= MAX_DEVICES
    assert cost.memory < 24 * MEBIBYTE


async def test_each_sender_has_a_few_descriptions_read_and_no_more(senders: list[str]) -> None:
    with loopback_address() as address, Flood(address, senders, FLOODS["distinct locations"](), most=2000):
        async with PortMapper(source_address=address) as mapper:
            devices = await mapper.discover(0.7, device_filter="")
    hosts = [device.description_url.split("/")[2].split(":")[0] for device in devices]
    assert hosts
    assert set(hosts) <= set(senders)
    assert all(hosts.count(sender) <= 4 for sender in senders)


async def test_thousands_of_devices_on_the_address_of_the_gateway_cost_a_bounded_number_of_requests() -> None:
    async with EmulatedGateway(quirks.flood(5000), address=None) as gateway:
        async with PortMapper(source_address=gateway.address) as mapper:
            await mapper.discover(1.0)
        assert gateway.count("GET") <= MOST_READS


async def test_the_same_reply_costs_one_request_however_often_it_comes() -> None:
    async with EmulatedGateway(quirks.repeated_replies(500), address=None) as gateway:
        async with PortMapper(source_address=gateway.address) as mapper:
            await mapper.discover(0.5)
        assert gateway.count("GET") == 1


async def test_a_dead_location_is_not_asked_for_ever(senders: list[str]) -> None:
    async with (
        EmulatedGateway(quirks.dead_devices_first(20), address=None) as gateway,
        PortMapper(source_address=gateway.address) as mapper,
        Cost() as cost,
    ):
        assert (await mapper.get_gateway()).device.description_url == gateway.location
    assert cost.seconds < 1


async def test_junk_while_a_lease_listens_for_notices_disturbs_nothing(senders: list[str]) -> None:
    async with EmulatedGateway(address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        async with mapper.lease(8080), Cost() as cost:
            for name in FLOODS:
                with Flood(gateway.address, senders, FLOODS[name](), most=300):
                    await asyncio.sleep(0.02)
        assert gateway.mappings == []
    assert cost.stall < 0.2
