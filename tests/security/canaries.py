"""Listeners that nobody may ever talk to, on TCP and UDP, on several loopback addresses at the same port."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from aioigd.testing import loopback_address

__all__ = ["Canaries"]

_ATTEMPTS: Final = 20


class Canaries:
    """A TCP listener and a UDP socket at ``port`` of each of ``addresses``.

    ``heard`` is what has reached them: connections count without a byte, too.
    """

    def __init__(self, count: int = 2) -> None:
        self._count = count
        self._stack = ExitStack()
        self._listeners: list[socket.socket] = []
        self._ears: list[socket.socket] = []
        self.addresses: list[str] = []
        self.port = 0

    def __enter__(self) -> Self:
        self.addresses = [self._stack.enter_context(loopback_address()) for _ in range(self._count)]
        for _ in range(_ATTEMPTS):
            try:
                self._open()
            except OSError:  # the port is taken at one of the others
                self._close()
            else:
                return self
        raise OSError("no port is free on all addresses")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._stack.close()

    @property
    def address(self) -> str:
        """The first of the addresses."""
        return self.addresses[0]

    @property
    def url(self) -> str:
        """Where the first of them would be asked."""
        return f"http://{self.address}:{self.port}/canary"

    @property
    def heard(self) -> list[str]:
        """What has reached any of them."""
        found = []
        for listener in self._listeners:
            try:
                connection, peer = listener.accept()
            except BlockingIOError:
                continue
            connection.close()
            found.append(f"a connection from {peer}")
        for ear in self._ears:
            try:
                datagram, peer = ear.recvfrom(65536)
            except BlockingIOError:
                continue
            found.append(f"{datagram!r} from {peer}")
        return found

    def _open(self) -> None:
        for address in self.addresses:
            listener = socket.create_server((address, self.port))
            self._listeners.append(listener)
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._ears.append(ear)
            ear.setblocking(False)
            ear.bind((address, self.port))

    def _close(self) -> None:
        for opened in (*self._listeners, *self._ears):
            opened.close()
        self._listeners.clear()
        self._ears.clear()
        self.port = 0
