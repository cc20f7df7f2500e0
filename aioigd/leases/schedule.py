"""When to do what for a mapping that is to stay: pure functions of durations, in seconds."""

from __future__ import annotations

from typing import Final

__all__ = ["PERMANENT_CHECK", "Brake", "check_after", "effective_duration", "pause_after", "renew_after"]

PERMANENT_CHECK: Final = 1200.0
"""How often a mapping without a limit is looked after: routers lose them at restarts and in daily reconnects."""
_SHORTEST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 60.0
_SHORTEST_RENEWAL: Final = 1.0


def effective_duration(accepted: int, held: int | None) -> int:
    """Return how long a mapping will really last, 0 for no limit.

    ``accepted`` is the duration of the request that the gateway accepted, ``held`` what it then said it holds,
    None where it does not tell. The shorter counts: some cut leases short, and some report 0 for any.
    """
    if held is None or held == 0:
        return accepted
    return held if accepted == 0 else min(accepted, held)


def renew_after(duration: int) -> float:
    """Return how long after a mapping was made it is to be renewed: half its time, or when it is to be checked."""
    return PERMANENT_CHECK if duration == 0 else max(_SHORTEST_RENEWAL, duration / 2)


def check_after(duration: int) -> float:
    """Return how long after a mapping was made it is first looked after, to notice a lease that was cut short."""
    return renew_after(duration) / 2


def pause_after(failures: int) -> float:
    """Return how long to wait after a number of failures in a row: twice as long each time, up to a minute."""
    return float(min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2 ** min(max(failures, 1) - 1, 10)))


class Brake:
    """How soon a hint from the network may be followed: at once, and ever later while hints prove wrong.

    Anybody on the LAN can send hints in the gateway's name. A hint that was right, or a long silence, makes good.
    """

    FIRST: Final = 0.2
    """Seconds from a hint until it is followed; routers send each several times."""
    _FALSE_ALARM: Final = 1.0
    _LONGEST: Final = 60.0
    _FORGIVEN: Final = 600.0

    def __init__(self) -> None:
        self._gap = 0.0
        self._followed_at = float("-inf")

    def when(self, now: float) -> float:
        """Return the time at which a hint that comes now is to be followed."""
        return max(now + self.FIRST, self._followed_at + self._gap)

    def followed(self, now: float, *, right: bool) -> None:
        """Note that a hint has been followed, and whether there was something to it."""
        if right or now - self._followed_at > self._FORGIVEN:
            self._gap = 0.0
        if not right:
            self._gap = min(self._LONGEST, max(self._FALSE_ALARM, 2 * self._gap))
        self._followed_at = now
