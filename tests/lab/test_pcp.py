"""Mappings by PCP and NAT-PMP on a real router, with real packets from the WAN side."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from typing import Literal

import pytest

from aioigd import ConflictError, PortMapping
from aioigd.core.backend import Backend, Hint, SearchScope
from aioigd.core.calls import Operation
from aioigd.core.finder import Finder
from aioigd.models import MappingKey, MappingRequest, Proto, Terms
from aioigd.pcp.driver import PcpDriver

from .network import EXTERNAL_ADDRESS, LAN_ADDRESS, NEIGHBOUR_ADDRESS, ROUTER_ADDRESS, Lab, Protocol
from .router import Mapping, Router

Name = Literal["pcp", "nat-pmp"]
by_both = pytest.mark.parametrize("protocol", ["pcp", "nat-pmp"])
WEEK = 604_800


async def connected(protocol: Name) -> tuple[PcpDriver, Backend]:
    """Find the router, as the next hop of the default route."""
    scope = SearchScope()
    driver = PcpDriver(protocol, scope, secret=b"a test")
    device, _ = await Finder([driver], scope).find_gateway(5.0)
    backend = driver.connect(device)
    assert backend is not None
    return driver, backend


async def add(
    backend: Backend, port: int, internal_port: int, proto: Proto = "TCP", duration: int = 3600
) -> PortMapping:
    request = MappingRequest(MappingKey(port, proto), internal_port, "", Terms("", duration))
    return await backend.add(Operation(10.0), request, overwrite=True, verify=False)


@by_both
@pytest.mark.parametrize("proto", ["TCP", "UDP"])
async def test_a_mapping_lets_packets_in_until_it_is_deleted(
    lab: Lab, router: Router, inside_lan: None, protocol: Name, proto: Protocol
) -> None:
    _, backend = await connected(protocol)
    assert (backend.address, backend.internal_client) == (ROUTER_ADDRESS, LAN_ADDRESS)
    send = lab.send_tcp if proto == "TCP" else lab.send_udp
    with lab.listen("lan", proto, 8080):
        mapping = await add(backend, 8081, 8080, proto, duration=0)
        assert mapping == PortMapping(8081, 8080, LAN_ADDRESS, proto, "", 86_400 if protocol == "pcp" else WEEK)
        await asyncio.sleep(1)  # a mapping whose end is in the past would be gone by now
        assert send("wan", EXTERNAL_ADDRESS, 8081, b"hello") == b"lan: hello"
        await backend.delete(Operation(10.0), mapping.key)
        assert router.mappings() == []
    assert await backend.external_address(Operation(10.0)) == IPv4Address(EXTERNAL_ADDRESS)
    assert router.mappings() == []


@by_both
async def test_the_port_of_another_host_is_a_conflict(
    lab: Lab, router: Router, inside_lan: None, protocol: Name
) -> None:
    with lab.inside("neighbour"):
        _, theirs = await connected(protocol)
        await add(theirs, 8080, 80)
    _, ours = await connected(protocol)
    with pytest.raises(ConflictError):
        await add(ours, 8080, 80)
    assert router.mappings() == [Mapping("TCP", 8080, NEIGHBOUR_ADDRESS, 80)]


@by_both
async def test_a_program_that_was_started_anew_has_its_mapping_again(
    router: Router, inside_lan: None, protocol: Name
) -> None:
    for _ in range(2):
        _, backend = await connected(protocol)
        await add(backend, 8080, 8080)
    assert router.mappings() == [Mapping("TCP", 8080, LAN_ADDRESS, 8080)]
    _, backend = await connected(protocol)
    await backend.delete(Operation(10.0), MappingKey(8080, "TCP"))
    assert router.mappings() == []


@by_both
async def test_a_restart_is_announced_and_the_port_is_had_again(
    router: Router, inside_lan: None, protocol: Name
) -> None:
    driver, backend = await connected(protocol)
    hints: list[Hint] = []
    listener = await driver.listen(hints.append)
    listener.follow(backend, resubscribe=False)
    try:
        await add(backend, 8080, 80)
        router.restart(lose_leases=True)
        async with asyncio.timeout(10):
            while Hint.RESTARTED not in hints:  # noqa: ASYNC110 (the list tells nobody that it grows)
                await asyncio.sleep(0.05)
        await add(backend, 8080, 80)
        assert router.mappings() == [Mapping("TCP", 8080, LAN_ADDRESS, 80)]
    finally:
        await listener.close()


@by_both
async def test_two_hundred_at_once(router: Router, inside_lan: None, protocol: Name) -> None:
    _, backend = await connected(protocol)
    await asyncio.gather(*(add(backend, port, port) for port in range(10_000, 10_200)))
    assert sorted(each.external_port for each in router.mappings()) == list(range(10_000, 10_200))
