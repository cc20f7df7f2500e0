"""HTTP replies as devices write them: head and body, with malformed headers, wrong lengths, broken chunks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from ...errors import InvalidResponseError, TransportError
from .xml import MAX_DOCUMENT

__all__ = ["MAX_HEAD", "HttpReply", "content_length", "dechunked", "parse_http_reply", "split_reply"]

MAX_HEAD: Final = 32 * 1024
"""Bytes of a reply before its body. Real ones have under 1,000."""

_STATUS = re.compile(rb"\s*HTTP/?\d?\.?\d?\s+(\d{3})", re.IGNORECASE)
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"^content-length[ \t]*:[ \t]*(\d{1,9})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_ENCODED = re.compile(rb"^content-encoding[ \t]*:[ \t]*(?!identity)(\S+)", re.IGNORECASE | re.MULTILINE)
_CHUNK_SIZE = re.compile(rb"\s*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\n]{0,200})?\r?\n")


_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class HttpReply(NamedTuple):
    """A reply as far as it was received.

    ``status`` is 0 where there was no status line, ``headers`` is empty where aiohttp could not read the reply.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = _NO_HEADERS


def parse_http_reply(received: bytes) -> HttpReply:
    """Return the reply in everything that arrived over a connection, however little of it is HTTP.

    Raises InvalidResponseError for one that breaks a cap or is encoded, and TransportError where the body that the
    head promises is missing.
    """
    head, body = split_reply(received)
    if len(head) > MAX_HEAD:
        raise InvalidResponseError(f"a reply with a head of over {MAX_HEAD} bytes")
    encoded = _ENCODED.search(head)
    if encoded is not None:
        raise InvalidResponseError(f"a reply in the encoding {encoded.group(1)[:40]!r} is refused")
    if not body and content_length(head):
        raise TransportError("the connection was cut between the head of a reply and its body", may_have_arrived=True)
    status = _STATUS.match(head)
    return HttpReply(int(status.group(1)) if status else 0, body[:MAX_DOCUMENT])


def split_reply(received: bytes) -> tuple[bytes, bytes]:
    """Return head and body, the body without chunk sizes; without a head, everything is body."""
    if _STATUS.match(received) is None:
        return b"", received
    end = _HEAD_END.search(received)
    if end is None:
        return received, b""
    head, body = received[: end.start()], received[end.end() :]
    return head, body if body[:1] == b"<" else dechunked(body)


def content_length(head: bytes) -> int | None:
    """Return the length of the body by a head, None where it names none."""
    length = _LENGTH.search(head)
    return None if length is None else int(length.group(1))


def dechunked(body: bytes) -> bytes:
    """Join chunks as far as they make sense, whatever the head says of them: no document begins with a size.

    Bytes that are in no chunk, because a size is wrong, are kept. What begins with ``<`` has no chunks: callers need
    not call this for it.
    """
    parts: list[bytes] = []
    position = 0
    while size := _CHUNK_SIZE.match(body, position):
        length = int(size.group(1), 16)
        if length == 0:
            return b"".join(parts)
        parts.append(body[size.end() : size.end() + length])
        position = size.end() + length
    return b"".join([*parts, body[position:]])
