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
from typing import Any, Final

from ...net.guard import VARIABLE, check_destination

__all__ = ["connect", "open_socket"]

_IP_BIND_ADDRESS_NO_PORT: Final = 24  # Linux; the socket module names it only from Python 3.12 on


async def connect(host: str, port: int, source: str) -> socket.socket:
    """Return a socket that is connected from the local address ``source`` ("" for any), and does not block.

    Raises what :func:`open_socket` raises, and OSError where nobody is reached.
    """
    sock, address = open_socket(host, port, source)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


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
            zone = int(name) if name.isdecimal() else socket.if_nametoindex(name)
    try:
        socket.inet_pton(family, number)
    except OSError:
        raise OSError(f"{host} is a name, and only that of a location is looked up") from None
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if source:
            if sys.platform == "linux":
                # Without it each bind takes a port for itself, and a batch of thousands runs out of them.
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            if (":" in source) != (family == socket.AF_INET6):
                raise OSError(errno.EAFNOSUPPORT, f"{host} cannot be reached from {source}")
            sock.bind((source, 0, 0, zone) if family == socket.AF_INET6 else (source, 0))
    except BaseException:
        sock.close()
        raise
    return sock, (number, port, 0, zone) if family == socket.AF_INET6 else (number, port)
