"""One usable gateway, with the verbs of the model; none of them ever replaces what is already there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address

from .arguments import (
    check_flag,
    check_key,
    check_pinhole,
    check_pinhole_duration,
    check_pinhole_request,
    check_port_range,
    check_request,
)
from .core.backend import Backend
from .core.dispatcher import Dispatcher
from .errors import NotFoundError
from .models import (
    ConnectionStatus,
    ConnectionType,
    Device,
    FirewallStatus,
    LinkProperties,
    NatStatus,
    Pinhole,
    PortMapping,
    Proto,
    TrafficTotals,
)
from .results import ProtocolName
from .text import printable, shown

__all__ = ["Gateway"]


class Gateway:
    """A gateway that was found, for callers who want to talk to this one and no other.

    It is handed out by :meth:`PortMapper.get_gateway` and lives as long as that mapper. Unlike the mapper's, its
    :meth:`add_port_mapping` never replaces a mapping, and it does not look for another gateway when this one has
    gone.

    It asks by one :attr:`protocol` only. By PCP and NAT-PMP there are :meth:`add_port_mapping`,
    :meth:`add_any_port_mapping`, :meth:`delete_port_mapping` and :meth:`query_external_address`, by PCP over IPv6 also
    :meth:`add_pinhole`, :meth:`update_pinhole` and :meth:`delete_pinhole`; all else is an UnsupportedError
    (INVALID_GATEWAY), without a request.
    """

    def __init__(self, backend: Backend, dispatcher: Dispatcher) -> None:
        self._backend = backend
        self._dispatcher = dispatcher

    def __repr__(self) -> str:
        device = self.device
        name = shown(device.friendly_name or device.model_name or "unnamed")
        return printable(f"<Gateway {name} at {device.igd_control_url or device.address}>")

    @property
    def device(self) -> Device:
        """What its examination said, by the names of Godot's ``UPNPDevice``."""
        return self._backend.device

    @property
    def protocol(self) -> ProtocolName:
        """The protocol by which it is asked: ``"upnp"``, ``"pcp"`` or ``"nat-pmp"``."""
        return self._backend.protocol

    async def add_port_mapping(
        self,
        port: int,
        internal_port: int = 0,
        desc: str = "",
        proto: Proto = "UDP",
        duration: int = 0,
        *,
        internal_client: str | IPv4Address | None = None,
        remote_host: str | IPv4Address = "",
        verify: bool = False,
        overwrite: bool = False,
    ) -> PortMapping:
        """Forward a port, unless it is forwarded already (AddPortMapping, WANIPConnection:2 section 2.5.16).

        The arguments are those of :meth:`PortMapper.add_port_mapping`; with ``overwrite`` a mapping that exists is
        replaced, as there. Without it, by UPnP, it is asked first what it holds: the same mapping of this machine is
        refreshed, any other is left as it is, and the call raises IGDError with CONFLICT_WITH_OTHER_MAPPING. Where
        the gateway cannot tell whose a mapping is, it is for the gateway to refuse. This is the best that UPnP allows,
        and no more: a mapping that another host makes between the question and the request is replaced by gateways that
        replace silently. By PCP and NAT-PMP nobody can replace another host's mapping, with ``overwrite`` or without.
        """
        request = check_request(port, internal_port, desc, proto, duration, internal_client, remote_host)
        return await self._dispatcher.add(
            request, overwrite=check_flag(overwrite, "overwrite"), verify=check_flag(verify, "verify")
        )

    async def delete_port_mapping(
        self, port: int, proto: Proto = "UDP", *, remote_host: str | IPv4Address = "", verify: bool = False
    ) -> None:
        """Delete a mapping (DeletePortMapping, WANIPConnection:2 section 2.5.18).

        The arguments and errors are those of :meth:`PortMapper.delete_port_mapping`.
        """
        await self._dispatcher.delete(check_key(port, proto, remote_host), verify=check_flag(verify, "verify"))

    async def query_external_address(self) -> IPv4Address | IPv6Address:
        """Return the gateway's address on the internet (GetExternalIPAddress, WANIPConnection:2 section 2.5.20).

        Private addresses and those of 100.64.0.0/10 are returned as they are: they tell of double NAT and of
        carrier-grade NAT. By PCP and NAT-PMP as :meth:`PortMapper.query_external_address` says. Raises IGDError:
        INVALID_RESPONSE for what cannot be anybody's address.
        """
        return await self._dispatcher.external_address()

    # The table

    def query_port_mappings(self) -> AsyncIterator[PortMapping]:
        """Iterate over all mappings that the gateway shows: ``async for mapping in gateway.query_port_mappings():``.

        Each is given once, in the gateway's order; ``duration`` is what remains of its lease, as far as the gateway
        tells. An IGD:2 is asked for the list (GetListOfPortMappings, WANIPConnection:2 section 2.5.21), any other,
        and one that gives none, for entry after entry (GetGenericPortMappingEntry, WANIPConnection:1 section 2.4.14).
        Some show this machine's mappings only. Each request is a call of its own: the time limit is not one for the
        whole list. Raises IGDError: INVALID_RESPONSE for a list without an end, after 4096 mappings; INVALID_GATEWAY by
        PCP and NAT-PMP, which have no table.
        """
        return self._iter_mappings()

    async def _iter_mappings(self) -> AsyncIterator[PortMapping]:
        cursor = None
        while True:
            page, cursor = await self._dispatcher.list_page(cursor)
            for mapping in page:
                yield mapping
            if cursor is None:
                return

    async def query_port_mapping(
        self, port: int, proto: Proto = "UDP", *, remote_host: str | IPv4Address = ""
    ) -> PortMapping:
        """Return what the gateway holds for a port (GetSpecificPortMappingEntry, WANIPConnection:1 section 2.4.15).

        A gateway that cannot tell is asked for its whole table. Raises IGDError: NO_SUCH_ENTRY_IN_ARRAY where there
        is no such mapping.
        """
        key = check_key(port, proto, remote_host)
        mapping = await self._dispatcher.find(key)
        if mapping is None:
            raise NotFoundError(f"the gateway holds no mapping of {key}")
        return mapping

    async def add_any_port_mapping(
        self,
        port: int,
        internal_port: int = 0,
        desc: str = "",
        proto: Proto = "UDP",
        duration: int = 0,
        *,
        internal_client: str | IPv4Address | None = None,
        remote_host: str | IPv4Address = "",
    ) -> PortMapping:
        """Forward a port, or any other where it is taken (AddAnyPortMapping, WANIPConnection:2 section 2.5.17).

        The arguments are those of :meth:`PortMapper.add_port_mapping`; the ``external_port`` of the result is the one
        that the gateway chose. By PCP and NAT-PMP ``port`` is what is suggested (RFC 6887 section 11.1, RFC 6886
        section 3.3). Raises IGDError with INVALID_GATEWAY where it cannot choose, as an IGD:1 cannot.
        """
        return await self._dispatcher.add_any(
            check_request(port, internal_port, desc, proto, duration, internal_client, remote_host)
        )

    async def delete_port_mapping_range(self, start: int, end: int, proto: Proto = "UDP") -> None:
        """Delete all mappings on the external ports from ``start`` to ``end``, both included.

        Not only those of this machine: all that the gateway lets it delete. They go with one request
        (DeletePortMappingRange, WANIPConnection:2 section 2.5.19), or one by one where the gateway refuses that.
        Raises IGDError: PORT_MAPPING_NOT_FOUND where there is none (or NO_SUCH_ENTRY_IN_ARRAY, as its code says).
        """
        first, last, protocol = check_port_range(start, end, proto)
        await self._dispatcher.do(lambda backend, op: backend.delete_range(op, first, last, protocol))

    # The connection and the line

    async def query_status(self) -> ConnectionStatus:
        """Return how it stands with the connection (GetStatusInfo, WANIPConnection:1 section 2.4.9)."""
        return await self._dispatcher.query("connection status", lambda backend, op: backend.connection_status(op))

    async def query_connection_type(self) -> ConnectionType:
        """Return what kind of connection it is (GetConnectionTypeInfo, WANIPConnection:1 section 2.4.2)."""
        return await self._dispatcher.query("connection type", lambda backend, op: backend.connection_type(op))

    async def query_nat_status(self) -> NatStatus:
        """Return whether addresses are translated (GetNATRSIPStatus, WANIPConnection:1 section 2.4.13)."""
        return await self._dispatcher.query("nat status", lambda backend, op: backend.nat_status(op))

    async def query_link_properties(self) -> LinkProperties:
        """Return what the line can do (GetCommonLinkProperties, WANCommonInterfaceConfig:1 section 2.4.3).

        Raises IGDError: INVALID_GATEWAY where the gateway has no such service.
        """
        return await self._dispatcher.query("link properties", lambda backend, op: backend.link_properties(op))

    async def query_traffic(self) -> TrafficTotals:
        """Return what went over the line (GetTotalBytesSent and its like, WANCommonInterfaceConfig:1 section 2.4.6).

        A :class:`TrafficMeter` makes rates of it. Raises IGDError: INVALID_GATEWAY where the gateway has no such
        service.
        """
        return await self._dispatcher.query("traffic totals", lambda backend, op: backend.traffic_totals(op))

    # The IPv6 firewall

    async def add_pinhole(
        self,
        internal_client: str | IPv6Address | None,
        internal_port: int,
        proto: Proto = "UDP",
        *,
        remote_host: str | IPv6Address = "",
        remote_port: int = 0,
        duration: int = 3600,
    ) -> Pinhole:
        """Let packets from the internet in over IPv6 (AddPinhole, WANIPv6FirewallControl:1 section 2.6.3).

        ``internal_client``: the IPv6 address that they are for; None for this machine's own. ``internal_port``: the
        port, 1 to 65535; nothing is translated, so it is the same on the internet. ``remote_host`` and ``remote_port``:
        where they may come from, "" and 0 for anywhere. ``duration``: seconds, 1 to 86400. The same pinhole again is
        prolonged, and keeps its ``unique_id``. By PCP it is a MAP over IPv6 (RFC 6887 section 11), the ``unique_id`` is
        0, and ``remote_host`` and ``remote_port`` are FILTER (section 13.3).

        The gateway is asked over IPv6, from ``internal_client`` if that is an address of this machine: others get
        NOT_AUTHORIZED from most gateways. One that was found over IPv4 is searched for over IPv6 first, for at most
        three seconds; where it is is kept in mind.

        Raises IGDError: INVALID_GATEWAY where the gateway has no such service; NO_DEVICES or NO_GATEWAY where it does
        not answer over IPv6; SOCKET_ERROR where this machine has no IPv6. The gateway's codes become
        NO_PORT_MAPS_AVAILABLE (701), NOT_AUTHORIZED (606, 703), INVALID_PROTOCOL (705), INT_PORT_WILDCARD_NOT_PERMITTED
        (706), SRC_IP_WILDCARD_NOT_PERMITTED (708) and, where it is switched off (702), UNKNOWN_ERROR.
        """
        request = check_pinhole_request(internal_client, internal_port, proto, remote_host, remote_port, duration)
        return await self._dispatcher.add_pinhole(request)

    async def update_pinhole(self, pinhole: Pinhole, duration: int = 3600) -> Pinhole:
        """Let a pinhole last so many seconds from now on (UpdatePinhole, WANIPv6FirewallControl:1 section 2.6.4).

        Raises IGDError: NO_SUCH_ENTRY_IN_ARRAY (704) where it is gone; otherwise as :meth:`add_pinhole`.
        """
        hole, seconds = check_pinhole(pinhole), check_pinhole_duration(duration)
        return await self._dispatcher.do(
            lambda backend, op: backend.update_pinhole(op, hole, seconds), ("pinhole", hole), (self, "update", seconds)
        )

    async def delete_pinhole(self, pinhole: Pinhole) -> None:
        """Close a pinhole (DeletePinhole, WANIPv6FirewallControl:1 section 2.6.5).

        Raises IGDError: NO_SUCH_ENTRY_IN_ARRAY (704) where it is gone; otherwise as :meth:`add_pinhole`.
        """
        await self._dispatcher.delete_pinhole(check_pinhole(pinhole))

    async def query_pinhole_packets(self, pinhole: Pinhole) -> int:
        """Return how many packets came through it (GetPinholePackets, WANIPv6FirewallControl:1 section 2.6.6)."""
        hole = check_pinhole(pinhole)
        return await self._dispatcher.query(("packets", hole), lambda backend, op: backend.pinhole_packets(op, hole))

    async def query_pinhole_working(self, pinhole: Pinhole) -> bool:
        """Return whether a pinhole lets packets through (CheckPinholeWorking, WANIPv6FirewallControl:1 section 2.6.7).

        Nobody knows before one has come: raises IGDError with UNKNOWN_ERROR and the error code 709 until then.
        """
        hole = check_pinhole(pinhole)
        return await self._dispatcher.query(("working", hole), lambda backend, op: backend.pinhole_working(op, hole))

    async def query_firewall_status(self) -> FirewallStatus:
        """Return what the IPv6 firewall does (GetFirewallStatus, WANIPv6FirewallControl:1 section 2.6.1)."""
        return await self._dispatcher.query("firewall status", lambda backend, op: backend.firewall_status(op))

    async def query_outbound_pinhole_timeout(
        self,
        internal_client: str | IPv6Address | None,
        internal_port: int,
        proto: Proto = "UDP",
        *,
        remote_host: str | IPv6Address = "",
        remote_port: int = 0,
    ) -> int:
        """Return after how many seconds of silence the firewall forgets packets that were sent out.

        GetOutboundPinholeTimeout, WANIPv6FirewallControl:1 section 2.6.2; the arguments are those of
        :meth:`add_pinhole`. Many gateways have the action and answer ACTION_FAILED.
        """
        request = check_pinhole_request(internal_client, internal_port, proto, remote_host, remote_port, 1)
        return await self._dispatcher.query(
            ("outbound", request), lambda backend, op: backend.outbound_pinhole_timeout(op, request)
        )
