"""What a device or a caller says never becomes part of a request that it should not be part of.

Looked at are the raw bytes that a gateway received.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import replace

import pytest

from aioigd import IGDError, PortMapper, UPnPResult
from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.testing.device_tree import Service
from aioigd.upnp.wire.xml import escape

from ..support import odd
from .attacks import victim

INJECTIONS = ["\r\nX-Injected: yes", "\nX-Injected: yes", '"\r\n\r\nGET /x HTTP/1.1', "\x00", "\x85X-Injected: yes"]
MARKUP = ["</u:AddPortMapping><u:Evil/>", '" xmlns:x="', "<!-- ", "]]>", "&evil;", "'><evil a='"]
HEAD = re.compile(
    rb"POST /ctl/WANIPConn1 HTTP/1\.1\r\n"
    rb"Host: [\d.]+:\d+\r\n"
    rb"Accept-Encoding: identity\r\n"
    rb'Content-Type: text/xml; charset="utf-8"\r\n'
    rb'SOAPAction: "urn:schemas-upnp-org:service:WANIPConnection:1#\w+"\r\n'
    rb"Content-Length: \d+\r\n"
    rb"Connection: close"
)


def typed(service_type: str) -> Quirk[[]]:
    """A gateway whose WAN connection has another type."""

    def change(service: Service) -> Service:
        return replace(service, service_type=service_type) if service.is_wan_connection else service

    return odd(device=lambda device, site: device.with_each_service(change))


def is_clean(gateway: EmulatedGateway) -> bool:
    everything = b"".join(each.raw for each in gateway.requests)
    return b"njected" not in everything and b"vil" not in everything and b"\0" not in everything


@pytest.mark.waits
async def test_a_service_type_with_more_in_it_is_none() -> None:
    """All at once, as each of them takes the whole time of a search."""

    async def refused(text: str) -> None:
        quirk = typed(f"urn:schemas-upnp-org:service:WANIPConnection:1{text}")
        async with EmulatedGateway(quirk, address=None) as gateway, victim(gateway) as mapper:
            with pytest.raises(IGDError) as caught:
                await mapper.add_port_mapping(8080)
            assert caught.value.result is UPnPResult.NO_GATEWAY, text
            assert is_clean(gateway), text

    await asyncio.gather(*(refused(text) for text in (*INJECTIONS, *MARKUP) if text != "\0"))


@pytest.mark.parametrize("text", INJECTIONS, ids=repr)
async def test_a_control_url_cannot_end_its_line(text: str) -> None:
    control = f"/ctl/WANIPConn1{escape(text)}"
    quirk = odd(description=lambda document, site: document.replace("/ctl/WANIPConn1", control))
    async with EmulatedGateway(quirk, address=None) as gateway, victim(gateway) as mapper:
        with suppress(IGDError):
            await mapper.add_port_mapping(8080)
        lines = [line for each in gateway.requests for line in each.raw.splitlines()]
        assert not any(line.startswith(b"X-Injected") for line in lines)
        assert sum(line.startswith(b"GET") for line in lines) <= 2


@pytest.mark.waits
async def test_a_location_cannot_end_its_line() -> None:
    async def refused(text: str) -> None:
        async with EmulatedGateway(quirks.foreign_location(f"http://192.0.2.1/x.xml{text}"), address=None) as gateway:
            async with victim(gateway) as mapper:
                with pytest.raises(IGDError):
                    await mapper.get_gateway()
            assert is_clean(gateway), text

    await asyncio.gather(*(refused(text) for text in INJECTIONS[:4]))


@pytest.mark.parametrize("text", MARKUP, ids=repr)
async def test_a_description_with_markup_arrives_as_text(text: str) -> None:
    async with EmulatedGateway(address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        await mapper.add_port_mapping(8080, desc=text)
        assert [mapping.desc for mapping in gateway.mappings] == [text]
        assert gateway.problems == []


@pytest.mark.parametrize("text", INJECTIONS, ids=repr)
async def test_a_description_with_control_characters_is_refused_before_anything_is_sent(text: str) -> None:
    async with EmulatedGateway(address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        with pytest.raises(ValueError, match="control characters"):
            await mapper.add_port_mapping(8080, desc=text)
        assert gateway.requests == []


@pytest.mark.parametrize("text", [*INJECTIONS, *MARKUP], ids=repr)
@pytest.mark.parametrize("argument", ["internal_client", "remote_host", "proto"])
async def test_no_other_argument_takes_text_at_all(argument: str, text: str) -> None:
    async with PortMapper() as mapper:
        for value in (text, f"192.0.2.7{text}"):
            with pytest.raises(ValueError, match=argument):
                await mapper.add_port_mapping(8080, **{argument: value})  # type: ignore[arg-type]


async def test_a_filter_of_devices_is_not_sent() -> None:
    async with EmulatedGateway(address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        await mapper.discover(0.2, device_filter="\r\nX-Injected: yes")
        assert is_clean(gateway)


async def test_a_request_has_these_headers_and_no_others() -> None:
    async with EmulatedGateway(address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        await mapper.add_port_mapping(8080)
        (request,) = [each for each in gateway.requests if each.kind == "POST"]
        assert HEAD.fullmatch(request.raw.partition(b"\r\n\r\n")[0])


async def test_what_a_device_says_of_itself_is_shown_without_control_characters() -> None:
    escape_code = "\x1b]0;owned\x07\x9b31m"
    quirk = odd(encoded=lambda document: document.replace(b"Emulated gateway", escape_code.encode()))
    async with EmulatedGateway(quirk, address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        device = (await mapper.get_gateway()).device
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", device.friendly_name)
