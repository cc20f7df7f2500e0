"""However much is said in answer to a search, the real gateway is found, in time, and little else is asked for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from aioigd import IGDError, LeaseState, PortMapper
from aioigd.testing import EmulatedGateway, loopback_address, network, quirks
from aioigd.upnp.search import MAX_DEVICES

from .cost import MEBIBYTE, Cost
from .flood import FLOODS, Flood

MOST_READS = MAX_DEVICES + 8
"""Requests of one search: a few descriptions may be read again."""


@pytest.fixture
def senders() -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(loopback_address()) for _ in range(4)]


def all_but(these: Iterable[str]) -> list[Any]:
    """All floods, as parameters; the default run leaves out these: it has them where there is no gateway, or is one."""
    return [pytest.param(name, marks=pytest.mark.long if name in these else ()) for name in FLOODS]


EVEN, ODD = list(FLOODS)[::2], list(FLOODS)[1::2]


@pytest.mark.parametrize("name", all_but(ODD))
async def test_the_gateway_is_found_in_a_flood(name: str, senders: list[str]) -> None:
    async with EmulatedGateway(quirks.late_replies(0.3), address=None) as gateway:
        with Flood(gateway.address, senders, FLOODS[name]()) as flood:
            async with PortMapper(source_address=gateway.address) as mapper, Cost() as cost:
                mapping = await mapper.add_port_mapping(8080)
        assert gateway.mappings == [mapping]
        assert flood.sent > 1000
        assert cost.seconds < 5
        assert gateway.count("GET") == 1


@pytest.mark.parametrize("name", all_but(EVEN))
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


@pytest.mark.waits
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


NOTIFIES_PER_SECOND = 10_000
"""What took 89 % of a core before notices had a rate."""


def forge(gateway: EmulatedGateway, udn: str, seconds: float) -> int:
    """Multicast NOTIFYs in the gateway's name, each with another LOCATION and BOOTID; return how many were sent."""
    began, sent = time.monotonic(), 0
    with network.spare_socket(gateway.address) as mouth:
        mouth.setblocking(True)
        while (passed := time.monotonic() - began) < seconds:
            while sent < passed * NOTIFIES_PER_SECOND:
                kind = ("alive", "byebye")[sent % 2]
                mouth.sendto(
                    f"NOTIFY * HTTP/1.1\r\nNT: upnp:rootdevice\r\nNTS: ssdp:{kind}\r\nUSN: {udn}::upnp:rootdevice\r\n"
                    f"LOCATION: {gateway.location}?{sent}\r\nBOOTID.UPNP.ORG: {sent}\r\n\r\n".encode(),
                    network.group_of(gateway.address),
                )
                sent += 1
            time.sleep(0.005)
    return sent


async def cost_of_notices(gateway: EmulatedGateway, udn: str, seconds: float) -> float:
    """Return which part of a core this thread takes while notices are forged; the gateway hears them, too."""
    sent: list[int] = []
    forger = threading.Thread(target=lambda: sent.append(forge(gateway, udn, seconds)))
    before = time.thread_time()
    forger.start()
    async with Cost() as cost:
        await asyncio.sleep(seconds)
    used = time.thread_time() - before
    forger.join()
    assert sent[0] > seconds * NOTIFIES_PER_SECOND / 3
    assert cost.stall < 1.0
    return used / cost.seconds


async def test_forged_notices_take_little_of_a_core_and_cost_the_gateway_few_requests() -> None:
    async with EmulatedGateway(address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        udn = (await mapper.get_gateway()).device.udn
        without_lease = await cost_of_notices(gateway, udn, 1.0)
        async with mapper.lease([8080, 8081]) as lease:
            await asyncio.sleep(0.3)
            before = len(gateway.requests)
            with_lease = await cost_of_notices(gateway, udn, 3.0)
            # In 3 s two or three hints are followed: a search, a description, a poll and a sample each.
            assert len(gateway.requests) - before < 20
            assert lease.state is LeaseState.ACTIVE
        # To send them takes most of it. To read each one takes several times as much again.
        assert with_lease < 3 * without_lease
