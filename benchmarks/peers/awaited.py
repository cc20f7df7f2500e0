"""Peers that are awaited, and how a batch is measured for all of them alike."""

from __future__ import annotations

import asyncio
import gc
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from ..stalls import Heartbeat
from .interface import ONE_BY_ONE, Batch, Peer, cpu_seconds, print_once

AsyncAdd = Callable[[int], Awaitable[object]]


class AsyncPeer(Peer):
    """A peer that is awaited."""

    @abstractmethod
    def opened(self, location: str) -> AbstractAsyncContextManager[AsyncAdd]:
        """Return a context in which the gateway is known; it gives what maps a port."""

    def batch(self, location: str, ports: Sequence[int], way: str, *, watch: bool) -> Batch:
        """Await one after another, or gather them all."""
        return asyncio.run(self._batch(location, ports, way, watch=watch))

    def swallow(self, location: str) -> tuple[float, float | None]:
        """Watch the loop while the gateway is opened and asked."""
        return asyncio.run(self._swallow(location))

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

    async def _batch(self, location: str, ports: Sequence[int], way: str, *, watch: bool) -> Batch:
        async with self.opened(location) as add:
            await add(ports[0])
            gc.collect()
            if not watch:
                return await self._timed(add, ports, way)
            async with Heartbeat() as heartbeat:
                batch = await self._timed(add, ports, way)
            return batch.watched(heartbeat)

    async def _timed(self, add: AsyncAdd, ports: Sequence[int], way: str) -> Batch:
        started, cpu = time.perf_counter(), cpu_seconds()
        made = await (self.one_by_one(add, ports) if way == ONE_BY_ONE else self.at_once(add, ports))
        return Batch(time.perf_counter() - started, cpu_seconds() - cpu, made)

    async def one_by_one(self, add: AsyncAdd, ports: Sequence[int]) -> int:
        """Return how many could be made, one after another."""
        made = 0
        for port in ports:
            try:
                await add(port)
                made += 1
            except Exception as error:
                print_once(error)
        return made

    async def at_once(self, add: AsyncAdd, ports: Sequence[int]) -> int:
        """Return how many could be made, all gathered."""
        results = await asyncio.gather(*(add(port) for port in ports), return_exceptions=True)
        errors = [one for one in results if isinstance(one, BaseException)]
        if errors:
            print_once(errors[0])
        return len(results) - len(errors)
