"""The actions of WANIPConnection that this package uses: arguments to send, values to read.

The arguments of an :class:`~.soap.Action` are in the order of the standard (WANIPConnection:2 section 2.5);
a ``read_…`` function turns the output arguments of one into a value, or raises InvalidResponseError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from itertools import islice
from typing import Final

from lxml import etree

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
from . import xml
from .soap import Action, read_flag, read_number, read_text

__all__ = [
    "GET_CONNECTION_TYPE_INFO",
    "GET_EXTERNAL_IP_ADDRESS",
    "GET_GENERIC_ENTRY",
    "GET_NAT_RSIP_STATUS",
    "GET_STATUS_INFO",
    "add_any_port_mapping",
    "add_port_mapping",
    "delete_port_mapping",
    "delete_port_mapping_range",
    "get_generic_entry",
    "get_list",
    "get_specific_entry",
    "parse_external_address",
    "read_connection_status",
    "read_connection_type",
    "read_entry",
    "read_external_address",
    "read_generic_entry",
    "read_nat_status",
    "read_port_listing",
    "read_reserved_port",
    "read_status_info",
]

_MAX_ROW_VALUES: Final = 32
"""Elements read in one row; the standard has eight."""
_NEEDED_IN_ROW: Final = ("newexternalport", "newprotocol", "newinternalclient")
"""Arguments without which a row is no mapping."""
_ADDRESS: Final = re.compile(
    r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:\s*:\s*\d{1,5}|\s*/\s*\d{1,2}|\s*/?\s*255(?:\.\d{1,3}){3})?",
    re.ASCII,
)
"""An address, and what some write behind it: a port, a prefix length, a mask."""
_AROUND_ADDRESS: Final = " \t\r\n\0\"'[]<>().,;\ufeff\u200b"
_PROTO_OF_NUMBER: Final[Mapping[str, Proto]] = {"6": "TCP", "17": "UDP"}
"""The numbers of protocols in the header of IP, which some tables show."""
_AMONG_ADDRESSES: Final = re.compile(r"[,;\s]+")
"""What separates several external addresses, of which the first that can be one counts."""
_MOST_TEXT: Final = 256
"""Characters of them that are read."""
_THIS_NETWORK: Final = IPv4Network("0.0.0.0/8")
_BROADCAST: Final = IPv4Address("255.255.255.255")
_ARGUMENT_OF_ROW: Final = {"newdescription": "newportmappingdescription", "newleasetime": "newleaseduration"}
"""The elements of a row whose names differ from those of the arguments."""

GET_GENERIC_ENTRY: Final = "GetGenericPortMappingEntry"
GET_EXTERNAL_IP_ADDRESS: Final = Action("GetExternalIPAddress", {})
GET_STATUS_INFO: Final = Action("GetStatusInfo", {})
GET_CONNECTION_TYPE_INFO: Final = Action("GetConnectionTypeInfo", {})
GET_NAT_RSIP_STATUS: Final = Action("GetNATRSIPStatus", {})


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
        has_output=False,
    )


def add_any_port_mapping(request: MappingRequest, client: str, terms: Terms) -> Action:
    """AddAnyPortMapping (section 2.5.17): the arguments of AddPortMapping; the gateway may choose another port."""
    return Action("AddAnyPortMapping", add_port_mapping(request, client, terms).arguments)


def delete_port_mapping(key: MappingKey) -> Action:
    """DeletePortMapping (section 2.5.18)."""
    return Action("DeletePortMapping", _key_arguments(key), has_output=False)


def delete_port_mapping_range(start: int, end: int, proto: Proto) -> Action:
    """DeletePortMappingRange (section 2.5.19) with NewManage: of all clients, where the gateway allows it."""
    return Action("DeletePortMappingRange", _range_arguments(start, end, proto), has_output=False)


def get_list(proto: Proto) -> Action:
    """GetListOfPortMappings (section 2.5.21) of all ports and all clients, without a limit."""
    return Action("GetListOfPortMappings", {**_range_arguments(0, 65535, proto), "NewNumberOfPorts": "0"})


def get_specific_entry(key: MappingKey) -> Action:
    """GetSpecificPortMappingEntry (section 2.5.15)."""
    return Action("GetSpecificPortMappingEntry", _key_arguments(key))


def get_generic_entry(index: int) -> Action:
    """GetGenericPortMappingEntry (section 2.5.14)."""
    return Action(GET_GENERIC_ENTRY, {"NewPortMappingIndex": str(index)})


def read_entry(key: MappingKey, values: Mapping[str, str], *, lenient: bool = False) -> PortMapping:
    """Return the mapping in a reply to GetSpecificPortMappingEntry.

    ``lenient``: either of internal port and internal client may be missing, or no such thing; then it is 0 or empty.
    """
    client = read_text(values, "newinternalclient")
    port = read_number(values, "newinternalport", 65535, default=0 if lenient else None)
    if not client.strip("0.") and not (lenient and port):
        raise InvalidResponseError(f"an entry for {key} without an internal client")
    return PortMapping(
        external_port=key.external_port,
        internal_port=port,
        internal_client=client,
        proto=key.proto,
        desc=values.get("newportmappingdescription", ""),
        duration=read_number(values, "newleaseduration", MAX_DURATION, default=0),
        remote_host=key.remote_host,
        enabled=read_flag(values, "newenabled", default=True),
    )


def read_generic_entry(values: Mapping[str, str]) -> PortMapping:
    """Return the mapping in a reply to GetGenericPortMappingEntry."""
    text = values.get("newprotocol", "").strip().upper().removeprefix("IPPROTO_")
    try:
        proto = _PROTO_OF_NUMBER.get(text) or check_proto(text)
    except ValueError as error:
        raise InvalidResponseError("an entry without a protocol") from error
    port = read_number(values, "newexternalport", 65535)
    return read_entry(MappingKey(port, proto, values.get("newremotehost", "")), values, lenient=True)


def read_external_address(values: Mapping[str, str]) -> IPv4Address:
    """Return the address in a reply to GetExternalIPAddress: private ones too, impossible ones never."""
    text = values.get("newexternalipaddress", "")
    address = parse_external_address(text)
    if address is None:
        raise InvalidResponseError(f"{text[:60]!r} is not the external IPv4 address of a gateway")
    return address


def parse_external_address(text: str) -> IPv4Address | None:
    """Return an external address however it is written, None for what cannot be the IPv4 address of a gateway.

    Routers write it with a port, a prefix length, a mask or other addresses behind it, in quotes, or with
    zeros in front (of decimal numbers: no C library of a router prints octal ones).
    """
    text = text[:_MOST_TEXT].strip(_AROUND_ADDRESS)
    several = [text] if _ADDRESS.fullmatch(text) else _AMONG_ADDRESSES.split(text)
    if len(several) == 1:
        return _one_address(text)
    is_list = all(_ADDRESS.fullmatch(one) for one in several)
    return next(filter(None, map(_one_address, several)), None) if is_list else None


def _one_address(text: str) -> IPv4Address | None:
    found = _ADDRESS.fullmatch(text)
    try:
        if found is not None:
            address: IPv4Address | IPv6Address | None = IPv4Address(".".join(str(int(part)) for part in found.groups()))
        else:
            address = getattr(ip_address(text), "ipv4_mapped", None)
    except ValueError:
        return None
    if not isinstance(address, IPv4Address) or address in _THIS_NETWORK or address == _BROADCAST:
        return None
    return None if address.is_loopback or address.is_multicast else address


def read_reserved_port(values: Mapping[str, str]) -> int:
    """Return the external port that AddAnyPortMapping has chosen."""
    port = read_number(values, "newreservedport", 65535)
    if port == 0:
        raise InvalidResponseError("a reserved port 0")
    return port


def read_connection_status(values: Mapping[str, str]) -> bool | None:
    """Return whether the connection is up by a reply to GetStatusInfo, None where it has no status."""
    status = values.get("newconnectionstatus", "").lower()
    if not status:
        return None
    return status in ("connected", "up")


def read_status_info(values: Mapping[str, str]) -> ConnectionStatus:
    """Return the status in a reply to GetStatusInfo."""
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
    """Return the connection type in a reply to GetConnectionTypeInfo."""
    possible = (word.strip() for word in read_text(values, "newpossibleconnectiontypes").split(","))
    return ConnectionType(read_text(values, "newconnectiontype"), tuple(word for word in possible if word))


def read_nat_status(values: Mapping[str, str]) -> NatStatus:
    """Return the NAT status in a reply to GetNATRSIPStatus."""
    return NatStatus(
        nat_enabled=read_flag(values, "newnatenabled"),
        rsip_available=read_flag(values, "newrsipavailable", default=False),
    )


def read_port_listing(values: Mapping[str, str]) -> tuple[PortMapping, ...]:
    """Return the mappings in a reply to GetListOfPortMappings (A_ARG_TYPE_PortListing, section 2.3.25).

    They are an XML document in one value of the reply. A row that is no mapping is skipped. Raises
    InvalidResponseError for what is no list, or only a part of one.
    """
    root = xml.parse(values.get("newportlisting", "").encode())
    listing = next(xml.iter_named(root, "portmappinglist"), None)
    if listing is None:
        raise InvalidResponseError("what should be a list of mappings is not")
    if not xml.is_finished(listing):
        raise InvalidResponseError("a list of mappings that was cut off")
    rows = (_row(element) for element in xml.iter_named(listing, "portmappingentry"))
    return tuple(row for row in rows if row is not None)


def _range_arguments(start: int, end: int, proto: Proto) -> dict[str, str]:
    return {"NewStartPort": str(start), "NewEndPort": str(end), "NewProtocol": proto, "NewManage": "1"}


def _key_arguments(key: MappingKey) -> dict[str, str]:
    return {"NewRemoteHost": key.remote_host, "NewExternalPort": str(key.external_port), "NewProtocol": key.proto}


def _row(element: etree._Element) -> PortMapping | None:
    if len(element) < len(_NEEDED_IN_ROW):
        return None
    values: dict[str, str] = {}
    for value in islice(element, _MAX_ROW_VALUES):
        name = xml.local_name(value)
        values.setdefault(_ARGUMENT_OF_ROW.get(name, name), xml.text_of(value))
    if not all(values.get(name) for name in _NEEDED_IN_ROW):  # much cheaper than an exception
        return None
    try:
        return read_generic_entry(values)
    except InvalidResponseError:
        return None
