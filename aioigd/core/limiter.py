"""How many requests may be out at a gateway: few, and fewer when it shows that they are too many.

Routers are weak; some serve one connection at a time and reset the rest. The window grows while all is well,
halves when requests get lost (at most once for those that were out together), and after that tries a larger one
only now and then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["Limiter", "Outcome", "Permit"]

FIRST_WINDOW: Final = 4
LARGEST_WINDOW: Final = 8
_FIRST_PATIENCE: Final = 32
"""Successes in a row before a window that has failed once is tried again; doubles each time it fails."""


class Outcome(Enum):
    """What became of a request, as far as it concerns the limit."""

    ANSWERED = "answered"
    LOST = "lost"  #: the gateway may not have coped
    UNKNOWN = "unknown"  #: it was cancelled, or never sent


@dataclass(slots=True, eq=False)
class Permit:
    """The right to have one request out. ``had_company``: there was another one out with it at some time."""

    generation: int
    had_company: bool


class Limiter:
    """A window of requests in flight, first come first served."""

    def __init__(self) -> None:
        self.window: float = FIRST_WINDOW
        self._ceiling = LARGEST_WINDOW
        self._patience = _FIRST_PATIENCE
        self._successes = 0
        self._generation = 0
        self._out: set[Permit] = set()
        self._queue: deque[asyncio.Future[Permit]] = deque()

    def __repr__(self) -> str:
        return f"<Limiter window={self.window:.1f} out={len(self._out)} waiting={len(self._queue)}>"

    async def acquire(self, *, first: bool = False) -> Permit:
        """Wait for a permit. With ``first``, for a call that has begun already, at the front of the queue."""
        if len(self._out) < int(self.window) and (first or not self._queue):
            return self._grant()
        turn: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        (self._queue.appendleft if first else self._queue.append)(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(turn.result(), Outcome.UNKNOWN)  # it had been granted already
            raise

    def release(self, permit: Permit, outcome: Outcome = Outcome.ANSWERED) -> None:
        """Give a permit back."""
        self._out.discard(permit)
        if outcome is Outcome.ANSWERED:
            self._grow()
        elif outcome is Outcome.LOST:
            self._shrink(permit)
        if self._queue:
            self._wake()

    def _grant(self) -> Permit:
        permit = Permit(self._generation, had_company=bool(self._out))
        if permit.had_company:
            for other in self._out:
                other.had_company = True
        self._out.add(permit)
        return permit

    def _wake(self) -> None:
        while self._queue and len(self._out) < int(self.window):
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(self._grant())

    def _shrink(self, permit: Permit) -> None:
        self._successes = 0
        if permit.generation != self._generation or not permit.had_company:
            return  # out together with one that has been counted, or alone: not a matter of how many
        self._generation += 1
        if self._ceiling < LARGEST_WINDOW:
            self._patience *= 2
        self._ceiling = max(1, int(self.window) - 1)
        self.window = max(1, int(self.window) // 2)

    def _grow(self) -> None:
        if self.window < self._ceiling:
            self.window = min(self._ceiling, self.window + 1 / self.window)
        elif self._ceiling < LARGEST_WINDOW:
            self._successes += 1
            if self._successes >= self._patience:
                self._successes = 0
                self._ceiling += 1
