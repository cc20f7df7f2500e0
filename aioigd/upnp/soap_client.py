"""The line to one gateway: actions go in, replies come out, and what got lost on the way is sent again.

Knows the gateway's addresses, its limit and its habits; does not know what an action means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from ..core.calls import Call
from ..core.limiter import Limiter, Slot
from ..errors import Attempt, DeadlineError, IGDError, InvalidResponseError, TransportError
from ..models import Device, MappingKey, PortMapping
from ..net.interfaces import default_next_hops, source_address_for
from ..results import UPnPResult
from .fallback import Habits
from .net.http import HttpClient
from .wire import soap
from .wire.description import Service
from .wire.error_codes import refused, result_of_error_code
from .wire.http_reply import HttpReply
from .wire.soap import Action
from .wire.url import HttpUrl, parse_url

__all__ = ["NOT_THERE", "Channel", "Memory", "answer_of"]

_LONELY_TRIES: Final = {False: 2, True: 6}
"""How often a request is sent that fails though it was the only one out."""
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
NOT_THERE: Final = frozenset({404, 405, 410})
"""HTTP statuses of a server that is up, but has no such control URL (any more)."""
_CONTENT_TYPE: Final = 'text/xml; charset="utf-8"'


class Memory:
    """What is known of a gateway beyond one connection to it; handed on when it is found again elsewhere."""

    def __init__(self) -> None:
        self.limiter = Limiter()
        self.habits = Habits()
        self.made: dict[MappingKey, PortMapping] = {}
        """The mappings that calls of this program have made, so that an undo never removes an older one."""
        self.pinholes: set[int] = set()
        """The same for pinholes, by their numbers."""


class Channel:
    """Sends actions to the service that maps ports on one gateway."""

    def __init__(self, http: HttpClient, device: Device, memory: Memory) -> None:
        self.http = http
        self.device = device
        self.memory = memory
        self.others: dict[tuple[str, str], Channel] = {}
        """The lines to other services of this gateway, as far as they are known (see ``services``)."""
        self.our_address = device.igd_our_addr
        self._urls = [parse_url(url) for url in (device.igd_control_url, *device.alternative_control_urls)]
        self._proven = len(self._urls) == 1
        self._headers: dict[str, dict[str, str]] = {}

    @property
    def service_version(self) -> int:
        """The version of the service that maps ports: 2 and later can choose a port."""
        version = self.device.igd_service_type.rpartition(":")[2]
        return int(version) if version.isascii() and version.isdigit() else 1

    @property
    def internal_client(self) -> str:
        """The IPv4 address of this machine for a mapping: where the gateway sees its requests come from.

        Behind a gateway that was found over IPv6 it is the address towards the IPv4 default route, as a mapping is a
        matter of IPv4 (WANIPConnection:2 section 2.3.21).
        """
        if ":" not in self.our_address:
            return self.our_address
        if ip_address(self.our_address).is_loopback:
            return "127.0.0.1"
        hops = default_next_hops()
        return source_address_for(min(hops) if hops else "192.0.2.1")

    async def ask(self, action: Action, call: Call) -> Mapping[str, str]:
        """Send an action and return its output arguments, whatever the HTTP status.

        Raises what :meth:`send` raises, RefusedError for a fault and InvalidResponseError for anything else.
        """
        return answer_of(await self.send(action, call), action)[1]

    async def send(
        self, latest: Action | Callable[[], Action], call: Call, *, commits: bool = False, repeatable: bool = True
    ) -> tuple[int, soap.Reply]:
        """Send an action until something comes back, and return the HTTP status and the reply.

        ``latest`` may be a function that returns the action: it is called when the request may go, with all that
        has become known of the gateway meanwhile. ``commits`` tells that the action may change what must be settled.

        A request that got lost among others is sent again until the call's deadline; one that fails alone only a
        few times, and not at all after it may have arrived if it is not ``repeatable``. Each request is noted in
        ``call.attempts``. Raises TransportError, DeadlineError, or InvalidResponseError for a broken cap.
        """
        lonely_failures = 0
        while True:
            slot = await self._turn(call)
            call.committed = call.committed or commits
            action = latest() if callable(latest) else latest
            body = soap.build_request(self.device.igd_service_type, action.name, action.arguments)
            url = self._url
            lost: bool | None = None
            try:
                reply = await self._post(action, url, body, call, repeatable=repeatable)
                lost = False
            except TransportError as error:
                lost = True
                self._note(call, action, error)
                call.lost = call.lost or error.may_have_arrived
                if not error.may_have_arrived and not slot.shared and self._try_elsewhere(url):
                    continue
                lonely_failures += not slot.shared
                if call.expired or lonely_failures >= _LONELY_TRIES[error.may_have_arrived]:
                    raise
                if error.may_have_arrived and not repeatable:
                    raise
            except DeadlineError as error:
                lost = call.lost = True
                self._note(call, action, error)
                if call.expired or call.may_move or not repeatable:
                    raise
            except InvalidResponseError as error:
                self._note(call, action, error)
                raise
            finally:
                call.sent()
                self.memory.limiter.release(slot, lost=lost)
            if not lost:
                parsed = soap.parse_reply(reply.body, action.name)
                if isinstance(parsed, soap.InvalidReply) and reply.status in NOT_THERE and self._try_elsewhere(url):
                    continue
                self._proven = True
                call.attempts.append(_attempt(action, parsed))
                return reply.status, parsed
            if not slot.shared:
                await asyncio.sleep(min(_FIRST_PAUSE * 4**lonely_failures, _LONGEST_PAUSE))

    async def read(self, url: HttpUrl, call: Call, source: str) -> HttpReply:
        """Read a document of the gateway from the address ``source``; raises what :meth:`send` raises."""
        tries = 0
        while True:
            slot = await self._turn(call)
            lost: bool | None = None
            try:
                reply = await self.http.request("GET", url, deadline=call.attempt_deadline, source=source)
                lost = False
                return reply
            except (TransportError, DeadlineError):
                lost = True
                tries += 1
                if call.expired or tries >= _LONELY_TRIES[False]:
                    raise
            finally:
                call.sent()
                self.memory.limiter.release(slot, lost=lost)

    def beside(self, service: Service, our_address: str) -> Channel:
        """Return a line to another service of the same gateway, from another of our addresses."""
        first, *others = (url.with_zone for url in service.control_urls)
        device = replace(
            self.device,
            igd_control_url=first,
            igd_service_type=service.service_type,
            igd_our_addr=our_address,
            alternative_control_urls=tuple(others),
        )
        return Channel(self.http, device, self.memory)

    async def _turn(self, call: Call) -> Slot:
        """Wait until a request may go. A call that has begun comes before those that have not."""
        loop = asyncio.get_running_loop()
        came_at = loop.time()
        slot = await self.memory.limiter.acquire(first=call.started)
        call.sending(came_at)
        return slot

    async def _post(self, action: Action, url: HttpUrl, body: bytes, call: Call, *, repeatable: bool) -> HttpReply:
        headers = self._headers.get(action.name)
        if headers is None:
            headers = self._headers[action.name] = {
                "Content-Type": _CONTENT_TYPE,
                "SOAPAction": soap.soap_action(self.device.igd_service_type, action.name),
            }
        return await self.http.request(
            "POST",
            url,
            deadline=call.attempt_deadline,
            source=self.our_address,
            headers=headers,
            body=body,
            repeatable=repeatable,
        )

    @property
    def _url(self) -> HttpUrl:
        return self._urls[0]

    def _try_elsewhere(self, url: HttpUrl) -> bool:
        """Turn to the next place where the description may have meant the control URL to be, if there is one."""
        if url != self._url:
            return True  # somebody else has done so
        if self._proven or len(self._urls) == 1:
            return False
        del self._urls[0]
        return True

    @staticmethod
    def _note(call: Call, action: Action, error: IGDError) -> None:
        call.attempts.append(Attempt(action.name, dict(action.arguments), None, error.result))


def answer_of(reply: tuple[int, soap.Reply], action: Action) -> tuple[int, Mapping[str, str]]:
    """Return HTTP status and output arguments of a reply that is an answer; raise what else it is."""
    status, parsed = reply
    if isinstance(parsed, soap.Answer):
        return status, parsed.values
    if isinstance(parsed, soap.Fault):
        said = parsed.description or "without a reason"
        raise refused(f"the gateway refused {action.name}: {said}", parsed.code)
    raise InvalidResponseError(f"{action.name}: {parsed.reason} (HTTP status {status})", status=status)


def _attempt(action: Action, reply: soap.Reply) -> Attempt:
    code = None
    result = UPnPResult.INVALID_RESPONSE
    if isinstance(reply, soap.Answer):
        result = UPnPResult.SUCCESS
    elif isinstance(reply, soap.Fault):
        code = reply.code
        result = result_of_error_code(code)
    return Attempt(action.name, dict(action.arguments), code, result)
