"""What a gateway tells of itself, for those who ask it and those who show it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from ..models import ConnectionStatus, ConnectionType, FirewallStatus, LinkProperties, NatStatus, TrafficTotals

__all__ = ["Status"]


@dataclass(frozen=True)
class Status:
    """What a gateway tells; None for what it does not."""

    external_address: IPv4Address | IPv6Address | None
    connection: ConnectionStatus | None
    connection_type: ConnectionType | None
    nat: NatStatus | None
    link: LinkProperties | None
    traffic: TrafficTotals | None
    firewall: FirewallStatus | None
