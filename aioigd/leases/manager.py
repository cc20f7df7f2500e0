"""The one task that keeps all leases of a mapper alive, and how leases begin and end.

The task sleeps until the next thing is due: a mapping to look after or to renew, a poll of the gateway, or a
recovery because a hint, a failure or the clock says that the gateway may have lost everything. Nothing here talks
to the network but through :class:`~aioigd.leases.keepable.Keepable`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Final

from ..errors import IGDError, UsageError
from ..models import Pinhole
from . import acquisition
from .keepable import Keepable
from .lease import Lease
from .leased_mapping import Holding
from .monitor import Contact
from .pinholes import Passages
from .ports import PortsInUse
from .renewal import Tending
from .request import Claim
from .timetable import Timetable

__all__ = ["Keeper"]

log = logging.getLogger("aioigd.lease")

RELEASE_TIME: Final = 5.0
"""Seconds that the end of a lease waits for a gateway that lets go of nothing, and how long it may take in all:"""
_LONGEST_RELEASE: Final = 30.0
_SUSPENDED: Final = 5.0
"""Seconds by which the wall clock must run ahead of the monotonic one to tell a suspended machine."""
_LONGEST_SLEEP: Final = 86_400.0
"""Seconds: call_at() takes no infinity, and nobody notices."""
_DEFECT_PAUSE: Final = 1.0


class Keeper:
    """Holds leases. Its task runs while there is one to hold."""

    def __init__(self, router: Keepable, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._router = router
        self._wall_clock = wall_clock
        self._holdings: dict[Lease, list[Holding]] = {}
        self._claims: dict[Lease, Claim] = {}
        self._intervals: Counter[float] = Counter()
        self._ports = PortsInUse()
        self._timetable: Timetable[Holding] = Timetable()
        self._contact = Contact(router, self._holdings, self._suspect_all, self._wake)
        self._tending = Tending(router, self._timetable, self._contact.lose_touch)
        self._passages = Passages(router)
        self._task: asyncio.Task[None] | None = None
        self._taking: set[asyncio.Task[None]] = set()
        self._releasing: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.Future[None] | None = None
        self._alarm_at = 0.0
        self._letting_go = asyncio.Semaphore(acquisition.AT_ONCE)
        self._let_go_at = float("-inf")
        self._closed = False

    def __len__(self) -> int:
        return len(self._holdings)

    async def hold(self, claim: Claim) -> Lease:
        """Make the mappings of a claim and keep them from now on.

        Raises the IGDError of what could not be made, unless it is not required: then the lease begins as lost, and
        is tried again and again.
        """
        lease = Lease()
        task = asyncio.get_running_loop().create_task(self._take(lease, claim))
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)
        try:
            await task
        except asyncio.CancelledError:
            await self.release(lease)  # it may have been ready at that moment
            if self._closed and not _is_cancelled():
                raise UsageError("this PortMapper was closed before the lease began") from None
            raise
        return lease

    async def release(self, lease: Lease) -> None:
        """End a lease and delete its mappings, in bounded time; cancelled, it goes on in the background."""
        holdings = self._holdings.pop(lease, ())
        claim = self._claims.pop(lease, None)
        if claim is not None:
            self._intervals.subtract((claim.poll,))
            self._intervals += Counter()  # drops what nobody wants any more
            self._contact.interval = min(self._intervals, default=self._contact.interval)
        lease.end()
        await self._end(lease, holdings)

    async def close(self) -> None:
        """End all leases, also those that are just about to begin."""
        self._closed = True
        try:
            for task in tuple(self._taking):
                task.cancel()
            if self._taking:
                await asyncio.wait(tuple(self._taking))
        finally:
            releases = [self.release(lease) for lease in tuple(self._holdings)]
            await asyncio.gather(*releases)
            if self._releasing:
                await asyncio.wait(tuple(self._releasing))

    async def _take(self, lease: Lease, claim: Claim) -> None:
        holdings: list[Holding] = []
        try:
            outcomes = await self._try(lease, claim, holdings)
            pinholes = claim.pinholes(holding.request for holding in holdings)
            await self._passages.open(lease, pinholes, required=claim.required)
            if None in outcomes:
                await self._contact.introduce(lease)
        except BaseException:
            await self._end(lease, holdings)
            raise
        self._holdings[lease] = holdings
        self._claims[lease] = claim
        for holding, outcome in zip(holdings, outcomes, strict=True):
            if outcome is None:
                self._tending.kept(holding)
            else:
                self._tending.failed(holding, outcome)
        self._intervals[claim.poll] += 1
        self._contact.begin(min(self._intervals))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        self._wake()

    async def _try(self, lease: Lease, claim: Claim, holdings: list[Holding]) -> Sequence[IGDError | None]:
        """Make the mappings of a claim, note them in ``holdings``, and return what became of each."""
        outcomes: Sequence[IGDError | None]
        if claim.choices:
            outcome = await acquisition.take_one_of(self._router, lease, claim, self._ports, holdings)
            outcomes = [outcome] * len(holdings)
        else:
            wanted = [request for port in claim.ports for request in claim.requests(port)]
            holdings += [Holding(lease, number, claim, one, self._ports) for number, one in enumerate(wanted)]
            outcomes = await acquisition.take_each(self._router, holdings, required=claim.required)
        failure = next(filter(None, outcomes), None)
        if failure is not None and claim.required:
            raise failure
        return outcomes

    # Keeping

    async def _run(self) -> None:
        ahead = self._clock_lead()
        listening = await self._contact.listen()
        try:
            while True:
                await self._sleep()
                ahead = self._heed_suspension(ahead)
                try:
                    await self._do_what_is_due()
                except Exception:
                    log.exception("leases could not be looked after")
                    await asyncio.sleep(_DEFECT_PAUSE)
        finally:
            await listening.close()

    async def _do_what_is_due(self) -> None:
        now = self._now()
        if self._contact.recover_due <= now:
            await self._contact.recover(self._tending)
        elif self._contact.poll_due <= now:
            await self._contact.poll(self._tending)
            self._passages.follow_address(now)
        elif self._contact.is_lost:
            await self._postpone(self._timetable.take(now, acquisition.AT_ONCE))
        else:
            mappings = self._timetable.take(now, acquisition.AT_ONCE)
            await _all([*map(self._tending.tend, mappings), *self._passages.take_due(now)])

    async def _postpone(self, due: Iterable[Holding]) -> None:
        """Leave mappings until the gateway is back: no use in asking it for each."""
        now = self._now()
        later = max(self._contact.poll_due, now) + 0.01
        self._passages.postpone(now, later)
        for holding in due:
            if holding.has_expired(now):
                holding.lease.lose(holding.number)
            self._timetable.set(holding, later)
        await asyncio.sleep(0)  # there may be thousands of them

    def _suspect_all(self) -> None:
        now = self._now()
        self._passages.renew_all(now)
        for lease, holdings in self._holdings.items():
            for holding in holdings:
                holding.suspect = holding.mapping is not None
                if holding.suspect:
                    lease.renewing(holding.number)
                self._timetable.set(holding, now)

    def _heed_suspension(self, ahead: float) -> float:
        """Look after everything where the machine has slept. Return by how much the wall clock is ahead now."""
        lead = self._clock_lead()
        if lead - ahead > _SUSPENDED:
            log.info("this machine was suspended for %.0f s; all leases are looked after", lead - ahead)
            for holdings in self._holdings.values():
                for holding in holdings:
                    holding.skip(lead - ahead)
            self._suspect_all()
            self._contact.poll_due = self._now()
        return lead

    async def _sleep(self) -> None:
        """Wait until something is due."""
        loop = asyncio.get_running_loop()
        while (due := self._next_due()) > loop.time():
            self._alarm = loop.create_future()
            self._alarm_at = due
            timer = loop.call_at(due, _ring, self._alarm)
            try:
                await self._alarm
            finally:
                timer.cancel()
                self._alarm = None

    def _next_due(self) -> float:
        contact = self._contact
        longest = self._now() + _LONGEST_SLEEP
        return min(self._timetable.next, self._passages.due, contact.poll_due, contact.recover_due, longest)

    def _wake(self) -> None:
        if self._alarm is not None and self._next_due() < self._alarm_at:
            _ring(self._alarm)

    # Ending

    async def _end(self, lease: Lease, holdings: Sequence[Holding]) -> None:
        """Let go of what a lease holds, in a task that goes on if this is cancelled."""
        for holding in holdings:
            self._timetable.remove(holding)
        unwanted = [holding for holding in holdings if holding.end()]
        task = asyncio.get_running_loop().create_task(self._wind_up(unwanted, self._passages.end(lease)))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)
        await asyncio.shield(task)

    async def _wind_up(self, unwanted: Sequence[Holding], pinholes: Sequence[Pinhole]) -> None:
        """Stop if there is nothing left to keep, and delete what is unwanted as far as time allows."""
        task = None
        if not self._holdings:
            self._contact.end()
            task, self._task = self._task, None
            if task is not None:
                task.cancel()
        work = asyncio.gather(*map(self._let_go, unwanted), *map(self._passages.close, pinholes))
        try:
            await self._wait_while_they_go(work)
        finally:
            is_late = work.cancel()
            with suppress(asyncio.CancelledError):
                await work
        if is_late:
            number = len(unwanted) + len(pinholes)
            log.info("the gateway did not let go of some of %d mappings and pinholes in time", number)
        if task is not None:
            await asyncio.wait([task])

    async def _wait_while_they_go(self, work: asyncio.Future[list[None]]) -> None:
        """Wait as long as the gateway lets go of one thing after the other: hundreds take it a while."""
        begun = self._now()
        while not work.done():
            until = min(max(begun, self._let_go_at) + RELEASE_TIME, begun + _LONGEST_RELEASE)
            if until <= self._now():
                break
            await asyncio.wait([work], timeout=until - self._now())

    async def _let_go(self, holding: Holding) -> None:
        async with self._letting_go:  # so that the first is gone before the last is looked for
            if await acquisition.let_go(self._router, holding):
                self._let_go_at = self._now()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _clock_lead(self) -> float:
        return self._wall_clock() - self._now()


def _ring(alarm: asyncio.Future[None]) -> None:
    if not alarm.done():
        alarm.set_result(None)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _all(work: Iterable[Coroutine[None, None, None]]) -> None:
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
