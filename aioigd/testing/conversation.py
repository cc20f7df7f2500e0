"""A recorded conversation with a router: its datagrams and HTTP messages with their times, as a JSON file.

A file may come from anybody. :meth:`Conversation.load` is the only way in: what it returns is of the right types,
within the bounds named here, and has no character that could end a line of a header.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from ..text import printable, shown
from .new_file import checked_path, write_file

__all__ = [
    "MAX_EVENTS",
    "MAX_HEADERS",
    "MAX_VALUES",
    "Conversation",
    "DatagramEvent",
    "Event",
    "HttpEvent",
    "PcpEvent",
    "RecordingError",
    "is_header",
    "read",
    "written",
]

_FORMAT: Final = 1
"""The version of the file format."""
_BASE64: Final = "base64:"
"""The prefix of content that is not UTF-8."""

MAX_EVENTS: Final = 10_000
"""Datagrams, of whatever protocol, and HTTP exchanges of a file."""
MAX_HEADERS: Final = 64
"""Headers of a message. Real ones have under 15."""
MAX_VALUES: Final = 300_000
"""JSON values of a file, names included."""
_MAX_FILE: Final = 32 * 1024 * 1024
"""Bytes."""
_MAX_DEPTH: Final = 8
"""Arrays and objects in each other. The format has 4."""
_MAX_CONTENT: Final = 2 * 1024 * 1024
"""Characters of a datagram or body."""
_MAX_TIME: Final = 1e7
"""Seconds, some months."""
_MAX_DIGITS: Final = 20
_MAX_HEADER: Final = 8192
_MAX_URL: Final = 2048
_MAX_ORIGINS: Final = 64
"""Servers that are asked, each of which is a socket when it is replayed."""
_MAX_ABOUT: Final = 32
_MAX_WORDS: Final = 400

_JSON_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{},:]', re.DOTALL)
_METHOD = re.compile(r"[A-Z][A-Z-]{0,15}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_NO_HEADER_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
_NO_URL = re.compile(r"[^\x21-\x7e]")
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_HEXADECIMAL = re.compile(r"(?:[0-9a-fA-F]{2} ?){0,1101}")
"""A datagram of PCP: 1,100 bytes at most (RFC 6887 section 7), and one more where it was longer."""
_FAILURE = re.compile(r"|[A-Za-z_][A-Za-z0-9_]{0,63}")


class RecordingError(ValueError):
    """A file is no recorded conversation; the message says what is wrong with it, and where."""


@dataclass(frozen=True, slots=True)
class DatagramEvent:
    """A datagram of SSDP. ``time`` is in seconds from the beginning, ``peer`` the address of the other side."""

    time: float
    direction: Literal["in", "out"]
    peer: str
    payload: str


@dataclass(frozen=True, slots=True)
class PcpEvent:
    """A datagram of PCP or NAT-PMP, ``payload`` in hexadecimal; ``says`` is the same for people.

    ``failure`` is the name of the exception where the system was told that nobody listens.
    """

    time: float
    direction: Literal["in", "out"]
    peer: str
    payload: str
    says: str
    failure: str

    @property
    def datagram(self) -> bytes:
        """The bytes of the datagram."""
        return bytes.fromhex(self.payload)


@dataclass(frozen=True, slots=True)
class HttpEvent:
    """An HTTP request and its reply, or the name of the exception that came instead."""

    time: float
    seconds: float
    method: str
    url: str
    headers: Mapping[str, str] = field(hash=False)
    body: str
    status: int
    reply_headers: Mapping[str, str] = field(hash=False)
    reply: str
    failure: str


Event = DatagramEvent | PcpEvent | HttpEvent
_KINDS: Final[Mapping[type[Event], str]] = {DatagramEvent: "datagram", PcpEvent: "pcp", HttpEvent: "http"}


@dataclass(frozen=True, slots=True)
class Conversation:
    """All messages in the order in which they began; ``about`` is information for people."""

    events: tuple[Event, ...]
    about: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def datagrams(self) -> Sequence[DatagramEvent]:
        """The datagrams of SSDP."""
        return [event for event in self.events if isinstance(event, DatagramEvent)]

    @property
    def pcp_datagrams(self) -> Sequence[PcpEvent]:
        """The datagrams of PCP and NAT-PMP."""
        return [event for event in self.events if isinstance(event, PcpEvent)]

    @property
    def exchanges(self) -> Sequence[HttpEvent]:
        """The HTTP requests."""
        return [event for event in self.events if isinstance(event, HttpEvent)]

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write it to a new file, as JSON that people can read; see :func:`.new_file.write_file`."""
        events = [{"kind": _KINDS[type(event)], **asdict(event)} for event in self.events]
        content = {"format": _FORMAT, "about": dict(self.about), "events": events}
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_file(checked_path(path), text.encode("utf-8"), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Conversation:
        """Read a file.

        Raises RecordingError for one that is no conversation, or one beyond the bounds, and OSError where there is
        none or it may not be read. Raises UsageError for what is no path.
        """
        place = checked_path(path)
        try:
            content = _parsed(_file_content(place))
            return _conversation(content)
        except RecordingError as error:
            raise RecordingError(
                f"{printable(str(path), 400)} is no recorded conversation: {error}"
            ) from error.__cause__


def written(content: bytes) -> str:
    """Return bytes as text for a file."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = _BASE64
    return _BASE64 + base64.b64encode(content).decode("ascii") if text.startswith(_BASE64) else text


def read(text: str) -> bytes:
    """Return the bytes of which :func:`written` has made a text."""
    if text.startswith(_BASE64):
        return base64.b64decode(text.removeprefix(_BASE64), validate=True)
    return text.encode("utf-8")


def is_header(name: str, value: str) -> bool:
    """Return whether a file may have a header: HTTP has such names (RFC 9110 section 5.6.2) and values."""
    return _HEADER_NAME.fullmatch(name) is not None and len(value) <= _MAX_HEADER and not _NO_HEADER_VALUE.search(value)


def _file_content(path: Path) -> str:
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise RecordingError("it is no file with contents")  # to open a pipe would wait for its other end
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise RecordingError("it is no file with contents")
        content = opened.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise RecordingError(f"it has over {_MAX_FILE} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordingError(f"it is not UTF-8 from byte {error.start} on") from error


def _parsed(text: str) -> Any:
    """Return what a JSON text has. It is counted before: a small file can have millions of empty lists."""
    depth = values = 0
    for token in _JSON_TOKEN.finditer(text):
        character = token[0]
        if character in ("[", "{"):
            depth += 1
            values += 1
        elif character in ("]", "}"):
            depth -= 1
        elif character in (",", ":"):
            values += 1
        if depth > _MAX_DEPTH:
            raise RecordingError(f"over {_MAX_DEPTH} arrays and objects in each other")
        if values > MAX_VALUES:
            raise RecordingError(f"over {MAX_VALUES} values")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)
    except RecordingError:
        raise
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"it is no JSON: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise RecordingError(f"{shown(name)} is there twice in an object")
        found[name] = value
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise RecordingError(f"a number of {len(digits)} digits")
    return int(digits)


def _constant(name: str) -> Any:
    raise RecordingError(f"{name} is no number of JSON")


def _conversation(content: Any) -> Conversation:
    fields = _fields("the document", content, ("format", "about", "events"))
    version = fields["format"]
    if type(version) is not int or version != _FORMAT:
        raise RecordingError(f"format {shown(version)}; {_FORMAT} is what can be read here")
    about = _strings("about", fields["about"], _MAX_ABOUT)
    listed = fields["events"]
    if not isinstance(listed, list):
        raise _wrong("events", listed, "a list")
    if len(listed) > MAX_EVENTS:
        raise RecordingError(f"events: {len(listed)} of them; {MAX_EVENTS} are the most")
    events = tuple(_event(f"events[{number}]", event) for number, event in enumerate(listed))
    origins = {urlsplit(event.url).netloc for event in events if isinstance(event, HttpEvent)}
    if len(origins) > _MAX_ORIGINS:
        raise RecordingError(f"events: requests to {len(origins)} servers; {_MAX_ORIGINS} are the most")
    return Conversation(events, about)


Check = Callable[[str, Any], Any]


def _event(where: str, content: Any) -> Event:
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind == "datagram":
        return DatagramEvent(**_checked(where, content, _DATAGRAM_FIELDS))
    if kind == "pcp":
        return PcpEvent(**_checked(where, content, _PCP_FIELDS))
    if kind == "http":
        return HttpEvent(**_checked(where, content, _HTTP_FIELDS))
    if isinstance(content, dict) and "kind" in content:
        raise _wrong(f"{where}.kind", kind, "'datagram', 'pcp' or 'http'")
    raise _wrong(where, content, "an object with a kind")


def _checked(where: str, content: Any, checks: Mapping[str, Check]) -> dict[str, Any]:
    fields = _fields(where, content, ("kind", *checks))
    return {name: check(f"{where}.{name}", fields[name]) for name, check in checks.items()}


def _fields(where: str, content: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return an object that has these fields and no others."""
    if not isinstance(content, dict):
        raise _wrong(where, content, "an object")
    for name in names:
        if name not in content:
            raise RecordingError(f"{where}: there is no {name!r}")
    for name in content.keys() - set(names):
        raise RecordingError(f"{where}: nothing is known of {shown(name)}")
    return content


def _wrong(where: str, value: Any, right: str) -> RecordingError:
    return RecordingError(f"{where}: {shown(value)} is not {right}")


def _seconds(where: str, value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= _MAX_TIME:
        raise _wrong(where, value, f"a number of seconds from 0 to {_MAX_TIME:.0f}")
    return float(value)


def _status(where: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= 999:
        raise _wrong(where, value, "an HTTP status, or 0")
    return value


def _string(where: str, value: Any, most: int) -> str:
    if not isinstance(value, str):
        raise _wrong(where, value, "a string")
    if len(value) > most:
        raise RecordingError(f"{where}: {len(value)} characters; {most} are the most")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecordingError(f"{where}: half a character (a lone surrogate) at {error.start}") from error
    return value


def _direction(where: str, value: Any) -> str:
    if value not in ("in", "out"):
        raise _wrong(where, value, "'in' or 'out'")
    return str(value)


def _content(where: str, value: Any) -> str:
    text = _string(where, value, _MAX_CONTENT)
    try:
        read(text)
    except (binascii.Error, ValueError) as error:
        raise RecordingError(f"{where}: this is not base64: {error}") from error
    return text


def _matching(pattern: re.Pattern[str], right: str, most: int = _MAX_URL) -> Check:
    def check(where: str, value: Any) -> str:
        if pattern.fullmatch(_string(where, value, most)) is None:
            raise _wrong(where, value, right)
        return str(value)

    return check


def _peer(where: str, value: Any) -> str:
    address, percent, zone = _string(where, value, 100).partition("%")
    try:
        ip_address(address)
    except ValueError as error:
        raise _wrong(where, value, "an IP address") from error
    if percent and _HOST_NAME.fullmatch(zone) is None:
        raise _wrong(where, value, "an IP address")
    return str(value)


def _url(where: str, value: Any) -> str:
    text = _string(where, value, _MAX_URL)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        if ":" in host:
            ip_address(host)
        right = parts.scheme == "http" and not _NO_URL.search(text) and "@" not in parts.netloc and port != 0
        right = right and (":" in host or _HOST_NAME.fullmatch(host) is not None)
    except ValueError:
        right = False
    if not right:
        raise _wrong(where, value, "an http URL with a host")
    return text


def _headers(where: str, value: Any) -> dict[str, str]:
    headers = _strings(where, value, MAX_HEADERS)
    for name, content in headers.items():
        if not is_header(name, content):
            raise _wrong(where, f"{name}: {content}", "a header")
    return headers


def _strings(where: str, value: Any, most: int) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _wrong(where, value, "an object")
    if len(value) > most:
        raise RecordingError(f"{where}: {len(value)} entries; {most} are the most")
    return {
        _string(where, name, _MAX_HEADER): _string(f"{where}[{shown(name)}]", text, _MAX_HEADER)
        for name, text in value.items()
    }


_DATAGRAM_FIELDS: Final[Mapping[str, Check]] = {
    "time": _seconds,
    "direction": _direction,
    "peer": _peer,
    "payload": _content,
}
_PCP_FIELDS: Final[Mapping[str, Check]] = {
    "time": _seconds,
    "direction": _direction,
    "peer": _peer,
    "payload": _matching(_HEXADECIMAL, "a datagram of up to 1,101 bytes in hexadecimal", 3 * 1101),
    "says": lambda where, value: _string(where, value, _MAX_WORDS),
    "failure": _matching(_FAILURE, "the name of an exception, or empty"),
}
_HTTP_FIELDS: Final[Mapping[str, Check]] = {
    "time": _seconds,
    "seconds": _seconds,
    "method": _matching(_METHOD, "an HTTP method"),
    "url": _url,
    "headers": _headers,
    "body": _content,
    "status": _status,
    "reply_headers": _headers,
    "reply": _content,
    "failure": _matching(_FAILURE, "the name of an exception, or empty"),
}
