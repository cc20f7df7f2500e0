"""Work that many callers share, and work that has to wait its turn.

The rule: joining, leaving and cancelling cost a caller O(1), whatever the number of the others, and what one
caller does is never felt by another. So each caller waits for a future of its own, and none for the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from ..errors import IGDError, UnexpectedError
from .calls import Call

__all__ = ["SETTLE_TIME", "Flight", "Lanes"]

T = TypeVar("T")

SETTLE_TIME: Final = 2.0
"""Seconds that an abandoned call has to hear what became of its request, and again to undo it."""


class Flight(Generic[T]):
    """One piece of work under way, in a task of its own, and those who wait for its result.

    When the last one leaves, the work is cancelled; if it has a request out that may change the gateway, it gets
    :data:`SETTLE_TIME` to put that right first. Whoever joins in that time takes it over. ``orphaned`` is called
    where a result was ready, but everybody who waited was cancelled before it reached them.
    """

    __slots__ = (
        "_after",
        "_delivered",
        "_ended",
        "_give_up",
        "_loop",
        "_orphaned",
        "_settled",
        "_task",
        "_waiters",
        "_work",
        "call",
        "key",
    )

    def __init__(
        self,
        key: Hashable,
        call: Call,
        work: Callable[[Call], Awaitable[T]],
        *,
        after: Flight[Any] | None = None,
        orphaned: Callable[[Call], None] | None = None,
    ) -> None:
        self.key = key
        self.call = call
        self._work = work
        self._after = after
        self._orphaned = orphaned
        self._delivered = False
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._waiters: set[asyncio.Future[T]] = set()
        self._settled: asyncio.Future[None] | None = None
        self._give_up: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[T] = self._loop.create_task(self._run())

    @property
    def unfinished_predecessor(self) -> Flight[Any] | None:
        """The flight that this one waits for, or was waiting for when it was cancelled."""
        return self._after

    @property
    def joinable(self) -> bool:
        """Whether one more caller may still wait for this result."""
        return not self._task.done() and not self._task.cancelling() and not self.call.closing

    async def join(self) -> T:
        """Wait for the result. Cancelling this leaves the flight, and disturbs nobody in it."""
        waiter: asyncio.Future[T] = self._loop.create_future()
        self._waiters.add(waiter)
        if self.call.abandoned:
            self._readopt()
        try:
            result = await waiter
        except BaseException:
            self._leave(waiter)
            raise
        self._waiters.discard(waiter)
        self._delivered = True
        return result

    def abandon(self) -> None:
        """End the work: at once, or when what it has sent is settled."""
        self.call.abandoned = True
        if not self.call.committed:
            self._task.cancel()
        elif self._give_up is None:
            self._give_up = self._loop.call_later(SETTLE_TIME, self._task.cancel)

    def drop(self) -> None:
        """Cancel the work, whatever it has sent."""
        self.call.closing = True
        self._task.cancel()

    async def settled(self) -> None:
        """Wait until the work has ended, however it did. Several may wait; cancelling one disturbs nobody."""
        if self._ended:
            return
        if self._settled is None:
            self._settled = self._loop.create_future()
        await asyncio.shield(self._settled)

    def on_end(self, callback: Callable[[Flight[T]], None]) -> None:
        """Call back once, when the work has ended and its results are given out."""
        self._task.add_done_callback(lambda _: self._end(callback))

    def _leave(self, waiter: asyncio.Future[T]) -> None:
        """Go without a result: it failed, or whoever waited for it was cancelled."""
        self._waiters.discard(waiter)
        if waiter.done() and not waiter.cancelled():
            waiter.exception()  # a caller that was cancelled at the last moment has seen it, too
        if not self._waiters:
            if not self._task.done():
                self.abandon()
            elif not self._delivered and self._orphaned is not None:
                self._orphaned(self.call)

    def _readopt(self) -> None:
        self.call.abandoned = False
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None

    async def _run(self) -> T:
        while self._after is not None:
            await self._after.settled()
            # One that was cancelled before its turn had others before it, for which we wait in its stead.
            self._after = self._after.unfinished_predecessor
        return await self._work(self.call)

    def _end(self, callback: Callable[[Flight[T]], None]) -> None:
        if self._give_up is not None:
            self._give_up.cancel()
        self._give_out()
        self._ended = True
        callback(self)
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def _give_out(self) -> None:
        waiters = [waiter for waiter in self._waiters if not waiter.done()]
        if self._task.cancelled():
            for waiter in waiters:
                waiter.cancel()
            return
        failure = self._task.exception()
        if failure is None:
            result = self._task.result()
            for waiter in waiters:
                waiter.set_result(result)
            return
        error = failure if isinstance(failure, IGDError) else _wrapped(failure)
        for waiter in waiters:
            waiter.set_exception(error.copy())


class Lanes:
    """Keeps order: within a lane, flights run one after another as they were asked for.

    A call that equals the last one in its lane joins it instead of following it, as long as that is under way.
    """

    def __init__(self) -> None:
        self._tails: dict[Hashable, Flight[Any]] = {}
        self._flights: set[Flight[Any]] = set()

    def __len__(self) -> int:
        return len(self._flights)

    def enter(
        self,
        lane: Hashable,
        key: Hashable,
        call: Call,
        work: Callable[[Call], Awaitable[T]],
        orphaned: Callable[[Call], None] | None = None,
    ) -> Flight[T]:
        """Return the flight to wait for: the last in the lane if its key is equal, or a new one behind it."""
        known = self.find(lane, key)
        if known is not None:
            return known
        flight = Flight(key, call, work, after=self._tails.get(lane), orphaned=orphaned)
        self._tails[lane] = flight
        self._flights.add(flight)
        flight.on_end(lambda ended: self._leave(lane, ended))
        return flight

    def find(self, lane: Hashable, key: Hashable) -> Flight[Any] | None:
        """Return the flight that a call with this key would join, None where it would be a new one."""
        tail = self._tails.get(lane)
        return tail if tail is not None and tail.key == key and tail.joinable else None

    async def settle(self) -> None:
        """Abandon everything that is under way, and wait until it has ended: at most about twice SETTLE_TIME."""
        flights = tuple(self._flights)
        for flight in flights:
            flight.abandon()
        try:
            for flight in flights:
                await flight.settled()
        finally:
            for flight in flights:
                if flight.call.abandoned:
                    flight.drop()

    def drop(self) -> None:
        """Cancel everything that is under way, settled or not."""
        for flight in self._flights:
            flight.drop()

    def _leave(self, lane: Hashable, flight: Flight[Any]) -> None:
        self._flights.discard(flight)
        if self._tails.get(lane) is flight:
            before = flight.unfinished_predecessor
            if before in self._flights:
                self._tails[lane] = before
            else:
                del self._tails[lane]


def _wrapped(failure: BaseException) -> IGDError:
    # A defect of ours or of a library's: still an IGDError for the caller, who is promised nothing else.
    error = UnexpectedError(f"unexpected {type(failure).__name__}: {failure}")
    with suppress(Exception):
        error.__cause__ = failure
    return error
