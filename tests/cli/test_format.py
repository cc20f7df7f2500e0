"""Numbers and foreign text in a form for people."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from aioigd import IGDError, UPnPResult
from aioigd.cli import format


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1250, "1.25 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (123_456_789, "123 MB"),
        (4_294_967_296, "4.29 GB"),
        (10**21, "1000 EB"),
    ],
)
def test_amounts_have_three_digits(count: float, text: str) -> None:
    assert format.byte_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (3605, "1 h"),
        (86_400, "1 d"),
        (90_000, "1 d 1 h"),
        (604_800, "1 w"),
        (-5, "0 s"),
    ],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert format.duration(seconds) == text


def test_a_lease_of_0_has_no_limit() -> None:
    assert format.lease_time(0) == "no limit"


@pytest.mark.parametrize(
    ("ports", "text"), [([], ""), ([80], "80"), ([80, 81, 82], "80-82"), ([443, 80, 81], "80-81, 443"), ([5, 5], "5")]
)
def test_ports_are_told_in_ranges(ports: list[int], text: str) -> None:
    assert format.port_ranges(ports) == text


def test_an_error_is_one_clean_line() -> None:
    error = IGDError("the gateway refused: \x1b[2Jno", UPnPResult.NOT_AUTHORIZED, error_code=606)
    assert format.error_text(error) == "The gateway refused: \ufffd[2Jno (UPnP error 606, NOT_AUTHORIZED)"


@pytest.mark.parametrize(
    ("address", "word"),
    [("8.8.8.8", ""), ("10.0.0.1", "double NAT"), ("100.64.0.1", "CGNAT"), ("fe80::1", "double NAT")],
)
def test_addresses_that_nobody_can_reach_are_noted(address: str, word: str) -> None:
    note = format.address_note(ip_address(address))
    assert bool(note) == bool(word)
    assert word in note


def test_ipv6_endpoints_have_brackets() -> None:
    assert format.endpoint("2001:db8::1", 80) == "[2001:db8::1]:80"
    assert format.endpoint(None, 80) == "?:80"
