"""The nouns: what is asked of a gateway, what it granted, what was discovered. All of them are frozen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal, NamedTuple

from .results import IGDStatus, ProtocolName

__all__ = [
    "MAX_DURATION",
    "MAX_PINHOLE_DURATION",
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
    "read_host",
]

Proto = Literal["TCP", "UDP"]

MAX_DURATION: Final = 4_294_967_295
"""Seconds: PortMappingLeaseDuration is a ui4 (WANIPConnection:2 section 2.3.16)."""
MAX_PINHOLE_DURATION: Final = 86_400
"""Seconds: the longest LeaseTime of a pinhole (WANIPv6FirewallControl:1 section 2.4.8)."""


_PART: Final = r"(0x[0-9a-f]{1,2}|\d{1,4})"
_SPELT_IPV4: Final = re.compile(
    rf"(?<![\w.:%-]){_PART}\.{_PART}\.{_PART}\.{_PART}\.?(?:/[\d.]{{1,15}}|:\d{{1,5}}(?:/\w{{1,4}})?)?(?![\w.:%-])",
    re.ASCII | re.IGNORECASE,
)
"""An IPv4 address as tables have it: with zeros in front, in hexadecimal or octal numbers, with a length, a mask,
a port or a full stop behind it, or beside a name."""
_OCTAL_DIGITS: Final = 4
"""Digits of a number that can only be octal, and so are the others."""
_BROADCAST: Final = IPv4Address("255.255.255.255")
_ANY_HOST: Final = frozenset(
    {"", "-", "*", "any", "all", "anywhere", "none", "null", "nil", "n/a", "unknown", "undefined", "wildcard"}
)
"""What tables say for "no remote host" beside the unspecified address."""
_LONGEST_HOST: Final = 255
"""Characters of a host that are read: names have no more (RFC 1035 section 2.3.4)."""


def read_host(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address of a host that a gateway, or a program, has written; None for what is none.

    A name is none, and so are the unspecified address, that of broadcast and those of multicast: nobody is there.
    """
    text = text[:_LONGEST_HOST].strip().strip("\"'[]<>")
    address: IPv4Address | IPv6Address | None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        spelt = _SPELT_IPV4.findall(text)
        address = _read_ipv4(spelt[0]) if len(spelt) == 1 else None
    if address is None:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return None if address.is_unspecified or address.is_multicast or address == _BROADCAST else address


def _read_ipv4(parts: Sequence[str]) -> IPv4Address | None:
    """Return the address of four numbers. They are decimal, whatever is in front of them, unless they cannot be."""
    is_octal = any(len(part) == _OCTAL_DIGITS and part[:1] == "0" and part[1] not in "xX" for part in parts)
    try:
        return IPv4Address(bytes(_read_number(part, is_octal) for part in parts))
    except ValueError:
        return None


def _read_number(part: str, is_octal: bool) -> int:
    if part[:2].lower() == "0x":
        return int(part, 16)
    return int(part, 8 if is_octal and part[0] == "0" else 10)


class MappingKey(NamedTuple):
    """What identifies a mapping on a gateway: at most one exists for each."""

    external_port: int
    proto: Proto
    remote_host: str = ""

    def normalised(self) -> MappingKey:
        """Return the key by which spellings of a remote host are compared: "" where the mapping is for everybody."""
        if not self.remote_host:
            return self
        text = self.remote_host.strip()
        is_network = "/" in text and not text.endswith("/32")
        address = None if is_network else read_host(text)
        if address is not None:
            return self._replace(remote_host=str(address))
        word = text.strip("()<>[]").lower()
        is_for_everybody = (
            word in _ANY_HOST or not word.removeprefix("::ffff:").strip("0.:/") or text == str(_BROADCAST)
        )
        return self._replace(remote_host="" if is_for_everybody else text)

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
    which may be other than those that were asked for; after ``verify=True`` they are what it says it holds. Where a
    gateway makes a limited mapping of one without a limit (a week on every IGD:2, by WANIPConnection:2 section 2.3.16;
    on others it is known once it was read back), ``duration`` is that limit.
    ``enabled`` is False for one that a gateway holds, but has switched off. By PCP and NAT-PMP ``duration`` is never 0,
    and ``desc`` is empty: they have no mappings without a limit, and no descriptions. ``protocol`` is that by which it
    was granted, or read; mappings that differ in nothing else are equal.

    In one that was read from a gateway ``internal_port`` may be 0 and ``internal_client`` a name, or empty: some show
    no more. ``remote_host`` is spelt as the gateway spells it, so that it can be deleted by that.
    """

    external_port: int
    internal_port: int
    internal_client: str
    proto: Proto
    desc: str = ""
    duration: int = 0
    remote_host: str = ""
    enabled: bool = True
    protocol: ProtocolName = field(default="upnp", compare=False)

    @property
    def key(self) -> MappingKey:
        """What identifies the mapping on its gateway."""
        return MappingKey(self.external_port, self.proto, self.remote_host)

    def leads_to(self, client: str, port: int) -> bool | None:
        """Return whether packets that it lets in go to this port of this host; None where its values cannot tell.

        ``port`` 0: to any port of it. Some gateways show the internal port 0, or a name for the client, or nothing,
        or their own loopback. That is no other host: only another address is, or another port of this one.
        """
        shown, wanted = read_host(self.internal_client), read_host(client)
        if shown is None or wanted is None or (shown.is_loopback and not wanted.is_loopback):
            return None
        if shown != wanted or (port and self.internal_port not in (0, port)):
            return False
        return True if self.internal_port or not port else None


@dataclass(frozen=True, slots=True)
class Device:
    """A device that answered a search, as Godot's ``UPNPDevice`` has it.

    ``description_url`` is where its description was read, ``service_type`` the search target that it answered to,
    ``igd_control_url`` and ``igd_service_type`` the service that maps ports, ``igd_our_addr`` the address of this
    machine from which the device is asked (the system's choice, so that it is the same each time), ``igd_status``
    what its examination said.

    ``protocol`` is the one by which it was found. One of PCP or NAT-PMP has no URLs, but an ``address``, with its port
    where that is another than 5351.

    The rest is what it says of itself (UDA 1.1 section 2.3), and may be empty: ``device_type`` and ``udn``, names,
    numbers, ``presentation_url`` for its web page as it is written there, and ``server`` from its search reply.
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
    device_type: str = ""
    serial_number: str = ""
    model_number: str = ""
    presentation_url: str = ""
    alternative_control_urls: tuple[str, ...] = field(default=(), repr=False)
    event_urls: tuple[str, ...] = field(default=(), repr=False)
    protocol: ProtocolName = "upnp"
    address: str = ""

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

    ``unique_id`` is the gateway's number for it, 0 where the ``protocol`` by which it was opened has none; ``duration``
    the seconds that it was granted for; ``remote_host`` is empty and ``remote_port`` 0 where packets may come from
    anywhere.
    """

    unique_id: int
    internal_client: str
    internal_port: int
    proto: Proto
    remote_host: str = ""
    remote_port: int = 0
    duration: int = 0
    protocol: ProtocolName = "upnp"


@dataclass(frozen=True, slots=True)
class FirewallStatus:
    """What a gateway's IPv6 firewall does (GetFirewallStatus, WANIPv6FirewallControl:1 section 2.6.1).

    ``enabled``: it keeps unwanted packets out. ``pinholes_allowed``: programs may open pinholes.
    """

    enabled: bool
    pinholes_allowed: bool
