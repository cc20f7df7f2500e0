"""Looking after one mapping: whether it is still there, and making it again when it is time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ..errors import IGDError, InvalidResponseError, RefusedError
from ..models import PortMapping
from . import acquisition, schedule
from .keepable import Keepable
from .leased_mapping import Holding
from .timetable import Timetable

__all__ = ["Tending"]

log = logging.getLogger("aioigd.lease")

_NO_ANSWER_PAUSE: Final = 5.0
"""Seconds until a question that got lost is asked again."""


class Tending:
    """Checks and renews mappings, and puts each into the timetable again. ``on_failure`` is told of what fails."""

    def __init__(self, router: Keepable, timetable: Timetable[Holding], on_failure: Callable[[IGDError], None]) -> None:
        self._router = router
        self._timetable = timetable
        self._on_failure = on_failure

    async def tend(self, holding: Holding) -> None:
        """Do for a mapping what is due."""
        if holding.is_to_be_checked:
            is_there = await self._check(holding)
            if not is_there or holding.is_permanent or _now() < holding.renew_at:
                return
        await self._renew(holding)

    async def is_there(self, holding: Holding) -> bool:
        """Ask whether the gateway still holds a mapping; where it does not say, it does."""
        with suppress(IGDError):
            held = await self._router.find(holding.key)
            if held is None or not self._is_right(holding, held):
                return holding.ended
            if holding.mapping is not None and not holding.ended:
                holding.lease.confirm(holding.number, holding.mapping)
        return True

    async def _check(self, holding: Holding) -> bool:
        """Ask whether the gateway still holds a mapping, and make it again if not. Tell whether it was there."""
        mapping = holding.mapping
        assert mapping is not None  # noqa: S101 - only what was made is checked
        try:
            held = await self._router.find(holding.key)
        except (RefusedError, InvalidResponseError):
            if holding.suspect:  # the gateway cannot tell; making it again does no harm
                await self._renew(holding)
                return False
            held = mapping
        except IGDError as error:
            self._on_failure(error)
            self._plan(holding, _now() + _NO_ANSWER_PAUSE)
            return False
        if holding.ended:
            return False
        if held is not None and self._is_right(holding, held):
            holding.confirmed(held, _now())
            self.kept(holding)
            return True
        if held is None or not holding.is_same(held):
            log.info("the gateway has lost %s", holding.key)
            holding.lost(_now())
            holding.lease.lose(holding.number)
        await self._renew(holding)
        return False

    def _is_right(self, holding: Holding, held: PortMapping) -> bool:
        """Whether what the gateway holds is what this lease made, and still leads to this machine."""
        client = holding.request.internal_client or self._router.internal_client or held.internal_client
        return holding.is_same(held) and held.internal_client == client

    def kept(self, holding: Holding) -> None:
        """Tell the lease that the gateway holds a mapping, and plan the next look."""
        if holding.mapping is not None and not holding.ended:
            holding.lease.confirm(holding.number, holding.mapping)
            self._plan(holding, holding.next_look)

    def failed(self, holding: Holding, error: IGDError) -> None:
        """Tell the lease that a mapping could not be made, and plan the next try."""
        if holding.ended:
            return
        now = _now()
        holding.failures += 1
        holding.suspect = False
        holding.taken = acquisition.is_conflict(error)
        if holding.taken or holding.has_expired(now):
            holding.lease.lose(holding.number)
        pause = schedule.pause_after(holding.failures)
        log.info("%s could not be had, trying again in %.1f s: %s", holding.key, pause, error)
        self._plan(holding, now + pause)
        self._on_failure(error)

    async def _renew(self, holding: Holding) -> None:
        holding.lease.renewing(holding.number)
        try:
            mapping = await acquisition.make(self._router, holding)
        except IGDError as error:
            self.failed(holding, error)
            return
        if holding.ended:  # meanwhile; if the port is another lease's by now, it is for that one to keep
            if holding.key not in holding.ports:
                await acquisition.let_go(self._router, holding)
            return
        holding.made(mapping, _now())
        self.kept(holding)

    def _plan(self, holding: Holding, due: float) -> None:
        if not holding.ended:
            self._timetable.set(holding, due)


def _now() -> float:
    return asyncio.get_running_loop().time()
