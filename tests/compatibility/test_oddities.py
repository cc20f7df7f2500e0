"""Ways to be odd that nobody has reported yet, and that the same general rules serve.

They are not in the catalogue, which is for what routers have been seen to do. Each is one line: what it does to the
head and body of an HTTP reply, to a SOAP envelope, to a datagram, or to the description.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from aioigd.testing import Quirk
from aioigd.testing.device_tree import Site
from aioigd.testing.hooks import Exchange
from aioigd.testing.http import End, Transmission
from aioigd.testing.ssdp import Datagram, Search

from ..support import odd
from .served import serve

Bytes = Callable[[bytes, bytes], bytes]


def framed(change: Bytes, end: End = End.CLOSE) -> Quirk[[]]:
    """Send what becomes of head and body, and end like this."""

    def transmission(exchange: Exchange, sent: Transmission) -> Transmission:
        head, _, body = b"".join(step for step in sent.steps if isinstance(step, bytes)).partition(b"\r\n\r\n")
        return Transmission((change(head, body),), end)

    return odd(transmission=transmission)


def without_length(head: bytes) -> bytes:
    return b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length"))


def in_chunks(shape: bytes = b"%x\r\n%s\r\n", last: bytes = b"0\r\n\r\n", declared: bool = True) -> Bytes:
    def change(head: bytes, body: bytes) -> bytes:
        chunks = b"".join(shape % (len(part), part) for part in (body[at : at + 90] for at in range(0, len(body), 90)))
        header = b"\r\nTransfer-Encoding: chunked" if declared else b""
        return without_length(head) + header + b"\r\n\r\n" + chunks + last

    return change


def length(value: bytes) -> Bytes:
    return lambda head, body: without_length(head) + b"\r\nContent-Length: " + value + b"\r\n\r\n" + body


def header(line: bytes) -> Bytes:
    return lambda head, body: head + b"\r\n" + line + b"\r\n\r\n" + body


def status_line(line: bytes) -> Bytes:
    return lambda head, body: re.sub(rb"^HTTP/1.1 200 OK", line, head) + b"\r\n\r\n" + body


HTTP: Final = {
    "HTTP/1.0 without a reason": framed(status_line(b"HTTP/1.0 200")),
    "lower-case HTTP": framed(status_line(b"http/1.1 200 ok")),
    "no space before the reason": framed(status_line(b"HTTP/1.1 200OK")),
    "two spaces before the status": framed(status_line(b"HTTP/1.1  200 OK")),
    "no version": framed(status_line(b"HTTP 200 OK")),
    "another protocol": framed(status_line(b"ICY 200 OK")),
    "no number": framed(status_line(b"HTTP/1.1 OK")),
    "status 0": framed(status_line(b"HTTP/1.1 000 OK")),
    "status 304": framed(status_line(b"HTTP/1.1 304 Not Modified")),
    "no head at all": framed(lambda head, body: body),
    "blank lines before the head": framed(lambda head, body: b"\r\n\r\n" + head + b"\r\n\r\n" + body),
    "a line that goes on in the next": framed(header(b"X-A: b\r\n  folded\r\n\tmore")),
    "a line without a colon": framed(header(b"this is no header")),
    "a blank in a name": framed(header(b"My Header: x")),
    "a blank before the colon": framed(header(b"X-A : b")),
    "a NUL in a value": framed(header(b"X-A: b\0c")),
    "a long header": framed(header(b"X-A: " + b"b" * 12_000)),
    "300 headers": framed(header(b"\r\n".join(b"X-%d: y" % number for number in range(300)))),
    "two interim replies": framed(lambda head, body: b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + head + b"\r\n\r\n" + body),
    "chunks with extensions": framed(in_chunks(b'%x;a=b;"c d"\r\n%s\r\n')),
    "chunks with upper-case sizes": framed(in_chunks(b"%X\r\n%s\r\n")),
    "chunks with zeros before their sizes": framed(in_chunks(b"000%x\r\n%s\r\n", b"00000\r\n\r\n")),
    "chunks with blanks around their sizes": framed(in_chunks(b"  %x  \r\n%s\r\n")),
    "chunks with LF": framed(in_chunks(b"%x\n%s\n", b"0\n\n")),
    "chunks with trailers": framed(in_chunks(last=b"0\r\nX-T: y\r\n\r\n")),
    "chunks without the last": framed(in_chunks(last=b"")),
    "chunks without the last or an end": framed(in_chunks(last=b""), End.HANG),
    "chunks nobody speaks of": framed(in_chunks(declared=False)),
    "chunks that are none": framed(lambda head, body: head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + body),
    "identity as an encoding": framed(header(b"Transfer-Encoding: identity")),
    "length 0": framed(length(b"0")),
    "a negative length": framed(length(b"-1")),
    "a length in words": framed(length(b"unknown")),
    "an empty length": framed(length(b"")),
    "a hexadecimal length": framed(length(b"0x100")),
    "a gigantic length": framed(length(b"99999999999999999999")),
    "a gigantic length and no end": framed(length(b"4294967295"), End.HANG),
    "two lengths": framed(length(b"100\r\nContent-Length: 200")),
    "another reply behind": framed(lambda head, body: head + b"\r\n\r\n" + body + b"HTTP/1.1 400 Bad\r\n\r\nx"),
}


def soap(change: Callable[[str, str], str]) -> Quirk[[]]:
    """Send what becomes of an envelope; the other argument is the action."""
    return odd(envelope=lambda exchange, text: change(text, exchange.action))


_SOAP_1_2: Final = "www.w3.org/2003/05/soap-envelope"

SOAP: Final = {
    "the action for its response": soap(lambda text, action: text.replace(f"u:{action}Response", f"u:{action}")),
    "a response by another name": soap(lambda text, action: text.replace(f"u:{action}Response", "u:Response")),
    "no response around the values": soap(lambda text, action: re.sub(r"</?u:\w+[^>]*>", "", text)),
    "a response in capitals": soap(lambda text, action: text.replace(f"{action}Response", f"{action}RESPONSE".upper())),
    "SOAP 1.2": soap(lambda text, _: text.replace("schemas.xmlsoap.org/soap/envelope/", _SOAP_1_2)),
    "no envelope": soap(lambda text, _: re.sub(r"</?s:(Envelope|Body)[^>]*>", "", text)),
    "an envelope without its end": soap(lambda text, _: text.replace("</s:Body></s:Envelope>", "")),
    "end tags that do not match": soap(lambda text, _: text.replace("</s:Body>", "</s:body>")),
    "prefixes nobody declared": soap(lambda text, _: re.sub(r' xmlns:\w="[^"]*"', "", text)),
    "a page around it": soap(lambda text, _: f"<html><body>{text}</body></html>"),
}


def said(change: Callable[[bytes, Site], bytes]) -> Quirk[[]]:
    """Send what becomes of the datagrams."""

    def datagrams(search: Search, sent: list[Datagram], site: Site) -> list[Datagram]:
        return [Datagram(change(each.payload, site), each.delay) for each in sent]

    return odd(datagrams=datagrams)


def located(pattern: str) -> Quirk[[]]:
    """Say that the description is here; ``{0}`` is the address and port, ``{1}`` the port."""

    def change(payload: bytes, site: Site) -> bytes:
        where = pattern.format(f"{site.address}:{site.port}", site.port)
        return re.sub(rb"LOCATION: [^\r]*", lambda _: b"LOCATION: " + where.encode(), payload)

    return said(change)


SSDP: Final = {
    "nothing but the location": said(lambda _, site: f"HTTP/1.1 200 OK\r\nLOCATION:{site.location}\r\n\r\n".encode()),
    "no blank line": said(lambda payload, _: payload.rstrip()),
    "a folded location": said(lambda payload, _: payload.replace(b"LOCATION: ", b"LOCATION:\r\n ")),
    "no reason": said(lambda payload, _: payload.replace(b"200 OK", b"200")),
    "an upper-case scheme": located("HTTP://{0}/rootDesc.xml"),
    "angle brackets": located("<http://{0}/rootDesc.xml>"),
    "quotes": located('"http://{0}/rootDesc.xml"'),
    "no scheme": located("{0}/rootDesc.xml"),
    "no host": located("http://:{1}/rootDesc.xml"),
    "a host name": located("http://router.lan:{1}/rootDesc.xml"),
    "a host name that is none": located("http://my_router:{1}/rootDesc.xml"),
    "backslashes": located("http:\\\\{0}\\rootDesc.xml"),
    "blanks behind": located("http://{0}/rootDesc.xml \t "),
    "a fragment": located("http://{0}/rootDesc.xml#top"),
}


def described(change: Callable[[str], str]) -> Quirk[[]]:
    """Serve what becomes of the description."""
    return odd(description=lambda text, site: change(text))


def typed(change: Callable[[str], str]) -> Quirk[[]]:
    """Have another type of connection, in the description and to requests."""
    return odd(
        device=lambda device, site: device.with_each_service(
            lambda each: replace(each, service_type=change(each.service_type)) if each.is_wan_connection else each
        )
    )


_EMPTY_CONNECTION: Final = (
    "<serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>"
    "<controlURL></controlURL></service>"
)

DESCRIPTION: Final = {
    "version 0": typed(lambda name: name[:-1] + "0"),
    "version 3": typed(lambda name: name[:-1] + "3"),
    "version 1.0": typed(lambda name: f"{name}.0"),
    "no version": typed(lambda name: name[:-2]),
    "a type in capitals": typed(str.upper),
    "a connection that cannot be controlled first": described(
        lambda text: text.replace("<serviceList>", _EMPTY_CONNECTION)
    ),
    "backslashes in URLs": described(lambda text: text.replace(">/ctl/WANIP", ">\\ctl\\WANIP")),
    "two slashes before a path": described(lambda text: text.replace(">/ctl/WANIP", ">//ctl/WANIP")),
    "no lists": described(lambda text: re.sub(r"</?(service|device)List>", "", text)),
    "a name without its end": described(lambda text: text.replace("</friendlyName>", "", 1)),
    "attributes without quotes": described(lambda text: text.replace("<service>", "<service a=b c>")),
    "a script": described(lambda text: text.replace("<UDN>", "<script>if (a<b && c>d) {}</script><UDN>", 1)),
    "entities of HTML": described(lambda text: text.replace("Emulated", "Emulated&nbsp;&copy;")),
    "XML 1.1": described(lambda text: text.replace('version="1.0"', 'version="1.1"')),
}

ODDITIES: Final = {**HTTP, **SOAP, **SSDP, **DESCRIPTION}


@pytest.mark.parametrize("name", ODDITIES)
async def test_it_is_served(name: str) -> None:
    served = await serve(ODDITIES[name])
    assert served.problem == ""
    assert served.posts <= 4
