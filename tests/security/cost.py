"""What an attack costs its victim: time, the longest stall of the event loop, memory."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from aioigd import IGDError

__all__ = ["MEBIBYTE", "MOST_LOOPS", "Cost", "in_loops"]

MEBIBYTE: Final = 1024 * 1024
MOST_LOOPS: Final = 3.0
"""The most that a parser may take at its cap, in loops of :func:`in_loops`: some 30 ms."""
_BEAT: Final = 0.002


class Cost:
    """Measures while it is entered.

    ``seconds`` is the time in all, or that of the loop where that is virtual and longer; ``stall`` the most that this
    thread worked without a pause (seconds of its own, so that other programs do not count), ``memory`` the peak of what
    Python has allocated since the beginning (bytes). Tracing memory makes everything some three times slower; without
    it ``memory`` stays 0.
    """

    def __init__(self, *, memory: bool = False) -> None:
        self.seconds = 0.0
        self.stall = 0.0
        self.memory = 0
        self._traces = memory

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._heart = self._loop.create_task(self._beat())
        await asyncio.sleep(2 * _BEAT)
        self.stall = 0.0
        if self._traces:
            tracemalloc.start()
            self._before = tracemalloc.get_traced_memory()[0]
        self._began = time.perf_counter(), self._loop.time()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = max(time.perf_counter() - self._began[0], self._loop.time() - self._began[1])
        if self._traces:
            self.memory = tracemalloc.get_traced_memory()[1] - self._before
            tracemalloc.stop()
        await asyncio.sleep(2 * _BEAT)  # what stalls at the very end is noticed by the next beat only
        self._heart.cancel()

    async def _beat(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(_BEAT)
            self.stall = max(self.stall, time.thread_time() - before)


def in_loops(call: Callable[[], object], *, rounds: int = 5, enough: float = 0.0) -> float:
    """Return how many times as long a call takes as a pure loop of Python does, the least of some rounds.

    A round that comes to less than ``enough`` is the last one.

    The loop takes about 10 ms on the machine on which ``docs/benchmarks.md`` was measured. Both are measured in turn,
    so that whatever else the machine does concerns both. An IGDError of the call is as good as a result.
    """
    times, loops = [], []
    gc.disable()
    try:
        for _ in range(rounds):
            loops.append(_thread_seconds(_loop))
            times.append(_thread_seconds(call))
            if min(times) / min(loops) < enough:
                break
    finally:
        gc.enable()
    return min(times) / min(loops)


def _thread_seconds(call: Callable[[], object]) -> float:
    began = time.thread_time()
    with suppress(IGDError):
        call()
    return time.thread_time() - began


def _loop() -> int:
    total = 0
    for number in range(320_000):
        total += number & 3
    return total
