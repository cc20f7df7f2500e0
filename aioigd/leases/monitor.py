"""The gateway as a whole: whether it is there, the same one, where it was, and at the same external address."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from ..errors import DeadlineError, DiscoveryError, IGDError, TransportError
from . import schedule
from .keepable import Keepable, Listening, is_away
from .lease import Lease
from .leased_mapping import Holding
from .renewal import Tending
from .timetable import NEVER

__all__ = ["Contact"]

log = logging.getLogger("aioigd.lease")

_MOST_SEARCHES: Final = 6
"""How often the gateway is searched for after a hint; from then on the poll does it, as a hint can be a lie."""


class Contact:
    """Polls the gateway every ``interval`` seconds, and follows hints that something has happened to it.

    ``leases`` are those to be told. When all mappings may be lost, ``suspect_all`` is called; ``wake`` when something
    is due sooner than before.
    """

    def __init__(
        self,
        router: Keepable,
        leases: Mapping[Lease, Sequence[Holding]],
        suspect_all: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._router = router
        self._leases = leases
        self._suspect_all = suspect_all
        self._wake = wake
        self._sentinels: list[Lease] = []
        self._failures = 0
        self._searches = 0
        self._restart_hints = schedule.Brake()
        self._change_hints = schedule.Brake()
        self._who = router.who
        self._where = router.where
        self._knows_address = False
        self._address: IPv4Address | IPv6Address | None = None
        self._listening: Listening | None = None
        self.interval = 60.0
        self.poll_due = NEVER
        self.recover_due = NEVER

    @property
    def is_lost(self) -> bool:
        """Whether the gateway did not answer when it was last asked."""
        return self._failures > 0

    def begin(self, interval: float) -> None:
        """Poll at this interval from now on."""
        self.interval = interval
        self.poll_due = min(self.poll_due, _now() + interval)

    async def listen(self) -> Listening:
        """Begin to listen to what the gateway tells by itself; the caller closes what this returns."""
        self._who, self._where = self._router.who, self._router.where
        self._listening = await self._router.listen(self._on_restart, self._on_change)
        return self._listening

    def end(self) -> None:
        """Do nothing any more, and forget what will not be true for long."""
        self.poll_due = self.recover_due = NEVER
        self._failures = self._searches = 0
        self._knows_address = False
        self._listening = None

    async def introduce(self, lease: Lease) -> None:
        """Tell a new lease the external address."""
        if not self._knows_address:
            try:
                await self._learn_address()
            except IGDError as error:
                log.info("the external address is not known yet: %s", error)
        lease.move(self._address, silently=True)

    def lose_touch(self, error: IGDError) -> None:
        """Note that a request has failed; if that is because there is no gateway, look for it soon."""
        if is_away(error) and not self._failures:
            self._failures = 1
            self.poll_due = min(self.poll_due, _now() + schedule.pause_after(1))
            self._wake()

    async def poll(self, tending: Tending) -> bool:
        """Look at the gateway, and tell whether anything was different."""
        try:
            if self._router.our_address_moved():
                log.info("this machine has another address now")
                await self._router.look_again()
            has_new_address = await self._learn_address()
        except IGDError as error:
            self._failures += 1
            pause = min(self.interval, schedule.pause_after(self._failures))
            log.info("the gateway does not answer, asking again in %.1f s: %s", pause, error)
            self.poll_due = _now() + pause
            self._wait_for_it()
            return False
        was_lost, self._failures = self._failures > 0, 0
        self.poll_due = _now() + self.interval
        has_moved = self._see_moved()
        may_be_empty = was_lost or has_moved or not await self._check_sentinel(tending)
        if may_be_empty:
            self._suspect_all()
        if self._listening is not None:
            self._listening.follow(anew=may_be_empty)
        self._change_hints.followed(_now(), right=may_be_empty or has_new_address)
        return may_be_empty

    async def recover(self, tending: Tending) -> None:
        """Find the gateway anew after a hint that it has restarted, and look at it."""
        self.recover_due = NEVER
        try:
            await self._router.look_again()
        except IGDError as error:
            self._searches += 1
            pause = schedule.pause_after(self._searches)
            log.info("the gateway is not back yet, looking again in %.1f s: %s", pause, error)
            if self._searches < _MOST_SEARCHES:
                self.recover_due = min(self.recover_due, _now() + pause)
            return
        self._searches = 0
        if self._router.where != self._where:
            self.recover_due = NEVER  # what was heard meanwhile told of this very move: no need for another search
        self._restart_hints.followed(_now(), right=await self.poll(tending))

    def _on_restart(self) -> None:
        self._searches = 0
        self.recover_due = min(self.recover_due, self._restart_hints.when(_now()))
        self._wake()

    def _on_change(self) -> None:
        self.poll_due = min(self.poll_due, self._change_hints.when(_now()))
        self._wake()

    def _see_moved(self) -> bool:
        """Tell whether the gateway is elsewhere than it was, and the leases if it is another one."""
        who, where = self._router.who, self._router.where
        before, self._who = self._who, who
        has_moved, self._where = where != self._where, where
        if who != before and before is not None:
            log.info("the gateway is another one now")
            for lease in self._leases:
                lease.replaced()
        return has_moved

    async def _learn_address(self) -> bool:
        """Ask for the external address, and tell whether it is another one. Raises IGDError where nobody answers."""
        try:
            address: IPv4Address | IPv6Address | None = await self._router.query_external_address()
        except (TransportError, DeadlineError, DiscoveryError):
            raise
        except IGDError:
            address = None  # it says something, but no address: empty while the line is down
        self._knows_address = True
        if address == self._address:
            return False
        self._address = address
        for lease in self._leases:
            lease.move(address)
        return True

    async def _check_sentinel(self, tending: Tending) -> bool:
        """Check one mapping of one lease, each time another's: a restart loses all of them alike."""
        for _ in range(2):
            while self._sentinels:
                for holding in self._leases.get(self._sentinels.pop(), ()):
                    if holding.is_held:
                        return await tending.is_there(holding)
            self._sentinels = list(self._leases)
        return True

    def _wait_for_it(self) -> None:
        for lease, holdings in self._leases.items():
            for holding in holdings:
                if holding.mapping is not None:
                    lease.renewing(holding.number)


def _now() -> float:
    return asyncio.get_running_loop().time()
