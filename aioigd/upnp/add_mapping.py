"""How a mapping is made, on a given port or on any, and how it is undone.

AddPortMapping is a sequence: look (unless it may overwrite), negotiate the terms, remove what is in the way (once, if
it may overwrite), negotiate again. What to ask for next is decided in ``fallback``, how requests travel in
``soap_client``; here is what a reply means for the mapping: granted, refused, in the way of another, or doubtful.

Both actions know how they are undone, in three cases:

- A request is out, and nobody waits any more: what the gateway holds then is deleted, if it is this mapping.
- It was granted, and nobody has taken the result: it is deleted.
- This program had the mapping before: nothing is undone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

from ..core.backend import Trial
from ..core.calls import ROLLBACK_TIMEOUT, Operation, Phase
from ..errors import (
    DENIED_STATUSES,
    GONE_STATUSES,
    ConflictError,
    DeadlineError,
    IGDError,
    InvalidResponseError,
    NotFoundError,
    RefusedError,
    TransportError,
    UnsupportedError,
    is_denied,
    is_gone,
)
from ..models import MappingRequest, PortMapping
from ..results import UPnPResult
from .delete_mapping import delete_mapping
from .fallback import AS_ASKED, FINAL_CODES, Failure, LeasePolicy, learn, next_terms
from .list_mappings import find_mapping, iter_mappings
from .soap_client import SoapClient, is_doubtful, read_answer
from .wire import soap, wan_ip_connection
from .wire.error_codes import UPnPErrorCode
from .wire.soap import Action

__all__ = ["AddAnyMapping", "AddMapping"]

_CONFLICT: Final = UPnPErrorCode.CONFLICT_IN_MAPPING_ENTRY
_NOT_AUTHORIZED: Final = UPnPErrorCode.ACTION_NOT_AUTHORIZED
_IN_THE_WAY: Final = frozenset({_CONFLICT, _NOT_AUTHORIZED})
"""Codes after which something may have to be removed before other terms make sense."""
_CLEAR_STATUSES: Final = GONE_STATUSES | DENIED_STATUSES
"""HTTP statuses with which nothing can have been done, whatever else is in the reply."""
_BAD_REQUEST: Final = 400
_TRIES_IF_LOST: Final = 6
"""How often a request is sent that gets lost, and has to be looked for each time before it is sent again."""
_FIRST_PAUSE: Final = 0.02
"""Seconds between such a look and the repetition; four times as long each time."""
_LOOK_PAUSE: Final = 0.3
"""Seconds between two looks for what a request has done that was cut off."""
_LONGEST_PAUSE: Final = 1.3
"""Seconds; some routers keep a connection for a second after its end."""


class _Addition:
    """What both ways to make a mapping have in common: the terms, and the undo."""

    def __init__(self, client: SoapClient, op: Operation, request: MappingRequest) -> None:
        self._client = client
        self._state = client.state
        self._op = op
        self._request = request
        self._internal_client = request.internal_client or client.internal_client
        self._failures: list[Failure] = []
        self._has_outcome = True
        """Whether a reply came to the last request."""
        self._most_terms: int | None = None
        self._policy = self._known_policy = client.state.terms_policy
        self._terms = request.terms
        if self._policy != AS_ASKED:
            self._next_terms()

    async def _look_until_settled(self, look: Callable[[], Awaitable[PortMapping | None]]) -> PortMapping | None:
        """Return the mapping that a request has made whose call is cancelled, None if it has made none.

        A slow gateway may carry out later what was cut off: so it is looked for until ROLLBACK_TIMEOUT after the
        request where no reply came to it.
        """
        loop = asyncio.get_running_loop()
        while True:
            mapping = await look()
            if mapping is not None or self._has_outcome or loop.time() >= self._op.last_sent + ROLLBACK_TIMEOUT:
                return mapping
            await asyncio.sleep(_LOOK_PAUSE)

    def _next_terms(self) -> bool:
        """Go on to the next terms; returns whether there are any."""
        self._known_policy = self._state.terms_policy
        most = self._most_terms or self._state.most_terms(self._request)
        step = next_terms(self._request, self._failures, self._known_policy, most=most)
        if step is not None:
            self._policy, self._terms = step
        return step is not None

    def _learn_terms(self) -> None:
        self._state.terms_policy = learn(self._state.terms_policy, self._policy, self._request)

    def _mapping(self, external_port: int) -> PortMapping:
        key, terms = self._request.key, self._terms
        return PortMapping(
            external_port,
            self._request.internal_port,
            self._internal_client,
            key.proto,
            terms.desc,
            terms.duration,
            key.remote_host,
        )

    def _is_ours(self, held: PortMapping) -> bool:
        return held.leads_to(self._internal_client, self._request.internal_port)


class AddMapping(_Addition):
    """One AddPortMapping (WANIPConnection:2 section 2.5.16) with all that may have to happen around it.

    With ``overwrite`` a mapping in the way is deleted, once; without it the gateway is asked first, and anything but
    the same mapping is left alone (ConflictError). With ``verify`` the result is what the gateway says it holds, and a
    mapping that it does not hold, or holds switched off (NewEnabled 0), is PORT_MAPPING_NOT_FOUND. ``trial`` limits the
    requests for one port of many.
    """

    def __init__(
        self,
        client: SoapClient,
        op: Operation,
        request: MappingRequest,
        *,
        overwrite: bool,
        verify: bool,
        trial: Trial | None = None,
    ) -> None:
        super().__init__(client, op, request)
        if trial is not None:
            self._most_terms = trial.most_terms
        self._is_free = trial is not None and trial.is_free
        self._overwrite = overwrite
        self._verify = verify
        self._had_before = request.key in client.state.our_keys
        self._unchanged: PortMapping | None = None
        """What the gateway holds already, just as it was asked for, and refuses to make again."""

    async def run(self) -> PortMapping:
        """Make the mapping, on the terms that the gateway accepts, and return what was granted."""
        if not self._overwrite and not self._is_free:
            await self._check_unmapped()
        outcome = await self._negotiate(_IN_THE_WAY if self._overwrite else frozenset({_CONFLICT}))
        if isinstance(outcome, IGDError) and self._overwrite:
            outcome = await self._remove_and_negotiate(outcome)
        if isinstance(outcome, IGDError):
            self._state.refused(self._request, self._failures)
            if UPnPErrorCode.is_unsupported(outcome.error_code) or _is_bad_request(outcome):
                raise UnsupportedError(outcome.message, outcome.error_code) from outcome
            raise outcome
        key = self._request.key
        self._state.fruitless = None
        self._state.our_keys.add(key)
        self._op.settled(None if self._had_before else partial(delete_mapping, self._client, key))
        return outcome

    async def undo_request(self, op: Operation) -> None:
        """Take back what a request may have done whose outcome is not known."""
        if not self._had_before and await self._look_until_settled(lambda: self._find_ours(op)) is not None:
            await delete_mapping(self._client, self._request.key, op)

    async def _find_ours(self, op: Operation) -> PortMapping | None:
        held = await find_mapping(self._client, self._request.key, op)
        return held if held is not None and self._is_ours(held) else None

    async def _negotiate(self, stop_at: frozenset[int] = frozenset()) -> PortMapping | IGDError:
        """Ask on one set of terms after the other; returns what was granted, or the last refusal.

        That is the first with a code of ``stop_at``, or the one after which there are no more terms.
        """
        while True:
            outcome = await self._ask()
            if isinstance(outcome, PortMapping):
                if self._policy != self._state.terms_policy:
                    self._learn_terms()
                return outcome
            if outcome.error_code in stop_at or not self._go_on_after(outcome):
                return outcome

    async def _remove_and_negotiate(self, refusal: IGDError) -> PortMapping | IGDError:
        """Remove what is in the way, and negotiate again."""
        if await self._remove_conflicting(refusal):
            if refusal.error_code not in _IN_THE_WAY:
                self._failures.clear()  # all terms were refused because of what was in the way
                self._next_terms()
        elif refusal.error_code not in _IN_THE_WAY or not self._go_on_after(refusal):
            return self._unchanged or refusal
        outcome = await self._negotiate()
        return (self._unchanged or outcome) if isinstance(outcome, IGDError) else outcome

    def _go_on_after(self, refusal: IGDError) -> bool:
        """Go on to the next terms; returns whether there are any."""
        self._failures.append(Failure(self._terms, refusal.error_code, _is_bad_request(refusal)))
        if refusal.error_code == UPnPErrorCode.ONLY_PERMANENT_LEASES_SUPPORTED:
            self._state.terms_policy = self._state.terms_policy._replace(
                lease=LeasePolicy.NONE
            )  # whatever else it says
        return not is_denied(refusal) and self._next_terms()

    async def _ask(self) -> PortMapping | IGDError:
        """Ask once on the present terms, and return what was granted, or the refusal."""
        status, reply = await (self._send() if self._overwrite else self._send_verified())
        self._op.checkpoint()
        if isinstance(reply, soap.Fault) or (isinstance(reply, soap.InvalidReply) and status in _CLEAR_STATUSES):
            self._op.rejected()
            return self._refusal(status, reply)
        doubtful = is_doubtful(status, reply)
        if not doubtful and not self._verify:
            return self._mapping(self._request.key.external_port)
        held = await self._read_back(doubtful=doubtful)
        self._op.checkpoint()
        what_it_does = "does not hold it"
        if held is not None and self._is_ours(held):
            if not self._verify:
                return self._mapping(self._request.key.external_port)
            if held.enabled:
                return held
            what_it_does = "has switched it off"
            if not self._had_before:
                with suppress(RefusedError, InvalidResponseError):
                    await delete_mapping(self._client, self._request.key, self._op)  # it lets nothing through
        self._op.rejected()
        if isinstance(reply, soap.InvalidReply):
            return self._refusal(status, reply)
        return NotFoundError(
            f"the gateway says that it mapped {self._request.key}, and {what_it_does}",
            UPnPResult.PORT_MAPPING_NOT_FOUND,
        )

    def _refusal(self, status: int, reply: soap.Reply) -> IGDError:
        """Return the error for a reply that is a refusal, or none at all; raise it if there is no such control URL."""
        try:
            read_answer((status, reply), self._latest_action())
        except IGDError as error:
            if is_gone(error):
                raise
            return error
        raise AssertionError("an answer is no refusal")

    async def _send(self) -> tuple[int, soap.Reply]:
        self._has_outcome = False
        try:
            reply = await self._client.send(
                self._latest_action, self._op, undo=self.undo_request, repeatable=self._overwrite
            )
            self._has_outcome = True
            return reply
        except InvalidResponseError as error:
            self._has_outcome = True
            return error.status or 0, soap.InvalidReply(error.message)
        except TransportError as error:
            if self._overwrite and error.may_have_arrived and await self._has_arrived():
                return 200, soap.Answer({})
            raise

    async def _has_arrived(self) -> bool:
        """Return whether the mapping is there, although the gateway cut every connection on which it was asked for."""
        if self._op.expired or self._op.phase is Phase.UNWANTED:
            return False
        with suppress(IGDError):
            held = await find_mapping(self._client, self._request.key, self._op)
            return held is not None and self._is_ours(held)
        return False

    async def _send_verified(self) -> tuple[int, soap.Reply]:
        """Send a request that might replace somebody's mapping if it were repeated: look before each repetition."""
        losses = 0
        while True:
            try:
                return await self._send()
            except (TransportError, DeadlineError) as error:
                losses += 1
                unconnected = isinstance(error, TransportError) and not error.may_have_arrived
                if unconnected or losses >= _TRIES_IF_LOST or self._op.expired:
                    raise
                self._op.checkpoint()
                try:
                    held = await find_mapping(self._client, self._request.key, self._op)
                except (RefusedError, InvalidResponseError):
                    raise error from error.__cause__
            if held is not None and not self._is_ours(held):
                return 200, soap.Fault(_CONFLICT, "it is mapped already")
            if held is not None and not self._had_before:
                return 200, soap.Answer({})  # it had arrived
            await asyncio.sleep(min(_FIRST_PAUSE * 4**losses, _LONGEST_PAUSE))  # the look may have been too much

    def _latest_action(self) -> Action:
        """Return what to send now. Others may have learned the gateway's terms while this call was waiting."""
        if not self._failures and self._known_policy is not self._state.terms_policy:
            self._next_terms()
        return wan_ip_connection.add_port_mapping(self._request, self._internal_client, self._terms)

    async def _read_back(self, *, doubtful: bool) -> PortMapping | None:
        try:
            return await find_mapping(self._client, self._request.key, self._op)
        except (RefusedError, InvalidResponseError) as error:
            if doubtful:
                return None  # nothing says that it was a success
            message = f"{self._request.key} was mapped, but the gateway cannot tell: {error.message}"
            if isinstance(error, InvalidResponseError):
                raise InvalidResponseError(message, status=error.status) from error
            raise RefusedError(message, error.result, error.error_code) from error

    async def _check_unmapped(self) -> None:
        try:
            held = await find_mapping(self._client, self._request.key, self._op)
        except (RefusedError, InvalidResponseError):
            return  # a gateway that cannot tell; it may still refuse by itself
        if held is None:
            return
        self._had_before = True
        if not self._is_ours(held):
            raise ConflictError(
                f"{self._request.key} is mapped to {held.internal_client} port {held.internal_port} already"
            )

    async def _remove_conflicting(self, refusal: IGDError) -> bool:
        """Delete what may be in the way; returns whether it is worth trying again."""
        if refusal.error_code != _CONFLICT:
            # Codes that may mean anything, or "not yours": only if there is something in the way at all.
            if refusal.error_code in FINAL_CODES - {_NOT_AUTHORIZED} or is_denied(refusal) or _is_bad_request(refusal):
                return False
            with suppress(RefusedError, InvalidResponseError):
                held = await find_mapping(self._client, self._request.key, self._op)
                if held is None:
                    return False
                if self._is_ours(held) and held.enabled and not held.duration:
                    # Some refuse to make what is there. It is as it was asked for, and has no end to be put off.
                    self._unchanged = held
                    self._had_before = True
                    return False
        try:
            await self._client.call(wan_ip_connection.delete_port_mapping(self._request.key), self._op)
        except (RefusedError, InvalidResponseError) as error:
            # Somebody else's, or gone by itself. Only a conflict says that another try may make sense.
            return refusal.error_code == _CONFLICT and error.error_code != _NOT_AUTHORIZED
        return True


class AddAnyMapping(_Addition):
    """One AddAnyPortMapping (WANIPConnection:2 section 2.5.17) with all that may have to happen around it.

    Done twice it makes two mappings, on two ports. So a request whose reply was lost is not repeated before the gateway
    was asked what it holds: what is there for the same place on this machine is what was made.
    """

    async def run(self) -> PortMapping:
        """Make a mapping on the port asked for or, if it is taken, any other, and return what was granted.

        Raises UnsupportedError where the gateway has no such action, and otherwise its refusal.
        """
        if self._client.service_version < 2:
            raise UnsupportedError(f"a {self._client.service_type} does not choose ports, which takes version 2")
        while True:
            try:
                mapping = self._mapping(await self._ask())
            except RefusedError as error:
                self._op.rejected()
                if UPnPErrorCode.is_unsupported(error.error_code):
                    raise UnsupportedError(error.message, error.error_code) from error
                self._failures.append(Failure(self._terms, error.error_code))
                if is_denied(error) or not self._next_terms():
                    raise
            except InvalidResponseError as error:
                if _is_bad_request(error):
                    raise UnsupportedError(error.message) from error
                raise
            else:
                if self._policy != self._state.terms_policy:
                    self._learn_terms()
                had_before = mapping.key in self._state.our_keys
                self._state.our_keys.add(mapping.key)
                self._op.settled(None if had_before else partial(delete_mapping, self._client, mapping.key))
                return mapping

    async def undo_request(self, op: Operation) -> None:
        """Take back what a request may have made to which no reply came."""
        mapping = await self._look_until_settled(lambda: self._find_made(op))
        if mapping is not None and mapping.key not in self._state.our_keys:
            await delete_mapping(self._client, mapping.key, op)

    async def _ask(self) -> int:
        """Ask once on the present terms, and return the port. Raises RefusedError for a no."""
        action = wan_ip_connection.add_any_port_mapping(self._request, self._internal_client, self._terms)
        losses = 0
        while True:
            try:
                self._has_outcome = False
                reply = await self._client.send(action, self._op, undo=self.undo_request, repeatable=False)
                self._has_outcome = True
                return wan_ip_connection.read_reserved_port(read_answer(reply, action)[1])
            except InvalidResponseError as error:
                if is_gone(error) or _is_bad_request(error):
                    raise
                doubt: IGDError = error
            except (TransportError, DeadlineError) as error:
                losses += 1
                unconnected = isinstance(error, TransportError) and not error.may_have_arrived
                if unconnected or losses >= _TRIES_IF_LOST or self._op.expired:
                    raise
                doubt = error
            try:
                mapping = await self._find_made(self._op)
            except (RefusedError, InvalidResponseError):
                raise doubt from doubt.__cause__
            if mapping is not None:
                return mapping.external_port
            if isinstance(doubt, InvalidResponseError):
                raise doubt

    async def _find_made(self, op: Operation) -> PortMapping | None:
        """Return what the gateway holds for the place that was asked for, on the port that was, or on any other."""
        held = await find_mapping(self._client, self._request.key, op)
        if held is not None and self._is_ours(held):
            return held
        async for mapping in iter_mappings(self._client, op):
            if self._is_ours(mapping) and mapping.key not in self._state.our_keys:
                return mapping
        return None

    def _is_ours(self, held: PortMapping) -> bool:
        key = self._request.key
        same_kind = (held.proto, held.remote_host, held.desc) == (key.proto, key.remote_host, self._terms.desc)
        return same_kind and super()._is_ours(held)


def _is_bad_request(error: IGDError) -> bool:
    """Return whether a gateway said HTTP 400 and nothing else, as some do to actions that they do not have."""
    return isinstance(error, InvalidResponseError) and error.status == _BAD_REQUEST
