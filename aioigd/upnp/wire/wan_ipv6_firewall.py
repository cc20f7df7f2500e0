"""The actions of WANIPv6FirewallControl, all seven of them: arguments to send, values to read.

Section numbers are those of WANIPv6FirewallControl:1. Its arguments, except for one, have no prefix ``New``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ...models import FirewallStatus, PinholeRequest
from ...results import UPnPResult
from .soap import Action, read_flag, read_number

__all__ = [
    "GET_FIREWALL_STATUS",
    "RESULT_OF_ERROR_CODE",
    "SERVICE",
    "add_pinhole",
    "check_pinhole_working",
    "delete_pinhole",
    "get_outbound_pinhole_timeout",
    "get_pinhole_packets",
    "read_firewall_status",
    "read_is_working",
    "read_outbound_pinhole_timeout",
    "read_pinhole_packets",
    "read_unique_id",
    "update_pinhole",
]

SERVICE: Final = "wanipv6firewallcontrol"
"""The name of the service in lower case."""
GET_FIREWALL_STATUS: Final = Action("GetFirewallStatus", {})

_UI4: Final = 0xFFFF_FFFF
"""The greatest value of the type ui4."""
_PROTOCOLS: Final = {"TCP": "6", "UDP": "17"}
"""Protocols go by their IANA numbers here."""

RESULT_OF_ERROR_CODE: Final = MappingProxyType(
    {
        701: UPnPResult.NO_PORT_MAPS_AVAILABLE,  # PinholeSpaceExhausted
        703: UPnPResult.NOT_AUTHORIZED,  # InboundPinholeNotAllowed
        704: UPnPResult.NO_SUCH_ENTRY_IN_ARRAY,  # NoSuchEntry
        705: UPnPResult.INVALID_PROTOCOL,  # ProtocolNotSupported
        706: UPnPResult.INT_PORT_WILDCARD_NOT_PERMITTED,  # InternalPortWildcardingNotAllowed
        708: UPnPResult.SRC_IP_WILDCARD_NOT_PERMITTED,  # WildCardNotPermittedInSrcIP
    }
)
"""The codes of this service that have a result of the same meaning; other services use these codes differently. All
others are UNKNOWN_ERROR: 702 FirewallDisabled, 707 ProtocolWildcardingNotAllowed, 709 NoPacketSent."""


def add_pinhole(request: PinholeRequest, client: str) -> Action:
    """AddPinhole (section 2.6.3): empty and 0 are wildcards."""
    return Action("AddPinhole", {**_flow(request, client), "LeaseTime": str(request.duration)})


def update_pinhole(unique_id: int, duration: int) -> Action:
    """UpdatePinhole (section 2.6.4)."""
    return Action("UpdatePinhole", {**_id(unique_id), "NewLeaseTime": str(duration)}, has_output=False)


def delete_pinhole(unique_id: int) -> Action:
    """DeletePinhole (section 2.6.5)."""
    return Action("DeletePinhole", _id(unique_id), has_output=False)


def get_pinhole_packets(unique_id: int) -> Action:
    """GetPinholePackets (section 2.6.6)."""
    return Action("GetPinholePackets", _id(unique_id))


def check_pinhole_working(unique_id: int) -> Action:
    """CheckPinholeWorking (section 2.6.7)."""
    return Action("CheckPinholeWorking", _id(unique_id))


def get_outbound_pinhole_timeout(request: PinholeRequest, client: str) -> Action:
    """GetOutboundPinholeTimeout (section 2.6.2)."""
    return Action("GetOutboundPinholeTimeout", _flow(request, client))


def read_firewall_status(values: Mapping[str, str]) -> FirewallStatus:
    """Return the status in a reply to GetFirewallStatus."""
    return FirewallStatus(read_flag(values, "firewallenabled"), read_flag(values, "inboundpinholeallowed"))


def read_unique_id(values: Mapping[str, str]) -> int:
    """Return the identifier in a reply to AddPinhole: 16 bits in the standard, more in some gateways."""
    return read_number(values, "uniqueid", _UI4)


def read_pinhole_packets(values: Mapping[str, str]) -> int:
    """Return the number of packets in a reply to GetPinholePackets."""
    return read_number(values, "pinholepackets", _UI4)


def read_is_working(values: Mapping[str, str]) -> bool:
    """Return the flag in a reply to CheckPinholeWorking."""
    return read_flag(values, "isworking")


def read_outbound_pinhole_timeout(values: Mapping[str, str]) -> int:
    """Return the seconds in a reply to GetOutboundPinholeTimeout."""
    return read_number(values, "outboundpinholetimeout", _UI4)


def _flow(request: PinholeRequest, client: str) -> dict[str, str]:
    return {
        "RemoteHost": request.remote_host,
        "RemotePort": str(request.remote_port),
        "InternalClient": client,
        "InternalPort": str(request.internal_port),
        "Protocol": _PROTOCOLS[request.proto],
    }


def _id(unique_id: int) -> dict[str, str]:
    return {"UniqueID": str(unique_id)}
