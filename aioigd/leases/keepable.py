"""What leases need of a gateway: the only thing they know of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Protocol

from ..errors import DeadlineError, DiscoveryError, IGDError, TransportError
from ..models import MappingKey, MappingRequest, Pinhole, PinholeRequest, PortMapping
from ..results import UPnPResult

__all__ = ["Keepable", "Listening", "has_no_pinholes", "is_away"]

_NO_IPV6: Final = frozenset(
    {UPnPResult.INVALID_GATEWAY, UPnPResult.NO_DEVICES, UPnPResult.NO_GATEWAY, UPnPResult.SOCKET_ERROR}
)
_FIREWALL_DISABLED: Final = 702


class Listening(Protocol):
    """Something that listens to what the gateway tells by itself."""

    def follow(self, *, anew: bool) -> None:
        """Listen to where the gateway is now; ``anew`` where it may have forgotten that we listen."""

    async def close(self) -> None:
        """Stop, within a second or two."""


class Keepable(Protocol):
    """A gateway as leases see it. All of it raises IGDError and nothing else."""

    async def add(self, request: MappingRequest, *, overwrite: bool, verify: bool) -> PortMapping:
        """Make a mapping; without ``overwrite`` never in the place of another."""

    async def add_any(self, request: MappingRequest) -> PortMapping | None:
        """Make a mapping on this or any other external port; None where the gateway cannot choose."""

    async def find(self, key: MappingKey) -> PortMapping | None:
        """Return what the gateway holds."""

    async def delete(self, key: MappingKey) -> None:
        """Delete a mapping."""

    async def open_pinhole(self, request: PinholeRequest) -> Pinhole:
        """Open a pinhole, or prolong the one that is open for the same packets."""

    async def close_pinhole(self, pinhole: Pinhole) -> None:
        """Close a pinhole."""

    async def query_external_address(self) -> IPv4Address | IPv6Address:
        """Return the gateway's address on the internet."""

    async def look_again(self) -> None:
        """Find the gateway anew, wherever it is now."""

    async def listen(self, on_restart: Callable[[], None], on_change: Callable[[], None]) -> Listening:
        """Call back when the gateway seems to restart, and when something else about it may have changed."""

    def our_address_moved(self) -> bool:
        """Tell whether this machine now reaches the gateway from another address than when it was found."""

    @property
    def internal_client(self) -> str:
        """The address of this machine to which its mappings lead, "" where that is not known."""

    @property
    def our_ipv6_address(self) -> str:
        """The address of this machine to which its pinholes lead, "" where it has none."""

    @property
    def who(self) -> Hashable:
        """What changes when another gateway is used from now on; None while there is none."""

    @property
    def where(self) -> Hashable:
        """What changes when the gateway, or this machine, is elsewhere from now on."""


def is_away(error: IGDError) -> bool:
    """Tell whether an error means that there is no gateway there, so that asking for something else is no use."""
    if isinstance(error, TransportError):
        return not error.may_have_arrived
    return isinstance(error, (DeadlineError, DiscoveryError))


def has_no_pinholes(error: IGDError) -> bool:
    """Tell whether an error means that there is no IPv6 here, or no firewall in its way, so nothing to open."""
    return error.result in _NO_IPV6 or error.error_code == _FIREWALL_DISABLED
