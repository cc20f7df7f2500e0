"""One mapper, three protocols, on a real router that speaks all of them, with real packets from the WAN side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address

import pytest

from aioigd import ConflictError, DiscoveryError, PortMapper, UPnPResult
from aioigd.results import ProtocolName

from .network import (
    EXTERNAL_ADDRESS,
    LAN_ADDRESS,
    NEIGHBOUR_ADDRESS,
    ROUTER_ADDRESS,
    WAN_ADDRESS,
    Lab,
    Protocol,
)
from .router import Mapping, Router

FAST: Sequence[ProtocolName] = ("pcp", "nat-pmp", "upnp")
ALL: Sequence[ProtocolName] = ("upnp", "pcp", "nat-pmp")


async def check_mapping(lab: Lab, router: Router, mapper: PortMapper, used: ProtocolName, proto: Protocol) -> None:
    """Map a port, send packets through it from the WAN side, and delete it."""
    send = lab.send_tcp if proto == "TCP" else lab.send_udp
    with lab.listen("lan", proto, 8080):
        mapping = await mapper.add_port_mapping(8081, 8080, proto=proto, duration=3600)
        assert (mapping.external_port, mapping.internal_client) == (8081, LAN_ADDRESS)
        assert (await mapper.get_gateway()).protocol == used
        assert send("wan", EXTERNAL_ADDRESS, 8081, b"hello") == b"lan: hello"
        assert await mapper.query_external_address() == IPv4Address(EXTERNAL_ADDRESS)
        await mapper.delete_port_mapping(8081, proto)
    assert router.mappings() == []


@pytest.mark.parametrize("proto", ["TCP", "UDP"])
@pytest.mark.parametrize(
    ("order", "used"),
    [
        (ALL, "upnp"),
        (FAST, "pcp"),
        (("nat-pmp", "pcp", "upnp"), "nat-pmp"),
        (("pcp",), "pcp"),
        (("nat-pmp",), "nat-pmp"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
async def test_packets_come_in_by_the_preferred_protocol(
    lab: Lab, router: Router, inside_lan: None, order: Sequence[ProtocolName], used: ProtocolName, proto: Protocol
) -> None:
    async with PortMapper(protocols=order) as mapper:
        await check_mapping(lab, router, mapper, used, proto)
    assert router.asked("/rootDesc.xml") == (1 if used == "upnp" else 0)


async def test_a_network_without_upnp_is_served(lab: Lab, router: Router, inside_lan: None) -> None:
    lab.drop_ssdp(100)
    async with PortMapper() as mapper:
        await check_mapping(lab, router, mapper, "pcp", "TCP")
        assert [device.protocol for device in mapper.devices] == ["pcp", "nat-pmp"]
    async with PortMapper(protocols=("upnp",), discovery_timeout=0.5) as mapper:
        with pytest.raises(DiscoveryError) as caught:
            await mapper.add_port_mapping(8081)
        assert caught.value.result is UPnPResult.NO_DEVICES


@pytest.mark.parametrize(("order", "used"), [(ALL, "upnp"), (FAST, "pcp")], ids=["default", "fast"])
async def test_a_router_that_was_named_needs_no_route_and_no_multicast(
    lab: Lab, router: Router, inside_lan: None, order: Sequence[ProtocolName], used: ProtocolName
) -> None:
    lab.run("lan", ["ip", "route", "delete", "239.0.0.0/8", "dev", "lan0"])
    lab.set_default_route(None)
    lab.run("lan", ["ip", "route", "add", f"{WAN_ADDRESS}/32", "via", ROUTER_ADDRESS])  # for the replies
    try:
        async with PortMapper(gateway=ROUTER_ADDRESS, protocols=order) as mapper:
            await check_mapping(lab, router, mapper, used, "TCP")
    finally:
        lab.run("lan", ["ip", "route", "delete", f"{WAN_ADDRESS}/32"])
        lab.run("lan", ["ip", "route", "add", "239.0.0.0/8", "dev", "lan0"])


async def test_discover_shows_the_router_by_each_protocol(router: Router, inside_lan: None) -> None:
    async with PortMapper() as mapper:
        found = await mapper.discover(1.0)
        assert [device.protocol for device in found if device.is_valid_gateway()] == ["upnp", "pcp", "nat-pmp"]
        assert {device.address for device in found if device.protocol != "upnp"} == {ROUTER_ADDRESS}
        assert (await mapper.get_gateway()).protocol == "upnp"


@pytest.mark.parametrize("overwrite", [True, False])
async def test_the_port_of_the_other_host_is_a_conflict(
    lab: Lab, router: Router, inside_lan: None, overwrite: bool
) -> None:
    with lab.inside("neighbour"):
        async with PortMapper(protocols=("pcp",)) as theirs:
            await theirs.add_port_mapping(8080, 80, proto="TCP")
    async with PortMapper(protocols=FAST) as mapper:
        with pytest.raises(ConflictError) as caught:
            await mapper.add_port_mapping(8080, proto="TCP", overwrite=overwrite)
        asked = {attempt.protocol for attempt in caught.value.attempts}
        assert ("upnp" in asked) is overwrite, "PCP cannot overwrite; UPnP may"
    assert router.mappings() == [Mapping("TCP", 8080, NEIGHBOUR_ADDRESS, 80)]


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp"])
async def test_a_lease_is_had_again_after_the_router_was_killed(
    lab: Lab, router: Router, inside_lan: None, protocol: ProtocolName
) -> None:
    with lab.listen("lan", "TCP", 8080):
        async with (
            PortMapper(protocols=(protocol,)) as mapper,
            mapper.lease(8081, 8080, proto="TCP", poll_interval=0.5) as lease,
        ):
            router.kill()
            router.forget_mappings()
            router.start()
            async with asyncio.timeout(20):
                while not router.mappings():  # noqa: ASYNC110 (the table tells nobody that it grows)
                    await asyncio.sleep(0.05)
            assert lab.send_tcp("wan", EXTERNAL_ADDRESS, 8081, b"hello") == b"lan: hello"
            assert lease.external_port == 8081
    assert router.mappings() == []


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp"])
async def test_two_hundred_at_once_by_a_mapper(router: Router, inside_lan: None, protocol: ProtocolName) -> None:
    async with PortMapper(protocols=(protocol,), timeout=60) as mapper:
        await asyncio.gather(*(mapper.add_port_mapping(port) for port in range(10_000, 10_200)))
    assert sorted(each.external_port for each in router.mappings()) == list(range(10_000, 10_200))
