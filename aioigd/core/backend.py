"""What a protocol must be able to do: the seam between the core and each protocol.

A :class:`Driver` is one protocol: it searches, connects and listens. A :class:`Backend` is one gateway, spoken to by
one protocol. A new protocol is a folder with a driver and a backend, and a line in ``mapper.py``; nothing else knows
which protocols there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from ..errors import IGDError, UnsupportedError
from ..models import (
    ConnectionStatus,
    ConnectionType,
    Device,
    FirewallStatus,
    LinkProperties,
    MappingKey,
    MappingRequest,
    NatStatus,
    Pinhole,
    PinholeRequest,
    PortMapping,
    Proto,
    TrafficTotals,
)
from ..results import PROTOCOL_NAMES, ProtocolName
from .calls import Operation
from .limiter import Limiter

__all__ = [
    "LATE_TABLE",
    "LOOK_PAUSE",
    "NEVER",
    "Backend",
    "Candidate",
    "Driver",
    "Hint",
    "Listener",
    "Rank",
    "Search",
    "SearchScope",
    "Trial",
]

LATE_TABLE: Final = 2.0
"""Seconds after a clear yes for which what a gateway holds may not show yet what was done."""
LOOK_PAUSE: Final = 0.3
"""Seconds between two looks at it."""
NEVER: Final = float("-inf")
"""The time until which something may still come that will not come."""


class SearchScope(NamedTuple):
    """Where and how to search.

    ``source_address`` and ``location``, ``ttl`` (hops), ``local_port`` (0 for any) and ``ipv6`` are those of
    :class:`~aioigd.PortMapper`. ``host``: the only address to search at; None for wherever a protocol searches.
    ``port``: where PCP and NAT-PMP are asked there, 0 for the usual port.
    ``single``: None to search in rounds; a number to send one datagram to ``host`` and no more, and to choose by it
    what is asked for, where a protocol can ask in several ways.
    """

    source_address: str | None = None
    location: str | None = None
    ttl: int = 2
    local_port: int = 0
    ipv6: bool = False
    host: str | None = None
    port: int = 0
    single: int | None = None


class Rank(IntEnum):
    """How good a gateway a device would be; the lower the better."""

    CERTAIN = 0  #: usable, and the next hop of the default route, or in a network that has nothing else
    LIKELY = 1  #: usable
    LAST_RESORT = 2  #: says that it is not connected, or refuses to talk
    USELESS = 3  #: no gateway


class Candidate(NamedTuple):
    """A device that a search has found.

    ``types``: the device and service types that it names. ``identity``: by which it is known where it has several
    descriptions, of which the search reports the best it knows; the one reported last counts. Empty for one of which
    only its description URL is known.
    """

    device: Device
    rank: Rank
    types: tuple[str, ...] = ()
    identity: str = ""

    @property
    def key(self) -> str:
        """What is the same whenever this device is reported."""
        return self.identity or self.device.description_url


class Hint(Enum):
    """What a gateway announces by itself. Anybody in the LAN can send one in its name."""

    RESTARTED = "restarted"  #: its mappings may be gone, and it may be at another address
    CHANGED = "changed"  #: something about it may have changed, such as its external address
    HOME = "home"  #: the router of the best default route is there, while another gateway is in use


class Search(ABC):
    """One search under way, an asynchronous context manager. Once it is left no socket or task of it remains."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Begin to search. Raises IGDError where nothing can be sent."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the search."""

    @abstractmethod
    def may_report_until(self, rank: Rank) -> float:
        """Return until when a candidate of this rank or a better one may still come, on the loop's clock, or NEVER.

        It is asked again whenever that time has come, and whenever a candidate was reported.
        """

    def awaited_until(self) -> float:
        """Return until when a gateway that a less preferred protocol has found waits for this search, or NEVER."""
        return self.may_report_until(Rank.CERTAIN)

    def note_candidate(self, candidate: Candidate) -> None:  # noqa: B027 - not all searches learn from it
        """Note what any of the searches has found: a router that has answered by another protocol is quick or slow."""

    @abstractmethod
    def failure(self) -> IGDError:
        """Return why no gateway was found."""


class Listener(ABC):
    """Listens to what the gateway in use announces, until it is closed."""

    @abstractmethod
    def follow(self, backend: Backend | None, *, resubscribe: bool) -> None:
        """Listen to this gateway from now on; ``resubscribe`` where it may have lost its subscriptions."""

    def note_address(self, address: IPv4Address | IPv6Address | None) -> None:  # noqa: B027 - not all protocols need it
        """Note the external address that the gateway told, None for none: who announces another one gives a hint."""

    def refresh(self) -> None:  # noqa: B027 - not all protocols need it
        """Look at the interfaces of this machine: some may have come or gone since the last time."""

    @abstractmethod
    async def close(self) -> None:
        """Stop, within a second or two."""


class Driver(ABC):
    """One protocol. Owns its sessions and sockets, and what it has learned of each gateway."""

    protocol: ProtocolName
    head_start: float = 0.0
    """Seconds for which the searches of less preferred protocols let the one of this go ahead: much less than what they
    found would wait for it in any case (:meth:`Search.awaited_until`)."""

    @abstractmethod
    def search(self, scope: SearchScope, until: float, report: Callable[[Candidate | None], None]) -> Search:
        """Return a search that lasts until a time of the loop's clock.

        Each candidate is reported when it is found, and again when more is known of it; None says that no more will
        come.
        """

    @abstractmethod
    def connect(self, device: Device) -> Backend | None:
        """Return the backend for a device, None if it does not speak this protocol.

        Raises UnsupportedError for one that speaks it, and cannot be asked.
        """

    def presume(self) -> Device | None:
        """Return the gateway that may be asked without a search, None where only a search tells which it is."""
        return None

    @abstractmethod
    async def listen(self, on_hint: Callable[[Hint], None]) -> Listener:
        """Begin to listen for announcements. Where none can be heard, a listener is returned that hears none."""

    @abstractmethod
    async def close(self) -> None:
        """Close every socket; a later request may open new ones."""

    def abandon(self) -> None:  # noqa: B027 - a driver may have nothing to free
        """Free what can be freed once the event loop is closed."""


class Trial(NamedTuple):
    """How a port is asked for that is one of many, of which the first was refused.

    ``most_terms``: on how many terms (lease and description) at most. ``is_free``: the gateway was seen to hold nothing
    there a moment ago, so that it need not be asked again.
    """

    most_terms: int = 2
    is_free: bool = False


class Backend(ABC):
    """One gateway spoken to by one protocol. Every method raises IGDError and nothing else.

    What a protocol cannot do keeps the body that is here: UnsupportedError, which is a refusal.
    """

    protocol: ProtocolName
    device: Device
    limiter: Limiter | None = None
    """Says when a call may begin, as it says when a request may go; None where nothing limits them."""

    @property
    @abstractmethod
    def internal_client(self) -> str:
        """The IPv4 address of this machine for its mappings. Raises NoRouteError where there is none."""

    @property
    @abstractmethod
    def internal_client_v6(self) -> str:
        """The IPv6 address of this machine for its pinholes. Raises NoRouteError where there is none."""

    @property
    @abstractmethod
    def gateway_id(self) -> Hashable:
        """What changes when another router is used: its name in the network, or else its address."""

    @property
    def address(self) -> str:
        """The address of the gateway in the local network, the same for all protocols; "" where it is not known."""
        return ""

    @property
    @abstractmethod
    def location(self) -> Hashable:
        """What changes when the same router is at another address, or this machine."""

    def home_hosts(self) -> Sequence[str]:
        """Return where the router of the best default route would be, if this gateway is another one.

        Then this one is a stopgap. Empty where it is no stopgap, or nobody knows.
        """
        return ()

    def has_made(self, what: MappingKey | Pinhole) -> bool:
        """Return whether this program has made a mapping or pinhole by this protocol, as far as is known."""
        return isinstance(what, Pinhole) and what.protocol == self.protocol

    @property
    def holds_since(self) -> float:
        """Since when the gateway holds mappings, on the loop's clock: those from before that are lost.

        It changes when a reply shows that the gateway has lost them, and may be a second or two off. NEVER where the
        protocol does not tell.
        """
        return NEVER

    @abstractmethod
    def local_address_changed(self) -> bool:
        """Return whether this machine reaches the gateway from another address now than when it was found."""

    @abstractmethod
    async def add(
        self, op: Operation, request: MappingRequest, *, overwrite: bool, verify: bool, trial: Trial | None = None
    ) -> PortMapping:
        """Make a mapping; without ``overwrite`` never in the place of another. ``verify``: read it back.

        ``trial``: the port is one of many, and costs few requests.
        """

    @abstractmethod
    async def delete(self, op: Operation, key: MappingKey, *, verify: bool = False) -> None:
        """Delete a mapping. Raises NotFoundError where there is none. ``verify``: look whether it is gone."""

    @abstractmethod
    async def external_address(self, op: Operation) -> IPv4Address | IPv6Address:
        """Return the gateway's address on the internet."""

    async def poll(self, op: Operation) -> IPv4Address | IPv6Address:
        """Return the same, and ask the gateway in any case: whether it is there, and has lost its mappings."""
        return await self.external_address(op)

    async def add_any(self, op: Operation, request: MappingRequest) -> PortMapping:
        """Make a mapping on the external port that was asked for, or on any other where it is taken."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot let the gateway choose a port")

    async def find(self, op: Operation, key: MappingKey) -> PortMapping | None:
        """Return the mapping that the gateway holds for a key, None where it says that there is none."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot read a mapping back")

    async def list_page(self, op: Operation, cursor: Any) -> tuple[Sequence[PortMapping], Any]:
        """Return some of the gateway's mappings, and the cursor of the next page, None behind the last.

        ``cursor``: what came with the page before, None for the first.
        """
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot list mappings")

    async def delete_range(self, op: Operation, first: int, last: int, proto: Proto) -> None:
        """Delete all mappings on external ports from ``first`` to ``last``."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot delete a range of ports")

    async def connection_status(self, op: Operation) -> ConnectionStatus:
        """Return the state of the connection."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot read the state of the connection")

    async def connection_type(self, op: Operation) -> ConnectionType:
        """Return the kind of connection."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot read the kind of connection")

    async def nat_status(self, op: Operation) -> NatStatus:
        """Return whether addresses are translated."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot read the state of NAT")

    async def link_properties(self, op: Operation) -> LinkProperties:
        """Return what the line can do."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot read the properties of the line")

    async def traffic_totals(self, op: Operation) -> TrafficTotals:
        """Return what went over the line."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot read counters")

    async def add_pinhole(self, op: Operation, request: PinholeRequest) -> Pinhole:
        """Open a pinhole in the IPv6 firewall, or prolong the one that is open for the same packets."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot open pinholes here")

    async def update_pinhole(self, op: Operation, pinhole: Pinhole, duration: int) -> Pinhole:
        """Let a pinhole last so many seconds from now on."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot prolong pinholes by their number")

    async def delete_pinhole(self, op: Operation, pinhole: Pinhole) -> None:
        """Close a pinhole."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot close pinholes here")

    async def pinhole_packets(self, op: Operation, pinhole: Pinhole) -> int:
        """Return how many packets came through a pinhole."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot count packets")

    async def pinhole_working(self, op: Operation, pinhole: Pinhole) -> bool:
        """Return whether a pinhole lets packets through."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot check pinholes")

    async def firewall_status(self, op: Operation) -> FirewallStatus:
        """Return what the IPv6 firewall does."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot read the state of a firewall")

    async def outbound_pinhole_timeout(self, op: Operation, request: PinholeRequest) -> int:
        """Return after how many seconds of silence the firewall forgets packets that were sent out."""
        raise UnsupportedError(f"{PROTOCOL_NAMES[self.protocol]} cannot read the timeouts of a firewall")
