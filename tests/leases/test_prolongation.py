"""What a reading after a renewal shows, and when to look at a mapping that may not have been prolonged."""

from __future__ import annotations

import pytest

from aioigd.leases.prolongation import Prolongation, judge_reading, look_after_end, remake_at

BLIND, PROLONGS, KEEPS_END = Prolongation.BLIND, Prolongation.PROLONGS, Prolongation.KEEPS_END


@pytest.mark.parametrize(
    ("rest", "gain", "shown"),
    [
        (58, 30.0, PROLONGS),
        (59, 30.0, PROLONGS),
        (28, 30.0, KEEPS_END),
        (29, 30.0, KEEPS_END),
        (27, 30.0, KEEPS_END),
        (44, 30.0, PROLONGS),
        (0, 30.0, BLIND),
        (60, 30.0, BLIND),
        (61, 30.0, BLIND),
        (58, 3.9, BLIND),
    ],
)
def test_what_a_reading_shows(rest: int, gain: float, shown: Prolongation) -> None:
    """A mapping of 60 s that was renewed at 30 s is read at 32 s; 60 and 61 are what was granted and read before."""
    assert judge_reading(rest, (60, 61), end=32.0 + rest, end_before=60.0, gain=gain) is shown


@pytest.mark.parametrize(
    ("duration", "look", "remake"), [(3600, 2.0, -5.0), (20, 2.0, -5.0), (8, 1.0, -2.0), (2, 0.25, -0.5)]
)
def test_when_to_look_and_when_to_make_it_again(duration: float, look: float, remake: float) -> None:
    assert (look_after_end(100.0, duration), remake_at(100.0, duration)) == (100.0 + look, 100.0 + remake)
