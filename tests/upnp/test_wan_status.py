"""What a gateway tells of its connection and its line, from the services beside the one that maps ports."""

from __future__ import annotations

import asyncio

import pytest

from aioigd import (
    ConnectionStatus,
    ConnectionType,
    Device,
    IGDError,
    IGDStatus,
    LinkProperties,
    NatStatus,
    PortMapper,
    TrafficMeter,
    UPnPResult,
)
from aioigd.testing import EmulatedGateway

from ..support import odd, refuses

pytestmark = pytest.mark.usefixtures("nothing_is_left")

FULL = 1 << 32
LOST_SERVICE = odd(
    device=lambda device, _: device.with_each_service(
        lambda service: None if service.name == "WANCommonInterfaceConfig" else service
    )
)


async def test_the_connection(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    router = await mapper.get_gateway()
    assert await router.query_status() == ConnectionStatus("Connected", "ERROR_NONE", 0)
    assert (await router.query_status()).is_connected
    assert await router.query_connection_type() == ConnectionType("IP_Routed", ("IP_Routed",))
    assert await router.query_nat_status() == NatStatus(nat_enabled=True, rsip_available=False)
    gateway.connected = False
    assert not (await router.query_status()).is_connected


async def test_the_line(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    router = await mapper.get_gateway()
    assert await router.query_link_properties() == LinkProperties("Cable", 40_000_000, 100_000_000, "Up")
    gateway.line.link_status = "Down"
    assert not (await router.query_link_properties()).is_up


async def test_traffic_is_metered_through_the_end_of_the_counters(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    gateway.line.bytes_received = FULL - 10
    router, meter = await mapper.get_gateway(), TrafficMeter()
    meter.update(await router.query_traffic())
    gateway.line.count(sent=100, received=1000)
    rates = meter.update(await router.query_traffic())
    assert (meter.bytes_sent, meter.bytes_received) == (100, 1000)
    assert rates.bytes_received == pytest.approx(1000 / rates.seconds)


async def test_the_description_is_read_once_for_all_questions(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    router = await mapper.get_gateway()
    before = gateway.count("GET")
    for _ in range(3):
        await router.query_traffic()
        await router.query_link_properties()
    assert gateway.count("GET") == before + 1


async def test_the_same_question_at_once_is_asked_once(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    router = await mapper.get_gateway()
    answers = await asyncio.gather(*(router.query_status() for _ in range(50)))
    assert gateway.count("GetStatusInfo") == 1
    assert len(set(answers)) == 1


async def test_packets_that_are_not_counted_are_none() -> None:
    silent = refuses("GetTotalPacketsSent", 602)
    async with EmulatedGateway(silent, address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        totals = await (await mapper.get_gateway()).query_traffic()
    assert (totals.packets_sent, totals.packets_received) == (None, 4096)


async def test_a_gateway_without_the_service_is_the_wrong_one() -> None:
    async with (
        EmulatedGateway(LOST_SERVICE, address=None) as gateway,
        PortMapper(source_address=gateway.address) as mapper,
    ):
        with pytest.raises(IGDError, match="wancommoninterfaceconfig") as caught:
            await (await mapper.get_gateway()).query_traffic()
    assert (caught.value.result, caught.value.error_code) == (UPnPResult.INVALID_GATEWAY, None)


async def test_a_service_without_the_action_is_the_wrong_one_too() -> None:
    unable = refuses("GetCommonLinkProperties", 401)
    async with EmulatedGateway(unable, address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        with pytest.raises(IGDError) as caught:
            await (await mapper.get_gateway()).query_link_properties()
    assert (caught.value.result, caught.value.error_code) == (UPnPResult.INVALID_GATEWAY, 401)


async def test_a_device_that_a_program_made_up_has_no_other_services(
    gateway: EmulatedGateway, mapper: PortMapper
) -> None:
    found = (await mapper.get_gateway()).device
    mapper.devices = [
        Device(
            igd_control_url=found.igd_control_url,
            igd_service_type=found.igd_service_type,
            igd_our_addr=found.igd_our_addr,
            igd_status=IGDStatus.OK,
        )
    ]
    router = await mapper.get_gateway()
    assert (await router.query_status()).is_connected
    with pytest.raises(IGDError) as caught:
        await router.query_traffic()
    assert caught.value.result is UPnPResult.INVALID_GATEWAY
