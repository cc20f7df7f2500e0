"""How many requests a gateway gets at once: few, and fewer when it shows that they are too many.

Routers are weak; some serve one connection at a time and reset the rest. The window grows while all is well,
halves when requests get lost (at most once for those that were out together), and after that tries a larger one
only now and then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

__all__ = ["Limiter", "Slot"]

FIRST_WINDOW: Final = 4
LARGEST_WINDOW: Final = 8
_FIRST_PATIENCE: Final = 32
"""Successes in a row before a window that has failed once is tried again; doubles each time it fails."""


class Slot:
    """The right to have one request out. ``shared`` tells whether there ever was another one out with it."""

    __slots__ = ("generation", "shared")

    def __init__(self, generation: int, *, shared: bool) -> None:
        self.generation = generation
        self.shared = shared


class Limiter:
    """A window of requests in flight, first come first served."""

    def __init__(self) -> None:
        self.window: float = FIRST_WINDOW
        self._ceiling = LARGEST_WINDOW
        self._patience = _FIRST_PATIENCE
        self._successes = 0
        self._generation = 0
        self._out: set[Slot] = set()
        self._queue: deque[asyncio.Future[Slot]] = deque()

    def __repr__(self) -> str:
        return f"<Limiter window={self.window:.1f} out={len(self._out)} waiting={len(self._queue)}>"

    async def acquire(self, *, first: bool = False) -> Slot:
        """Wait for a slot. Who comes ``first``, because it has begun already, goes to the front."""
        if not self._is_full() and (first or not self._queue):
            return self._grant()
        turn: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        (self._queue.appendleft if first else self._queue.append)(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(turn.result(), lost=None)  # it had been given to us already
            raise

    def release(self, slot: Slot, *, lost: bool | None = False) -> None:
        """Give a slot back; ``lost`` says that the gateway did not cope, None that nothing can be said."""
        self._out.discard(slot)
        if lost:
            self._shrink(slot)
        elif lost is False:
            self._grow()
        self._wake()

    def _is_full(self) -> bool:
        return len(self._out) >= int(self.window)

    def _grant(self) -> Slot:
        slot = Slot(self._generation, shared=bool(self._out))
        if slot.shared:
            for other in self._out:
                other.shared = True
        self._out.add(slot)
        return slot

    def _wake(self) -> None:
        while self._queue and not self._is_full():
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(self._grant())

    def _shrink(self, slot: Slot) -> None:
        self._successes = 0
        if slot.generation != self._generation or not slot.shared:
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
