"""How the mappings of a lease are made, on the ports that it names or may have, and how they are deleted.

A port is claimed before its mapping is added, and given up with it, so that only the last program of this host that
keeps a mapping deletes it (``owner_lock``). A port that is another's is not claimed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from ..core.dispatcher import Dispatcher
from ..core.gateway_cache import GatewayCache
from ..errors import (
    ConflictError,
    IGDError,
    InvalidResponseError,
    NotFoundError,
    RefusedError,
    is_unreachable,
)
from ..models import MappingKey, MappingRequest, PortMapping
from ..results import UPnPResult
from ..text import get_logger
from .lease import LeaseRecord
from .leased_mapping import LeasedMapping
from .owner_lock import Ownership
from .schedule import RefCounter

__all__ = ["MAX_CONCURRENT", "Acquisition", "not_held"]

log = get_logger("aioigd.lease")

MAX_CONCURRENT: Final = 8
"""Mappings of one manager that are worked on at the same time; the gateway gets fewer requests than that anyway."""


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
        for start in range(0, len(mappings), MAX_CONCURRENT):
            some = mappings[start : start + MAX_CONCURRENT]
            outcomes += await asyncio.gather(*map(self._outcome, some))
            final = next(
                (error for error in outcomes if error is not None and (required or is_unreachable(error))), None
            )
            if final is not None:
                return outcomes + [final] * (len(mappings) - len(outcomes))
        return outcomes

    async def acquire_one_of(self, record: LeaseRecord, mappings: list[LeasedMapping]) -> IGDError | None:
        """Make the mappings of a lease on the first of its choices that is free, and return why there is none.

        ``mappings`` is filled with those that were made or tried last, also where this is cancelled in the middle.
        """
        request = record.request
        free = [
            port for port in request.choices if not any(one.key in self.ports for one in request.mapping_requests(port))
        ]
        failure: IGDError | None = ConflictError("all ports that may be tried are taken by this program")
        for port in free or request.choices[:1]:
            await self.release_all(mappings)
            mappings[:] = [self.new_mapping(record, one) for one in request.mapping_requests(port)]
            if not free:
                break
            if port == free[0] and len(mappings) == 1 and await self._acquire_any(mappings[0]):
                return None
            failure = next(filter(None, await self.acquire_each(mappings, required=True)), None)
            if failure is None or not isinstance(failure, ConflictError):
                break
        return failure

    async def add(self, mapping: LeasedMapping) -> PortMapping:
        """Add a mapping as the policy of its lease has it; another port may be the outcome.

        Raises the IGDError of the gateway's refusal where the policy knows no way around it.
        """
        try:
            await self._claim(mapping, mapping.key)
            added = await self._add(mapping)
        except BaseException as error:
            if mapping.has_ended or isinstance(error, ConflictError):
                self._give_up(mapping)
            raise
        claims = self.claims_of(mapping)
        claims.hold_now(mapping.key)  # on another gateway, if that is where it was added
        claims.mark(mapping.key, added.desc)
        return added

    async def _add(self, mapping: LeasedMapping) -> PortMapping:
        request = mapping.record.request
        may_be_in_its_own_way = mapping.may_be_in_its_own_way
        try:
            return await self.dispatcher_of(mapping).add(mapping.request, overwrite=request.on_conflict == "take_over")
        except ConflictError as error:
            conflict = error
        if may_be_in_its_own_way and await self._is_still_there(mapping):
            return await self.dispatcher_of(mapping).add(mapping.request, overwrite=True)
        for alternative in request.alternatives(mapping.request):
            if alternative.key in self.ports:
                continue
            try:
                await self._claim(mapping, alternative.key)
                added = await self.dispatcher_of(mapping).add(alternative, overwrite=False)
            except BaseException as error:
                if alternative.key not in self.ports:
                    self.claims_of(mapping).drop(alternative.key)
                if not isinstance(error, ConflictError):
                    raise
                continue
            self._move(mapping, alternative)
            return added
        raise conflict

    def end(self, mapping: LeasedMapping) -> bool:
        """Note that its lease ends; return whether the mapping is to be deleted, if it is still there."""
        if mapping.has_ended:
            return False
        is_last = self.ports.release(mapping.key)
        if is_last:
            self.claims_of(mapping).drop(mapping.key)
        return mapping.ended() and is_last

    async def release(self, mapping: LeasedMapping) -> bool:
        """Delete a mapping, unless it is another's by now, and return whether the gateway went along.

        What another program of this host keeps is left to that one. Never fails: what is left will expire.
        """
        if self._is_kept_by_another_lease(mapping):
            return True
        with suppress(IGDError):
            if self._is_in_use(mapping):
                await self._cache.find()
            with self.claims_of(mapping).take_if_last(mapping.key) as is_last:
                if is_last:
                    await self._delete(mapping)
                else:
                    log.info("%s stays, as another program of this host keeps it", mapping.key)
            return True
        return False

    async def _delete(self, mapping: LeasedMapping) -> None:
        try:
            held = await self.dispatcher_of(mapping).find(mapping.key)
        except (RefusedError, InvalidResponseError):
            held = mapping.mapping  # the gateway cannot tell
        if held is not None and mapping.is_same(held) and not self._is_remade(mapping, held):
            await self.dispatcher_of(mapping).delete(mapping.key)

    async def release_all(self, mappings: Sequence[LeasedMapping]) -> None:
        """Give up mappings that are not to be kept after all, and delete those that were made."""
        made = [mapping for mapping in mappings if mapping.mapping is not None]
        await asyncio.gather(*map(self.release, made))
        for mapping in mappings:
            self.end(mapping)

    async def _acquire(self, mapping: LeasedMapping) -> None:
        """Make a mapping for the first time, and read back how long it will last.

        Raises IGDError, with PORT_MAPPING_NOT_FOUND where the gateway says yes and does nothing.
        """
        added = await self.add(mapping)
        mapping.accepted(added)
        try:
            held = await self.dispatcher_of(mapping).find(added.key)
        except IGDError:
            held = added  # it cannot tell; the check before half its time will try again
        if held is None or (mapping.is_same(held) and not held.enabled):
            mapping.is_to_be_read_back = True
            raise not_held(added.key, held)
        if not mapping.is_same(held):
            self._give_up(mapping)
            raise ConflictError(f"the gateway says that it mapped {added.key}, and has it for {held.internal_client}")
        if held is not added:
            mapping.described(held)
            self.claims_of(mapping).mark(added.key, held.desc)
        mapping.granted(added, asyncio.get_running_loop().time(), held_for=held.duration)

    async def _acquire_any(self, mapping: LeasedMapping) -> bool:
        """Let the gateway choose the port, if it can; where it cannot, for whatever reason, trying ports will tell."""
        with suppress(IGDError):
            await self._claim(mapping, mapping.key)
            added = await self.dispatcher_of(mapping).add_any(mapping.request)
            mapping.accepted(added)
            self._move(mapping, mapping.record.request.mapping_request(added.key))
            was_free = await self._claim(mapping, mapping.key)
            if added.internal_port != mapping.request.internal_port or not was_free:
                # The port is another than the one that was asked for, and the internal one is to be the same; or
                # another program was just deleting what it had there.
                added = await self.dispatcher_of(mapping).add(mapping.request, overwrite=True)
            mapping.granted(added, asyncio.get_running_loop().time())
            return True
        return False

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
