"""Opens ports on home routers (UPnP IGD) from asyncio programs.

::

    async with aioigd.PortMapper() as mapper:
        mapping = await mapper.add_port_mapping(8080, proto="TCP", desc="my server", duration=3600)
        print(await mapper.query_external_address(), mapping.external_port)
"""

from importlib import import_module
from typing import TYPE_CHECKING

# First, as it loads aiohttp: after everything else that costs up to 2,000 page faults (15 ms) more.
from .mapper import PortMapper

# isort: split
from .arguments import OneOf
from .errors import (
    Attempt,
    ConflictError,
    DeadlineError,
    DiscoveryError,
    IGDError,
    InvalidResponseError,
    NoRouteError,
    NotFoundError,
    RefusedError,
    TransportError,
    UnexpectedError,
    UnsupportedError,
    UsageError,
)
from .functions import add_port_mapping, delete_port_mapping, discover, query_external_address
from .gateway import Gateway
from .models import (
    ConnectionStatus,
    ConnectionType,
    Device,
    FirewallStatus,
    LinkProperties,
    NatStatus,
    Pinhole,
    PortMapping,
    Proto,
    TrafficRates,
    TrafficTotals,
)
from .net.interfaces import default_next_hops, source_address_for
from .results import IGDStatus, ProtocolName, UPnPResult
from .traffic_meter import TrafficMeter

if TYPE_CHECKING:
    from .leases import Change, ChangeKind, Lease, LeasedPort, LeaseState, PendingLease

__all__ = [
    "Attempt",
    "Change",
    "ChangeKind",
    "ConflictError",
    "ConnectionStatus",
    "ConnectionType",
    "DeadlineError",
    "Device",
    "DiscoveryError",
    "FirewallStatus",
    "Gateway",
    "IGDError",
    "IGDStatus",
    "InvalidResponseError",
    "Lease",
    "LeaseState",
    "LeasedPort",
    "LinkProperties",
    "NatStatus",
    "NoRouteError",
    "NotFoundError",
    "OneOf",
    "PendingLease",
    "Pinhole",
    "PortMapper",
    "PortMapping",
    "Proto",
    "ProtocolName",
    "RefusedError",
    "TrafficMeter",
    "TrafficRates",
    "TrafficTotals",
    "TransportError",
    "UPnPResult",
    "UnexpectedError",
    "UnsupportedError",
    "UsageError",
    "add_port_mapping",
    "default_next_hops",
    "delete_port_mapping",
    "discover",
    "query_external_address",
    "source_address_for",
]
__version__ = "0.1.0"


_OF_LEASES = ("Change", "ChangeKind", "Lease", "LeaseState", "LeasedPort", "PendingLease")
"""What is imported by who uses it: leases are a quarter of the package, and a call needs nothing of them."""


def __getattr__(name: str) -> object:
    if name in _OF_LEASES:
        return getattr(import_module(".leases", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
