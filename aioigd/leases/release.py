"""How does a lease end? What it holds is deleted in the background, in bounded time, whatever is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final, TypeVar

from ..models import Pinhole, PortMapping
from ..text import get_logger
from .acquisition import Acquisition
from .leased_mapping import LeasedMapping
from .pinholes import PinholeManager

__all__ = ["RELEASE_LIMIT", "RELEASE_STALL", "Release"]

T = TypeVar("T")

log = get_logger("aioigd.lease")

RELEASE_STALL: Final = 5.0
"""Seconds without progress after which the end of a lease no longer waits for the gateway; some need longer."""
_REQUESTS: Final = 3
"""Requests to let go of one mapping: a look, the deletion, and another look."""
RELEASE_LIMIT: Final = 30.0
"""Seconds that the end of a lease takes at most, whatever the progress."""


class Release:
    """What one lease leaves behind, and how far its deletion has come.

    ``progress`` is shared by all releases of a manager: how many are deleted at the same time, and when the gateway
    last did so.
    """

    def __init__(
        self,
        acquisition: Acquisition,
        pinhole_manager: PinholeManager,
        progress: Progress,
        mappings: Iterable[LeasedMapping],
        pinholes: Iterable[Pinhole],
    ) -> None:
        self._acquisition = acquisition
        self._pinhole_manager = pinhole_manager
        self._progress = progress
        self._mappings = list(mappings)
        self._pinholes = list(pinholes)

    @property
    def remaining(self) -> list[PortMapping]:
        """The mappings that are not deleted yet."""
        return [each.mapping for each in self._mappings if each.mapping is not None]

    async def run(self) -> None:
        """Delete what is left, as far as time allows. May be cancelled and run again."""
        work = asyncio.gather(
            *(self._delete(mapping, self._mappings, self._release_mapping) for mapping in self._mappings),
            *(self._delete(pinhole, self._pinholes, self._pinhole_manager.close) for pinhole in self._pinholes),
        )
        work.add_done_callback(_retrieve)  # or asyncio complains where the loop has cancelled the parts of it, too
        try:
            await self._progress.wait_for(work)
        except asyncio.CancelledError:
            work.cancel()
            raise
        if work.cancel():
            with suppress(asyncio.CancelledError):
                await work
            number = len(self._mappings) + len(self._pinholes)
            log.info("the gateway did not delete %d mappings and pinholes in time", number)

    async def _release_mapping(self, mapping: LeasedMapping) -> None:
        async with self._progress.semaphore:  # so that the first is gone before the last is looked for
            if await self._acquisition.release(mapping):
                self._progress.note()

    @staticmethod
    async def _delete(thing: T, left: list[T], delete: Callable[[T], Awaitable[None]]) -> None:
        await delete(thing)
        left.remove(thing)


def _retrieve(work: asyncio.Future[list[None]]) -> None:
    if not work.cancelled():
        work.exception()


class Progress:
    """How the gateway gets on with deleting what leases leave behind."""

    def __init__(self, concurrent: int, seconds_needed: Callable[[], float] = lambda: 0.0) -> None:
        """``seconds_needed`` returns the seconds that the gateway was seen to need for a request."""
        self.semaphore = asyncio.Semaphore(concurrent)
        self._seconds_needed = seconds_needed
        self._last = float("-inf")

    def note(self) -> None:
        """Note that the gateway has deleted something."""
        self._last = asyncio.get_running_loop().time()

    async def wait_for(self, work: asyncio.Future[list[None]]) -> None:
        """Wait as long as the gateway deletes one thing after the other: hundreds take it a while."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while not work.done():
            stall = max(RELEASE_STALL, (_REQUESTS + 0.5) * self._seconds_needed())
            until = min(max(begun, self._last) + stall, begun + RELEASE_LIMIT)
            if until <= loop.time():
                break
            await asyncio.wait([work], timeout=until - loop.time())
