"""What is due when, for any number of things, with one timer's worth of work."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["NEVER", "Due", "Timetable"]

NEVER: Final = float("inf")
_SLACK: Final = 64


class Due(Protocol):
    """Something that is due at some time, NEVER while it is in no timetable."""

    due: float


T = TypeVar("T", bound=Due)


class Timetable(Generic[T]):
    """Things in the order in which they are due, each once: the last time set is the one that counts."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._serial = count()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def set(self, thing: T, due: float) -> None:
        """Make something due at a time, instead of the one set before."""
        self._size += thing.due == NEVER
        thing.due = due
        heappush(self._heap, (due, next(self._serial), thing))
        if len(self._heap) > 2 * self._size + _SLACK:
            self._heap = [entry for entry in self._heap if entry[2].due == entry[0]]
            heapify(self._heap)

    def remove(self, thing: T) -> None:
        """Forget something."""
        self._size -= thing.due != NEVER
        thing.due = NEVER

    @property
    def next(self) -> float:
        """When the next thing is due; NEVER where there is none."""
        while self._heap and self._heap[0][2].due != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else NEVER

    def take(self, now: float, most: int) -> list[T]:
        """Take out what is due, so many at most."""
        due: list[T] = []
        while len(due) < most and self.next <= now:
            thing = heappop(self._heap)[2]
            self.remove(thing)
            due.append(thing)
        return due
