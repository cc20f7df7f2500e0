"""Somebody who answers a search with datagrams without number, from a thread and from addresses of its own."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self

from aioigd.testing.network import search_socket

__all__ = ["FLOODS", "Flood"]

_HEAD: Final = b"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: upnp:rootdevice\r\nEXT:\r\n"


def _distinct() -> Iterator[bytes]:
    for number in itertools.count():
        yield _HEAD + b"LOCATION: http://192.0.2.1:1/%d.xml\r\nUSN: uuid:%d\r\n\r\n" % (number, number)


FLOODS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "distinct locations": _distinct,
    "the same reply": lambda: itertools.repeat(_HEAD + b"LOCATION: http://192.0.2.1:1/x.xml\r\n\r\n"),
    "64 KiB": lambda: itertools.repeat(_HEAD + b"X: " + b"y" * 65_000),
    "binary": lambda: (bytes((number % 256,)) * 1000 for number in itertools.count()),
    "empty": lambda: itertools.repeat(b""),
    "headers without end": lambda: itertools.repeat(_HEAD + b"a: b\r\n" * 1000 + b"\r\n"),
    "replies that are none": lambda: (b"HTTP/1.1 200 OK\r\nX: %d\r\n\r\n" % number for number in itertools.count()),
    "bad locations": lambda: (
        _HEAD + b"LOCATION: http://[:::%d]:99999/\r\n\r\n" % number for number in itertools.count()
    ),
}
"""What is sent, one datagram after another."""


class Flood:
    """Hears the search of ``client``, and answers from ``senders`` in turn until it has ``sent`` the ``most``."""

    def __init__(self, client: str, senders: list[str], datagrams: Iterator[bytes], *, most: int = 30_000) -> None:
        self._client = client
        self._senders = senders
        self._datagrams = datagrams
        self._most = most
        self._over = threading.Event()
        self.sent = 0

    def __enter__(self) -> Self:
        self._ear = search_socket(self._client)
        self._ear.setblocking(True)
        self._ear.settimeout(0.05)
        self._mouths = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in self._senders]
        for mouth, address in zip(self._mouths, self._senders, strict=True):
            mouth.bind((address, 0))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        for opened in (self._ear, *self._mouths):
            opened.close()

    def _run(self) -> None:
        victim = None
        mouths = itertools.cycle(self._mouths)
        while not self._over.is_set():
            try:
                _, heard = self._ear.recvfrom(2048)
            except TimeoutError:
                continue
            if heard[0] == self._client:
                victim = heard
                break
        while victim is not None and self.sent < self._most and not self._over.is_set():
            try:
                next(mouths).sendto(next(self._datagrams), victim)
            except OSError:  # the search is over
                return
            self.sent += 1
