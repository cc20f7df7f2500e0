"""The parsers of all that devices send, each with the worst that fits into its cap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from aioigd.upnp.net.lenient_http import MAX_LOOKS
from aioigd.upnp.wire import gena, soap, ssdp, xml
from aioigd.upnp.wire.description import parse_description
from aioigd.upnp.wire.http_reply import MAX_REPLY, FramedReply, ReplyReader, dechunked, parse_http_reply
from aioigd.upnp.wire.url import parse_url
from aioigd.upnp.wire.wan_ip_connection import read_external_address, read_port_listing

from ..upnp.wire.hostile import FAMILIES

__all__ = ["PARSERS", "WORST", "read_in_pieces"]

_URL: Final = parse_url("http://192.0.2.1:5000/rootDesc.xml")


def read_in_pieces(received: bytes, size: int = 64) -> None:
    """Read a reply as the lenient reader does where it comes in small pieces."""
    reader = ReplyReader()
    for number, start in enumerate(range(0, len(received), size)):
        reader.feed(received[start : start + size])
        if number < MAX_LOOKS:
            xml.has_root_end_tag(reader.body)
    reader.finish()


def read_framed(received: bytes, size: int = 64) -> None:
    """Read a reply on a connection that may be kept, in small pieces."""
    frame = FramedReply()
    for start in range(0, len(received), size):
        frame.feed(received[start : start + size])


def _read_list(document: bytes) -> None:
    read_port_listing({"newportlisting": document.decode("utf-8", "replace")})


def _read_event(document: bytes) -> None:
    gena.parse_event(document[: gena.MAX_BODY])


def _read_address(text: bytes) -> None:
    read_external_address({"newexternalipaddress": text.decode("latin-1")})


PARSERS: Final[Mapping[str, Callable[[bytes], object]]] = MappingProxyType(
    {
        "description": partial(parse_description, url=_URL),
        "reply to an action": partial(soap.parse_reply, action="AddPortMapping"),
        "reply to a question": partial(soap.parse_reply, action="GetExternalIPAddress"),
        "list of mappings": _read_list,
        "event": _read_event,
        "end of a document": xml.has_root_end_tag,
        "HTTP reply": parse_http_reply,
        "HTTP reply in pieces": read_in_pieces,
        "framed HTTP reply in pieces": read_framed,
        "chunks": dechunked,
        "head of an event message": gena.parse_head,
        "datagram": ssdp.parse_datagram,
        "external address": _read_address,
    }
)
"""What takes bytes of a device; each returns something or raises an IGDError."""

_OK: Final = b"HTTP/1.1 200 OK\r\n"
_CHUNKED: Final = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_NOTIFY: Final = b"NOTIFY /x HTTP/1.1\r\n"
_ROW: Final = (
    "<PortMappingEntry><NewRemoteHost/><NewExternalPort>%d</NewExternalPort><NewProtocol>TCP</NewProtocol>"
    "<NewInternalPort>1</NewInternalPort><NewInternalClient>192.0.2.2</NewInternalClient><NewEnabled>1</NewEnabled>"
    "<NewDescription>x</NewDescription><NewLeaseTime>0</NewLeaseTime></PortMappingEntry>"
)
_BAD_ROWS: Final = {
    "rows": _ROW,
    "rows without a protocol": _ROW.replace("TCP", "X"),
    "rows with little in them": "<PortMappingEntry><NewProtocol>TCP</NewProtocol></PortMappingEntry>",
    "rows with nothing in them": "<PortMappingEntry><a/></PortMappingEntry>",
    "empty rows": "<PortMappingEntry/>",
    "rows in rows": "<PortMappingEntry>",
}


def _fill(head: bytes, unit: bytes, size: int = MAX_REPLY, tail: bytes = b"") -> bytes:
    return head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail


def _rows(row: str) -> bytes:
    count = min((xml.MAX_DOCUMENT - 100) // (len(row) + 2), (xml.MAX_MARKUP - 10) // row.count("<"))
    rows = "".join(row.replace("%d", str(number)) for number in range(count))
    return f"<p:PortMappingList>{rows}</p:PortMappingList>".encode()


def _in_a_reply(list_of_rows: bytes) -> bytes:
    value = b"<![CDATA[%s]]>" % list_of_rows[: xml.MAX_DOCUMENT - 200]
    return b"<s:Body><u:GetListResponse><NewPortListing>%s</NewPortListing></u:GetListResponse></s:Body>" % value


def _services(reference: bytes, base: bytes = b"http://192.0.2.1/a/b") -> bytes:
    service = (
        b"<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>"
        b"<controlURL>%s</controlURL><eventSubURL>%s</eventSubURL></service>" % (reference, reference)
    )
    return b"<root><URLBase>%s</URLBase>%s</root>" % (base, service * 64)


_LONG: Final = xml.MAX_DOCUMENT - 40_000
"""Bytes that are left beside 64 services."""
_REPLIES: Final = {
    "interim replies": _fill(b"", b"HTTP/1.1 100\r\n\r\n"),
    "header lines": _fill(_OK, b"a:b\r\n"),
    "lines that are no headers": _fill(_OK, b"a\r\n"),
    "folded lines": _fill(_OK + b"a: b\r\n", b" x\r\n"),
    "blanks in a header": _fill(_OK + b"a:", b" "),
    "blanks before all": _fill(b"", b" "),
    "carriage returns": _fill(_OK + b"a:", b"\r"),
    "encodings of nothing": _fill(_OK, b"content-encoding:  \t identity\r\n"),
    "small chunks": _fill(_CHUNKED, b"1\r\nx\r\n"),
    "as many chunks as are read": _fill(_CHUNKED, b"20\r\n" + b"x" * 32 + b"\r\n"),
    "extensions of chunks": _fill(_CHUNKED, b"1;" + b"a" * 100 + b"\r\nx\r\n"),
    "one long extension": _fill(_CHUNKED + b"1;", b"a"),
    "blanks behind a size": _fill(_CHUNKED + b"1", b" "),
    "blanks before a size": _fill(_CHUNKED, b" "),
    "digits of a size": _fill(_CHUNKED, b"1"),
    "a document": _fill(_OK + b"\r\n<root>", b"<a>x</a>"),
    "a document in a hundred thousand pieces": _fill(_OK + b"\r\n<root>", b"<a>"),
}
_SERVICES: Final = {
    "a URLBase that is a host of many names": _services(b"c", b"a." * (_LONG // 2)),
    "a URLBase that is one word": _services(b"c", b"a" * _LONG),
    "URLs of letters beyond ASCII": _services(b"/" + "ü".encode() * 250),
    "URLs to be quoted here and there": _services(b"x" + b"{a" * 80),
    "URLs that go up": _services(b"../" * 60 + b"x", b"http://192.0.2.1/" + b"a/" * 60),
    "URLs of many steps": _services(b"a/" * 250, b"http://192.0.2.1/" + b"a/" * 240),
    "URLs of backslashes": _services(b"\\" * 250),
    "URLs of per cent signs": _services(b"%25" * 160),
    "services with many children": b"<root>%s</root>" % (b"<service>" * 60 + b"<a/>" * 18_000),
}
_HEADS: Final = {"lines": b"a:b\r\n", "empty lines": b"\n", "blanks": b" "}
_DATAGRAMS: Final = {"lines": b"a:b\r\n", "folds": b"\r\n x", "blanks": b" ", "controls": b"\x01x", "quotes": b"<"}
_ADDRESSES: Final = {"dots": b"1.", "colons": b":", "zones": b"1%", "zeros": b"0"}


def _all() -> Iterator[tuple[str, str, bytes]]:
    for name, document in _REPLIES.items():
        yield "HTTP reply", name, document
        yield "HTTP reply in pieces", name, document
        yield "framed HTTP reply in pieces", name, document
        yield "chunks", name, document.partition(b"\r\n\r\n")[2]
    for name, document in _SERVICES.items():
        yield "description", name, document
    for name, row in _BAD_ROWS.items():
        yield "list of mappings", name, _rows(row)
        yield "reply to a question", name, _in_a_reply(_rows(row))
    for name, unit in _HEADS.items():
        yield "head of an event message", name, _fill(_NOTIFY, unit, 2 * gena.MAX_HEAD)
    for name, unit in _DATAGRAMS.items():
        yield "datagram", name, _fill(_OK + b"a: b", unit, ssdp.MAX_DATAGRAM)
    for name, unit in _ADDRESSES.items():
        yield "external address", name, _fill(b"", unit, xml.MAX_DOCUMENT)
    for name, family in FAMILIES.items():
        document = family(xml.MAX_DOCUMENT)
        for parser in ("description", "reply to an action", "reply to a question", "list of mappings"):
            yield parser, name, document
        yield "event", name, family(gena.MAX_BODY)


WORST: Final[Mapping[tuple[str, str], bytes]] = MappingProxyType(
    {(parser, name): document for parser, name, document in _all()}
)
"""What hurts a parser most, by the names of the parser and of the harm."""
