"""A reader for replies that are not quite HTTP: for devices whose replies aiohttp refuses or cuts short.

The end of the document, or of the connection, is what counts, not the length that the head states.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from ...errors import InvalidResponseError, TransportError
from ...net.guard import check_destination
from ..wire.http_reply import MAX_HEAD, HttpReply, content_length, parse_http_reply, split_reply
from ..wire.url import HttpUrl
from ..wire.xml import MAX_DOCUMENT, has_root_end_tag

__all__ = ["MAX_LOOKS", "ask", "zone_index"]

MAX_LOOKS: Final = 256
"""How many times a growing reply is searched for its end: bounds the time for one that is sent byte by byte."""
_GRACE: Final = 0.5
"""Seconds to wait for more than the length that the head states."""


async def ask(method: str, url: HttpUrl, source: str, headers: Mapping[str, str], body: bytes | None) -> HttpReply:
    """Send a request, head and body in one write, and return the reply.

    Raises OSError as asyncio does, TransportError where the connection ended without a byte, or before the body
    that the head states, NoRouteError where the guard of tests forbids it, and InvalidResponseError for a reply that
    breaks a cap.
    """
    lines = [f"{method} {url.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    request = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + (body or b"")
    check_destination(url.host)
    reader, writer = await _connect(url, source)
    try:
        writer.write(request)
        await writer.drain()
        received = await _receive(reader)
    except GeneratorExit:
        raise  # nothing can be awaited any more
    except BaseException:
        await _abort(writer)
        raise
    await _abort(writer)
    if not received:
        raise TransportError(f"{url}: the connection was closed without an answer", may_have_arrived=True)
    return parse_http_reply(received)


async def _connect(url: HttpUrl, source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if "%" not in url.host:
        local = (source, 0) if source else None
        return await asyncio.open_connection(url.host, url.port, local_addr=local, limit=MAX_HEAD)
    # asyncio would have a host with a zone resolved in the executor of the application.
    zone = zone_index(url.host)
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if source:
            sock.bind((source, 0, 0, zone))
        await asyncio.get_running_loop().sock_connect(sock, (url.host.partition("%")[0], url.port, 0, zone))
        return await asyncio.open_connection(sock=sock, limit=MAX_HEAD)
    except BaseException:
        sock.close()
        raise


def zone_index(host: str) -> int:
    """Return the zone of a link-local host as a number. Raises OSError for one that this machine does not have."""
    zone = host.partition("%")[2]
    return int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)


async def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


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
            head, document = split_reply(bytes(received))
            if document and has_root_end_tag(document):
                break
            length = content_length(head)
            wait = _GRACE if length is not None and len(document) >= length else None
    return bytes(received)
