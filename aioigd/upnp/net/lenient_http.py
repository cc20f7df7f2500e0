"""A reader for replies that are not quite HTTP: for devices whose replies aiohttp refuses or cuts short.

The end of the document, or of the connection, is what counts, not the length that the head states.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from ...errors import TransportError
from ..wire.http_reply import BodyRule, HttpReply, ReplyReader
from ..wire.url import HttpUrl
from ..wire.xml import has_root_end_tag
from .connection import connect

__all__ = ["GRACE", "MAX_LOOKS", "ask", "build_request", "patience_after", "receive"]

MAX_LOOKS: Final = 256
"""How many times a growing reply is searched for its end: bounds the time for one that is sent byte by byte."""
GRACE: Final = 0.5
"""Seconds to wait for more than the head states."""
_FAULT_GRACE: Final = 2.0
"""The same behind the status of a fault, which is told by its body."""
_READ_SIZE: Final = 64 * 1024
"""Bytes read at once."""


async def ask(
    method: str,
    url: HttpUrl,
    source: str,
    headers: Mapping[str, str],
    body: bytes | None,
    body_rule: BodyRule = BodyRule.EXPECTED,
) -> HttpReply:
    """Send a request, head and body in one write, and return the reply.

    Raises TransportError where nobody is reached, or the connection ended without a byte, or before the body that the
    head states, OSError where it broke while the request was sent, NoRouteError where the guard of tests forbids it,
    and InvalidResponseError for a reply that breaks a cap.
    """
    request = build_request(method, url, headers, body)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(_READ_SIZE, loop)
    transport, protocol = await connect(url, source, lambda: asyncio.StreamReaderProtocol(reader, loop=loop))
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        writer.write(request)
        await writer.drain()
        reply = await receive(partial(reader.read, _READ_SIZE), body_rule)
    except GeneratorExit:
        raise  # nothing can be awaited any more
    except BaseException:
        await _abort(writer)
        raise
    await _abort(writer)
    if reply is None:
        raise TransportError(f"{url}: the connection was closed without an answer", may_have_arrived=True)
    return reply


def build_request(
    method: str, url: HttpUrl, headers: Mapping[str, str], body: bytes | None, *, closes: bool = True
) -> bytes:
    """Return the bytes of a request, in the order that aiohttp has; ``closes``: it says that it is the last one."""
    ordered = {"Host": url.netloc, **headers}
    lines = [f"{method} {url.target} HTTP/1.1", *[f"{name}: {value}" for name, value in ordered.items()]]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if closes:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def patience_after(status: int) -> float:
    """Return how many seconds to wait for a body that a head does not announce."""
    return _FAULT_GRACE if status == 500 else GRACE


async def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def receive(read: Callable[[], Awaitable[bytes]], body_rule: BodyRule) -> HttpReply | None:
    """Return the reply, None where nothing has come.

    ``read`` waits for the next bytes; b"" and OSError are the end of the connection.
    """
    reader = ReplyReader()
    wait: float | None = None
    looks = MAX_LOOKS
    is_empty = True
    while True:
        try:
            data = await asyncio.wait_for(read(), wait)
        except TimeoutError:
            break
        except OSError:
            break  # a reset after the reply is as good as a close
        if not data:
            break
        is_empty = False
        reader.feed(data)
        if not reader.has_head:
            continue
        if body_rule is BodyRule.NONE:
            return HttpReply(reader.status, b"", reader.headers)
        if reader.has_body_end:
            break
        if looks and reader.body and b">" in data:
            looks -= 1
            if has_root_end_tag(reader.body):
                break
        if reader.length is not None:
            wait = GRACE if len(reader.body) >= reader.length else None
        elif not reader.body:
            wait = patience_after(reader.status) if body_rule.lets_head_suffice(reader.headers) else None
        else:
            wait = None
    return None if is_empty else reader.finish()
