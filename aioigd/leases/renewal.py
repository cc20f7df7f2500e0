"""How is a mapping looked after? Whether it is still there, and adding it again when it is time."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from ..core.gateway_cache import GatewayCache
from ..errors import ConflictError, IGDError, InvalidResponseError, RefusedError
from ..models import PortMapping
from . import schedule
from .acquisition import Acquisition
from .leased_mapping import LeasedMapping
from .monitor import GatewayMonitor
from .schedule import DueQueue

__all__ = ["Renewal"]

log = logging.getLogger("aioigd.lease")

_NO_ANSWER_PAUSE: Final = 5.0
"""Seconds until a check that got no answer is made again."""


class Renewal:
    """Checks and renews mappings, notes the outcome, and puts each into the ``queue`` for the next time."""

    def __init__(
        self,
        cache: GatewayCache,
        acquisition: Acquisition,
        queue: DueQueue[LeasedMapping],
        monitor: GatewayMonitor,
    ) -> None:
        self._cache = cache
        self._acquisition = acquisition
        self._queue = queue
        self._monitor = monitor

    async def look_after(self, mapping: LeasedMapping) -> None:
        """Do for a mapping what is due."""
        if mapping.is_to_be_checked:
            is_there = await self._check(mapping)
            if not is_there or mapping.is_permanent or _now() < mapping.renew_at:
                return
        await self._renew(mapping)

    async def is_there(self, mapping: LeasedMapping) -> bool:
        """Ask whether the gateway still holds a mapping; where it does not say, it does."""
        with suppress(IGDError):
            held = await self._acquisition.dispatcher_of(mapping).find(mapping.key)
            if held is None or not self._is_right(mapping, held):
                return mapping.has_ended
            if not mapping.has_ended:
                mapping.record.confirmed(mapping, before=mapping.granted_mapping)
        return True

    def kept(self, mapping: LeasedMapping, *, before: PortMapping | None) -> None:
        """Record that the gateway holds a mapping, and plan the next check; ``before``: what was granted before."""
        if not mapping.has_ended:
            mapping.record.confirmed(mapping, before=before)
            self._queue.set(mapping, mapping.next_due)

    def failed(self, mapping: LeasedMapping, error: IGDError) -> None:
        """Record that a mapping could not be added, and plan the next try."""
        if mapping.has_ended:
            return
        now = _now()
        if isinstance(error, ConflictError):
            mapping.taken()
        else:
            mapping.refused(now)
        mapping.record.mapping_changed(mapping)
        pause = schedule.backoff(mapping.failures)
        log.info("%s could not be had, trying again in %.1f s: %s", mapping.key, pause, error)
        self._queue.set(mapping, now + pause)
        self._request_failed(mapping, error)

    async def _check(self, mapping: LeasedMapping) -> bool:
        """Ask whether the gateway still holds a mapping, and add it again if not. Return whether it was there."""
        try:
            held = await self._acquisition.dispatcher_of(mapping).find(mapping.key)
        except (RefusedError, InvalidResponseError):
            if not mapping.is_held and not mapping.has_ended:
                await self._renew(mapping)  # the gateway cannot tell; adding it again does no harm
                return False
            held = mapping.mapping
        except IGDError as error:
            self._request_failed(mapping, error)
            if not mapping.has_ended:
                self._queue.set(mapping, _now() + _NO_ANSWER_PAUSE)
            return False
        if mapping.has_ended:
            return False
        if held is not None and self._is_right(mapping, held):
            mapping.confirmed(held, _now())
            self.kept(mapping, before=mapping.granted_mapping)
            return True
        if held is None or not mapping.is_same(held):
            log.info("the gateway has lost %s", mapping.key)
            mapping.missing(_now())
            mapping.record.mapping_changed(mapping)
        await self._renew(mapping)
        return False

    async def _renew(self, mapping: LeasedMapping) -> None:
        mapping.renewing()
        try:
            added = await self._acquisition.add(mapping)
        except IGDError as error:
            self.failed(mapping, error)
            return
        if mapping.has_ended:  # meanwhile; if the port is another lease's by now, it is for that one to keep
            if mapping.key not in self._acquisition.ports:
                await self._acquisition.release(mapping)
            return
        before = mapping.granted_mapping
        mapping.granted(added, _now())
        self.kept(mapping, before=before)

    def _is_right(self, mapping: LeasedMapping, held: PortMapping) -> bool:
        """Whether what the gateway holds is what this lease made, and still leads to this machine."""
        client = mapping.request.internal_client or self._internal_client(mapping) or held.internal_client
        return mapping.is_same(held) and held.leads_to(client, held.internal_port)

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
