"""What is due? One task keeps all leases of a mapper alive; here leases also begin and end.

The task sleeps until the next thing is due: a mapping to check or to renew, pinholes to prolong, a poll of the gateway,
or a rediscovery because of a hint. After a rediscovery or a poll the mappings that are due have as much time as that
took, before the next one: hints without number starve nothing. While the gateway is away only the poll is done. Nothing
here sends a request but through the dispatcher.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from ..core import background
from ..core.backend import Listener
from ..core.background import carry_through
from ..core.dispatcher import Dispatcher
from ..core.gateway_cache import GatewayCache
from ..errors import IGDError, UnexpectedError, UsageError
from ..text import get_logger
from .acquisition import MAX_CONCURRENT, Acquisition
from .defects import Defects
from .homecoming import Homecoming, is_away_from_home
from .lease import Lease, LeaseRecord, LeaseState
from .leased_mapping import LeasedMapping, MappingState
from .monitor import Contents, Finding, GatewayMonitor
from .owner_lock import Ownership
from .pinholes import PinholeManager
from .release import RELEASE_LIMIT, Progress, Release
from .renewal import Renewal
from .request import LeaseRequest
from .schedule import NEVER, DueQueue, backoff

__all__ = ["LeaseManager"]

log = get_logger("aioigd.lease")

_SUSPENDED: Final = 5.0
"""Seconds by which the wall clock must run ahead of the monotonic one to show that the machine was suspended."""
_LONGEST_SLEEP: Final = 86_400.0
"""Seconds: call_at() takes no infinity, and nobody notices."""
_POLL_MARGIN: Final = 0.01
"""Seconds after the next poll at which what is postponed is due."""
_DEFECT_PAUSE: Final = 1.0
"""Seconds to wait after an unexpected exception of the task, or before what one has left without a next time."""


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
        self._claims = Ownership(partial(_gateway_address, cache))
        self._acquisition = Acquisition(dispatcher, cache, self._claims)
        self._monitor = GatewayMonitor(dispatcher, cache, self._wake)
        self._defects = Defects()
        self._renewal = Renewal(cache, self._acquisition, self._queue, self._monitor, self._defects)
        self._pinholes = PinholeManager(dispatcher, cache, self._claims)
        self._homecoming = Homecoming(
            dispatcher, cache, self._acquisition, self._queue, self._renewal, self._pinholes.leave
        )
        self._task: asyncio.Task[None] | None = None
        self._beginning: set[asyncio.Task[None]] = set()
        self._releases: dict[LeaseRecord, tuple[Release, asyncio.Task[None]]] = {}
        self._in_background: dict[LeaseRecord, asyncio.Task[None]] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._has_failed = False
        self._alarm: asyncio.Future[None] | None = None
        self._alarm_at = 0.0
        self._progress = Progress(MAX_CONCURRENT, lambda: dispatcher.seconds_needed)
        self._renew_first_until = float("-inf")
        self._closed = False

    def __len__(self) -> int:
        return len(self._leases)

    async def hold(self, request: LeaseRequest) -> Lease:
        """Make the mappings that are asked for, and keep them from now on.

        Raises the IGDError of what could not be made, unless it is not required: then this returns at once, and the
        lease is LOST until it could be made in the background.
        """
        self._check_open()
        record = LeaseRecord(request)
        if not request.required:
            beginning = asyncio.get_running_loop().create_task(self._begin_in_background(record))
            self._in_background[record] = beginning
            beginning.add_done_callback(lambda _: self._in_background.pop(record, None))
            return Lease(record, self.release)
        task = asyncio.get_running_loop().create_task(self._begin(record))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)
        try:
            await asyncio.shield(task)
        except (asyncio.CancelledError, GeneratorExit) as error:
            task.cancel()  # what it has made is deleted in the background
            self.release(record)  # it may have been ready at that moment
            if self._closed and isinstance(error, asyncio.CancelledError) and not _is_cancelled():
                raise UsageError("this PortMapper was closed before the lease began") from None
            raise
        return Lease(record, self.release)

    def release(self, record: LeaseRecord, *, keep: bool = False) -> asyncio.Task[None]:
        """End a lease and return the task that deletes its mappings in the background, unless they are to be kept.

        The task takes no notice of cancellation, and its time is limited.
        """
        record.is_kept = keep or record.is_kept
        beginning = self._in_background.get(record)
        if beginning is not None:
            record.end()
            beginning.cancel()  # it deletes what it has made, unless that is to be kept, and ends
            return background.start(partial(_ended, beginning), RELEASE_LIMIT)
        mappings = self._leases.pop(record, None)
        if mappings is None and record in self._releases:
            return self._releases[record][1]
        if mappings is not None:
            self._poll_intervals.subtract((record.request.poll_interval,))
            self._poll_intervals += Counter()  # drops what nobody wants any more
            self._monitor.interval = min(self._poll_intervals, default=self._monitor.interval)
        record.end()
        return self._start_release(record, mappings or ())

    async def close(self) -> None:
        """End all leases, also those that are just about to begin. May be cancelled and called again."""
        self._closed = True
        for task in tuple(self._beginning):
            task.cancel()
        if self._beginning:
            await asyncio.wait(tuple(self._beginning))
        for record in (*self._leases, *self._in_background):
            self.release(record)
        while ending := [*self._in_background.values(), *(task for _, task in self._releases.values())]:
            await asyncio.wait(ending)
        if self._stopping:
            await asyncio.wait(tuple(self._stopping))
        await self._homecoming.close()
        self._acquisition.close()

    def abandon(self) -> None:
        """Give up the claims on ports, where the event loop is closed, and nothing can be deleted any more."""
        self._acquisition.close()

    # Beginning

    async def _begin_in_background(self, record: LeaseRecord) -> None:
        """Begin a lease that is not required; what is not the gateway's doing is shown by it, and it is tried again."""
        failures = 0
        while True:
            try:
                await self._begin(record)
            except Exception as error:
                self._defects.report("a lease could not begin", error, self._now())
                record.failure = _failure(error)
                if isinstance(error, UsageError):
                    return
                failures += 1
                await asyncio.sleep(backoff(failures))
            else:
                self._in_background.pop(record)
                return

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
            await carry_through(partial(_ended, self._start_release(record, mappings)), RELEASE_LIMIT)
            raise
        finally:
            self._homecoming.begun(record)
        self._homecoming.follow(mappings)
        record.failure = None
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
            self._task.add_done_callback(self._task_ended)
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
        record.set_external_address(self._monitor.external_address)

    # Keeping

    async def _run(self) -> None:
        """Look after the leases until this is cancelled. A defect does not end it, and is shown by the leases."""
        lead = self._clock_lead()
        listener: Listener | None = None
        try:
            listener = await self._monitor.listen()
        except Exception as error:
            self._show_failure(error)  # and go on: polls notice all that a listener would have heard
        try:
            while True:
                try:
                    await self._sleep()
                    lead = self._check_suspension(lead)
                    await self._do_what_is_due()
                except Exception as error:
                    self._show_failure(error)
                    await asyncio.sleep(_DEFECT_PAUSE)  # no longer: what does not fail is still to be looked after
                else:
                    self._failure_is_over()
        except GeneratorExit:
            raise  # its event loop is closed, and nothing can be awaited any more
        except BaseException:
            if listener is not None:
                await listener.close()
            raise

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Show that the task has ended, if nobody here has stopped it; the next lease begins another one."""
        error = None if task.cancelled() else task.exception()
        if task is self._task:
            self._task = None
            if self._leases:
                self._show_failure(error or UnexpectedError("the task that looks after leases was cancelled"))
        elif error is not None:
            log.warning("the task that looks after leases did not end well", exc_info=error)

    def _show_failure(self, error: BaseException) -> None:
        """Let all leases show why they are not looked after."""
        self._defects.report("leases could not be looked after", error, self._now())
        self._has_failed = True
        failure = _failure(error)
        for record in self._leases:
            record.failure = failure

    def _failure_is_over(self) -> None:
        if self._has_failed:
            self._has_failed = False
            for record in self._leases:
                record.failure = None

    async def _do_what_is_due(self) -> None:
        now = self._now()
        is_turn_of_monitor = self._monitor.is_away or now > self._renew_first_until or not self._is_work_due(now)
        if is_turn_of_monitor and self._monitor.next_due <= now:
            await self._follow_monitor(now)
            self._renew_first_until = 2 * self._now() - now
        elif self._monitor.is_away:
            mappings = self._queue.take(now, MAX_CONCURRENT)
            try:
                await self._postpone(mappings)
            finally:
                self._put_back(mappings)
        else:
            mappings = self._queue.take(now, MAX_CONCURRENT)
            try:
                await _all([*map(self._renewal.look_after, mappings), *self._pinholes.take_due(now)])
            finally:
                self._put_back(mappings)

    async def _follow_monitor(self, now: float) -> None:
        """Do what is due of the monitor."""
        if self._monitor.rediscovery_due <= now:
            await self._apply(await self._monitor.rediscover())
        elif self._monitor.poll_due <= now:
            finding = await self._monitor.poll()
            await self._apply(finding)
            self._pinholes.follow_address(now)
            if finding.contents is not Contents.IN_DOUBT and any(map(is_away_from_home, self._leases.values())):
                self._monitor.look_for_home()
        else:
            await self._apply(await self._monitor.find_home())

    def _put_back(self, mappings: Iterable[LeasedMapping]) -> None:
        """Make those due soon whose work has ended without a next time."""
        for mapping in mappings:
            if mapping.due == NEVER and not mapping.has_ended:
                self._queue.set(mapping, self._now() + _DEFECT_PAUSE)

    def _is_work_due(self, now: float) -> bool:
        return min(self._queue.next, self._pinholes.next_due) <= now

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
        is_missing = False
        if finding.contents is Contents.NEEDS_SAMPLE or (may_be_empty and finding.hint_followed_at is not None):
            is_there = await self._is_sample_there(after_hint=finding.hint_followed_at is not None)
            is_missing = is_there is False
            may_be_empty |= not is_there
        if may_be_empty:
            self._suspect_all()
        elif finding.contents is Contents.IN_DOUBT:
            for mapping in self._at_gateway():
                mapping.suspected()
        self._monitor.concluded(finding, may_be_empty=may_be_empty, is_missing=is_missing)

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

    async def _is_sample_there(self, *, after_hint: bool) -> bool | None:
        """Check one mapping of one lease, each time another's: a restart loses all of them alike."""
        for _ in range(2):
            while self._sample_from:
                for mapping in self._leases.get(self._sample_from.pop(), ()):
                    is_sample = mapping.is_held or mapping.state is MappingState.SUSPECT
                    if is_sample and mapping.dispatcher is None:
                        return await self._renewal.is_there(mapping, after_hint=after_hint)
            self._sample_from = list(self._leases)
        return True

    async def _postpone(self, due: Iterable[LeasedMapping]) -> None:
        """Leave mappings until the gateway is back: no use in asking it for each."""
        now = self._now()
        later = max(self._monitor.poll_due, now) + _POLL_MARGIN
        self._pinholes.postpone(now, later)
        for mapping in due:
            was_held = mapping.shows is not LeaseState.LOST
            mapping.expired(now)
            if was_held and mapping.shows is LeaseState.LOST:
                mapping.error = self._monitor.error
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

    def _start_release(self, record: LeaseRecord, mappings: Sequence[LeasedMapping]) -> asyncio.Task[None]:
        """Begin to delete what a lease holds, in a task that is carried through whatever is cancelled.

        If it is to be kept, the task waits for what is on its way.
        """
        for mapping in mappings:
            self._queue.remove(mapping)
            mapping.is_kept = record.is_kept
        unwanted = [mapping for mapping in mappings if self._acquisition.end(mapping)]
        self._renew_shared(mappings)
        self._homecoming.bind(unwanted)
        pinholes = self._pinholes.end(record)
        if record.is_kept:
            unwanted, pinholes = [], []
        release = Release(self._acquisition, self._pinholes, self._progress, unwanted, pinholes)
        if record.is_kept:
            task = background.start(partial(self._settle, mappings), RELEASE_LIMIT)
        else:
            task = background.start(release.run, RELEASE_LIMIT)
            self._stop_if_idle()
        self._releases[record] = release, task
        task.add_done_callback(lambda _: self._released(record))
        return task

    def _renew_shared(self, mappings: Sequence[LeasedMapping]) -> None:
        """Renew what other leases share with one that ends: it may have been the last to say how long that lasts."""
        shared = {one.key for one in mappings if one.is_unreadable and one.key in self._acquisition.ports}
        if shared:
            now = self._now()
            for mapping in self._at_gateway():
                if mapping.key in shared and mapping.is_held:
                    mapping.renew_now(now)
                    self._queue.set(mapping, now)
            self._wake()

    async def _settle(self, mappings: Sequence[LeasedMapping]) -> None:
        """Wait for what is on its way for mappings that are to be kept."""
        await self._renewal.settled(mappings)

    def _released(self, record: LeaseRecord) -> None:
        self._releases.pop(record, None)
        self._stop_if_idle()

    def _stop_if_idle(self) -> None:
        """Stop if there is nothing left to keep."""
        if self._leases or any(record.is_kept for record in self._releases):
            return
        self._monitor.stop()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    def __del__(self) -> None:
        # Only where its loop was closed under it: as long as it has something to do, its tasks keep it alive.
        mappings = [each.mapping for held in self._leases.values() for each in held if each.mapping is not None]
        mappings += [mapping for release, _ in self._releases.values() for mapping in release.remaining]
        if mappings:
            ports = ", ".join(f"{mapping.proto} {mapping.external_port}" for mapping in mappings)
            message = f"the event loop was closed without its tasks having ended, so these ports stay open: {ports}"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this PortMapper is closed")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _clock_lead(self) -> float:
        return self._wall_clock() - self._now()


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


def _ring(alarm: asyncio.Future[None]) -> None:
    if not alarm.done():
        alarm.set_result(None)


def _gateway_address(cache: GatewayCache) -> str:
    """Return the address of the gateway in use, "" for none."""
    with suppress(IGDError):
        backend = cache.cached()
        return "" if backend is None else backend.address
    return ""


def _failure(error: BaseException) -> IGDError:
    """Return what leases show of an exception."""
    if isinstance(error, IGDError):
        return error
    failure = UnexpectedError(f"leases could not be looked after: {error!r}")
    failure.__cause__ = error
    return failure


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _all(work: Iterable[Coroutine[None, None, None]]) -> None:
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
