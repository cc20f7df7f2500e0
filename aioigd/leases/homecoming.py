"""When does a lease leave a stopgap? Looks for the router of the best default route, and brings leases home to it.

A gateway that is not that router is a stopgap (:meth:`~aioigd.core.backend.Backend.home_hosts`): it was taken because
the router was away. While leases are there, this happens at each poll, and when the router announces itself:

==============================================  =====================================================================
the router                                      what follows
==============================================  =====================================================================
does not answer one M-SEARCH by unicast         asked again at the next poll; after ten polls every 20 minutes
answers, and is no gateway                      asked again at the next poll
is there, and grants all ports of a lease       the lease goes over (GATEWAY_REPLACED), and new calls with it; what it
                                                had at the stopgap is deleted there, in the background
is there, and grants not all of them            what it did grant is deleted there; the lease stays at the stopgap as
                                                it is, and is tried again at the next poll
goes away meanwhile                             nobody goes over
==============================================  =====================================================================

Why so:

- A lease is ACTIVE all the time: its ports at the stopgap are open until those at home are. So they are made at home as
  new mappings, by an :class:`~aioigd.leases.acquisition.Acquisition` for that router alone, and take the place of the
  old ones when all are granted. Whose port is taken there fares as ``on_conflict`` says.
- Leases of one mapper may be at two gateways for a while: the mappings of one that stays have a dispatcher of their own
  for as long as it stays. It stays no longer than it works there: one that is LOST there, or whose stopgap cannot be
  reached any more, goes home as it is, and is looked after there.
- Leases that share a mapping go together, as only the last one of them deletes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from typing import Any, Final, NamedTuple, Protocol

from ..core.backend import Backend
from ..core.dispatcher import Dispatcher
from ..core.gateway_cache import GatewayCache
from ..errors import IGDError, is_unreachable
from ..models import Pinhole, PortMapping
from ..text import get_logger
from .acquisition import MAX_CONCURRENT, Acquisition
from .lease import LeaseRecord, LeaseState
from .leased_mapping import LeasedMapping
from .owner_lock import Ownership
from .schedule import DueQueue

__all__ = ["HomeSearch", "Homecoming", "is_away_from_home"]

log = get_logger("aioigd.lease")

_SILENT_POLLS: Final = 10
"""Polls that a next hop leaves unanswered before it is asked less often: it may map no ports at all."""
_SILENT_TIME: Final = 500.0
"""Seconds that these take at least: where polls are frequent, ten of them are no more than a restart."""
_SILENT_INTERVAL: Final = 1200.0
"""Seconds between two questions to a next hop that has left so many unanswered."""
_LEAVE_LIMIT: Final = 10.0
"""Seconds for which the end of a manager waits for what is being deleted at a gateway that was left."""


class _Asked:
    """A next hop: how often it was asked, how often in a row it was silent, since when, and when to ask it again."""

    __slots__ = ("not_before", "silent", "silent_since", "times")

    def __init__(self) -> None:
        self.times = 0
        self.silent = 0
        self.silent_since = 0.0
        self.not_before = float("-inf")


class HomeSearch:
    """Asks the next hops of the best default route whether they are gateways, each with one datagram at a time."""

    def __init__(self, cache: GatewayCache) -> None:
        self._cache = cache
        self._asked: dict[str, _Asked] = {}

    async def look(self, *, because_of_hint: bool) -> Backend | None:
        """Return the router of the best default route if it is there: the gateway in use if that is no stopgap.

        One that has been silent for long is not asked each time, but ``because_of_hint`` it is.
        """
        try:
            hosts = self._cache.home_hosts()
            if not hosts:
                self._asked.clear()
                return self._cache.cached()
            self._asked = {host: self._asked.get(host) or _Asked() for host in hosts}
            now = _now()
            due = [host for host in hosts if because_of_hint or self._asked[host].not_before <= now]
            found = await asyncio.gather(*(self._ask(host, self._asked[host]) for host in due))
        except IGDError as error:
            log.debug("the router of the default route cannot be looked for: %s", error)
            return None
        return next(filter(None, found), None)

    async def _ask(self, host: str, asked: _Asked) -> Backend | None:
        asked.times += 1
        if not asked.silent:
            asked.silent_since = _now()
        home, has_answered = await self._cache.find_home(host, asked.times - 1)
        asked.silent = 0 if has_answered else asked.silent + 1
        is_hopeless = asked.silent >= _SILENT_POLLS and _now() - asked.silent_since >= _SILENT_TIME
        asked.not_before = _now() + _SILENT_INTERVAL if is_hopeless else float("-inf")
        return home


class Keeper(Protocol):
    """What is told that a mapping is held."""

    def kept(self, mapping: LeasedMapping, *, before: PortMapping | None) -> None:
        """Record that the gateway holds a mapping, and plan the next check; ``before``: what was granted before."""


class _Trial(NamedTuple):
    """The mappings of a lease as they were made at home, and why not all of them were."""

    mappings: Sequence[LeasedMapping]
    failure: IGDError | None


class Homecoming:
    """Moves leases to the router of the best default route."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        cache: GatewayCache,
        acquisition: Acquisition,
        queue: DueQueue[LeasedMapping],
        keeper: Keeper,
        leave_pinholes: Callable[[], Sequence[Pinhole]],
    ) -> None:
        self._dispatcher = dispatcher
        self._cache = cache
        self._acquisition = acquisition
        self._queue = queue
        self._keeper = keeper
        self._leave_pinholes = leave_pinholes
        self._leaving: set[asyncio.Task[None]] = set()

    async def bring_home(self, home: Backend, leases: dict[LeaseRecord, Sequence[LeasedMapping]]) -> bool:
        """Bring the leases that are elsewhere home, as far as they can be had there.

        ``leases`` has new mappings for those that went over. Return whether it is the gateway in use from now on, and
        was not before.
        """
        current = self._cache.last
        if current is None:
            return False
        going = {
            record: mappings
            for record, mappings in leases.items()
            if current is not home or is_away_from_home(mappings)
        }
        if not going:
            return False
        if current.gateway_id == home.gateway_id and current is not home:
            self._cache.go_home(home)  # the same router at its other address
            return True
        at_home = Acquisition(self._dispatcher.fixed_to(home), self._cache, Ownership(lambda: home.address))
        for key in self._acquisition.ports:
            at_home.ports.acquire(key)  # so that no lease gets the port of another one instead of its own
        trials: dict[LeaseRecord, _Trial] = {}
        try:
            await self._try(at_home, going, trials)
            gone = await self._gone([record for record in going if not _is_granted(trials, record)], going)
        except BaseException:
            self._roll_back(at_home, trials.values(), ())
            raise
        # From here on nothing is waited for, so nobody sees a lease between two gateways.
        failed = _not_going(going, trials)
        staying = [
            record
            for record in failed
            if not record.is_ended and record not in gone and record.state is not LeaseState.LOST
        ]
        is_home_gone = any(one.failure is not None and is_unreachable(one.failure) for one in trials.values())
        if is_home_gone or (current is not home and staying and len(failed) == len(going)):
            self._roll_back(at_home, trials.values(), _at_home(leases) if current is home else ())
            return False
        if current is not home:
            staying += [record for record in leases if record not in going]  # begun meanwhile
        for record in staying:
            self._bind(leases[record], current)
        going_over = [record for record in going if record not in failed]
        left = self._adopt(trials, going_over, leases, current)
        left += self._give_up([record for record in failed if record not in staying], going, current)
        self._roll_back(at_home, [trials[record] for record in failed if record in trials], _at_home(leases))
        pinholes: Sequence[Pinhole] = ()
        if current is not home or len(failed) < len(going):
            log.warning("leases go home to %s, and %d stay where they are", home, len(staying))
        if current is not home:
            pinholes = self._leave_pinholes()
            self._cache.go_home(home)
        for record in going_over:
            for mapping in leases[record]:
                self._acquisition.claim_now(mapping)
        still_used = {mapping.key for record in staying for mapping in leases[record]}
        self._leave(self._acquisition.release(mapping) for mapping in left if mapping.key not in still_used)
        at_stopgap = self._dispatcher.fixed_to(current)
        self._leave(_close(at_stopgap, pinhole) for pinhole in pinholes)
        return current is not home

    def follow(self, mappings: Iterable[LeasedMapping]) -> None:
        """Let mappings that are at the very gateway that is in use now follow it wherever it moves."""
        current = self._cache.last
        for mapping in mappings:
            fixed = None if mapping.dispatcher is None else mapping.dispatcher.fixed
            if current is not None and fixed is not None and fixed.gateway_id == current.gateway_id:
                self._acquisition.unbind(mapping)

    def bind(self, mappings: Iterable[LeasedMapping]) -> None:
        """Let what is to be deleted be deleted where it is, even if the leases go home meanwhile."""
        if self._cache.last is not None and self._cache.home_hosts():
            self._bind(mappings, self._cache.last)

    def left_behind(self, stopgap: Backend, mappings: Iterable[LeasedMapping]) -> None:
        """The router is in use already, because the stopgap did not answer: mappings are there until they went home."""
        self._bind(mappings, stopgap)

    async def begin(self, record: LeaseRecord) -> None:
        """Let a lease that begins at a stopgap have all its requests go there, even if others go home meanwhile."""
        with suppress(IGDError):
            if self._cache.home_hosts():
                await self._dispatcher.external_address()  # if it has gone, another one is found
                if self._cache.last is not None and self._cache.home_hosts():
                    self._acquisition.begins_at[record] = self._dispatcher.fixed_to(self._cache.last)

    def begun(self, record: LeaseRecord) -> None:
        """A lease has begun, or failed to: if others went home meanwhile, it follows at the next poll."""
        self._acquisition.begins_at.pop(record, None)

    async def close(self) -> None:
        """Wait until nothing is left at the gateways that were left, a few seconds at most."""
        if self._leaving:
            _, late = await asyncio.wait(tuple(self._leaving), timeout=_LEAVE_LIMIT)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    # At home

    async def _try(
        self,
        at_home: Acquisition,
        leases: Mapping[LeaseRecord, Sequence[LeasedMapping]],
        trials: dict[LeaseRecord, _Trial],
    ) -> None:
        """Make the mappings of leases at home as well, until nobody answers there, and note them in ``trials``."""
        records = list(leases)
        for start in range(0, len(records), MAX_CONCURRENT):
            some = records[start : start + MAX_CONCURRENT]
            for record in some:
                trials[record] = _Trial([at_home.new_mapping(record, one.request) for one in leases[record]], None)
            outcomes = await asyncio.gather(
                *(at_home.acquire_each(trials[record].mappings, required=True) for record in some)
            )
            failures = [next(filter(None, each), None) for each in outcomes]
            for record, failure in zip(some, failures, strict=True):
                trials[record] = trials[record]._replace(failure=failure)
                if failure is not None:
                    log.info("a lease cannot go home: %s", failure)
            if any(failure is not None and is_unreachable(failure) for failure in failures):
                return

    def _roll_back(self, at_home: Acquisition, trials: Iterable[_Trial], others: Collection[object]) -> None:
        """Delete what was made at home in vain, but for the mappings of ``others``, which are there already."""
        made = [one for trial in trials for one in trial.mappings if one.mapping is not None and one.key not in others]
        self._leave([*map(at_home.release, made), _close_claims(at_home)])

    def _adopt(
        self,
        trials: Mapping[LeaseRecord, _Trial],
        records: Iterable[LeaseRecord],
        leases: dict[LeaseRecord, Sequence[LeasedMapping]],
        stopgap: Backend,
    ) -> list[LeasedMapping]:
        """Let leases be at home, and return what is to be deleted where they were."""
        left: list[LeasedMapping] = []
        for record in records:
            before, after = leases[record], trials[record].mappings
            for old, new in zip(before, after, strict=True):
                self._acquisition.replace(old, new)
                self._queue.remove(old)
                if old.ended():
                    left.append(old)
            leases[record] = record.mappings = after
            record.gateway_replaced()
            for old, new in zip(before, after, strict=True):
                self._keeper.kept(new, before=old.granted_mapping)
        self._bind(left, stopgap)
        return left

    # At the stopgap

    async def _gone(
        self, records: Sequence[LeaseRecord], leases: Mapping[LeaseRecord, Sequence[LeasedMapping]]
    ) -> Collection[LeaseRecord]:
        """Return which of the leases that have stayed alone cannot be looked after any more where they are."""
        alone = [record for record in records if is_away_from_home(leases[record])]
        answers = await asyncio.gather(*(_is_out_of_reach(leases[record][0]) for record in alone))
        return {record for record, is_gone in zip(alone, answers, strict=True) if is_gone}

    def _give_up(
        self,
        records: Iterable[LeaseRecord],
        leases: Mapping[LeaseRecord, Sequence[LeasedMapping]],
        stopgap: Backend,
    ) -> list[LeasedMapping]:
        """Let leases that work nowhere be at home, and return what is to be deleted where they were."""
        left: list[LeasedMapping] = []
        for record in records:
            if record.is_ended:
                continue
            left += [copy(mapping) for mapping in leases[record] if mapping.mapping is not None]
            record.gateway_replaced()
            for mapping in leases[record]:
                mapping.dispatcher = None
                mapping.suspected()
                self._queue.set(mapping, _now())
        self._bind(left, stopgap)
        return left

    def _bind(self, mappings: Iterable[LeasedMapping], backend: Backend) -> None:
        """Have requests for these mappings go to this gateway, unless they go to another one already."""
        dispatcher = self._dispatcher.fixed_to(backend)
        for mapping in mappings:
            self._acquisition.bind(mapping, dispatcher)

    def _leave(self, work: Iterable[Coroutine[Any, Any, object]]) -> None:
        """Delete something in the background, one after the other: the gateway may answer slowly, or not at all."""
        rest = list(work)
        if rest:
            task = asyncio.get_running_loop().create_task(_all_of(rest))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)


def is_away_from_home(mappings: Sequence[LeasedMapping]) -> bool:
    """Return whether the mappings of a lease have stayed at another gateway than the one in use."""
    return any(mapping.dispatcher is not None for mapping in mappings)


def _at_home(leases: Mapping[LeaseRecord, Sequence[LeasedMapping]]) -> Collection[object]:
    """Return the keys of the mappings that leases have at the gateway in use."""
    return {one.key for mappings in leases.values() for one in mappings if one.dispatcher is None}


def _is_granted(trials: Mapping[LeaseRecord, _Trial], record: LeaseRecord) -> bool:
    return record in trials and trials[record].failure is None and not record.is_ended


def _not_going(
    leases: Mapping[LeaseRecord, Sequence[LeasedMapping]], trials: Mapping[LeaseRecord, _Trial]
) -> Collection[LeaseRecord]:
    """Return the leases that cannot go home, and those that share a mapping with one of them."""
    failed = {record for record in leases if not _is_granted(trials, record)}
    while True:
        keys = {one.key for record in failed if not record.is_ended for one in leases[record]}
        more = {record for record in leases if record not in failed and any(one.key in keys for one in leases[record])}
        if not more:
            return failed
        failed |= more


async def _is_out_of_reach(mapping: LeasedMapping) -> bool:
    try:
        if mapping.dispatcher is not None:
            await mapping.dispatcher.find(mapping.key)
    except IGDError as error:
        return is_unreachable(error)
    return False


async def _close_claims(acquisition: Acquisition) -> None:
    acquisition.close()


async def _close(dispatcher: Dispatcher, pinhole: Pinhole) -> None:
    with suppress(IGDError):
        await dispatcher.delete_pinhole(pinhole)


async def _all_of(work: Sequence[Coroutine[Any, Any, object]]) -> None:
    try:
        for one in work:
            await one
    finally:
        for one in work:
            one.close()  # what was not begun


def _now() -> float:
    return asyncio.get_running_loop().time()
