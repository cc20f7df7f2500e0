"""Does a renewal prolong a mapping on this gateway? Some say yes to it, and leave the end as it was. Pure.

=========  =========================================  ===========================================================
known      what follows a renewal                     becomes
=========  =========================================  ===========================================================
UNKNOWN    one reading, READING_DELAY after it        the old rest → KEEPS_END; a longer one → PROLONGS; 0, or
                                                      what was granted, cannot tell → BLIND
BLIND      one look just after the old end            there → PROLONGS; missing → KEEPS_END
PROLONGS   nothing                                    -
KEEPS_END  nothing is renewed any more, but deleted   missing before its time → UNKNOWN
           and added just before its end
=========  =========================================  ===========================================================

It is known of a gateway, not of a mapping: one reading decides for all. Until then each mapping that was renewed keeps
in mind when it ends if that did not help, its *old end*. At the old end itself nothing is added before the look: what
is made again there would be taken for what was prolonged. A gateway that cannot be read at all is taken for one that
prolongs, because nothing would show the contrary.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

__all__ = ["READING_DELAY", "Prolongation", "judge_reading", "look_after_end", "remake_at"]

READING_DELAY: Final = 2.0
"""Seconds from a renewal until it is read back: so long that a rest that is counted down has changed."""
_LOOK_DELAY: Final = 2.0
"""Seconds from the old end until the look; some gateways clear their tables once a second."""
_REMAKE_LEAD: Final = 5.0
"""Seconds before its end at which a mapping that cannot be prolonged is deleted and added; longer than both take."""
_LEAST_GAIN: Final = 4.0
"""Seconds: a gain below that cannot be told from how gateways round."""


class Prolongation(Enum):
    """What is known of the renewals of a gateway; see the table above."""

    UNKNOWN = auto()
    BLIND = auto()
    PROLONGS = auto()
    KEEPS_END = auto()


def judge_reading(rest: int, unchanged: tuple[int, ...], end: float, end_before: float, gain: float) -> Prolongation:
    """Return what a reading after a renewal shows.

    ``rest`` is what the gateway says, ``unchanged`` what it says if it counts nothing down, ``end`` and ``end_before``
    when the mapping ends by this reading and by those before the renewal, ``gain`` by how much they should differ.
    """
    if rest == 0 or rest in unchanged or gain < _LEAST_GAIN:
        return Prolongation.BLIND
    return Prolongation.PROLONGS if end - end_before > gain / 2 else Prolongation.KEEPS_END


def look_after_end(old_end: float, duration: float) -> float:
    """Return when to look whether a mapping has outlived its old end; ``duration`` is how long it lasts."""
    return old_end + min(_LOOK_DELAY, duration / 8)


def remake_at(end: float, duration: float) -> float:
    """Return when to delete and add a mapping that cannot be prolonged."""
    return end - min(_REMAKE_LEAD, duration / 4)
