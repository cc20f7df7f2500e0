"""The emulated firewall and line keep to the standard: numbers, leases, refusals, and counters of 32 bits."""

from __future__ import annotations

import pytest

from aioigd.testing.errors import UPnPError
from aioigd.testing.firewall import Firewall
from aioigd.testing.wan_connection import ActionCall, Outputs
from aioigd.testing.wan_line import Line

OURS, THEIRS = "2001:db8::5", "2001:db8::6"
FLOW = {
    "RemoteHost": "",
    "RemotePort": "0",
    "InternalClient": OURS,
    "InternalPort": "8080",
    "Protocol": "6",
    "LeaseTime": "600",
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def firewall(clock: Clock) -> Firewall:
    return Firewall(clock)


def ask(firewall: Firewall, action: str, sender: str = OURS, **arguments: str) -> Outputs:
    return firewall.invoke(ActionCall("", action, arguments, sender))


def code(firewall: Firewall, action: str, sender: str = OURS, **arguments: str) -> int:
    with pytest.raises(UPnPError) as caught:
        ask(firewall, action, sender, **arguments)
    return caught.value.code


def test_pinholes_are_numbered_and_the_same_one_keeps_its_number(firewall: Firewall) -> None:
    assert ask(firewall, "AddPinhole", **FLOW) == {"UniqueID": "1"}
    assert ask(firewall, "AddPinhole", **{**FLOW, "Protocol": "17"}) == {"UniqueID": "2"}
    assert ask(firewall, "AddPinhole", **{**FLOW, "LeaseTime": "60"}) == {"UniqueID": "1"}
    assert [hole.duration for hole in firewall.pinholes] == [60, 600]


def test_they_end_with_their_lease(firewall: Firewall, clock: Clock) -> None:
    ask(firewall, "AddPinhole", **FLOW)
    clock.now = 599.0
    ask(firewall, "UpdatePinhole", UniqueID="1", NewLeaseTime="60")
    clock.now = 658.0
    assert len(firewall.pinholes) == 1
    clock.now = 659.0
    assert firewall.pinholes == []
    assert code(firewall, "DeletePinhole", UniqueID="1") == 704


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"InternalPort": "0"}, 706),
        ({"InternalClient": ""}, 708),
        ({"InternalClient": THEIRS}, 606),
        ({"Protocol": "65535"}, 707),
        ({"Protocol": "47"}, 705),
        ({"LeaseTime": "0"}, 402),
        ({"LeaseTime": "86401"}, 402),
        ({"RemoteHost": "everybody"}, 402),
    ],
    ids=str,
)
def test_what_the_standard_forbids_is_refused(firewall: Firewall, change: dict[str, str], expected: int) -> None:
    assert code(firewall, "AddPinhole", **{**FLOW, **change}) == expected
    assert firewall.pinholes == []


def test_a_firewall_may_be_off_or_closed_or_full(firewall: Firewall) -> None:
    firewall.size = 0
    assert code(firewall, "AddPinhole", **FLOW) == 701
    firewall.pinholes_allowed = False
    assert code(firewall, "AddPinhole", **FLOW) == 703
    firewall.enabled = False
    assert code(firewall, "AddPinhole", **FLOW) == 702
    assert ask(firewall, "GetFirewallStatus") == {"FirewallEnabled": "0", "InboundPinholeAllowed": "0"}


def test_a_pinhole_is_nobody_elses_business(firewall: Firewall) -> None:
    ask(firewall, "AddPinhole", **FLOW)
    assert code(firewall, "DeletePinhole", THEIRS, UniqueID="1") == 606
    assert code(firewall, "Reboot") == 401


def test_what_came_through_is_counted(firewall: Firewall) -> None:
    ask(firewall, "AddPinhole", **FLOW)
    assert code(firewall, "CheckPinholeWorking", UniqueID="1") == 709
    firewall.let_through(1, 3)
    assert ask(firewall, "GetPinholePackets", UniqueID="1") == {"PinholePackets": "3"}
    assert ask(firewall, "CheckPinholeWorking", UniqueID="1") == {"IsWorking": "1"}


def test_counters_are_told_with_32_bits() -> None:
    line = Line()
    line.bytes_sent = (1 << 32) - 1
    line.count(sent=2)
    assert line.invoke(ActionCall("", "GetTotalBytesSent", {})) == {"NewTotalBytesSent": "1"}
    assert line.packets_sent == 1025
    line.restart()
    assert line.invoke(ActionCall("", "GetTotalPacketsReceived", {})) == {"NewTotalPacketsReceived": "0"}
