"""The nouns: what is asked of a gateway, what it granted, what was discovered.

All of them are frozen, and checked when they are made from what a caller said: a value that exists can be sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from operator import index
from typing import Any, Final, Literal, NamedTuple

from .errors import UsageError
from .results import IGDStatus, UPnPResult

__all__ = [
    "ConnectionStatus",
    "ConnectionType",
    "Device",
    "FirewallStatus",
    "LinkProperties",
    "MappingKey",
    "MappingRequest",
    "NatStatus",
    "Pinhole",
    "PinholeRequest",
    "PortMapping",
    "Proto",
    "Terms",
    "TrafficRates",
    "TrafficTotals",
]

Proto = Literal["TCP", "UDP"]

MAX_DURATION: Final = 4_294_967_295
"""Seconds: PortMappingLeaseDuration is a ui4 (WANIPConnection:2 section 2.2.21)."""
MAX_DESCRIPTION: Final = 1024
MAX_PINHOLE_DURATION: Final = 86_400
"""Seconds: the longest LeaseTime of a pinhole (WANIPv6FirewallControl:1 section 2.4.8)."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


class MappingKey(NamedTuple):
    """What identifies a mapping on a gateway: at most one exists for each."""

    external_port: int
    proto: Proto
    remote_host: str = ""

    def __str__(self) -> str:
        return f"{self.proto} port {self.external_port}" + (f" for {self.remote_host}" if self.remote_host else "")


class Terms(NamedTuple):
    """The part of a request on which gateways and callers may have to agree."""

    desc: str
    duration: int


class MappingRequest(NamedTuple):
    """One port mapping as it was asked for, checked. ``internal_client`` is empty for "this machine"."""

    key: MappingKey
    internal_port: int
    internal_client: str
    terms: Terms


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A mapping that a gateway has granted.

    ``desc`` and ``duration`` (seconds, 0 for no limit) are those of the request that the gateway accepted,
    which may be other than those that were asked for; after ``verify=True`` they are what it says it holds.
    ``enabled`` is False for one that a gateway holds, but has switched off.
    """

    external_port: int
    internal_port: int
    internal_client: str
    proto: Proto
    desc: str = ""
    duration: int = 0
    remote_host: str = ""
    enabled: bool = True

    @property
    def key(self) -> MappingKey:
        """What identifies the mapping on its gateway."""
        return MappingKey(self.external_port, self.proto, self.remote_host)


@dataclass(frozen=True, slots=True)
class Device:
    """A device that answered a search, as Godot's ``UPNPDevice`` has it.

    ``description_url`` is where its description was read, ``service_type`` the search target that it answered
    to, ``igd_control_url`` and ``igd_service_type`` the service that maps ports, ``igd_our_addr`` the address of
    this machine in the network that connects it to the device, ``igd_status`` what its examination said.
    """

    description_url: str = ""
    service_type: str = ""
    igd_control_url: str = ""
    igd_service_type: str = ""
    igd_our_addr: str = ""
    igd_status: IGDStatus = IGDStatus.UNKNOWN_ERROR
    friendly_name: str = ""
    manufacturer: str = ""
    model_name: str = ""
    udn: str = ""
    server: str = ""
    alternative_control_urls: tuple[str, ...] = field(default=(), repr=False)
    event_urls: tuple[str, ...] = field(default=(), repr=False)

    def is_valid_gateway(self) -> bool:
        """Whether ports can be mapped on it, as far as its description tells."""
        return self.igd_status is IGDStatus.OK


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """How it stands with a gateway's connection (GetStatusInfo, WANIPConnection:1 section 2.4.9).

    ``status`` and ``last_error`` are the words of the gateway, such as "Connected" and "ERROR_NONE"; ``uptime`` is
    in seconds, None where it does not tell.
    """

    status: str
    last_error: str = ""
    uptime: int | None = None

    @property
    def is_connected(self) -> bool:
        """Whether it says that it is connected. Some that are say otherwise."""
        return self.status.lower() in ("connected", "up")


@dataclass(frozen=True, slots=True)
class ConnectionType:
    """What kind of connection a gateway has (GetConnectionTypeInfo, WANIPConnection:1 section 2.4.2).

    ``current`` is for instance "IP_Routed" or "IP_Bridged", ``possible`` what it could be set to.
    """

    current: str
    possible: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NatStatus:
    """Whether a gateway translates addresses (GetNATRSIPStatus, WANIPConnection:1 section 2.4.13).

    Without NAT there is nothing to map: hosts are on the internet with addresses of their own.
    """

    nat_enabled: bool
    rsip_available: bool


@dataclass(frozen=True, slots=True)
class LinkProperties:
    """The line of a gateway (GetCommonLinkProperties, WANCommonInterfaceConfig:1 section 2.4.3).

    ``access_type`` is for instance "DSL" or "Cable", ``link_status`` "Up" or "Down"; the rates are in bits per
    second, 0 where the gateway does not tell.
    """

    access_type: str
    upstream_max_bit_rate: int
    downstream_max_bit_rate: int
    link_status: str

    @property
    def is_up(self) -> bool:
        """Whether it says that the line is up."""
        return self.link_status.lower() == "up"


@dataclass(frozen=True, slots=True)
class TrafficTotals:
    """A gateway's counters (GetTotalBytesSent and its like, WANCommonInterfaceConfig:1 sections 2.4.6 to 2.4.9).

    They begin at 0 again after 4294967295, and when the gateway restarts: :class:`TrafficMeter` makes rates of them.
    ``at`` is when they were read, in seconds of a clock that never goes back. Packets are None where it counts none.
    """

    bytes_sent: int
    bytes_received: int
    packets_sent: int | None = None
    packets_received: int | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class TrafficRates:
    """How much went through a gateway per second, as the mean of the last ``seconds``."""

    bytes_sent: float
    bytes_received: float
    packets_sent: float | None
    packets_received: float | None
    seconds: float


class PinholeRequest(NamedTuple):
    """One pinhole as it was asked for, checked. ``internal_client`` is empty for "this machine"."""

    internal_client: str
    internal_port: int
    proto: Proto
    remote_host: str
    remote_port: int
    duration: int


@dataclass(frozen=True, slots=True)
class Pinhole:
    """A hole in a gateway's IPv6 firewall, as it was granted: packets to one port of one host come through.

    ``unique_id`` is the gateway's number for it, ``duration`` the seconds that it was granted for; ``remote_host`` is
    empty and ``remote_port`` 0 where packets may come from anywhere.
    """

    unique_id: int
    internal_client: str
    internal_port: int
    proto: Proto
    remote_host: str = ""
    remote_port: int = 0
    duration: int = 0


@dataclass(frozen=True, slots=True)
class FirewallStatus:
    """What a gateway's IPv6 firewall does (GetFirewallStatus, WANIPv6FirewallControl:1 section 2.6.1).

    ``enabled``: it keeps unwanted packets out. ``pinholes_allowed``: programs may open pinholes.
    """

    enabled: bool
    pinholes_allowed: bool


def check_port(port: object, what: str = "port", *, lowest: int = 1) -> int:
    """Return a port number from ``lowest`` to 65535, or raise UsageError (INVALID_PORT)."""
    number = _whole_number(port)
    if number is None or not lowest <= number <= 65535:
        raise UsageError(
            f"{what} must be a whole number from {lowest} to 65535, not {_shown(port)}", UPnPResult.INVALID_PORT
        )
    return number


def check_proto(proto: object) -> Proto:
    """Return "TCP" or "UDP", or raise UsageError (INVALID_PROTOCOL)."""
    match proto.upper() if isinstance(proto, str) else None:
        case "TCP":
            return "TCP"
        case "UDP":
            return "UDP"
    raise UsageError(f'proto must be "TCP" or "UDP", not {_shown(proto)}', UPnPResult.INVALID_PROTOCOL)


def check_duration(duration: object) -> int:
    """Return a lease in seconds, or raise UsageError (INVALID_DURATION)."""
    number = _whole_number(duration)
    if number is None or not 0 <= number <= MAX_DURATION:
        raise UsageError(
            f"duration must be a whole number of seconds from 0 (no limit) to {MAX_DURATION}, not {_shown(duration)}",
            UPnPResult.INVALID_DURATION,
        )
    return number


def check_desc(desc: object) -> str:
    """Return a description, or raise UsageError (INVALID_ARGS)."""
    if not isinstance(desc, str):
        raise UsageError(f"desc must be a str, not {_shown(desc)}")
    if len(desc) > MAX_DESCRIPTION:
        raise UsageError(f"desc must have at most {MAX_DESCRIPTION} characters, not {len(desc)}")
    bad = _CONTROL.search(desc)
    if bad is not None:
        raise UsageError(f"desc must not contain control characters; it has {bad.group()!r} at {bad.start()}")
    return desc


def check_address(address: object, what: str) -> str:
    """Return an IPv4 address in its usual form, or "" for "" and None; raises UsageError (INVALID_ARGS)."""
    if address is None or (isinstance(address, str) and not address):
        return ""
    # A number would be an address to the ipaddress module; to a caller it is a slip.
    parsed = _parse_address(address) if isinstance(address, (str, IPv4Address)) else None
    if parsed is None or parsed.is_unspecified or parsed.is_multicast:
        raise UsageError(f"{what} must be the IPv4 address of a host, not {_shown(address)}")
    return str(parsed)


def check_key(port: object, proto: object, remote_host: object = "") -> MappingKey:
    """Return the key of a mapping from what a caller said, or raise UsageError."""
    return MappingKey(check_port(port), check_proto(proto), check_address(remote_host, "remote_host"))


def check_request(
    port: object,
    internal_port: object,
    desc: object,
    proto: object,
    duration: object,
    internal_client: object,
    remote_host: object,
) -> MappingRequest:
    """Return a mapping request from what a caller said, or raise UsageError."""
    said = (port, internal_port, desc, proto, duration, internal_client, remote_host)
    try:
        return _remembered_request(*said)
    except TypeError:  # something that has no hash
        return _check_request(*said)


def _check_request(
    port: object,
    internal_port: object,
    desc: object,
    proto: object,
    duration: object,
    internal_client: object,
    remote_host: object,
) -> MappingRequest:
    key = check_key(port, proto, remote_host)
    inner = check_port(internal_port, "internal_port", lowest=0) or key.external_port
    client = check_address(internal_client, "internal_client")
    return MappingRequest(key, inner, client, Terms(check_desc(desc), check_duration(duration)))


def check_address6(address: object, what: str) -> str:
    """Return an IPv6 address in its usual form, or "" for "" and None; raises UsageError (INVALID_ARGS)."""
    if address is None or (isinstance(address, str) and not address):
        return ""
    parsed = None
    if isinstance(address, (str, IPv6Address)):
        try:
            parsed = ip_address(address)
        except ValueError:
            parsed = None
    if (
        not isinstance(parsed, IPv6Address)
        or parsed.ipv4_mapped is not None
        or parsed.is_unspecified
        or parsed.is_multicast
        or parsed.is_link_local
    ):
        raise UsageError(f"{what} must be the IPv6 address of a host on the internet, not {_shown(address)}")
    return str(parsed)


def check_pinhole_duration(duration: object) -> int:
    """Return the lease of a pinhole in seconds, or raise UsageError (INVALID_DURATION)."""
    number = _whole_number(duration)
    if number is None or not 1 <= number <= MAX_PINHOLE_DURATION:
        raise UsageError(
            f"a pinhole lasts a whole number of seconds from 1 to {MAX_PINHOLE_DURATION}, not {_shown(duration)}",
            UPnPResult.INVALID_DURATION,
        )
    return number


def check_pinhole_request(
    internal_client: object,
    internal_port: object,
    proto: object,
    remote_host: object,
    remote_port: object,
    duration: object,
) -> PinholeRequest:
    """Return a request for a pinhole from what a caller said, or raise UsageError."""
    return PinholeRequest(
        check_address6(internal_client, "internal_client"),
        check_port(internal_port, "internal_port"),
        check_proto(proto),
        check_address6(remote_host, "remote_host"),
        check_port(remote_port, "remote_port", lowest=0),
        check_pinhole_duration(duration),
    )


def check_pinhole(pinhole: object) -> Pinhole:
    """Return a pinhole that was granted, or raise UsageError (INVALID_ARGS)."""
    if not isinstance(pinhole, Pinhole):
        raise UsageError(f"pinhole must be a Pinhole that a gateway has granted, not {_shown(pinhole)}")
    return pinhole


def check_port_range(start: object, end: object, proto: object) -> tuple[int, int, Proto]:
    """Return first and last external port and protocol from what a caller said, or raise UsageError."""
    first, last = check_port(start, "start"), check_port(end, "end")
    if first > last:
        raise UsageError(f"a range of ports from {first} to {last} has none in it")
    return first, last, check_proto(proto)


# By the ten thousand, callers say the same thing; all of them share one request. Typed, as True equals 1.
_remembered_request = lru_cache(maxsize=64, typed=True)(_check_request)


def _whole_number(value: Any) -> int | None:
    # bool is an int to Python, but True is no port to anybody.
    if isinstance(value, bool):
        return None
    try:
        return index(value)
    except TypeError:
        return None


def _shown(value: object) -> str:
    # Some values cannot be shown (an int of over 4,300 digits), some not on one screen.
    try:
        return repr(value)[:80]
    except Exception:
        return f"this {type(value).__name__}"


def _parse_address(address: str | IPv4Address) -> IPv4Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return parsed if isinstance(parsed, IPv4Address) else None
