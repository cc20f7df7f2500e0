"""A gateway as leases see it: the verbs on the gateway in mind, and what it announces of itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from ..core.dispatcher import Verbs
from ..core.gateway_cache import CurrentGateway
from ..errors import IGDError, InvalidResponseError, NoRouteError, RefusedError
from ..models import Device, MappingKey, MappingRequest, Pinhole, PinholeRequest, PortMapping
from ..net.interfaces import interfaces, source_address_for
from ..results import UPnPResult
from .event_subscription import Events
from .net.http import HttpClient
from .net.ssdp_listener import NoticeListener
from .search import SearchOptions
from .sibling_services import our_ipv6_address
from .wire import ssdp
from .wire.url import parse_url, same_address

__all__ = ["KeepableGateway"]

log = logging.getLogger("aioigd.lease")

_GOODBYE: Final = "ssdp:byebye"
_GATEWAY: Final = "InternetGatewayDevice"


class KeepableGateway:
    """The gateway in mind, for the keeper of the leases (``leases.keepable.Keepable``)."""

    def __init__(self, http: HttpClient, current: CurrentGateway, verbs: Verbs, options: SearchOptions) -> None:
        self._http = http
        self._current = current
        self._verbs = verbs
        self._options = options

    async def add(self, request: MappingRequest, *, overwrite: bool, verify: bool) -> PortMapping:
        """Make a mapping; without ``overwrite`` never in the place of another."""
        return await self._verbs.add(request, overwrite=overwrite, verify=verify)

    async def add_any(self, request: MappingRequest) -> PortMapping | None:
        """Make a mapping on any external port, if the gateway is an IGD:2; None where it cannot choose, or refuses."""
        try:
            return await self._verbs.add_any(request)
        except IGDError as error:
            if isinstance(error, (RefusedError, InvalidResponseError)) or error.result is UPnPResult.INVALID_GATEWAY:
                return None
            raise

    async def find(self, key: MappingKey) -> PortMapping | None:
        """Return what the gateway holds."""
        return await self._verbs.find(key)

    async def delete(self, key: MappingKey) -> None:
        """Delete a mapping."""
        await self._verbs.delete(key)

    async def open_pinhole(self, request: PinholeRequest) -> Pinhole:
        """Open a pinhole, or prolong the one that is open for the same packets."""
        if self._current.cached is not None and not self.our_ipv6_address:
            # Said here, because the verb would take it for a gateway that has gone, and search.
            raise NoRouteError("this machine has no IPv6 address on the internet")
        return await self._verbs.add_pinhole(request)

    async def close_pinhole(self, pinhole: Pinhole) -> None:
        """Close a pinhole."""
        await self._verbs.delete_pinhole(pinhole)

    async def query_external_address(self) -> IPv4Address | IPv6Address:
        """Return the gateway's address on the internet."""
        return await self._verbs.query_external_address()

    async def look_again(self) -> None:
        """Find the gateway anew, wherever it is now."""
        await self._current.find(instead_of=self._current.cached)

    def our_address_moved(self) -> bool:
        """Tell whether this machine now reaches the gateway from another address than when it was found."""
        gateway = self._current.cached
        if gateway is None or self._options.source_address is not None:
            return False
        try:
            return source_address_for(parse_url(gateway.device.igd_control_url).host) != gateway.device.igd_our_addr
        except (IGDError, ValueError):
            return True

    @property
    def internal_client(self) -> str:
        """The address of this machine to which its mappings lead, "" where that is not known."""
        gateway = self._current.cached
        with suppress(IGDError):
            return "" if gateway is None else gateway.channel.internal_client
        return ""

    @property
    def our_ipv6_address(self) -> str:
        """The address of this machine to which its pinholes lead, "" where it has none."""
        gateway = self._current.cached
        with suppress(IGDError):
            return "" if gateway is None else our_ipv6_address(gateway.channel)
        return ""

    @property
    def who(self) -> Hashable:
        """The router in mind, by its name on the network, or its address where it has none."""
        device = self._device
        return None if device is None else device.udn or parse_url(device.description_url).host

    @property
    def where(self) -> Hashable:
        """The addresses by which the router in mind is reached, and from where."""
        device = self._device
        return None if device is None else (device.description_url, device.igd_control_url, device.igd_our_addr)

    async def listen(self, on_restart: Callable[[], None], on_change: Callable[[], None]) -> _Ears:
        """Call back when the gateway seems to restart, and when something else about it may have changed."""
        ears = _Ears(self._current, self._http, on_restart, on_change)
        await ears.open(self._options)
        return ears

    @property
    def _device(self) -> Device | None:
        gateway = self._current.cached
        return None if gateway is None else gateway.device


class _Ears:
    """Listens to NOTIFYs and events of the gateway, as far as they can be had."""

    def __init__(
        self,
        current: CurrentGateway,
        http: HttpClient,
        on_restart: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self._current = current
        self._watch = Watch(on_restart, on_change)
        self._notices = NoticeListener(self._is_gateway, self._on_notice)
        self._events = Events(http, on_change)

    async def open(self, options: SearchOptions) -> None:
        try:
            await self._notices.open(interfaces(ipv6=options.ipv6, source_address=options.source_address))
        except (OSError, NotImplementedError, IGDError) as error:
            log.info("no notices of the gateway can be heard, so restarts are noticed by polling: %s", error)
        self.follow(anew=False)

    def follow(self, *, anew: bool) -> None:
        gateway = self._current.cached
        self._events.follow(None if gateway is None else gateway.device, anew=anew)

    async def close(self) -> None:
        self._notices.close()
        await self._events.close()

    def _is_gateway(self, sender: str) -> bool:
        gateway = self._current.cached
        return gateway is not None and same_address(sender, parse_url(gateway.device.description_url).host)

    def _on_notice(self, announcement: ssdp.Announcement) -> None:
        gateway = self._current.cached
        if gateway is not None:
            self._watch.heard(announcement, gateway.device)


class Watch:
    """Tells which NOTIFYs mean that the gateway has restarted, or is about to (UDA 1.1 section 1.2)."""

    def __init__(self, on_restart: Callable[[], None], on_change: Callable[[], None]) -> None:
        self._on_restart = on_restart
        self._on_change = on_change
        self._boot_id: int | None = None
        self._was_away = False

    def heard(self, said: ssdp.Announcement, gateway: Device) -> None:
        """Draw conclusions from what the host of the gateway has announced: it may run other devices, too."""
        if not (gateway.udn and said.usn.startswith(gateway.udn)) and _GATEWAY not in said.target:
            return
        if said.kind == _GOODBYE:
            if not self._was_away:
                self._was_away = True
                self._on_restart()
            return
        known = parse_url(gateway.description_url)
        has_moved = False
        with suppress(ValueError):
            has_moved = parse_url(said.location).with_host(known.host) != known
        boot_id, self._boot_id = self._boot_id, said.boot_id if said.boot_id is not None else self._boot_id
        if has_moved or self._was_away or (boot_id is not None and boot_id != self._boot_id):
            self._was_away = False
            self._on_restart()
        elif boot_id != self._boot_id:
            self._on_change()  # the first that is heard of it: nobody knows whether it is new
