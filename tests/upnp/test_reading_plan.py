"""Shares and budgets of a search: what liars say costs little, and honest devices get their reading."""

from __future__ import annotations

import pytest

from aioigd.upnp.reading_plan import (
    GATEWAY_RESERVE,
    MAX_BYTES,
    MAX_DEVICES,
    MAX_KNOWN,
    MAX_QUESTIONS,
    MAX_READS,
    MAX_REREADS,
    PER_SENDER,
    ROUTER_REQUESTS,
    SHORT,
    KnownPaths,
    ReadingPlan,
    Standing,
    names_gateway,
)
from aioigd.upnp.wire.url import HttpUrl

ROUTER = "192.168.1.1"


def at(host: str, target: object = "/") -> HttpUrl:
    return HttpUrl(host, 80, f"/{target}.xml")


def admitted(plan: ReadingPlan, host: str, standing: Standing, number: int, **what: bool) -> int:
    """How many of so many descriptions of a host may be read."""
    return sum(plan.admit(at(host, f"{standing.name}{n}"), standing, **what) for n in range(number))


@pytest.mark.parametrize(
    ("text", "names_one"),
    [
        ("urn:schemas-upnp-org:device:InternetGatewayDevice:1", True),
        ("urn:dslforum-org:device:InternetGatewayDevice:1", True),
        ("uuid:x::urn:schemas-upnp-org:service:WANPPPConnection:1", True),
        ("urn:schemas-upnp-org:service:wanipconnection:2", True),
        ("urn:schemas-upnp-org:device:WANConnectionDevice:1", True),
        ("urn:schemas-upnp-org:service:Layer3Forwarding:1", True),
        ("upnp:rootdevice", False),
        ("urn:schemas-wifialliance-org:device:WFADevice:1", False),
        ("urn:schemas-upnp-org:device:MediaServer:1", False),
        ("InternetGatewayDevice", False),
        ("", False),
    ],
)
def test_what_names_a_gateway(text: str, names_one: bool) -> None:
    assert names_gateway("upnp:rootdevice", text) is names_one


def test_four_of_each_sender_and_four_more_of_those_that_name_a_gateway() -> None:
    plan = ReadingPlan()
    assert admitted(plan, "192.168.1.9", Standing.OTHER, 20) == PER_SENDER
    assert admitted(plan, "192.168.1.9", Standing.GATEWAY, 20) == PER_SENDER


def test_a_crowd_leaves_room_for_those_that_name_a_gateway() -> None:
    plan = ReadingPlan()
    assert sum(admitted(plan, f"192.168.1.{n}", Standing.OTHER, 1) for n in range(60)) == MAX_DEVICES
    assert sum(admitted(plan, f"192.168.2.{n}", Standing.GATEWAY, 1) for n in range(60)) == GATEWAY_RESERVE
    assert admitted(plan, ROUTER, Standing.ROUTER, 1, is_named=True) == 1


def test_four_in_the_routers_name_and_three_of_them_for_those_that_name_a_gateway() -> None:
    plan = ReadingPlan()
    assert admitted(plan, ROUTER, Standing.ROUTER, 20) == 1
    assert admitted(plan, ROUTER, Standing.ROUTER, 20, is_named=True) == 3
    assert admitted(plan, ROUTER, Standing.ROUTER, 20, is_late=True) == 0


def test_later_on_the_room_is_for_whoever_comes() -> None:
    plan = ReadingPlan()
    assert admitted(plan, ROUTER, Standing.ROUTER, 20) == 1
    assert sum(plan.admit(at(ROUTER, n), Standing.ROUTER, is_late=True) for n in range(20)) == PER_SENDER - 1


def test_what_was_forged_in_the_routers_name_takes_nothing_from_what_is_confirmed() -> None:
    plan = ReadingPlan()
    admitted(plan, ROUTER, Standing.ROUTER, 100, is_named=True)
    assert admitted(plan, ROUTER, Standing.CONFIRMED, 100) == ROUTER_REQUESTS


def test_a_query_is_sent_to_the_router_only_where_it_is_confirmed() -> None:
    plan = ReadingPlan()
    reboot = HttpUrl(ROUTER, 80, "/userRpm/SysRebootRpm.htm?Reboot=Reboot")
    assert not plan.admit(reboot, Standing.ROUTER, is_named=True)
    assert not plan.admit(reboot, Standing.ROUTER, is_named=True, is_late=True)
    assert plan.admit(reboot, Standing.CONFIRMED)


def test_what_is_no_description_gives_the_share_back_but_not_the_request() -> None:
    plan = ReadingPlan()
    read = 0
    for number in range(100):
        if plan.admit(at("192.168.1.9", number), Standing.OTHER):
            read += 1
            plan.failed(at("192.168.1.9", number), Standing.OTHER)
    assert read == 2 * PER_SENDER
    assert sum(admitted(plan, f"192.168.2.{n}", Standing.OTHER, 1) for n in range(60)) == MAX_DEVICES - read


def test_nothing_is_given_back_at_the_router() -> None:
    plan = ReadingPlan()
    for number in range(100):
        plan.admit(at(ROUTER, number), Standing.ROUTER, is_named=True)
        plan.failed(at(ROUTER, number), Standing.ROUTER)
    assert admitted(plan, ROUTER, Standing.ROUTER, 9, is_named=True) == 0


def test_each_is_read_three_times_and_all_others_together_eight_times_again() -> None:
    plan = ReadingPlan()
    again = 0
    for number in range(20):
        url = at(f"192.168.3.{number}")
        assert plan.admit(url, Standing.OTHER)
        again += sum(plan.read_again(url, Standing.OTHER) for _ in range(9))
    assert again == MAX_REREADS
    router = at(ROUTER)
    assert plan.admit(router, Standing.CONFIRMED)
    assert sum(plan.read_again(router, Standing.CONFIRMED) for _ in range(9)) == MAX_READS - 1


def test_the_bytes_of_others_leave_those_of_gateways_and_of_the_router() -> None:
    plan = ReadingPlan()
    document = 256 * 1024
    for standing in (Standing.OTHER, Standing.GATEWAY, Standing.ROUTER, Standing.CONFIRMED):
        assert sum(plan.take(document, standing) for _ in range(32)) == MAX_BYTES // document
        assert not plan.take(SHORT + 1, standing)
        assert plan.take(SHORT, standing), "no long ones keep a short one from being parsed"


def test_thirty_two_honest_devices_never_reach_the_bytes() -> None:
    plan = ReadingPlan()
    assert all(plan.take(16 * 1024, Standing.OTHER) for _ in range(MAX_DEVICES))


def test_services_elsewhere_are_asked_sixteen_times_and_those_of_the_router_always() -> None:
    plan = ReadingPlan()
    assert sum(plan.may_ask(Standing.GATEWAY) for _ in range(99)) == MAX_QUESTIONS
    assert all(plan.may_ask(Standing.ROUTER) for _ in range(99))


def test_on_loopback_one_address_has_no_share() -> None:
    plan = ReadingPlan(lambda host: host == "127.0.0.1")
    assert admitted(plan, "127.0.0.1", Standing.OTHER, 99) == MAX_DEVICES
    assert admitted(plan, "127.0.0.2", Standing.GATEWAY, 99) == PER_SENDER


def test_a_path_that_has_led_to_a_gateway_is_known_at_any_port_of_its_host() -> None:
    known = KnownPaths()
    known.note(HttpUrl(ROUTER, 5000, "/rootDesc.xml"))
    assert HttpUrl(ROUTER, 49152, "/rootDesc.xml") in known
    assert HttpUrl("192.168.1.2", 5000, "/rootDesc.xml") not in known
    assert HttpUrl(ROUTER, 5000, "/reboot") not in known


def test_only_the_latest_paths_are_known() -> None:
    known = KnownPaths()
    for number in range(MAX_KNOWN + 1):
        known.note(at(ROUTER, number))
    assert at(ROUTER, 0) not in known
    assert at(ROUTER, 1) in known


def test_the_paths_of_others_displace_none_of_the_router() -> None:
    known = KnownPaths()
    known.note(at(ROUTER), is_at_router=True)
    for number in range(2 * MAX_KNOWN):
        known.note(at("192.168.1.9", number))
    assert at(ROUTER) in known
    assert sum(at("192.168.1.9", number) in known for number in range(2 * MAX_KNOWN)) == MAX_KNOWN - 1


def test_a_gateway_whose_connection_is_a_guess_is_one_until_it_is_read_again_or_forgotten() -> None:
    known = KnownPaths()
    known.note(at(ROUTER, 1), is_guess=True)
    known.note(at(ROUTER, 2))
    assert (known.is_guess(at(ROUTER, 1)), known.is_guess(at(ROUTER, 2)), known.is_guess(at(ROUTER, 3))) == (
        True,
        False,
        False,
    )
    known.note(at(ROUTER, 1))
    assert not known.is_guess(at(ROUTER, 1))
    known.note(at(ROUTER, 1), is_guess=True)
    for number in range(MAX_KNOWN):
        known.note(at(ROUTER, 10 + number))
    assert not known.is_guess(at(ROUTER, 1))
