"""The services of an Internet Gateway Device: their actions, arguments and state variables.

This is the standard as data. The service documents (SCPD) are generated from it, and every request is checked against
it, so the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .errors import UPnPError

__all__ = ["SERVICES", "Action", "Argument", "ServiceSpec", "Variable", "check_arguments"]

_BOOLEANS: Final = frozenset({"0", "1", "true", "false", "yes", "no"})
"""The values of the type boolean (UDA 1.1 section 2.5)."""
_UNSIGNED: Final = {"ui2": 0xFFFF, "ui4": 0xFFFF_FFFF}
"""The greatest value of each unsigned type."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A state variable: its data type, the values it may have (all if empty), and whether changes are evented."""

    type: str = "string"
    allowed: tuple[str, ...] = ()
    evented: bool = False


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of an action, and the state variable that gives it its type."""

    name: str
    variable: str


@dataclass(frozen=True, slots=True)
class Action:
    """An action with its arguments, in the order in which they have to be sent."""

    name: str
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A service type: ``name`` without the ``urn:`` around it, its version, actions and variables."""

    name: str
    version: int
    actions: Mapping[str, Action]
    variables: Mapping[str, Variable]


def check_arguments(spec: ServiceSpec, action: Action, sent: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the arguments of a request by name, or raise UPnPError.

    402 where names or their order are not those of the standard, or a value is not of its type; 600 for a value
    outside the allowed ones; 601 for a number that its type cannot hold (UDA 1.1 sections 3.1.1 and 3.2.2).
    """
    if [name for name, _ in sent] != [argument.name for argument in action.inputs]:
        raise UPnPError(402)
    for (_, value), argument in zip(sent, action.inputs, strict=True):
        variable = spec.variables[argument.variable]
        highest = _UNSIGNED.get(variable.type)
        if highest is not None:
            if not (value.isascii() and value.isdigit()):
                raise UPnPError(402)
            if int(value) > highest:
                raise UPnPError(601)
        elif variable.type == "boolean" and value not in _BOOLEANS:
            raise UPnPError(402)
        if variable.allowed and value not in variable.allowed:
            raise UPnPError(600)
    return dict(sent)


def _action(name: str, inputs: str = "", outputs: str = "") -> Action:
    """Return an action; arguments are written ``Argument=StateVariable``, separated by blanks."""
    return Action(name, _arguments(inputs), _arguments(outputs))


def _arguments(text: str) -> tuple[Argument, ...]:
    return tuple(Argument(*pair.split("=")) for pair in text.split())


def _spec(name: str, version: int, actions: Sequence[Action], variables: Mapping[str, Variable]) -> ServiceSpec:
    used = {argument.variable for action in actions for argument in (*action.inputs, *action.outputs)}
    unknown = used - set(variables)
    if unknown:
        raise LookupError(f"{name}:{version} uses variables it does not have: {sorted(unknown)}")
    return ServiceSpec(name, version, {action.name: action for action in actions}, variables)


_MAPPING_KEY = "NewRemoteHost=RemoteHost NewExternalPort=ExternalPort NewProtocol=PortMappingProtocol"
_MAPPING_VALUE = (
    "NewInternalPort=InternalPort NewInternalClient=InternalClient NewEnabled=PortMappingEnabled"
    " NewPortMappingDescription=PortMappingDescription NewLeaseDuration=PortMappingLeaseDuration"
)
_PORT_RANGE = (
    "NewStartPort=ExternalPort NewEndPort=ExternalPort NewProtocol=PortMappingProtocol NewManage=A_ARG_TYPE_Manage"
)

_CONNECTION_ACTIONS: Final = (
    _action("SetConnectionType", "NewConnectionType=ConnectionType"),
    _action(
        "GetConnectionTypeInfo",
        outputs="NewConnectionType=ConnectionType NewPossibleConnectionTypes=PossibleConnectionTypes",
    ),
    _action("RequestConnection"),
    _action("ForceTermination"),
    _action(
        "GetStatusInfo",
        outputs="NewConnectionStatus=ConnectionStatus NewLastConnectionError=LastConnectionError NewUptime=Uptime",
    ),
    _action("GetNATRSIPStatus", outputs="NewRSIPAvailable=RSIPAvailable NewNATEnabled=NATEnabled"),
    _action(
        "GetGenericPortMappingEntry",
        "NewPortMappingIndex=PortMappingNumberOfEntries",
        f"{_MAPPING_KEY} {_MAPPING_VALUE}",
    ),
    _action("GetSpecificPortMappingEntry", _MAPPING_KEY, _MAPPING_VALUE),
    _action("AddPortMapping", f"{_MAPPING_KEY} {_MAPPING_VALUE}"),
    _action("DeletePortMapping", _MAPPING_KEY),
    _action("GetExternalIPAddress", outputs="NewExternalIPAddress=ExternalIPAddress"),
)
_CONNECTION_VARIABLES: Final = {
    "ConnectionType": Variable(),
    "PossibleConnectionTypes": Variable(evented=True),
    "ConnectionStatus": Variable(
        allowed=("Unconfigured", "Connecting", "Connected", "PendingDisconnect", "Disconnecting", "Disconnected"),
        evented=True,
    ),
    "LastConnectionError": Variable(),
    "Uptime": Variable("ui4"),
    "RSIPAvailable": Variable("boolean"),
    "NATEnabled": Variable("boolean"),
    "PortMappingNumberOfEntries": Variable("ui2", evented=True),
    "PortMappingEnabled": Variable("boolean"),
    "PortMappingLeaseDuration": Variable("ui4"),
    "RemoteHost": Variable(),
    "ExternalPort": Variable("ui2"),
    "InternalPort": Variable("ui2"),
    "PortMappingProtocol": Variable(allowed=("TCP", "UDP")),
    "InternalClient": Variable(),
    "PortMappingDescription": Variable(),
    "ExternalIPAddress": Variable(evented=True),
}

_WAN_IP_1 = _spec("WANIPConnection", 1, _CONNECTION_ACTIONS, _CONNECTION_VARIABLES)

_WAN_IP_2 = _spec(
    "WANIPConnection",
    2,
    (
        *_CONNECTION_ACTIONS,
        _action("DeletePortMappingRange", _PORT_RANGE),
        _action(
            "GetListOfPortMappings",
            f"{_PORT_RANGE} NewNumberOfPorts=PortMappingNumberOfEntries",
            "NewPortListing=A_ARG_TYPE_PortListing",
        ),
        _action("AddAnyPortMapping", f"{_MAPPING_KEY} {_MAPPING_VALUE}", "NewReservedPort=ExternalPort"),
    ),
    {
        **_CONNECTION_VARIABLES,
        "SystemUpdateID": Variable("ui4", evented=True),
        "A_ARG_TYPE_Manage": Variable("boolean"),
        "A_ARG_TYPE_PortListing": Variable(),
    },
)

_WAN_PPP_1 = _spec(
    "WANPPPConnection",
    1,
    (
        *_CONNECTION_ACTIONS,
        _action(
            "GetLinkLayerMaxBitRates",
            outputs="NewUpstreamMaxBitRate=UpstreamMaxBitRate NewDownstreamMaxBitRate=DownstreamMaxBitRate",
        ),
    ),
    {**_CONNECTION_VARIABLES, "UpstreamMaxBitRate": Variable("ui4"), "DownstreamMaxBitRate": Variable("ui4")},
)

_COMMON_1 = _spec(
    "WANCommonInterfaceConfig",
    1,
    (
        _action(
            "GetCommonLinkProperties",
            outputs="NewWANAccessType=WANAccessType NewLayer1UpstreamMaxBitRate=Layer1UpstreamMaxBitRate"
            " NewLayer1DownstreamMaxBitRate=Layer1DownstreamMaxBitRate NewPhysicalLinkStatus=PhysicalLinkStatus",
        ),
        _action("GetTotalBytesSent", outputs="NewTotalBytesSent=TotalBytesSent"),
        _action("GetTotalBytesReceived", outputs="NewTotalBytesReceived=TotalBytesReceived"),
        _action("GetTotalPacketsSent", outputs="NewTotalPacketsSent=TotalPacketsSent"),
        _action("GetTotalPacketsReceived", outputs="NewTotalPacketsReceived=TotalPacketsReceived"),
    ),
    {
        "WANAccessType": Variable(allowed=("DSL", "POTS", "Cable", "Ethernet")),
        "Layer1UpstreamMaxBitRate": Variable("ui4"),
        "Layer1DownstreamMaxBitRate": Variable("ui4"),
        "PhysicalLinkStatus": Variable(allowed=("Up", "Down", "Initializing", "Unavailable"), evented=True),
        "TotalBytesSent": Variable("ui4"),
        "TotalBytesReceived": Variable("ui4"),
        "TotalPacketsSent": Variable("ui4"),
        "TotalPacketsReceived": Variable("ui4"),
    },
)

_FORWARDING_1 = _spec(
    "Layer3Forwarding",
    1,
    (
        _action("SetDefaultConnectionService", "NewDefaultConnectionService=DefaultConnectionService"),
        _action("GetDefaultConnectionService", outputs="NewDefaultConnectionService=DefaultConnectionService"),
    ),
    {"DefaultConnectionService": Variable(evented=True)},
)

_FLOW = (
    "RemoteHost=A_ARG_TYPE_IPv6Address RemotePort=A_ARG_TYPE_Port InternalClient=A_ARG_TYPE_IPv6Address"
    " InternalPort=A_ARG_TYPE_Port Protocol=A_ARG_TYPE_Protocol"
)

_FIREWALL_1 = _spec(
    "WANIPv6FirewallControl",
    1,
    (
        _action(
            "GetFirewallStatus",
            outputs="FirewallEnabled=FirewallEnabled InboundPinholeAllowed=InboundPinholeAllowed",
        ),
        _action("GetOutboundPinholeTimeout", _FLOW, "OutboundPinholeTimeout=A_ARG_TYPE_OutboundPinholeTimeout"),
        _action("AddPinhole", f"{_FLOW} LeaseTime=A_ARG_TYPE_LeaseTime", "UniqueID=A_ARG_TYPE_UniqueID"),
        _action("UpdatePinhole", "UniqueID=A_ARG_TYPE_UniqueID NewLeaseTime=A_ARG_TYPE_LeaseTime"),
        _action("DeletePinhole", "UniqueID=A_ARG_TYPE_UniqueID"),
        _action("GetPinholePackets", "UniqueID=A_ARG_TYPE_UniqueID", "PinholePackets=A_ARG_TYPE_PinholePackets"),
        _action("CheckPinholeWorking", "UniqueID=A_ARG_TYPE_UniqueID", "IsWorking=A_ARG_TYPE_Boolean"),
    ),
    {
        "FirewallEnabled": Variable("boolean", evented=True),
        "InboundPinholeAllowed": Variable("boolean", evented=True),
        "A_ARG_TYPE_OutboundPinholeTimeout": Variable("ui4"),
        "A_ARG_TYPE_IPv6Address": Variable(),
        "A_ARG_TYPE_Port": Variable("ui2"),
        "A_ARG_TYPE_Protocol": Variable("ui2"),
        "A_ARG_TYPE_LeaseTime": Variable("ui4"),
        "A_ARG_TYPE_UniqueID": Variable("ui2"),
        "A_ARG_TYPE_PinholePackets": Variable("ui4"),
        "A_ARG_TYPE_Boolean": Variable("boolean"),
    },
)

SERVICES: Final[Mapping[tuple[str, int], ServiceSpec]] = {
    (spec.name, spec.version): spec
    for spec in (_WAN_IP_1, _WAN_IP_2, _WAN_PPP_1, _COMMON_1, _FORWARDING_1, _FIREWALL_1)
}
"""Every service type that the emulator knows, by name and version."""
