"""What the mapper and the gateway promise of a mapping, on a real router with real packets."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from aioigd import IGDError, PortMapping, UPnPResult
from aioigd.upnp.fallback import WEEK

from .network import (
    EXTERNAL_ADDRESS,
    LAN_ADDRESS,
    NEIGHBOUR_ADDRESS,
    WAN_ADDRESS,
    Lab,
    Protocol,
    UpnpMapper,
)
from .peers import upnpc
from .router import Mapping, Router


class TestTraffic:
    @pytest.mark.parametrize("proto", ["TCP", "UDP"])
    async def test_a_mapping_lets_packets_in_until_it_is_deleted(
        self, lab: Lab, router: Router, inside_lan: None, proto: Protocol
    ) -> None:
        send = lab.send_tcp if proto == "TCP" else lab.send_udp
        async with UpnpMapper() as mapper:
            with lab.listen("lan", proto, 8080):
                mapping = await mapper.add_port_mapping(8081, 8080, "a test", proto)
                assert mapping == PortMapping(8081, 8080, LAN_ADDRESS, proto, "a test", WEEK)
                assert send("wan", EXTERNAL_ADDRESS, 8081, b"hello") == b"lan: hello"
                assert f"8081->{LAN_ADDRESS}:8080  'a test'" in upnpc(lab, router, "-l")

                await mapper.delete_port_mapping(8081, proto)
                assert router.mappings() == []
                assert "8081" not in upnpc(lab, router, "-l")
                with pytest.raises(ConnectionRefusedError):
                    send("wan", EXTERNAL_ADDRESS, 8081, b"hello")

    async def test_the_defaults_are_udp_and_the_same_port(self, lab: Lab, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            with lab.listen("lan", "UDP", 8080):
                await mapper.add_port_mapping(8080)
                assert lab.send_udp("wan", EXTERNAL_ADDRESS, 8080, b"hello") == b"lan: hello"

    async def test_a_mapping_outlives_its_mapper(self, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            await mapper.add_port_mapping(8080, proto="TCP")
        assert router.mappings() == [Mapping("TCP", 8080, LAN_ADDRESS, 8080)]

    async def test_a_remote_host_lets_in_only_that_host(self, lab: Lab, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            with lab.listen("lan", "TCP", 8080):
                await mapper.add_port_mapping(8081, 8080, proto="TCP", remote_host=WAN_ADDRESS)
                await mapper.add_port_mapping(8082, 8080, proto="TCP", remote_host="44.0.0.77")
                assert lab.send_tcp("wan", EXTERNAL_ADDRESS, 8081, b"hello") == b"lan: hello"
                with pytest.raises(OSError, match="refused"):
                    lab.send_tcp("wan", EXTERNAL_ADDRESS, 8082, b"hello")
            await mapper.delete_port_mapping(8081, "TCP", remote_host=WAN_ADDRESS)
            assert router.mappings() == [Mapping("TCP", 8082, LAN_ADDRESS, 8080, "44.0.0.77")]

    async def test_this_router_deletes_what_is_not_there_without_a_word(self, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            await mapper.delete_port_mapping(8080, "TCP")
        assert router.asked("DeletePortMapping") == 1


class TestVersions:
    @pytest.mark.parametrize(("igd_v1", "version"), [(True, 1), (False, 2)], ids=["v1", "v2"])
    async def test_the_service_is_asked_in_its_own_version(
        self, lab: Lab, inside_lan: None, igd_v1: bool, version: int
    ) -> None:
        router = lab.start_router(igd_v1=igd_v1)
        async with UpnpMapper() as mapper:
            await mapper.add_port_mapping(8080, proto="TCP", desc="ünïcode & <markup>")
            gateway = await mapper.get_gateway()
            assert await mapper.query_external_address() == ip_address(EXTERNAL_ADDRESS)
            held = await mapper.add_port_mapping(8080, proto="TCP", desc="ünïcode & <markup>", verify=True)
            await mapper.delete_port_mapping(8080, "TCP")
        assert gateway.device.igd_service_type == f"urn:schemas-upnp-org:service:WANIPConnection:{version}"
        assert held.desc == "ünïcode & <markup>"
        assert router.mappings() == []

    async def test_verifying_tells_that_a_permanent_lease_is_a_week(self, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            assert (await mapper.add_port_mapping(8080)).duration == WEEK
            assert WEEK - 60 < (await mapper.add_port_mapping(8080, verify=True)).duration <= WEEK

    async def test_a_duration_is_the_lease_that_the_router_counts_down(
        self, lab: Lab, router: Router, inside_lan: None
    ) -> None:
        async with UpnpMapper() as mapper:
            assert (await mapper.add_port_mapping(8080, duration=3600)).duration == 3600
            held = await mapper.add_port_mapping(8080, duration=1200, verify=True)
        assert 1100 < held.duration <= 1200


class TestOverwriting:
    async def test_the_mapper_overwrites_a_mapping_of_ours(self, lab: Lab, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            await mapper.add_port_mapping(8081, 8080, "one", "TCP")
            await mapper.add_port_mapping(8081, 9090, "two", "TCP")
            assert router.mappings() == [Mapping("TCP", 8081, LAN_ADDRESS, 9090)]
            assert "'two'" in upnpc(lab, router, "-l")

    async def test_the_mapper_overwrites_what_another_program_on_this_host_made(
        self, lab: Lab, router: Router, inside_lan: None
    ) -> None:
        upnpc(lab, router, "-a", LAN_ADDRESS, "8080", "8081", "TCP")
        async with UpnpMapper() as mapper:
            await mapper.add_port_mapping(8081, 9090, proto="TCP")
        assert router.mappings() == [Mapping("TCP", 8081, LAN_ADDRESS, 9090)]

    async def test_the_gateway_never_replaces_a_mapping(self, lab: Lab, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            await mapper.add_port_mapping(8081, 8080, "one", "TCP")
            gateway = await mapper.get_gateway()
            with pytest.raises(IGDError) as caught:
                await gateway.add_port_mapping(8081, 9090, "two", "TCP")
            assert caught.value.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING
            assert [attempt.action for attempt in caught.value.attempts] == ["GetSpecificPortMappingEntry"]
            assert router.mappings() == [Mapping("TCP", 8081, LAN_ADDRESS, 8080)]
            assert "'one'" in upnpc(lab, router, "-l")

    async def test_the_gateway_refreshes_the_same_mapping(self, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            await gateway.add_port_mapping(8081, 8080, proto="TCP", duration=600)
            held = await gateway.add_port_mapping(8081, 8080, proto="TCP", duration=3600, verify=True)
        assert 600 < held.duration <= 3600

    async def test_the_gateway_leaves_another_hosts_mapping(self, lab: Lab, inside_lan: None) -> None:
        router = lab.start_router(secure=False)
        upnpc(lab, router, "-a", NEIGHBOUR_ADDRESS, "8080", "8081", "TCP", place="neighbour")
        async with UpnpMapper() as mapper:
            gateway = await mapper.get_gateway()
            with pytest.raises(IGDError) as caught:
                await gateway.add_port_mapping(8081, 8080, proto="TCP")
        assert caught.value.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING
        assert router.mappings() == [Mapping("TCP", 8081, NEIGHBOUR_ADDRESS, 8080)]

    @pytest.mark.parametrize("igd_v1", [True, False], ids=["v1", "v2"])
    async def test_another_hosts_mapping_is_overwritten_where_the_router_lets_us(
        self, lab: Lab, inside_lan: None, igd_v1: bool
    ) -> None:
        router = lab.start_router(secure=False, igd_v1=igd_v1)
        upnpc(lab, router, "-a", NEIGHBOUR_ADDRESS, "8080", "8081", "TCP", place="neighbour")
        async with UpnpMapper() as mapper:
            with lab.listen("lan", "TCP", 8080):
                await mapper.add_port_mapping(8081, 8080, proto="TCP")
                assert lab.send_tcp("wan", EXTERNAL_ADDRESS, 8081, b"hello") == b"lan: hello"
        assert router.mappings() == [Mapping("TCP", 8081, LAN_ADDRESS, 8080)]

    @pytest.mark.parametrize("igd_v1", [True, False], ids=["v1", "v2"])
    async def test_a_router_in_secure_mode_keeps_another_hosts_mapping(
        self, lab: Lab, inside_lan: None, igd_v1: bool
    ) -> None:
        router = lab.start_router(igd_v1=igd_v1)
        upnpc(lab, router, "-a", NEIGHBOUR_ADDRESS, "8080", "8081", "TCP", place="neighbour")
        async with UpnpMapper() as mapper:
            with pytest.raises(IGDError) as caught:
                await mapper.add_port_mapping(8081, 8080, proto="TCP")
        assert (caught.value.result, caught.value.error_code) == (UPnPResult.CONFLICT_WITH_OTHER_MAPPING, 718)
        assert [(attempt.action, attempt.error_code) for attempt in caught.value.attempts] == [
            ("AddPortMapping", 718),
            ("GetSpecificPortMappingEntry", None),
            ("DeletePortMapping", 606),
            ("AddPortMapping", 718),  # once more with another description, which some routers compare
        ]
        assert caught.value.attempts[3].arguments["NewPortMappingDescription"] == "aioigd TCP 8081"
        assert router.mappings() == [Mapping("TCP", 8081, NEIGHBOUR_ADDRESS, 8080)]

    @pytest.mark.parametrize("igd_v1", [True, False], ids=["v1", "v2"])
    async def test_a_router_in_secure_mode_maps_for_nobody_else(self, lab: Lab, inside_lan: None, igd_v1: bool) -> None:
        router = lab.start_router(igd_v1=igd_v1)
        async with UpnpMapper() as mapper:
            with pytest.raises(IGDError) as caught:
                await mapper.add_port_mapping(8081, 8080, proto="TCP", internal_client=NEIGHBOUR_ADDRESS)
        assert (caught.value.result, caught.value.error_code) == (UPnPResult.CONFLICT_WITH_OTHER_MAPPING, 718)
        assert router.mappings() == []

    @pytest.mark.parametrize("igd_v1", [True, False], ids=["v1", "v2"])
    async def test_a_refused_mapping_for_another_host_leaves_ours(
        self, lab: Lab, inside_lan: None, igd_v1: bool
    ) -> None:
        router = lab.start_router(igd_v1=igd_v1)
        async with UpnpMapper() as mapper:
            await mapper.add_port_mapping(8080, 9090, "my server", "TCP", 600)
            with pytest.raises(IGDError) as caught:
                await mapper.add_port_mapping(8080, proto="TCP", internal_client=NEIGHBOUR_ADDRESS)
            assert caught.value.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING
            assert router.mappings() == [Mapping("TCP", 8080, LAN_ADDRESS, 9090)]
            held = await (await mapper.get_gateway()).query_port_mapping(8080, "TCP")
        assert held.desc == "my server"
        assert 580 < held.duration <= 600

    async def test_where_a_rule_denies_the_port_another_hosts_mapping_is_named_or_still_there(
        self, lab: Lab, inside_lan: None
    ) -> None:
        router = lab.start_router(secure=False, options=[f"deny 8081 {LAN_ADDRESS}/32 1-65535"])
        upnpc(lab, router, "-a", NEIGHBOUR_ADDRESS, "8080", "8081", "TCP", place="neighbour")
        async with UpnpMapper() as mapper:
            with pytest.raises(IGDError) as caught:
                await mapper.add_port_mapping(8081, 8080, proto="TCP")
        is_there = router.mappings() == [Mapping("TCP", 8081, NEIGHBOUR_ADDRESS, 8080)]
        assert is_there or f"{NEIGHBOUR_ADDRESS} port 8080" in str(caught.value)

    async def test_an_igd_2_makes_a_week_of_a_mapping_without_a_limit(self, lab: Lab, inside_lan: None) -> None:
        lab.start_router(igd_v1=False)
        async with UpnpMapper() as mapper:
            granted = await mapper.add_port_mapping(8081, 8080, proto="TCP")
            held = await (await mapper.get_gateway()).query_port_mapping(8081, "TCP")
        assert granted.duration == WEEK
        assert WEEK - 60 < held.duration <= WEEK

    async def test_a_deletion_can_be_verified(self, lab: Lab, inside_lan: None) -> None:
        router = lab.start_router()
        async with UpnpMapper() as mapper:
            await mapper.add_port_mapping(8081, 8080, proto="TCP")
            await mapper.delete_port_mapping(8081, "TCP", verify=True)
        assert router.mappings() == []
        assert router.asked("GetSpecificPortMappingEntry") == 1

    async def test_other_routers_map_for_any_host(self, lab: Lab, inside_lan: None) -> None:
        router = lab.start_router(secure=False)
        async with UpnpMapper() as mapper:
            await mapper.add_port_mapping(8081, 8080, proto="TCP", internal_client=NEIGHBOUR_ADDRESS)
        assert router.mappings() == [Mapping("TCP", 8081, NEIGHBOUR_ADDRESS, 8080)]
