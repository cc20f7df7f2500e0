"""What else a real router can be asked for, and holes in its IPv6 firewall that real packets pass."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from aioigd import FirewallStatus, IGDError, NatStatus, PortMapping, TrafficMeter, UPnPResult

from .network import (
    EXTERNAL_ADDRESS,
    LAN_ADDRESS,
    LAN_ADDRESS6,
    NEIGHBOUR_ADDRESS,
    NEIGHBOUR_ADDRESS6,
    Lab,
    Protocol,
    UpnpMapper,
)
from .peers import upnpc
from .router import Mapping, Router

FIRST = 20_000


@pytest.fixture
def router6(lab6: Lab) -> Router:
    return lab6.start_router(ipv6=True)


class TestTable:
    @pytest.mark.parametrize("igd_v1", [True, False], ids=["row by row", "in one piece"])
    async def test_sixty_mappings_are_listed(self, lab: Lab, inside_lan: None, igd_v1: bool) -> None:
        router = lab.start_router(igd_v1=igd_v1)
        async with UpnpMapper() as mapper:
            await asyncio.gather(
                *(
                    mapper.add_port_mapping(FIRST + number, 8080, "<a> & b", "TCP" if number % 2 else "UDP")
                    for number in range(60)
                )
            )
            gateway = await mapper.get_gateway()
            listed = [mapping async for mapping in gateway.query_port_mappings()]
        assert {(one.proto, one.external_port, one.internal_port, one.internal_client, one.desc) for one in listed} == {
            (one.proto, one.external_port, 8080, LAN_ADDRESS, "<a> & b") for one in router.mappings()
        }
        assert len(listed) == 60
        assert router.asked("GetListOfPortMappings") == (0 if igd_v1 else 2)

    async def test_an_empty_table_is_an_empty_list(self, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            assert [mapping async for mapping in gateway.query_port_mappings()] == []

    async def test_one_mapping_is_shown(self, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            await gateway.add_port_mapping(8081, 8080, "mine", "TCP")
            held = await gateway.query_port_mapping(8081, "TCP")
            assert (held.internal_client, held.internal_port, held.desc) == (LAN_ADDRESS, 8080, "mine")
            with pytest.raises(IGDError) as caught:
                await gateway.query_port_mapping(8082, "TCP")
        assert caught.value.result is UPnPResult.NO_SUCH_ENTRY_IN_ARRAY

    async def test_the_router_chooses_another_port_for_one_that_is_taken(
        self, lab: Lab, router: Router, inside_lan: None
    ) -> None:
        upnpc(lab, router, "-a", NEIGHBOUR_ADDRESS, "8080", "8081", "TCP", place="neighbour")
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            mapping = await gateway.add_any_port_mapping(8081, 8080, "any", "TCP")
            with lab.listen("lan", "TCP", 8080):
                assert lab.send_tcp("wan", EXTERNAL_ADDRESS, mapping.external_port, b"hello") == b"lan: hello"
        assert mapping.external_port != 8081
        assert Mapping("TCP", mapping.external_port, LAN_ADDRESS, 8080) in router.mappings()

    async def test_a_router_of_version_1_does_not_choose(self, lab: Lab, inside_lan: None) -> None:
        router = lab.start_router(igd_v1=True)
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            with pytest.raises(IGDError) as caught:
                await gateway.add_any_port_mapping(8081, 8080)
        assert caught.value.result is UPnPResult.INVALID_GATEWAY
        assert router.mappings() == []

    @pytest.mark.parametrize("igd_v1", [True, False], ids=["one by one", "at once"])
    async def test_a_range_is_deleted(self, lab: Lab, inside_lan: None, igd_v1: bool) -> None:
        router = lab.start_router(igd_v1=igd_v1)
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            await asyncio.gather(*(gateway.add_port_mapping(FIRST + number, proto="TCP") for number in range(6)))
            await gateway.add_port_mapping(FIRST, proto="UDP")
            await gateway.delete_port_mapping_range(FIRST + 1, FIRST + 4, "TCP")
            assert [(one.proto, one.external_port) for one in router.mappings()] == [
                ("TCP", FIRST),
                ("TCP", FIRST + 5),
                ("UDP", FIRST),
            ]
            with pytest.raises(IGDError) as caught:
                await gateway.delete_port_mapping_range(FIRST + 1, FIRST + 4, "TCP")
        assert caught.value.result in (UPnPResult.PORT_MAPPING_NOT_FOUND, UPnPResult.NO_SUCH_ENTRY_IN_ARRAY)


class TestLine:
    async def test_the_router_tells_of_its_connection(self, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            status = await gateway.query_status()
            assert status.is_connected
            assert status.last_error == "ERROR_NONE"
            assert status.uptime is not None
            assert (await gateway.query_connection_type()).current == "IP_Routed"
            assert await gateway.query_nat_status() == NatStatus(nat_enabled=True, rsip_available=False)
            link = await gateway.query_link_properties()
        assert link.is_up
        assert link.upstream_max_bit_rate > 0

    async def test_totals_move_when_bytes_flow(self, lab: Lab, router: Router, inside_lan: None) -> None:
        meter = TrafficMeter()
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            await gateway.add_port_mapping(8081, 8080, proto="TCP")
            meter.update(await gateway.query_traffic())
            with lab.listen("lan", "TCP", 8080):
                assert len(lab.send_tcp("wan", EXTERNAL_ADDRESS, 8081, b"x" * 100_000)) > 100_000
            await asyncio.sleep(1.1)  # the router reads its counters once a second
            rates = meter.update(await gateway.query_traffic())
        assert 100_000 < meter.bytes_received < 200_000
        assert 100_000 < meter.bytes_sent < 200_000
        assert rates.bytes_received == pytest.approx(meter.bytes_received / rates.seconds)
        assert rates.packets_received is not None
        assert rates.packets_received > 0


def arrives(lab: Lab, proto: Protocol) -> bool:
    send = lab.send_tcp if proto == "TCP" else lab.send_udp
    with suppress(OSError):
        return send("wan", LAN_ADDRESS6, 8080, b"hello", 0.3) == b"lan: hello"
    return False


@pytest.mark.parametrize("found", ["over IPv4", "over IPv6", "over IPv6, link-local"])
@pytest.mark.parametrize("proto", ["TCP", "UDP"])
async def test_a_pinhole_lets_packets_in_until_it_is_deleted(
    lab6: Lab, router6: Router, inside_lan6: None, proto: Protocol, found: str
) -> None:
    if found.endswith("link-local"):
        lab6.set_default_route(lab6.link_local_address("router"), ipv6=True)
    async with UpnpMapper(ipv6="IPv6" in found) as mapper:
        gateway = await mapper.get_gateway()
        with lab6.listen("lan", proto, 8080):
            assert not arrives(lab6, proto)
            pinhole = await gateway.add_pinhole(None, 8080, proto)
            assert pinhole.internal_client == LAN_ADDRESS6
            assert arrives(lab6, proto)
            assert await gateway.query_pinhole_packets(pinhole) > 0
            assert await gateway.query_pinhole_working(pinhole)
            await gateway.delete_pinhole(pinhole)
            assert not arrives(lab6, proto)
    assert router6.pinholes() == []


class TestPinholes:
    async def test_the_same_again_is_the_same_pinhole(self, router6: Router, inside_lan6: None) -> None:
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            first = await gateway.add_pinhole(LAN_ADDRESS6, 8080, "TCP", duration=600)
            second = await gateway.add_pinhole(LAN_ADDRESS6, 8080, "TCP", duration=1200)
            assert (second.unique_id, second.duration) == (first.unique_id, 1200)
            assert (await gateway.update_pinhole(first, 60)).duration == 60
            assert len(router6.pinholes()) == 1

    async def test_a_pinhole_may_be_for_one_host_and_port(self, lab6: Lab, router6: Router, inside_lan6: None) -> None:
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            await gateway.add_pinhole(LAN_ADDRESS6, 8080, "TCP", remote_host="2a01:44::99", remote_port=99)
            with lab6.listen("lan", "TCP", 8080):
                assert not arrives(lab6, "TCP")
        (rule,) = router6.pinholes()
        assert "-s 2a01:44::99/128" in rule
        assert "--sport 99" in rule

    async def test_nobody_knows_whether_it_works_before_a_packet_came(self, router6: Router, inside_lan6: None) -> None:
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            pinhole = await gateway.add_pinhole(None, 8080)
            with pytest.raises(IGDError) as caught:
                await gateway.query_pinhole_working(pinhole)
        assert (caught.value.result, caught.value.error_code) == (UPnPResult.UNKNOWN_ERROR, 709)

    async def test_what_is_gone_cannot_be_deleted_again(self, router6: Router, inside_lan6: None) -> None:
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            pinhole = await gateway.add_pinhole(None, 8080)
            await gateway.delete_pinhole(pinhole)
            for again in (gateway.delete_pinhole, gateway.update_pinhole):
                with pytest.raises(IGDError) as caught:
                    await again(pinhole)
                assert (caught.value.result, caught.value.error_code) == (UPnPResult.NO_SUCH_ENTRY_IN_ARRAY, 704)

    async def test_the_router_opens_nothing_for_others(self, router6: Router, inside_lan6: None) -> None:
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            with pytest.raises(IGDError) as caught:
                await gateway.add_pinhole(NEIGHBOUR_ADDRESS6, 8080, "TCP")
        assert (caught.value.result, caught.value.error_code) == (UPnPResult.NOT_AUTHORIZED, 606)
        assert router6.pinholes() == []

    async def test_the_firewall_tells_what_it_does(self, router6: Router, inside_lan6: None) -> None:
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            assert await gateway.query_firewall_status() == FirewallStatus(enabled=True, pinholes_allowed=True)
            with pytest.raises(IGDError) as caught:
                await gateway.query_outbound_pinhole_timeout(None, 8080, "TCP")
        assert caught.value.result is UPnPResult.ACTION_FAILED  # miniupnpd has the action, and no answer

    async def test_a_router_of_version_1_has_no_firewall(self, lab6: Lab, inside_lan6: None) -> None:
        lab6.start_router(ipv6=True, igd_v1=True)
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            with pytest.raises(IGDError) as caught:
                await gateway.add_pinhole(None, 8080)
        assert caught.value.result is UPnPResult.INVALID_GATEWAY

    async def test_without_ipv6_there_is_no_pinhole(self, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            with pytest.raises(IGDError) as caught:
                await gateway.add_pinhole(None, 8080)
        assert caught.value.result in (UPnPResult.SOCKET_ERROR, UPnPResult.INVALID_GATEWAY, UPnPResult.NO_DEVICES)

    async def test_a_router_that_is_silent_over_ipv6_is_not_waited_for_long(self, lab6: Lab, inside_lan6: None) -> None:
        lab6.start_router(ipv6=False)
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            loop = asyncio.get_running_loop()
            before = loop.time()
            with pytest.raises(IGDError) as caught:
                await gateway.add_pinhole(None, 8080)
        assert loop.time() - before < 4
        assert caught.value.result in (UPnPResult.NO_DEVICES, UPnPResult.INVALID_GATEWAY)

    async def test_a_gateway_that_restarted_is_found_again(self, router6: Router, inside_lan6: None) -> None:
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            await gateway.add_pinhole(None, 8080, "TCP")
            router6.restart(lose_leases=True)
            mapping = await mapper.add_port_mapping(8081, 8080, proto="TCP")
            assert mapping == PortMapping(8081, 8080, LAN_ADDRESS, "TCP", duration=604_800)  # IGD:2 knows no other
            gateway = await mapper.get_gateway()
            assert (await gateway.add_pinhole(None, 8080, "TCP")).internal_client == LAN_ADDRESS6
