"""When is what to be done: renewal times, backoff, and the queue of what is due. Pure: the clock is passed in.

All times are in seconds; points in time are those of the event loop's clock. :class:`RefCounter` says by how many
leases something is used, and so whether it is time to delete it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, Generic, Protocol, TypeVar

__all__ = [
    "EPOCH_ROUNDING",
    "NEVER",
    "PERMANENT_CHECK_INTERVAL",
    "Due",
    "DueQueue",
    "HintThrottle",
    "RefCounter",
    "backoff",
    "effective_duration",
    "renew_after",
    "requested_pause",
]

NEVER: Final = float("inf")
"""When something is due that is in no queue."""
PERMANENT_CHECK_INTERVAL: Final = 1200.0
"""Seconds between two checks of a mapping without a limit: routers lose them at restarts and in daily reconnects."""

_FIRST_BACKOFF: Final = 0.5
"""Seconds to wait after a first failure."""
_LONGEST_BACKOFF: Final = 60.0
"""Seconds to wait after the last of many failures."""
EPOCH_ROUNDING: Final = 1.0
"""Seconds: gateways tell since when they hold mappings in whole ones."""
_LONGEST_REQUESTED_PAUSE: Final = 1800.0
"""Seconds: no gateway is left alone for longer, whatever it asks for."""
_FIRST_RENEWAL: Final = 1 / 2
_LAST_RENEWAL: Final = 5 / 8
"""Parts of its time after which a mapping is renewed."""
_SHORTEST_RENEWAL: Final = 1.0
"""Seconds: no mapping is renewed more often."""
_STALE_ENTRIES: Final = 64
"""Outdated entries that a queue may hold, beside as many as there are valid ones, before it drops them."""


def effective_duration(accepted: int, held: int | None) -> int:
    """Return how long a mapping will really last, 0 for no limit.

    ``accepted`` is the duration of the request that the gateway accepted, ``held`` what it then said it holds,
    None where it does not tell. The shorter counts: some cut leases short, and some report 0 for any.
    """
    if held is None or held == 0:
        return accepted
    return held if accepted == 0 else min(accepted, held)


def renew_after(duration: int, spread: float = 0.0) -> float:
    """Return how long after a mapping was made it is to be renewed: half its time, or when it is to be checked.

    ``spread`` from 0 to 1 makes that up to 5/8 of its time (RFC 6887 section 11.2.1), so that what was made at once, as
    after a restart, is not always renewed at once.
    """
    share = _FIRST_RENEWAL + (_LAST_RENEWAL - _FIRST_RENEWAL) * spread
    return PERMANENT_CHECK_INTERVAL if duration == 0 else max(_SHORTEST_RENEWAL, duration * share)


def requested_pause(retry_after: float | None) -> float:
    """Return how long to wait because a gateway wants to be left alone for so long; it may say anything."""
    return 0.0 if retry_after is None else min(max(0.0, retry_after), _LONGEST_REQUESTED_PAUSE)


def backoff(failures: int) -> float:
    """Return how long to wait after a number of failures in a row: twice as long each time, up to a minute."""
    return float(min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** min(max(failures, 1) - 1, 10)))


class HintThrottle:
    """How soon a hint from the network may be followed: at once, and ever later while hints prove wrong.

    Anybody on the LAN can send hints in the gateway's name. A hint that was right, or a long silence, ends the
    throttling.
    """

    DELAY: Final = 0.2
    """Seconds from a hint until it is followed: routers send each several times."""
    _FIRST_GAP: Final = 1.0
    """Seconds between a hint that was wrong and the next that is followed."""
    _LONGEST_GAP: Final = 60.0
    """Seconds, after many that were wrong."""
    _RESET_AFTER: Final = 600.0
    """Seconds without a hint after which those that were wrong no longer count."""

    def __init__(self) -> None:
        self._gap = 0.0
        self._followed_at = float("-inf")

    def due(self, now: float) -> float:
        """Return the time at which a hint that comes now is to be followed."""
        return max(now + self.DELAY, self._followed_at + self._gap)

    def followed(self, now: float, *, right: bool) -> None:
        """Note that a hint has been followed, and whether it was right."""
        if right or now - self._followed_at > self._RESET_AFTER:
            self._gap = 0.0
        if not right:
            self._gap = min(self._LONGEST_GAP, max(self._FIRST_GAP, 2 * self._gap))
        self._followed_at = now


class Due(Protocol):
    """Something that is due at some time, NEVER while it is in no queue."""

    due: float


D = TypeVar("D", bound=Due)
K = TypeVar("K", bound=Hashable)


class DueQueue(Generic[D]):
    """Items in the order in which they are due, each once: the last time set is the one that counts."""

    # A changed or removed item leaves its old entry in the heap, to be skipped: taking it out would be linear.

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, D]] = []
        self._serial = count()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def set(self, item: D, due: float) -> None:
        """Make an item due at a time, instead of the one set before."""
        self._size += item.due == NEVER
        item.due = due
        heappush(self._heap, (due, next(self._serial), item))
        if len(self._heap) > 2 * self._size + _STALE_ENTRIES:
            self._heap = [entry for entry in self._heap if entry[2].due == entry[0]]
            heapify(self._heap)

    def remove(self, item: D) -> None:
        """Take an item out, if it is in the queue."""
        self._size -= item.due != NEVER
        item.due = NEVER

    @property
    def next(self) -> float:
        """When the next item is due; NEVER where there is none."""
        while self._heap and self._heap[0][2].due != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else NEVER

    def take(self, now: float, most: int) -> list[D]:
        """Take out the items that are due, so many at most."""
        due: list[D] = []
        while len(due) < most and self.next <= now:
            item = heappop(self._heap)[2]
            self.remove(item)
            due.append(item)
        return due


class RefCounter(Generic[K]):
    """Counts the users of each key. Two leases on one port share its mapping; the last one deletes it."""

    def __init__(self) -> None:
        self._users: dict[K, int] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._users

    def __iter__(self) -> Iterator[K]:
        return iter(self._users)

    def count(self, key: K) -> int:
        """Return the number of users of a key."""
        return self._users.get(key, 0)

    def acquire(self, key: K) -> None:
        """Count one more user of a key."""
        self._users[key] = self._users.get(key, 0) + 1

    def release(self, key: K) -> bool:
        """Count one less, and return whether it was the last."""
        users = self._users.pop(key) - 1
        if users:
            self._users[key] = users
        return not users
