"""Writes down all that is said between a program and its router, for a bug report or a test.

::

    async with record("my-router.json"):
        async with PortMapper() as mapper:
            await mapper.add_port_mapping(8080, proto="TCP")

The file has every datagram and every HTTP message with its time. Addresses, UUIDs, MAC addresses and serial numbers
are replaced in it (see :mod:`aioigd.testing.scrubbing`); names that people have given to their router or to a mapping
are not. Look at it before you pass it on.
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

_MOST_EVENTS: Final = 10_000
"""A flood need not be written down to its end."""


@asynccontextmanager
async def record(path: str | Path) -> AsyncIterator[None]:
    """Record what this task, and those it starts, say to routers while the block runs; the file is written in the end.

    What happens on an error in the block is written, too: then it is needed most.
    """
    recorder = _Recorder()
    token = tracer.set(recorder)
    try:
        yield
    finally:
        tracer.reset(token)
        recorder.conversation().save(path)


class _Recorder:
    """Listens, and remembers."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._events: list[DatagramEvent | HttpEvent] = []
        self._scrubber = Scrubber()

    def datagram(self, direction: Literal["in", "out"], payload: bytes, peer: str) -> None:
        """Note a datagram."""
        if len(self._events) < _MOST_EVENTS:
            time = self._loop.time() - self._began
            self._events.append(DatagramEvent(_rounded(time), direction, self._text(peer), self._bytes(payload)))

    def exchange(self, exchange: HttpExchange) -> None:
        """Note an HTTP request and its reply."""
        if len(self._events) >= _MOST_EVENTS:
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
        """Return all that was heard, in the order in which it began."""
        about = {"aioigd": version("aioigd"), "python": platform.python_version(), "system": platform.system()}
        return Conversation(tuple(sorted(self._events, key=lambda event: event.time)), about)

    def _text(self, text: str) -> str:
        return self._scrubber.text(text)

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: self._text(value) for name, value in headers.items()}

    def _bytes(self, content: bytes) -> str:
        # As Latin-1 every byte is a character, so nothing private hides in what is no UTF-8.
        return written(self._text(content.decode("latin-1")).encode("latin-1"))


def _rounded(seconds: float) -> float:
    return round(seconds, 4)
