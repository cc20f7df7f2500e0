"""A listener for NOTIFY, the notifications that devices send unasked (UDA 1.1 section 1.2)."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from ...net.guard import check_destination
from ...net.interfaces import Interface
from ..wire import ssdp

__all__ = ["SsdpListener"]

wire_log = logging.getLogger("aioigd.traffic.ssdp")

_MAX_BATCH: Final = 64
"""Datagrams read before other tasks of the loop run."""
_IP_MULTICAST_ALL: Final = 49  # linux/in.h; not in the socket module of Python 3.11


class SsdpListener:
    """A member of the SSDP multicast group on some interfaces, until it is closed.

    ``on_notice`` is called with the contents and the sender of each NOTIFY. Datagrams of a sender that is not
    ``is_wanted`` are not parsed, so that a flood costs little.
    """

    def __init__(self, is_wanted: Callable[[str], bool], on_notice: Callable[[ssdp.Announcement, str], None]) -> None:
        self._is_wanted = is_wanted
        self._on_notice = on_notice
        self._sockets: list[socket.socket] = []

    async def open(self, interfaces: Sequence[Interface]) -> None:
        """Start listening.

        Raises OSError where the port is in use or no group can be joined, NotImplementedError on event loops
        without readers (the usual one of Windows), NoRouteError where the guard of tests forbids it.
        """
        for interface in interfaces:
            check_destination(_groups(interface)[0], interface.address)
        loop = asyncio.get_running_loop()
        try:
            for group in sorted({group for interface in interfaces for group in _groups(interface)}):
                sock = _member_socket(group, interfaces)
                try:
                    # No transport: closing one that is a member of a group leaves uvloop hanging when it is closed.
                    loop.add_reader(sock, self._read, sock)
                except BaseException:
                    sock.close()
                    raise
                self._sockets.append(sock)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the group and close the sockets."""
        loop = asyncio.get_running_loop()
        while self._sockets:
            sock = self._sockets.pop()
            loop.remove_reader(sock)
            sock.close()

    def _read(self, sock: socket.socket) -> None:
        for _ in range(_MAX_BATCH):
            try:
                datagram, address = sock.recvfrom(ssdp.MAX_DATAGRAM + 1)
            except OSError:
                return
            self._receive(datagram, address)

    def _receive(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        if not datagram.startswith(b"NOTIFY") or not self._is_wanted(str(address[0])):
            return
        announcement = ssdp.parse_datagram(datagram)
        if announcement is not None:
            wire_log.debug("from %s: %s", address[0], announcement)
            self._on_notice(announcement, str(address[0]))


def _groups(interface: Interface) -> tuple[str, ...]:
    return ssdp.MULTICAST_V6[:1] if interface.is_ipv6 else (ssdp.MULTICAST_V4,)


def _member_socket(group: str, interfaces: Sequence[Interface]) -> socket.socket:
    is_ipv6 = ":" in group
    sock = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform != "linux" and hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Bound to the group where that is possible: unicast datagrams belong to the sockets of other programs.
        bind_to = "" if sys.platform == "win32" else group
        if is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((bind_to, ssdp.PORT, 0, interfaces[0].index if bind_to else 0))
        else:
            sock.bind((bind_to, ssdp.PORT))
        if sys.platform == "linux" and not is_ipv6:
            # Otherwise it receives the group from every interface on which any program has joined it.
            sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        joined = [interface for interface in interfaces if _join(sock, group, interface)]
        if not joined:
            raise OSError(f"{group} cannot be joined on any interface")
    except BaseException:
        sock.close()
        raise
    return sock


def _join(sock: socket.socket, group: str, interface: Interface) -> bool:
    try:
        if interface.is_ipv6:
            request = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", interface.index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        else:
            request = socket.inet_aton(group) + socket.inet_aton(interface.address)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    except OSError as error:
        wire_log.debug("no notices on %s: %s", interface.address, error)
        return False
    return True
