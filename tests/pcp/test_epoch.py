"""When a router has lost its mappings, by the epochs in its replies."""

from __future__ import annotations

import pytest

from aioigd.pcp.epoch import Epoch, NatPmpEpoch, PcpEpoch


@pytest.mark.parametrize("make", [PcpEpoch, NatPmpEpoch])
def test_the_first_reply_says_nothing(make: type[Epoch]) -> None:
    assert make().lost_state(0, 1000.0) is False
    assert make().lost_state(0xFFFFFFFF, 0.0) is False


PCP_TABLE = [
    # last epoch, this one, seconds in between by our clock, whether it has lost its state
    (1000, 1000, 0.0, False),
    (1000, 1060, 60.0, False),
    (1000, 999, 0.0, False),  # overtaken by an earlier reply
    (1000, 998, 0.0, True),
    (1000, 0, 5.0, True),  # restarted
    (1000, 3, 2000.0, True),
    (3, 60, 3600.0, True),  # restarted in between, and older than at the last reply
    (0, 0xFFFFFFFF, 5.0, True),  # jumps far ahead
    # Its clock is slower than ours: server's delta + 2 < client's delta - client's delta/16.
    (1000, 1013, 16.0, False),
    (1000, 1012, 16.0, True),
    (0, 3373, 3600.0, False),
    (0, 3372, 3600.0, True),
    # Its clock is faster than ours: client's delta + 2 < server's delta - server's delta/16.
    (1000, 1016, 13.0, False),
    (1000, 1017, 13.0, True),
    (0, 3600, 3373.0, False),
    (0, 3600, 3372.0, True),
    (1000, 1002, 0.0, False),
    (1000, 1003, 0.0, True),
]


@pytest.mark.parametrize(("last", "epoch", "elapsed", "expected"), PCP_TABLE)
def test_pcp(last: int, epoch: int, elapsed: float, expected: bool) -> None:
    """RFC 6887 section 8.5."""
    known = PcpEpoch()
    known.lost_state(last, 500.0)
    assert known.lost_state(epoch, 500.0 + elapsed) is expected


NAT_PMP_TABLE = [
    (1000, 1060, 60.0, False),
    (1000, 0, 5.0, True),
    (1000, 998, 0.0, False),
    (1000, 997, 0.0, True),
    # At least 7/8 of our own count, but for 2 seconds (section 3.6).
    (1000, 1068, 80.0, False),
    (1000, 1067, 80.0, True),
    (0, 3148, 3600.0, False),
    (0, 3147, 3600.0, True),
    # A clock that is too fast is none of its concerns.
    (0, 0xFFFFFFFF, 5.0, False),
]


@pytest.mark.parametrize(("last", "epoch", "elapsed", "expected"), NAT_PMP_TABLE)
def test_nat_pmp(last: int, epoch: int, elapsed: float, expected: bool) -> None:
    """RFC 6886 section 3.6."""
    known = NatPmpEpoch()
    known.lost_state(last, 500.0)
    assert known.lost_state(epoch, 500.0 + elapsed) is expected


@pytest.mark.parametrize("make", [PcpEpoch, NatPmpEpoch])
def test_after_a_restart_the_new_epoch_counts(make: type[Epoch]) -> None:
    known = make()
    verdicts = [known.lost_state(epoch, now) for epoch, now in [(5000, 0.0), (0, 10.0), (10, 20.0), (0, 21.0)]]
    assert verdicts == [False, True, False, True]


@pytest.mark.parametrize("make", [PcpEpoch, NatPmpEpoch])
def test_a_steady_clock_never_looks_like_a_restart(make: type[Epoch]) -> None:
    """Replies at odd times, for a month, from a clock that counts whole seconds."""
    known, now = make(), 0.0
    for number in range(20_000):
        now += (number * 7919 % 2500) / 10
        assert not known.lost_state(int(now + 0.7), now)
