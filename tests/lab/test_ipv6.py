"""Finding the router over IPv6 and controlling it from there; the mappings are of IPv4 all the same."""

from __future__ import annotations

from ipaddress import ip_address
from socket import if_nametoindex

import pytest

from aioigd import IGDError, UPnPResult

from .network import EXTERNAL_ADDRESS, LAN_ADDRESS, LAN_ADDRESS6, ROUTER_ADDRESS, ROUTER_ADDRESS6, Lab, UpnpMapper
from .router import Mapping, Router


@pytest.fixture
def router6(lab6: Lab) -> Router:
    return lab6.start_router(ipv6=True)


@pytest.mark.parametrize("hop", ["global", "link-local"])
@pytest.mark.parametrize("proto", ["TCP", "UDP"])
async def test_a_router_found_over_ipv6_maps_ports(
    lab6: Lab, router6: Router, inside_lan6: None, hop: str, proto: str
) -> None:
    if hop == "link-local":
        lab6.set_default_route(lab6.link_local_address("router"), ipv6=True)
    async with UpnpMapper(ipv6=True) as mapper:
        assert await mapper.query_external_address() == ip_address(EXTERNAL_ADDRESS)
        mapping = await mapper.add_port_mapping(8081, 8080, proto=proto)  # type: ignore[arg-type]
        device = (await mapper.get_gateway()).device
    assert device.description_url.startswith("http://[")
    assert mapping.internal_client == LAN_ADDRESS
    assert router6.mappings() == [Mapping(proto, 8081, LAN_ADDRESS, 8080)]
    with lab6.listen("lan", "TCP" if proto == "TCP" else "UDP", 8080):
        send = lab6.send_tcp if proto == "TCP" else lab6.send_udp
        assert send("wan", EXTERNAL_ADDRESS, 8081, b"hello") == b"lan: hello"


async def test_it_is_controlled_over_ipv4_because_secure_mode_maps_only_for_the_address_that_asks(
    router6: Router, inside_lan6: None
) -> None:
    async with UpnpMapper(ipv6=True) as mapper:
        device = (await mapper.get_gateway()).device
    assert device.description_url == f"http://[{ROUTER_ADDRESS6}]:{router6.port}/rootDesc.xml"
    assert device.igd_control_url.startswith(f"http://{ROUTER_ADDRESS}:{router6.port}/")
    assert device.igd_our_addr == LAN_ADDRESS


class TestLinkLocal:
    """Without an IPv4 route to the router there is only the address that has answered, and its zone."""

    @pytest.fixture(autouse=True)
    def no_other_way(self, lab6: Lab) -> None:
        lab6.set_default_route(None)
        lab6.set_default_route(lab6.link_local_address("router"), ipv6=True)

    async def test_the_router_is_asked_at_its_zone(self, lab6: Lab, router6: Router, inside_lan6: None) -> None:
        async with UpnpMapper(ipv6=True) as mapper:
            assert await mapper.query_external_address() == ip_address(EXTERNAL_ADDRESS)
            device = (await mapper.get_gateway()).device
        zone = if_nametoindex("lan0")
        there = f"http://[{lab6.link_local_address('router')}%{zone}]:{router6.port}"
        assert device.description_url == f"{there}/rootDesc.xml"
        assert device.igd_control_url.startswith(there)
        assert device.igd_our_addr == lab6.link_local_address("lan")

    async def test_a_router_that_is_not_in_secure_mode_maps(self, lab6: Lab, inside_lan6: None) -> None:
        router = lab6.start_router(ipv6=True, secure=False)
        async with UpnpMapper(ipv6=True) as mapper:
            await mapper.add_port_mapping(8080, proto="TCP", internal_client=LAN_ADDRESS)
        assert router.mappings() == [Mapping("TCP", 8080, LAN_ADDRESS, 8080)]

    async def test_secure_mode_is_an_error_with_the_routers_code(self, router6: Router, inside_lan6: None) -> None:
        async with UpnpMapper(ipv6=True) as mapper:
            with pytest.raises(IGDError) as caught:
                await mapper.add_port_mapping(8080, proto="TCP", internal_client=LAN_ADDRESS)
        assert (caught.value.result, caught.value.error_code) == (UPnPResult.CONFLICT_WITH_OTHER_MAPPING, 718)

    async def test_without_an_ipv4_address_to_map_to_it_says_so(self, router6: Router, inside_lan6: None) -> None:
        async with UpnpMapper(ipv6=True) as mapper:
            with pytest.raises(IGDError, match="no route") as caught:
                await mapper.add_port_mapping(8080, proto="TCP")
        assert caught.value.result is UPnPResult.SOCKET_ERROR

    async def test_the_found_description_is_a_location(self, router6: Router, inside_lan6: None) -> None:
        async with UpnpMapper(ipv6=True) as mapper:
            location = (await mapper.get_gateway()).device.description_url
        async with UpnpMapper(location=location) as mapper:
            assert await mapper.query_external_address() == ip_address(EXTERNAL_ADDRESS)


@pytest.mark.parametrize("scope", ["global", "link-local"])
async def test_a_search_can_start_from_one_address(lab6: Lab, router6: Router, inside_lan6: None, scope: str) -> None:
    source = LAN_ADDRESS6 if scope == "global" else lab6.link_local_address("lan")
    async with UpnpMapper(ipv6=True, source_address=source) as mapper:
        await mapper.add_port_mapping(8080, proto="TCP")
    assert router6.mappings() == [Mapping("TCP", 8080, LAN_ADDRESS, 8080)]


async def test_without_a_default_route_the_router_that_answers_is_taken(
    lab6: Lab, router6: Router, inside_lan6: None
) -> None:
    lab6.set_default_route(None, ipv6=True)
    async with UpnpMapper(ipv6=True) as mapper:
        assert await mapper.query_external_address() == ip_address(EXTERNAL_ADDRESS)


async def test_a_location_may_be_at_an_ipv6_address(router6: Router, inside_lan6: None) -> None:
    async with UpnpMapper(location=f"http://[{ROUTER_ADDRESS6}]:{router6.port}/rootDesc.xml") as mapper:
        assert await mapper.query_external_address() == ip_address(EXTERNAL_ADDRESS)


async def test_next_to_ipv6_a_search_over_ipv4_is_as_ever(router6: Router, inside_lan6: None) -> None:
    async with UpnpMapper() as mapper:
        assert (await mapper.get_gateway()).device.description_url == router6.location
