"""HTTP replies as devices write them: head and body, with malformed headers, wrong lengths, broken chunks.

A reply is read in whatever pieces it arrives, and each byte is looked at a bounded number of times.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from ...errors import InvalidResponseError, TransportError
from .xml import MAX_DOCUMENT

__all__ = [
    "MAX_HEAD",
    "MAX_REPLY",
    "BodyRule",
    "FramedReply",
    "HttpReply",
    "ReplyReader",
    "dechunked",
    "parse_http_reply",
]

MAX_HEAD: Final = 32 * 1024
"""Bytes of a reply before its body, those of interim replies (1xx) included. Real ones have under 1,000."""
MAX_REPLY: Final = MAX_HEAD + MAX_DOCUMENT
"""Bytes of a reply with everything that frames it: interim replies, head, chunk sizes and extensions."""
_MAX_HEADERS: Final = 1024
"""Header lines that are read, of those that fit into a head."""
_MAX_CHUNKS: Final = 8192
"""Chunks of a body: as many as the longest document has in pieces of 32 bytes."""

_STATUS = re.compile(rb"HTTP/?\d?\.?\d?\s+(\d{3})", re.IGNORECASE)
_BLANKS = re.compile(rb"\s+")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_ENCODED = re.compile(rb"^content-encoding[ \t]*:[ \t]*(?!identity)(\S+)", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb"^content-length[ \t]*:[ \t]*(\d{1,9})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_INDENTED_HEADER = re.compile(r"[ \t]+[!-9;-~]{1,64}:[ \t]")
_CHUNK_SIZE = re.compile(rb"\s{0,64}+([0-9a-fA-F]{1,8})[ \t]{0,64}(?:;[^\n]{0,200})?\r?\n")
_PART_OF_SIZE = re.compile(rb"\s{0,64}+(?:[0-9a-fA-F]{1,8}[ \t]{0,64}(?:;[^\n]{0,200})?\r?)?")
"""What may yet become a :data:`_CHUNK_SIZE`."""

_STRICT_STATUS = re.compile(rb"HTTP/1\.([01]) ([2-5]\d\d)(?: [^\r\n\0]*)?\r\n")
_STRICT_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\r\n\0]*)\r\n")
_STRICT_SIZE = re.compile(rb"([0-9a-fA-F]{1,6})(?:;[^\r\n\0]{0,200})?\r\n")
_DIGITS = re.compile(r"[0-9]{1,8}")
_PROMISE = re.compile(r"(timeout|max)[ \t]*=[ \t]*([0-9]{1,8})", re.IGNORECASE)
_LONGEST_SIZE: Final = 256
"""Bytes of a line with a chunk size, extensions included."""
_LONGEST_HEAD: Final = 4096
"""Bytes of a head that is read strictly."""
_ANY_NUMBER: Final = 1_000_000

_ANNOUNCE_BODY: Final = frozenset({"content-length", "transfer-encoding"})
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class HttpReply(NamedTuple):
    """A reply as far as it was received; ``status`` is 0 where there was no status line."""

    status: int
    body: bytes
    headers: Mapping[str, str] = _NO_HEADERS


class BodyRule(Enum):
    """What may come behind the head of a reply."""

    EXPECTED = "expected"  #: a body, unless the head says that there is none
    OPTIONAL = "optional"  #: a body; where none begins soon, the head alone is the reply
    NONE = "none"  #: nothing that counts

    def lets_head_suffice(self, headers: Mapping[str, str]) -> bool:
        """Return whether a head may be the whole reply although the connection stays open: it announces no body."""
        return self is BodyRule.OPTIONAL and _ANNOUNCE_BODY.isdisjoint(map(str.lower, headers))


class ReplyReader:
    """Reads one reply, however little of it is HTTP; without a status line, everything is body.

    ``status`` and ``headers`` are those of the head, once it has ended; ``length`` is that of the body as the head says
    it, None where it does not.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = _NO_HEADERS
        self.length: int | None = None
        self.has_head = False
        """Whether the head has ended, or there is none."""
        self._received = 0
        self._head = bytearray()
        self._searched = 0
        self._interim = 0
        self._body = _Body()

    @property
    def body(self) -> bytearray:
        """The body as far as it was received, without chunk sizes."""
        return self._body.document

    @property
    def has_body_end(self) -> bool:
        """Whether the last chunk has come, or there cannot be a body (RFC 9112 section 6.3)."""
        return self._body.has_end or (self.has_head and self.status in (204, 304))

    def feed(self, data: bytes) -> None:
        """Take what has arrived. Raises InvalidResponseError for a reply that breaks a cap, or is encoded."""
        self._received += len(data)
        if self._received > MAX_REPLY:
            raise InvalidResponseError(f"a reply of over {MAX_DOCUMENT} bytes", status=self.status or None)
        if self.has_head:
            self._body.feed(data)
        else:
            self._head += data
            self._read_heads()

    def finish(self) -> HttpReply:
        """Return the reply, as nothing more will come.

        Raises TransportError where nothing has come of the body that the head promises.
        """
        if not self.has_head:
            status = _STATUS.match(self._head)
            if status is None:
                self._body.is_plain = True
                self._body.feed(bytes(self._head))
            else:
                self._read_head(bytes(self._head[: self._head.rfind(b"\n") + 1]), int(status[1]))
        body = self._body.finish()
        if not body and self.length:
            raise TransportError(
                "the connection was cut between the head of a reply and its body", may_have_arrived=True
            )
        return HttpReply(self.status, body[:MAX_DOCUMENT], self.headers)

    def _read_heads(self) -> None:
        """Read the head, and those of interim replies in front of it (RFC 9110 section 15.2)."""
        begin = 0
        while self._may_be_head(begin := self._skip_blanks(begin)):
            end = _HEAD_END.search(self._head, max(begin, self._searched - 3))
            if (end.start() if end else len(self._head)) + self._interim > MAX_HEAD:
                raise InvalidResponseError(f"a reply with a head of over {MAX_HEAD} bytes")
            if end is None:
                del self._head[:begin]
                self._interim += begin
                self._searched = len(self._head)
                return
            head = bytes(self._head[begin : end.start()])
            status = _STATUS.match(head)
            if status is None:
                break
            if not status[1].startswith(b"1") or status[1] == b"101":
                self._read_head(head, int(status[1]))
                begin = end.end()
                break
            begin = end.end()
        self.has_head = True
        self._body.is_plain = self.status == 0
        self._body.feed(bytes(self._head[begin:]))
        self._head.clear()

    def _may_be_head(self, begin: int) -> bool:
        return b"HTTP".startswith(bytes(self._head[begin : begin + 4]).upper())

    def _skip_blanks(self, begin: int) -> int:
        blanks = _BLANKS.match(self._head, begin)
        return blanks.end() if blanks else begin

    def _read_head(self, head: bytes, status: int) -> None:
        self.status = status
        encoded = _ENCODED.search(head)
        if encoded is not None:
            raise InvalidResponseError(f"a reply in the encoding {encoded[1][:40]!r} is refused")
        length = _LENGTH.search(head)
        self.length = None if length is None else int(length[1])
        self.headers = _parse_headers(head)


class _Head(NamedTuple):
    """A head that leaves no doubt about where the reply ends; ``length`` is None where the body comes in chunks."""

    status: int
    headers: Mapping[str, str]
    length: int | None
    stays_open: bool
    more: int


_NO_HEAD: Final = _Head(0, _NO_HEADERS, 0, False, _ANY_NUMBER)


class FramedReply:
    """Reads one reply by its HTTP framing alone, so strictly that what it takes for the end is the end.

    That is what a connection has to have if it is to be used again: a document may end before its reply does, and what
    is left would be taken for the reply to the next request. ``is_strict`` is False where anything about the reply is
    not quite as RFC 9112 has it, or leaves a choice: then nothing else counts.
    """

    def __init__(self) -> None:
        self.is_strict = True
        self.body = b""
        """The whole body, once the end has come."""
        self.has_end = False
        self.has_surplus = False
        """Whether something came behind the end."""
        self._head = _NO_HEAD
        self._received = bytearray()
        self._body_at = 0
        self._position = 0
        """How far the head was searched for its end, and chunks were joined."""
        self._joined = bytearray()
        self._chunks = 0

    @property
    def has_head(self) -> bool:
        """Whether the head has ended."""
        return self._body_at > 0

    @property
    def stays_open(self) -> bool:
        """Whether the connection stays open behind it, as the head has it (RFC 9112 section 9.3)."""
        return self._head.stays_open

    @property
    def more(self) -> int:
        """How many requests may follow on the connection."""
        return self._head.more

    def reply(self) -> HttpReply:
        """Return the reply, once the end has come."""
        return HttpReply(self._head.status, self.body, self._head.headers)

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        if self.has_end:
            self.has_surplus = self.has_surplus or bool(data)
            return
        received = self._received
        received += data
        if len(received) > MAX_REPLY:
            self.is_strict = False
        if not self.is_strict or not (self._body_at or self._read_head()):
            return
        if self._head.length is None:
            self._join_chunks()
        elif (behind := len(received) - self._body_at - self._head.length) >= 0:
            self.has_end = True
            self.has_surplus = behind > 0
            self.body = bytes(received[self._body_at : self._body_at + self._head.length])

    def _read_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n", max(0, self._position - 3))
        if end < 0 or end > _LONGEST_HEAD:
            self._position = len(self._received)
            self.is_strict = end < 0 and len(self._received) <= _LONGEST_HEAD
            return False
        head = _strict_head(bytes(self._received[: end + 2]))
        if head is None:
            self.is_strict = False
            return False
        self._head = head
        self._body_at = self._position = end + 4
        return True

    def _join_chunks(self) -> None:
        received, position = self._received, self._position
        while (size := _STRICT_SIZE.match(received, position)) is not None and self._chunks < _MAX_CHUNKS:
            begin, length = size.end(), int(size[1], 16)
            end = begin + length
            # A trailer section makes no difference to anybody, and is one more thing that may be meant otherwise.
            self.is_strict = b"\r\n".startswith(received[end : end + 2])
            if len(received) < end + 2 or not self.is_strict:
                return
            self._chunks += 1
            position = self._position = end + 2
            if length == 0:
                self.body = bytes(self._joined)
                self.has_end = True
                self.has_surplus = len(received) > position
                return
            self._joined += received[begin:end]
        self.is_strict = len(received) - position < _LONGEST_SIZE and b"\n" not in received[position:]


class _Body:
    """Joins chunks as far as they make sense, whatever the head says of them: no document begins with a size.

    Bytes that are in no chunk, because a size is wrong, are kept.
    """

    def __init__(self) -> None:
        self.document = bytearray()
        self.has_end = False
        self.is_plain = False
        """Whether there are no chunks, or none any more."""
        self._pending = bytearray()
        """What may become a chunk size."""
        self._left = 0
        """Bytes that are missing in the last chunk."""
        self._chunks = 0

    def feed(self, data: bytes) -> None:
        if self._chunks == 0 and not self._pending and data.startswith(b"<"):
            self.is_plain = True
        if self.is_plain:
            self.document += data
            return
        if self._pending:
            data = bytes(self._pending) + data
            self._pending.clear()
        position, document = 0, self.document
        while position < len(data) and not self.has_end:
            if self._left:
                document += data[position : position + self._left]
                taken = min(self._left, len(data) - position)
                position += taken
                self._left -= taken
                continue
            size = _CHUNK_SIZE.match(data, position)
            if size is None:
                if _PART_OF_SIZE.fullmatch(data, position):
                    self._pending += data[position:]
                else:
                    self.is_plain = True
                    document += data[position:]
                return
            self._chunks += 1
            if self._chunks > _MAX_CHUNKS:
                raise InvalidResponseError(f"a reply in over {_MAX_CHUNKS} chunks")
            position = size.end()
            self._left = int(size[1], 16)
            self.has_end = self._left == 0

    def finish(self) -> bytes:
        return bytes(self.document + self._pending)


def parse_http_reply(received: bytes) -> HttpReply:
    """Return the reply in everything that arrived over a connection; raises what :class:`ReplyReader` raises."""
    reader = ReplyReader()
    reader.feed(received)
    return reader.finish()


def dechunked(body: bytes) -> bytes:
    """Join the chunks of a body as far as they make sense. What begins with ``<`` has none."""
    reader = _Body()
    reader.feed(body)
    return reader.finish()


@lru_cache(maxsize=16)
def _strict_head(head: bytes) -> _Head | None:
    """Return what a head says, None where it leaves a doubt. Those of a gateway hardly differ."""
    status_line = _STRICT_STATUS.match(head)
    if status_line is None:
        return None
    fields = _STRICT_FIELD.findall(head, status_line.end())
    # What is no field is missing in the sum: each has a colon and CRLF beside its two parts.
    if status_line.end() + sum(len(name) + len(value) + 3 for name, value in fields) != len(head):
        return None
    headers: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1").strip(" \t")
        values = found.setdefault(name.lower(), [])
        if not values:
            headers[name] = value
        values.append(value)
    status, is_1_0 = int(status_line[2]), status_line[1] == b"0"
    lengths, codings = found.get("content-length", []), found.get("transfer-encoding", [])
    length: int | None
    if found.get("content-encoding", ["identity"]) != ["identity"]:
        return None
    if status in (204, 304):
        length = 0
        if codings or lengths not in ([], ["0"]):
            return None
    elif codings:
        length = None
        if [each.lower() for each in codings] != ["chunked"] or lengths or is_1_0:
            return None
    elif len(lengths) == 1 and _DIGITS.fullmatch(lengths[0]):
        length = int(lengths[0])
    else:
        return None
    options = {each.strip().lower() for value in found.get("connection", ()) for each in value.split(",")}
    promises = [(name.lower(), int(value)) for name, value in _PROMISE.findall(",".join(found.get("keep-alive", ())))]
    stays_open = "close" not in options and (not is_1_0 or "keep-alive" in options) and ("timeout", 0) not in promises
    more = min((value for name, value in promises if name == "max"), default=_ANY_NUMBER)
    return _Head(status, MappingProxyType(headers), length, stays_open, more)


def _parse_headers(head: bytes) -> dict[str, str]:
    """Return the headers in a head, of those with one name the first; what is no header line is skipped."""
    headers: dict[str, list[str]] = {}
    seen: set[str] = set()
    values: list[str] | None = None
    for line in head.split(b"\n", _MAX_HEADERS)[1:_MAX_HEADERS]:
        text = line.decode("latin-1").rstrip()
        # Folded (RFC 9112 section 5.2), unless it is a header that begins with a blank by mistake.
        if values is not None and text[:1] in (" ", "\t") and not _INDENTED_HEADER.match(text):
            values.append(text.strip())
            continue
        name, colon, value = text.partition(":")
        name = name.strip()
        values = [value.strip()] if colon and name else None
        if values is not None and name.lower() not in seen:
            seen.add(name.lower())
            headers[name] = values
    return {name: " ".join(parts) for name, parts in headers.items()}
