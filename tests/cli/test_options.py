"""Ports, targets and time spans as they are written on the command line."""

from __future__ import annotations

import pytest

from aioigd import NoRouteError
from aioigd.cli import options
from aioigd.cli.options import DURATION, PORTS, TARGET, Ports, Target


@pytest.mark.parametrize("ours", ["192.168.1.5", ""])
def test_without_a_list_of_interfaces_there_is_the_one_towards_the_internet(
    monkeypatch: pytest.MonkeyPatch, ours: str
) -> None:
    def source_address_for(_: str) -> str:
        if not ours:
            raise NoRouteError("there is no route")
        return ours

    monkeypatch.setattr(options, "all_addresses", list)
    monkeypatch.setattr(options, "source_address_for", source_address_for)
    assert [each.address for each in options.all_interfaces()] == ([ours] if ours else [])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1D", 86_400), ("1w", 604_800)],
)
def test_time_spans_are_read(text: str, seconds: int) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize(("text", "ports"), [("80", Ports(80, 80)), ("80-82", Ports(80, 82))])
def test_ports_are_read(text: str, ports: Ports) -> None:
    assert PORTS.convert(text, None, None) == ports


@pytest.mark.parametrize(
    ("text", "target"),
    [("80", Target("", 80)), ("192.168.1.7", Target("192.168.1.7", 0)), ("192.168.1.7:80", Target("192.168.1.7", 80))],
)
def test_targets_are_read(text: str, target: Target) -> None:
    assert TARGET.convert(text, None, None) == target
