"""Has the gateway restarted? What its NOTIFYs and events say about it.

NOTIFYs (UDA 1.1 section 1.2) come from anybody in the LAN who cares to send them: what is concluded from them is a
hint, and what follows from a hint is for others to decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from ..core.backend import Backend, Hint, Listener, SearchScope
from ..errors import IGDError
from ..models import Device
from ..net.interfaces import interfaces
from ..text import get_logger
from .backend import gateway_host
from .event_subscription import EventSubscription
from .net.http import HttpClient
from .net.ssdp_listener import SsdpListener
from .wire import ssdp
from .wire.description import udn_key
from .wire.url import parse_url, same_address

__all__ = ["RebootDetector", "UpnpListener"]

log = get_logger("aioigd.lease")

_LOOK_AGAIN: Final = 5.0
"""Seconds until the interfaces are looked at again, where notices cannot be heard on some of them."""
_BYEBYE: Final = "ssdp:byebye"
_GATEWAY: Final = "InternetGatewayDevice"


class RebootDetector:
    """Concludes from NOTIFYs whether the gateway has restarted, or is about to. Pure: no I/O, no clock.

    ==========================================================  =========================================
    a NOTIFY of the gateway says                                hint
    ==========================================================  =========================================
    byebye, the first since it was alive                        RESTARTED
    alive after a byebye, or with another location              RESTARTED
    another BOOTID.UPNP.ORG than the one before                 RESTARTED
    the first BOOTID.UPNP.ORG that is heard of it               CHANGED: nobody knows whether it is new
    ==========================================================  =========================================
    """

    def __init__(self) -> None:
        self._boot_id: int | None = None
        self._said_byebye = False

    def on_notify(self, announcement: ssdp.Announcement, gateway: Device) -> Hint | None:
        """Return what a NOTIFY from the gateway's host means: the host may run other devices, too."""
        udn = udn_key(gateway.udn)
        is_gateway = bool(udn) and udn_key(announcement.usn).startswith(udn)
        if not is_gateway and _GATEWAY not in announcement.target:
            return None
        if announcement.kind == _BYEBYE:
            is_first, self._said_byebye = not self._said_byebye, True
            return Hint.RESTARTED if is_first else None
        has_moved = False
        with suppress(ValueError):
            known = parse_url(gateway.description_url)
            has_moved = parse_url(announcement.location).with_host(known.host) != known
        before = self._boot_id
        if announcement.boot_id is not None:
            self._boot_id = announcement.boot_id
        if has_moved or self._said_byebye or (before is not None and before != self._boot_id):
            self._said_byebye = False
            return Hint.RESTARTED
        return Hint.CHANGED if before != self._boot_id else None


class UpnpListener(Listener):
    """Listens for NOTIFYs and events of the gateway that it follows, as far as they can be had.

    The multicast groups are joined on the interfaces as they are: with each :meth:`refresh`, and every 5 s as long as
    one could not be joined. That the network has come back is a hint, too. While the gateway is a stopgap, a NOTIFY of
    the router of the best default route is one as well, whatever it is about: whether a gateway is there a search has
    to show.
    """

    def __init__(self, http: HttpClient, on_hint: Callable[[Hint], None]) -> None:
        self._on_hint = on_hint
        self._device: Device | None = None
        self._host = ""
        self._home_hosts: Sequence[str] = ()
        self._scope: SearchScope | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._said: frozenset[str] = frozenset()
        self._detector = RebootDetector()
        self._notifies = SsdpListener(self._is_wanted, self._on_notify)
        self._events = EventSubscription(http, lambda: on_hint(Hint.CHANGED))

    async def open(self, scope: SearchScope) -> None:
        """Join the multicast groups; where that is not possible, restarts are noticed by polling."""
        self._scope = scope
        self._join()

    def refresh(self) -> None:
        """Join the groups where an interface has come, and leave them where one has gone."""
        before = self._notifies.interfaces
        self._join()
        if not before.issuperset(self._notifies.interfaces):
            self._on_hint(Hint.CHANGED)

    def follow(self, backend: Backend | None, *, resubscribe: bool) -> None:
        """Listen to this gateway from now on."""
        self._device = None if backend is None else backend.device
        self._host = "" if self._device is None else gateway_host(self._device)
        self._home_hosts = () if backend is None else backend.home_hosts()
        self._events.follow(self._device, resubscribe=resubscribe)

    def note_address(self, address: IPv4Address | IPv6Address | None) -> None:
        """Note the external address: an event that says otherwise is a hint."""
        self._events.note_address(address)

    async def close(self) -> None:
        """Leave the groups, and end the subscription."""
        self._scope = None
        if self._timer is not None:
            self._timer.cancel()
        self._notifies.close()
        await self._events.close()

    def _join(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._scope is None:
            return
        try:
            failures = self._failures(self._scope)
        except NotImplementedError:
            self._scope = None
            log.info("no notices can be heard on this event loop, so restarts are noticed by polling")
            return
        for where in failures.keys() - self._said:
            log.info("no notices of the gateway can be heard%s: %s", where, failures[where])
        self._said = frozenset(failures)
        if failures:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_AGAIN, self.refresh)

    def _failures(self, scope: SearchScope) -> dict[str, Exception]:
        """Join what can be joined, and return where that was not possible, and why."""
        try:
            present = interfaces(ipv6=scope.ipv6, source_address=scope.source_address)
        except (OSError, IGDError) as error:
            self._notifies.follow(())
            return {"": error}
        try:
            return {f" on {where.address}": error for where, error in self._notifies.follow(present).items()}
        except IGDError as error:
            return {"": error}

    def _is_wanted(self, sender: str) -> bool:
        return self._is_gateway(sender) or self._is_home(sender)

    def _is_gateway(self, sender: str) -> bool:
        return sender == self._host or same_address(sender, self._host)

    def _is_home(self, sender: str) -> bool:
        return any(same_address(sender, host) for host in self._home_hosts)

    def _on_notify(self, announcement: ssdp.Announcement, sender: str) -> None:
        if self._is_home(sender):
            if announcement.kind != _BYEBYE:
                self._on_hint(Hint.HOME)
        elif self._device is not None:
            hint = self._detector.on_notify(announcement, self._device)
            if hint is not None:
                self._on_hint(hint)
