"""Quirks: their hooks into an emulated gateway, and how several of them combine.

A gateway processes requests in stages, and each stage has a hook. A quirk is a function that returns :class:`Hooks` for
the stages in which it differs from the standard:

========================  ==========================================================================
hook                      what it changes
========================  ==========================================================================
``hears``                 whether a search is received at all
``replies``               the replies to a search, as messages (header names and values)
``datagrams``             the same as bytes, with delay and source port
``notices``               the notifications that the gateway sends unasked
``device``                the structure of the device tree, from which description and routes follow
``description``           the text of the description
``encoded``               the bytes of the description
``service``               the text of a service document (SCPD)
``pages``                 more documents that the gateway serves, by their path
``admit``                 whether a new TCP connection is served, closed or reset
``intercept``             a response, or bytes, or nothing, instead of processing a request
``action``                an action: before it, instead of it, after it
``envelope``              the text of a SOAP reply, answer or fault
``response``              an HTTP response: status, headers, body, delay, end
``transmission``          the bytes of a response, the pauses between them, the end
``pcp_rules``             what PCP and NAT-PMP leave to the router
``pcp_hears``             whether a datagram to the port of PCP and NAT-PMP is received at all
``pcp_action``            a request of PCP or NAT-PMP: before it, instead of it, after it
``pcp_datagrams``         the replies to it as bytes, with delay, source port and address
``pcp_notices``           what the gateway announces by PCP and NAT-PMP
========================  ==========================================================================

The quirks of a gateway are applied in the order in which they were passed: each changes the result of the one before.
``action`` and ``pcp_action`` hooks are nested, the first one outermost. Every gateway calls the function again, so the
state of a quirk (in its closure) belongs to one gateway.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, ParamSpec, TypeVar

from .device_tree import Device, Site
from .errors import UPnPError
from .http import Admission, HttpRequest, Response, Transmission
from .pcp_messages import PcpDatagram, PcpQuery, PcpReply, PcpRules
from .ssdp import Datagram, Message, Search
from .wan_connection import ActionCall, Outputs

__all__ = ["Exchange", "Family", "Hooks", "PcpProceed", "Pipeline", "Proceed", "Quirk", "quirk"]

P = ParamSpec("P")
_A = TypeVar("_A")
_T = TypeVar("_T")
Family = Literal["discovery", "description", "http", "soap", "hostile", "pcp"]
Proceed = Callable[[ActionCall], Outputs]
"""Performs an action without the hook that calls it; raises UPnPError where the action is refused."""
PcpProceed = Callable[[PcpQuery], PcpReply | None]
"""Performs a request of PCP or NAT-PMP without the hook that calls it; None is no reply."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request as the gateway has parsed it.

    ``purpose`` is the kind of resource that was requested; ``action`` and ``arguments`` are those of a SOAP request,
    valid or not, and ``call`` is the action of a valid one. ``refusal`` is the HTTP status with which the request is
    refused (0 if it is not), ``error`` the UPnP error.
    """

    request: HttpRequest
    purpose: Literal["description", "scpd", "control", "event", "other"]
    action: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict, hash=False)
    call: ActionCall | None = None
    refusal: int = 0
    error: UPnPError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """The hooks of a quirk, one for each stage; None leaves a stage unchanged."""

    hears: Callable[[Search], bool] | None = None
    replies: Callable[[Search, Sequence[Message], Site], Iterable[Message]] | None = None
    datagrams: Callable[[Search, Sequence[Datagram], Site], Iterable[Datagram]] | None = None
    notices: Callable[[Sequence[Message]], Iterable[Message]] | None = None
    device: Callable[[Device, Site], Device] | None = None
    description: Callable[[str, Site], str] | None = None
    encoded: Callable[[bytes], bytes] | None = None
    service: Callable[[str], str] | None = None
    pages: Mapping[str, Callable[[Site], Response]] = field(default_factory=dict)
    admit: Callable[[int], Admission] | None = None
    intercept: Callable[[Exchange], Response | Transmission | None] | None = None
    action: Callable[[ActionCall, Proceed], Outputs] | None = None
    envelope: Callable[[Exchange, str], str] | None = None
    response: Callable[[Exchange, Response], Response] | None = None
    transmission: Callable[[Exchange, Transmission], Transmission] | None = None
    pcp_rules: Callable[[PcpRules], PcpRules] | None = None
    pcp_hears: Callable[[PcpQuery], bool] | None = None
    pcp_action: Callable[[PcpQuery, PcpProceed], PcpReply | None] | None = None
    pcp_datagrams: Callable[[PcpQuery, Sequence[PcpDatagram]], Iterable[PcpDatagram]] | None = None
    pcp_notices: Callable[[Sequence[PcpDatagram]], Iterable[PcpDatagram]] | None = None


class Quirk(Generic[P]):
    """A way in which a gateway differs from the standard.

    ``name`` and ``family`` identify it, ``summary`` describes it, ``reason`` is why it is worth a test, and ``source``
    where it was observed. With a ``hopeless`` quirk no port can, or should, be mapped: a test checks that the failure
    is reported well. A quirk is used with its default parameters, or called to get it with others:
    ``refuses_leases`` and ``refuses_leases(402)``.
    """

    def __init__(
        self,
        make: Callable[P, Hooks],
        family: Family,
        reason: str,
        source: str,
        hopeless: bool,
        arguments: inspect.BoundArguments | None = None,
    ) -> None:
        self.name = make.__name__
        self.family = family
        self.summary = inspect.cleandoc(make.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        self.reason = reason
        self.source = source
        self.hopeless = hopeless
        self.__doc__ = make.__doc__
        self._make = make
        self._arguments = arguments

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Quirk[P]:
        """Return the same quirk with other parameters."""
        bound = inspect.signature(self._make).bind(*args, **kwargs)
        return Quirk(self._make, self.family, self.reason, self.source, self.hopeless, bound)

    def hooks(self) -> Hooks:
        """Return the hooks for one gateway, with their own state."""
        if self._arguments is None:
            return self._make()  # type: ignore[call-arg] # every parameter has a default, which a test checks
        return self._make(*self._arguments.args, **self._arguments.kwargs)

    def __repr__(self) -> str:
        if self._arguments is None:
            return self.name
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self._arguments.arguments.items())})"


def quirk(
    family: Family, *, reason: str, source: str, hopeless: bool = False
) -> Callable[[Callable[P, Hooks]], Quirk[P]]:
    """Turn a function that returns hooks into a quirk; its parameters must have defaults."""

    def decorate(make: Callable[P, Hooks]) -> Quirk[P]:
        return Quirk(make, family, reason, source, hopeless)

    return decorate


class Pipeline:
    """The hooks of all the quirks of one gateway, stage by stage."""

    def __init__(self, quirks: Iterable[Quirk[...]]) -> None:
        self._hooks = [each.hooks() for each in quirks]
        self.pages = {path: page for hooks in self._hooks for path, page in hooks.pages.items()}

    def hears(self, search: Search) -> bool:
        """Return whether a search reaches the gateway. All hooks are called, because some count the searches."""
        verdicts = [hooks.hears(search) for hooks in self._hooks if hooks.hears]
        return all(verdicts)

    def replies(self, search: Search, messages: Sequence[Message], site: Site) -> list[Datagram]:
        """Return the replies to a search."""
        for hooks in self._hooks:
            if hooks.replies:
                messages = list(hooks.replies(search, messages, site))
        datagrams: Sequence[Datagram] = [message.datagram() for message in messages]
        for hooks in self._hooks:
            if hooks.datagrams:
                datagrams = list(hooks.datagrams(search, datagrams, site))
        return list(datagrams)

    def notices(self, messages: Sequence[Message]) -> list[Message]:
        """Return the notifications to send."""
        for hooks in self._hooks:
            if hooks.notices:
                messages = list(hooks.notices(messages))
        return list(messages)

    def device(self, device: Device, site: Site) -> Device:
        """Return the device tree of the gateway."""
        for hooks in self._hooks:
            if hooks.device:
                device = hooks.device(device, site)
        return device

    def description(self, text: str, site: Site) -> bytes:
        """Return the bytes of the description."""
        for hooks in self._hooks:
            if hooks.description:
                text = hooks.description(text, site)
        document = text.encode()
        for hooks in self._hooks:
            if hooks.encoded:
                document = hooks.encoded(document)
        return document

    def service(self, text: str) -> bytes:
        """Return the bytes of a service document."""
        for hooks in self._hooks:
            if hooks.service:
                text = hooks.service(text)
        return text.encode()

    def admit(self, others: int) -> Admission:
        """Return how a new connection is treated beside ``others``: the first hook that does not serve it decides."""
        verdicts = [hooks.admit(others) for hooks in self._hooks if hooks.admit]
        return next((verdict for verdict in verdicts if verdict is not Admission.SERVE), Admission.SERVE)

    def intercept(self, exchange: Exchange) -> Response | Transmission | None:
        """Return the first response of a hook, None if no hook intercepts the request."""
        answers = (hooks.intercept(exchange) for hooks in self._hooks if hooks.intercept)
        return next((answer for answer in answers if answer is not None), None)

    def action(self, call: ActionCall, proceed: Proceed) -> Outputs:
        """Perform an action through the hooks of all quirks."""
        for hooks in reversed(self._hooks):
            if hooks.action:
                proceed = _around(hooks.action, proceed)
        return proceed(call)

    def envelope(self, exchange: Exchange, text: str) -> bytes:
        """Return the bytes of a SOAP reply."""
        for hooks in self._hooks:
            if hooks.envelope:
                text = hooks.envelope(exchange, text)
        return text.encode()

    def transmission(self, exchange: Exchange, response: Response) -> Transmission:
        """Return the bytes, pauses and end of the reply to an HTTP request."""
        for hooks in self._hooks:
            if hooks.response:
                response = hooks.response(exchange, response)
        transmission = response.transmission()
        for hooks in self._hooks:
            if hooks.transmission:
                transmission = hooks.transmission(exchange, transmission)
        return transmission

    def pcp_rules(self, rules: PcpRules) -> PcpRules:
        """Return the rules of the gateway for PCP and NAT-PMP."""
        for hooks in self._hooks:
            if hooks.pcp_rules:
                rules = hooks.pcp_rules(rules)
        return rules

    def pcp_hears(self, query: PcpQuery) -> bool:
        """Return whether a datagram reaches the gateway. All hooks are called, because some count the datagrams."""
        verdicts = [hooks.pcp_hears(query) for hooks in self._hooks if hooks.pcp_hears]
        return all(verdicts)

    def pcp_action(self, query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
        """Perform a request of PCP or NAT-PMP through the hooks of all quirks."""
        for hooks in reversed(self._hooks):
            if hooks.pcp_action:
                proceed = _around(hooks.pcp_action, proceed)
        return proceed(query)

    def pcp_datagrams(self, query: PcpQuery, datagrams: Sequence[PcpDatagram]) -> list[PcpDatagram]:
        """Return the datagrams that are sent back."""
        for hooks in self._hooks:
            if hooks.pcp_datagrams:
                datagrams = list(hooks.pcp_datagrams(query, datagrams))
        return list(datagrams)

    def pcp_notices(self, datagrams: Sequence[PcpDatagram]) -> list[PcpDatagram]:
        """Return the announcements to send."""
        for hooks in self._hooks:
            if hooks.pcp_notices:
                datagrams = list(hooks.pcp_notices(datagrams))
        return list(datagrams)


def _around(hook: Callable[[_A, Callable[[_A], _T]], _T], proceed: Callable[[_A], _T]) -> Callable[[_A], _T]:
    return lambda asked: hook(asked, proceed)
