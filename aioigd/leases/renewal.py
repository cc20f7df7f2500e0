"""How is a mapping looked after? Whether it is still there, and adding it again when it is time."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from contextlib import suppress
from typing import Final
from weakref import WeakSet

from ..core.gateway_cache import GatewayCache
from ..errors import (
    ConflictError,
    IGDError,
    InvalidResponseError,
    NotFoundError,
    RefusedError,
    UnexpectedError,
    UnsupportedError,
)
from ..models import PortMapping
from ..text import get_logger
from . import schedule
from .acquisition import Acquisition, not_held
from .defects import Defects
from .leased_mapping import LeasedMapping, MappingState
from .monitor import GatewayMonitor
from .prolongation import Prolongation
from .reading import read_back
from .schedule import DueQueue

__all__ = ["Renewal"]

log = get_logger("aioigd.lease")

_NO_ANSWER_PAUSE: Final = 5.0
"""Seconds until a check that got no answer is made again."""
_END_MARGIN: Final = 0.1
"""Seconds after the known end of a mapping at which it is added again where the gateway refused to before."""
_EPOCH_TOLERANCE: Final = 2.0
"""Seconds after the time since when a gateway holds mappings in which it may have begun anew, and nobody could tell."""


class Renewal:
    """Checks and renews mappings, notes the outcome, and puts each into the ``queue`` for the next time."""

    def __init__(
        self,
        cache: GatewayCache,
        acquisition: Acquisition,
        queue: DueQueue[LeasedMapping],
        monitor: GatewayMonitor,
        defects: Defects,
    ) -> None:
        self._cache = cache
        self._acquisition = acquisition
        self._queue = queue
        self._monitor = monitor
        self._defects = defects
        self._known: dict[Hashable, Prolongation] = {}
        self._undecided: WeakSet[LeasedMapping] = WeakSet()
        self._at_work: dict[LeasedMapping, asyncio.Future[None]] = {}

    async def look_after(self, mapping: LeasedMapping) -> None:
        """Do for a mapping what is due. Whatever happens, it is in the queue again afterwards."""
        done = self._at_work[mapping] = asyncio.get_running_loop().create_future()
        try:
            await self._look_after(mapping)
        except Exception as defect:
            self._defects.report(f"{mapping.key} could not be looked after", defect, _now())
            error = UnexpectedError(f"{mapping.key} could not be looked after: {defect!r}")
            error.__cause__ = defect
            self.failed(mapping, error, self._defects.pause(mapping, _now()))
        finally:
            del self._at_work[mapping]
            done.set_result(None)

    async def settled(self, mappings: Iterable[LeasedMapping]) -> None:
        """Wait until nothing is on its way any more for these mappings."""
        for mapping in mappings:
            if mapping in self._at_work:
                await asyncio.wait([self._at_work[mapping]])

    async def _look_after(self, mapping: LeasedMapping) -> None:
        if mapping.is_held:
            self._follow(mapping)
            if _now() < mapping.next_due:  # what is known of the gateway by now has put it off
                self._queue.set(mapping, mapping.next_due)
                return
        if mapping.is_to_be_checked:
            is_there = await self._check(mapping)
            if not is_there or mapping.is_permanent or _now() < mapping.renew_at:
                return
        await self._renew(mapping)

    async def is_there(self, mapping: LeasedMapping, *, after_hint: bool) -> bool | None:
        """Ask whether the gateway still holds a mapping; where it does not say, it does.

        None: it says no more than since when it holds mappings, that is about when this one was made, and it has
        announced a restart since.
        """
        with suppress(IGDError):
            try:
                held = await self._acquisition.dispatcher_of(mapping).find(mapping.key)
            except UnsupportedError:
                is_in_doubt = after_hint and mapping.was_granted_before(self._holds_since(mapping) + _EPOCH_TOLERANCE)
                return None if is_in_doubt else True
            if mapping.judge(held, _now()) is Prolongation.KEEPS_END:
                # That it has not outlived its old end says nothing of the others. It is found out by a check.
                mapping.look_at = _now()
                self._queue.set(mapping, _now())
                return True
            if held is None or not self._is_right(mapping, held):
                return mapping.has_ended or mapping.may_be_late(_now())
            if not mapping.has_ended:
                mapping.record.confirmed(mapping, before=mapping.granted_mapping)
        return True

    def kept(self, mapping: LeasedMapping, *, before: PortMapping | None) -> None:
        """Record that the gateway holds a mapping, and plan the next check; ``before``: what was granted before."""
        if not mapping.has_ended:
            mapping.record.confirmed(mapping, before=before)
            self._follow(mapping)
            self._queue.set(mapping, mapping.next_due)

    def failed(self, mapping: LeasedMapping, error: IGDError, shortest_pause: float = 0.0) -> None:
        """Record that a mapping could not be added, and plan the next try, at the latest for its end.

        ``shortest_pause``: seconds to wait at least, where it has not failed for the first time.
        """
        if mapping.has_ended:
            return
        now = _now()
        end = mapping.expires_at
        mapping.error = error
        if isinstance(error, ConflictError):
            mapping.taken()
        else:
            mapping.refused(now)
        mapping.record.mapping_changed(mapping)
        asked_to_wait = schedule.requested_pause(error.retry_after)
        pause = max(schedule.backoff(mapping.failures), shortest_pause, asked_to_wait)
        if not asked_to_wait and end is not None and now < end and now + pause > end + _END_MARGIN:
            # It may be refused because of what is there, so until that has expired. From then on pauses begin anew.
            pause = end + _END_MARGIN - now
            mapping.failures = 0
        log.info("%s could not be had, trying again in %.1f s: %s", mapping.key, pause, error)
        self._queue.set(mapping, now + pause)
        self._request_failed(mapping, error)

    async def _check(self, mapping: LeasedMapping) -> bool:
        """Ask whether the gateway still holds a mapping, and add it again if not. Return whether it was there."""
        try:
            held = await self._acquisition.dispatcher_of(mapping).find(mapping.key)
        except UnsupportedError:
            return await self._check_unreadable(mapping)
        except (RefusedError, InvalidResponseError):
            if not mapping.is_held and not mapping.has_ended:
                await self._renew(mapping)  # the gateway cannot tell; adding it again does no harm
                return False
            held = mapping.mapping
            if mapping.look_at is not None and mapping.old_end is not None:
                # What a renewal has done cannot be read now; if not even later, it is taken to have been prolonged.
                self._learn(Prolongation.BLIND if _now() < mapping.old_end else Prolongation.PROLONGS)
        except IGDError as error:
            self._request_failed(mapping, error)
            mapping.error = error
            if not mapping.has_ended:
                self._queue.set(mapping, _now() + _NO_ANSWER_PAUSE)
            return False
        if mapping.has_ended:
            return False
        mapping.readable()
        if mapping.may_be_late(_now()) and (held is None or not mapping.is_same(held)):
            self._queue.set(mapping, mapping.settled_at)  # the table may not show yet what was just added
            return False
        shown = mapping.judge(held, _now())
        if held is not None and self._is_right(mapping, held):
            mapping.described(held)
            mapping.confirmed(held, _now())
            if shown is not None:
                self._learn(shown)
            self.kept(mapping, before=mapping.granted_mapping)
            return True
        if held is None or not mapping.is_same(held) or not held.enabled:
            log.info("the gateway has lost %s", mapping.key)
            if held is not None and mapping.is_same(held):
                mapping.error = NotFoundError(f"the gateway has switched {mapping.key} off")
                mapping.disabled()
            else:
                whose = "holds it no longer" if held is None else f"has it for {held.internal_client}"
                mapping.error = NotFoundError(f"{mapping.key} was mapped, and the gateway {whose}")
                mapping.missing(_now())
            if shown is not None:
                self._learn(shown)
            mapping.record.mapping_changed(mapping)
        await self._renew(mapping)
        return False

    async def _check_unreadable(self, mapping: LeasedMapping) -> bool:
        """Look after a mapping that nobody can look at; return whether it is there, as far as is known."""
        if mapping.has_ended:
            return False
        mapping.unreadable()
        is_lost = mapping.was_granted_before(self._holds_since(mapping) - schedule.EPOCH_ROUNDING)
        if is_lost and mapping.state is MappingState.SUSPECT:
            log.info("the gateway has lost %s", mapping.key)
            mapping.missing(_now())
            mapping.error = NotFoundError(f"{mapping.key} was mapped, and the gateway has lost its mappings since")
            mapping.record.mapping_changed(mapping)
        if mapping.is_held:
            mapping.believed(_now())
            self._follow(mapping)
            self._queue.set(mapping, mapping.next_due)
            return True
        await self._renew(mapping)  # it does no harm where it is there
        return False

    def _holds_since(self, mapping: LeasedMapping) -> float:
        return self._acquisition.dispatcher_of(mapping).holds_since

    async def _renew(self, mapping: LeasedMapping) -> None:
        mapping.renewing()
        try:
            if mapping.is_to_be_removed(_now()):
                await self._remove(mapping)
                if mapping.has_ended and not mapping.is_kept:
                    return
            added = await self._acquisition.add(mapping)
            if mapping.is_to_be_read_back:
                await self._read_back(mapping, added)
        except IGDError as error:
            self.failed(mapping, error)
            return
        if mapping.has_ended:  # meanwhile, and on another port than before, or for the first time
            mapping.accepted(added)
            if mapping.is_kept:
                self._acquisition.leave(mapping)
            else:
                await self._acquisition.release(mapping)
            return
        before = mapping.granted_mapping
        mapping.granted(added, _now())
        self.kept(mapping, before=before)

    async def _remove(self, mapping: LeasedMapping) -> None:
        """Delete a mapping that an add would not prolong. Raises IGDError where nobody answers."""
        try:
            await self._acquisition.dispatcher_of(mapping).delete(mapping.key)
        except NotFoundError:
            pass
        except (RefusedError, InvalidResponseError) as error:
            log.info("%s could not be deleted to be added again: %s", mapping.key, error)
            return
        mapping.removed(_now())

    async def _read_back(self, mapping: LeasedMapping, added: PortMapping) -> None:
        """Raise NotFoundError where the gateway does not hold what it said yes to."""
        with suppress(UnsupportedError):
            held = await read_back(self._acquisition.dispatcher_of(mapping), added)
            if held is None or not held.enabled:
                raise not_held(added.key, held)

    def _follow(self, mapping: LeasedMapping) -> None:
        """Plan a mapping by what is known of the gateway's renewals."""
        known = self._known.get(self._gateway_id(), Prolongation.UNKNOWN)
        mapping.follow(Prolongation.PROLONGS if mapping.is_unreadable else known, _now())
        if mapping.old_end is not None:
            self._undecided.add(mapping)

    def _learn(self, shown: Prolongation) -> None:
        """Note what a reading has shown of the gateway's renewals, and plan what was renewed anew."""
        known = self._known.get(self._gateway_id(), Prolongation.UNKNOWN)
        if shown is known or (shown is Prolongation.BLIND and known is not Prolongation.UNKNOWN):
            return
        log.info("the gateway's renewals are known better: %s", shown.name)
        self._known[self._gateway_id()] = shown
        undecided, self._undecided = self._undecided, WeakSet()
        for mapping in undecided:
            if not mapping.has_ended:
                self._follow(mapping)
                if mapping.is_held and mapping.due != schedule.NEVER:
                    self._queue.set(mapping, mapping.next_due)

    def _gateway_id(self) -> Hashable:
        with suppress(IGDError):
            backend = self._cache.cached()
            return None if backend is None else backend.gateway_id
        return None

    def _is_right(self, mapping: LeasedMapping, held: PortMapping) -> bool:
        """Whether what the gateway holds is what this lease made, and still leads to this machine."""
        ours = mapping.mapping
        if ours is None or not held.enabled or not mapping.is_same(held):
            return False
        client = mapping.request.internal_client or self._internal_client(mapping) or ours.internal_client
        leads_to_us = held.leads_to(client, ours.internal_port)
        return ours.internal_client == client if leads_to_us is None else leads_to_us

    def _request_failed(self, mapping: LeasedMapping, error: IGDError) -> None:
        """Let the gateway be polled if it cannot be reached; at another one only this mapping is in doubt."""
        if mapping.dispatcher is None:
            self._monitor.request_failed(error)
        else:
            mapping.suspected()

    def _internal_client(self, mapping: LeasedMapping) -> str:
        """Return the address of this machine to which a mapping leads, "" where that is not known."""
        with suppress(IGDError):
            backend = self._acquisition.dispatcher_of(mapping).fixed or self._cache.cached()
            return "" if backend is None else backend.internal_client
        return ""


def _now() -> float:
    return asyncio.get_running_loop().time()
