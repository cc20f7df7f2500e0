"""A month in virtual time, as the benchmark ``benchmarks/leases.py`` has it, with fewer leases."""

from __future__ import annotations

from benchmarks.leases import month

from .virtual import run


def test_five_hundred_leases_of_a_week_are_held_for_a_week_and_a_half() -> None:
    figures = run(month(500, 10.5), debug=False)
    assert (figures.lost, figures.late, figures.left) == (0, 0, 0)
    assert figures.most_timers < 20
    assert figures.requests["AddPortMapping"] <= 500 * 4
    assert figures.requests["GetSpecificPortMappingEntry"] <= 500 * 10 + 10.5 * 24 * 60
