"""How the IPv6 firewall of a gateway is opened, and closed again.

Each action goes to the gateway's IPv6 address from the address that it is for (WANIPv6FirewallControl:1 section 2.1):
gateways refuse others (606). All of it raises RefusedError with the gateway's code where it refuses, UnsupportedError
where the gateway has no such service or action, and what
:meth:`~aioigd.upnp.sibling_services.SiblingServices.call_firewall` raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..core.calls import Operation, Undo
from ..errors import NotFoundError, RefusedError
from ..models import FirewallStatus, Pinhole, PinholeRequest
from .sibling_services import SiblingServices
from .soap_client import GatewayState
from .wire import wan_ipv6_firewall
from .wire.error_codes import refused
from .wire.soap import Action

__all__ = ["Firewall"]


class Firewall:
    """The IPv6 firewall of one gateway, among its ``services``."""

    def __init__(self, services: SiblingServices, state: GatewayState) -> None:
        self._services = services
        self._our_pinholes = state.our_pinholes

    async def add(self, op: Operation, request: PinholeRequest, client: str) -> Pinhole:
        """Open a pinhole to ``client``, or prolong the one that is open for the same packets: then it keeps its id.

        No action lists pinholes, so one whose reply was lost cannot be looked for. It need not be: a gateway has to
        take the same request again as a renewal of the same pinhole (section 2.6.3), so it is repeated. A gateway that
        makes two of it forgets the first when its time is over, a day later at most.
        """
        values = await self._call(op, client, wan_ipv6_firewall.add_pinhole(request, client), undo=_undo_nothing)
        pinhole = Pinhole(
            unique_id=wan_ipv6_firewall.read_unique_id(values),
            internal_client=client,
            internal_port=request.internal_port,
            proto=request.proto,
            remote_host=request.remote_host,
            remote_port=request.remote_port,
            duration=request.duration,
        )
        had_before = pinhole.unique_id in self._our_pinholes
        self._our_pinholes.add(pinhole.unique_id)

        async def undo(op: Operation) -> None:
            await self.delete(op, pinhole)

        op.settled(None if had_before else undo)
        return pinhole

    async def update(self, op: Operation, pinhole: Pinhole, duration: int) -> Pinhole:
        """Let a pinhole last so many seconds from now on; raises NotFoundError where it is gone."""
        await self._call(op, pinhole.internal_client, wan_ipv6_firewall.update_pinhole(pinhole.unique_id, duration))
        return replace(pinhole, duration=duration)

    async def delete(self, op: Operation, pinhole: Pinhole) -> None:
        """Close a pinhole; raises NotFoundError where it is gone already."""
        self._our_pinholes.discard(pinhole.unique_id)
        try:
            await self._call(op, pinhole.internal_client, wan_ipv6_firewall.delete_pinhole(pinhole.unique_id))
        except NotFoundError:
            if not op.reply_lost:
                raise  # otherwise a repeated request, and the first one had arrived

    async def packets(self, op: Operation, pinhole: Pinhole) -> int:
        """Return how many packets came through a pinhole."""
        action = wan_ipv6_firewall.get_pinhole_packets(pinhole.unique_id)
        return wan_ipv6_firewall.read_pinhole_packets(await self._call(op, pinhole.internal_client, action))

    async def is_working(self, op: Operation, pinhole: Pinhole) -> bool:
        """Return whether packets that came for a pinhole were let through; error code 709 where none came yet."""
        action = wan_ipv6_firewall.check_pinhole_working(pinhole.unique_id)
        return wan_ipv6_firewall.read_is_working(await self._call(op, pinhole.internal_client, action))

    async def status(self, op: Operation) -> FirewallStatus:
        """Return what the firewall does."""
        return wan_ipv6_firewall.read_firewall_status(await self._call(op, "", wan_ipv6_firewall.GET_FIREWALL_STATUS))

    async def outbound_timeout(self, op: Operation, request: PinholeRequest, client: str) -> int:
        """Return after how many seconds of silence the firewall forgets packets from ``client``; see :meth:`add`."""
        action = wan_ipv6_firewall.get_outbound_pinhole_timeout(request, client)
        return wan_ipv6_firewall.read_outbound_pinhole_timeout(await self._call(op, client, action))

    async def _call(self, op: Operation, source: str, action: Action, *, undo: Undo | None = None) -> Mapping[str, str]:
        try:
            return await self._services.call_firewall(op, wan_ipv6_firewall.SERVICE, source, action, undo=undo)
        except RefusedError as error:
            op.rejected()
            if error.error_code in wan_ipv6_firewall.RESULT_OF_ERROR_CODE:
                raise refused(
                    error.message, error.error_code, wan_ipv6_firewall.RESULT_OF_ERROR_CODE
                ) from error.__cause__
            raise


async def _undo_nothing(_: Operation) -> None:
    """Undo nothing: without its number a pinhole cannot be closed, so the reply is all that can be waited for."""
