"""Records the traffic between a program and its router to a file, for a bug report or a test.

::

    async with record("my-router.json"):
        async with PortMapper() as mapper:
            await mapper.add_port_mapping(8080, proto="TCP")

The file has every datagram and every HTTP message with its time. Addresses, UUIDs, MAC addresses and serial numbers
are replaced in it (see :mod:`aioigd.testing.scrubbing`); the names of the router and of mappings are not. Read it
before you publish it.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

from ..net.trace import HttpExchange, tracer
from .conversation import Conversation, DatagramEvent, HttpEvent, written
from .scrubbing import Scrubber

__all__ = ["record"]

_MAX_EVENTS: Final = 10_000
"""Datagrams and HTTP exchanges in a file; later ones are not recorded."""


@asynccontextmanager
async def record(path: str | Path) -> AsyncIterator[None]:
    """Record the traffic of this task, and of those that it starts, and write the file when the block ends.

    The file is written also where the block raises.
    """
    recorder = _Recorder()
    token = tracer.set(recorder)
    try:
        yield
    finally:
        tracer.reset(token)
        recorder.conversation().save(path)


class _Recorder:
    """A tracer that collects events."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._events: list[DatagramEvent | HttpEvent] = []
        self._scrubber = Scrubber()

    def datagram(self, direction: Literal["in", "out"], payload: bytes, peer: str) -> None:
        """Record a datagram."""
        if len(self._events) < _MAX_EVENTS:
            time = self._loop.time() - self._began
            self._events.append(DatagramEvent(_rounded(time), direction, self._text(peer), self._bytes(payload)))

    def exchange(self, exchange: HttpExchange) -> None:
        """Record an HTTP request and its reply."""
        if len(self._events) >= _MAX_EVENTS:
            return
        self._events.append(
            HttpEvent(
                time=_rounded(exchange.began - self._began),
                seconds=_rounded(exchange.seconds),
                method=exchange.method,
                url=self._text(exchange.url),
                headers=self._headers(exchange.headers),
                body=self._bytes(exchange.body),
                status=exchange.status,
                reply_headers=self._headers(exchange.reply_headers),
                reply=self._bytes(exchange.reply),
                failure=exchange.failure,
            )
        )

    def conversation(self) -> Conversation:
        """Return all events in the order in which they began."""
        about = {"aioigd": version("aioigd"), "python": platform.python_version(), "system": platform.system()}
        return Conversation(tuple(sorted(self._events, key=lambda event: event.time)), about)

    def _text(self, text: str) -> str:
        return self._scrubber.text(text)

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: self._text(value) for name, value in headers.items()}

    def _bytes(self, content: bytes) -> str:
        # In Latin-1 every byte is a character, so that private data in invalid UTF-8 is replaced as well.
        return written(self._text(content.decode("latin-1")).encode("latin-1"))


def _rounded(seconds: float) -> float:
    return round(seconds, 4)
