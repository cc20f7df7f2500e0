"""The outcomes that a port-mapping call can have, as numbers and names.

Everything that says *what happened* lives here; nothing here knows how it came about. The names and the
numbers are those of Godot's ``UPNP.UPNPResult`` and ``UPNPDevice.IGDStatus``, so that a program which moves
over keeps its tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Literal

__all__ = ["PROTOCOL_NAMES", "IGDStatus", "ProtocolName", "UPnPResult"]

ProtocolName = Literal["upnp", "pcp", "nat-pmp"]
"""The protocols by which ports are mapped."""
PROTOCOL_NAMES: Final[Mapping[str, str]] = MappingProxyType({"upnp": "UPnP", "pcp": "PCP", "nat-pmp": "NAT-PMP"})
"""What people call them."""


class UPnPResult(IntEnum):
    """What came of a call; every :class:`~aioigd.IGDError` carries one as ``result``."""

    SUCCESS = 0
    NOT_AUTHORIZED = 1
    PORT_MAPPING_NOT_FOUND = 2
    INCONSISTENT_PARAMETERS = 3
    NO_SUCH_ENTRY_IN_ARRAY = 4
    ACTION_FAILED = 5
    SRC_IP_WILDCARD_NOT_PERMITTED = 6
    EXT_PORT_WILDCARD_NOT_PERMITTED = 7
    INT_PORT_WILDCARD_NOT_PERMITTED = 8
    REMOTE_HOST_MUST_BE_WILDCARD = 9
    EXT_PORT_MUST_BE_WILDCARD = 10
    NO_PORT_MAPS_AVAILABLE = 11
    CONFLICT_WITH_OTHER_MECHANISM = 12
    CONFLICT_WITH_OTHER_MAPPING = 13
    SAME_PORT_VALUES_REQUIRED = 14
    ONLY_PERMANENT_LEASE_SUPPORTED = 15
    INVALID_GATEWAY = 16
    INVALID_PORT = 17
    INVALID_PROTOCOL = 18
    INVALID_DURATION = 19
    INVALID_ARGS = 20
    INVALID_RESPONSE = 21
    INVALID_PARAM = 22
    HTTP_ERROR = 23
    SOCKET_ERROR = 24
    MEM_ALLOC_ERROR = 25
    NO_GATEWAY = 26
    NO_DEVICES = 27
    UNKNOWN_ERROR = 28


class IGDStatus(IntEnum):
    """What the examination of a discovered device said about it as a gateway.

    ====================  =====================================================================
    status                meaning
    ====================  =====================================================================
    ``OK``                a gateway with a WAN connection service that can be controlled
    ``HTTP_ERROR``        its description could not be fetched
    ``HTTP_EMPTY``        its description is empty
    ``NO_URLS``           it has a WAN connection service, but names no control URL for it
    ``NO_IGD``            a UPnP device, but no gateway (no WAN connection service)
    ``DISCONNECTED``      it has several WAN connections, and says that none of them is connected
    ``UNKNOWN_DEVICE``    what it serves is not a UPnP device description
    ``INVALID_CONTROL``   its control URL cannot be used (not http, or not a URL), or wants a password
    ``MALLOC_ERROR``      kept for its number
    ``UNKNOWN_ERROR``     not examined (yet)
    ====================  =====================================================================
    """

    OK = 0
    HTTP_ERROR = 1
    HTTP_EMPTY = 2
    NO_URLS = 3
    NO_IGD = 4
    DISCONNECTED = 5
    UNKNOWN_DEVICE = 6
    INVALID_CONTROL = 7
    MALLOC_ERROR = 8
    UNKNOWN_ERROR = 9
