"""What single documents cost to write and to read: microbenchmarks of ``aioigd.upnp.wire``.

``pytest benchmarks/test_codecs.py`` measures; with ``--benchmark-disable`` each runs once, as a smoke test.
"""

from __future__ import annotations

from typing import Any

import pytest

from aioigd.arguments import check_request
from aioigd.upnp.wire import soap, ssdp, wan_ip_connection, xml
from aioigd.upnp.wire.description import parse_description
from aioigd.upnp.wire.url import parse_url

from .gateway_server import DESCRIPTION, DEVICE, SERVICE, Gateway, Settings

pytest.importorskip("pytest_benchmark")

REPLY = Gateway(Settings()).reply("AddPortMapping").partition(b"\r\n\r\n")[2]
FAULT = (
    b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>'
    b"<faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
    b'<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>718</errorCode>'
    b"<errorDescription>ConflictInMappingEntry</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>"
)
DATAGRAM = (
    f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {DEVICE}\r\nUSN: uuid:1::{DEVICE}\r\nEXT:\r\n"
    "SERVER: benchmark/1 UPnP/1.1 benchmark/1\r\nLOCATION: http://192.0.2.1:5000/rootDesc.xml\r\n\r\n"
).encode()
URL = parse_url("http://192.0.2.1:5000/rootDesc.xml")
REQUEST = check_request(8080, 0, "benchmark", "TCP", 3600, None, "")
ACTION = wan_ip_connection.add_port_mapping(REQUEST, "192.0.2.2", REQUEST.terms)


def test_check_request(benchmark: Any) -> None:
    """Check what a caller said."""
    assert benchmark(check_request, 8080, 0, "benchmark", "TCP", 3600, None, "") == REQUEST


def test_build_request(benchmark: Any) -> None:
    """Write a request."""
    assert b"AddPortMapping" in benchmark(soap.build_request, SERVICE, ACTION.name, ACTION.arguments)


def test_parse_reply_like_the_last_one(benchmark: Any) -> None:
    """Read a reply of the very bytes that were read before."""
    assert benchmark(soap.parse_reply, REPLY, "AddPortMapping") == soap.Answer({})


def test_parse_new_reply(benchmark: Any) -> None:
    """Read a reply for the first time."""
    # Over the size that is remembered, by blanks that mean nothing.
    assert benchmark(soap.parse_reply, REPLY + b" " * 4096, "AddPortMapping") == soap.Answer({})


def test_parse_new_fault(benchmark: Any) -> None:
    """Read a fault for the first time."""
    fault = soap.Fault(718, "ConflictInMappingEntry")
    assert benchmark(soap.parse_reply, FAULT + b" " * 4096, "AddPortMapping") == fault


def test_is_whole(benchmark: Any) -> None:
    """Look for the end of a reply."""
    assert benchmark(xml.has_root_end_tag, REPLY)


def test_parse_description(benchmark: Any) -> None:
    """Read a description."""
    assert benchmark(parse_description, DESCRIPTION, URL).wan_connections


def test_parse_datagram(benchmark: Any) -> None:
    """Read a search reply."""
    assert benchmark(ssdp.parse_datagram, DATAGRAM).location == str(URL)


def test_build_search(benchmark: Any) -> None:
    """Write a search."""
    assert benchmark(ssdp.build_search, DEVICE, ssdp.MULTICAST_V4).startswith(b"M-SEARCH")
