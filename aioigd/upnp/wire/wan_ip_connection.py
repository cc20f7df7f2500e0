"""The actions of WANIPConnection that this package uses: arguments to send, values to read.

An :class:`Action` is a name with its arguments, in the order of the standard (WANIPConnection:2 section 2.5);
a ``read_…`` function turns the output arguments of one into a value, or raises InvalidResponseError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from ...arguments import check_proto
from ...errors import InvalidResponseError
from ...models import (
    MAX_DURATION,
    ConnectionStatus,
    ConnectionType,
    MappingKey,
    MappingRequest,
    NatStatus,
    PortMapping,
    Proto,
    Terms,
)
from .xml import printable_line

__all__ = [
    "GET_CONNECTION_TYPE_INFO",
    "GET_EXTERNAL_IP_ADDRESS",
    "GET_NAT_RSIP_STATUS",
    "GET_STATUS_INFO",
    "Action",
    "add_any_port_mapping",
    "add_port_mapping",
    "delete_port_mapping",
    "delete_port_mapping_range",
    "get_generic_entry",
    "get_list",
    "get_specific_entry",
    "read_connection_status",
    "read_connection_type",
    "read_entry",
    "read_external_address",
    "read_flag",
    "read_generic_entry",
    "read_nat_status",
    "read_number",
    "read_reserved_port",
    "read_status_info",
    "read_text",
]

_MAX_WORDS = 256
_FALSE = frozenset({"0", "false", "no"})
_TRUE = frozenset({"1", "true", "yes"})


@dataclass(frozen=True, slots=True)
class Action:
    """An action with its input arguments."""

    name: str
    arguments: Mapping[str, str] = field(hash=False)


GET_EXTERNAL_IP_ADDRESS = Action("GetExternalIPAddress", {})
GET_STATUS_INFO = Action("GetStatusInfo", {})
GET_CONNECTION_TYPE_INFO = Action("GetConnectionTypeInfo", {})
GET_NAT_RSIP_STATUS = Action("GetNATRSIPStatus", {})


def add_port_mapping(request: MappingRequest, client: str, terms: Terms) -> Action:
    """AddPortMapping (section 2.5.16): all eight arguments, always; routers answer 402 where one is missing."""
    key = request.key
    return Action(
        "AddPortMapping",
        {
            "NewRemoteHost": key.remote_host,
            "NewExternalPort": str(key.external_port),
            "NewProtocol": key.proto,
            "NewInternalPort": str(request.internal_port),
            "NewInternalClient": client,
            "NewEnabled": "1",
            "NewPortMappingDescription": terms.desc,
            "NewLeaseDuration": str(terms.duration),
        },
    )


def add_any_port_mapping(request: MappingRequest, client: str, terms: Terms) -> Action:
    """AddAnyPortMapping (section 2.5.19): the arguments of AddPortMapping, the port a wish."""
    return Action("AddAnyPortMapping", add_port_mapping(request, client, terms).arguments)


def delete_port_mapping(key: MappingKey) -> Action:
    """DeletePortMapping (section 2.5.17)."""
    return Action("DeletePortMapping", _key_arguments(key))


def delete_port_mapping_range(start: int, end: int, proto: Proto) -> Action:
    """DeletePortMappingRange (section 2.5.18) of everybody's mappings, as far as this machine may."""
    return Action("DeletePortMappingRange", _range_arguments(start, end, proto))


def get_list(proto: Proto) -> Action:
    """GetListOfPortMappings (section 2.5.21) of all ports, everybody's mappings, and as many as there are."""
    return Action("GetListOfPortMappings", {**_range_arguments(0, 65535, proto), "NewNumberOfPorts": "0"})


def get_specific_entry(key: MappingKey) -> Action:
    """GetSpecificPortMappingEntry (section 2.5.15)."""
    return Action("GetSpecificPortMappingEntry", _key_arguments(key))


def get_generic_entry(index: int) -> Action:
    """GetGenericPortMappingEntry (section 2.5.14)."""
    return Action("GetGenericPortMappingEntry", {"NewPortMappingIndex": str(index)})


def read_entry(key: MappingKey, values: Mapping[str, str]) -> PortMapping:
    """Return the mapping that GetSpecificPortMappingEntry tells of."""
    client = values.get("newinternalclient", "")
    if not client:
        raise InvalidResponseError(f"an entry for {key} without an internal client")
    return PortMapping(
        external_port=key.external_port,
        internal_port=read_number(values, "newinternalport", 65535),
        internal_client=client,
        proto=key.proto,
        desc=values.get("newportmappingdescription", ""),
        duration=read_number(values, "newleaseduration", MAX_DURATION, default=0),
        remote_host=key.remote_host,
        enabled=values.get("newenabled", "").lower() not in _FALSE,
    )


def read_generic_entry(values: Mapping[str, str]) -> PortMapping:
    """Return the mapping that GetGenericPortMappingEntry tells of."""
    try:
        proto = check_proto(values.get("newprotocol", ""))
    except ValueError as error:
        raise InvalidResponseError("an entry without a protocol") from error
    port = read_number(values, "newexternalport", 65535)
    return read_entry(MappingKey(port, proto, values.get("newremotehost", "")), values)


def read_external_address(values: Mapping[str, str]) -> IPv4Address | IPv6Address:
    """Return the address that GetExternalIPAddress tells of: private ones too, impossible ones never."""
    text = values.get("newexternalipaddress", "")
    try:
        address = ip_address("" if "%" in text else text)  # a zone is of no use outside
    except ValueError:
        raise InvalidResponseError(f"{text[:60]!r} is not an external address") from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        raise InvalidResponseError(f"{address} cannot be the external address of a gateway")
    return address


def read_reserved_port(values: Mapping[str, str]) -> int:
    """Return the external port that AddAnyPortMapping tells of."""
    port = read_number(values, "newreservedport", 65535)
    if port == 0:
        raise InvalidResponseError("a reserved port 0")
    return port


def read_connection_status(values: Mapping[str, str]) -> bool | None:
    """Return whether GetStatusInfo says that the connection is up, None where it says nothing of use."""
    status = values.get("newconnectionstatus", "").lower()
    if not status:
        return None
    return status in ("connected", "up")


def read_status_info(values: Mapping[str, str]) -> ConnectionStatus:
    """Return what GetStatusInfo tells."""
    status = read_text(values, "newconnectionstatus")
    if not status:
        raise InvalidResponseError("a connection status that says nothing")
    uptime = read_number(values, "newuptime", MAX_DURATION, default=-1)
    return ConnectionStatus(
        status=status,
        last_error=read_text(values, "newlastconnectionerror"),
        uptime=None if uptime < 0 else uptime,
    )


def read_connection_type(values: Mapping[str, str]) -> ConnectionType:
    """Return what GetConnectionTypeInfo tells."""
    possible = (word.strip() for word in read_text(values, "newpossibleconnectiontypes").split(","))
    return ConnectionType(read_text(values, "newconnectiontype"), tuple(word for word in possible if word))


def read_nat_status(values: Mapping[str, str]) -> NatStatus:
    """Return what GetNATRSIPStatus tells."""
    return NatStatus(
        nat_enabled=read_flag(values, "newnatenabled"),
        rsip_available=values.get("newrsipavailable", "").lower() in _TRUE,
    )


def read_text(values: Mapping[str, str], name: str) -> str:
    """Return a text that may be shown to people, empty where there is none."""
    return printable_line(values.get(name, ""), _MAX_WORDS)


def read_flag(values: Mapping[str, str], name: str) -> bool:
    """Return a boolean, however it is spelled (UDA 1.1 section 2.5)."""
    text = values.get(name, "").lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise InvalidResponseError(f"{name} is {text[:40]!r}, neither true nor false")


def _range_arguments(start: int, end: int, proto: Proto) -> dict[str, str]:
    return {"NewStartPort": str(start), "NewEndPort": str(end), "NewProtocol": proto, "NewManage": "1"}


def _key_arguments(key: MappingKey) -> dict[str, str]:
    return {"NewRemoteHost": key.remote_host, "NewExternalPort": str(key.external_port), "NewProtocol": key.proto}


def read_number(values: Mapping[str, str], name: str, highest: int, *, default: int | None = None) -> int:
    """Return a number from 0 to ``highest``; ``default`` for what is none, where there is one."""
    text = values.get(name, "")
    if text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= highest:
        return int(text)
    if default is not None:
        return default
    raise InvalidResponseError(f"{name} is {text[:40]!r}, not a number from 0 to {highest}")
