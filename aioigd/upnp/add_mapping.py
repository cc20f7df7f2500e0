"""How a mapping is made on a given port, and how it is undone.

AddPortMapping is a sequence: look (unless it may overwrite), negotiate the terms, remove what is in the way (once, if
it may overwrite), negotiate again. What to ask for next is decided in ``fallback``, how requests travel in
``soap_client``; here is what a reply means for the mapping: granted, refused, in the way of another, or doubtful.

Granted is granted: a table that shows a mapping late, slowly or not at all makes no failure of a clear yes; only one
that says clearly, for LATE_TABLE, that the mapping is not there, or that the port is another client's, does.

It knows how it is undone, whether the call is cancelled or fails:

- A request is out, or its reply was lost: what the gateway holds then is deleted, if it is this mapping.
- It was granted, and nobody has taken the result: it is deleted.
- This program had the mapping before, and it was not removed: nothing is undone.
- A mapping that was in the way was deleted: it is put back, unless this one has taken its place for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from async_timeout import timeout_at

from ..core.backend import LATE_TABLE, LOOK_PAUSE, Trial
from ..core.calls import Operation, Phase, Undo
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
from ..models import MappingRequest, PortMapping, Terms
from ..results import UPnPResult
from .aftermath import RemovedMapping, delete_what_arrives
from .delete_mapping import delete_mapping
from .fallback import AS_ASKED, FINAL_CODES, Failure, LeasePolicy, TermsPolicy, learn, next_terms
from .list_mappings import find_mapping
from .soap_client import SoapClient, read_answer
from .wire import soap, wan_ip_connection
from .wire.error_codes import UPnPErrorCode
from .wire.soap import Action

__all__ = ["SHARE_IF_IMPATIENT", "AddMapping", "Addition", "is_bad_request"]

_CONFLICT: Final = UPnPErrorCode.CONFLICT_IN_MAPPING_ENTRY
_NOT_AUTHORIZED: Final = UPnPErrorCode.ACTION_NOT_AUTHORIZED
_IN_THE_WAY: Final = frozenset({_CONFLICT, _NOT_AUTHORIZED})
"""Codes after which something may have to be removed before other terms make sense."""
_NOT_THE_TERMS: Final = FINAL_CODES | _IN_THE_WAY
"""Codes that say that it is not the terms that a gateway dislikes."""
_ONLY_CONFLICT: Final = frozenset({_CONFLICT})
_CLEAR_STATUSES: Final = GONE_STATUSES | DENIED_STATUSES
"""HTTP statuses with which nothing can have been done, whatever else is in the reply."""
_BAD_REQUEST: Final = 400
_ADDS: Final = frozenset({"AddPortMapping", "AddAnyPortMapping"})
_LOST: Final = frozenset({UPnPResult.HTTP_ERROR, UPnPResult.SOCKET_ERROR})
"""Results of requests to which no reply came."""
_TRIES_IF_LOST: Final = 6
"""How often a request is sent that gets lost, and has to be looked for each time before it is sent again."""
_TRIES_IF_IMPATIENT: Final = 2
"""The same, on other terms, once the gateway has shown that it answers other requests."""
SHARE_IF_IMPATIENT: Final = 0.3
"""Part of the rest of a call that each of those terms gets where the gateway is silent."""
_PROMPT: Final = 1.0
"""Seconds in which a gateway answers that is not only busy."""
_NOTHING: Final = Terms("", 0)
"""Terms in which there is nothing to dislike."""
_FIRST_PAUSE: Final = 0.02
"""Seconds between such a look and the repetition; four times as long each time."""
_FRESH: Final = 0.9
"""Part of its time that a mapping has left at least if it was just made."""
_LONGEST_PAUSE: Final = 1.3
"""Seconds; some routers keep a connection for a second after its end."""


class Addition:
    """What both ways to make a mapping have in common: the terms, and the undo."""

    # What is seldom anything else belongs to the class: a thousand of these may wait for their turn.
    _lost = 0
    """Requests to which no reply has come, and which the gateway may yet carry out."""
    _looks_are_prompt = True
    """Whether the gateway answers looks at once, as far as is known."""
    _is_impatient = False
    """The gateway has refused without words, so the time left has to do for several terms."""
    _is_cut_off = False
    """It left a request without a reply, answers others, and does not hold the mapping."""
    _most_terms: int | None = None
    _was_granted = False
    """Whether the gateway has said yes to any request."""

    def __init__(self, client: SoapClient, op: Operation, request: MappingRequest) -> None:
        self._client = client
        self._state = client.state
        self._op = op
        self._request = request
        self._internal_client = request.internal_client or client.internal_client
        self._failures: list[Failure] = []
        self._policy = self._known_policy = client.state.terms_policy
        self._terms = request.terms
        if self._policy != AS_ASKED:
            self._next_terms()

    async def _delete_what_arrives(
        self, op: Operation, find: Callable[[Operation], Awaitable[PortMapping | None]]
    ) -> None:
        noted = sum(one.action in _ADDS and one.result in _LOST for one in self._op.attempts)
        # Some were sent again; too many cost some looks.
        lost = self._lost + max(0, noted - 1) if self._lost else 0
        await delete_what_arrives(self._client, op, self._op, find, lost=lost, looks_are_prompt=self._looks_are_prompt)

    def _next_terms(self) -> bool:
        """Go on to the next terms; returns whether there are any."""
        self._known_policy = self._state.terms_policy
        most = self._most_terms or self._state.most_terms(self._request)
        step = next_terms(self._request, self._failures, self._known_policy, most=most)
        if step is not None:
            self._policy, self._terms = step
        return step is not None

    @property
    def _may_blame_terms(self) -> bool:
        """Whether a request that was lost alone may have been refused because of what is in it."""
        return self._op.was_alone and self._terms != _NOTHING and not self._op.expired

    @property
    def _tries_if_cut(self) -> int:
        return _TRIES_IF_IMPATIENT if self._is_impatient else _TRIES_IF_LOST

    def _go_on_after(self, refusal: IGDError) -> bool:
        """Go on to the next terms; returns whether there are any."""
        is_wordless = isinstance(refusal, (TransportError, DeadlineError))
        self._is_impatient = self._is_impatient or is_wordless
        self._failures.append(Failure(self._terms, refusal.error_code, is_bad_request(refusal), is_wordless))
        if refusal.error_code == UPnPErrorCode.ONLY_PERMANENT_LEASES_SUPPORTED:
            # That is clear, whatever the gateway says to the rest.
            self._state.terms_policy = self._state.terms_policy._replace(lease=LeasePolicy.NONE)
        return not is_denied(refusal) and self._next_terms()

    def _learn_terms(self) -> None:
        self._state.terms_policy = learn(self._state.terms_policy, self._policy, self._request)

    def _rejected(self) -> None:
        """Note a refusal. What an earlier request may have done is still to be undone."""
        if self._was_granted or self._op.reply_lost:
            self._op.checkpoint()
        else:
            self._op.rejected()

    def _mapping(self, external_port: int) -> PortMapping:
        key, terms = self._request.key, self._terms
        return PortMapping(
            external_port,
            self._request.internal_port,
            self._internal_client,
            key.proto,
            terms.desc,
            terms.duration or self._state.limit_for_none or self._client.standard_limit,
            key.remote_host,
        )

    def _leads_to_us(self, held: PortMapping) -> bool | None:
        return held.leads_to(self._internal_client, self._request.internal_port)

    def _is_ours(self, held: PortMapping) -> bool:
        """Whether an entry is what was asked for; where it cannot tell that itself, its description does.

        Some routers show only the beginning of that.
        """
        is_ours = self._leads_to_us(held)
        if is_ours is not None:
            return is_ours
        asked = self._terms.desc
        return held.desc == asked or bool(held.desc.strip() and asked.startswith(held.desc.strip()))


class AddMapping(Addition):
    """One AddPortMapping (WANIPConnection:2 section 2.5.16) with all that may have to happen around it.

    With ``overwrite`` a mapping in the way is deleted, once; without it the gateway is asked first, and anything but
    the same mapping is left alone (ConflictError). With ``verify`` the result is what the gateway says it holds, as far
    as it can tell. A mapping that it does not hold, or holds switched off (NewEnabled 0), is PORT_MAPPING_NOT_FOUND,
    and one that it holds for another client a ConflictError. ``trial`` limits
    the requests for one port of many.
    """

    _is_free = False
    _unchanged: PortMapping | None = None
    """What the gateway holds already, just as it was asked for, and refuses to make again."""
    _in_front: PortMapping | None = None
    """What the gateway holds for another client, although it has said yes, or no reply has come."""
    _false_success: IGDError | None = None
    """What is wrong with a yes that was read back."""
    _was_doubtful = False
    """Whether a reply may have meant a success that the table does not show, or not yet."""
    _removed: RemovedMapping | None = None
    """What was deleted because it was in the way."""
    _silent_terms: tuple[TermsPolicy, Terms, int, bool] | None = None
    """The terms on which a request is silent, and what else is to be put back, while it is asked on others."""

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
            self._is_free = trial.is_free
        self._overwrite = overwrite
        self._verify = verify
        self._had_before = request.key in client.state.ours

    async def run(self) -> PortMapping:
        """Make the mapping, on the terms that the gateway accepts, and return what was granted."""
        if self._overwrite:
            if self._op.reply_lost and await self._has_arrived():
                return self._settle(self._mapping(self._request.key.external_port))
        elif not self._is_free:
            await self._check_unmapped()
        outcome = await self._negotiate(_IN_THE_WAY if self._overwrite else _ONLY_CONFLICT)
        if isinstance(outcome, IGDError) and self._overwrite:
            try:
                outcome = await self._remove_and_negotiate(outcome)
            except IGDError as error:
                raise await self._restore(error)  # noqa: B904 - it is the same one
        if isinstance(outcome, IGDError):
            outcome = await self._look_late(outcome) or outcome
        if isinstance(outcome, IGDError):
            self._state.refused(self._request, self._failures)
            if UPnPErrorCode.is_unsupported(outcome.error_code) or is_bad_request(outcome):
                outcome = UnsupportedError(outcome.message, outcome.error_code)
            raise await self._restore(outcome)
        return self._settle(outcome)

    def _settle(self, granted: PortMapping) -> PortMapping:
        self._was_granted = True
        self._state.fruitless = None
        self._state.ours[self._request.key] = granted
        undo: Undo | None = self.undo_request
        if self._removed is None:
            undo = None if self._had_before else partial(delete_mapping, self._client, self._request.key)
        self._op.settled(undo)
        return granted

    async def _look_late(self, refusal: IGDError) -> PortMapping | None:
        """Return the mapping that was made after all, which the table did not show at once.

        That is one of a doubtful success, or of a request whose reply was lost, where it is then in the way of itself.
        """
        until = asyncio.get_running_loop().time() + LATE_TABLE
        is_own_conflict = (
            refusal.error_code == _CONFLICT and self._op.reply_lost and self._in_front is None and not self._had_before
        )
        with suppress(IGDError):
            while (self._was_doubtful or is_own_conflict) and not self._op.expired:
                held = await find_mapping(self._client, self._request.key, self._op)
                if held is not None and self._is_ours(held):
                    self._op.checkpoint()
                    granted = self._mapping(self._request.key.external_port)
                    outcome = await self._judge(held, granted)
                    return None if isinstance(outcome, IGDError) else outcome
                is_of_another = held is not None and self._leads_to_us(held) is False
                if (is_own_conflict and is_of_another) or asyncio.get_running_loop().time() >= until:
                    break
                await asyncio.sleep(LOOK_PAUSE)
        return None

    def _rejected(self) -> None:
        if self._was_doubtful:
            self._op.checkpoint()
        elif self._removed is None:
            super()._rejected()
        else:
            self._op.checkpoint()  # it is still to be put back

    async def undo_request(self, op: Operation) -> None:
        """Take back what requests have done, or may have, and put back what was in their way."""
        if not self._had_before or self._removed is not None:
            await self._take_back(op)
        if self._removed is not None:
            await self._removed.put_back(op)

    async def _take_back(self, op: Operation) -> None:
        key = self._request.key
        if not self._was_granted:
            await self._delete_what_arrives(op, self._find_ours)
            return
        held = self._in_front
        if held is None and self._false_success is None:
            with suppress(IGDError):
                held = await find_mapping(self._client, key, op)
        if held is None or self._leads_to_us(held) is not False:
            with suppress(IGDError):
                await delete_mapping(self._client, key, op)

    async def _restore(self, failure: IGDError) -> IGDError:
        """Put back what was deleted in vain. Returns the failure, which names it if it is not there again."""
        removed = self._removed
        if removed is None:
            return failure
        fate = "it is put back behind this error, if the gateway agrees"
        if not (self._was_granted or self._op.reply_lost or self._op.expired):
            with suppress(IGDError):  # otherwise it is tried once more behind the failure
                try:
                    await removed.put_back(self._op)
                    fate = ""
                except (RefusedError, InvalidResponseError) as error:
                    fate = f"it cannot be put back: {error.message}"
                self._removed = None
                self._op.rejected()
        if fate:
            failure.append(f"; for this the mapping of {removed} was deleted, and {fate}")
        return failure

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
            if outcome.error_code in stop_at or self._in_front is not None or not self._go_on_after(outcome):
                return outcome

    async def _remove_and_negotiate(self, refusal: IGDError) -> PortMapping | IGDError:
        """Remove what is in the way, and negotiate again."""
        if await self._remove_conflicting(refusal):
            if refusal.error_code not in _IN_THE_WAY:
                self._failures.clear()  # all terms were refused because of what was in the way
                self._next_terms()
            self._in_front = None
        elif refusal.error_code not in _IN_THE_WAY or not self._go_on_after(refusal):
            return self._unchanged or refusal
        outcome = await self._negotiate()
        return (self._unchanged or outcome) if isinstance(outcome, IGDError) else outcome

    async def _ask(self) -> PortMapping | IGDError:
        """Ask once on the present terms, and return what was granted, or the refusal."""
        try:
            status, reply = await (self._send() if self._overwrite else self._send_verified())
        except TransportError as error:
            if not self._is_cut_off:
                raise
            self._is_cut_off = False
            return error
        self._op.checkpoint()
        granted = self._mapping(self._request.key.external_port)
        if isinstance(reply, soap.Answer) and 200 <= status < 300:
            self._was_granted = True
            return await self._read_back(granted) if self._verify else granted
        if isinstance(reply, soap.Fault) or (isinstance(reply, soap.InvalidReply) and status in _CLEAR_STATUSES):
            self._rejected()
            return self._refusal(status, reply)
        held: PortMapping | None = None  # nothing says that it was a success
        with suppress(RefusedError, InvalidResponseError):
            held = await find_mapping(self._client, self._request.key, self._op)
        self._op.checkpoint()
        if held is not None and self._is_ours(held):
            self._was_granted = True
            return await self._judge(held, granted) if self._verify else granted
        is_answer = isinstance(reply, soap.Answer)  # whatever its status
        self._was_doubtful = self._was_doubtful or (held is None and (is_answer or 200 <= status < 300))
        self._rejected()
        return self._not_held("does not hold it") if is_answer else self._refusal(status, reply)

    async def _read_back(self, granted: PortMapping) -> PortMapping | IGDError:
        """Return what the gateway holds of what it has granted, or why that is no success.

        Only what it says for LATE_TABLE is none: until then the table may be late. Where it does not say anything, or
        the call has no time left, what was granted is granted.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + LATE_TABLE
        while True:
            try:
                held = await find_mapping(self._client, self._request.key, self._op)
            except IGDError:
                self._op.checkpoint()
                return self._false_success if self._false_success is not None and self._op.expired else granted
            self._op.checkpoint()
            if held is not None and self._leads_to_us(held) is not False:
                return await self._judge(held, granted)
            left = until - loop.time()
            if left <= 0:
                break
            await asyncio.sleep(max(0.0, min(LOOK_PAUSE, left, self._op.deadline - loop.time())))
        if held is not None:
            self._in_front = held
            message = f"the gateway says that it mapped {self._request.key}, and has it for {held.internal_client}"
            self._false_success = ConflictError(message)
        else:
            self._false_success = self._not_held("does not hold it")
        return self._false_success

    async def _judge(self, held: PortMapping, granted: PortMapping) -> PortMapping | IGDError:
        """Return what the gateway holds, or an error if it holds it switched off."""
        if held.enabled:
            if not (self._terms.duration or self._had_before) and held.duration:
                self._client.learn_limit_for_none(held.duration)
            return replace(
                held,
                internal_client=granted.internal_client,
                internal_port=granted.internal_port,
                remote_host=granted.remote_host,
            )
        if not self._had_before:
            with suppress(RefusedError, InvalidResponseError):
                await delete_mapping(self._client, self._request.key, self._op)  # it lets nothing through
                self._was_granted = False
        return self._not_held("has switched it off")

    def _not_held(self, what_it_does: str) -> IGDError:
        message = f"the gateway says that it mapped {self._request.key}, and {what_it_does}"
        return NotFoundError(message, UPnPResult.PORT_MAPPING_NOT_FOUND)

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
        """Send a request on the present terms, or on others if the gateway says nothing to it."""
        self._lost += 1
        try:
            reply = await self._client.send(
                self._latest_action,
                self._op,
                undo=self.undo_request,
                repeatable=self._overwrite,
                beside=self._look_beside,
                tries_cut=self._tries_if_cut if self._is_impatient else _TRIES_IF_LOST,
            )
            self._lost -= 1
            return reply
        except InvalidResponseError as error:
            self._lost -= 1
            return error.status or 0, soap.InvalidReply(error.message)
        except TransportError as error:
            if not error.may_have_arrived:
                self._lost -= 1
                self._rejected()
            elif self._overwrite:
                is_made = await self._look_after_loss()
                if is_made:
                    return 200, soap.Answer({})
                self._is_cut_off = is_made is False and self._may_blame_terms
            raise
        finally:
            if self._silent_terms is not None:
                self._policy, self._terms, known, self._is_impatient = self._silent_terms
                del self._failures[known:]
                self._silent_terms = None

    async def _has_arrived(self) -> bool:
        """Return whether the mapping is there as it was asked for, although no reply came to the request."""
        return await self._look_after_loss() is True

    async def _look_after_loss(self) -> bool | None:
        """Return whether the mapping is there, None where the gateway does not tell."""
        if self._op.expired or self._op.phase is Phase.UNWANTED:
            return None
        with suppress(IGDError):
            return await self._is_made()
        return None

    async def _look_beside(self) -> tuple[int, soap.Reply] | None:
        """Look what has become of a request to which no reply has come yet; None where it may be sent again.

        Where a gateway answers that promptly, and does not hold the mapping, silence may be how it refuses.
        """
        began = asyncio.get_running_loop().time()
        self._looks_are_prompt = False
        try:
            if await self._is_made():
                return 200, soap.Answer({})
        except (RefusedError, InvalidResponseError):
            return None
        self._looks_are_prompt = asyncio.get_running_loop().time() <= began + _PROMPT
        return await self._ask_on_other_terms() if self._looks_are_prompt and self._may_blame_terms else None

    async def _ask_on_other_terms(self) -> tuple[int, soap.Reply] | None:
        """Ask on other terms, one after the other, while a request is silent.

        Returns the reply if one of them is granted, maybe, or refused for a reason that is not its terms; None if none
        is: the terms are then for ``_send`` to put back.
        """
        loop, op = asyncio.get_running_loop(), self._op
        self._silent_terms = self._policy, self._terms, len(self._failures), self._is_impatient
        silence: IGDError = DeadlineError("the gateway is silent")
        refusal = silence
        while self._go_on_after(refusal) and not op.expired:
            refusal = silence
            with suppress(TransportError, TimeoutError, InvalidResponseError):  # DeadlineError is a TimeoutError
                async with timeout_at(loop.time() + (op.deadline - loop.time()) * SHARE_IF_IMPATIENT):
                    self._lost += 1
                    status, reply = await self._client.send(self._latest_action, op, undo=self.undo_request)
                    self._lost -= 1
                if isinstance(reply, soap.Fault):
                    may_go_on = reply.code not in _NOT_THE_TERMS
                else:
                    may_go_on = isinstance(reply, soap.InvalidReply) and not 200 <= status < 300
                if not may_go_on:
                    self._silent_terms = None
                    return status, reply
                refusal = self._refusal(status, reply)
        return None

    async def _is_made(self) -> bool:
        """Ask whether the gateway holds the mapping, and not only what is left of one from before."""
        held = await find_mapping(self._client, self._request.key, self._op)
        duration = self._terms.duration
        return held is not None and self._is_ours(held) and not 0 < held.duration < _FRESH * duration

    async def _send_verified(self) -> tuple[int, soap.Reply]:
        """Send a request that might replace somebody's mapping if it were repeated: look before each repetition."""
        losses = 0
        while True:
            try:
                return await self._send()
            except (TransportError, DeadlineError) as error:
                losses += 1
                unconnected = isinstance(error, TransportError) and not error.may_have_arrived
                is_last = losses >= self._tries_if_cut
                if unconnected or (is_last and not self._may_blame_terms) or self._op.expired:
                    raise
                self._op.checkpoint()
                try:
                    held = await find_mapping(self._client, self._request.key, self._op)
                except (RefusedError, InvalidResponseError):
                    raise error from error.__cause__
                if is_last and held is None:
                    self._is_cut_off = True
                    raise
            if held is not None and self._leads_to_us(held) is False:
                self._in_front = held
                return 200, soap.Fault(_CONFLICT, "it is mapped already")
            if held is not None and not self._had_before:
                return 200, soap.Answer({})  # it had arrived
            await asyncio.sleep(min(_FIRST_PAUSE * 4**losses, _LONGEST_PAUSE))  # the look may have been too much

    def _latest_action(self) -> Action:
        """Return what to send now. Others may have learned the gateway's terms while this call was waiting."""
        if not self._failures and self._known_policy is not self._state.terms_policy:
            self._next_terms()
        return wan_ip_connection.add_port_mapping(self._request, self._internal_client, self._terms)

    async def _check_unmapped(self) -> None:
        """Raise ConflictError where the port is another's. Who cannot tell, or not soon, may still refuse."""
        op = self._op
        if 2 * self._state.seconds_needed > op.timeout:
            return  # with a look there would be no time for the add
        try:
            with op.short_attempts():
                held = await find_mapping(self._client, self._request.key, op)
        except (RefusedError, InvalidResponseError):
            return
        except DeadlineError:
            self._looks_are_prompt = False
            if op.rediscover_on_timeout or op.expired:
                raise
            return
        if held is None:
            return
        self._had_before = True
        if self._leads_to_us(held) is False:
            raise ConflictError(
                f"{self._request.key} is mapped to {held.internal_client} port {held.internal_port} already"
            )

    async def _remove_conflicting(self, refusal: IGDError) -> bool:
        """Delete what is in the way; returns whether it is worth trying again.

        It is read before, so that it can be put back. What cannot be read is deleted only if the gateway says that it
        is in the way, or if this program has made it.
        """
        is_conflict = refusal.error_code == _CONFLICT or self._in_front is not None
        # Other codes may mean anything, or "not yours": only if there is something in the way at all.
        is_final = (
            refusal.error_code in FINAL_CODES - {_NOT_AUTHORIZED} or is_denied(refusal) or is_bad_request(refusal)
        )
        if not is_conflict and is_final:
            return False
        held = self._in_front
        try:
            held = held or await find_mapping(self._client, self._request.key, self._op)
        except (RefusedError, InvalidResponseError):
            if not (is_conflict or self._had_before):
                return False
        else:
            if held is None:
                return is_conflict  # it is gone by itself
            if not is_conflict and self._leads_to_us(held) and held.enabled and not held.duration:
                # Some refuse to make what is there. It is as it was asked for, and has no end to be put off.
                self._unchanged = held
                self._had_before = True
                return False
        if refusal.error_code == _NOT_AUTHORIZED:
            return False  # it is about this host, not about what is there
        self._removed = None if held is None else RemovedMapping(self._client, held)
        try:
            await self._client.call(
                wan_ip_connection.delete_port_mapping(self._request.key), self._op, undo=self.undo_request
            )
        except RefusedError as error:
            # Somebody else's, or gone by itself. Only a conflict says that another try may make sense.
            self._removed = None
            self._rejected()
            return is_conflict and error.error_code != _NOT_AUTHORIZED
        except InvalidResponseError:
            return is_conflict
        return True


def is_bad_request(error: IGDError) -> bool:
    """Return whether a gateway said HTTP 400 and nothing else, as some do to actions that they do not have."""
    return isinstance(error, InvalidResponseError) and error.status == _BAD_REQUEST
