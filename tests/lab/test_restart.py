"""The router, or this host, is no longer where it was: the call that notices goes on by itself."""

from __future__ import annotations

import asyncio
import logging

import pytest

from aioigd import IGDError, UPnPResult

from .network import LAN_ADDRESS, Lab, UpnpMapper
from .router import Mapping, Router

NEW_ADDRESS = "192.168.77.20"


def searches(caplog: pytest.LogCaptureFixture) -> int:
    """How many searches have ended with a gateway."""
    return sum(record.getMessage().startswith("gateway: ") for record in caplog.records)


@pytest.fixture(autouse=True)
def discovery_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aioigd.discovery")


@pytest.mark.parametrize("lose_leases", [False, True], ids=["leases kept", "leases lost"])
@pytest.mark.parametrize("crash", [False, True], ids=["byebye", "crash"])
async def test_after_a_restart_the_next_call_succeeds(
    router: Router, inside_lan: None, lose_leases: bool, crash: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with UpnpMapper() as mapper:
        await mapper.add_port_mapping(8080, proto="TCP")
        if crash:
            router.kill()
            if lose_leases:
                router.forget_mappings()
            router.start()
        else:
            router.restart(lose_leases=lose_leases)
        await mapper.add_port_mapping(8081, proto="TCP")
        assert (await mapper.get_gateway()).device.description_url == router.location
    expected = [Mapping("TCP", 8081, LAN_ADDRESS, 8081)]
    if not lose_leases:
        expected.insert(0, Mapping("TCP", 8080, LAN_ADDRESS, 8080))
    assert router.mappings() == expected
    assert searches(caplog) == 2


async def test_fifty_calls_at_once_after_a_restart_share_one_search(
    router: Router, inside_lan: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with UpnpMapper() as mapper:
        await mapper.get_gateway()
        router.restart()
        ports = range(20000, 20050)
        await asyncio.gather(*(mapper.add_port_mapping(port, proto="TCP") for port in ports))
    assert router.mappings() == [Mapping("TCP", port, LAN_ADDRESS, port) for port in ports]
    assert searches(caplog) == 2
    assert router.asked("/rootDesc.xml") == 1
    assert router.asked("AddPortMapping") == 50


async def test_a_restart_under_the_calls_loses_none_of_them(router: Router, inside_lan: None) -> None:
    ports = range(20000, 20100)
    async with UpnpMapper() as mapper:
        await mapper.get_gateway()
        calls = [asyncio.ensure_future(mapper.add_port_mapping(port, proto="TCP")) for port in ports]
        await router.until_asked("AddPortMapping", 20)
        router.stop()
        await asyncio.sleep(0.1)
        await asyncio.to_thread(router.start)
        await asyncio.gather(*calls)
    assert router.mappings() == [Mapping("TCP", port, LAN_ADDRESS, port) for port in ports]


@pytest.mark.parametrize("call", ["delete", "query"])
async def test_every_call_finds_the_router_again(router: Router, inside_lan: None, call: str) -> None:
    async with UpnpMapper() as mapper:
        await mapper.add_port_mapping(8080, proto="TCP")
        router.restart()
        if call == "delete":
            await mapper.delete_port_mapping(8080, "TCP")
            assert router.mappings() == []
        else:
            assert str(await mapper.query_external_address()) == "44.0.0.1"


async def test_a_gateway_is_that_gateway_and_does_not_move(router: Router, inside_lan: None) -> None:
    async with UpnpMapper() as mapper:
        gateway = await mapper.get_gateway()
        router.restart()
        with pytest.raises(IGDError) as caught:
            await gateway.add_port_mapping(8080, proto="TCP")
        assert caught.value.result is UPnPResult.SOCKET_ERROR


async def test_a_router_that_does_not_come_back_is_a_socket_error_with_all_attempts(
    router: Router, inside_lan: None
) -> None:
    async with UpnpMapper(timeout=2, discovery_timeout=0.5) as mapper:
        await mapper.get_gateway()
        router.stop()
        with pytest.raises(IGDError) as caught:
            await mapper.add_port_mapping(8080, proto="TCP")
    assert caught.value.result is UPnPResult.SOCKET_ERROR
    assert {attempt.action for attempt in caught.value.attempts} == {"AddPortMapping"}


async def test_after_this_host_has_got_another_address_the_mapping_is_for_the_new_one(
    lab: Lab, router: Router, inside_lan: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with UpnpMapper() as mapper:
        await mapper.add_port_mapping(8080, proto="TCP")
        lab.set_lan_address(NEW_ADDRESS)
        mapping = await mapper.add_port_mapping(8081, proto="TCP")
        assert (await mapper.get_gateway()).device.igd_our_addr == NEW_ADDRESS
    assert mapping.internal_client == NEW_ADDRESS
    assert router.mappings() == [
        Mapping("TCP", 8080, LAN_ADDRESS, 8080),
        Mapping("TCP", 8081, NEW_ADDRESS, 8081),
    ]
    assert searches(caplog) == 2
