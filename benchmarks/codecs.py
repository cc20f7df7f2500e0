"""The pure steps of a mapping, each as a call without arguments: what documents cost to write and to read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Final

from aioigd.arguments import check_request
from aioigd.upnp.wire import soap, ssdp, xml
from aioigd.upnp.wire.description import parse_description
from aioigd.upnp.wire.url import parse_url
from aioigd.upnp.wire.wan_ip_connection import add_port_mapping

from .gateway_server import DESCRIPTION, DEVICE, SERVICE, Gateway

_REPLY: Final = Gateway().reply("AddPortMapping").partition(b"\r\n\r\n")[2]
_FAULT: Final = (
    b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>'
    b"<faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
    b'<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>718</errorCode>'
    b"<errorDescription>ConflictInMappingEntry</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>"
)
_DATAGRAM: Final = (
    f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {DEVICE}\r\nUSN: uuid:1::{DEVICE}\r\nEXT:\r\n"
    "SERVER: benchmark/1 UPnP/1.1 benchmark/1\r\nLOCATION: http://192.0.2.1:5000/rootDesc.xml\r\n\r\n"
).encode()
_NEW_REPLY: Final = _REPLY + b" " * 4096
_NEW_FAULT: Final = _FAULT + b" " * 4096
"""Blanks that mean nothing make them longer than what is remembered."""
_URL: Final = parse_url("http://192.0.2.1:5000/rootDesc.xml")
_PORTS: Final = itertools.cycle(range(1, 65_536))
_REQUEST: Final = check_request(8080, 0, "benchmark", "TCP", 0, None, "")
_ACTION: Final = add_port_mapping(_REQUEST, "192.0.2.2", _REQUEST.terms)

STEPS: Final[Mapping[str, tuple[Callable[[], object], str]]] = {
    "check the arguments": (lambda: check_request(next(_PORTS), 0, "benchmark", "TCP", 0, None, ""), "benchmark"),
    "choose the arguments of the action": (lambda: add_port_mapping(_REQUEST, "192.0.2.2", _REQUEST.terms), "AddPort"),
    "write the request": (lambda: soap.build_request(SERVICE, _ACTION.name, _ACTION.arguments), "<u:AddPortMapping"),
    "see that the reply is whole": (lambda: xml.has_root_end_tag(_REPLY), "True"),
    "read a reply like the last one": (lambda: soap.parse_reply(_REPLY, "AddPortMapping"), "Answer"),
    "read a new reply": (lambda: soap.parse_reply(_NEW_REPLY, "AddPortMapping"), "Answer"),
    "read a new fault": (lambda: soap.parse_reply(_NEW_FAULT, "AddPortMapping"), "718"),
    "read a description": (lambda: parse_description(DESCRIPTION, _URL), "/ctl/IPConn"),
    "write a search": (lambda: ssdp.build_search(DEVICE, ssdp.MULTICAST_V4), "M-SEARCH"),
    "read a search reply": (lambda: ssdp.parse_datagram(_DATAGRAM), str(_URL)),
}
"""For each step its call, and what its result shows."""
