"""Messages with something private in them: what it is, how it is written, and where it stands."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote

from aioigd.testing.scrubbing import Scrubber

__all__ = ["ENDLESS", "PLACES", "SECRETS", "WRITINGS", "leaks_of", "scrub"]

SECRETS: Final[Mapping[str, str]] = {
    "public address": "44.17.83.201",
    "private address": "10.83.17.201",
    "shared address": "100.83.17.201",
    "address in a host name": "ip-44-17-83-201.dyn.isp.example",
    "address behind letters": "dsl44.17.83.201.isp.example",
    "address, reversed": "201.83.17.44.in-addr.arpa",
    "address in octal": "0054.0021.0123.0311",
    "address as a number": "739333065",
    "address in hexadecimal": "0x2C1153C9",
    "address with underscores": "host_44_17_83_201",
    "IPv6 address": "2a02:8071:83c1:17::5d1e",
    "IPv6 address in a host name": "2a02-8071-83c1-17--5d1e.dyn.isp.example",
    "IPv6 address of a link": "fe80::a8bb:ccff:fedd:17ee",
    "IPv6 address in nibbles": "e.1.d.5.0.0.0.0.0.0.0.0.0.0.0.0.7.1.0.0.1.c.3.8.1.7.0.8.2.0.a.2.ip6.arpa",
    "IPv6 address with IPv4": "::ffff:44.17.83.201",
    "unique local prefix": "fd9b:17c8:83e1::/48",
    "MAC address": "a8:bb:cc:dd:17:ee",
    "MAC address with hyphens": "A8-BB-CC-DD-17-EE",
    "MAC address without colons": "a8bbccdd17ee",
    "MAC address behind an underscore": "WLAN_A8BBCCDD17EE",
    "MAC address behind letters": "HUAWEI-gwA8BBCCDD17EE",
    "MAC address with dots": "a8bb.ccdd.17ee",
    "MAC address without zeros": "a8:b:c:dd:17:e",
    "EUI-64": "a8:bb:cc:ff:fe:dd:17:ee",
    "UUID": "5a34308c-1a2c-4546-ac5d-7663dd01dca1",
    "UUID without hyphens": "5A34308C1A2C4546AC5D7663DD01DCA1",
    "serial number": "WAP4G7X81K2",
    "serial number of digits": "20713884519",
    "host name": "annas-laptop.familie-meier.example",
    "name": "Anneliese Meierhofer",
    "name with umlauts": "Büröhüsli Sörensen",
    "name in Chinese": "安娜的路由器",
    "name in Cyrillic": "Квартира Петровых",
    "Wi-Fi": "Meierhofer-WG_5GHz",
    "phone number": "+49 30 5550173",
    "mail address": "anneliese@meierhofer.example",
    "place": "Kastanienallee 83, 10435 Prenzlauer",
    "coordinates": "52.538417,13.410233",
    "URL with a password": "http://anneliese:hunter2secret@cam.meierhofer.example/",
    "session": "JSESSIONID=8F3A77C1D05E4B29",
    "cookie": "sid=s%3Ak83jJd83jd8.k3j8",
    "basic authorization": "Basic YW5uZWxpZXNlOmh1bnRlcjI=",
    "provider's customer": "ar0173884519@t-online.example",
}


def _percent(text: str) -> str:
    return "".join(f"%{each:02X}" for each in text.encode())


WRITINGS: Final[Mapping[str, Callable[[str], str]]] = {
    "as it is": str,
    "in capitals": str.upper,
    "percent-encoded": _percent,
    "percent-encoded where needed": quote,
    "percent-encoded twice": lambda text: _percent(text).replace("%", "%25"),
    "in references": lambda text: "".join(f"&#{ord(each)};" for each in text),
    "in hexadecimal references": lambda text: "".join(f"&#x{ord(each):X};" for each in text),
    "in references, escaped": lambda text: "".join(f"&amp;#{ord(each)};" for each in text),
    "in base64": lambda text: base64.b64encode(text.encode()).decode(),
    "in hexadecimal": lambda text: text.encode().hex(),
}

Message = Callable[[str], tuple[str, str, bytes]]
"""A message around a text: its kind, the name of its header if it is one, and its bytes."""


def _element(name: str, attributes: str = "", encoding: str = "utf-8") -> Message:
    def message(text: str) -> tuple[str, str, bytes]:
        document = f'<?xml version="1.0"?>\n<root><device><{name}{attributes}>{text}</{name}></device></root>'
        return "content", "", document.encode(encoding, "replace")

    return message


def _header(name: str) -> Message:
    return lambda text: ("header", name, text.encode())


def _datagram(name: str) -> Message:
    return lambda text: ("datagram", "", f"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\n{name}: {text}\r\n\r\n".encode())


def _content(before: str, after: str) -> Message:
    return lambda text: ("content", "", f"{before}{text}{after}".encode())


PLACES: Final[Mapping[str, Message]] = {
    "friendlyName": _element("friendlyName"),
    "modelDescription": _element("modelDescription"),
    "serialNumber": _element("serialNumber"),
    "serialNumber with an attribute": _element(
        "serialNumber", ' xmlns:dt="urn:schemas-microsoft-com:datatypes" id="1"'
    ),
    "a serial number of a vendor": _element("avm:X_AVM-DE_SerialNo"),
    "an element of a vendor": _element("X_Vendor_Thing"),
    "UDN": _element("UDN"),
    "presentationURL": _element("presentationURL"),
    "description of a mapping": _element("NewPortMappingDescription"),
    "internal client": _element("NewInternalClient"),
    "SSID": _element("NewSSID"),
    "UTF-16": _element("friendlyName", encoding="utf-16"),
    "UTF-16 without a mark": _element("friendlyName", encoding="utf-16-be"),
    "UTF-32": _element("friendlyName", encoding="utf-32-le"),
    "Latin-1": _element("friendlyName", encoding="latin-1"),
    "an attribute": _content('<root><device name="', '" id="1"/></root>'),
    "a comment": _content("<root><!-- ", " --></root>"),
    "CDATA": _content("<root><x><![CDATA[", "]]></x></root>"),
    "escaped XML": _content("<root><x>&lt;friendlyName&gt;", "&lt;/friendlyName&gt;</x></root>"),
    "a cut document": _content("<root><device><friendlyName>", ""),
    "broken markup": _content("<root <device <<friendlyName", "</root"),
    "text that is no markup": _content("The device of ", " is busy."),
    "Set-Cookie": _header("Set-Cookie"),
    "Authorization": _header("Authorization"),
    "X-Vendor": _header("X-Vendor"),
    "Server": _header("Server"),
    "Date": _header("Date"),
    "Etag": _header("ETag"),
    "Location": _header("Location"),
    "USN": _datagram("USN"),
    "LOCATION": _datagram("LOCATION"),
    "SERVER": _datagram("SERVER"),
    "a header of a vendor": _datagram("X-Vendor-Host"),
    "a datagram that is something else": lambda text: ("datagram", "", b"\x01\x02" + text.encode()),
}


def scrub(scrubber: Scrubber, message: tuple[str, str, bytes]) -> bytes:
    """Return a message without what is private."""
    kind, name, content = message
    if kind == "header":
        return "".join(scrubber.header(name, content.decode("latin-1"))).encode("latin-1")
    return scrubber.datagram(content) if kind == "datagram" else scrubber.content(content)


def leaks_of(secret: str, scrubbed: bytes) -> list[str]:
    """Return in which writings a private text, or a part of it by which it can be recognized, is in bytes."""
    views = [scrubbed.replace(b"\0", b"").lower(), scrubbed.lower()]
    found = [
        name
        for name, write in WRITINGS.items()
        for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "latin-1")
        if any(write(secret).encode(encoding, "replace").lower() in view for view in views)
        and write(secret).encode(encoding, "replace").strip(b"?\0 ") != b""
    ]
    telling = ("anneliese", "meier", "büröh", "sörensen", "安娜", "квартира", "hunter2", "kastanien", "k83jjd83jd8")
    found += [word for word in telling if word in secret.lower() and any(word.encode() in view for view in views)]
    return found


def _addresses(size: int) -> str:
    return " ".join(f"10.{number >> 8 & 255}.3.{number & 255}" for number in range(size // 8))[:size]


def _repeated(part: str) -> Callable[[int], str]:
    return lambda size: (part * size)[:size]


ENDLESS: Final[Mapping[str, Callable[[int], str]]] = {
    "addresses": _addresses,
    "MAC addresses": lambda size: " ".join(f"a{number:011x}" for number in range(size // 13))[:size],
    "words": lambda size: " ".join(f"q{number:x}z" for number in range(size // 5))[:size],
    "serial numbers": lambda size: "".join(f"<serial>é{number}</serial>" for number in range(size // 20))[:size],
    **{
        repr(part): _repeated(part)
        for part in (
            *("<", ">", "<a", "<a b=", "<serial ", "<serialNumber>x", "//", "//a:", "1.", "a:", "a-", "a", "0"),
            *("&amp;", "&amp;#", "&#252;", "%25", "%C3", "a\0", "\0", "é", "é&", "a: \r\n", " ", "&lt;a ", "a='"),
        )
    },
}
"""Texts of a size that are made to take long."""
