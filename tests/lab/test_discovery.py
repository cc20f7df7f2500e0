"""Finding a real router by real multicast: with every option, next to a decoy, through loss, and not at all."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

import pytest

import aioigd
from aioigd import IGDError, IGDStatus, UPnPResult

from .decoy import Decoy
from .network import LAN_ADDRESS, NEIGHBOUR_ADDRESS, ROUTER_ADDRESS, WAN_ADDRESS, Lab, UpnpMapper
from .router import Router

MARGIN = 0.5
"""Seconds that a call may take longer than its deadline."""


@pytest.fixture
def decoy(lab: Lab) -> Iterator[Decoy]:
    with Decoy(lab, "neighbour", NEIGHBOUR_ADDRESS) as decoy:
        yield decoy


class TestOptions:
    async def test_the_gateway_is_found_without_any(self, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            device = (await mapper.get_gateway()).device
        assert device.description_url == router.location
        assert device.igd_control_url.startswith(f"http://{ROUTER_ADDRESS}:{router.port}/")
        assert device.igd_our_addr == LAN_ADDRESS
        assert device.igd_status is IGDStatus.OK
        assert router.asked("/rootDesc.xml") == 1

    async def test_the_search_ends_as_soon_as_the_default_router_is_there(
        self, router: Router, inside_lan: None
    ) -> None:
        async with UpnpMapper(timeout=60, discovery_timeout=60) as mapper:
            before = time.monotonic()
            await mapper.get_gateway()
            assert time.monotonic() - before < 10

    @pytest.mark.parametrize("option", ["source_address", "location", "local_port"])
    async def test_the_gateway_is_found_with(self, router: Router, inside_lan: None, option: str) -> None:
        mappers = {
            "source_address": lambda: UpnpMapper(source_address=LAN_ADDRESS),
            "location": lambda: UpnpMapper(location=router.location),
            "local_port": lambda: UpnpMapper(local_port=19000, ttl=1),
        }
        async with mappers[option]() as mapper:
            device = (await mapper.get_gateway()).device
            await mapper.add_port_mapping(8080)
        assert device.description_url == router.location
        assert device.igd_our_addr == LAN_ADDRESS
        assert len(router.mappings()) == 1

    async def test_with_a_location_nothing_is_searched(
        self, router: Router, inside_lan: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "aioigd.traffic.ssdp")
        async with UpnpMapper(location=router.location) as mapper:
            await mapper.get_gateway()
        assert not caplog.records

    async def test_the_module_functions_need_no_mapper(self, router: Router, inside_lan: None) -> None:
        await aioigd.add_port_mapping(8080, proto="TCP")
        assert len(router.mappings()) == 1
        await aioigd.delete_port_mapping(8080, "TCP")
        assert router.mappings() == []
        assert router.asked("/rootDesc.xml") == 1

    async def test_a_survey_lists_the_router_and_the_next_call_uses_it(self, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            devices = await mapper.discover(timeout=1.0)
            assert [device.description_url for device in devices] == [router.location]
            assert devices == mapper.devices
            assert (await mapper.get_gateway()).device is devices[0]


class TestDecoys:
    async def test_the_next_hop_of_the_default_route_is_chosen(
        self, router: Router, decoy: Decoy, inside_lan: None
    ) -> None:
        async with UpnpMapper() as mapper:
            await mapper.add_port_mapping(8080)
            gateway = await mapper.get_gateway()
            assert decoy.location in [device.description_url for device in mapper.devices]
        assert gateway.device.description_url == router.location
        assert len(router.mappings()) == 1
        assert decoy.requests == ["GET /d.xml HTTP/1.1"]

    async def test_the_next_hop_of_a_worse_default_route_is_not_certain(
        self, lab: Lab, router: Router, decoy: Decoy, inside_lan: None
    ) -> None:
        worse = ["default", "via", NEIGHBOUR_ADDRESS, "dev", "lan0", "metric", "600"]
        lab.run("lan", ["ip", "route", "add", *worse])
        try:
            for _ in range(5):
                async with UpnpMapper() as mapper:
                    assert (await mapper.get_gateway()).device.description_url == router.location
        finally:
            lab.run("lan", ["ip", "route", "delete", *worse])

    async def test_a_decoy_that_hangs_holds_up_nobody(self, lab: Lab, router: Router, inside_lan: None) -> None:
        with Decoy(lab, "neighbour", NEIGHBOUR_ADDRESS, silent=True) as decoy:
            async with UpnpMapper(timeout=60, discovery_timeout=60) as mapper:
                before = time.monotonic()
                gateway = await mapper.get_gateway()
                assert time.monotonic() - before < 10
        assert gateway.device.description_url == router.location
        assert set(decoy.requests) <= {"GET /d.xml HTTP/1.1"}

    async def test_another_gateway_is_taken_where_there_is_no_better_one(self, decoy: Decoy, inside_lan: None) -> None:
        async with UpnpMapper(timeout=60, discovery_timeout=60) as mapper:
            before = time.monotonic()
            gateway = await mapper.get_gateway()
            assert time.monotonic() - before < 10
        assert gateway.device.description_url == decoy.location

    @pytest.mark.parametrize(
        "location",
        [
            f"http://{WAN_ADDRESS}:{{port}}/d.xml",
            f"http://{{host}}:{{port}}//{WAN_ADDRESS}:{{port}}/d.xml",
            f"//{WAN_ADDRESS}:{{port}}/d.xml",
            f"http://{{host}}:{{port}}@{WAN_ADDRESS}:{{port}}/d.xml",
            f"http://{WAN_ADDRESS}%00.{{host}}:{{port}}/d.xml",
        ],
    )
    async def test_no_location_leads_away_from_the_sender(self, lab: Lab, inside_lan: None, location: str) -> None:
        decoy = Decoy(lab, "neighbour", NEIGHBOUR_ADDRESS, location=location)
        port = decoy.port
        with decoy, lab.watch_tcp("wan", port) as callers:
            async with UpnpMapper(discovery_timeout=0.5) as mapper:
                with contextlib.suppress(IGDError):
                    device = (await mapper.get_gateway()).device
                    assert device.igd_control_url == f"http://{NEIGHBOUR_ADDRESS}:{port}/ctl"
        assert callers == []


class TestAbsence:
    async def test_nobody_there_is_no_devices_in_time(self, lab: Lab, inside_lan: None) -> None:
        async with UpnpMapper(discovery_timeout=0.5) as mapper:
            before = time.monotonic()
            with pytest.raises(IGDError) as caught:
                await mapper.add_port_mapping(8080)
            assert 0.5 <= time.monotonic() - before < 0.5 + MARGIN
        assert caught.value.result is UPnPResult.NO_DEVICES

    async def test_nobody_there_is_an_empty_survey(self, lab: Lab, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            assert await mapper.discover(timeout=0.3) == []

    async def test_a_failed_search_is_not_remembered(self, lab: Lab, inside_lan: None) -> None:
        async with UpnpMapper(discovery_timeout=1.5) as mapper:
            lab.drop_ssdp(100)
            router = lab.start_router()
            with pytest.raises(IGDError) as caught:
                await mapper.get_gateway()
            assert caught.value.result is UPnPResult.NO_DEVICES
            lab.clear_faults()
            assert (await mapper.get_gateway()).device.description_url == router.location

    async def test_a_router_without_an_external_address_is_a_gateway_all_the_same(
        self, lab: Lab, router: Router, inside_lan: None
    ) -> None:
        lab.set_external_address(None)
        async with UpnpMapper() as mapper:
            assert (await mapper.get_gateway()).device.description_url == router.location

    async def test_a_description_that_is_not_there_is_reported(self, lab: Lab, inside_lan: None) -> None:
        async with UpnpMapper(location=f"http://{ROUTER_ADDRESS}:9/rootDesc.xml", discovery_timeout=0.5) as mapper:
            with pytest.raises(IGDError) as caught:
                await mapper.add_port_mapping(8080)
        assert caught.value.result is UPnPResult.SOCKET_ERROR


async def find(router: Router, timeout: float) -> bool:
    async with UpnpMapper(timeout=timeout, discovery_timeout=timeout) as mapper:
        try:
            gateway = await mapper.get_gateway()
        except IGDError as error:
            if error.result is UPnPResult.NO_DEVICES:
                return False
            raise
    return gateway.device.description_url == router.location


class TestLoss:
    async def test_the_gateway_is_found_though_datagrams_get_lost(
        self, lab: Lab, router: Router, inside_lan: None
    ) -> None:
        lab.drop_some_ssdp()
        assert [await find(router, timeout=5.0) for _ in range(5)] == [True] * 5

    @pytest.mark.long
    async def test_96_of_100_searches_succeed_though_datagrams_get_lost(
        self, lab: Lab, router: Router, inside_lan: None
    ) -> None:
        # miniupnpd answers all targets but one: 40 datagrams, each with a chance of a half, are as good as certain.
        lab.drop_ssdp(30)
        found = [await find(router, timeout=5.0) for _ in range(100)]
        assert sum(found) >= 96
