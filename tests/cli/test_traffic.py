"""The curve of traffic."""

from __future__ import annotations

from aioigd.cli.traffic import curve


def test_a_curve_is_as_high_as_its_highest_value() -> None:
    assert curve([0, 1, 2, 4]) == "▁▃▅█"
    assert curve([0, 0]) == "▁▁"
    assert curve([]) == ""
