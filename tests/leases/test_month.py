"""A month in virtual time, as the benchmark ``benchmarks/leases.py`` has it, with fewer leases."""

from __future__ import annotations

from benchmarks.leases import month

from .virtual import run

WITHOUT_READINGS = 4_511
"""Checks of five hundred leases in these days, before any renewal was read back."""


def test_five_hundred_leases_of_a_week_are_held_for_a_week_and_a_half() -> None:
    figures = run(month(500, 10.5, poll_interval=600.0), debug=False)
    assert (figures.lost, figures.late, figures.left) == (0, 0, 0)
    assert figures.most_timers < 20
    assert figures.requests["AddPortMapping"] <= 500 * 4
    # At most one reading for each mapping, of whether renewals prolong: it is known of the gateway, so only what was
    # renewed at the same moment is read at all.
    assert figures.requests["GetSpecificPortMappingEntry"] <= WITHOUT_READINGS + 8
