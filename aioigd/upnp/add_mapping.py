"""How a mapping comes to be on a gateway, and how it goes: the procedures, step by step.

What to try next is decided in ``fallback``; how requests travel in ``channel``. Here is what a reply means for
the mapping: granted, refused, in the way of another, doubtful, or no longer wanted.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from async_timeout import timeout

from ..core.call_queue import SETTLE_TIME
from ..core.calls import Call
from ..errors import (
    ConflictError,
    DeadlineError,
    IGDError,
    InvalidResponseError,
    NotFoundError,
    RefusedError,
    TransportError,
)
from ..models import MappingKey, MappingRequest, PortMapping
from ..results import UPnPResult
from .fallback import HOPELESS, Failure, next_terms, remember, variants
from .find_mapping import find_entry
from .soap_client import NOT_THERE, Channel, answer_of
from .wire import soap, wan_ip_connection
from .wire.error_codes import refused

__all__ = ["add", "delete", "undo"]

_CONFLICT: Final = 718
_NOT_AUTHORIZED: Final = 606
_ABSENT: Final = frozenset({714, 730})
_MAYBE_ABSENT: Final = frozenset({402, 501})
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.3
"""Seconds between that look and the repetition; some routers keep a connection for a second after its end."""
_MOST_LOSSES: Final = 6
"""How often a request is sent that gets lost, and has to be looked for each time before it is sent again."""


async def add(channel: Channel, request: MappingRequest, call: Call, *, overwrite: bool, verify: bool) -> PortMapping:
    """Make a mapping, on the terms that the gateway accepts, and return what was granted.

    With ``overwrite`` a mapping in the way is deleted, once; without it the gateway is asked first, and anything
    but the same mapping is left alone (CONFLICT_WITH_OTHER_MAPPING). With ``verify`` the result is what the gateway
    says it holds, and a mapping that it does not hold is PORT_MAPPING_NOT_FOUND.

    Cancelled after a request was sent, it takes back what it made before it ends.
    """
    client = request.internal_client or channel.internal_client
    work = _Addition(channel, request, client, call, overwrite=overwrite, verify=verify)
    try:
        return await work.run()
    except asyncio.CancelledError:
        if call.committed and not call.closing:
            await work.take_back()
        raise


async def delete(channel: Channel, key: MappingKey, call: Call) -> None:
    """Delete a mapping. Raises RefusedError with NO_SUCH_ENTRY_IN_ARRAY where there is none."""
    action = wan_ip_connection.delete_port_mapping(key)
    channel.memory.made.pop(key, None)  # whatever becomes of it: nobody wants it any more
    status, reply = await channel.send(action, call)
    if isinstance(reply, soap.Fault):
        await _judge_refused_deletion(channel, key, call, reply)
    elif _is_nowhere(status, reply):
        answer_of((status, reply), action)
    elif not _is_clear(status, reply) and await find_entry(channel, key, call) is not None:
        answer_of((status, soap.InvalidReply("no clear answer, and the mapping is still there")), action)


async def undo(channel: Channel, mapping: PortMapping, call: Call) -> None:
    """Take back a mapping that a call has made and nobody wants any more. Best effort, and bounded by the call."""
    with suppress(IGDError):
        await delete(channel, mapping.key, call)


class _Addition:
    """One AddPortMapping with everything that may have to happen around it."""

    def __init__(
        self, channel: Channel, request: MappingRequest, client: str, call: Call, *, overwrite: bool, verify: bool
    ) -> None:
        self._channel = channel
        self._memory = channel.memory
        self._request = request
        self._client = client
        self._call = call
        self._overwrite = overwrite
        self._verify = verify
        self._failures: list[Failure] = []
        self._may_overwrite = overwrite
        self._already_held: PortMapping | None = None
        self._is_older = request.key in channel.memory.made
        self._habits, self._terms = next(variants(request, channel.memory.habits))

    async def run(self) -> PortMapping:
        if not self._overwrite:
            await self._look_first()
        refusal: IGDError
        while True:
            try:
                mapping = await self._try()
            except _NotHeld as error:
                refusal = error
            except RefusedError as error:
                if error.error_code in (_CONFLICT, _NOT_AUTHORIZED) and await self._make_room(error):
                    continue
                if error.error_code == _CONFLICT and not self._overwrite:
                    raise
                refusal = error
            except InvalidResponseError as error:
                if error.status in NOT_THERE:
                    raise
                refusal = error
            else:
                self._memory.habits = remember(self._memory.habits, self._habits, self._request)
                return self._made(mapping)
            self._failures.append(Failure(self._terms, refusal.error_code))
            step = next_terms(self._request, self._failures, self._memory.habits)
            if step is not None:
                self._habits, self._terms = step
            elif await self._make_room(refusal):
                self._failures.clear()
            elif self._already_held is not None:
                return self._made(self._already_held)
            else:
                raise refusal

    async def take_back(self) -> None:
        """Undo after a cancellation, in bounded time, unless the mapping is older than this call."""
        self._call.closing = True
        if self._is_older:
            return
        call = Call(SETTLE_TIME)
        with suppress(IGDError, TimeoutError):
            async with timeout(SETTLE_TIME):
                entry = await find_entry(self._channel, self._request.key, call)
                if entry is not None and self._is_ours(entry):
                    await delete(self._channel, self._request.key, call)

    async def _try(self) -> PortMapping:
        """Ask once on the present terms. Raises RefusedError, InvalidResponseError or _NotHeld for a no."""
        status, reply = await (self._send() if self._overwrite else self._send_carefully())
        await self._stop_if_abandoned()
        if isinstance(reply, soap.Fault) or _is_nowhere(status, reply):
            self._call.committed = False
            answer_of((status, reply), self._action())
        doubtful = not _is_clear(status, reply)
        if not doubtful and not self._verify:
            return self._mapping()
        held = await self._read_back(doubtful=doubtful)
        await self._stop_if_abandoned()
        if held is None or not self._is_ours(held):
            self._call.committed = False
            if isinstance(reply, soap.InvalidReply):
                answer_of((status, reply), self._action())
            raise _NotHeld(f"the gateway says that it mapped {self._request.key}, and does not hold it")
        return held if self._verify else self._mapping()

    async def _send(self) -> tuple[int, soap.Reply]:
        try:
            return await self._channel.send(self._latest, self._call, commits=True, repeatable=self._overwrite)
        except InvalidResponseError as error:
            return error.status or 0, soap.InvalidReply(error.message)
        except TransportError as error:
            if self._overwrite and error.may_have_arrived and await self._has_arrived():
                return 200, soap.Answer({})
            raise

    async def _has_arrived(self) -> bool:
        """Tell whether the mapping is there, although the gateway cut every connection on which it was asked for."""
        if self._call.expired or self._call.abandoned:
            return False
        with suppress(IGDError):
            held = await find_entry(self._channel, self._request.key, self._call)
            return held is not None and self._is_ours(held)
        return False

    async def _send_carefully(self) -> tuple[int, soap.Reply]:
        """Send a request that might replace somebody's mapping if it were repeated: look before each repetition."""
        losses = 0
        while True:
            try:
                return await self._send()
            except (TransportError, DeadlineError) as error:
                losses += 1
                unreached = isinstance(error, TransportError) and not error.may_have_arrived
                if unreached or losses >= _MOST_LOSSES or self._call.expired:
                    raise
                await self._stop_if_abandoned()
                try:
                    held = await find_entry(self._channel, self._request.key, self._call)
                except (RefusedError, InvalidResponseError):
                    raise error from error.__cause__
            if held is not None and not self._is_ours(held):
                return 200, soap.Fault(_CONFLICT, "it is mapped already")
            if held is not None and not self._is_older:
                return 200, soap.Answer({})  # it had arrived
            await asyncio.sleep(min(_FIRST_PAUSE * 4**losses, _LONGEST_PAUSE))  # the look may have been too much

    def _latest(self) -> soap.Action:
        """Return what to send now. Others may have learned the gateway's habits while this call was waiting."""
        if not self._failures:
            self._habits, self._terms = next(variants(self._request, self._memory.habits))
        return self._action()

    def _action(self) -> soap.Action:
        return wan_ip_connection.add_port_mapping(self._request, self._client, self._terms)

    async def _read_back(self, *, doubtful: bool) -> PortMapping | None:
        try:
            return await find_entry(self._channel, self._request.key, self._call)
        except (RefusedError, InvalidResponseError) as error:
            if doubtful:
                return None  # nothing tells that it was a success
            message = f"{self._request.key} was mapped, but the gateway cannot tell: {error.message}"
            if isinstance(error, InvalidResponseError):
                raise InvalidResponseError(message, status=error.status) from error
            raise RefusedError(message, error.result, error.error_code) from error

    async def _look_first(self) -> None:
        try:
            held = await find_entry(self._channel, self._request.key, self._call)
        except (RefusedError, InvalidResponseError):
            return  # a gateway that cannot tell; it may still refuse by itself
        if held is None:
            return
        self._is_older = True
        if not self._is_ours(held):
            raise ConflictError(
                f"{self._request.key} is mapped to {held.internal_client} port {held.internal_port} already"
            )

    async def _make_room(self, refusal: IGDError) -> bool:
        """Delete what may be in the way, once; tell whether it is worth trying again."""
        if not self._may_overwrite:
            return False
        self._may_overwrite = False
        if refusal.error_code != _CONFLICT:
            # Codes that may mean anything, or "not yours": only if there is something in the way at all.
            if refusal.error_code in HOPELESS - {_NOT_AUTHORIZED}:
                return False
            with suppress(RefusedError, InvalidResponseError):
                held = await find_entry(self._channel, self._request.key, self._call)
                if held is None:
                    return False
                if self._is_ours(held) and not held.duration:
                    # Some refuse to make what is there. It is as it was asked for, and has no end to be put off.
                    self._already_held = held
                    self._is_older = True
                    return False
        try:
            await self._channel.ask(wan_ip_connection.delete_port_mapping(self._request.key), self._call)
        except (RefusedError, InvalidResponseError) as error:
            # Somebody else's, or gone by itself. Only a conflict tells that another try may make sense.
            return refusal.error_code == _CONFLICT and error.error_code != _NOT_AUTHORIZED
        return True

    async def _stop_if_abandoned(self) -> None:
        if self._call.abandoned:
            await self.take_back()
            raise asyncio.CancelledError

    def _made(self, mapping: PortMapping) -> PortMapping:
        if not self._is_older:
            self._call.made = mapping
        self._memory.made[self._request.key] = mapping
        self._call.committed = False
        return mapping

    def _is_ours(self, entry: PortMapping) -> bool:
        return entry.internal_client == self._client and entry.internal_port == self._request.internal_port

    def _mapping(self) -> PortMapping:
        key = self._request.key
        return PortMapping(
            external_port=key.external_port,
            internal_port=self._request.internal_port,
            internal_client=self._client,
            proto=key.proto,
            desc=self._terms.desc,
            duration=self._terms.duration,
            remote_host=key.remote_host,
        )


class _NotHeld(NotFoundError):
    def __init__(self, message: str) -> None:
        super().__init__(message, UPnPResult.PORT_MAPPING_NOT_FOUND)


async def _judge_refused_deletion(channel: Channel, key: MappingKey, call: Call, fault: soap.Fault) -> None:
    """Return where a refused deletion is none after all; raise otherwise."""
    may_be_our_doing = call.lost
    if fault.code in _ABSENT and may_be_our_doing:
        return
    message = f"the gateway refused to delete {key}: {fault.description or 'without a reason'}"
    if fault.code in _MAYBE_ABSENT or fault.code is None:
        is_there = True
        with suppress(RefusedError, InvalidResponseError):
            is_there = await find_entry(channel, key, call) is not None
        if not is_there:
            if may_be_our_doing:
                return
            raise NotFoundError(message, error_code=fault.code)
    raise refused(message, fault.code)


def _is_clear(status: int, reply: soap.Reply) -> bool:
    """Tell whether a reply is the answer to the action, without a doubt."""
    return isinstance(reply, soap.Answer) and 200 <= status < 300


def _is_nowhere(status: int, reply: soap.Reply) -> bool:
    """Tell whether there is no such control URL."""
    return isinstance(reply, soap.InvalidReply) and status in NOT_THERE
