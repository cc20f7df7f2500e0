"""How the state of the connection, the line and the traffic counters are read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from ..core.calls import Operation
from ..errors import InvalidResponseError, RefusedError
from ..models import ConnectionStatus, ConnectionType, LinkProperties, NatStatus, TrafficTotals
from .sibling_services import SiblingServices
from .soap_client import SoapClient
from .wire import wan_common_interface, wan_ip_connection
from .wire.soap import Action

__all__ = ["connection_status", "connection_type", "link_properties", "nat_status", "traffic_totals"]

_SERVICE: Final = wan_common_interface.SERVICE


async def connection_status(client: SoapClient, op: Operation) -> ConnectionStatus:
    """GetStatusInfo (WANIPConnection:1 section 2.4.9)."""
    return wan_ip_connection.read_status_info(await client.call(wan_ip_connection.GET_STATUS_INFO, op))


async def connection_type(client: SoapClient, op: Operation) -> ConnectionType:
    """GetConnectionTypeInfo (WANIPConnection:1 section 2.4.2)."""
    return wan_ip_connection.read_connection_type(await client.call(wan_ip_connection.GET_CONNECTION_TYPE_INFO, op))


async def nat_status(client: SoapClient, op: Operation) -> NatStatus:
    """GetNATRSIPStatus (WANIPConnection:1 section 2.4.13)."""
    return wan_ip_connection.read_nat_status(await client.call(wan_ip_connection.GET_NAT_RSIP_STATUS, op))


async def link_properties(services: SiblingServices, op: Operation) -> LinkProperties:
    """GetCommonLinkProperties (WANCommonInterfaceConfig:1 section 2.4.3)."""
    (values,) = await services.call(op, _SERVICE, wan_common_interface.GET_COMMON_LINK_PROPERTIES)
    return wan_common_interface.read_link_properties(values)


async def traffic_totals(services: SiblingServices, op: Operation) -> TrafficTotals:
    """GetTotalBytesSent and its like (WANCommonInterfaceConfig:1 sections 2.4.6 to 2.4.9); packets if counted."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    # Two at a time: weak routers are not to be flooded for statistics.
    bytes_actions = wan_common_interface.GET_TOTAL_BYTES_SENT, wan_common_interface.GET_TOTAL_BYTES_RECEIVED
    sent, received = map(_read_total, bytes_actions, await services.call(op, _SERVICE, *bytes_actions))
    at = (before + loop.time()) / 2
    packets_sent, packets_received = await asyncio.gather(
        _total_or_none(services, op, wan_common_interface.GET_TOTAL_PACKETS_SENT),
        _total_or_none(services, op, wan_common_interface.GET_TOTAL_PACKETS_RECEIVED),
    )
    return TrafficTotals(sent, received, packets_sent, packets_received, at=at)


async def _total_or_none(services: SiblingServices, op: Operation, action: Action) -> int | None:
    try:
        return _read_total(action, *await services.call(op, _SERVICE, action))
    except (RefusedError, InvalidResponseError):
        return None


def _read_total(action: Action, values: Mapping[str, str]) -> int:
    return wan_common_interface.read_total(action, values)
