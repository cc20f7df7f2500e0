"""A listener for NOTIFY, the notifications that devices send unasked (UDA 1.1 section 1.2)."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from ...net.guard import check_destination
from ...net.interfaces import Interface
from ...text import get_logger
from ..wire import ssdp

__all__ = ["SsdpListener", "TokenBucket"]

wire_log = get_logger("aioigd.traffic.ssdp")

_MAX_BATCH: Final = 256
"""Datagrams read at a time, before other tasks of the loop run."""
_READ_PAUSE: Final = 0.02
"""Seconds between two reads of a socket: in a flood each costs more than the datagrams that it finds."""
_RATE: Final = 50.0
"""NOTIFYs parsed a second, on each socket."""
_BURST: Final = 100.0
"""NOTIFYs parsed at once after a silence: a router with all its services sends some 30 at its start."""
_IP_MULTICAST_ALL: Final = 49  # linux/in.h; not in the socket module of Python 3.11


class TokenBucket:
    """A rate: ``rate`` tokens a second come in, as long as there are fewer than ``burst``. The clock is passed in."""

    __slots__ = ("_burst", "_rate", "_tokens", "_updated_at")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._updated_at = float("-inf")

    def take(self, now: float) -> bool:
        """Take a token, and return whether there was one."""
        self._tokens = min(self._burst, self._tokens + (now - self._updated_at) * self._rate)
        self._updated_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class _Member:
    """A socket that is a member of the group on one interface. Closing it leaves the group."""

    __slots__ = ("bucket", "interface", "quiet_until", "sock", "timer")

    def __init__(self, interface: Interface, sock: socket.socket) -> None:
        self.interface = interface
        self.sock = sock
        self.bucket = TokenBucket(_RATE, _BURST)
        self.quiet_until = float("-inf")
        self.timer: asyncio.TimerHandle | None = None


class SsdpListener:
    """A member of the SSDP multicast group on some interfaces, until it is closed.

    ``on_notice`` is called with the contents and the sender of each NOTIFY. Datagrams of a sender that is not
    ``is_wanted`` are not parsed, nor are more than :data:`_RATE` a second, so that a flood costs little. In a flood in
    the gateway's name its own may be among those that are dropped: all of them say only that it is time to look.
    """

    def __init__(self, is_wanted: Callable[[str], bool], on_notice: Callable[[ssdp.Announcement, str], None]) -> None:
        self._is_wanted = is_wanted
        self._on_notice = on_notice
        self._members: dict[tuple[str, int | str], _Member] = {}

    @property
    def interfaces(self) -> frozenset[Interface]:
        """Where it is a member now."""
        return frozenset(member.interface for member in self._members.values())

    def follow(self, interfaces: Sequence[Interface]) -> dict[Interface, OSError]:
        """Be a member on these interfaces from now on, and return where that is not possible, and why.

        Raises NotImplementedError on event loops without readers (the usual one of Windows), NoRouteError where the
        guard of tests forbids it.
        """
        for interface in interfaces:
            check_destination(_group(interface), interface.address)
        wanted: dict[tuple[str, int | str], list[Interface]] = {}
        for interface in interfaces:
            wanted.setdefault((_group(interface), interface.index or interface.address), []).append(interface)
        # One that has another address now may have been away, and then the system has forgotten the membership.
        for key in [key for key, member in self._members.items() if member.interface not in wanted.get(key, ())]:
            self._leave(self._members.pop(key))
        failures: dict[Interface, OSError] = {}
        for key, (interface, *_) in wanted.items():
            if key not in self._members:
                try:
                    self._members[key] = self._join(interface)
                except OSError as error:
                    failures[interface] = error
        return failures

    def close(self) -> None:
        """Leave the group and close the sockets."""
        while self._members:
            self._leave(self._members.popitem()[1])

    def _join(self, interface: Interface) -> _Member:
        member = _Member(interface, _member_socket(interface))
        try:
            # No transport: closing one that is a member of a group leaves uvloop hanging when it is closed.
            asyncio.get_running_loop().add_reader(member.sock, self._read, member)
        except BaseException:
            member.sock.close()
            raise
        return member

    def _leave(self, member: _Member) -> None:
        if member.timer is not None:
            member.timer.cancel()
        asyncio.get_running_loop().remove_reader(member.sock)
        member.sock.close()

    def _read(self, member: _Member) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now < member.quiet_until:
            loop.remove_reader(member.sock)
            member.timer = loop.call_at(member.quiet_until, self._resume, member)
            return
        member.quiet_until = now + _READ_PAUSE
        for _ in range(_MAX_BATCH):
            try:
                datagram, address = member.sock.recvfrom(ssdp.MAX_DATAGRAM + 1)
            except OSError:
                return
            if datagram.startswith(b"NOTIFY") and self._is_wanted(str(address[0])) and member.bucket.take(now):
                self._receive(datagram, address)

    def _resume(self, member: _Member) -> None:
        member.timer = None
        asyncio.get_running_loop().add_reader(member.sock, self._read, member)

    def _receive(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        announcement = ssdp.parse_datagram(datagram)
        if announcement is not None:
            wire_log.debug("from %s: %s", address[0], announcement)
            self._on_notice(announcement, str(address[0]))


def _group(interface: Interface) -> str:
    return ssdp.MULTICAST_V6[0] if interface.is_ipv6 else ssdp.MULTICAST_V4


def _member_socket(interface: Interface) -> socket.socket:
    """Return a socket that hears the group on one interface. Raises OSError where that is not possible."""
    group = _group(interface)
    sock = socket.socket(socket.AF_INET6 if interface.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform != "linux" and hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Bound to the group where that is possible: unicast datagrams belong to the sockets of other programs.
        bind_to = "" if sys.platform == "win32" else group
        if interface.is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((bind_to, ssdp.PORT, 0, interface.index if bind_to else 0))
            request = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", interface.index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        else:
            sock.bind((bind_to, ssdp.PORT))
            if sys.platform == "linux":
                # Otherwise it receives the group from every interface on which any program has joined it.
                sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            request = socket.inet_aton(group) + socket.inet_aton(interface.address)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    except BaseException:
        sock.close()
        raise
    return sock
