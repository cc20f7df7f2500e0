"""Which procedure is which verb: one UPnP gateway as the core sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from ..core.backend import Backend, SearchScope, Trial
from ..core.calls import Operation
from ..errors import IGDError
from ..models import (
    ConnectionStatus,
    ConnectionType,
    Device,
    FirewallStatus,
    LinkProperties,
    MappingKey,
    MappingRequest,
    NatStatus,
    Pinhole,
    PinholeRequest,
    PortMapping,
    Proto,
    TrafficTotals,
)
from ..net.interfaces import can_send_from, default_next_hops, source_address_for
from . import delete_mapping, list_mappings, wan_status
from .add_any_mapping import AddAnyMapping
from .add_mapping import AddMapping
from .net.http import HttpClient
from .pinholes import Firewall
from .probe import probe
from .sibling_services import SiblingServices, our_ipv6_address
from .soap_client import GatewayState, SoapClient
from .wire import wan_ip_connection
from .wire.description import udn_key
from .wire.url import parse_url, same_address

__all__ = ["UpnpBackend", "gateway_host", "gateway_id"]

_LEAST_TO_DECIDE: Final = 6.0
"""Seconds that there have to be for the question which connection is up, and as many for the call behind it.

The search has waited for 3.5 in vain, and a call of ten seconds is to be served as well by a gateway that needs six.
"""
_REREAD_PAUSE: Final = 0.15
"""Seconds before a description is read again that could not be read for that; doubles each time."""


class UpnpBackend(Backend):
    """A gateway that is spoken to by UPnP.

    ``scope``: where gateways are searched for. Raises ValueError for a device without a control URL.

    ``is_guess``: it has several connections, and was too slow to tell the search which of them is up. The first call
    that has the time asks for that again, before anything else.
    """

    protocol = "upnp"

    def __init__(
        self, http: HttpClient, device: Device, state: GatewayState, scope: SearchScope, *, is_guess: bool = False
    ) -> None:
        known = state.connection if is_guess else None
        if known is not None and known.description_url == device.description_url:
            device, is_guess = _with_connection_of(known, device), False
        self._scope = scope
        self._is_guess = is_guess
        self._deciding = asyncio.Lock()
        self._use(http, device, state)

    def _use(self, http: HttpClient, device: Device, state: GatewayState) -> None:
        self.device = device
        self.limiter = state.limiter
        self._client = SoapClient(http, device, state)
        self._services = SiblingServices(self._client)
        self._firewall = Firewall(self._services, state)

    def __repr__(self) -> str:
        return f"<UpnpBackend {self.device.friendly_name or 'unnamed'!r} at {self.device.igd_control_url}>"

    @property
    def internal_client(self) -> str:
        """The IPv4 address of this machine for its mappings."""
        return self._client.internal_client

    @property
    def internal_client_v6(self) -> str:
        """The IPv6 address of this machine for its pinholes."""
        return our_ipv6_address(self._client.local_address)

    @property
    def gateway_id(self) -> Hashable:
        """The UDN, or the host where it has none."""
        return gateway_id(self.device)

    @property
    def address(self) -> str:
        """The host of its description."""
        return gateway_host(self.device)

    @property
    def location(self) -> Hashable:
        """The URL by which the gateway is controlled, and from where.

        Not that of its description: anybody can announce it with something added.
        """
        return self.device.igd_control_url, self.device.igd_our_addr

    def home_hosts(self) -> Sequence[str]:
        """Return the next hops of the best default route, unless this gateway is one or was chosen by the program."""
        if (self._scope.source_address, self._scope.location, self._scope.host) != (None, None, None):
            return ()
        host = gateway_host(self.device)
        hops = default_next_hops(ipv6=self._scope.ipv6)
        return () if any(same_address(host, hop) for hop in hops) else sorted(hops)

    def has_made(self, what: MappingKey | Pinhole) -> bool:
        """Return whether this program has made a mapping or pinhole by UPnP."""
        return what in self._client.state.ours if isinstance(what, MappingKey) else super().has_made(what)

    def local_address_changed(self) -> bool:
        """Return whether the address from which the gateway was found is not ours any more, or leads there no more.

        That the system would use another one of ours now is no move: a mapping is for the address that it was made for.
        """
        if self._scope.source_address is not None:
            return False
        ours = self.device.igd_our_addr
        try:
            host = parse_url(self.device.igd_control_url).host
            return source_address_for(host) != ours and not can_send_from(ours, host)
        except (IGDError, OSError, ValueError):
            return True

    # Mappings

    async def add(
        self, op: Operation, request: MappingRequest, *, overwrite: bool, verify: bool, trial: Trial | None = None
    ) -> PortMapping:
        """AddPortMapping (WANIPConnection:2 section 2.5.16)."""
        if self._is_guess:
            await self._decide(op)
        return await AddMapping(self._client, op, request, overwrite=overwrite, verify=verify, trial=trial).run()

    async def add_any(self, op: Operation, request: MappingRequest) -> PortMapping:
        """AddAnyPortMapping (WANIPConnection:2 section 2.5.17)."""
        if self._is_guess:
            await self._decide(op)
        return await AddAnyMapping(self._client, op, request).run()

    async def delete(self, op: Operation, key: MappingKey, *, verify: bool = False) -> None:
        """DeletePortMapping (WANIPConnection:2 section 2.5.18)."""
        if self._is_guess:
            await self._decide(op)
        await delete_mapping.delete_mapping(self._client, key, op, verify=verify)

    async def delete_range(self, op: Operation, first: int, last: int, proto: Proto) -> None:
        """DeletePortMappingRange (WANIPConnection:2 section 2.5.19), or one by one."""
        if self._is_guess:
            await self._decide(op)
        await delete_mapping.delete_range(self._client, first, last, proto, op)

    async def find(self, op: Operation, key: MappingKey) -> PortMapping | None:
        """GetSpecificPortMappingEntry (WANIPConnection:2 section 2.5.15), or the whole table."""
        if self._is_guess:
            await self._decide(op)
        return await list_mappings.find_mapping(self._client, key, op)

    async def list_page(self, op: Operation, cursor: Any) -> tuple[Sequence[PortMapping], Any]:
        """GetListOfPortMappings or GetGenericPortMappingEntry (WANIPConnection:2 sections 2.5.21 and 2.5.14)."""
        if self._is_guess:
            await self._decide(op)
        return await list_mappings.list_page(self._client, op, cursor)

    async def _decide(self, op: Operation) -> None:
        """Ask which of several connections is up, if there is time for the answer, and use that one from now on."""
        loop = asyncio.get_running_loop()
        async with self._deciding:
            until = (loop.time() + op.deadline) / 2
            if not self._is_guess or until - loop.time() < _LEAST_TO_DECIDE:
                return
            # A router that was found over IPv6 is controlled at its IPv4 address.
            url = parse_url(self.device.description_url).with_host(parse_url(self.device.igd_control_url).host)
            ours = self.device.igd_our_addr
            pause = _REREAD_PAUSE
            probed = await probe(self._client.http, url, our_address=ours, deadline=until)
            while probed.failure is not None and loop.time() + pause < until:  # it may be busy with what it was asked
                await asyncio.sleep(pause)
                pause *= 2
                probed = await probe(self._client.http, url, our_address=ours, deadline=until)
            self._is_guess = False  # not asked at each call, whatever it says
            if probed.is_usable:
                device = _with_connection_of(probed.device, self.device)
                self._client.state.connection = device if device.is_valid_gateway() else None
                self._use(self._client.http, device, self._client.state)

    # The connection and the line

    async def external_address(self, op: Operation) -> IPv4Address | IPv6Address:
        """GetExternalIPAddress (WANIPConnection:2 section 2.5.20)."""
        if self._is_guess:
            await self._decide(op)
        values = await self._client.call(wan_ip_connection.GET_EXTERNAL_IP_ADDRESS, op)
        return wan_ip_connection.read_external_address(values)

    async def connection_status(self, op: Operation) -> ConnectionStatus:
        """GetStatusInfo."""
        return await wan_status.connection_status(self._client, op)

    async def connection_type(self, op: Operation) -> ConnectionType:
        """GetConnectionTypeInfo."""
        return await wan_status.connection_type(self._client, op)

    async def nat_status(self, op: Operation) -> NatStatus:
        """GetNATRSIPStatus."""
        return await wan_status.nat_status(self._client, op)

    async def link_properties(self, op: Operation) -> LinkProperties:
        """GetCommonLinkProperties."""
        return await wan_status.link_properties(self._services, op)

    async def traffic_totals(self, op: Operation) -> TrafficTotals:
        """GetTotalBytesSent and its like."""
        return await wan_status.traffic_totals(self._services, op)

    # The IPv6 firewall

    async def add_pinhole(self, op: Operation, request: PinholeRequest) -> Pinhole:
        """AddPinhole."""
        return await self._firewall.add(op, request, request.internal_client or self.internal_client_v6)

    async def update_pinhole(self, op: Operation, pinhole: Pinhole, duration: int) -> Pinhole:
        """UpdatePinhole."""
        return await self._firewall.update(op, pinhole, duration)

    async def delete_pinhole(self, op: Operation, pinhole: Pinhole) -> None:
        """DeletePinhole."""
        await self._firewall.delete(op, pinhole)

    async def pinhole_packets(self, op: Operation, pinhole: Pinhole) -> int:
        """GetPinholePackets."""
        return await self._firewall.packets(op, pinhole)

    async def pinhole_working(self, op: Operation, pinhole: Pinhole) -> bool:
        """CheckPinholeWorking."""
        return await self._firewall.is_working(op, pinhole)

    async def firewall_status(self, op: Operation) -> FirewallStatus:
        """GetFirewallStatus."""
        return await self._firewall.status(op)

    async def outbound_pinhole_timeout(self, op: Operation, request: PinholeRequest) -> int:
        """GetOutboundPinholeTimeout."""
        return await self._firewall.outbound_timeout(op, request, request.internal_client or self.internal_client_v6)


def _with_connection_of(one: Device, device: Device) -> Device:
    """Return a device with the WAN connection of another reading of its description."""
    return replace(
        device,
        igd_status=one.igd_status,
        igd_control_url=one.igd_control_url,
        igd_service_type=one.igd_service_type,
        alternative_control_urls=one.alternative_control_urls,
        event_urls=one.event_urls,
    )


def gateway_id(device: Device) -> str:
    """Return what changes when another router is used: the UDN of a device, or its host where it has none."""
    return udn_key(device.udn) or gateway_host(device)


def gateway_host(device: Device) -> str:
    """Return the address of a device, "" where nothing says it."""
    for url in (device.description_url, device.igd_control_url):
        with suppress(ValueError):
            return parse_url(url).host
    return ""
