"""What the quirks of the description do to the document, and that the gateway works behind it."""

from __future__ import annotations

import re

import pytest

from aioigd.testing import EmulatedGateway
from aioigd.upnp.wire.description import Description, parse_description
from aioigd.upnp.wire.soap import Answer, Fault
from aioigd.upnp.wire.url import parse_url

from .client import IGD_1, WAN_IP_1, WAN_PPP_1, call, get, mapping, search, send, values
from .proofs import Proofs

proof = Proofs()


@pytest.mark.parametrize("name", proof)
async def test_quirk(name: str) -> None:
    await proof.check(name)


async def document(gateway: EmulatedGateway) -> bytes:
    reply = await send(gateway, get())
    assert reply.status == 200
    return reply.body


async def described(gateway: EmulatedGateway) -> Description:
    return parse_description(await document(gateway), parse_url(gateway.location))


async def control_references(gateway: EmulatedGateway) -> list[str]:
    return [service.control_reference for service in (await described(gateway)).wan_connections]


async def can_be_asked(gateway: EmulatedGateway, path: str, service_type: str = WAN_IP_1) -> bool:
    reply = await call(gateway, "GetExternalIPAddress", path=path, service_type=service_type)
    return isinstance(reply, Answer)


MARKS = {
    "blank_lines_first": rb"\A\s+<\?xml",
    "byte_order_mark": rb"\A\xef\xbb\xbf<\?xml",
    "cdata_values": rb"<controlURL><!\[CDATA\[/ctl/WANIPConn1\]\]></controlURL>",
    "comments_everywhere": rb"<service><!-- x --><\?y z\?>",
    "control_characters": rb"<friendlyName>[^<]*\x01",
    "empty_url_base": rb"<URLBase></URLBase>",
    "garbage_after_root": rb"</root>\s+0\s",
    "latin_1": rb'encoding="iso-8859-1"(?s:.*)Ger\xe4t',
    "latin_1_as_utf_8": rb'encoding="utf-8"(?s:.*)Ger\xe4t',
    "lower_case_tags": rb"<controlurl>/ctl/WANIPConn1</controlurl>",
    "no_declaration": rb"\A<root",
    "no_namespace": rb"<root configId",
    "padded_values": rb"<controlURL>\s+/ctl/WANIPConn1\s+</controlURL>",
    "raw_ampersand": rb"<friendlyName>Smith & Sons &c;",
    "trailing_nul": rb"</root>\n\0\0\Z",
    "unclosed_tags": rb"<serialNumber>1\s+<UDN>",
    "undeclared_prefix": rb"<igd:controlURL>",
    "unknown_encoding": rb'encoding="utf8mb4"',
    "url_base_without_port": rb"<URLBase>http://127\.[\d.]+</URLBase>",
    "utf_16": rb"\A\xff\xfe<\0\?\0",
    "utf_8_as_utf_16": rb'\A<\?xml version="1.0" encoding="utf-16"\?>',
    "wrong_namespace": rb'xmlns="urn:dslforum-org:device-1-0"',
    "wrong_url_base": rb"<URLBase>http://127\.66\.66\.66:80</URLBase>",
    "cut_off": rb"</service>\s*\Z",
}
"""What to find in a description that is badly written, as a regular expression."""


@pytest.mark.parametrize("name", MARKS)
async def test_the_writing_is_bad_and_the_connection_still_in_it(name: str) -> None:
    async with EmulatedGateway(name, address=None) as gateway:
        assert re.search(MARKS[name], await document(gateway))
        assert await control_references(gateway) == ["/ctl/WANIPConn1"]


@proof()
async def ppp_instead_of_ip(gateway: EmulatedGateway) -> None:
    assert [service.service_type for service in (await described(gateway)).wan_connections] == [WAN_PPP_1]
    assert await can_be_asked(gateway, "/ctl/WANPPPConn1", WAN_PPP_1)
    assert len(await search(gateway.address, WAN_PPP_1)) == 1


@proof()
async def ip_and_ppp(gateway: EmulatedGateway) -> None:
    names = [service.name for service in (await described(gateway)).wan_connections]
    assert names == ["wanpppconnection", "wanipconnection"]
    await call(gateway, "AddPortMapping", mapping(), path="/ctl/WANPPPConn1", service_type=WAN_PPP_1)
    assert gateway.mappings == [], "a mapping on the wrong connection is no mapping"
    assert (await values(gateway, "GetStatusInfo"))["newconnectionstatus"] == "Connected"


@proof()
async def several_connections(gateway: EmulatedGateway) -> None:
    states = []
    for path in await control_references(gateway):
        reply = await call(gateway, "GetStatusInfo", path=path)
        assert isinstance(reply, Answer)
        states.append(reply.values["newconnectionstatus"])
    assert states == ["Disconnected", "Disconnected", "Connected"]


@proof()
async def services_on_root(gateway: EmulatedGateway) -> None:
    assert b"<deviceList>" not in await document(gateway)
    assert await control_references(gateway) == ["/ctl/WANIPConn1"]


@proof()
async def no_common_config(gateway: EmulatedGateway) -> None:
    assert b"WANCommonInterfaceConfig" not in await document(gateway)
    assert await control_references(gateway) == ["/ctl/WANIPConn1"]


@proof()
async def access_point_mode(gateway: EmulatedGateway) -> None:
    found = await described(gateway)
    assert ":InternetGatewayDevice:" in found.device_type
    assert found.wan_connections == ()


@proof()
async def newer_device_than_service(gateway: EmulatedGateway) -> None:
    found = await described(gateway)
    assert found.device_type.endswith(":InternetGatewayDevice:2")
    assert [service.service_type for service in found.wan_connections] == [WAN_IP_1]
    assert len(await search(gateway.address, IGD_1)) == 1


@proof()
async def vendor_urns(gateway: EmulatedGateway) -> None:
    own = "urn:dslforum-org:service:WANIPConnection:1"
    assert [service.service_type for service in (await described(gateway)).wan_connections] == [own]
    assert await can_be_asked(gateway, "/ctl/WANIPConn1", own)
    assert not await can_be_asked(gateway, "/ctl/WANIPConn1", WAN_IP_1)


@proof()
async def absolute_urls(gateway: EmulatedGateway) -> None:
    assert await control_references(gateway) == [f"http://{gateway.address}:{gateway.port}/ctl/WANIPConn1"]
    assert await can_be_asked(gateway, "/ctl/WANIPConn1")


@proof()
async def absolute_urls_elsewhere(gateway: EmulatedGateway) -> None:
    assert await control_references(gateway) == [f"http://127.66.66.66:{gateway.port}/ctl/WANIPConn1"]
    assert await can_be_asked(gateway, "/ctl/WANIPConn1")


@proof()
async def absolute_urls_without_host(gateway: EmulatedGateway) -> None:
    assert await control_references(gateway) == [f"http://%s:{gateway.port}/ctl/WANIPConn1"]
    assert await can_be_asked(gateway, "/ctl/WANIPConn1")


@proof()
async def urls_without_slash(gateway: EmulatedGateway) -> None:
    assert await control_references(gateway) == ["ctl/WANIPConn1"]
    assert await can_be_asked(gateway, "/ctl/WANIPConn1")


@proof()
async def urls_with_query(gateway: EmulatedGateway) -> None:
    assert await control_references(gateway) == ["/upnp/control?service=WANIPConn1"]
    assert await can_be_asked(gateway, "/upnp/control?service=WANIPConn1")
    assert not await can_be_asked(gateway, "/upnp/control")


@proof()
async def long_description(gateway: EmulatedGateway) -> None:
    assert 60 * 1024 < len(await document(gateway)) < 80 * 1024
    assert await control_references(gateway) == ["/ctl/WANIPConn1"]


@proof()
async def scpd_missing(gateway: EmulatedGateway) -> None:
    assert (await send(gateway, get("/scpd/WANIPConn1.xml"))).status == 404


@proof()
async def scpd_broken(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, get("/scpd/WANIPConn1.xml"))
    assert reply.status == 200
    assert b"</scpd>" not in reply.body


@proof()
async def status_says_disconnected(gateway: EmulatedGateway) -> None:
    assert (await values(gateway, "GetStatusInfo"))["newconnectionstatus"] == "Disconnected"
    assert await values(gateway, "GetExternalIPAddress") == {"newexternalipaddress": "11.22.33.44"}


@proof()
async def status_missing(gateway: EmulatedGateway) -> None:
    assert await call(gateway, "GetStatusInfo") == Fault(401, "Invalid Action")
