"""What does the router announce? Its start and its changes, by PCP and NAT-PMP, to UDP port 5350.

Anybody in the LAN can send an announcement in its name, so each is a hint that it is time to look, and no more.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from ..core.backend import Backend, Hint, Listener, SearchScope
from ..errors import IGDError
from ..net.guard import check_destination
from ..net.interfaces import Interface, interfaces
from ..results import ProtocolName
from ..text import get_logger
from .epoch import Epoch, NatPmpEpoch, PcpEpoch
from .wire import nat_pmp, pcp
from .wire.common import CLIENT_PORT, GROUP_V4

__all__ = ["AnnouncementListener"]

log = get_logger("aioigd.lease")

_IP_MULTICAST_ALL: Final = 49
"""linux/in.h; not in the socket module of Python 3.11."""
_MAX_BATCH: Final = 16
"""Datagrams that are read at once; the rest waits."""
_PAUSE: Final = 0.1
"""Seconds after which datagrams are read again, so that a flood costs little."""


class AnnouncementListener(Listener):
    """Listens on every IPv4 interface on which routers are searched for, or on none where that is not possible.

    Only as long as the router in use is spoken to by ``protocol``: one listener of a program is enough.

    The first announcement of the router in use is RESTARTED: they are sent for nothing else (RFC 6887 section 14.1.3),
    but for a change of address. After that it is one whose epoch contradicts the one before, so that repetitions, of
    which there are ten, cost nothing. One that tells another external address than the last one is CHANGED, if it is
    not that; ``on_other_address`` is called for it in any case, before the hint.
    """

    def __init__(
        self,
        protocol: ProtocolName,
        on_hint: Callable[[Hint], None],
        scope: SearchScope,
        *,
        on_other_address: Callable[[], None],
    ) -> None:
        self._protocol = protocol
        self._on_hint = on_hint
        self._on_other_address = on_other_address
        self._scope = scope
        self._router: str | None = None
        self._epochs: tuple[PcpEpoch, NatPmpEpoch] = PcpEpoch(), NatPmpEpoch()
        self._address: IPv4Address | IPv6Address | None = None
        self._sockets: dict[Interface, socket.socket] = {}
        self._timers: dict[Interface, asyncio.TimerHandle] = {}

    def follow(self, backend: Backend | None, *, resubscribe: bool) -> None:
        """Heed the announcements of this router from now on."""
        router = backend.address if backend is not None and backend.protocol == self._protocol else None
        if router != self._router:
            self._router = router
            self._epochs = PcpEpoch(), NatPmpEpoch()
            self.refresh()

    def note_address(self, address: IPv4Address | IPv6Address | None) -> None:
        """Note the external address that the router told."""
        self._address = address

    def refresh(self) -> None:
        """Look at the interfaces, and listen on those that are there."""
        wanted: Sequence[Interface] = ()
        with suppress(IGDError):
            if self._router is not None:
                wanted = interfaces(source_address=self._scope.source_address)
        for gone in self._sockets.keys() - set(wanted):
            self._leave(gone)
        for interface in wanted:
            if interface not in self._sockets and not interface.is_ipv6:
                self._join(interface)

    async def close(self) -> None:
        """Leave the group."""
        for interface in list(self._sockets):
            self._leave(interface)

    def _join(self, interface: Interface) -> None:
        opened: socket.socket | None = None
        try:
            check_destination(GROUP_V4, interface.address)
            opened = _member_socket(interface)
            asyncio.get_running_loop().add_reader(opened, self._read, interface, opened)
        except (OSError, IGDError, NotImplementedError) as error:
            # Restarts are noticed by the next reply then.
            log.debug("announcements of PCP and NAT-PMP are not heard at %s: %s", interface.address, error)
            if opened is not None:
                opened.close()
        else:
            self._sockets[interface] = opened

    def _leave(self, interface: Interface) -> None:
        opened = self._sockets.pop(interface)
        timer = self._timers.pop(interface, None)
        if timer is not None:
            timer.cancel()
        asyncio.get_running_loop().remove_reader(opened)
        opened.close()

    def _read(self, interface: Interface, opened: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_MAX_BATCH):
            try:
                datagram, sender = opened.recvfrom(pcp.MAX_SIZE + 1)
            except OSError:
                return
            if sender[0] == self._router:
                self._heed(datagram)
        loop.remove_reader(opened)
        self._timers[interface] = loop.call_later(_PAUSE, self._resume, interface, opened)

    def _resume(self, interface: Interface, opened: socket.socket) -> None:
        del self._timers[interface]
        asyncio.get_running_loop().add_reader(opened, self._read, interface, opened)

    def _heed(self, datagram: bytes) -> None:
        by_pcp, by_nat_pmp = self._epochs
        response = pcp.parse_response(datagram)
        if response is not None:
            if response.opcode == pcp.Opcode.ANNOUNCE and response.result == pcp.ResultCode.SUCCESS:
                self._judge(by_pcp, response.epoch)
            return
        told = nat_pmp.parse_response(datagram)
        if isinstance(told, nat_pmp.AddressResponse):
            known, self._address = self._address, told.address
            is_another = known not in (None, told.address)
            if is_another:
                self._on_other_address()
            if not self._judge(by_nat_pmp, told.epoch) and is_another:
                self._on_hint(Hint.CHANGED)

    def _judge(self, known: Epoch, epoch: int) -> bool:
        """Give a hint if an epoch is the first one or contradicts the last one, and return whether it was given."""
        is_first = known.seconds is None
        has_restarted = known.lost_state(epoch, asyncio.get_running_loop().time()) or is_first
        if has_restarted:
            self._on_hint(Hint.RESTARTED)
        return has_restarted


def _member_socket(interface: Interface) -> socket.socket:
    """Return a socket that hears the group on one interface. Raises OSError where that is not possible."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform != "linux" and hasattr(socket, "SO_REUSEPORT"):
            # On macOS mDNSResponder has the port, and shares it with those who set this, too.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Bound to the group where that is possible: unicast datagrams belong to the sockets of other programs.
        opened.bind(("" if sys.platform == "win32" else GROUP_V4, CLIENT_PORT))
        if sys.platform == "linux":
            # Otherwise it receives the group from every interface on which any program has joined it.
            opened.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        member = struct.pack("4s4s", socket.inet_aton(GROUP_V4), socket.inet_aton(interface.address))
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    except BaseException:
        opened.close()
        raise
    return opened
