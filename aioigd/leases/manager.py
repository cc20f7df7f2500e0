"""What is due? One task keeps all leases of a mapper alive; here leases also begin and end.

The task sleeps until the next thing is due: a mapping to check or to renew, pinholes to prolong, a poll of the gateway,
or a rediscovery because of a hint. While the gateway is away only the poll is done. Nothing here sends a request but
through the dispatcher.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from ..core.dispatcher import Dispatcher
from ..core.gateway_cache import GatewayCache
from ..errors import IGDError, UsageError
from ..models import Pinhole
from .acquisition import MAX_CONCURRENT, Acquisition
from .homecoming import Homecoming, is_away_from_home
from .lease import Lease, LeaseRecord
from .leased_mapping import LeasedMapping
from .monitor import Contents, Finding, GatewayMonitor
from .pinholes import PinholeManager
from .renewal import Renewal
from .request import LeaseRequest
from .schedule import DueQueue

__all__ = ["RELEASE_LIMIT", "RELEASE_STALL", "LeaseManager"]

log = logging.getLogger("aioigd.lease")

RELEASE_STALL: Final = 5.0
"""Seconds without progress after which the end of a lease no longer waits for the gateway."""
RELEASE_LIMIT: Final = 30.0
"""Seconds that the end of a lease takes at most, whatever the progress."""
_SUSPENDED: Final = 5.0
"""Seconds by which the wall clock must run ahead of the monotonic one to show that the machine was suspended."""
_LONGEST_SLEEP: Final = 86_400.0
"""Seconds: call_at() takes no infinity, and nobody notices."""
_POLL_MARGIN: Final = 0.01
"""Seconds after the next poll at which what is postponed is due."""
_DEFECT_PAUSE: Final = 1.0
"""Seconds to wait after an unexpected exception, so that it does not fill the log."""


class LeaseManager:
    """Begins, keeps and ends leases. Its task runs while there is a lease to keep."""

    def __init__(
        self, dispatcher: Dispatcher, cache: GatewayCache, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._wall_clock = wall_clock
        self._leases: dict[LeaseRecord, Sequence[LeasedMapping]] = {}
        self._poll_intervals: Counter[float] = Counter()
        self._queue: DueQueue[LeasedMapping] = DueQueue()
        self._sample_from: list[LeaseRecord] = []
        self._acquisition = Acquisition(dispatcher)
        self._monitor = GatewayMonitor(dispatcher, cache, self._wake)
        self._renewal = Renewal(cache, self._acquisition, self._queue, self._monitor)
        self._pinholes = PinholeManager(dispatcher, cache)
        self._homecoming = Homecoming(
            dispatcher, cache, self._acquisition, self._queue, self._renewal, self._pinholes.leave
        )
        self._task: asyncio.Task[None] | None = None
        self._beginning: set[asyncio.Task[None]] = set()
        self._releasing: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.Future[None] | None = None
        self._alarm_at = 0.0
        self._concurrent_releases = asyncio.Semaphore(MAX_CONCURRENT)
        self._last_release = float("-inf")
        self._closed = False

    def __len__(self) -> int:
        return len(self._leases)

    async def hold(self, request: LeaseRequest) -> Lease:
        """Make the mappings that are asked for, and keep them from now on.

        Raises the IGDError of what could not be made, unless it is not required: then the lease begins as lost, and
        is tried again and again.
        """
        self._check_open()
        record = LeaseRecord(request)
        task = asyncio.get_running_loop().create_task(self._begin(record))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)
        try:
            await task
        except asyncio.CancelledError:
            await self.release(record)  # it may have been ready at that moment
            if self._closed and not _is_cancelled():
                raise UsageError("this PortMapper was closed before the lease began") from None
            raise
        return Lease(record, self.release)

    async def release(self, record: LeaseRecord) -> None:
        """End a lease and delete its mappings, in bounded time; cancelled, it goes on in the background."""
        mappings = self._leases.pop(record, None)
        if mappings is not None:
            self._poll_intervals.subtract((record.request.poll_interval,))
            self._poll_intervals += Counter()  # drops what nobody wants any more
            self._monitor.interval = min(self._poll_intervals, default=self._monitor.interval)
        record.end()
        await self._end(record, mappings or ())

    async def close(self) -> None:
        """End all leases, also those that are just about to begin."""
        self._closed = True
        try:
            for task in tuple(self._beginning):
                task.cancel()
            if self._beginning:
                await asyncio.wait(tuple(self._beginning))
        finally:
            await asyncio.gather(*map(self.release, tuple(self._leases)))
            if self._releasing:
                await asyncio.wait(tuple(self._releasing))
            await self._homecoming.close()

    # Beginning

    async def _begin(self, record: LeaseRecord) -> None:
        request = record.request
        mappings: list[LeasedMapping] = []
        try:
            await self._homecoming.begin(record)
            outcomes = await self._acquire(record, mappings)
            await self._pinholes.open(record, request.pinhole_requests(mapping.request for mapping in mappings))
            if None in outcomes:
                await self._show_address(record)
        except BaseException:
            await self._end(record, mappings)
            raise
        finally:
            self._homecoming.begun(record)
        self._homecoming.follow(mappings)
        record.mappings = mappings
        self._leases[record] = mappings
        for mapping, outcome in zip(mappings, outcomes, strict=True):
            if outcome is None:
                self._renewal.kept(mapping, before=None)
            else:
                self._renewal.failed(mapping, outcome)
        self._poll_intervals[request.poll_interval] += 1
        self._monitor.start(min(self._poll_intervals))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        self._wake()

    async def _acquire(self, record: LeaseRecord, mappings: list[LeasedMapping]) -> Sequence[IGDError | None]:
        """Make the mappings of a lease, note them in ``mappings``, and return what became of each."""
        request = record.request
        outcomes: Sequence[IGDError | None]
        if request.choices:
            outcome = await self._acquisition.acquire_one_of(record, mappings)
            outcomes = [outcome] * len(mappings)
        else:
            wanted = (one for port in request.ports for one in request.mapping_requests(port))
            mappings += [self._acquisition.new_mapping(record, one) for one in wanted]
            outcomes = await self._acquisition.acquire_each(mappings, required=request.required)
        for failure in filter(None, outcomes):
            if request.required or isinstance(failure, UsageError):
                raise failure
        return outcomes

    async def _show_address(self, record: LeaseRecord) -> None:
        """Let a new lease show the external address."""
        try:
            if await self._monitor.learn_address():
                self._announce_address()
        except IGDError as error:
            log.info("the external address is not known yet: %s", error)
        record.set_external_address(self._monitor.external_address, silently=True)

    # Keeping

    async def _run(self) -> None:
        lead = self._clock_lead()
        listener = await self._monitor.listen()
        try:
            while True:
                await self._sleep()
                lead = self._check_suspension(lead)
                try:
                    await self._do_what_is_due()
                except Exception:
                    log.exception("leases could not be looked after")
                    await asyncio.sleep(_DEFECT_PAUSE)
        finally:
            await listener.close()

    async def _do_what_is_due(self) -> None:
        now = self._now()
        if self._monitor.rediscovery_due <= now:
            await self._apply(await self._monitor.rediscover())
        elif self._monitor.poll_due <= now:
            finding = await self._monitor.poll()
            await self._apply(finding)
            self._pinholes.follow_address(now)
            if finding.contents is not Contents.IN_DOUBT and any(map(is_away_from_home, self._leases.values())):
                self._monitor.look_for_home()
        elif self._monitor.home_due <= now:
            await self._apply(await self._monitor.find_home())
        elif self._monitor.is_away:
            await self._postpone(self._queue.take(now, MAX_CONCURRENT))
        else:
            mappings = self._queue.take(now, MAX_CONCURRENT)
            await _all([*map(self._renewal.look_after, mappings), *self._pinholes.take_due(now)])

    async def _apply(self, finding: Finding) -> None:
        """Do what follows for leases from what was found out about the gateway."""
        if finding.has_new_address:
            self._announce_address()
        if finding.left is not None:
            self._homecoming.left_behind(finding.left, self._at_gateway())
        elif finding.is_replaced:
            for mappings in self._leases.values():
                self._homecoming.follow(mappings)
            for record in self._leases:
                record.gateway_replaced()
        if finding.home is not None and await self._homecoming.bring_home(finding.home, self._leases):
            self._monitor.went_home()
        may_be_empty = finding.contents is Contents.MAY_BE_GONE
        if finding.contents is Contents.NEEDS_SAMPLE:
            may_be_empty = not await self._is_sample_there()
        if may_be_empty:
            self._suspect_all()
        elif finding.contents is Contents.IN_DOUBT:
            for mapping in self._at_gateway():
                mapping.suspected()
        self._monitor.concluded(finding, may_be_empty=may_be_empty)

    def _announce_address(self) -> None:
        for record in self._leases:
            record.set_external_address(self._monitor.external_address)

    def _suspect_all(self) -> None:
        """Look after everything as soon as possible: it may be gone."""
        now = self._now()
        self._pinholes.renew_all(now)
        for mapping in self._at_gateway():
            mapping.suspected()
            self._queue.set(mapping, now)

    def _at_gateway(self) -> Iterator[LeasedMapping]:
        """The mappings at the gateway in use: those of a lease may have stayed at another one."""
        return (one for mappings in self._leases.values() for one in mappings if one.dispatcher is None)

    async def _is_sample_there(self) -> bool:
        """Check one mapping of one lease, each time another's: a restart loses all of them alike."""
        for _ in range(2):
            while self._sample_from:
                for mapping in self._leases.get(self._sample_from.pop(), ()):
                    if mapping.is_held and mapping.dispatcher is None:
                        return await self._renewal.is_there(mapping)
            self._sample_from = list(self._leases)
        return True

    async def _postpone(self, due: Iterable[LeasedMapping]) -> None:
        """Leave mappings until the gateway is back: no use in asking it for each."""
        now = self._now()
        later = max(self._monitor.poll_due, now) + _POLL_MARGIN
        self._pinholes.postpone(now, later)
        for mapping in due:
            mapping.expired(now)
            mapping.record.mapping_changed(mapping)
            self._queue.set(mapping, later)
        await asyncio.sleep(0)  # there may be thousands of them

    def _check_suspension(self, lead: float) -> float:
        """Look after everything where the machine was suspended. Return by how much the wall clock is ahead now."""
        lead_now = self._clock_lead()
        suspended = lead_now - lead
        if suspended > _SUSPENDED:
            log.info("this machine was suspended for %.0f s; all leases are looked after", suspended)
            for mappings in self._leases.values():
                for mapping in mappings:
                    mapping.shift_clock(suspended)
                    if mapping.dispatcher is not None:
                        mapping.suspected()
                        self._queue.set(mapping, self._now())
            self._suspect_all()
            self._monitor.poll_now()
        return lead_now

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
        return min(self._queue.next, self._pinholes.next_due, self._monitor.next_due, self._now() + _LONGEST_SLEEP)

    def _wake(self) -> None:
        if self._alarm is not None and self._next_due() < self._alarm_at:
            _ring(self._alarm)

    # Ending

    async def _end(self, record: LeaseRecord, mappings: Sequence[LeasedMapping]) -> None:
        """Delete what a lease holds, in a task that goes on if this is cancelled."""
        for mapping in mappings:
            self._queue.remove(mapping)
        unwanted = [mapping for mapping in mappings if self._acquisition.end(mapping)]
        self._homecoming.bind(unwanted)
        task = asyncio.get_running_loop().create_task(self._wind_up(unwanted, self._pinholes.end(record)))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)
        await asyncio.shield(task)

    async def _wind_up(self, unwanted: Sequence[LeasedMapping], pinholes: Sequence[Pinhole]) -> None:
        """Stop if there is nothing left to keep, and delete what is unwanted as far as time allows."""
        task = None
        if not self._leases:
            self._monitor.stop()
            task, self._task = self._task, None
            if task is not None:
                task.cancel()
        work = asyncio.gather(*map(self._release, unwanted), *map(self._pinholes.close, pinholes))
        try:
            await self._wait_while_it_progresses(work)
        finally:
            is_late = work.cancel()
            with suppress(asyncio.CancelledError):
                await work
        if is_late:
            number = len(unwanted) + len(pinholes)
            log.info("the gateway did not delete some of %d mappings and pinholes in time", number)
        if task is not None:
            await asyncio.wait([task])

    async def _wait_while_it_progresses(self, work: asyncio.Future[list[None]]) -> None:
        """Wait as long as the gateway deletes one thing after the other: hundreds take it a while."""
        begun = self._now()
        while not work.done():
            until = min(max(begun, self._last_release) + RELEASE_STALL, begun + RELEASE_LIMIT)
            if until <= self._now():
                break
            await asyncio.wait([work], timeout=until - self._now())

    async def _release(self, mapping: LeasedMapping) -> None:
        async with self._concurrent_releases:  # so that the first is gone before the last is looked for
            if await self._acquisition.release(mapping):
                self._last_release = self._now()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this PortMapper is closed")

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
