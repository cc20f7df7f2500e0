"""How the mappings of a lease are made, on the ports that it names or may have, and how they are deleted.

A port is claimed before its mapping is added, and given up with it, so that only the last program of this host that
keeps a mapping deletes it (``owner_lock``). A port that is another's is not claimed.

Where the caller leaves a choice, a refusal is not its end: any that names no other cause than the port leads to the
next one. Customers who share an address (MAP-E, RFC 7597) have few ports, and their routers refuse the others with any
code. On the first port all terms are gone through; for the rest there are 256 ports, _MOST_REQUESTS and _LONGEST_WALK.
The mappings of several protocols keep one number: they go to another port together, or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Final
from weakref import WeakKeyDictionary

from ..core.backend import Trial
from ..core.dispatcher import Dispatcher
from ..core.gateway_cache import GatewayCache
from ..errors import (
    ConflictError,
    IGDError,
    InvalidResponseError,
    NotFoundError,
    RefusedError,
    UnsupportedError,
    is_gone,
    is_unreachable,
)
from ..models import MappingKey, MappingRequest, PortMapping
from ..results import UPnPResult
from ..text import get_logger
from .lease import LeaseRecord, LeaseState
from .leased_mapping import LeasedMapping
from .owner_lock import Ownership
from .reading import is_deleted, read_back
from .request import MOST_TRIES
from .schedule import RefCounter

__all__ = ["MAX_CONCURRENT", "Acquisition", "not_held"]

log = get_logger("aioigd.lease")

_DELETIONS: Final = 2
"""Deletions of one mapping, where the gateway goes on to hold what it says it has deleted."""
MAX_CONCURRENT: Final = 8
"""Mappings of one manager that are worked on at the same time; how many requests are out is the limiter's matter."""


_MOST_REQUESTS: Final = 512
"""Requests for the ports that are tried in a row, with what follows where one is granted."""
_RESERVE: Final = 24
"""Those of them that are kept for the one that is granted."""
_LONGEST_WALK: Final = 60.0
"""Seconds for the same."""
_LOOKS: Final = 8
"""Ports that are looked at one by one; then the gateway's table is read, which tells of all."""
_MOST_PAGES: Final = 16
"""Pages of that table, of four rows each."""
_ROWS_PER_PAGE: Final = 4
_TRIES_PER_RETRY: Final = 4
"""Ports that are tried each time, once all have been."""
_PATIENCE: Final = 6
"""Failures in a row after which a lease leaves a port that it had, if nothing says that the port is another's."""

_OF_THE_PORT: Final = frozenset(
    {
        UPnPResult.CONFLICT_WITH_OTHER_MAPPING,
        UPnPResult.CONFLICT_WITH_OTHER_MECHANISM,
        UPnPResult.ACTION_FAILED,
        UPnPResult.INVALID_RESPONSE,
        UPnPResult.UNKNOWN_ERROR,
        UPnPResult.SOCKET_ERROR,
        UPnPResult.HTTP_ERROR,
    }
)
"""Results of a refusal that may be a matter of the port."""
_OF_THE_PORT_WITH_CODE: Final = frozenset({UPnPResult.INVALID_ARGS, UPnPResult.NOT_AUTHORIZED})
"""The same, if the gateway gave a code: without one they concern every port."""


def leaves_choice(error: IGDError) -> bool:
    """Return whether an error names no other cause than the port, so that another one may be had."""
    if isinstance(error, InvalidResponseError):
        return not is_gone(error)
    if not isinstance(error, RefusedError) or isinstance(error, UnsupportedError):
        return False
    return error.result in _OF_THE_PORT or (error.result in _OF_THE_PORT_WITH_CODE and error.error_code is not None)


def not_held(key: MappingKey, held: PortMapping | None) -> NotFoundError:
    """Return the error for a mapping that the gateway said yes to, and does not hold, or holds switched off."""
    what_it_does = "does not hold it" if held is None else "has switched it off"
    return NotFoundError(
        f"the gateway says that it mapped {key}, and {what_it_does}", UPnPResult.PORT_MAPPING_NOT_FOUND
    )


class Acquisition:
    """Makes and deletes the mappings of leases.

    ``ports`` counts the leases on each external port; ``begins_at`` has the leases that begin at a stopgap.
    """

    def __init__(self, dispatcher: Dispatcher, cache: GatewayCache, claims: Ownership) -> None:
        self._dispatcher = dispatcher
        self._cache = cache
        self._claims = claims
        self.ports: RefCounter[MappingKey] = RefCounter()
        self.begins_at: dict[LeaseRecord, Dispatcher] = {}
        self._claims_elsewhere: dict[str, Ownership] = {}
        self._tried: WeakKeyDictionary[LeasedMapping, int] = WeakKeyDictionary()
        """How many other ports were tried for a mapping that could not be had."""
        self._last_found = 0
        """The last port that was found after many: its neighbours may be had as well."""
        self._being_tried: set[MappingKey] = set()
        """Ports that another lease need not try meanwhile."""
        self._moving: WeakKeyDictionary[LeaseRecord, asyncio.Lock] = WeakKeyDictionary()

    def new_mapping(self, record: LeaseRecord, request: MappingRequest) -> LeasedMapping:
        """Return a mapping that a lease wants; from now on its port is in use."""
        self.ports.acquire(request.key)
        mapping = LeasedMapping(record, request)
        mapping.dispatcher = self.begins_at.get(record)
        return mapping

    def dispatcher_of(self, mapping: LeasedMapping) -> Dispatcher:
        """Return where the requests for a mapping go: to the gateway in use, unless it has stayed at another one."""
        return mapping.dispatcher or self._dispatcher

    def claims_of(self, mapping: LeasedMapping) -> Ownership:
        """Return the claims on the ports of the gateway where a mapping is."""
        fixed = None if mapping.dispatcher is None else mapping.dispatcher.fixed
        if fixed is None:
            return self._claims
        if fixed.address not in self._claims_elsewhere:
            self._claims_elsewhere[fixed.address] = Ownership(lambda: fixed.address)
        return self._claims_elsewhere[fixed.address]

    def bind(self, mapping: LeasedMapping, dispatcher: Dispatcher) -> None:
        """Have the requests for a mapping go to the gateway of ``dispatcher``, unless they go to another one."""
        if mapping.dispatcher is None:
            self._place(mapping, dispatcher)

    def unbind(self, mapping: LeasedMapping) -> None:
        """Have the requests for a mapping go to the gateway in use."""
        if mapping.dispatcher is not None:
            self._place(mapping, None)

    def replace(self, old: LeasedMapping, new: LeasedMapping) -> None:
        """Note that a lease has a mapping at another gateway instead of the one it had."""
        self._change_port(old, new.key)

    def claim_now(self, mapping: LeasedMapping) -> None:
        """Claim the port of a mapping that was made by another one of these."""
        self.claims_of(mapping).hold_now(mapping.key)

    def close(self) -> None:
        """Give up all claims."""
        for claims in (self._claims, *self._claims_elsewhere.values()):
            claims.close()

    def _place(self, mapping: LeasedMapping, dispatcher: Dispatcher | None) -> None:
        before = self.claims_of(mapping)
        mapping.dispatcher = dispatcher
        if not mapping.has_ended:
            self.claims_of(mapping).hold_now(mapping.key)
            before.drop(mapping.key)

    async def acquire_each(self, mappings: Sequence[LeasedMapping], *, required: bool) -> list[IGDError | None]:
        """Make mappings for the first time, and return what became of each.

        Where the gateway is not there, or one that is ``required`` fails, the rest is not tried and has failed, too.
        """
        outcomes: list[IGDError | None] = []
        groups = list(_groups(mappings))
        for start in range(0, len(groups), MAX_CONCURRENT):
            some = groups[start : start + MAX_CONCURRENT]
            for each in await asyncio.gather(*map(self._acquire_together, some)):
                outcomes += each
            final = next(
                (error for error in outcomes if error is not None and (required or is_unreachable(error))), None
            )
            if final is not None:
                return outcomes + [final] * (len(mappings) - len(outcomes))
        return outcomes

    async def acquire_one_of(self, record: LeaseRecord, mappings: list[LeasedMapping]) -> IGDError | None:
        """Make the mappings of a lease on the first of its choices that can be had, and return why there is none.

        ``mappings`` is filled with those that were made or tried last, also where this is cancelled in the middle.
        """
        request = record.request
        free = (port for port in request.choices if not self._are_in_use(request.mapping_requests(port)))
        port = next(free, 0)
        mappings[:] = [self.new_mapping(record, one) for one in request.mapping_requests(port or request.choices[0])]
        if not port:
            return ConflictError("all ports that may be tried are taken by this program")
        may_choose = True
        if request.any_port and len(mappings) == 1:
            refusal = await self._let_gateway_choose(mappings, by_others=False)
            if refusal is None:
                return None
            may_choose = isinstance(refusal, UnsupportedError)
        return next(filter(None, await self._acquire_together(mappings, gateway_may_choose=may_choose)), None)

    async def add(self, mapping: LeasedMapping) -> PortMapping:
        """Add a mapping as the policy of its lease has it; another port may be the outcome.

        Raises the IGDError of the gateway's refusal where the policy knows no way around it.
        """
        request = mapping.record.request
        if len(request.protos) == 1 or not request.may_move:
            return await self._add(mapping)
        async with self._moving.setdefault(mapping.record, asyncio.Lock()):
            return await self._add(mapping)

    async def _add(self, mapping: LeasedMapping) -> PortMapping:
        may_be_in_its_own_way = mapping.may_be_in_its_own_way
        try:
            return await self._add_here(mapping)
        except IGDError as error:
            failure = error
        if isinstance(failure, ConflictError):
            if may_be_in_its_own_way and await self._is_still_there(mapping):
                return await self._add_here(mapping, overwrite=True)
        elif mapping.granted_mapping is not None and (
            mapping.shows is not LeaseState.LOST or mapping.failures < _PATIENCE
        ):
            raise failure  # some refuse to renew what is there, or anything as long as the line is down
        if not mapping.record.request.may_move or not leaves_choice(failure):
            raise failure
        siblings = [
            one
            for one in mapping.record.mappings
            if isinstance(one, LeasedMapping)
            and one is not mapping
            and one.key[0] == mapping.key[0]
            and not one.has_ended
        ]
        if mapping.record.request.takes_any_port and (added := await self._move_to_any([mapping, *siblings])):
            return added
        return await self._add_elsewhere([mapping, *siblings], failure, begins=False)

    async def _move_to_any(self, group: Sequence[LeasedMapping]) -> PortMapping | None:
        """Add mappings that keep one number on a port that the gateway chooses, and return what the first was granted.

        None where it cannot choose; the mappings are then where they were.
        """
        first, *others = group
        before = first.request
        dispatcher = self.dispatcher_of(first)
        with suppress(IGDError):
            added = await dispatcher.add_any(before)
            self._move(first, before._replace(key=added.key))
            self._hold(first, added)
            try:
                for other in others:
                    await self._follow_to(other, added.external_port)
            except BaseException:
                self._move(first, before)
                with suppress(IGDError):
                    await dispatcher.delete(added.key)
                raise
            return added
        return None

    async def _follow_to(self, mapping: LeasedMapping, port: int) -> None:
        """Add a mapping on the port to which another one of its lease has gone, and delete it where it was."""
        request = mapping.request._replace(key=mapping.key._replace(external_port=port))
        try:
            added = await self._try_port(mapping, request, Trial())
        except ConflictError:
            if not mapping.is_unreadable:
                raise
            # By PCP and NAT-PMP the one that is there is in the way: it has the same internal port.
            dispatcher = self.dispatcher_of(mapping)
            with suppress(RefusedError):  # after a restart there is nothing
                await dispatcher.delete(mapping.key)
            for wish in (request, mapping.request):  # some give the same port to the same wish
                added = await dispatcher.add_any(wish)
                if added.external_port == port:
                    break
                await dispatcher.delete(added.key)
            else:
                with suppress(IGDError):
                    await self._add_here(mapping)
                raise
        await self._bring_along(mapping, request, added)

    async def _add_here(self, mapping: LeasedMapping, *, overwrite: bool = False) -> PortMapping:
        """Add a mapping on the port that it has."""
        overwrite = overwrite or mapping.record.request.on_conflict == "take_over"
        try:
            await self._claim(mapping, mapping.key)
            added = await self.dispatcher_of(mapping).add(mapping.request, overwrite=overwrite)
        except BaseException as error:
            if mapping.has_ended or isinstance(error, ConflictError):
                self._give_up(mapping)
            raise
        self._hold(mapping, added)
        return added

    async def _acquire_together(
        self, group: Sequence[LeasedMapping], *, gateway_may_choose: bool = True
    ) -> list[IGDError | None]:
        """Make mappings for the first time that keep one number, and return what became of each.

        ``gateway_may_choose``: let it choose the port, if that may be any, before others are tried.
        """
        outcomes = await asyncio.gather(*map(self._outcome, group))
        failure = next(filter(None, outcomes), None)
        request = group[0].record.request
        if failure is None or not request.may_move or not leaves_choice(failure):
            return outcomes
        made = [one for one, outcome in zip(group, outcomes, strict=True) if outcome is None]
        await self._take_back(made, are_new=True)
        if request.takes_any_port and gateway_may_choose and await self._let_gateway_choose(group) is None:
            return [None] * len(group)
        try:
            await self._add_elsewhere(group, failure, begins=True)
        except IGDError as error:
            return [error] * len(group)
        return [None] * len(group)

    async def _add_elsewhere(self, group: Sequence[LeasedMapping], failure: IGDError, *, begins: bool) -> PortMapping:
        """Add mappings that keep one number on another port, and return what the first of them was granted.

        With ``begins`` all are new, and read back; otherwise the first could not be had where it was, and the others go
        with it. Raises the last refusal where no port can be had; the mappings are then where they were.
        """
        first = group[0]
        wanted = [one.request for one in group]
        was_had = any(one.granted_mapping is not None for one in first.record.mappings)
        ports = self._ports_to_try(first)
        until = asyncio.get_running_loop().time() + _LONGEST_WALK
        requests_left = _MOST_REQUESTS - _RESERVE - len(failure.attempts)
        held: frozenset[MappingKey] | None = None
        for number, port in enumerate(self._walk(first, ports)):
            requests = [one.record.request.moved(one.request, port, was_had=was_had) for one in group]
            if self._are_in_use(requests):
                continue
            if begins and number == _LOOKS:
                held, cost = await self._read_keys(first)
                requests_left -= cost
            is_free = held is not None and not any(one.key in held for one in requests)
            if requests_left < (1 if is_free else 2) or asyncio.get_running_loop().time() >= until:
                break
            ports_left = max(0, len(ports) - number)
            looks_left = ports_left if held is None else 0
            if begins and number < _LOOKS:
                looks_left = _LOOKS - number
            is_room_for_two = requests_left > ports_left + looks_left
            self._tried[first] = self._tried.get(first, 0) + 1
            keys = {one.key for one in requests}
            self._being_tried |= keys
            try:
                added = await self._add_at(group, requests, Trial(1 + is_room_for_two, is_free), begins=begins)
            except IGDError as error:
                failure = error
                requests_left -= len(error.attempts)
                if not leaves_choice(error):
                    break
            else:
                del self._tried[first]
                if number >= _LOOKS:
                    self._last_found = port
                return added
            finally:
                self._being_tried -= keys
        for one, request in zip(group, wanted, strict=True):
            if one.key != request.key:
                self._move(one, request)
        raise failure

    async def _add_at(
        self, group: Sequence[LeasedMapping], requests: Sequence[MappingRequest], trial: Trial, *, begins: bool
    ) -> PortMapping:
        """Add mappings on a port, all or none of them, and return what the first of them was granted."""
        made: list[LeasedMapping] = []
        granted: list[PortMapping] = []
        try:
            for one, request in zip(group, requests, strict=True):
                granted.append(added := await self._try_port(one, request, trial))
                if made and not begins:
                    await self._bring_along(one, request, added)
                    continue
                self._move(one, request)
                self._hold(one, added)
                made.append(one)
                if begins:
                    one.accepted(added)
                    await self._settle(one, added)
        except IGDError:
            await self._take_back(made, are_new=begins)
            raise
        return granted[0]

    async def _try_port(self, mapping: LeasedMapping, request: MappingRequest, trial: Trial) -> PortMapping:
        try:
            await self._claim(mapping, request.key)
            return await self.dispatcher_of(mapping).try_port(request, trial)
        except BaseException:
            if request.key not in self.ports:
                self.claims_of(mapping).drop(request.key)
            raise

    async def _bring_along(self, mapping: LeasedMapping, request: MappingRequest, added: PortMapping) -> None:
        """Let a mapping follow another one of its lease, and delete it where it was."""
        old, before = mapping.key, mapping.granted_mapping
        self._move(mapping, request)
        self._hold(mapping, added)
        mapping.granted(added, asyncio.get_running_loop().time())
        mapping.record.confirmed(mapping, before=before)
        if before is not None and old not in self.ports:
            with suppress(IGDError), self.claims_of(mapping).take_if_last(old) as is_last:
                held = await self.dispatcher_of(mapping).find(old) if is_last else None
                if held is not None and held.leads_to(before.internal_client, before.internal_port):
                    await self.dispatcher_of(mapping).delete(old)

    async def _take_back(self, made: Iterable[LeasedMapping], *, are_new: bool) -> None:
        """Delete mappings that were made in vain, as others of their lease cannot be had there."""
        for one in made:
            await self.release(one)
            if are_new:
                one.taken_back()

    def _walk(self, mapping: LeasedMapping, ports: Sequence[int]) -> Iterator[int]:
        """Yield ports to try, each once, and those first that are near one that was found, maybe meanwhile."""
        request, seen, rest = mapping.record.request, {mapping.key.external_port}, iter(ports)
        while len(seen) < MOST_TRIES:
            near = request.near(self._last_found) if self._last_found else ()
            port = next((one for one in near if one not in seen), 0) or next(rest, 0)
            if not port:
                return
            if port not in seen:
                seen.add(port)
                yield port

    def _ports_to_try(self, mapping: LeasedMapping) -> Sequence[int]:
        """Return where else to try: all once, and then only some each time, one after the other."""
        ports = mapping.record.request.other_ports(mapping.key.external_port)
        tried = self._tried.get(mapping, 0)
        if tried < len(ports):
            return ports[tried:]
        return [ports[(tried + number) % len(ports)] for number in range(min(_TRIES_PER_RETRY, len(ports)))]

    async def _read_keys(self, mapping: LeasedMapping) -> tuple[frozenset[MappingKey] | None, int]:
        """Return what the gateway holds, None where its table cannot be read or is long, and what it cost at most."""
        dispatcher = self.dispatcher_of(mapping)
        keys: set[MappingKey] = set()
        cursor = None
        for page_number in range(1, _MOST_PAGES + 1):
            try:
                page, cursor = await dispatcher.list_page(cursor)
            except IGDError:
                return None, page_number * _ROWS_PER_PAGE
            keys.update(one.key for one in page)
            if cursor is None:
                return frozenset(keys), page_number * _ROWS_PER_PAGE
        return None, _MOST_PAGES * _ROWS_PER_PAGE

    def _are_in_use(self, requests: Iterable[MappingRequest]) -> bool:
        return any(one.key in self.ports or one.key in self._being_tried for one in requests)

    def end(self, mapping: LeasedMapping) -> bool:
        """Note that its lease ends; return whether the mapping is to be deleted, if it is still there."""
        if mapping.has_ended:
            return False
        is_last = self.ports.release(mapping.key)
        if is_last:
            self.claims_of(mapping).drop(mapping.key)
        return mapping.ended() and is_last

    def leave(self, mapping: LeasedMapping) -> None:
        """Give up the claim on the port of a mapping, which stays where it is."""
        self._give_up(mapping)

    async def release(self, mapping: LeasedMapping) -> bool:
        """Delete a mapping, unless it is another's by now, and return whether the gateway went along.

        What another program of this host keeps is left to that one. Never fails: what is left will expire.
        """
        if self._is_kept_by_another_lease(mapping):
            return True
        try:
            if self._is_in_use(mapping):
                await self._cache.find()
            with self.claims_of(mapping).take_if_last(mapping.key) as is_last:
                if is_last:
                    await self._delete(mapping)
                else:
                    log.info("%s stays, as another program of this host keeps it", mapping.key)
        except NotFoundError:
            return True
        except IGDError as error:
            log.info("%s could not be deleted: %s", mapping.key, error)
            return False
        return True

    async def _delete(self, mapping: LeasedMapping) -> None:
        try:
            held = await self.dispatcher_of(mapping).find(mapping.key)
        except (RefusedError, InvalidResponseError):
            held = mapping.mapping  # the gateway cannot tell
        made = mapping.mapping
        if held is None and mapping.may_be_hidden(asyncio.get_running_loop().time()):
            held = made
        if made is None or held is None or not mapping.is_same(held) or self._is_remade(mapping, held):
            return
        dispatcher = self.dispatcher_of(mapping)
        for _ in range(_DELETIONS):
            await dispatcher.delete(mapping.key)
            if await is_deleted(dispatcher, made):
                return
        raise RefusedError(
            f"the gateway says that it deleted {mapping.key}, and still holds it", UPnPResult.ACTION_FAILED
        )

    async def _acquire(self, mapping: LeasedMapping) -> None:
        """Make a mapping for the first time, on the port that it has. Raises IGDError as :meth:`_settle` does."""
        added = await self._add_here(mapping)
        mapping.accepted(added)
        await self._settle(mapping, added)

    async def _settle(self, mapping: LeasedMapping, added: PortMapping) -> None:
        """Read back how long a mapping will last that was made for the first time.

        Raises IGDError, with PORT_MAPPING_NOT_FOUND where the gateway says yes and does nothing.
        """
        held: PortMapping | None = added
        try:
            held = await read_back(self.dispatcher_of(mapping), added)
        except UnsupportedError:
            mapping.unreadable()
        if held is None or (mapping.is_same(held) and not held.enabled):
            mapping.is_to_be_read_back = True
            raise not_held(added.key, held)
        if not mapping.is_same(held) and mapping.record.request.on_conflict == "take_over":
            added = held = await self.dispatcher_of(mapping).add(mapping.request, overwrite=True, verify=True)
        if not mapping.is_same(held):
            self._give_up(mapping)
            raise ConflictError(f"the gateway says that it mapped {added.key}, and has it for {held.internal_client}")
        if held is not added:
            mapping.described(held)
            self.claims_of(mapping).mark(added.key, held.desc)
        mapping.granted(added, asyncio.get_running_loop().time(), held_for=held.duration)

    async def _let_gateway_choose(self, group: Sequence[LeasedMapping], *, by_others: bool = True) -> IGDError | None:
        """Make mappings on a port that the gateway chooses, the same for all; return why that cannot be.

        Some give another port for each protocol, and the number that one was given to the next if it is asked for: so
        each is tried as the first one. Where it cannot be had, for whatever reason, trying ports will tell.
        """
        wanted = {one: one.request for one in group}
        failure: IGDError | None = None
        for number in range(len(group)):
            first, *others = (*group[number:], *group[:number])
            made: list[LeasedMapping] = []
            try:
                await self._acquire_any(first, made, by_others=by_others)
                for other in others:
                    made.append(other)
                    await self._acquire_same(other, first)
            except IGDError as error:
                failure = error
            else:
                return None
            await self._take_back([one for one in made if one.mapping is not None], are_new=True)
            for one, request in wanted.items():
                if one.request != request:
                    self._move(one, request)
            if not made or not leaves_choice(failure):
                break  # it cannot choose
        return failure

    async def _acquire_same(self, mapping: LeasedMapping, first: LeasedMapping) -> None:
        """Make a mapping on the port that the gateway has chosen for another protocol. Raises IGDError."""
        wanted = mapping.request
        self._move(mapping, first.request._replace(key=wanted.key._replace(external_port=first.key.external_port)))
        try:
            await self._acquire(mapping)
        except ConflictError as conflict:
            # Some give the same port to the same wish, and never the one that they are asked for.
            added = await self.dispatcher_of(mapping).add_any(
                wanted._replace(internal_port=first.request.internal_port)
            )
            mapping.accepted(added)
            if added.external_port != first.key.external_port:
                self._move(mapping, mapping.request._replace(key=added.key))
                raise conflict
            self._hold(mapping, added)
            mapping.granted(added, asyncio.get_running_loop().time())

    async def _acquire_any(self, mapping: LeasedMapping, made: list[LeasedMapping], *, by_others: bool) -> None:
        """Make a mapping on the port that the gateway chooses, and note it in ``made``. Raises IGDError."""
        wanted = mapping.request
        await self._claim(mapping, mapping.key)
        added = await self.dispatcher_of(mapping).add_any(wanted, by_others=by_others)
        made.append(mapping)
        mapping.accepted(added)
        self._move(mapping, mapping.record.request.moved(wanted, added.external_port))
        was_free = await self._claim(mapping, mapping.key)
        if added.internal_port != mapping.request.internal_port or not was_free:
            # The port is another than the one that was asked for, and the internal one is to be the same; or
            # another program was just deleting what it had there.
            added = await self._add_for_same_port(mapping, wanted, added)
        mapping.granted(added, asyncio.get_running_loop().time())

    async def _add_for_same_port(
        self, mapping: LeasedMapping, wanted: MappingRequest, added: PortMapping
    ) -> PortMapping:
        """Let the port that the gateway has chosen lead to the same number here, or where it cannot, as it is.

        By PCP and NAT-PMP a mapping belongs to its internal port: the one that was made is in the way of another, and
        that may get another port.
        """
        dispatcher = self.dispatcher_of(mapping)
        try:
            return await dispatcher.add(mapping.request, overwrite=True)
        except ConflictError:
            await dispatcher.delete(added.key)
        try:
            return await dispatcher.add(mapping.request, overwrite=True)
        except ConflictError:
            added = await dispatcher.add_any(wanted)
            mapping.accepted(added)
            self._move(mapping, wanted._replace(key=added.key))
            await self._claim(mapping, mapping.key)
            return added

    async def _is_still_there(self, mapping: LeasedMapping) -> bool:
        """Return whether what is in the way is this lease's own, from before this machine changed its address."""
        with suppress(IGDError):
            held = await self.dispatcher_of(mapping).find(mapping.key)
            return held is not None and mapping.is_same(held)
        return False

    async def _outcome(self, mapping: LeasedMapping) -> IGDError | None:
        try:
            await self._acquire(mapping)
        except IGDError as error:
            return error
        return None

    def _move(self, mapping: LeasedMapping, request: MappingRequest) -> None:
        if not mapping.has_ended:  # or its port is given up already
            self._change_port(mapping, request.key)
        mapping.moved_to(request)

    def _change_port(self, mapping: LeasedMapping, key: MappingKey) -> None:
        self.ports.acquire(key)
        if self.ports.release(mapping.key):
            self.claims_of(mapping).drop(mapping.key)

    async def _claim(self, mapping: LeasedMapping, key: MappingKey) -> bool:
        """Claim a port of the gateway, and return whether no other program was just deleting its mapping.

        Raises the IGDError of the search where there is no gateway yet.
        """
        if self._is_in_use(mapping):
            await self._cache.find()
        return await self.claims_of(mapping).hold(key)

    def _hold(self, mapping: LeasedMapping, added: PortMapping) -> None:
        claims = self.claims_of(mapping)
        claims.hold_now(mapping.key)  # on another gateway, if that is where it was added
        claims.mark(mapping.key, added.desc)

    def _give_up(self, mapping: LeasedMapping) -> None:
        if not self._is_kept_by_another_lease(mapping):
            self.claims_of(mapping).drop(mapping.key)

    def _is_in_use(self, mapping: LeasedMapping) -> bool:
        """Return whether the requests for a mapping go to the gateway in use, whichever that is."""
        return self.dispatcher_of(mapping).fixed is None

    def _is_kept_by_another_lease(self, mapping: LeasedMapping) -> bool:
        return self._is_in_use(mapping) and self.ports.count(mapping.key) > (0 if mapping.has_ended else 1)

    def _is_remade(self, mapping: LeasedMapping, held: PortMapping) -> bool:
        """Return whether a mapping was made again by a program that shares no lock file with this one."""
        return mapping.has_other_desc(held) and not self.claims_of(mapping).is_marked(mapping.key, held.desc)


def _groups(mappings: Sequence[LeasedMapping]) -> Iterable[Sequence[LeasedMapping]]:
    """Return the mappings of a lease, those together that keep one number where they may go to another port."""
    if not mappings or len(mappings[0].record.request.protos) == 1 or not mappings[0].record.request.may_move:
        return [[one] for one in mappings]
    return [list(group) for _, group in groupby(mappings, lambda one: one.key.external_port)]
