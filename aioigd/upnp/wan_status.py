"""What a gateway tells of its connection, its line and its traffic."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from ..core.calls import Call
from ..errors import InvalidResponseError, RefusedError
from ..models import ConnectionStatus, ConnectionType, LinkProperties, NatStatus, TrafficTotals
from .sibling_services import with_service
from .soap_client import Channel
from .wire import wan_common_interface, wan_ip_connection
from .wire.soap import Action

__all__ = ["connection_type", "link_properties", "nat_status", "status", "traffic"]


async def status(channel: Channel, call: Call) -> ConnectionStatus:
    """GetStatusInfo (WANIPConnection:1 section 2.4.9)."""
    return wan_ip_connection.read_status_info(await channel.ask(wan_ip_connection.GET_STATUS_INFO, call))


async def connection_type(channel: Channel, call: Call) -> ConnectionType:
    """GetConnectionTypeInfo (WANIPConnection:1 section 2.4.2)."""
    return wan_ip_connection.read_connection_type(await channel.ask(wan_ip_connection.GET_CONNECTION_TYPE_INFO, call))


async def nat_status(channel: Channel, call: Call) -> NatStatus:
    """GetNATRSIPStatus (WANIPConnection:1 section 2.4.13)."""
    return wan_ip_connection.read_nat_status(await channel.ask(wan_ip_connection.GET_NAT_RSIP_STATUS, call))


async def link_properties(channel: Channel, call: Call) -> LinkProperties:
    """GetCommonLinkProperties (WANCommonInterfaceConfig:1 section 2.4.3)."""

    async def use(line: Channel) -> LinkProperties:
        return wan_common_interface.read_link_properties(
            await line.ask(wan_common_interface.GET_COMMON_LINK_PROPERTIES, call)
        )

    return await with_service(channel, wan_common_interface.SERVICE, use, call)


async def traffic(channel: Channel, call: Call) -> TrafficTotals:
    """GetTotalBytesSent and its like (WANCommonInterfaceConfig:1 sections 2.4.6 to 2.4.9); packets if they are told."""

    async def use(line: Channel) -> TrafficTotals:
        async def total(action: Action) -> int:
            return wan_common_interface.read_total(action, await line.ask(action, call))

        async def total_or_none(action: Action) -> int | None:
            with suppress(RefusedError, InvalidResponseError):
                return await total(action)
            return None

        loop = asyncio.get_running_loop()
        before = loop.time()
        # Two at a time: weak routers are not to be flooded for statistics.
        sent, received = await asyncio.gather(
            total(wan_common_interface.GET_TOTAL_BYTES_SENT), total(wan_common_interface.GET_TOTAL_BYTES_RECEIVED)
        )
        at = (before + loop.time()) / 2
        packets = await asyncio.gather(
            total_or_none(wan_common_interface.GET_TOTAL_PACKETS_SENT),
            total_or_none(wan_common_interface.GET_TOTAL_PACKETS_RECEIVED),
        )
        return TrafficTotals(sent, received, *packets, at=at)

    return await with_service(channel, wan_common_interface.SERVICE, use, call)
