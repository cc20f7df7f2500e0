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


def test_by_pcp_each_renewal_is_one_datagram() -> None:
    days = 10.5
    figures = run(month(500, days, poll_interval=600.0, protocol="pcp"), debug=False)
    assert (figures.lost, figures.late, figures.left) == (0, 0, 0)
    assert figures.most_timers < 20
    # Made once, and then renewed between a half and five eighths of the week, each time by one datagram.
    assert 500 * (1 + 2) <= figures.requests["MAP"] <= 500 * (1 + 3)
    assert figures.requests.total() == figures.requests["MAP"] + figures.requests["ANNOUNCE"]
    assert figures.requests["ANNOUNCE"] <= days * 86_400 / 600 + 1
