"""Peers that block, and how a batch is measured for all of them alike."""

from __future__ import annotations

import asyncio
import gc
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ..stalls import Heartbeat
from .interface import ONE_BY_ONE, Batch, Peer, cpu_seconds, print_once

THREADS: Final = 128

Add = Callable[[int], object]


class BlockingPeer(Peer):
    """A peer that blocks its thread: called in a loop, or by 128 threads next to an event loop."""

    @abstractmethod
    def open(self, location: str) -> Add:
        """Get to know the gateway, and return what maps a port."""

    def batch(self, location: str, ports: Sequence[int], way: str, *, watch: bool) -> Batch:
        """Call one after another, or hand them to the threads of a pool."""
        add = self.open(location)
        add(ports[0])
        gc.collect()
        if way == ONE_BY_ONE:
            started, cpu = time.perf_counter(), cpu_seconds()
            made = sum(_succeeds(add, port) for port in ports)
            return Batch(time.perf_counter() - started, cpu_seconds() - cpu, made)
        return asyncio.run(self._threads(add, ports, watch=watch))

    def swallow(self, location: str) -> tuple[float, float | None]:
        """Open the gateway and ask; nothing can be said of a loop, the thread is blocked all the time."""
        started = time.perf_counter()
        try:
            self.open(location)(1)
        except Exception as error:
            print_once(error)
        return time.perf_counter() - started, None

    async def _threads(self, add: Add, ports: Sequence[int], *, watch: bool) -> Batch:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(THREADS) as pool:
            async with Heartbeat() as heartbeat:
                started, cpu = time.perf_counter(), cpu_seconds()
                calls = [loop.run_in_executor(pool, _succeeds, add, port) for port in ports]
                made = sum(await asyncio.gather(*calls))
                batch = Batch(time.perf_counter() - started, cpu_seconds() - cpu, made)
        return batch.watched(heartbeat) if watch else batch


def _succeeds(add: Add, port: int) -> bool:
    try:
        add(port)
    except Exception as error:
        print_once(error)
        return False
    return True
