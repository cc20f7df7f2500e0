"""Holes in the IPv6 firewall of a gateway: how they come to be, are kept, and go.

Each action goes to the gateway's IPv6 address from the address that it is for (WANIPv6FirewallControl:1 section 2.1):
gateways refuse others (606). All of it raises RefusedError with the gateway's code where it refuses, INVALID_GATEWAY
where the gateway has no such service or action, and what :func:`~aioigd.upnp.sibling_services.with_firewall` raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from ..core.calls import Call
from ..errors import IGDError, RefusedError
from ..models import FirewallStatus, Pinhole, PinholeRequest
from ..results import UPnPResult
from .sibling_services import our_ipv6_address, with_firewall
from .soap_client import Channel
from .wire import wan_ipv6_firewall
from .wire.error_codes import refused
from .wire.soap import Action

__all__ = ["add", "delete", "firewall_status", "is_working", "outbound_timeout", "packets", "undo", "update"]

_NO_SUCH_ENTRY = 704


async def add(channel: Channel, request: PinholeRequest, call: Call) -> Pinhole:
    """Open a pinhole, or prolong the one that is open for the same packets: then it keeps its number.

    No action lists pinholes, so one whose reply was lost cannot be looked for. It need not be: a gateway has to take
    the same request again as a renewal of the same pinhole (section 2.6.3), so it is repeated. A gateway that makes
    two of it forgets the first when its time is over, a day later at most.
    """
    client = request.internal_client or our_ipv6_address(channel)
    values = await _ask(channel, client, wan_ipv6_firewall.add_pinhole(request, client), call, commits=True)
    pinhole = Pinhole(
        unique_id=wan_ipv6_firewall.read_unique_id(values),
        internal_client=client,
        internal_port=request.internal_port,
        proto=request.proto,
        remote_host=request.remote_host,
        remote_port=request.remote_port,
        duration=request.duration,
    )
    is_older = pinhole.unique_id in channel.memory.pinholes
    channel.memory.pinholes.add(pinhole.unique_id)
    if call.abandoned and not is_older:
        call.closing = True
        await undo(channel, pinhole, call)
        raise asyncio.CancelledError
    if not is_older:
        call.opened = pinhole
    call.committed = False
    return pinhole


async def update(channel: Channel, pinhole: Pinhole, duration: int, call: Call) -> Pinhole:
    """Let a pinhole last so many seconds from now on; NO_SUCH_ENTRY_IN_ARRAY where it is gone."""
    await _ask(channel, pinhole.internal_client, wan_ipv6_firewall.update_pinhole(pinhole.unique_id, duration), call)
    return replace(pinhole, duration=duration)


async def delete(channel: Channel, pinhole: Pinhole, call: Call) -> None:
    """Close a pinhole; NO_SUCH_ENTRY_IN_ARRAY where it is gone already."""
    channel.memory.pinholes.discard(pinhole.unique_id)
    try:
        await _ask(channel, pinhole.internal_client, wan_ipv6_firewall.delete_pinhole(pinhole.unique_id), call)
    except RefusedError as error:
        if error.error_code != _NO_SUCH_ENTRY or not call.lost:
            raise  # otherwise a repeated request, and the first one had arrived


async def undo(channel: Channel, pinhole: Pinhole, call: Call) -> None:
    """Close a pinhole that nobody wants any more. Best effort, and bounded by the call."""
    with suppress(IGDError):
        await delete(channel, pinhole, call)


async def packets(channel: Channel, pinhole: Pinhole, call: Call) -> int:
    """Return how many packets came through a pinhole."""
    action = wan_ipv6_firewall.get_pinhole_packets(pinhole.unique_id)
    return wan_ipv6_firewall.read_pinhole_packets(await _ask(channel, pinhole.internal_client, action, call))


async def is_working(channel: Channel, pinhole: Pinhole, call: Call) -> bool:
    """Return whether packets that came for a pinhole were let through; error code 709 where none came yet."""
    action = wan_ipv6_firewall.check_pinhole_working(pinhole.unique_id)
    return wan_ipv6_firewall.read_is_working(await _ask(channel, pinhole.internal_client, action, call))


async def firewall_status(channel: Channel, call: Call) -> FirewallStatus:
    """Return what the firewall does."""
    return wan_ipv6_firewall.read_firewall_status(await _ask(channel, "", wan_ipv6_firewall.GET_FIREWALL_STATUS, call))


async def outbound_timeout(channel: Channel, request: PinholeRequest, call: Call) -> int:
    """Return after how many seconds of silence the firewall forgets what this machine sent out; see ``add``."""
    client = request.internal_client or our_ipv6_address(channel)
    action = wan_ipv6_firewall.get_outbound_pinhole_timeout(request, client)
    return wan_ipv6_firewall.read_outbound_pinhole_timeout(await _ask(channel, client, action, call))


async def _ask(
    channel: Channel, source: str, action: Action, call: Call, *, commits: bool = False
) -> Mapping[str, str]:
    async def use(line: Channel) -> Mapping[str, str]:
        call.committed = call.committed or commits
        return await line.ask(action, call)

    try:
        return await with_firewall(channel, wan_ipv6_firewall.SERVICE, source, use, call)
    except RefusedError as error:
        call.committed = False
        if error.error_code in wan_ipv6_firewall.RESULT_OF_ERROR_CODE:
            results = wan_ipv6_firewall.RESULT_OF_ERROR_CODE
            raise refused(error.message, error.error_code, results) from error.__cause__
        raise
    except IGDError as error:
        if error.result is not UPnPResult.HTTP_ERROR:
            call.committed = False
        raise
