"""How a connection to a device is made: from which of our addresses, in which zone, and past every resolver.

asyncio and aiohttp look up what they connect to, a link-local address with a zone in the executor of the application.
Here a host is a number, and nothing is looked up.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from ...errors import TransportError
from ...net.guard import VARIABLE, check_destination
from ...text import system_message
from ..wire.url import HttpUrl

__all__ = ["connect", "open_socket"]

_IP_BIND_ADDRESS_NO_PORT: Final = 24  # Linux; the socket module names it only from Python 3.12 on
_MAX_DIGITS: Final = 9
"""Of a zone that is a number: what is longer is none of an interface."""

_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)


async def connect(url: HttpUrl, source: str, factory: Callable[[], _Protocol]) -> tuple[asyncio.Transport, _Protocol]:
    """Connect a protocol that ``factory`` makes to the host of ``url``, from the local address ``source`` ("" for any).

    Raises TransportError where nobody is reached: whatever it is, nothing was sent.
    """
    loop = asyncio.get_running_loop()
    sock: socket.socket | None = None
    try:
        sock, address = open_socket(url.host, url.port, source)
        await loop.sock_connect(sock, address)
        return await loop.create_connection(factory, sock=sock)
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, OSError):
            raise TransportError(f"{url}: {system_message(error)}", may_have_arrived=False) from error
        raise


def open_socket(host: str, port: int, source: str) -> tuple[socket.socket, tuple[Any, ...]]:
    """Return a socket that is still to be connected, from ``source``, to the address that is returned with it.

    ``host`` is an IP address, a link-local one with its zone (RFC 4007 section 11). Raises OSError for a name, a zone
    that this machine does not have and a source that is not its own, and NoRouteError where the guard of tests forbids
    the host.
    """
    if VARIABLE in os.environ:
        check_destination(host)
    zone = 0
    family, number = socket.AF_INET, host
    if ":" in host:
        family = socket.AF_INET6
        if "%" in host:
            number, _, name = host.partition("%")
            zone = int(name) if name.isdecimal() and len(name) <= _MAX_DIGITS else socket.if_nametoindex(name)
    try:
        socket.inet_pton(family, number)
    except OSError:
        raise OSError(f"{host} is a name, and only that of a location is looked up") from None
    sock = _ZonedSocket(zone) if zone else socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if source:
            if sys.platform == "linux":
                # Without it each bind takes a port for itself, and a batch of thousands runs out of them.
                with suppress(OSError):  # some who run programs for Linux do not have it
                    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            if (":" in source) != (family == socket.AF_INET6):
                raise OSError(errno.EAFNOSUPPORT, f"{host} cannot be reached from {source}")
            sock.bind((source, 0, 0, zone) if family == socket.AF_INET6 else (source, 0))
    except BaseException:
        sock.close()
        raise
    return sock, (number, port, 0, zone) if family == socket.AF_INET6 else (number, port)


class _ZonedSocket(socket.socket):
    """A socket that connects to a link-local address in its zone, an interface number, which uvloop forgets."""

    def __init__(self, zone: int) -> None:
        super().__init__(socket.AF_INET6, socket.SOCK_STREAM)
        self._zone = zone

    def connect(self, address: Any) -> None:
        super().connect((*address[:3], self._zone))
