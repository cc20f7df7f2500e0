"""Which URLs are followed: plain http, to the address of the device itself.

The URLs in the documents of a device are used for their port and path only; the host is the address that answered,
so no device can direct requests to another host.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

__all__ = ["HttpUrl", "candidates", "parse_location", "parse_url", "same_address"]

_MAX_URL = 512
"""Characters. Joining URLs takes time, and a description may have 128 of them. Those of real routers have under 100."""
_MAX_SLASHES = 64
"""In a URL of a description: joining takes time for each of them. Real ones have under 10."""
_HOST = re.compile(r"[\w.-]+|[0-9a-f.]*:[0-9a-f:.]*(?:%[\w.-]+)?", re.ASCII)
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*://|//", re.IGNORECASE)
_HOST_AND_PORT = re.compile(r"[\w-]+(?:\.[\w-]+)+:\d{1,5}(?:/|\Z)", re.ASCII)
_TWO_SLASHES = re.compile(r"//[\w-]+(?:/|\Z)", re.ASCII)
"""By RFC 3986 a host without a dot; in descriptions more often a path with two slashes."""
_AUTHORITY = re.compile(r"http://(?P<host>[^/?#]*?)(?P<port>:[^:/?#\]]*)?(?=[/?#]|\Z)", re.IGNORECASE)
_SOME_HOST = "localhost"
"""Stands for a host that cannot be used, until the address of the sender takes its place."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SAFE = "!#$%&'()*+,/:;=?@[]~"
"""Characters, besides letters, digits and ``_.-``, that stand in a target as they are."""


class HttpUrl(NamedTuple):
    """An http URL in parts: ``host`` is a name or an address without brackets, ``target`` begins with a slash."""

    host: str
    port: int
    target: str

    def __str__(self) -> str:
        return f"http://{self.netloc}{self.target}"

    @property
    def with_zone(self) -> str:
        """The URL as text with the zone id of a link-local host, so that :func:`parse_url` gives it back."""
        return f"http://[{self.host}]:{self.port}{self.target}" if "%" in self.host else str(self)

    @property
    def netloc(self) -> str:
        """Host and port as they stand in a URL and in the Host header: no zone id, the port always named."""
        host = self.host.partition("%")[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def with_host(self, host: str) -> HttpUrl:
        """Return the same port and path at another host."""
        return HttpUrl(host, self.port, self.target)


def parse_url(text: str) -> HttpUrl:
    """Parse a URL. Raises ValueError, with the reason, for one that must not be followed."""
    text = text.strip()
    if len(text) > _MAX_URL:
        raise ValueError(f"a URL of over {_MAX_URL} characters")
    if _CONTROL.search(text):
        raise ValueError("a URL with control characters")
    parts = urlsplit(text)
    if parts.scheme.lower() != "http":
        raise ValueError(f"the scheme of {text!r} is not http")
    if "@" in parts.netloc:
        raise ValueError(f"{text!r} has a user name in it")
    host = parts.hostname or ""
    if not _HOST.fullmatch(host):
        raise ValueError(f"{text!r} names no host that could be asked")
    port = 80 if parts.port is None else parts.port
    if port == 0:
        raise ValueError(f"{text!r} names port 0")
    target = _quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
    if len(target) > _MAX_URL:
        raise ValueError(f"a URL of over {_MAX_URL} characters when it is quoted")
    return HttpUrl(host, port, target)


def parse_location(text: str) -> HttpUrl:
    """Parse the URL in a search reply as :func:`parse_url` does; only its port and path have to be right.

    It may lack the scheme, or the host, which is replaced by the address of the sender anyway.
    """
    if len(text) > _MAX_URL:
        raise ValueError(f"a URL of over {_MAX_URL} characters")
    return parse_url(_with_some_host(_with_scheme(text.strip().replace("\\", "/"))))


def candidates(reference: str, base: str, document: HttpUrl) -> tuple[HttpUrl, ...]:
    """Return where a URL in a description may lead, the likeliest first; all of it at the document's own host.

    ``reference`` is the URL as written, ``base`` the description's URLBase (empty where it has none),
    ``document`` where the description itself came from. A URLBase is often wrong, empty or without its port,
    and relative URLs are often meant from the root (UDA 1.1 section 2.3 has them relative to the document).
    Empty where nothing can be made of it.
    """
    reference, base = reference.strip(), base.strip()
    if not reference or _is_too_long(reference):
        return ()
    reference = _with_scheme(reference.replace("\\", "/"))
    base = "" if _is_too_long(base) else _with_scheme(base)
    here = str(document)
    reference = _with_some_host(reference, document.port)
    bases = [here]
    if base:
        base = _with_some_host(base)
        try:
            stated = parse_url(base)
        except ValueError:
            pass
        else:
            has_port = urlsplit(base).port is not None
            bases.insert(0 if has_port else 1, str(stated))
    found: dict[HttpUrl, None] = {}
    for start in bases:
        found.update(_resolved(reference, start, document.host))
    if _ABSOLUTE.match(reference):  # its port may be wrong, and that of the description right
        found.update({HttpUrl(document.host, document.port, url.target): None for url in list(found)})
        if _TWO_SLASHES.match(reference):
            found.update(_resolved("/" + reference.lstrip("/"), here, document.host))
    elif not reference.startswith("/"):
        for start in bases:
            found.update(_resolved("/" + reference, start, document.host))
    return tuple(found)[:4]


def _is_too_long(text: str) -> bool:
    return len(text) > _MAX_URL or text.count("/") + text.count("\\") > _MAX_SLASHES


def _with_scheme(text: str) -> str:
    # "192.168.1.1:5000/ctl" would be a path to urljoin.
    return f"http://{text}" if _HOST_AND_PORT.match(text) else text


def _with_some_host(text: str, default_port: int | None = None) -> str:
    """Return an absolute URL with another host where its own cannot be used: it is not asked for there anyway.

    Routers leave it out, or a placeholder in it (``http://%s:49000/``), or forget the brackets of IPv6.
    ``default_port``: what stands for a port that is none either.
    """
    found = _AUTHORITY.match(text)
    if found is None or "@" in found["host"] or ("[" in found["host"]) != ("]" in found["host"]):
        return text
    port = found["port"] or ""
    digits = port[1:]
    is_port = not digits or (digits.isascii() and digits.isdigit() and 0 < int(digits[:6]) < 65536)
    if not is_port and default_port is not None:
        port, is_port = f":{default_port}", True
    try:
        parse_url(f"http://{found['host']}{port}/")
    except ValueError:
        return f"http://{_SOME_HOST}{port}{text[found.end() :]}" if is_port else text
    return f"http://{found['host']}{port}{text[found.end() :]}"


def _resolved(reference: str, start: str, host: str) -> dict[HttpUrl, None]:
    try:
        return {parse_url(urljoin(start, reference)).with_host(host): None}
    except ValueError:
        return {}


def _quote(target: str) -> str:
    return quote(_SURROGATE.sub("%3F", target), safe=_SAFE)


def same_address(one: str, other: str) -> bool:
    """Return whether two texts are the same IP address, also where one is IPv4-mapped. Host names never match."""
    try:
        left, right = ip_address(one.partition("%")[0]), ip_address(other.partition("%")[0])
    except ValueError:
        return False
    return (getattr(left, "ipv4_mapped", None) or left) == (getattr(right, "ipv4_mapped", None) or right)
