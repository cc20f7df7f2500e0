"""When may a search end? Lets all protocols search at once, and takes the best of what they report."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

from async_timeout import timeout_at

from ..errors import DiscoveryError, UnsupportedError
from ..models import Device
from ..results import UPnPResult
from ..text import get_logger
from .backend import Backend, Candidate, Driver, Rank, Search, SearchScope
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
    """Finds devices and gateways by all ``drivers``, in the ``scope`` that it was made with."""

    def __init__(self, drivers: Sequence[Driver], scope: SearchScope) -> None:
        self._drivers = drivers
        self._scope = scope

    async def find_gateway(self, timeout: float) -> tuple[Device, list[Device]]:
        """Return the gateway to use and all devices seen on the way, as soon as that is certain.

        Raises DiscoveryError: NO_DEVICES where nobody answers within ``timeout`` seconds, NO_GATEWAY where nobody
        who does can map ports. With a ``location``, what reading it raises.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        seen: dict[str, Device] = {}
        rivals: dict[str, Candidate] = {}
        best: Candidate | None = None
        look_on_until = until
        all_are_dead = False
        dead_until = min(until, loop.time() + _DEAD_GRACE)

        def decide_at() -> float:
            """Return when to take the best candidate so far: until then a certain one may still come."""
            return min(until, max(look_on_until, *(search.may_report_until(Rank.CERTAIN) for search in searches)))

        async with self._entered(self._scope, until) as (searches, reports):
            while best is None or best.rank != Rank.CERTAIN:
                candidate = await reports.next(until if best is None else decide_at())
                if candidate is None:
                    is_over = best is None or reports.are_complete or decide_at() <= loop.time() + _CLOCK_SLACK
                    if is_over and best is not None and best.rank == Rank.LIKELY and len(rivals) > 1:
                        best, is_alive = await self._most_connected([*rivals.values()], until - loop.time())
                        rivals = {best.key: best}
                        all_are_dead, look_on_until = not is_alive, dead_until
                        is_over = is_alive or reports.are_complete or loop.time() >= dead_until
                    if is_over:
                        break
                    continue
                seen[candidate.key] = candidate.device
                if candidate.rank == Rank.USELESS:
                    continue
                is_another = candidate.rank < Rank.LAST_RESORT and candidate.key not in rivals
                if candidate.rank == Rank.LIKELY and (not is_another or len(rivals) < _MAX_RIVALS):
                    rivals[candidate.key] = candidate
                if best is None or (all_are_dead and is_another):
                    look_on_until = loop.time() + _GRACE
                if best is None or candidate.rank < best.rank or candidate.key == best.key:
                    best = candidate
            if best is None:
                raise searches[0].failure()
        log.info("gateway: %s", best.device)
        return best.device, [best.device, *(device for device in seen.values() if device is not best.device)]

    async def find_home(self, host: str, number: int, timeout: float) -> tuple[Device | None, bool]:
        """Ask with one datagram by each protocol whether the router of the best default route is there.

        Return it, None if it is no gateway, and whether anybody answered. ``host``: its address. ``number``: how often
        it was asked before. Silence ends the search sooner than ``timeout`` seconds.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        has_answered = False
        async with self._entered(self._scope._replace(host=host, single=number), until) as (searches, reports):

            def look_until() -> float:
                return min(until, max(search.may_report_until(Rank.CERTAIN) for search in searches))

            while True:
                candidate = await reports.next(look_until())
                if candidate is not None:
                    has_answered = True
                    if candidate.rank is Rank.CERTAIN:
                        return candidate.device, True
                elif reports.are_complete or look_until() <= loop.time() + _CLOCK_SLACK:
                    return None, has_answered

    async def discover(self, timeout: float, ttl: int, device_filter: str) -> list[Device]:
        """Search for ``timeout`` seconds and return all devices that pass the filter, likely gateways first."""
        until = asyncio.get_running_loop().time() + timeout
        found: dict[str, Candidate] = {}
        async with self._entered(self._scope._replace(ttl=ttl), until) as (_, reports):
            while candidate := await reports.next(until):
                found[candidate.key] = candidate
        best_first = sorted(found.values(), key=lambda candidate: candidate.rank)
        return [candidate.device for candidate in best_first if _passes(candidate, device_filter)]

    async def iter_devices(
        self, timeout: float, ttl: int, device_filter: str, host: str | None = None
    ) -> AsyncGenerator[Device, None]:
        """Search for ``timeout`` seconds and yield each device that passes the filter as soon as it is known.

        A device of which more becomes known comes again; the later one counts.
        """
        until = asyncio.get_running_loop().time() + timeout
        async with self._entered(self._scope._replace(ttl=ttl, host=host), until) as (_, reports):
            while candidate := await reports.next(until):
                if _passes(candidate, device_filter):
                    yield candidate.device

    async def _most_connected(self, rivals: Sequence[Candidate], seconds: float) -> tuple[Candidate, bool]:
        """Return the one of several likely gateways that leads to the internet, and whether it does, as it says."""
        backends: dict[Backend, Candidate] = {}
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
    async def _entered(self, scope: SearchScope, until: float) -> AsyncIterator[tuple[Sequence[Search], _Reports]]:
        """Let all drivers search at once, and close what they opened in the end."""
        if os.environ.get(_SWITCH, "").strip() not in ("", "0"):
            raise DiscoveryError(f"port mapping is switched off here by {_SWITCH}", UPnPResult.NO_GATEWAY)
        reports = _Reports(len(self._drivers))
        searches = [driver.search(scope, until, reports.put) for driver in self._drivers]
        async with AsyncExitStack() as stack:
            for search in searches:
                await stack.enter_async_context(search)
            yield searches, reports


class _Reports:
    """What all searches report, in the order in which it comes."""

    def __init__(self, searches: int) -> None:
        self._queue: asyncio.Queue[Candidate | None] = asyncio.Queue()
        self._searches_left = searches

    @property
    def are_complete(self) -> bool:
        """Whether no more candidates can come."""
        return not self._searches_left and self._queue.empty()

    def put(self, candidate: Candidate | None) -> None:
        self._queue.put_nowait(candidate)

    async def next(self, until: float) -> Candidate | None:
        """Return the next candidate; None at the time ``until``, or when no more can come."""
        try:
            async with timeout_at(until):
                while not self.are_complete:
                    candidate = await self._queue.get()
                    if candidate is not None:
                        return candidate
                    self._searches_left -= 1
        except TimeoutError:
            pass
        return None


def _passes(candidate: Candidate, device_filter: str) -> bool:
    device = candidate.device
    return any(device_filter in text for text in (device.service_type, device.igd_service_type, *candidate.types))
