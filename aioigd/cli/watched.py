"""What has been seen of a gateway that is watched, for those who look and those who show it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from ..errors import IGDError
from ..gateway import Gateway
from ..models import ConnectionStatus, MappingKey, PortMapping
from .traffic import Traffic

__all__ = ["Event", "Watched"]

_RECENT: Final = 12


@dataclass(frozen=True)
class Event:
    """One thing that happened: its name, when, and what goes with it."""

    name: str
    at: datetime
    facts: dict[str, Any]
    text: str = ""


class Watched:
    """The last that is known; None for what the gateway does not tell."""

    def __init__(self, gateway: Gateway, began: datetime) -> None:
        self.gateway = gateway
        self.began = began
        self.traffic = Traffic()
        self.address: IPv4Address | IPv6Address | None = None
        self.connection: ConnectionStatus | None = None
        self.mappings: dict[MappingKey, PortMapping] | None = None
        self.error: IGDError | None = None
        self.recent: deque[Event] = deque(maxlen=_RECENT)
