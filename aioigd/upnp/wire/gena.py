"""GENA (UDA 1.1 section 4): subscriptions to the events of a service, and event messages.

As elsewhere, input from the network raises nothing but InvalidResponseError, and is read within caps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Final, NamedTuple

from ...errors import InvalidResponseError
from . import xml

__all__ = [
    "MAX_BODY",
    "MAX_HEAD",
    "EventHead",
    "next_seq",
    "parse_event",
    "parse_head",
    "read_grant",
    "renewal",
    "subscription",
]

MAX_HEAD: Final = 4096
"""Bytes of an event message before its body."""
MAX_BODY: Final = 16 * 1024
"""Bytes of the body of an event message. Real ones have under 1,000."""
_MAX_PROPERTIES: Final = 64
"""Properties read in an event message, and variables read in a property."""
_MIN_DURATION: Final = 60.0
"""Seconds. A shorter grant counts as this."""
_MAX_DURATION: Final = 86_400.0
"""Seconds. A longer grant counts as this."""
_DURATION: Final = 1800.0
"""Seconds that are requested, and assumed where a device grants no number (section 4.1.2)."""

_MAX_SEQ: Final = 2**32 - 1
"""The largest event key (section 4.3.2)."""

_REQUEST: Final = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]{0,200}) HTTP/1\.[01]\r?\n")
_SID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_TIMEOUT: Final = re.compile(r"second-(\d{1,9})", re.IGNORECASE)


class EventHead(NamedTuple):
    """The head of an event message: where it was sent, for which subscription, and how long its body is.

    ``seq`` is its event key: 0 for the initial event of a subscription, which has all state variables; None where it
    is missing or no number.
    """

    target: str
    sid: str
    length: int
    seq: int | None


def subscription(callback: str) -> Mapping[str, str]:
    """Return the headers of a SUBSCRIBE that asks for events at a URL."""
    return {"CALLBACK": f"<{callback}>", "NT": "upnp:event", "TIMEOUT": f"Second-{_DURATION:.0f}"}


def renewal(sid: str) -> Mapping[str, str]:
    """Return the headers of a SUBSCRIBE that renews a subscription."""
    return {"SID": sid, "TIMEOUT": f"Second-{_DURATION:.0f}"}


def read_grant(headers: Mapping[str, str]) -> tuple[str, float]:
    """Return identifier and duration (seconds) of a subscription from the headers of the reply to a SUBSCRIBE."""
    named = {name.lower(): value.strip() for name, value in headers.items()}
    sid = named.get("sid", "")
    if _SID.fullmatch(sid) is None:
        raise InvalidResponseError("a subscription without an identifier")
    granted = _TIMEOUT.fullmatch(named.get("timeout", ""))
    seconds = float(granted.group(1)) if granted else _DURATION
    return sid, min(_MAX_DURATION, max(_MIN_DURATION, seconds))


def parse_head(head: bytes) -> EventHead:
    """Parse the head of an event message: everything before the blank line."""
    request = _REQUEST.match(head)
    if request is None or request.group(1) != b"NOTIFY":
        raise InvalidResponseError("not an event message")
    headers: dict[str, str] = {}
    for line in head[request.end() :].splitlines()[:64]:
        name, _, value = line.partition(b":")
        headers.setdefault(name.strip().lower().decode("latin-1"), value.strip().decode("latin-1"))
    length = headers.get("content-length", "")
    if headers.get("nt") != "upnp:event" or headers.get("nts") != "upnp:propchange":
        raise InvalidResponseError("a NOTIFY that is no event")
    if not (length.isascii() and length.isdigit() and len(length) < 9 and int(length) <= MAX_BODY):
        raise InvalidResponseError(f"an event message of {length[:20]!r} bytes")
    seq = headers.get("seq", "")
    number = int(seq) if seq.isascii() and seq.isdigit() and len(seq) < 11 else None
    return EventHead(request.group(2).decode("ascii"), headers.get("sid", ""), int(length), number)


def next_seq(seq: int) -> int:
    """Return the event key that follows: one more, and 1 after the largest of 32 bits (section 4.3.2)."""
    return 1 if seq >= _MAX_SEQ else seq + 1


def parse_event(body: bytes) -> dict[str, str]:
    """Return the state variables in an event message, by their names in lower case."""
    values: dict[str, str] = {}
    for holder in islice(xml.iter_named(xml.parse(body), "property"), _MAX_PROPERTIES):
        for variable in islice(holder, _MAX_PROPERTIES):
            values[xml.local_name(variable)] = xml.text_of(variable)
    return values
