"""Has the router lost its mappings since its last reply? The epoch tells: the age of its state, in seconds.

No I/O and no clock: the time of a reply is passed in. A forged reply may claim any epoch, so a change is a reason to
look, and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Epoch", "NatPmpEpoch", "PcpEpoch"]

_TOLERANCE: Final = 2
"""Seconds by which the clocks of client and router may differ, as both count whole seconds."""
_STEP_BACK: Final = 1
"""Seconds by which an epoch may be less than the one before, as replies overtake each other."""


@dataclass(slots=True)
class Epoch:
    """The last epoch of one router. ``lost_state`` judges the next one by the rule of its protocol, and keeps it."""

    seconds: int | None = None
    """The last epoch, None before the first reply."""
    heard_at: float = 0.0
    """When it was received, in seconds of a clock that never goes back."""

    def lost_state(self, epoch: int, now: float) -> bool:
        """Return whether the router has lost its state since the last reply; False for the first one.

        ``epoch`` is that of a reply, ``now`` the time at which it was received, in seconds.
        """
        previous, elapsed = self.seconds, now - self.heard_at
        self.seconds, self.heard_at = epoch, now
        return previous is not None and self._contradicts(previous, epoch, elapsed)

    def _contradicts(self, previous: int, epoch: int, elapsed: float) -> bool:
        raise NotImplementedError


class PcpEpoch(Epoch):
    """RFC 6887 section 8.5: the router's clock may be a sixteenth faster or slower than ours, and 2 seconds off."""

    def _contradicts(self, previous: int, epoch: int, elapsed: float) -> bool:
        if epoch < previous - _STEP_BACK:
            return True
        counted = epoch - previous
        return (
            elapsed + _TOLERANCE < counted - counted / 16  # its clock has jumped ahead
            or counted + _TOLERANCE < elapsed - elapsed / 16  # it began anew in between
        )


class NatPmpEpoch(Epoch):
    """RFC 6886 section 3.6: the epoch has grown by at least 7/8 of the time that we counted, but for 2 seconds."""

    def _contradicts(self, previous: int, epoch: int, elapsed: float) -> bool:
        return epoch + _TOLERANCE < previous + elapsed * 7 / 8
