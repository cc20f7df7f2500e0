"""The way in over IPv6: the pinholes of leases, opened with them, prolonged, opened again, and closed with them.

No action lists pinholes, so nobody can look whether one is still there. It need not be known: the same request again
prolongs what is there, and opens what is not (WANIPv6FirewallControl:1 section 2.6.3).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Final

from ..errors import IGDError
from ..models import Pinhole, PinholeRequest
from . import schedule
from .keepable import Keepable, has_no_pinholes, is_away
from .lease import Lease
from .ports import InUse
from .timetable import NEVER, Timetable

__all__ = ["AT_ONCE", "Passage", "Passages"]

log = logging.getLogger("aioigd.lease")

AT_ONCE: Final = 8
"""Pinholes of one lease that are worked on at the same time."""
_BELIEVED: Final = 60.0
"""Seconds for which new leases are spared the search, which takes long, once it turned out that there is no IPv6."""


class Passage:
    """The pinholes of one lease, all of which are looked after at the same time."""

    __slots__ = ("due", "ended", "failures", "lease", "pinholes", "requests", "users")

    def __init__(self, lease: Lease, requests: Sequence[PinholeRequest], users: InUse[PinholeRequest]) -> None:
        self.lease = lease
        self.requests = requests
        self.pinholes: dict[PinholeRequest, tuple[Pinhole, float]] = {}
        """What is open, and until when."""
        self.due = NEVER
        self.failures = 0
        self.ended = False
        self.users = users
        for place in self.places:
            users.enter(place)

    @property
    def places(self) -> Iterator[PinholeRequest]:
        """What its pinholes are to let in, whatever the time."""
        return map(_place, self.requests)

    @property
    def period(self) -> float:
        """Seconds from one time that it is looked after to the next: half of what was asked for."""
        return schedule.renew_after(self.requests[0].duration)

    def opened(self, request: PinholeRequest, pinhole: Pinhole, now: float) -> None:
        """Note that a pinhole was opened, or prolonged."""
        self.pinholes[request] = pinhole, now + pinhole.duration

    def tell(self, now: float, error: IGDError | None = None) -> None:
        """Tell the lease what is open, and why not all of it is."""
        self.pinholes = {request: entry for request, entry in self.pinholes.items() if entry[1] > now}
        held = [self.pinholes[request][0] for request in self.requests if request in self.pinholes]
        self.lease.let_in(tuple(held), error)

    def end(self) -> list[Pinhole]:
        """Note that it is not kept any more, and return what is to be closed."""
        self.ended = True
        last = [request for request in self.requests if self.users.leave(_place(request))]
        return [self.pinholes[request][0] for request in last if request in self.pinholes]

    def is_wanted(self, request: PinholeRequest) -> bool:
        """Whether this lease or another one keeps a pinhole."""
        return not self.ended or _place(request) in self.users


class Passages:
    """The passages of all leases of one mapper."""

    def __init__(self, router: Keepable) -> None:
        self._router = router
        self._passages: dict[Lease, Passage] = {}
        self._timetable: Timetable[Passage] = Timetable()
        self._users: InUse[PinholeRequest] = InUse()
        self._absence: IGDError | None = None
        self._believed_until = 0.0

    @property
    def due(self) -> float:
        """When the next one is to be looked after; NEVER where there is none."""
        return self._timetable.next

    async def open(self, lease: Lease, requests: Sequence[PinholeRequest], *, required: bool) -> None:
        """Open the pinholes of a lease for the first time, and keep them from now on.

        Raises the IGDError of a refusal, if they are ``required``. That there is no IPv6, or no firewall in its way,
        is none: the lease tells of it.
        """
        if not requests:
            return
        passage = self._passages[lease] = Passage(lease, requests, self._users)
        error = await self._ask(passage)
        if error is not None and required and not has_no_pinholes(error):
            raise error
        self._done(passage, error)

    def end(self, lease: Lease) -> list[Pinhole]:
        """Keep the pinholes of a lease no longer, and return those that are to be closed."""
        passage = self._passages.pop(lease, None)
        if passage is None:
            return []
        self._timetable.remove(passage)
        unwanted = passage.end()
        if len(unwanted) < len(passage.pinholes):
            # Others share them, and may have relied on a longer time than this lease has asked for last.
            places = set(passage.places)
            for other in self._passages.values():
                if not places.isdisjoint(other.places):
                    self._timetable.set(other, _now())
        return unwanted

    async def close(self, pinhole: Pinhole) -> None:
        """Close a pinhole. Never fails: what is left will expire."""
        with suppress(IGDError):
            await self._router.close_pinhole(pinhole)

    def take_due(self, now: float) -> list[Coroutine[None, None, None]]:
        """Return the work that is due."""
        return [self._tend(passage) for passage in self._timetable.take(now, AT_ONCE)]

    def postpone(self, now: float, until: float) -> None:
        """Leave what is due until the gateway is back."""
        for passage in self._timetable.take(now, len(self._timetable)):
            passage.tell(now, passage.lease.pinhole_error)
            self._timetable.set(passage, until)

    def renew_all(self, now: float) -> None:
        """Look after all of them as soon as possible: they may be gone, or to be had now."""
        self._absence = None
        for passage in self._passages.values():
            self._timetable.set(passage, now)

    def follow_address(self, now: float) -> None:
        """Look after all of them, if this machine has another IPv6 address than those it had them opened for."""
        if self._passages:
            ours = self._router.our_ipv6_address
            clients = {one.internal_client for each in self._passages.values() for one, _ in each.pinholes.values()}
            if ours and clients - {ours}:
                log.info("this machine has another IPv6 address now")
                self.renew_all(now)

    async def _tend(self, passage: Passage) -> None:
        self._done(passage, await self._ask(passage))

    async def _ask(self, passage: Passage) -> IGDError | None:
        """Open or prolong the pinholes of a lease; returns what went wrong, if anything did."""
        if self._absence is not None and not passage.pinholes and _now() < self._believed_until:
            return self._absence
        failure: IGDError | None = None
        for start in range(0, len(passage.requests), AT_ONCE):
            some = passage.requests[start : start + AT_ONCE]
            outcomes = await asyncio.gather(*(self._open(passage, one) for one in some))
            errors = [error for error in outcomes if error is not None]
            failure = next(filter(has_no_pinholes, errors), failure or next(iter(errors), None))
            if failure is not None and (has_no_pinholes(failure) or is_away(failure)):
                break
        is_absent = failure is not None and has_no_pinholes(failure)
        self._absence, self._believed_until = (failure, _now() + _BELIEVED) if is_absent else (None, 0.0)
        return failure

    async def _open(self, passage: Passage, request: PinholeRequest) -> IGDError | None:
        try:
            pinhole = await self._router.open_pinhole(request)
        except IGDError as error:
            return error
        passage.opened(request, pinhole, _now())
        if not passage.is_wanted(request):  # any more: the lease has ended meanwhile
            await self.close(pinhole)
        return None

    def _done(self, passage: Passage, error: IGDError | None) -> None:
        """Tell the lease what came of it, and plan the next time."""
        if passage.ended:
            return
        now = _now()
        passage.tell(now, error)
        passage.failures = 0 if error is None else passage.failures + 1
        if error is None:
            pause = passage.period
        elif has_no_pinholes(error) and not passage.pinholes:
            pause = schedule.PERMANENT_CHECK
        else:
            pause = schedule.pause_after(passage.failures)
        if error is not None:
            log.info("no way in over IPv6, trying again in %.1f s: %s", pause, error)
        self._timetable.set(passage, now + pause)


def _place(request: PinholeRequest) -> PinholeRequest:
    return request._replace(duration=0)


def _now() -> float:
    return asyncio.get_running_loop().time()
