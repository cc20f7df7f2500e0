"""The actions of WANCommonInterfaceConfig that this package uses: properties and counters of the WAN line.

Section numbers are those of WANCommonInterfaceConfig:1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ...errors import InvalidResponseError
from ...models import LinkProperties
from .soap import Action, read_number, read_text

__all__ = [
    "GET_COMMON_LINK_PROPERTIES",
    "GET_TOTAL_BYTES_RECEIVED",
    "GET_TOTAL_BYTES_SENT",
    "GET_TOTAL_PACKETS_RECEIVED",
    "GET_TOTAL_PACKETS_SENT",
    "SERVICE",
    "read_link_properties",
    "read_total",
]

SERVICE: Final = "wancommoninterfaceconfig"
"""The name of the service in lower case."""
GET_COMMON_LINK_PROPERTIES: Final = Action("GetCommonLinkProperties", {})
GET_TOTAL_BYTES_SENT: Final = Action("GetTotalBytesSent", {})
GET_TOTAL_BYTES_RECEIVED: Final = Action("GetTotalBytesReceived", {})
GET_TOTAL_PACKETS_SENT: Final = Action("GetTotalPacketsSent", {})
GET_TOTAL_PACKETS_RECEIVED: Final = Action("GetTotalPacketsReceived", {})

_UI4: Final = 0xFFFF_FFFF
"""The greatest value of the type ui4."""
_COUNT: Final = re.compile(r"-?\d{1,20}", re.ASCII)


def read_link_properties(values: Mapping[str, str]) -> LinkProperties:
    """Return the values in a reply to GetCommonLinkProperties (section 2.4.3)."""
    status = read_text(values, "newphysicallinkstatus")
    if not status:
        raise InvalidResponseError("a physical link status that says nothing")
    return LinkProperties(
        access_type=read_text(values, "newwanaccesstype"),
        upstream_max_bit_rate=read_number(values, "newlayer1upstreammaxbitrate", _UI4, default=0),
        downstream_max_bit_rate=read_number(values, "newlayer1downstreammaxbitrate", _UI4, default=0),
        link_status=status,
    )


def read_total(action: Action, values: Mapping[str, str]) -> int:
    """Return the value of a counter (sections 2.4.6 to 2.4.9).

    The standard has 32 bits for it. Some gateways print a signed number, and some count beyond 32 bits.
    """
    text = values.get(action.name.lower().replace("get", "new", 1), "")
    if not _COUNT.fullmatch(text):
        raise InvalidResponseError(f"{action.name} tells {text[:40]!r}, which is no number")
    number = int(text)
    return number if number >= 0 else number & _UI4
