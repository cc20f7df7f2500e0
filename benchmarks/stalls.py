"""How long the event loop does not get to anything else: a heartbeat, and the longest gap in it."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Final, Self

_BEAT: Final = 0.001


class Heartbeat:
    """Ticks every millisecond while it is entered.

    ``longest`` is the longest time (seconds) that a tick was late. ``longest_cpu`` is the most that this thread worked
    between two ticks: the same without what the machine did in the meantime for others.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.longest_cpu = 0.0
        self._loop = asyncio.get_running_loop()
        self._last = (0.0, 0.0)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._last = (time.perf_counter(), time.thread_time())
        self._timer = self._loop.call_later(_BEAT, self._tick)
        # The first ticks come before what is to be measured.
        await asyncio.sleep(10 * _BEAT)
        self.longest = self.longest_cpu = 0.0
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.sleep(2 * _BEAT)  # what stalls at the very end is noticed by the next tick only
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        now = (time.perf_counter(), time.thread_time())
        self.longest = max(self.longest, now[0] - self._last[0] - _BEAT)
        self.longest_cpu = max(self.longest_cpu, now[1] - self._last[1])
        self._last = now
        self._timer = self._loop.call_later(_BEAT, self._tick)
