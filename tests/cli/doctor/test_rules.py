"""Each rule: the advice that follows from findings."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from aioigd import Device, IGDStatus, UPnPResult
from aioigd.cli.doctor.rules import Advice, Findings, Link, Severity, Trial, diagnose

LAN = Link("eth0", "192.168.1.20")
VPN = Link("tun0", "10.8.0.2", "vpn")
DOCKER = Link("docker0", "172.17.0.1", "virtual")
BOX = Device(
    description_url="http://192.168.1.1:5000/rootDesc.xml",
    service_type="urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    igd_our_addr="192.168.1.20",
    igd_status=IGDStatus.OK,
    friendly_name="Box",
    udn="uuid:box",
)
WELL = Findings(
    links=(LAN,),
    default_address="192.168.1.20",
    next_hops=frozenset({"192.168.1.1"}),
    devices=(BOX,),
    gateway=BOX,
    external_address=ip_address("93.184.216.34"),
    is_connected=True,
    mappings=3,
    trial=Trial(50000),
)
NOBODY = replace(WELL, devices=(), gateway=None, external_address=None, is_connected=None, mappings=None, trial=None)
OTHER = replace(BOX, description_url="http://192.168.1.2:80/d.xml", friendly_name="Other", udn="uuid:other")


def codes(findings: Findings) -> list[str]:
    return [each.code for each in diagnose(findings)]


def only(findings: Findings) -> Advice:
    (advice,) = diagnose(findings)
    return advice


class TestFromFindings:
    def test_where_all_is_well_there_is_nothing_to_say(self) -> None:
        assert diagnose(WELL) == []

    def test_no_network(self) -> None:
        assert codes(Findings()) == ["no-network"]

    def test_no_gateway_on_any_interface_names_them(self) -> None:
        advice = only(replace(NOBODY, links=(LAN, DOCKER), router_is_there=False))
        assert advice.code == "no-gateway"
        assert "eth0 (192.168.1.20) and docker0 (172.17.0.1)" in advice.why

    def test_no_gateway_and_no_default_route(self) -> None:
        advice = only(replace(NOBODY, next_hops=frozenset()))
        assert advice.code == "no-gateway"
        assert "no default route" in advice.why

    def test_upnp_is_off_where_the_router_is_there_and_silent(self) -> None:
        advice = only(replace(NOBODY, router_is_there=True))
        assert advice.code == "upnp-off"
        assert "http://192.168.1.1/" in advice.to_do[0]

    def test_upnp_is_off_where_the_router_answers_as_something_else(self) -> None:
        media = replace(BOX, igd_status=IGDStatus.NO_IGD, service_type="upnp:rootdevice", friendly_name="Films")
        advice = only(replace(NOBODY, devices=(media,), router_is_there=True))
        assert advice.code == "upnp-off"
        assert "Films" in advice.why

    def test_an_access_point_is_not_the_router(self) -> None:
        assert codes(replace(NOBODY, devices=(replace(BOX, igd_status=IGDStatus.NO_IGD),))) == ["no-wan"]

    def test_a_description_that_cannot_be_read(self) -> None:
        assert codes(replace(NOBODY, devices=(replace(BOX, igd_status=IGDStatus.HTTP_ERROR),))) == [
            "description-unreadable"
        ]

    def test_several_gateways_are_named_with_the_way_to_choose(self) -> None:
        advice = only(replace(WELL, devices=(BOX, OTHER)))
        assert advice.code == "several-gateways"
        assert "Box at 192.168.1.1" in advice.why
        assert "Other at 192.168.1.2" in advice.why
        assert "--location http://192.168.1.2:80/d.xml" in advice.to_do[0]

    def test_one_gateway_with_two_descriptions_is_one(self) -> None:
        twin = replace(BOX, description_url="http://192.168.1.1:5001/d.xml")
        assert codes(replace(WELL, devices=(BOX, twin))) == []

    @pytest.mark.parametrize("address", ["192.168.2.17", "10.0.0.5", "172.20.1.1"])
    def test_double_nat_shows_the_address_and_where_the_other_router_is(self, address: str) -> None:
        advice = only(replace(WELL, external_address=ip_address(address)))
        assert advice.code == "double-nat"
        assert address in advice.why
        assert f"http://{address.rpartition('.')[0]}.1/" in advice.to_do[0]

    @pytest.mark.parametrize("address", ["100.64.0.1", "100.127.255.254"])
    def test_carrier_grade_nat_shows_the_address(self, address: str) -> None:
        advice = only(replace(WELL, external_address=ip_address(address)))
        assert advice.code == "cgnat"
        assert address in advice.why

    @pytest.mark.parametrize("address", ["100.63.255.255", "100.128.0.1"])
    def test_addresses_beside_the_shared_range_are_fine(self, address: str) -> None:
        assert codes(replace(WELL, external_address=ip_address(address))) == []

    def test_no_external_address(self) -> None:
        assert codes(replace(WELL, external_address=None)) == ["no-address"]

    def test_no_connection(self) -> None:
        assert codes(replace(WELL, external_address=None, is_connected=False)) == ["offline"]

    def test_a_router_that_denies_its_connection_but_has_an_address_is_believed_the_latter(self) -> None:
        assert codes(replace(WELL, is_connected=False)) == []

    def test_a_vpn_takes_the_traffic(self) -> None:
        advice = only(replace(WELL, links=(LAN, VPN), default_address=VPN.address, next_hops=frozenset({"10.8.0.1"})))
        assert advice.code == "vpn"
        assert "tun0 (10.8.0.2)" in advice.why
        assert any("--interface eth0" in each for each in advice.to_do)

    def test_the_wrong_interface_was_chosen(self) -> None:
        advice = only(replace(NOBODY, links=(LAN, DOCKER), asked_for=DOCKER.address, devices=(BOX,)))
        assert advice.code == "wrong-interface"
        assert "docker0 (172.17.0.1), which is a virtual network" in advice.why
        assert "--interface eth0" in advice.to_do[0]

    def test_a_container_has_a_network_of_its_own(self) -> None:
        advice = only(replace(NOBODY, links=(Link("eth0", "172.17.0.2"),), in_container=True))
        assert advice.code == "container"
        assert "--network host" in advice.to_do[0]

    def test_a_container_that_asks_the_router_of_the_host_is_out_of_its_reach(self) -> None:
        box = replace(BOX, igd_our_addr="172.17.0.2")
        inside = replace(
            WELL,
            links=(Link("eth0", "172.17.0.2", prefix=16),),
            default_address="172.17.0.2",
            next_hops=frozenset({"172.17.0.1"}),
            devices=(box,),
            gateway=box,
            in_container=True,
        )
        worst = diagnose(inside)[0]
        assert (worst.code, worst.severity) == ("other-network", Severity.PROBLEM)
        assert "eth0 (172.17.0.2)" in worst.why
        assert "192.168.1.1, outside 172.17.0.0/16" in worst.why
        assert "--network host" in worst.to_do[0]
        # Nobody can tell from a routed network that it is none.
        assert ("other-network", Severity.WARNING) in [
            (each.code, each.severity) for each in diagnose(replace(inside, in_container=False))
        ]

    @pytest.mark.parametrize(
        ("address", "prefix", "host"),
        [
            ("192.168.1.20", 24, "192.168.1.1"),
            ("192.168.1.20", 0, "10.0.0.1"),
            ("192.168.1.20", 24, "box.example"),
            ("192.168.1.20", 24, "[fe80::1]"),
        ],
    )
    def test_a_router_in_the_same_network_is_within_reach_and_so_is_one_of_which_nothing_is_known(
        self, address: str, prefix: int, host: str
    ) -> None:
        box = replace(BOX, description_url=f"http://{host}:5000/d.xml")
        found = replace(WELL, links=(Link("eth0", address, prefix=prefix),), devices=(box,), gateway=box)
        assert "other-network" not in codes(found)

    def test_a_container_in_which_a_gateway_answers_is_fine(self) -> None:
        assert codes(replace(WELL, in_container=True)) == []

    def test_a_gateway_that_is_not_the_router(self) -> None:
        assert codes(replace(WELL, next_hops=frozenset({"192.168.1.254"}))) == ["not-the-router"]

    def test_a_firewall_that_drops_multicast(self) -> None:
        advice = only(replace(WELL, unicast_only=True))
        assert advice.code == "multicast-dropped"
        assert advice.severity is Severity.WARNING

    def test_a_router_that_refuses_is_quoted(self) -> None:
        trial = Trial(50000, UPnPResult.NOT_AUTHORIZED, 606, "Action not authorized")
        advice = only(replace(WELL, trial=trial))
        assert advice.code == "refused"
        assert "Action not authorized (NOT_AUTHORIZED, error 606)" in advice.why

    @pytest.mark.parametrize(
        ("result", "mappings"),
        [
            (UPnPResult.NO_PORT_MAPS_AVAILABLE, 3),
            (UPnPResult.NO_PORT_MAPS_AVAILABLE, None),
            (UPnPResult.INVALID_ARGS, 32),
            (UPnPResult.ACTION_FAILED, 32),
        ],
    )
    def test_a_full_table(self, result: UPnPResult, mappings: int | None) -> None:
        assert codes(replace(WELL, trial=Trial(50000, result), mappings=mappings)) == ["table-full"]

    def test_a_vague_refusal_with_an_empty_table_is_a_refusal(self) -> None:
        assert codes(replace(WELL, trial=Trial(50000, UPnPResult.ACTION_FAILED), mappings=2)) == ["refused"]

    def test_a_yes_that_is_a_no(self) -> None:
        assert codes(replace(WELL, trial=Trial(50000, was_there=False))) == ["false-success"]

    def test_a_yes_that_is_a_no_because_the_table_is_full(self) -> None:
        assert codes(replace(WELL, trial=Trial(50000, was_there=False), mappings=32)) == ["table-full"]

    def test_a_router_that_breaks(self) -> None:
        assert codes(replace(WELL, trial=Trial(50000, UPnPResult.HTTP_ERROR))) == ["router-broken"]

    def test_particular_routers_are_worth_a_note(self) -> None:
        trial = Trial(50000, asked_duration=120, duration=0, asked_desc="aioigd doctor", desc="aioigd")
        advice = diagnose(replace(WELL, trial=trial))
        assert [each.code for each in advice] == ["no-leases", "descriptions"]
        assert {each.severity for each in advice} == {Severity.NOTE}

    def test_the_worst_comes_first(self) -> None:
        found = replace(WELL, devices=(BOX, OTHER), external_address=ip_address("10.1.1.1"))
        assert [each.severity for each in diagnose(found)] == [Severity.PROBLEM, Severity.WARNING]

    def test_every_advice_says_what_to_do(self) -> None:
        for findings in (WELL, NOBODY, Findings(), replace(WELL, devices=(BOX, OTHER), unicast_only=True)):
            assert all(each.why and each.to_do and each.title[-1] != "." for each in diagnose(findings))
