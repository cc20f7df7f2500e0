"""The outcomes that a port-mapping call can have, as numbers and names.

Everything that says *what happened* lives here; nothing here knows how it came about. The names and the
numbers are those of Godot's ``UPNP.UPNPResult`` and ``UPNPDevice.IGDStatus``, so that a program which moves
over keeps its tables.
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import Final

__all__ = ["RESULT_OF_ERROR_CODE", "IGDStatus", "UPnPResult", "result_of_error_code"]


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
    ``INVALID_CONTROL``   its control URL cannot be used (not http, or not a URL)
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


RESULT_OF_ERROR_CODE: Final = MappingProxyType(
    {
        402: UPnPResult.INVALID_ARGS,
        403: UPnPResult.NOT_AUTHORIZED,
        501: UPnPResult.ACTION_FAILED,
        606: UPnPResult.NOT_AUTHORIZED,
        714: UPnPResult.NO_SUCH_ENTRY_IN_ARRAY,
        715: UPnPResult.SRC_IP_WILDCARD_NOT_PERMITTED,
        716: UPnPResult.EXT_PORT_WILDCARD_NOT_PERMITTED,
        718: UPnPResult.CONFLICT_WITH_OTHER_MAPPING,
        724: UPnPResult.SAME_PORT_VALUES_REQUIRED,
        725: UPnPResult.ONLY_PERMANENT_LEASE_SUPPORTED,
        726: UPnPResult.REMOTE_HOST_MUST_BE_WILDCARD,
        727: UPnPResult.EXT_PORT_MUST_BE_WILDCARD,
        728: UPnPResult.NO_PORT_MAPS_AVAILABLE,
        729: UPnPResult.CONFLICT_WITH_OTHER_MECHANISM,
        730: UPnPResult.PORT_MAPPING_NOT_FOUND,
        732: UPnPResult.INT_PORT_WILDCARD_NOT_PERMITTED,
        733: UPnPResult.INCONSISTENT_PARAMETERS,
    }
)
"""The UPnP error codes (UDA 1.1 section 3.2.2, WANIPConnection:2 section 2.5) that have a result of their own."""


def result_of_error_code(code: int | None) -> UPnPResult:
    """Return the result that stands for a UPnP error code, UNKNOWN_ERROR for one that has none.

    None, a refusal without any code, is INVALID_RESPONSE.
    """
    if code is None:
        return UPnPResult.INVALID_RESPONSE
    return RESULT_OF_ERROR_CODE.get(code, UPnPResult.UNKNOWN_ERROR)
