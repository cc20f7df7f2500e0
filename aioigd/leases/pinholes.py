"""Which pinholes go with a lease? They are opened with it, prolonged, opened again, and closed with it.

No action lists pinholes, so nobody can check whether one is still there. It need not be known: the same request again
prolongs what is there, and opens what is not (WANIPv6FirewallControl:1 section 2.6.3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Final

from ..core.dispatcher import Dispatcher
from ..core.gateway_cache import GatewayCache
from ..errors import IGDError, NoRouteError, UnexpectedError, is_unreachable
from ..models import Pinhole, PinholeRequest
from ..results import UPnPResult
from ..text import get_logger
from . import schedule
from .lease import LeaseRecord
from .owner_lock import Ownership, PinholeKey
from .schedule import NEVER, DueQueue, RefCounter

__all__ = ["MAX_CONCURRENT", "LeasePinholes", "PinholeManager", "has_no_pinholes"]

log = get_logger("aioigd.lease")

MAX_CONCURRENT: Final = 8
"""Pinholes of one lease that are worked on at the same time."""
_ABSENCE_CACHED: Final = 60.0
"""Seconds for which new leases are spared the search, which takes long, once it turned out that there is no IPv6."""
_NO_IPV6: Final = frozenset(
    {UPnPResult.INVALID_GATEWAY, UPnPResult.NO_DEVICES, UPnPResult.NO_GATEWAY, UPnPResult.SOCKET_ERROR}
)
"""Results that mean that there is no IPv6 here, or no firewall that could be asked."""
_FIREWALL_DISABLED: Final = 702
"""The error code FirewallDisabled of WANIPv6FirewallControl:1."""


def has_no_pinholes(error: IGDError) -> bool:
    """Return whether an error means that there is no IPv6 here, or no firewall in its way, so nothing to open."""
    return error.result in _NO_IPV6 or error.error_code == _FIREWALL_DISABLED


class LeasePinholes:
    """The pinholes of one lease, all of which are looked after at the same time.

    ``users`` counts the leases on each pinhole; ``due`` is for the queue.
    """

    __slots__ = ("_users", "due", "failures", "has_ended", "open", "record", "requests")

    def __init__(
        self, record: LeaseRecord, requests: Sequence[PinholeRequest], users: RefCounter[PinholeRequest]
    ) -> None:
        self.record = record
        self.requests = requests
        self.open: dict[PinholeRequest, tuple[Pinhole, float]] = {}
        """What is open, and until when."""
        self.due = NEVER
        self.failures = 0
        self.has_ended = False
        self._users = users
        for endpoint in self.endpoints:
            users.acquire(endpoint)

    @property
    def endpoints(self) -> Iterator[PinholeRequest]:
        """What its pinholes are to let in, whatever the time."""
        return map(_endpoint, self.requests)

    @property
    def period(self) -> float:
        """Seconds between two renewals: half of what was granted, by PCP maybe less than what was asked for."""
        granted = [pinhole.duration for pinhole, _ in self.open.values()]
        return schedule.renew_after(min([self.requests[0].duration, *granted]))

    def opened(self, request: PinholeRequest, pinhole: Pinhole, now: float) -> None:
        """Note that a pinhole was opened, or prolonged."""
        self.open[request] = pinhole, now + pinhole.duration

    def update_record(self, now: float, error: IGDError | None = None) -> None:
        """Record which pinholes are open, and why not all of them are."""
        self.open = {request: entry for request, entry in self.open.items() if entry[1] > now}
        held = [self.open[request][0] for request in self.requests if request in self.open]
        self.record.set_pinholes(tuple(held), error)

    def end(self) -> list[Pinhole]:
        """Note that the lease ends, and return what is to be closed."""
        self.has_ended = True
        last = [request for request in self.requests if self._users.release(_endpoint(request))]
        return [self.open[request][0] for request in last if request in self.open]

    def is_wanted(self, request: PinholeRequest) -> bool:
        """Whether this lease or another one keeps a pinhole."""
        return not self.has_ended or _endpoint(request) in self._users


class PinholeManager:
    """The pinholes of all leases of one manager."""

    def __init__(self, dispatcher: Dispatcher, cache: GatewayCache, claims: Ownership) -> None:
        self._dispatcher = dispatcher
        self._cache = cache
        self._claims = claims
        self._pinholes: dict[LeaseRecord, LeasePinholes] = {}
        self._queue: DueQueue[LeasePinholes] = DueQueue()
        self._users: RefCounter[PinholeRequest] = RefCounter()
        self._absence: IGDError | None = None
        self._absent_until = 0.0

    @property
    def next_due(self) -> float:
        """When the next ones are to be looked after; NEVER where there are none."""
        return self._queue.next

    async def open(self, record: LeaseRecord, requests: Sequence[PinholeRequest]) -> None:
        """Open the pinholes of a lease for the first time, and keep them from now on.

        Raises the IGDError of a refusal, if the lease is required. That there is no IPv6, or no firewall in its way,
        is none: the lease shows it.
        """
        if not requests:
            return
        pinholes = self._pinholes[record] = LeasePinholes(record, requests, self._users)
        error = await self._request(pinholes)
        if error is not None and record.request.required and not has_no_pinholes(error):
            raise error
        self._finished(pinholes, error)

    def end(self, record: LeaseRecord) -> list[Pinhole]:
        """Keep the pinholes of a lease no longer, and return those that are to be closed."""
        pinholes = self._pinholes.pop(record, None)
        if pinholes is None:
            return []
        self._queue.remove(pinholes)
        unwanted = pinholes.end()
        for endpoint in pinholes.endpoints:
            if endpoint not in self._users:
                self._claims.drop(_claim_on(endpoint))
        if len(unwanted) < len(pinholes.open):
            # Others share them, and may have relied on a longer time than this lease was the last to ask for.
            endpoints = set(pinholes.endpoints)
            for other in self._pinholes.values():
                if not endpoints.isdisjoint(other.endpoints):
                    self._queue.set(other, _now())
        return unwanted

    async def close(self, pinhole: Pinhole) -> None:
        """Close a pinhole, unless another program of this host keeps it. Never fails: what is left will expire."""
        with self._claims.take_if_last(_claim_on(pinhole)) as is_last, suppress(IGDError):
            if is_last:
                await self._dispatcher.delete_pinhole(pinhole)

    def take_due(self, now: float) -> list[Coroutine[None, None, None]]:
        """Return the work that is due."""
        return [self._renew(pinholes) for pinholes in self._queue.take(now, MAX_CONCURRENT)]

    def postpone(self, now: float, until: float) -> None:
        """Leave what is due until the gateway is back."""
        for pinholes in self._queue.take(now, len(self._queue)):
            pinholes.update_record(now, pinholes.record.pinhole_error)
            self._queue.set(pinholes, until)

    def renew_all(self, now: float) -> None:
        """Look after all of them as soon as possible: they may be gone, or to be had now."""
        self._absence = None
        for pinholes in self._pinholes.values():
            self._queue.set(pinholes, now)

    def leave(self) -> list[Pinhole]:
        """Another gateway is used from now on: open all of them there, and return what is open at the one before."""
        left = [pinhole for each in self._pinholes.values() for pinhole, _ in each.open.values()]
        for pinholes in self._pinholes.values():
            pinholes.open.clear()
        self.renew_all(_now())
        return list(dict.fromkeys(left))

    def follow_address(self, now: float) -> None:
        """Look after all of them, if this machine has another IPv6 address than those that they were opened for."""
        if self._pinholes:
            ours = self._internal_client()
            clients = {one.internal_client for each in self._pinholes.values() for one, _ in each.open.values()}
            if ours and clients - {ours}:
                log.info("this machine has another IPv6 address now")
                self.renew_all(now)

    async def _renew(self, pinholes: LeasePinholes) -> None:
        try:
            error = await self._request(pinholes)
        except Exception as defect:
            log.warning("the pinholes of a lease could not be looked after", exc_info=True)
            error = UnexpectedError(f"the pinholes could not be looked after: {defect!r}")
            error.__cause__ = defect
        self._finished(pinholes, error)

    async def _request(self, pinholes: LeasePinholes) -> IGDError | None:
        """Open or prolong the pinholes of a lease; returns what went wrong, if anything did."""
        if self._absence is not None and not pinholes.open and _now() < self._absent_until:
            return self._absence
        failure: IGDError | None = None
        for start in range(0, len(pinholes.requests), MAX_CONCURRENT):
            some = pinholes.requests[start : start + MAX_CONCURRENT]
            outcomes = await asyncio.gather(*(self._open(pinholes, one) for one in some))
            errors = [error for error in outcomes if error is not None]
            failure = next(filter(has_no_pinholes, errors), failure or next(iter(errors), None))
            if failure is not None and (has_no_pinholes(failure) or is_unreachable(failure)):
                break
        is_absent = failure is not None and has_no_pinholes(failure)
        self._absence, self._absent_until = (failure, _now() + _ABSENCE_CACHED) if is_absent else (None, 0.0)
        return failure

    async def _open(self, pinholes: LeasePinholes, request: PinholeRequest) -> IGDError | None:
        try:
            if self._cache.cached() is not None and not self._internal_client():
                # Without the queue and a request: there may be thousands of leases.
                raise NoRouteError("this machine has no IPv6 address on the internet")
            await self._claims.hold(_claim_on(request))
            pinhole = await self._dispatcher.add_pinhole(request)
        except BaseException as error:
            if request not in pinholes.open and self._users.count(_endpoint(request)) <= (not pinholes.has_ended):
                self._claims.drop(_claim_on(request))
            if isinstance(error, IGDError):
                return error
            raise
        pinholes.opened(request, pinhole, _now())
        if not pinholes.is_wanted(request):  # any more: the lease has ended meanwhile
            await self.close(pinhole)
        return None

    def _finished(self, pinholes: LeasePinholes, error: IGDError | None) -> None:
        """Record the outcome, and plan the next time."""
        if pinholes.has_ended:
            return
        now = _now()
        pinholes.update_record(now, error)
        pinholes.failures = 0 if error is None else pinholes.failures + 1
        if error is None:
            pause = pinholes.period
        elif has_no_pinholes(error) and not pinholes.open:
            pause = schedule.PERMANENT_CHECK_INTERVAL
        else:
            pause = schedule.backoff(pinholes.failures)
        if error is not None:
            log.info("no pinhole over IPv6, trying again in %.1f s: %s", pause, error)
        self._queue.set(pinholes, now + pause)

    def _internal_client(self) -> str:
        """Return the address of this machine to which its pinholes lead, "" where it has none."""
        with suppress(IGDError):
            self._cache.cached()
        for backend in self._cache.router.all:
            with suppress(IGDError):  # by one protocol the gateway may be reached over IPv4 only
                return backend.internal_client_v6
        return ""


def _claim_on(pinhole: Pinhole | PinholeRequest) -> PinholeKey:
    return PinholeKey(pinhole.internal_port, pinhole.proto)


def _endpoint(request: PinholeRequest) -> PinholeRequest:
    return request._replace(duration=0)


def _now() -> float:
    return asyncio.get_running_loop().time()
