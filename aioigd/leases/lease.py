"""What the holder of a lease sees: where it can be reached now, in what state, and what changes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from weakref import WeakSet

from ..errors import IGDError
from ..models import Pinhole, PortMapping

__all__ = ["Change", "ChangeKind", "Lease", "LeaseState"]

_MOST_UNREAD: Final = 256
"""Changes kept for a reader that does not read; the oldest are dropped."""


class LeaseState(Enum):
    """How it stands with a lease."""

    ACTIVE = "active"
    RENEWING = "renewing"
    LOST = "lost"


class ChangeKind(Enum):
    """What can happen to a lease."""

    NEW_ADDRESS = "new external address"
    NEW_PORT = "new external port"
    LOST = "lost"
    BACK = "back"
    GATEWAY_REPLACED = "gateway replaced"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened to a lease, and how it stood right after it.

    ``mapping`` is the one of the lease's mappings that it happened to, None where it is about all of them or about
    one that was never held.
    """

    kind: ChangeKind
    external_address: IPv4Address | IPv6Address | None
    external_port: int
    at: datetime
    mapping: PortMapping | None = None


class Lease:
    """One or more ports that are kept open. Handed out by :meth:`PortMapper.lease`."""

    __slots__ = (
        "__weakref__",
        "_address",
        "_confirmed",
        "_ended",
        "_is_out",
        "_lost",
        "_mappings",
        "_pinhole_error",
        "_pinholes",
        "_readers",
        "_renewing",
    )

    def __init__(self) -> None:
        self._mappings: dict[int, PortMapping] = {}
        self._lost: set[int] = set()
        self._renewing: set[int] = set()
        self._pinholes: tuple[Pinhole, ...] = ()
        self._pinhole_error: IGDError | None = None
        self._address: IPv4Address | IPv6Address | None = None
        self._confirmed: datetime | None = None
        self._readers: WeakSet[_Reader] | None = None
        self._ended = False
        self._is_out = True
        """Whether it was LOST since it was ACTIVE: the first of many mappings to come back is no end of the outage."""

    def __repr__(self) -> str:
        ports = ", ".join(f"{one.proto} {one.external_port}" for one in self.mappings)
        state = "ended" if self._ended else self.state.value
        return f"<Lease {ports or 'of nothing yet'}, {state}, at {self._address}>"

    @property
    def external_address(self) -> IPv4Address | IPv6Address | None:
        """The gateway's address on the internet, None while it does not tell a possible one."""
        return self._address

    @property
    def external_port(self) -> int:
        """The external port; of several, the first. 0 while the lease has never held one."""
        return self._mappings[min(self._mappings)].external_port if self._mappings else 0

    @property
    def mappings(self) -> tuple[PortMapping, ...]:
        """What was granted last, one mapping for each port and protocol, in the order of the request."""
        return tuple(self._mappings[number] for number in sorted(self._mappings))

    @property
    def pinholes(self) -> tuple[Pinhole, ...]:
        """What is open over IPv6, one pinhole for each internal port and protocol; empty without ``ipv6=True``."""
        return self._pinholes

    @property
    def pinhole_error(self) -> IGDError | None:
        """Why not all pinholes that were asked for are open, or could not be prolonged; None where nothing is wrong.

        INVALID_GATEWAY, NO_DEVICES, NO_GATEWAY and SOCKET_ERROR mean that there is no IPv6 here, or nothing to open;
        it is tried again now and then. The state of the lease is that of its mappings.
        """
        return self._pinhole_error

    @property
    def state(self) -> LeaseState:
        """How it stands.

        LOST if the gateway does not hold one of its mappings, RENEWING while one is being made again or the gateway
        does not answer, ACTIVE otherwise.
        """
        if self._lost or not self._mappings:
            return LeaseState.LOST
        return LeaseState.RENEWING if self._renewing else LeaseState.ACTIVE

    @property
    def last_confirmed(self) -> datetime | None:
        """When the gateway last said that it holds a mapping of this lease (UTC); None if it never did."""
        return self._confirmed

    def changes(self) -> AsyncIterator[Change]:
        """Return an iterator over what happens from now on, until the lease ends. Each iterator gets everything."""
        reader = _Reader(ended=self._ended)
        if not self._ended:
            if self._readers is None:
                self._readers = WeakSet()
            self._readers.add(reader)
        return reader

    # What follows is for the keeper.

    def confirm(self, number: int, mapping: PortMapping) -> None:
        """Note that the gateway holds a mapping, the ``number``-th of this lease."""
        before = self._mappings.get(number)
        self._mappings[number] = mapping
        self._confirmed = datetime.now(UTC)
        self._renewing.discard(number)
        self._lost.discard(number)
        if before is not None and before.external_port != mapping.external_port:
            self._tell(ChangeKind.NEW_PORT, mapping)
        if self._is_out and self.state is LeaseState.ACTIVE:
            self._is_out = False
            self._tell(ChangeKind.BACK, mapping)

    def renewing(self, number: int) -> None:
        """Note that a mapping is being made again, or that it is in doubt."""
        self._renewing.add(number)

    def lose(self, number: int) -> None:
        """Note that a mapping is not there, as far as can be told."""
        self._renewing.discard(number)
        self._lost.add(number)
        if not self._is_out:
            self._is_out = True
            self._tell(ChangeKind.LOST, self._mappings.get(number))

    def move(self, address: IPv4Address | IPv6Address | None, *, silently: bool = False) -> None:
        """Note the external address."""
        if address != self._address:
            self._address = address
            if not silently:
                self._tell(ChangeKind.NEW_ADDRESS)

    def let_in(self, pinholes: tuple[Pinhole, ...], error: IGDError | None) -> None:
        """Note which pinholes are open, and why not all of them are."""
        self._pinholes, self._pinhole_error = pinholes, error

    def replaced(self) -> None:
        """Note that another gateway has taken the place of the one before."""
        self._tell(ChangeKind.GATEWAY_REPLACED)

    def end(self) -> None:
        """Note that the lease is over: its readers read to the end, and stop."""
        self._ended = True
        readers, self._readers = self._readers, None
        for reader in readers or ():
            reader.end()

    def _tell(self, kind: ChangeKind, mapping: PortMapping | None = None) -> None:
        if self._readers:
            change = Change(kind, self._address, self.external_port, datetime.now(UTC), mapping)
            for reader in tuple(self._readers):
                reader.put(change)


class _Reader(AsyncIterator[Change]):
    """One who reads the changes, and what is unread. The lease does not keep it alive."""

    def __init__(self, *, ended: bool) -> None:
        self._unread: deque[Change] = deque(maxlen=_MOST_UNREAD)
        self._ended = ended
        self._news = asyncio.Event()

    async def __anext__(self) -> Change:
        while not self._unread:
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._unread.popleft()

    def put(self, change: Change) -> None:
        self._unread.append(change)
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()
