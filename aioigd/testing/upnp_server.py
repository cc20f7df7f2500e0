"""The UPnP server of a gateway from one start to the next: its documents, routes and replies.

No I/O: it turns a search or an HTTP request into datagrams or a transmission, through the hooks of the quirks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from email.utils import formatdate
from typing import Final

from . import soap
from .device_tree import Device, Service, Site, describe_device, describe_service
from .errors import BareError, UPnPError
from .eventing import Eventing
from .hooks import Exchange, Pipeline
from .http import End, HttpRequest, Response, Transmission
from .request_log import NO_ARGUMENTS, Request
from .service_specs import SERVICES, check_arguments
from .ssdp import SERVER, Datagram, Identity, Message, Search, announcements, search_replies
from .wan_connection import ActionCall, Outputs, WanConnection

__all__ = ["Frontend"]

_XML: Final = 'text/xml; charset="utf-8"'


class Frontend:
    """The UPnP server of a gateway at one address and port.

    ``connections`` are its WAN connections by their names in the device tree, ``others`` the functions for the actions
    of other services by the name of the service, ``record`` is called with every request, ``now`` returns seconds.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        device: Device,
        site: Site,
        identity: Identity,
        connections: Mapping[str, WanConnection],
        others: Mapping[str, Callable[[ActionCall], Outputs]],
        record: Callable[[Request], None],
        now: Callable[[], float],
        eventing: Eventing,
    ) -> None:
        self.device = pipeline.device(device, site)
        self._pipeline = pipeline
        self._site = site
        self._identity = identity
        self._connections = connections
        self._others = others
        self._record = record
        self._now = now
        self._eventing = eventing
        self._description = pipeline.description(describe_device(self.device, site, identity.config_id), site)
        self._controls: dict[str, Service] = {}
        self._documents: dict[str, Service] = {}
        self._events: dict[str, Service] = {}
        for service in self.device.all_services():
            self._controls.setdefault(site.target(service.control_url), service)
            self._documents.setdefault(site.target(service.scpd_url), service)
            self._events.setdefault(site.target(service.event_url), service)

    def announcements(self, kind: str) -> list[Message]:
        """Return the notifications of the device: ``ssdp:alive`` or ``ssdp:byebye``."""
        return self._pipeline.notices(list(announcements(kind, self.device, self._site, self._identity)))

    def hear(self, search: Search) -> Callable[[], list[Datagram]]:
        """Record a search, and return a function that returns the replies."""
        self._record(
            Request(
                kind="M-SEARCH",
                target=search.target,
                action="",
                arguments=NO_ARGUMENTS,
                sender=(search.sender[0], search.sender[1]),
                raw=search.raw,
                time=self._now(),
                problem=search.problem,
            )
        )
        return lambda: self._reply(search)

    def _reply(self, search: Search) -> list[Datagram]:
        if search.problem or not self._pipeline.hears(search):
            return []
        messages = list(search_replies(search, self.device, self._site, self._identity))
        return self._pipeline.replies(search, messages, self._site)

    def receive(self, request: HttpRequest) -> Callable[[], Transmission]:
        """Record an HTTP request, and return a function that processes it and returns the reply."""
        exchange, problem = self._understand(request)
        self._record(
            Request(
                kind=request.method,
                target=request.target,
                action=exchange.action,
                arguments=exchange.arguments,
                sender=request.sender,
                raw=request.raw,
                time=self._now(),
                problem=problem,
                connection=request.connection,
            )
        )
        return lambda: self._respond(exchange)

    def _respond(self, exchange: Exchange) -> Transmission:
        response = self._pipeline.intercept(exchange)
        if isinstance(response, Transmission):
            return response
        if response is None:
            exchange, response = self._answer(exchange)
        return self._pipeline.transmission(exchange, response)

    def _understand(self, request: HttpRequest) -> tuple[Exchange, str]:
        """Return the parsed request, and how it violates the standards."""
        if request.refusal:
            return Exchange(request, "other", refusal=request.refusal), request.problem
        if request.method == "POST" and request.target in self._controls:
            return self._understand_action(request, self._controls[request.target])
        if request.method in ("SUBSCRIBE", "UNSUBSCRIBE") and request.target in self._events:
            return Exchange(request, "event"), self._eventing.problem(request)
        known = {"/rootDesc.xml", *self._documents, *self._pipeline.pages}
        if request.target not in known:
            return Exchange(request, "other", refusal=404), "nothing is served there"
        if request.method != "GET":
            return Exchange(request, "other", refusal=405), f"{request.method} is not for this"
        if request.target == "/rootDesc.xml":
            return Exchange(request, "description"), ""
        return Exchange(request, "scpd" if request.target in self._documents else "other"), ""

    def _understand_action(self, request: HttpRequest, service: Service) -> tuple[Exchange, str]:
        exchange = Exchange(request, "control")
        named = soap.parse_soap_action(request.header("SOAPAction") or "")
        try:
            service_type, action, sent = soap.parse_call(request.body)
        except ValueError as error:
            return replace(exchange, action=named[1] if named else "", refusal=400), str(error)
        exchange = replace(exchange, action=action, arguments=dict(sent))
        if not (request.header("Content-Type") or "").lower().startswith("text/xml"):
            return replace(exchange, refusal=415), "the Content-Type is not text/xml"
        if named is None:
            return replace(exchange, refusal=412), 'SOAPAction is not "service type#action" in quotes'
        if named != (service_type, action):
            return replace(exchange, error=UPnPError(401)), "SOAPAction names another action than the body"
        if not service.answers_to(service_type):
            return replace(exchange, error=UPnPError(401)), f"this is a {service.service_type}"
        spec = SERVICES[service.name, service.version]
        if action not in spec.actions:
            return replace(exchange, error=UPnPError(401)), f"{spec.name}:{spec.version} has no such action"
        try:
            arguments = check_arguments(spec, spec.actions[action], sent)
        except UPnPError as error:
            return replace(exchange, error=error), f"arguments were refused: {error}"
        return replace(exchange, call=ActionCall(service_type, action, arguments, request.sender[0])), ""

    def _answer(self, exchange: Exchange) -> tuple[Exchange, Response]:
        request = exchange.request
        end = End.KEEP if request.keeps_alive and not request.refusal else End.CLOSE
        if exchange.refusal:
            return exchange, Response(exchange.refusal, _headers("text/plain"), end=end)
        if exchange.purpose == "control":
            try:
                exchange, body = self._act(exchange)
            except BareError as error:
                return exchange, Response(error.status, _headers("text/html"), end=end)
            return exchange, Response(500 if exchange.error else 200, _headers(), body, end=end)
        if exchange.purpose == "event":
            return exchange, replace(self._eventing.respond(request, self._events[request.target]), end=end)
        if exchange.purpose == "description":
            return exchange, Response(200, _headers(), self._description, end=end)
        if exchange.purpose == "scpd":
            service = self._documents[request.target]
            text = describe_service(SERVICES[service.name, service.version], self._identity.config_id)
            return exchange, Response(200, _headers(), self._pipeline.service(text), end=end)
        return exchange, replace(self._pipeline.pages[request.target](self._site), end=end)

    def _act(self, exchange: Exchange) -> tuple[Exchange, bytes]:
        call = exchange.call
        try:
            if exchange.error is not None or call is None:
                raise exchange.error or UPnPError(401)
            outputs = self._pipeline.action(call, self._invoke(self._controls[exchange.request.target]))
        except UPnPError as error:
            exchange = replace(exchange, error=error)
            return exchange, self._pipeline.envelope(exchange, soap.build_fault(error))
        text = soap.build_answer(call.service_type, call.action, outputs)
        return exchange, self._pipeline.envelope(exchange, text)

    def _invoke(self, service: Service) -> Callable[[ActionCall], Outputs]:
        if service.is_wan_connection:
            return self._connections[service.connection].invoke
        return self._others.get(service.name) or (lambda call: _simple_action(call, self.device))


def _simple_action(call: ActionCall, device: Device) -> Outputs:
    """Perform an action of Layer3Forwarding."""
    if call.action == "GetDefaultConnectionService":
        for part in device:
            for service in part.services:
                if service.is_wan_connection:
                    return {"NewDefaultConnectionService": f"{part.udn},{service.service_id}"}
        return {"NewDefaultConnectionService": ""}
    return {}


def _headers(content_type: str = _XML) -> tuple[tuple[str, str], ...]:
    return (
        ("Content-Type", content_type),
        ("Date", formatdate(usegmt=True)),
        ("Ext", ""),
        ("Server", SERVER),
    )
