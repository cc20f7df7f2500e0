"""Plain blocking traffic, made in whatever namespace the calling thread is in."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


def send_tcp(host: str, port: int, payload: bytes, timeout: float) -> bytes:
    with socket.create_connection((host, port), timeout=timeout) as connection:
        connection.sendall(payload)
        connection.shutdown(socket.SHUT_WR)
        return _read_all(connection)


def send_udp(host: str, port: int, payload: bytes, timeout: float) -> bytes:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.settimeout(timeout)
        sender.connect((host, port))
        sender.send(payload)
        return sender.recv(65536)


def _read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


class Answering:
    """A server in a thread of its own that answers every payload with a prefix and that payload.

    Its socket is made by the thread that makes the object, so it stays in that thread's namespace.
    """

    def __init__(self, proto: str, port: int, prefix: bytes, *, ipv6: bool = False) -> None:
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self._prefix = prefix
        self._socket = socket.socket(family, socket.SOCK_STREAM if proto == "TCP" else socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ipv6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._socket.bind(("", port))
        self.port: int = self._socket.getsockname()[1]
        self._stopping = False
        serve = self._serve_tcp if proto == "TCP" else self._serve_udp
        if proto == "TCP":
            self._socket.listen()
        self._thread = threading.Thread(target=serve, name=f"answering {proto} {self.port}", daemon=True)

    def __enter__(self) -> Answering:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        # Wakes the thread from accept() and recvfrom(), also where it says that the socket is not connected.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5.0)
        self._socket.close()

    def _serve_tcp(self) -> None:
        while not self._stopping:
            with contextlib.suppress(OSError):
                connection, _ = self._socket.accept()
                with connection:
                    connection.settimeout(5.0)
                    connection.sendall(self._prefix + _read_all(connection))

    def _serve_udp(self) -> None:
        while not self._stopping:
            with contextlib.suppress(OSError):
                payload, sender = self._socket.recvfrom(65536)
                if not self._stopping:
                    self._socket.sendto(self._prefix + payload, sender)


class Canary:
    """A listener that notes who connects to it, by address."""

    def __init__(self, port: int) -> None:
        self.callers: list[str] = []
        self._socket = socket.create_server(("", port))
        self._socket.setblocking(False)

    def __enter__(self) -> Canary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._socket, contextlib.suppress(BlockingIOError):
            while True:
                connection, caller = self._socket.accept()
                connection.close()
                self.callers.append(caller[0])
