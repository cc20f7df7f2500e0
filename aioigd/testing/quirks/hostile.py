"""Attacks: any host of a network can answer a search and pose as a router.

None of these gateways can be used. Tests check what they cost: time, memory, and requests to other hosts. ``where`` is
the document with the attack: the description, or the reply to an action.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal

from ..device_tree import Device, Service, Site
from ..hooks import Exchange, Hooks, quirk
from ..http import End, Response, Transmission
from ..ssdp import Datagram, Message, Search

__all__ = [
    "deep_tree",
    "doctype",
    "drips",
    "endless_body",
    "endless_head",
    "entity_bomb",
    "external_entity",
    "file_control_url",
    "file_location",
    "flood",
    "foreign_control_url",
    "foreign_location",
    "gzip_bomb",
    "header_injection",
    "impossible_external_address",
    "long_descriptions",
    "many_attributes",
    "million_elements",
    "redirects",
    "silent",
    "thousands_of_services",
    "utf_7",
]

Where = Literal["description", "control"]
CANARY = "http://127.66.66.66:8080"
"""A URL that must not be requested; a test that listens elsewhere passes another one."""

_READ_IT_ALL = "measured: async_upnp_client 0.49, upnpclient 2.0 and UPnPy 1.1 read gigabytes of it"


@quirk("hostile", reason="Who reads to the end runs out of memory.", source=_READ_IT_ALL, hopeless=True)
def endless_body(where: Where = "description") -> Hooks:
    """Sends a document without an end, as fast as it is read."""

    def steps() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n<?xml version='1.0'?><root>"
        yield from itertools.repeat(b"<device>" + b"x" * 65_536 + b"</device>")

    return _sends(where, lambda sent: Transmission(steps(), End.CLOSE))


@quirk("hostile", reason="The head has to have a limit too.", source="unnamed", hopeless=True)
def endless_head(where: Where = "description") -> Hooks:
    """Sends header lines without an end, as fast as they are read."""

    def steps() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n"
        yield from (b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in itertools.count())

    return _sends(where, lambda sent: Transmission(steps(), End.CLOSE))


@quirk(
    "hostile",
    reason="A time limit for each byte is none.",
    source="measured: most libraries wait over 60 s",
    hopeless=True,
)
def drips(where: Where = "description", pause: float = 1.0) -> Hooks:
    """Sends its reply byte by byte, with a pause (seconds) behind each."""

    def slowly(sent: Transmission) -> Transmission:
        def steps() -> Iterator[bytes | float]:
            for step in sent.steps:
                if not isinstance(step, bytes):
                    yield step
                    continue
                for byte in step:
                    yield bytes((byte,))
                    yield pause

        return Transmission(steps(), sent.end)

    return _sends(where, slowly)


@quirk(
    "hostile", reason="Silence has to end some time.", source="measured: most libraries wait over 60 s", hopeless=True
)
def silent(where: Where = "description") -> Hooks:
    """Accepts connections, and never answers."""
    return _sends(where, lambda sent: Transmission((), End.HANG))


@quirk("hostile", reason="A kilobyte on the wire is a megabyte in memory.", source=_READ_IT_ALL, hopeless=True)
def gzip_bomb(where: Where = "description", megabytes: int = 64) -> Hooks:
    """Sends a small compressed body that unpacks to very much."""
    bomb = _bomb(megabytes)

    def response(exchange: Exchange, response: Response) -> Response:
        if exchange.purpose != where:
            return response
        return replace(response.having("Content-Encoding", "gzip"), body=bomb)

    return Hooks(response=response)


@quirk("hostile", reason="Ten lines expand to gigabytes.", source="measured: UPnPy 1.1 expands them", hopeless=True)
def entity_bomb(where: Where = "description") -> Hooks:
    """Sends entities that are made of entities, many times over."""
    bombs = "".join(f'<!ENTITY {name} "{f"&{inner};" * 10}">' for name, inner in itertools.pairwise("abcdefghi"))
    return _document(where, f'<!DOCTYPE x [<!ENTITY i "iiiiiiiiii">{bombs}]>', "&a;")


@quirk("hostile", reason="A document must not make anybody read files.", source="XXE; measured", hopeless=True)
def external_entity(where: Where = "description", url: str = "file:///etc/passwd") -> Hooks:
    """Sends an entity that is a file of the reader's machine."""
    return _document(where, f'<!DOCTYPE x [<!ENTITY a SYSTEM "{url}">]>', "&a;")


@quirk(
    "hostile", reason="No document of UPnP has a DOCTYPE, so none needs to be read.", source="UDA 1.1", hopeless=True
)
def doctype(where: Where = "description", url: str = f"{CANARY}/x.dtd") -> Hooks:
    """Sends a document type declaration that names another place."""
    return _document(where, f'<!DOCTYPE root SYSTEM "{url}">', "x")


@quirk("hostile", reason="UTF-7 hides a DOCTYPE from every search for it.", source="lxml decodes it", hopeless=True)
def utf_7(where: Where = "description") -> Hooks:
    """Sends a document whose markup is encoded away, with a DOCTYPE in it."""
    text = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><root><device>&a;</device></root>'
    body = b'<?xml version="1.0" encoding="UTF-7"?>' + text.encode("utf-7").replace(b"<", b"+ADw-")

    def response(exchange: Exchange, response: Response) -> Response:
        return replace(response, body=body) if exchange.purpose == where else response

    return Hooks(response=response)


@quirk(
    "hostile", reason="Some parsers are quadratic in one thing or another.", source="measured: 2 to 32 s", hopeless=True
)
def million_elements(where: Where = "description", count: int = 1_000_000) -> Hooks:
    """Sends a document of very many empty elements."""
    return _body(where, b"<root>" + b"<a/>" * count + b"</root>")


@quirk("hostile", reason="Recursion ends at the bottom of the stack.", source="measured", hopeless=True)
def deep_tree(where: Where = "description", depth: int = 20_000) -> Hooks:
    """Sends elements in elements, very deep."""
    return _body(where, b"<root>" + b"<a>" * depth + b"</a>" * depth + b"</root>")


@quirk("hostile", reason="Each attribute costs as much as an element.", source="measured: 21 s", hopeless=True)
def many_attributes(where: Where = "description", count: int = 100_000) -> Hooks:
    """Sends one element with very many attributes."""
    return _body(where, b"<root " + b" ".join(b'a%d=""' % number for number in range(count)) + b"/>")


@quirk(
    "hostile", reason="A redirect leads a request to any place.", source="measured: two libraries follow", hopeless=True
)
def redirects(where: Where = "description", url: str = f"{CANARY}/rootDesc.xml", status: int = 302) -> Hooks:
    """Redirects to another host."""

    def response(exchange: Exchange, response: Response) -> Response:
        if exchange.purpose != where:
            return response
        return replace(response.having("Location", url), status=status, body=b"")

    return Hooks(response=response)


@quirk(
    "hostile",
    reason="Requests for mappings could be sent to anybody.",
    source="measured: two libraries do",
)
def foreign_control_url(base: str = CANARY) -> Hooks:
    """Has control, event and SCPD URLs on another host; the paths in them are right."""

    def change(service: Service) -> Service:
        return replace(
            service,
            control_url=base + service.control_url,
            event_url=base + service.event_url,
            scpd_url=base + service.scpd_url,
        )

    return Hooks(device=lambda device, site: device.with_each_service(change))


@quirk("hostile", reason="Only http is spoken here.", source="measured: one library reads the file", hopeless=True)
def file_control_url(url: str = "file:///etc/passwd") -> Hooks:
    """Has ``file:`` URLs for control, events and SCPD."""

    def change(service: Service) -> Service:
        return replace(service, control_url=url, event_url=url, scpd_url=url)

    return Hooks(device=lambda device, site: device.with_each_service(change))


@quirk("hostile", reason="A LOCATION leads a request to any place.", source="measured", hopeless=True)
def foreign_location(url: str = f"{CANARY}/rootDesc.xml") -> Hooks:
    """Says that its description is on another host, at a port where it does not listen."""

    def replies(search: Search, messages: Sequence[Message], site: Site) -> Iterable[Message]:
        return [message.having("LOCATION", url) for message in messages]

    return Hooks(replies=replies)


@quirk("hostile", reason="A LOCATION may be anything.", source="measured: one library reads the file", hopeless=True)
def file_location() -> Hooks:
    """Says that its description is a file."""
    return foreign_location("file:///etc/passwd").hooks()


@quirk("hostile", reason="A request for each service is too much.", source="measured: 5,002 requests", hopeless=True)
def thousands_of_services(count: int = 5_000) -> Hooks:
    """Has thousands of services behind the one that works, each with separate documents."""

    def change(device: Device) -> Device:
        if not any(service.is_wan_connection for service in device.services):
            return device
        more = tuple(Service.standard("WANPPPConnection", 1, f"X{number}", f"down {number}") for number in range(count))
        return replace(device, services=(*device.services, *more))

    return Hooks(device=lambda device, site: device.with_each_device(change))


@quirk("hostile", reason="What a device is called goes into headers and documents.", source="miniupnpc", hopeless=True)
def header_injection() -> Hooks:
    """Has a line break and another header in its service type."""

    def change(service: Service) -> Service:
        if not service.is_wan_connection:
            return service
        return replace(service, service_type=f'{service.service_type}"\r\nX-Injected: yes\r\n')

    return Hooks(device=lambda device, site: device.with_each_service(change))


@quirk(
    "hostile", reason="Each reply must not cost a request, nor much memory.", source="measured: 42 s for a 2 s search"
)
def flood(count: int = 2_000) -> Hooks:
    """Answers each search with thousands of devices that do not exist, and among the first with itself."""

    def datagrams(search: Search, sent: Sequence[Datagram], site: Site) -> Iterable[Datagram]:
        template = (
            "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=1800\r\nEXT:\r\nLOCATION: {0}/{1}.xml\r\n"
            "SERVER: x\r\nST: {2}\r\nUSN: uuid:{1}::{2}\r\n\r\n"
        )
        junk = [Datagram(template.format(site.base, number, search.target).encode()) for number in range(count)]
        return [*junk[:20], *sent, *junk[20:]]

    return Hooks(datagrams=datagrams)


@quirk(
    "hostile",
    reason="Each document is within the cap, and all of them together are not.",
    source="measured: 32 of them cost 2.1 s of CPU",
    hopeless=True,
)
def long_descriptions(count: int = 40, size: int = 256 * 1024) -> Hooks:
    """Answers each search with many devices, whose descriptions are as long as one may be."""
    body = b"<root>" + b"<a/>xxxxxxxxxx" * ((size - 20) // 14) + b"</root>"
    headers = (("Content-Type", "text/xml"),)

    def replies(search: Search, messages: Sequence[Message], site: Site) -> Iterable[Message]:
        return [each.having("LOCATION", f"{site.base}/{n}.xml") for n in range(count) for each in messages[:1]]

    pages = {f"/{n}.xml": lambda site: Response(headers=headers, body=body) for n in range(count)}
    return Hooks(replies=replies, pages=pages)


@quirk("hostile", reason="An address that nobody can have is no address.", source="measured: all libraries accept it")
def impossible_external_address(address: str = "127.0.0.1") -> Hooks:
    """Says that its external address is loopback, multicast, or no address at all."""

    def envelope(exchange: Exchange, text: str) -> str:
        return re.sub(r"(<NewExternalIPAddress>)[^<]*", rf"\g<1>{address}", text)

    return Hooks(envelope=envelope)


def _sends(where: Where, change: Callable[[Transmission], Transmission]) -> Hooks:
    def transmission(exchange: Exchange, sent: Transmission) -> Transmission:
        return change(sent) if exchange.purpose == where else sent

    return Hooks(transmission=transmission)


def _body(where: Where, body: bytes) -> Hooks:
    def response(exchange: Exchange, response: Response) -> Response:
        return replace(response, body=body) if exchange.purpose == where else response

    return Hooks(response=response)


def _document(where: Where, declaration: str, value: str) -> Hooks:
    """Put a document type declaration in front, and a value that uses it inside."""

    def change(text: str) -> str:
        head, end, rest = text.partition("?>")
        rest = re.sub(r"(<(?:friendlyName|errorDescription|NewExternalIPAddress)>)[^<]*", rf"\g<1>{value}", rest)
        return f"{head}{end}{declaration}{rest}"

    if where == "description":
        return Hooks(description=lambda text, site: change(text))
    return Hooks(envelope=lambda exchange, text: change(text))


@lru_cache(maxsize=2)
def _bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)  # 31: in the format of gzip
    zeros = bytes(1024 * 1024)
    return b"".join([packer.compress(zeros) for _ in range(megabytes)]) + packer.flush()
