"""What an attack costs its victim: time, the longest stall of the event loop, memory."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from types import TracebackType
from typing import Final, Self

__all__ = ["MEBIBYTE", "Cost"]

MEBIBYTE: Final = 1024 * 1024
_BEAT: Final = 0.002


class Cost:
    """Measures while it is entered.

    ``seconds`` is the time in all, ``stall`` the most that this thread worked without a pause (seconds of its own, so
    that other programs do not count), ``memory`` the peak of what Python has allocated since the beginning (bytes).
    Tracing memory makes everything some three times slower; without it ``memory`` stays 0.
    """

    def __init__(self, *, memory: bool = False) -> None:
        self.seconds = 0.0
        self.stall = 0.0
        self.memory = 0
        self._traces = memory

    async def __aenter__(self) -> Self:
        gc.freeze()  # what thousands of tests have left for the collector to look through is not the attack's
        self._heart = asyncio.get_running_loop().create_task(self._beat())
        await asyncio.sleep(2 * _BEAT)
        self.stall = 0.0
        if self._traces:
            tracemalloc.start()
            self._before = tracemalloc.get_traced_memory()[0]
        self._began = time.perf_counter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._began
        if self._traces:
            self.memory = tracemalloc.get_traced_memory()[1] - self._before
            tracemalloc.stop()
        await asyncio.sleep(2 * _BEAT)  # what stalls at the very end is noticed by the next beat only
        self._heart.cancel()
        gc.unfreeze()

    async def _beat(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(_BEAT)
            self.stall = max(self.stall, time.thread_time() - before)
