"""Records the traffic between a program and its router to a file, for a bug report or a test.

::

    async with record("my-router.json"):
        async with PortMapper() as mapper:
            await mapper.add_port_mapping(8080, proto="TCP")

The file has every datagram of SSDP, PCP and NAT-PMP and every HTTP message with its time. What could tell who or where
somebody is, is replaced in it (see :mod:`aioigd.testing.scrubbing`).
"""

from __future__ import annotations

import asyncio
import platform
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.parse import quote

from ..net.trace import HttpExchange, tracer
from ..pcp.wire import pcp
from ..upnp.wire.ssdp import MAX_DATAGRAM
from .conversation import (
    MAX_EVENTS,
    MAX_HEADERS,
    MAX_VALUES,
    Conversation,
    DatagramEvent,
    Event,
    HttpEvent,
    PcpEvent,
    is_header,
    written,
)
from .new_file import check_place, checked_path
from .pcp_replay import MAX_REPLIES
from .pcp_scrubbing import described
from .scrubbing import Scrubber

__all__ = ["record"]

_MAX_BYTES: Final = 4 * 1024 * 1024
"""Bytes of all messages."""
_MAX_HEARD: Final = 1024 * 1024
"""Bytes of the datagrams that came in: whoever sends many leaves room for what the router is asked."""
_MAX_OF_PEER: Final = 500
"""Datagrams of one sender."""
_MAX_BYTES_OF_PEER: Final = 128 * 1024
"""Bytes of them. A router that answers eight rounds of searches sends some 20 KiB."""
_VALUES_OF_EVENT: Final = 24
"""JSON values of an event without its headers."""
_URL_CHARACTERS: Final = "!#$%&'()*+,/:;=?@[]~"


@asynccontextmanager
async def record(path: str | Path, *, overwrite: bool = False) -> AsyncIterator[None]:
    """Record the traffic of this task, and of those that it starts, and write the file when the block ends.

    The file is a new one that only you may read. It is there when it is complete, also where the block raises. What
    has the name already is an error before the block begins (FileExistsError), unless ``overwrite`` says that it may be
    replaced. Raises OSError where nothing can be written.

    Words and numbers that could tell who or where you are, are replaced in it: addresses, UUIDs, MAC addresses, serial
    numbers, passwords, cookies, and every word that is not one of the UPnP standards, of HTTP, or of router
    software. It has at most 10,000 messages of 4 MiB; ``about`` in it says how many were left out.
    """
    place = checked_path(path)
    check_place(place, overwrite=overwrite)
    recorder = _Recorder()
    token = tracer.set(recorder)
    try:
        yield
    finally:
        tracer.reset(token)
        await _finish(recorder, place, overwrite=overwrite)


async def _finish(recorder: _Recorder, path: Path, *, overwrite: bool) -> None:
    """Write the file in a thread, as that may take a second, and wait for it even where this task is cancelled."""
    loop = asyncio.get_running_loop()
    job = loop.run_in_executor(None, lambda: recorder.conversation().save(path, overwrite=overwrite))
    cancelled: asyncio.CancelledError | None = None
    while not job.done():
        try:
            await asyncio.wait([job])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if job.exception() is not None:
            raise cancelled from job.exception()
        raise cancelled
    job.result()


class _Datagram(NamedTuple):
    """A datagram of SSDP as it was seen."""

    time: float
    direction: Literal["in", "out"]
    payload: bytes
    peer: str


class _PcpDatagram(NamedTuple):
    """A datagram of PCP or NAT-PMP as it was seen."""

    time: float
    direction: Literal["in", "out"]
    payload: bytes
    peer: str
    failure: str


class _Recorder:
    """A tracer that collects messages as they are, up to its limits, and removes what is private in the end.

    That has to wait for the end: what is private in the first message may be told by the last.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._seen: list[_Datagram | _PcpDatagram | HttpExchange] = []
        self._datagrams_of: Counter[str] = Counter()
        self._bytes_of: Counter[str] = Counter()
        self._heard = 0
        self._pcp_expected = 0
        self._bytes = 0
        self._values = 0
        self._left_out = 0

    def datagram(self, direction: Literal["in", "out"], payload: bytes, peer: str) -> None:
        """Keep a datagram. Of one that is too long to be read by anybody, only the beginning."""
        payload = payload[: MAX_DATAGRAM + 1]
        size = len(payload)
        if direction == "in":
            datagrams, heard = self._datagrams_of.get(peer, 0), self._bytes_of.get(peer, 0) + size
            if datagrams >= _MAX_OF_PEER or heard > _MAX_BYTES_OF_PEER or self._heard + size > _MAX_HEARD:
                self._left_out += 1
                return
        if self._has_room(size, 0):
            if direction == "in":
                self._heard += size
                self._bytes_of[peer] += size
                self._datagrams_of[peer] += 1
            self._seen.append(_Datagram(self._loop.time() - self._began, direction, payload, peer))

    def pcp_datagram(self, direction: Literal["in", "out"], payload: bytes, peer: str, failure: str = "") -> None:
        """Keep a datagram, as long as there are not many more replies than requests."""
        payload = payload[: pcp.MAX_SIZE + 1]
        heard = self._heard + len(payload)
        if direction == "in" and (self._pcp_expected <= 0 or heard > _MAX_HEARD):
            self._left_out += 1
        elif self._has_room(len(payload), 0):
            if direction == "in":
                self._heard = heard
            self._pcp_expected += MAX_REPLIES if direction == "out" else -1
            self._seen.append(_PcpDatagram(self._loop.time() - self._began, direction, payload, peer, failure))

    def exchange(self, exchange: HttpExchange) -> None:
        """Keep an HTTP request and its reply."""
        headers = _limited(exchange.headers)
        reply_headers = _limited(exchange.reply_headers)
        size = sum(len(name) + len(value) for each in (headers, reply_headers) for name, value in each.items())
        size += len(exchange.body) + len(exchange.reply) + len(exchange.url)
        if self._has_room(size, 2 * (len(headers) + len(reply_headers))):
            self._seen.append(
                exchange._replace(headers=headers, reply_headers=reply_headers, began=exchange.began - self._began)
            )

    def _has_room(self, size: int, values: int) -> bool:
        values += _VALUES_OF_EVENT
        if len(self._seen) >= MAX_EVENTS or self._bytes + size > _MAX_BYTES or self._values + values > MAX_VALUES:
            self._left_out += 1
            return False
        self._bytes += size
        self._values += values
        return True

    def conversation(self) -> Conversation:
        """Return all messages in the order in which they began, without what is private."""
        seen = sorted(self._seen, key=lambda each: each.began if isinstance(each, HttpExchange) else each.time)
        scrubber = Scrubber()
        for each in seen:
            if isinstance(each, _Datagram):
                scrubber.learn_datagram(each.payload)
            elif isinstance(each, HttpExchange):
                scrubber.learn(each.reply)
                for name, value in each.reply_headers.items():
                    scrubber.learn(f"{name}: {value}")
        events = tuple(_scrubbed(each, scrubber) for each in seen)
        about = {"aioigd": version("aioigd"), "python": platform.python_version(), "system": platform.system()}
        if self._left_out:
            about["left out"] = f"{self._left_out} messages"
        return Conversation(events, about)


def _scrubbed(seen: _Datagram | _PcpDatagram | HttpExchange, scrubber: Scrubber) -> Event:
    if isinstance(seen, HttpExchange):
        return _scrubbed_exchange(seen, scrubber)
    if isinstance(seen, _PcpDatagram):
        peer, datagram = scrubber.address(seen.peer), scrubber.pcp_datagram(seen.payload)
        says = f"nobody listens at the port: {seen.failure}" if seen.failure else described(datagram)
        return PcpEvent(_rounded(seen.time), seen.direction, peer, datagram.hex(" ", -4), says, seen.failure)
    peer = scrubber.address(seen.peer)
    return DatagramEvent(_rounded(seen.time), seen.direction, peer, written(scrubber.datagram(seen.payload)))


def _scrubbed_exchange(seen: HttpExchange, scrubber: Scrubber) -> HttpEvent:
    reply = scrubber.content(seen.reply)
    return HttpEvent(
        time=_rounded(seen.began),
        seconds=_rounded(seen.seconds),
        method=seen.method,
        url=quote(scrubber.url(seen.url), safe=_URL_CHARACTERS),
        headers=_scrubbed_headers(seen.headers, scrubber),
        body=written(scrubber.content(seen.body)),
        status=seen.status,
        reply_headers=_scrubbed_headers(seen.reply_headers, scrubber, grown=len(reply) - len(seen.reply)),
        reply=written(reply),
        failure=seen.failure,
    )


def _scrubbed_headers(headers: Mapping[str, str], scrubber: Scrubber, grown: int = 0) -> dict[str, str]:
    """Return headers without what is private; the length of a body that has grown is corrected by as much."""
    scrubbed: dict[str, str] = {}
    for name, value in headers.items():
        new_name, new_value = scrubber.header(name, value)
        if name.lower() == "content-length" and value.isascii() and value.isdigit() and len(value) < 10:
            new_value = str(max(0, int(value) + grown))
        new_value = "".join(each if is_header("X", each) else "?" for each in new_value)
        if is_header(new_name, new_value):
            scrubbed[new_name] = new_value
    return scrubbed


def _limited(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as they were on the wire, a character for each byte; the first 64 of them, without their ends."""
    pairs = list(headers.items())[:MAX_HEADERS]
    return {name: value.encode("utf-8", "surrogateescape").decode("latin-1")[:4096] for name, value in pairs}


def _rounded(seconds: float) -> float:
    return round(max(0.0, seconds), 4)
