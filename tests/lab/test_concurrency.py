"""Many calls at once on a real router: nothing is lost, and what is the same is asked once."""

from __future__ import annotations

import asyncio

import pytest

from aioigd import IGDError, UPnPResult

from .network import LAN_ADDRESS, Lab, UpnpMapper
from .router import Mapping, Router

FIRST = 20000


async def test_200_mappings_at_once_are_all_there(router: Router, inside_lan: None) -> None:
    ports = range(FIRST, FIRST + 200)
    async with UpnpMapper() as mapper:
        made = await asyncio.gather(*(mapper.add_port_mapping(port, proto="TCP") for port in ports))
    assert [mapping.external_port for mapping in made] == list(ports)
    assert router.mappings() == [Mapping("TCP", port, LAN_ADDRESS, port) for port in ports]
    assert router.asked("/rootDesc.xml") == 1
    assert router.asked("AddPortMapping") == 200


async def test_identical_mappings_at_once_are_one_request(router: Router, inside_lan: None) -> None:
    async with UpnpMapper() as mapper:
        made = await asyncio.gather(*(mapper.add_port_mapping(8080, proto="TCP") for _ in range(200)))
    assert set(made) == {made[0]}
    assert router.asked("/rootDesc.xml") == 1
    assert router.asked("AddPortMapping") == 1


async def test_different_mappings_of_one_port_are_made_in_the_order_of_the_calls(
    router: Router, inside_lan: None
) -> None:
    async with UpnpMapper() as mapper:
        inner = range(9000, 9010)
        await asyncio.gather(*(mapper.add_port_mapping(8080, port, proto="TCP") for port in inner))
        assert router.mappings() == [Mapping("TCP", 8080, LAN_ADDRESS, 9009)]
        await asyncio.gather(mapper.add_port_mapping(8080, 9000, proto="TCP"), mapper.delete_port_mapping(8080, "TCP"))
    assert router.mappings() == []


async def test_deleting_many_at_once_leaves_none(router: Router, inside_lan: None) -> None:
    async with UpnpMapper() as mapper:
        await asyncio.gather(*(mapper.add_port_mapping(port) for port in range(FIRST, FIRST + 20)))
        await asyncio.gather(*(mapper.delete_port_mapping(port) for port in range(FIRST, FIRST + 20)))
    assert router.mappings() == []


async def test_of_two_mappers_asking_the_gateway_at_once_only_one_gets_the_port(
    router: Router, inside_lan: None
) -> None:
    async with UpnpMapper() as one, UpnpMapper() as other:
        first, second = await one.get_gateway(), await other.get_gateway()
        await first.add_port_mapping(8080, 9000, proto="TCP")
        with pytest.raises(IGDError) as caught:
            await second.add_port_mapping(8080, 9001, proto="TCP")
    assert caught.value.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING
    assert router.mappings() == [Mapping("TCP", 8080, LAN_ADDRESS, 9000)]


async def test_a_router_that_serves_one_connection_at_a_time_gets_them_all(
    lab: Lab, router: Router, inside_lan: None
) -> None:
    lab.one_connection_at_a_time()
    ports = range(FIRST, FIRST + 100)
    async with UpnpMapper() as mapper:
        await asyncio.gather(*(mapper.add_port_mapping(port, proto="TCP") for port in ports))
    assert router.mappings() == [Mapping("TCP", port, LAN_ADDRESS, port) for port in ports]
