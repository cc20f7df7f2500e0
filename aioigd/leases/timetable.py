"""What is due when, for any number of things, with one timer's worth of work."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

from .holding import Holding

__all__ = ["NEVER", "Timetable"]

NEVER: Final = float("inf")
_SLACK: Final = 64


class Timetable:
    """Mappings in the order in which they are due, each once: the last time set is the one that counts."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Holding]] = []
        self._serial = count()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def set(self, holding: Holding, due: float) -> None:
        """Make a mapping due at a time, instead of the one set before."""
        self._size += holding.due == NEVER
        holding.due = due
        heappush(self._heap, (due, next(self._serial), holding))
        if len(self._heap) > 2 * self._size + _SLACK:
            self._heap = [entry for entry in self._heap if entry[2].due == entry[0]]
            heapify(self._heap)

    def remove(self, holding: Holding) -> None:
        """Forget a mapping."""
        self._size -= holding.due != NEVER
        holding.due = NEVER

    @property
    def next(self) -> float:
        """When the next mapping is due; NEVER where there is none."""
        while self._heap and self._heap[0][2].due != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else NEVER

    def take(self, now: float, most: int) -> list[Holding]:
        """Take out mappings that are due."""
        due: list[Holding] = []
        while len(due) < most and self.next <= now:
            holding = heappop(self._heap)[2]
            self.remove(holding)
            due.append(holding)
        return due
