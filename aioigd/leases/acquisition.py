"""How the mappings of a lease are made, on the ports that it names or may have, and how they are deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from ..core.dispatcher import Dispatcher
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
from .lease import LeaseRecord
from .leased_mapping import LeasedMapping
from .schedule import RefCounter

__all__ = ["MAX_CONCURRENT", "Acquisition"]

MAX_CONCURRENT: Final = 8
"""Mappings of one manager that are worked on at the same time; the gateway gets fewer requests than that anyway."""


class Acquisition:
    """Makes and deletes the mappings of leases.

    ``ports`` counts the leases on each external port; ``begins_at`` has the leases that begin at a stopgap.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.ports: RefCounter[MappingKey] = RefCounter()
        self.begins_at: dict[LeaseRecord, Dispatcher] = {}

    def new_mapping(self, record: LeaseRecord, request: MappingRequest) -> LeasedMapping:
        """Return a mapping that a lease wants; from now on its port is in use."""
        self.ports.acquire(request.key)
        mapping = LeasedMapping(record, request)
        mapping.dispatcher = self.begins_at.get(record)
        return mapping

    def dispatcher_of(self, mapping: LeasedMapping) -> Dispatcher:
        """Return where the requests for a mapping go: to the gateway in use, unless it has stayed at another one."""
        return mapping.dispatcher or self._dispatcher

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
                added = await self.dispatcher_of(mapping).add(alternative, overwrite=False)
            except ConflictError:
                continue
            self._move(mapping, alternative)
            return added
        raise conflict

    def end(self, mapping: LeasedMapping) -> bool:
        """Note that its lease ends; return whether the mapping is to be deleted, if it is still there."""
        if mapping.has_ended:
            return False
        is_last = self.ports.release(mapping.key)
        return mapping.ended() and is_last

    async def release(self, mapping: LeasedMapping) -> bool:
        """Delete a mapping, unless it is another's by now, and return whether the gateway went along.

        Never fails: what is left will expire.
        """
        with suppress(IGDError):
            try:
                held = await self.dispatcher_of(mapping).find(mapping.key)
            except (RefusedError, InvalidResponseError):
                held = mapping.mapping  # the gateway cannot tell
            if held is not None and mapping.is_same(held):
                await self.dispatcher_of(mapping).delete(mapping.key)
            return True
        return False

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
        if held is None:
            raise NotFoundError(
                f"the gateway says that it mapped {added.key}, and does not hold it", UPnPResult.PORT_MAPPING_NOT_FOUND
            )
        if not mapping.is_same(held):
            raise ConflictError(f"the gateway says that it mapped {added.key}, and has it for {held.internal_client}")
        mapping.granted(added, asyncio.get_running_loop().time(), held_for=held.duration)

    async def _acquire_any(self, mapping: LeasedMapping) -> bool:
        """Let the gateway choose the port, if it can; where it cannot, for whatever reason, trying ports will tell."""
        with suppress(IGDError):
            added = await self.dispatcher_of(mapping).add_any(mapping.request)
            mapping.accepted(added)
            self._move(mapping, mapping.record.request.mapping_request(added.key))
            if added.internal_port != mapping.request.internal_port:
                # The port is another than the one that was asked for, and the internal one is to be the same.
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
        self.ports.acquire(request.key)
        self.ports.release(mapping.key)
        mapping.moved_to(request)
