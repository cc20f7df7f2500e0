from __future__ import annotations

import pytest

from aioigd.leases import schedule


@pytest.mark.parametrize(
    ("accepted", "held", "lasts"),
    [(3600, None, 3600), (3600, 0, 3600), (3600, 600, 600), (600, 3600, 600), (0, None, 0), (0, 0, 0), (0, 600, 600)],
)
def test_the_shorter_time_counts(accepted: int, held: int | None, lasts: int) -> None:
    assert schedule.effective_duration(accepted, held) == lasts


@pytest.mark.parametrize(("duration", "renewal"), [(3600, 1800.0), (3, 1.5), (2, 1.0), (1, 1.0), (0, 1200.0)])
def test_it_is_renewed_at_half_and_looked_after_at_a_quarter(duration: int, renewal: float) -> None:
    assert schedule.renew_after(duration) == renewal
    assert schedule.check_after(duration) == renewal / 2


def test_pauses_grow_up_to_a_minute() -> None:
    pauses = [schedule.pause_after(failures) for failures in range(1, 10)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert schedule.pause_after(0) == 0.5
    assert schedule.pause_after(10**9) == 60.0


class TestBrake:
    def test_the_first_hint_is_followed_soon(self) -> None:
        assert schedule.Brake().when(100.0) == 100.2

    def test_after_false_ones_it_takes_ever_longer_up_to_a_minute(self) -> None:
        brake, now, gaps = schedule.Brake(), 100.0, []
        for _ in range(9):
            brake.followed(now, right=False)
            gaps.append(brake.when(now) - now)
            now = brake.when(now)
        assert gaps == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])

    @pytest.mark.parametrize(("after", "right", "gap"), [(1.0, True, 0.2), (601.0, False, 1.0), (1.0, False, 4.0)])
    def test_a_right_one_or_a_long_silence_makes_good(self, after: float, right: bool, gap: float) -> None:
        brake = schedule.Brake()
        brake.followed(0.0, right=False)
        brake.followed(0.0, right=False)
        brake.followed(after, right=right)
        assert brake.when(after) - after == pytest.approx(gap)
