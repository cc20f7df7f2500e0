"""How a mapping comes to be on a port that the gateway chooses: AddAnyPortMapping of an IGD:2.

Done twice it makes two mappings, on two ports. So a request whose reply was lost is not repeated before the gateway
was asked what it holds: what is found there for the same place on this machine is what was made.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from async_timeout import timeout

from ..core.call_queue import SETTLE_TIME
from ..core.calls import Call
from ..errors import DeadlineError, IGDError, InvalidResponseError, RefusedError, TransportError, UnsupportedError
from ..models import MappingRequest, PortMapping, Terms
from .add_mapping import undo
from .fallback import Failure, next_terms, remember
from .find_mapping import find_entry
from .list_mappings import all_mappings, within
from .soap_client import NOT_THERE, Channel, answer_of
from .wire import wan_ip_connection

__all__ = ["add_any"]

_NO_SUCH_ACTION: Final = frozenset({401, 602})
_MOST_LOSSES: Final = 6


async def add_any(channel: Channel, request: MappingRequest, call: Call) -> PortMapping:
    """Make a mapping on the port asked for or, if it is taken, any other, and return what was granted.

    Raises IGDError with INVALID_GATEWAY where the gateway has no such action, and otherwise its refusal.

    Cancelled after a request was sent, it takes back what it made before it ends.
    """
    if channel.service_version < 2:
        raise UnsupportedError(f"a {channel.device.igd_service_type} does not choose ports, which takes version 2")
    work = _Choice(channel, request, call)
    try:
        return await work.run()
    except asyncio.CancelledError:
        if call.committed and not call.closing:
            await work.take_back()
        raise


class _Choice:
    """One AddAnyPortMapping with everything that may have to happen around it."""

    def __init__(self, channel: Channel, request: MappingRequest, call: Call) -> None:
        self._channel = channel
        self._memory = channel.memory
        self._request = request
        self._client = request.internal_client or channel.internal_client
        self._call = call
        self._terms = request.terms

    async def run(self) -> PortMapping:
        failures: list[Failure] = []
        step = next_terms(self._request, failures, self._memory.habits)
        while True:
            assert step is not None  # noqa: S101 - without a failure there is always a first step
            habits, self._terms = step
            try:
                mapping = self._mapping(await self._try(self._terms))
            except RefusedError as error:
                self._call.committed = False
                if error.error_code in _NO_SUCH_ACTION:
                    raise UnsupportedError(error.message, error.error_code) from error
                failures.append(Failure(self._terms, error.error_code))
                step = next_terms(self._request, failures, self._memory.habits)
                if step is None:
                    raise
            else:
                self._memory.habits = remember(self._memory.habits, habits, self._request)
                return await self._made(mapping)

    async def take_back(self) -> None:
        """Undo what may have been made by a request to which no reply came. Best effort, and bounded."""
        self._call.closing = True
        call = Call(SETTLE_TIME)
        with suppress(IGDError, TimeoutError):
            async with timeout(SETTLE_TIME):
                mapping = await self._look(call)
                if mapping is not None and mapping.key not in self._memory.made:
                    await undo(self._channel, mapping, call)

    async def _try(self, terms: Terms) -> int:
        """Ask once on these terms, and return the port. Raises RefusedError for a no."""
        action = wan_ip_connection.add_any_port_mapping(self._request, self._client, terms)
        losses = 0
        while True:
            try:
                reply = await self._channel.send(action, self._call, commits=True, repeatable=False)
                return wan_ip_connection.read_reserved_port(answer_of(reply, action)[1])
            except InvalidResponseError as error:
                if error.status in NOT_THERE:
                    raise
                doubt: IGDError = error
            except (TransportError, DeadlineError) as error:
                losses += 1
                unreached = isinstance(error, TransportError) and not error.may_have_arrived
                if unreached or losses >= _MOST_LOSSES or self._call.expired:
                    raise
                doubt = error
            try:
                mapping = await self._look(self._call)
            except (RefusedError, InvalidResponseError):
                raise doubt from doubt.__cause__
            if mapping is not None:
                return mapping.external_port
            if isinstance(doubt, InvalidResponseError):
                raise doubt

    async def _look(self, call: Call) -> PortMapping | None:
        """Return what the gateway holds for the place that was asked for, on the port that was, or any other."""
        held = await find_entry(self._channel, self._request.key, call)
        if held is not None and self._is_ours(held):
            return held
        async for mapping in all_mappings(within(self._channel, call)):
            if self._is_ours(mapping) and mapping.key not in self._memory.made:
                return mapping
        return None

    def _is_ours(self, held: PortMapping) -> bool:
        return (held.internal_client, held.internal_port, held.proto, held.remote_host, held.desc) == (
            self._client,
            self._request.internal_port,
            self._request.key.proto,
            self._request.key.remote_host,
            self._terms.desc,
        )

    async def _made(self, mapping: PortMapping) -> PortMapping:
        if mapping.key not in self._memory.made:
            self._call.made = mapping
        self._memory.made[mapping.key] = mapping
        if self._call.abandoned:
            self._call.closing = True
            await undo(self._channel, mapping, self._call)
            raise asyncio.CancelledError
        self._call.committed = False
        return mapping

    def _mapping(self, port: int) -> PortMapping:
        key = self._request.key
        return PortMapping(
            external_port=port,
            internal_port=self._request.internal_port,
            internal_client=self._client,
            proto=key.proto,
            desc=self._terms.desc,
            duration=self._terms.duration,
            remote_host=key.remote_host,
        )
