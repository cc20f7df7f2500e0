"""What each peer has to be able to do, and how a batch is measured, for those that are awaited and those that block."""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import time
import tracemalloc
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

ONE_BY_ONE: Final = "one by one"
AT_ONCE: Final = "at once"
PORTS: Final = range(1_000, 11_000)
"""What is mapped in batches, the first so many."""
THREADS: Final = 128
_BEAT: Final = 0.001

Add = Callable[[int], Any]
"""Maps a port: to be awaited, or blocking."""


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
        await asyncio.sleep(10 * _BEAT)  # the first ticks come before what is to be measured
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


@dataclass
class Batch:
    """How a batch went.

    ``stall`` (seconds) where an event loop ran meanwhile and was watched; ``worked``: the same in CPU time of the
    loop's thread, which other programs on the machine cannot lengthen.
    """

    seconds: float
    cpu: float
    made: int
    stall: float | None = None
    worked: float | None = None


class Peer(ABC):
    """One way to map ports; this one is awaited. ``source``: the address of this machine that it is to work from."""

    took: float | None = None
    """The seconds of the last cold start or search, where the peer is a process that times itself."""

    def __init__(self, source: str) -> None:
        self.source = source

    def cold_start(self, port: int) -> None:
        """From nothing to the first mapping, with the peer's own defaults."""
        raise NotImplementedError

    def search(self) -> int:
        """Search as the peer does by default; return the number of gateways."""
        raise NotImplementedError

    @abstractmethod
    def opened(self, location: str) -> AbstractAsyncContextManager[Add]:
        """Return a context in which the gateway of a description is known; it gives what maps a port."""

    def batch(self, location: str, ports: Sequence[int], way: str, *, watch: bool) -> Batch:
        """Map all ports on a gateway whose description is known; ``watch`` the event loop for stalls."""
        return asyncio.run(self._batch(location, ports, way, watch=watch))

    def swallow(self, location: str) -> tuple[float, float | None]:
        """Read a description that is hostile, and map a port there.

        Return the seconds, and the longest stall of the loop if there is one.
        """
        return asyncio.run(self._swallow(location))

    async def one_by_one(self, add: Add, ports: Sequence[int]) -> int:
        """Return how many could be made, one after another."""
        made = 0
        for port in ports:
            try:
                await add(port)
                made += 1
            except Exception as error:
                print_once(error)
        return made

    async def at_once(self, add: Add, ports: Sequence[int]) -> int:
        """Return how many could be made, all gathered."""
        results = await asyncio.gather(*(add(port) for port in ports), return_exceptions=True)
        errors = [one for one in results if isinstance(one, BaseException)]
        if errors:
            print_once(errors[0])
        return len(results) - len(errors)

    async def allocations(self, location: str, count: int) -> dict[str, float]:
        """Return the bytes of Python's memory: the highest point of one mapping, and of each in a batch; what stays."""
        async with self.opened(location) as add:
            await self.one_by_one(add, PORTS[:50])
            one = await _traced(add(PORTS[0]))
            many = await _traced(self.one_by_one(add, PORTS[:count]))
            batch = await _traced(self.at_once(add, PORTS[:count]))
        return {
            "peak": one[0],
            "kept": many[1] / count,
            "batch_peak": batch[0] / count,
            "batch_kept": batch[1] / count,
        }

    async def _batch(self, location: str, ports: Sequence[int], way: str, *, watch: bool) -> Batch:
        async with self.opened(location) as add:
            await self.one_by_one(add, ports[:1])
            gc.collect()
            async with Heartbeat() if watch else nullcontext() as heartbeat:
                started, cpu = time.perf_counter(), cpu_seconds()
                made = await (self.one_by_one if way == ONE_BY_ONE else self.at_once)(add, ports)
                batch = Batch(time.perf_counter() - started, cpu_seconds() - cpu, made)
        if heartbeat:
            batch.stall, batch.worked = heartbeat.longest, heartbeat.longest_cpu
        return batch

    async def _swallow(self, location: str) -> tuple[float, float | None]:
        async with Heartbeat() as heartbeat:
            started = time.perf_counter()
            try:
                async with self.opened(location) as add:
                    await add(1)
            except Exception as error:
                print_once(error)
            seconds = time.perf_counter() - started
        return seconds, heartbeat.longest


class BlockingPeer(Peer):
    """A peer that blocks its thread: called in a loop, or by 128 threads next to an event loop."""

    @abstractmethod
    def open(self, location: str) -> Add:
        """Read the description, and return what maps a port."""

    @asynccontextmanager
    async def opened(self, location: str) -> AsyncIterator[Add]:
        """Have threads that can do it at once."""
        with ThreadPoolExecutor(THREADS) as self._pool:
            yield self.open(location)

    def swallow(self, location: str) -> tuple[float, float | None]:
        """Open the gateway and ask; nothing can be said of a loop, the thread is blocked all the time."""
        started = time.perf_counter()
        _succeeds(lambda port: self.open(location)(port), 1)
        return time.perf_counter() - started, None

    def batch(self, location: str, ports: Sequence[int], way: str, *, watch: bool) -> Batch:
        """Have no event loop where one mapping is made after another: its memory would count."""
        if way == AT_ONCE:
            return super().batch(location, ports, way, watch=watch)
        add = self.open(location)
        add(ports[0])
        gc.collect()
        started, cpu = time.perf_counter(), cpu_seconds()
        made = sum(_succeeds(add, port) for port in ports)
        return Batch(time.perf_counter() - started, cpu_seconds() - cpu, made)

    async def one_by_one(self, add: Add, ports: Sequence[int]) -> int:
        """Return how many could be made, one after another."""
        return sum(_succeeds(add, port) for port in ports)

    async def at_once(self, add: Add, ports: Sequence[int]) -> int:
        """Return how many the threads of a pool could make."""
        loop = asyncio.get_running_loop()
        return sum(await asyncio.gather(*(loop.run_in_executor(self._pool, _succeeds, add, port) for port in ports)))


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


_seen: set[str] = set()


def print_once(error: BaseException) -> None:
    """Write an error to standard error, each kind once."""
    if type(error).__name__ not in _seen:
        _seen.add(type(error).__name__)
        print(f"{type(error).__name__}: {str(error)[:200]}", file=sys.stderr)


def _succeeds(add: Add, port: int) -> bool:
    try:
        add(port)
    except Exception as error:
        print_once(error)
        return False
    return True


async def _traced(work: Awaitable[object]) -> tuple[int, int]:
    """Return the bytes that Python's memory grew by at the highest point of some work, and those that stay."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await work
        peak = tracemalloc.get_traced_memory()[1]
        gc.collect()
        return peak - before, tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
