"""How an action gets its answer: sent when the limiter allows, and sent again when it was lost.

Knows the control URLs of one service, and what is known of its gateway; does not know what an action means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from math import inf
from typing import Any, Final, NamedTuple

from async_timeout import timeout_at

from ..core.calls import Operation, Undo
from ..core.limiter import Limiter, Outcome, Permit
from ..errors import (
    DENIED_STATUSES,
    GONE_STATUSES,
    Attempt,
    DeadlineError,
    IGDError,
    InvalidResponseError,
    RefusedError,
    TransportError,
)
from ..models import Device, MappingKey, MappingRequest, PortMapping, Terms
from ..net.interfaces import default_next_hops, source_address_for
from ..results import UPnPResult
from .fallback import FEW_TERMS, WEEK, Failure, TermsPolicy
from .net.http import HttpClient
from .net.kept_connections import Keep, KeptConnections, Verdict
from .retry import TRIES_CUT, Step, next_step, pause_after
from .wire import soap
from .wire.description import Service
from .wire.error_codes import refused, result_of_error_code
from .wire.http_reply import BodyRule, HttpReply
from .wire.soap import Action
from .wire.url import HttpUrl, parse_url

__all__ = ["GatewayState", "SoapClient", "is_denial", "is_doubtful", "read_answer"]

_CONTENT_TYPE: Final = 'text/xml; charset="utf-8"'
_GET_TRIES: Final = 2
_PATIENCE: Final = 0.85
"""Part of the rest of a call for which a request is still waited for whose time was over."""
_FRUITLESS_KEPT: Final = 10.0
"""Seconds for which a mapping that was refused on all terms says something about others."""
_ON_NEW_CONNECTIONS: Final = frozenset({"AddPinhole"})
"""Actions that are repeated only where there is no other way: nothing says afterwards whether they were carried out."""

Beside = Callable[[], Coroutine[Any, Any, tuple[int, soap.Reply] | None]]
"""What is done beside a request that is silent; see :meth:`SoapClient.send`."""


class Fruitless(NamedTuple):
    """A mapping that was refused on all terms: it does not seem to be a matter of them."""

    port: int
    terms: Terms
    at: float
    """On the loop's clock."""


class GatewayState:
    """What is known of a gateway beyond one connection to it; it stays when the gateway is found again elsewhere."""

    def __init__(self) -> None:
        self.limiter = Limiter()
        self.kept = KeptConnections()
        self.terms_policy = TermsPolicy()
        self.ours: dict[MappingKey, PortMapping] = {}
        """The mappings that this program has made, so that an undo never removes an older one."""
        self.our_pinholes: set[int] = set()
        """The same for pinholes, by their unique ids."""
        self.fruitless: Fruitless | None = None
        """The last mapping that was refused on all terms, since one was granted."""
        self.seconds_needed = 0.0
        """The longest that it was seen to need for a request."""
        self.table_rests_until = 0.0
        """Until when its table is not read row by row, on the loop's clock: it was too long for that."""
        self.connection: Device | None = None
        """The device with that of its connections which is up, where a search was not told in time."""
        self.limit_for_none = 0
        """The lease in seconds that it was seen to give to a mapping that was asked for without one, 0 for none."""

    def refused(self, request: MappingRequest, failures: Sequence[Failure]) -> None:
        """Note on how many terms a mapping was refused."""
        if len(failures) > FEW_TERMS:
            now = asyncio.get_running_loop().time()
            self.fruitless = Fruitless(request.key.external_port, request.terms, now)

    def most_terms(self, request: MappingRequest) -> int | None:
        """Return on how many terms to ask for a mapping: few, where another port was just refused on all of them."""
        last = self.fruitless
        if last is None or last.port == request.key.external_port or last.terms != request.terms:
            return None
        return FEW_TERMS if asyncio.get_running_loop().time() < last.at + _FRUITLESS_KEPT else None


class SoapClient:
    """Sends actions to one service of a gateway."""

    def __init__(self, http: HttpClient, device: Device, state: GatewayState) -> None:
        self.http = http
        self.device = device
        self.state = state
        self.service_type = device.igd_service_type
        version = self.service_type.rpartition(":")[2]
        self.service_version = int(version) if version.isascii() and version.isdigit() else 1
        """The version of the service that maps ports: 2 and later can choose a port."""
        self.standard_limit = WEEK if self.service_version >= 2 else 0
        """Seconds that a mapping lasts by the standard that is made without a limit, 0 where that is what it is.

        An IGD:2 makes a week of it (WANIPConnection:2 section 2.3.16).
        """
        self.local_address = device.igd_our_addr
        self._control_urls = [parse_url(url) for url in (device.igd_control_url, *device.alternative_control_urls)]
        """The URL in use, and behind it those that the description may have meant."""
        self._is_proven = len(self._control_urls) == 1
        self._headers: dict[tuple[str, HttpUrl], dict[str, str]] = {}

    @property
    def internal_client(self) -> str:
        """The IPv4 address of this machine for a mapping: where the gateway sees its requests come from.

        For a gateway that was found over IPv6 it is the address towards the IPv4 default route, as InternalClient is an
        IPv4 address (WANIPConnection:2 section 2.3.21).
        """
        if ":" not in self.local_address:
            return self.local_address
        if ip_address(self.local_address).is_loopback:
            return "127.0.0.1"
        hops = default_next_hops()
        return source_address_for(min(hops) if hops else "192.0.2.1")

    def learn_limit_for_none(self, rest: int) -> None:
        """Note how long a mapping that was just made without a limit lasts; some seconds may have gone by."""
        self.state.limit_for_none = -(-rest // 60) * 60

    async def call(self, action: Action, op: Operation, *, undo: Undo | None = None) -> Mapping[str, str]:
        """Send an action and return its output arguments, whatever the HTTP status.

        Raises what :meth:`send` raises, RefusedError for a fault and InvalidResponseError for anything else.
        """
        return read_answer(await self.send(action, op, undo=undo), action)[1]

    async def send(
        self,
        action: Action | Callable[[], Action],
        op: Operation,
        *,
        undo: Undo | None = None,
        repeatable: bool = True,
        beside: Beside | None = None,
        looks_again: bool = False,
        tries_cut: int = TRIES_CUT,
    ) -> tuple[int, soap.Reply]:
        """Send an action until something comes back, and return the HTTP status and the reply.

        ``action`` may be a function that returns it: it is called when the request may go, with all that has become
        known of the gateway meanwhile. ``undo``: how to take back what the action may have changed. ``repeatable``:
        carried out twice it does no harm. ``beside``: what to do while no reply comes to the first attempt in its
        time; its outcome counts as the reply if it comes first, and None as a reason to wait no longer. By default the
        action is sent a second time. Either way the first request is not given up at once. ``looks_again``: do that
        also before a request is sent again that was cut alone. ``tries_cut``: see ``retry``. What follows from a
        failure is decided in ``retry``; each request is noted in ``op.attempts``. Raises TransportError, DeadlineError,
        or InvalidResponseError for a reply that breaks a cap.
        """
        state = self.state
        loop = asyncio.get_running_loop()
        failures_alone = 0
        while True:
            waiting_since = loop.time()
            permit = await state.limiter.acquire(first=op.goes_first)
            sent_at = op.request_started(waiting_since)
            outcome = Outcome.UNKNOWN
            kind: Hashable = None
            failure: TransportError | DeadlineError
            second: list[_SecondTry] = []
            silence: asyncio.TimerHandle | None = None
            try:
                if undo is not None:
                    op.sent(undo)
                if state.seconds_needed > op.seconds_needed:
                    op.seconds_needed = state.seconds_needed
                latest = action() if callable(action) else action
                url = self._control_urls[0]
                headers = self._headers.get((latest.name, url)) or self._make_headers(latest.name, url)
                deadline = op.attempt_deadline
                is_waited_for = op.search is not None if op.rediscover_on_timeout else not op.gives_up_early
                has_second = is_waited_for and op.may_go_beside and (repeatable or beside is not None)
                if has_second and deadline < op.deadline:
                    # Until then this is the only timer; what is done beside has that of the rest.
                    silence = loop.call_at(
                        deadline, self._start_second, second, latest, op, permit, beside, asyncio.current_task()
                    )
                    deadline = inf
                keep = None
                if state.kept.verdict is not Verdict.REFUSED:
                    # Tried where somebody waits, so that the next request follows at once.
                    is_batch = state.limiter.waiting or (permit.had_company and state.kept.verdict is Verdict.PROVEN)
                    state.kept.others_out.add(permit)
                    if is_batch or state.kept.idle:
                        most = state.limiter.window if is_batch else 0
                        may_reuse = latest.name not in _ON_NEW_CONNECTIONS
                        keep = Keep(state.kept, most, may_reuse, latest.name.encode(), permit)
                reply = await self.http.request(
                    "POST",
                    url,
                    deadline=deadline,
                    source=self.local_address,
                    headers=headers,
                    body=soap.build_request(self.service_type, latest.name, latest.arguments),
                    repeatable=repeatable,
                    body_rule=BodyRule.EXPECTED if latest.has_output else BodyRule.OPTIONAL,
                    keep=keep,
                )
                outcome = Outcome.ANSWERED
                # A refusal is often quick, and so is what goes on a connection that is there.
                kind = latest.name, reply.status, keep is None
                needed = loop.time() - sent_at
                if needed > op.seconds_needed:
                    state.kept.seconds_needed = state.seconds_needed = op.seconds_needed = needed
            except asyncio.CancelledError:
                if not (second and second[0].has_interrupted()):
                    raise
                outcome = Outcome.LOST
                failure = DeadlineError(f"no answer from {url} in time")
                op.seconds_needed = max(op.seconds_needed, loop.time() - sent_at)
            except (TransportError, DeadlineError) as error:
                outcome = Outcome.LOST
                failure = error
                if not second:
                    op.attempts.append(Attempt(latest.name, latest.arguments, None, error.result))
                op.reply_lost = op.reply_lost or isinstance(error, DeadlineError) or error.may_have_arrived
                if isinstance(error, DeadlineError):
                    op.seconds_needed = max(op.seconds_needed, loop.time() - sent_at)
            except InvalidResponseError as error:
                op.attempts.append(Attempt(latest.name, latest.arguments, None, error.result))
                raise
            finally:
                if silence is not None:
                    silence.cancel()
                if second and outcome is not Outcome.LOST:
                    second[0].stop()
                op.request_finished()
                state.kept.others_out.discard(permit)
                state.limiter.release(permit, outcome, kind)
            if outcome is Outcome.ANSWERED:
                parsed = soap.parse_reply(reply.body, latest.name)
                if type(parsed) is soap.InvalidReply and reply.status in GONE_STATUSES and self._has_next_url(url):
                    self._use_next_control_url(url)
                    continue
                self._is_proven = True
                op.note(partial(_attempt, latest, reply.status, parsed))
                return reply.status, parsed
            if second and (found := await second[0].outcome(op.deadline)) is not None:
                return found
            alone = op.was_alone = not permit.had_company
            failures_alone += alone and isinstance(failure, TransportError)
            step = next_step(
                failure,
                alone=alone,
                failures_alone=failures_alone,
                repeatable=repeatable,
                may_have_moved=op.rediscover_on_timeout or op.gives_up_early,
                has_next_url=self._has_next_url(url),
                expired=op.expired,
                tries_cut=tries_cut,
            )
            if step is Step.RAISE:
                raise failure
            if looks_again and beside is not None and alone and op.reply_lost:
                with suppress(IGDError):
                    if (found := await beside()) is not None:
                        return found
            if step is Step.NEXT_URL:
                self._use_next_control_url(url)
                failures_alone -= 1  # a control URL that was guessed wrong does not count
            elif step is Step.AGAIN_AFTER_PAUSE:
                await asyncio.sleep(pause_after(failures_alone))

    def _start_second(
        self,
        second: list[_SecondTry],
        action: Action,
        op: Operation,
        permit: Permit,
        beside: Beside | None,
        task: asyncio.Task[Any] | None,
    ) -> None:
        """Begin what is done beside a request that is silent. It counts as lost for the limit."""
        op.attempts.append(Attempt(action.name, action.arguments, None, UPnPResult.HTTP_ERROR))
        op.reply_lost = True
        op.was_alone = not permit.had_company
        self.state.limiter.release(permit, Outcome.LOST)
        assert task is not None  # noqa: S101 - requests are sent by calls, which are tasks
        now = asyncio.get_running_loop().time()
        patience = now + _PATIENCE * (op.deadline - now)
        second.append(_SecondTry(task, self._do_beside(action, op, beside), patience))

    async def _do_beside(self, action: Action, op: Operation, beside: Beside | None) -> tuple[int, soap.Reply] | None:
        if op.rediscover_on_timeout and op.search is not None:
            if await op.search():
                return None
            op.rediscover_on_timeout = False  # it is where it was, and slow
            if op.gives_up_early:
                return None
        return await (self.send(action, op) if beside is None else beside())

    async def get(self, url: HttpUrl, op: Operation, source: str) -> HttpReply:
        """Read a document of the gateway from the address ``source``; raises what :meth:`send` raises."""
        limiter = self.state.limiter
        loop = asyncio.get_running_loop()
        tries = 0
        while True:
            waiting_since = loop.time()
            permit = await limiter.acquire(first=op.goes_first)
            op.request_started(waiting_since)
            outcome = Outcome.UNKNOWN
            try:
                reply = await self.http.request("GET", url, deadline=op.attempt_deadline, source=source)
                outcome = Outcome.ANSWERED
                return reply
            except (TransportError, DeadlineError):
                outcome = Outcome.LOST
                tries += 1
                if op.expired or tries >= _GET_TRIES:
                    raise
            finally:
                op.request_finished()
                limiter.release(permit, outcome, url)

    def for_service(self, service: Service, local_address: str) -> SoapClient:
        """Return a client for another service of the same gateway, from another of this machine's addresses."""
        first, *others = (url.with_zone for url in service.control_urls)
        device = replace(
            self.device,
            igd_control_url=first,
            igd_service_type=service.service_type,
            igd_our_addr=local_address,
            alternative_control_urls=tuple(others),
        )
        return SoapClient(self.http, device, self.state)

    def _make_headers(self, action: str, url: HttpUrl) -> dict[str, str]:
        headers = self._headers[action, url] = {
            "Accept-Encoding": "identity",
            "Host": url.netloc,
            "Content-Type": _CONTENT_TYPE,
            "SOAPAction": soap.soap_action(self.service_type, action),
        }
        return headers

    def _has_next_url(self, url: HttpUrl) -> bool:
        """Return whether there is another place where the description may have meant the control URL to be."""
        return url != self._control_urls[0] or (not self._is_proven and len(self._control_urls) > 1)

    def _use_next_control_url(self, url: HttpUrl) -> None:
        if url == self._control_urls[0]:  # otherwise another request has done so
            del self._control_urls[0]


class _SecondTry:
    """What is done beside a request that is silent.

    If it has an outcome first, or the request is silent until ``patience``, a time of the loop's clock, the task that
    waits is interrupted.
    """

    def __init__(
        self,
        task: asyncio.Task[Any],
        work: Coroutine[Any, Any, tuple[int, soap.Reply] | None],
        patience: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._waiting: asyncio.Task[Any] | None = task
        self._interrupted: asyncio.Task[Any] | None = None
        self._patience = loop.call_at(patience, self._interrupt)
        self._second = loop.create_task(work)
        self._second.add_done_callback(self._ended)

    def has_interrupted(self) -> bool:
        """Return whether the task that waits was cancelled by this, and by nobody else."""
        return self._interrupted is not None and self._interrupted.uncancel() == 0

    def stop(self) -> None:
        """Give it up: the reply has come, or nobody waits any more."""
        self._waiting = None
        self._patience.cancel()
        self._second.cancel()

    async def outcome(self, until: float) -> tuple[int, soap.Reply] | None:
        """Wait for the outcome until a time of the loop's clock; None where there is none."""
        self._waiting = None
        self._patience.cancel()
        try:
            async with timeout_at(until):
                await asyncio.wait([self._second])
        except (TimeoutError, asyncio.CancelledError) as error:
            self._second.cancel()
            if isinstance(error, TimeoutError):
                return None
            raise
        return None if self._second.cancelled() or self._second.exception() else self._second.result()

    def _ended(self, second: asyncio.Task[tuple[int, soap.Reply] | None]) -> None:
        if not second.cancelled() and second.exception() is None:
            self._interrupt()

    def _interrupt(self) -> None:
        if self._waiting is not None:
            self._interrupted, self._waiting = self._waiting, None
            self._interrupted.cancel()


def is_doubtful(status: int, reply: soap.Reply) -> bool:
    """Return whether a reply is anything but the answer to the action with a status of success."""
    return not isinstance(reply, soap.Answer) or not 200 <= status < 300


def read_answer(reply: tuple[int, soap.Reply], action: Action) -> tuple[int, Mapping[str, str]]:
    """Return HTTP status and output arguments of a reply that is an answer; raise what else it is.

    RefusedError for a fault, and for HTTP 401 and 403 (NOT_AUTHORIZED) unless a fault says more; InvalidResponseError
    for anything else.
    """
    status, parsed = reply
    if isinstance(parsed, soap.Answer):
        return status, parsed.values
    if is_denial(status, parsed):
        raise RefusedError(
            f"the gateway lets this machine not use {action.name} (HTTP status {status})", UPnPResult.NOT_AUTHORIZED
        )
    if isinstance(parsed, soap.Fault):
        raise refused(f"the gateway refused {action.name}: {parsed.description or 'without a reason'}", parsed.code)
    raise InvalidResponseError(f"{action.name}: {parsed.reason} (HTTP status {status})", status=status)


def is_denial(status: int, reply: soap.Reply) -> bool:
    """Return whether a reply says that this machine may ask for nothing: HTTP 401 or 403, and no code besides."""
    says_more = isinstance(reply, soap.Answer) or (isinstance(reply, soap.Fault) and reply.code is not None)
    return status in DENIED_STATUSES and not says_more


def _attempt(action: Action, status: int, reply: soap.Reply) -> Attempt:
    if isinstance(reply, soap.Answer):
        return Attempt(action.name, action.arguments, None, UPnPResult.SUCCESS)
    if is_denial(status, reply):
        return Attempt(action.name, action.arguments, None, UPnPResult.NOT_AUTHORIZED)
    if isinstance(reply, soap.Fault):
        return Attempt(action.name, action.arguments, reply.code, result_of_error_code(reply.code))
    return Attempt(action.name, action.arguments, None, UPnPResult.INVALID_RESPONSE)
