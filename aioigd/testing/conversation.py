"""A recorded conversation with a router: its datagrams and HTTP messages with their times, as a JSON file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

__all__ = ["Conversation", "DatagramEvent", "HttpEvent"]

_FORMAT: Final = 1
"""The version of the file format."""
_BASE64: Final = "base64:"
"""The prefix of content that is not UTF-8."""


@dataclass(frozen=True, slots=True)
class DatagramEvent:
    """A datagram. ``time`` is in seconds from the beginning, ``peer`` the address of the other side."""

    time: float
    direction: Literal["in", "out"]
    peer: str
    payload: str


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


@dataclass(frozen=True, slots=True)
class Conversation:
    """All messages in the order in which they began; ``about`` is information for people."""

    events: tuple[DatagramEvent | HttpEvent, ...]
    about: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def datagrams(self) -> Iterable[DatagramEvent]:
        """The datagrams."""
        return [event for event in self.events if isinstance(event, DatagramEvent)]

    @property
    def exchanges(self) -> Iterable[HttpEvent]:
        """The HTTP requests."""
        return [event for event in self.events if isinstance(event, HttpEvent)]

    def save(self, path: str | Path) -> None:
        """Write it to a file, as JSON that people can read."""
        events = [
            {"kind": "datagram" if isinstance(event, DatagramEvent) else "http", **asdict(event)}
            for event in self.events
        ]
        content = {"format": _FORMAT, "about": dict(self.about), "events": events}
        Path(path).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Conversation:
        """Read a file; raises ValueError for one that is no conversation."""
        try:
            content = json.loads(Path(path).read_text("utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']}; {_FORMAT} is what can be read here")
            return cls(tuple(map(_event, content["events"])), dict(content["about"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no recorded conversation: {error}") from error


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
        return base64.b64decode(text.removeprefix(_BASE64))
    return text.encode("utf-8")


def _event(fields: dict[str, Any]) -> DatagramEvent | HttpEvent:
    kind = fields.pop("kind")
    return DatagramEvent(**fields) if kind == "datagram" else HttpEvent(**fields)
