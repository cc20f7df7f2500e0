"""A reader for replies that are not quite HTTP.

For devices whose replies aiohttp refuses or cuts short: malformed header lines, lengths that are wrong in
either direction, broken chunks, no status line. The end of the document, or of the connection, is what counts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from ...errors import InvalidResponseError, TransportError
from ..wire.url import HttpUrl
from ..wire.xml import MAX_DOCUMENT, has_root_end_tag

__all__ = ["HttpReply", "ask", "dechunked"]

MAX_HEAD: Final = 32 * 1024
MAX_LOOKS: Final = 256
"""How often a growing reply is looked at for its end; who sends it byte by byte gets no more work out of us."""
_GRACE: Final = 0.5
"""Seconds to wait for more, once as much has come as the head promised."""

_STATUS = re.compile(rb"\s*HTTP/?\d?\.?\d?\s+(\d{3})", re.IGNORECASE)
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"^content-length[ \t]*:[ \t]*(\d{1,9})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_ENCODED = re.compile(rb"^content-encoding[ \t]*:[ \t]*(?!identity)(\S+)", re.IGNORECASE | re.MULTILINE)
_CHUNK_SIZE = re.compile(rb"\s*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\n]{0,200})?\r?\n")


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A reply as far as it came. ``status`` is 0 where none could be read, ``headers`` is empty where it was sloppy."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)


async def ask(method: str, url: HttpUrl, source: str, headers: Mapping[str, str], body: bytes | None) -> HttpReply:
    """Send a request, head and body in one write, and return what came back.

    Raises OSError as asyncio does, TransportError where the connection ended without a byte, or before the first
    one of the body that was promised, and InvalidResponseError for a reply that breaks a cap.
    """
    lines = [f"{method} {url.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    request = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + (body or b"")
    zone = url.host.partition("%")[2]
    local = (f"{source}%{zone}" if zone and ":" in source else source, 0) if source else None
    reader, writer = await asyncio.open_connection(url.host, url.port, local_addr=local, limit=MAX_HEAD)
    try:
        writer.write(request)
        await writer.drain()
        received = await _receive(reader)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()
    if not received:
        raise TransportError(f"{url}: the connection was closed without an answer", may_have_arrived=True)
    return _parse(received)


async def _receive(reader: asyncio.StreamReader) -> bytes:
    received = bytearray()
    wait: float | None = None
    looks = MAX_LOOKS
    while True:
        try:
            chunk = await asyncio.wait_for(reader.read(65536), wait)
        except TimeoutError:
            break
        except OSError:
            break  # a reset after the reply is as good as a close
        if not chunk:
            break
        received += chunk
        if len(received) > MAX_DOCUMENT + MAX_HEAD:
            raise InvalidResponseError(f"a reply of over {MAX_DOCUMENT} bytes")
        if looks and (b">" in chunk or b"\n" in chunk):
            looks -= 1
            head, document = _split(bytes(received))
            if document and has_root_end_tag(document):
                break
            length = _LENGTH.search(head)
            wait = _GRACE if length is not None and len(document) >= int(length.group(1)) else None
    return bytes(received)


def _split(received: bytes) -> tuple[bytes, bytes]:
    """Return head and body; without a head, everything is body."""
    if _STATUS.match(received) is None:
        return b"", received
    end = _HEAD_END.search(received)
    if end is None:
        return received, b""
    head, document = received[: end.start()], received[end.end() :]
    return head, dechunked(document)


def _parse(received: bytes) -> HttpReply:
    head, document = _split(received)
    if len(head) > MAX_HEAD:
        raise InvalidResponseError(f"a reply with a head of over {MAX_HEAD} bytes")
    encoded = _ENCODED.search(head)
    if encoded is not None:
        raise InvalidResponseError(f"a reply in the encoding {encoded.group(1)[:40]!r} is refused")
    length = _LENGTH.search(head)
    if not document and length is not None and int(length.group(1)):
        raise TransportError("the connection was cut between the head of a reply and its body", may_have_arrived=True)
    status = _STATUS.match(head)
    return HttpReply(int(status.group(1)) if status else 0, document[:MAX_DOCUMENT])


def dechunked(document: bytes) -> bytes:
    """Join chunks as far as they make sense, whether or not the head speaks of them: no document begins with a size.

    What is in none, as where sizes are wrong, is left as it is.
    """
    parts: list[bytes] = []
    position = 0
    while size := _CHUNK_SIZE.match(document, position):
        length = int(size.group(1), 16)
        if length == 0:
            return b"".join(parts)
        parts.append(document[size.end() : size.end() + length])
        position = size.end() + length
    return b"".join([*parts, document[position:]])
