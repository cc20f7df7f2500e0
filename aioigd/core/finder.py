"""When may a search end? Lets all protocols search at once, and takes the best of what they report."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Final, NamedTuple, Self

from async_timeout import timeout_at

from ..errors import DiscoveryError, IGDError, UnsupportedError
from ..models import Device
from ..results import ProtocolName, UPnPResult
from ..text import get_logger
from .backend import NEVER, Backend, Candidate, Driver, Rank, Search, SearchScope
from .background import may_await_at_exit
from .standing import HAS_ADDRESS, most_connected

__all__ = ["Finder"]

log = get_logger("aioigd.discovery")

_GRACE: Final = 0.4
"""Seconds to go on searching for a gateway that is certain, once there is one that is likely."""
_DEAD_GRACE: Final = 1.5
"""Seconds from the start in which a search goes on while all gateways say that they lead nowhere: MX allows a router
to answer after 1."""
_MAX_RIVALS: Final = 8
"""Likely gateways that are asked which of them leads to the internet, those that came first."""
_CLOCK_SLACK: Final = 0.001
"""Seconds by which a timer may fire early."""
_SWITCH: Final = "AIOIGD_DISABLE"
"""Environment variable by which an operator forbids port mapping; read at each search."""


class Finder:
    """Finds devices and gateways by all ``drivers``, in the ``scope`` that it was made with.

    All of them search in one search, those of less preferred protocols a moment later (:attr:`Driver.head_start`). The
    drivers are in the order of preference: of equally good gateways the one counts that was found by the first of them.
    A gateway that is certain waits for those that are preferred to it, but not longer
    than :meth:`Search.awaited_until`. A better rank counts more than preference: the router of the default route, found
    by PCP, is used rather than another device that merely says by UPnP that it is a gateway.
    """

    def __init__(self, drivers: Sequence[Driver], scope: SearchScope) -> None:
        self._drivers = drivers
        self._scope = scope

    @property
    def is_switched_off(self) -> bool:
        """Whether an operator forbids port mapping."""
        return os.environ.get(_SWITCH, "").strip() not in ("", "0")

    async def find_gateway(self, timeout: float) -> tuple[Device, list[Device]]:
        """Return the gateway to use and all devices seen on the way, as soon as that is certain.

        Raises DiscoveryError: NO_DEVICES where nobody answers within ``timeout`` seconds, NO_GATEWAY where nobody
        who does can map ports. With a ``location``, what reading it raises.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        seen: dict[str, Report] = {}
        rivals: dict[str, Report] = {}
        best: Report | None = None
        look_on_until = until
        all_are_dead = False
        dead_until = min(until, loop.time() + _DEAD_GRACE)

        async with self._entered(self._scope, until) as searches:

            def decide_at() -> float:
                """Return when to take the best candidate so far: until then a better one may still come."""
                if best is None:
                    return until
                if best.rank is Rank.CERTAIN:
                    return min(until, searches.preferred_until(best.preference))
                return min(until, max(look_on_until, searches.certain_until()))

            while best is None or best.rank is not Rank.CERTAIN or decide_at() > loop.time() + _CLOCK_SLACK:
                report = await searches.next(decide_at)
                if report is None:
                    is_over = best is None or searches.are_complete or decide_at() <= loop.time() + _CLOCK_SLACK
                    if is_over and best is not None and best.rank == Rank.LIKELY and len(rivals) > 1:
                        best, is_alive = await self._most_connected([*rivals.values()], until - loop.time())
                        rivals = {best.key: best}
                        all_are_dead, look_on_until = not is_alive, dead_until
                        is_over = is_alive or searches.are_complete or loop.time() >= dead_until
                    if is_over:
                        break
                    continue
                seen[report.key] = report
                if report.rank is Rank.USELESS:
                    continue
                is_another = report.rank < Rank.LAST_RESORT and report.key not in rivals
                if report.rank == Rank.LIKELY and (not is_another or len(rivals) < _MAX_RIVALS):
                    rivals[report.key] = report
                if best is None or (all_are_dead and is_another):
                    look_on_until = loop.time() + _GRACE
                if best is None or report.order < best.order or report.key == best.key:
                    best = report
            if best is None:
                raise searches.failure()
        log.info("gateway: %s", best.device)
        in_order = sorted(seen.values(), key=lambda report: report.preference)
        return best.device, [best.device, *(one.device for one in in_order if one.device is not best.device)]

    async def find_also(
        self, protocols: Collection[ProtocolName], is_wanted: Callable[[Device], bool], timeout: float
    ) -> list[Device]:
        """Return the wanted gateways by some of the protocols, one for each, in the order of preference.

        Who is silent is waited for no longer than where another one had been found; ``timeout`` (seconds) is the limit.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        found: dict[int, Device] = {}
        async with self._entered(self._scope, until, protocols) as searches:
            while len(found) < len(protocols):
                report = await searches.next(lambda: min(until, searches.preferred_until(len(self._drivers))))
                if report is None:
                    break
                if report.rank < Rank.LAST_RESORT and is_wanted(report.device):
                    found[report.preference] = report.device
        return [found[preference] for preference in sorted(found)]

    async def find_home(self, host: str, number: int, timeout: float) -> tuple[Device | None, bool]:
        """Ask with one datagram by each protocol whether the router of the best default route is there.

        Return it, None if it is no gateway, and whether anybody answered. ``host``: its address. ``number``: how often
        it was asked before. Silence ends the search sooner than ``timeout`` seconds.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        best: Report | None = None
        has_answered = False
        async with self._entered(self._scope._replace(host=host, single=number), until) as searches:

            def look_until() -> float:
                return min(
                    until, searches.certain_until() if best is None else searches.preferred_until(best.preference)
                )

            while not searches.are_complete and (best is None or look_until() > loop.time() + _CLOCK_SLACK):
                report = await searches.next(look_until)
                if report is not None:
                    has_answered = True
                    if report.rank is Rank.CERTAIN and (best is None or report.order < best.order):
                        best = report
                elif look_until() <= loop.time() + _CLOCK_SLACK:
                    break
        return None if best is None else best.device, has_answered

    async def discover(self, timeout: float, ttl: int, device_filter: str) -> list[Device]:
        """Search for ``timeout`` seconds and return all devices that pass the filter, likely gateways first."""
        until = asyncio.get_running_loop().time() + timeout
        found: dict[str, Report] = {}
        async with self._entered(self._scope._replace(ttl=ttl), until) as searches:
            while report := await searches.next(lambda: until):
                found[report.key] = report
            if not found:
                searches.check_all_have_begun()
        best_first = sorted(found.values(), key=lambda report: report.order)
        return [report.device for report in best_first if _passes(report.candidate, device_filter)]

    async def iter_devices(
        self, timeout: float, ttl: int, device_filter: str, host: str | None = None
    ) -> AsyncGenerator[Device, None]:
        """Search for ``timeout`` seconds and yield each device that passes the filter as soon as it is known.

        A device of which more becomes known comes again; the later one counts.
        """
        until = asyncio.get_running_loop().time() + timeout
        scope = self._scope._replace(ttl=ttl, host=self._scope.host if host is None else host)
        async with self._entered(scope, until) as searches:
            has_found = False
            while report := await searches.next(lambda: until):
                has_found = True
                if _passes(report.candidate, device_filter):
                    yield report.device
            if not has_found:
                searches.check_all_have_begun()

    async def _most_connected(self, rivals: Sequence[Report], seconds: float) -> tuple[Report, bool]:
        """Return the one of several likely gateways that leads to the internet, and whether it does, as it says."""
        backends: dict[Backend, Report] = {}
        for rival in rivals:
            with suppress(UnsupportedError):  # found, and cannot be asked
                backend = next(filter(None, (driver.connect(rival.device) for driver in self._drivers)), None)
                if backend is not None:
                    backends[backend] = rival
        if seconds <= 0 or not backends:
            return rivals[0], True
        backend, standing = await most_connected(list(backends), seconds)
        return backends[backend], standing >= HAS_ADDRESS

    @asynccontextmanager
    async def _entered(
        self, scope: SearchScope, until: float, protocols: Collection[ProtocolName] | None = None
    ) -> AsyncIterator[_Searches]:
        """Let all drivers search at once, or those of some protocols, and close what they opened in the end.

        Where one of them cannot search, the others do. Raises IGDError where none can.
        """
        if self.is_switched_off:
            raise DiscoveryError(f"port mapping is switched off here by {_SWITCH}", UPnPResult.NO_GATEWAY)
        head_start = 0.0
        async with _Searches() as searches:
            for preference, driver in enumerate(self._drivers):
                if protocols is None or driver.protocol in protocols:
                    begin = partial(driver.search, scope, until, searches.reporter(preference))
                    if head_start:
                        searches.begin_later(preference, begin, head_start)
                    else:
                        await searches.begin(preference, begin)
                    head_start = max(head_start, driver.head_start)
            yield searches


class Report(NamedTuple):
    """A candidate, and how preferred the protocol is by which it was found; the lower the better."""

    preference: int
    candidate: Candidate

    @property
    def device(self) -> Device:
        return self.candidate.device

    @property
    def rank(self) -> Rank:
        return self.candidate.rank

    @property
    def key(self) -> str:
        return self.candidate.key

    @property
    def order(self) -> tuple[Rank, int]:
        """By which gateways are compared; the lower the better."""
        return self.candidate.rank, self.preference


class _Searches:
    """The searches of all protocols, and what they report, in the order in which it comes.

    A context manager, at the end of which all of them are closed.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[int, Candidate | None]] = asyncio.Queue()
        self._begun: dict[int, Search] = {}
        self._under_way: dict[int, Search | None] = {}  # None: not begun yet
        self._errors: dict[int, IGDError] = {}
        self._stack = AsyncExitStack()
        self._timers: list[asyncio.TimerHandle] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        try:
            if self._tasks and may_await_at_exit(kind):
                await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            await self._stack.__aexit__(kind, error, traceback)

    def reporter(self, preference: int) -> Callable[[Candidate | None], None]:
        """Return what a search calls for each candidate."""
        return lambda candidate: self._queue.put_nowait((preference, candidate))

    async def begin(self, preference: int, make: Callable[[], Search]) -> None:
        """Begin a search. Where that is not possible, the others go on."""
        search = make()
        self._under_way[preference] = search
        try:
            await self._stack.enter_async_context(search)
        except IGDError as error:
            self._errors[preference] = error
            self._queue.put_nowait((preference, None))
        else:
            self._begun[preference] = search

    def begin_later(self, preference: int, make: Callable[[], Search], seconds: float) -> None:
        """Begin a search after a while, unless all of them have ended by then."""

        def begin() -> None:
            self._tasks.append(loop.create_task(self.begin(preference, make)))

        loop = asyncio.get_running_loop()
        self._under_way[preference] = None
        self._timers.append(loop.call_later(seconds, begin))

    def check_all_have_begun(self) -> None:
        """Raise IGDError where one of the searches could not begin: that nothing was found tells nothing then."""
        for error in self._errors.values():
            raise error

    @property
    def are_complete(self) -> bool:
        """Whether no more candidates can come."""
        return not self._under_way and self._queue.empty()

    def certain_until(self) -> float:
        """Return until when a gateway that is certain may still be reported, or NEVER."""
        return max(
            (search.may_report_until(Rank.CERTAIN) for search in self._under_way.values() if search), default=NEVER
        )

    def preferred_until(self, preference: int) -> float:
        """Return until when a gateway waits that was found by a protocol to which others are preferred, or NEVER."""
        if not preference:
            return NEVER
        waited_for = (search for better, search in self._under_way.items() if better < preference and search)
        return max((search.awaited_until() for search in waited_for), default=NEVER)

    def failure(self) -> IGDError:
        """Return why no gateway was found: that there are other devices says more than that nobody answers."""
        failures = {preference: search.failure() for preference, search in self._begun.items()} | self._errors
        in_order = [failures[preference] for preference in sorted(failures)]
        return next((error for error in in_order if error.result is UPnPResult.NO_GATEWAY), in_order[0])

    async def next(self, until: Callable[[], float]) -> Report | None:
        """Return the next candidate; None at the time ``until()``, or when no more can come."""
        while not self.are_complete:
            try:
                async with timeout_at(until()):
                    preference, candidate = await self._queue.get()
            except TimeoutError:
                break
            if candidate is not None:
                for search in filter(None, self._under_way.values()):
                    search.note_candidate(candidate)
                return Report(preference, candidate)
            self._under_way.pop(preference, None)
        return None


def _passes(candidate: Candidate, device_filter: str) -> bool:
    device = candidate.device
    return any(device_filter in text for text in (device.service_type, device.igd_service_type, *candidate.types))
