"""A lease: what the program reads (:class:`Lease`), and what the manager writes (:class:`LeaseRecord`)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Any, Final, Protocol
from weakref import WeakSet

from ..arguments import check_flag, check_seconds
from ..core.background import join, may_await_at_exit
from ..errors import DeadlineError, IGDError, UsageError
from ..models import Pinhole, PortMapping
from ..text import get_logger
from .request import LeaseRequest

__all__ = [
    "Change",
    "ChangeKind",
    "Lease",
    "LeaseRecord",
    "LeaseState",
    "LeasedPort",
    "PendingLease",
    "RecordedMapping",
]

log = get_logger("aioigd.lease")

_MOST_UNREAD: Final = 256
"""Changes kept for a reader that does not read; the oldest are dropped."""


class LeaseState(Enum):
    """Whether a lease works."""

    ACTIVE = "active"
    RENEWING = "renewing"
    LOST = "lost"


_BADNESS: Final = {LeaseState.ACTIVE: 0, LeaseState.RENEWING: 1, LeaseState.LOST: 2}
"""The order of the states: the worst of its mappings' is that of a lease."""


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


@dataclass(frozen=True, slots=True)
class LeasedPort:
    """One port of a lease for one protocol, as it stood when it was asked for.

    ``mapping`` is what was granted last; before that, what is wanted: external port 0 for any, internal port 0 for the
    same, internal client "" for this machine. ``error`` is why it is not ACTIVE, None where nothing is wrong.
    ``last_confirmed`` is when the gateway last said that it holds it (UTC), None if it never did.
    """

    mapping: PortMapping
    state: LeaseState
    error: IGDError | None = None
    last_confirmed: datetime | None = None


class Lease:
    """One or more ports that are kept open, a read-only view. Handed out by :meth:`PortMapper.lease`."""

    __slots__ = ("__weakref__", "_record", "_release")

    def __init__(self, record: LeaseRecord, release: Releaser) -> None:
        self._record = record
        self._release = release

    def __repr__(self) -> str:
        ports = ", ".join(f"{one.proto} {one.external_port}" for one in self.mappings)
        state = "ended" if self._record.is_ended else self.state.value
        return f"<Lease {ports or 'of nothing yet'}, {state}, at {self.external_address}>"

    @property
    def external_address(self) -> IPv4Address | IPv6Address | None:
        """The gateway's address on the internet, None while it does not tell a possible one."""
        return self._record.external_address

    @property
    def external_port(self) -> int:
        """The external port; of several, the first. 0 while the lease has never held one."""
        return self._record.external_port

    @property
    def mappings(self) -> tuple[PortMapping, ...]:
        """What was granted last, one mapping for each port and protocol, in the order of the request."""
        return tuple(one.granted_mapping for one in self._record.mappings if one.granted_mapping is not None)

    @property
    def ports(self) -> tuple[LeasedPort, ...]:
        """How it stands with each port and protocol, in the order of the request."""
        return self._record.ports

    @property
    def error(self) -> IGDError | None:
        """Why it is LOST, or still RENEWING; None where nothing is wrong, or nothing is known yet.

        Also what keeps the library from looking after its leases, whatever the state: an
        :exc:`~aioigd.UnexpectedError` for a defect.
        """
        return self._record.error

    @property
    def pinholes(self) -> tuple[Pinhole, ...]:
        """What is open over IPv6, one pinhole for each internal port and protocol; empty without ``ipv6=True``."""
        return self._record.pinholes

    @property
    def pinhole_error(self) -> IGDError | None:
        """Why not all pinholes that were asked for are open, or could not be prolonged; None where nothing is wrong.

        INVALID_GATEWAY, NO_DEVICES, NO_GATEWAY and SOCKET_ERROR mean that there is no IPv6 here, or nothing to open;
        it is tried again now and then. The state of the lease is that of its mappings.
        """
        return self._record.pinhole_error

    @property
    def state(self) -> LeaseState:
        """Whether it works.

        LOST if the gateway does not hold one of its mappings, RENEWING while one is being made again or the gateway
        does not answer, ACTIVE otherwise.
        """
        return self._record.state

    @property
    def last_confirmed(self) -> datetime | None:
        """When the gateway last said that it holds a mapping of this lease (UTC); None if it never did."""
        return self._record.last_confirmed

    def changes(self) -> AsyncIterator[Change]:
        """Return an iterator over what happens from now on, until the lease ends. Each iterator gets everything."""
        return self._record.changes()

    async def wait_active(self, timeout: float) -> None:
        """Wait until the lease is ACTIVE, for so many seconds at most.

        Raises what :attr:`error` says when the time is over, DeadlineError if that is nothing, and UsageError where
        the lease has ended.
        """
        await self._record.wait_active(check_seconds(timeout, "timeout"))

    async def release(self, keep: bool = False) -> None:
        """End the lease and delete its mappings, as leaving its block does; once is enough.

        ``keep``: leave the mappings on the gateway, where they stay until their time is over: for a program that is
        started again at once. What is just being renewed is renewed, and what a lease that has not begun yet has made
        stays, too. A gateway that deletes nothing for five seconds is given up, and after thirty in any
        case. Cancelled, this ends at once, and the deletion goes on in the background.
        """
        await join(self._release(self._record, keep=check_flag(keep, "keep")))


class Releaser(Protocol):
    """What ends leases."""

    def __call__(self, record: LeaseRecord, *, keep: bool = False) -> asyncio.Task[None]:
        """End a lease, and return the task that deletes its mappings."""


class Holder(Protocol):
    """What begins leases."""

    def hold(self, request: LeaseRequest) -> Coroutine[Any, Any, Lease]:
        """Make the mappings that are asked for, and keep them from now on."""


class PendingLease:
    """A lease that has not begun: ``async with pending as lease``, or ``lease = await pending``. For one use.

    A block releases the lease when it is left; who awaits it calls :meth:`Lease.release`.
    """

    __slots__ = ("_is_used", "_lease", "_manager", "_request")

    def __init__(self, manager: Holder, request: LeaseRequest) -> None:
        self._manager = manager
        self._request = request
        self._is_used = False
        self._lease: Lease | None = None

    def __await__(self) -> Generator[Any, None, Lease]:
        return self._begun().__await__()

    async def __aenter__(self) -> Lease:
        self._lease = await self._begun()
        return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lease is not None:
            release = self._lease._release(self._lease._record)
            if may_await_at_exit(kind):
                await join(release)

    def _begun(self) -> Coroutine[Any, Any, Lease]:
        if self._is_used:
            raise UsageError("this lease was begun before; call PortMapper.lease() for each")
        self._is_used = True
        return self._manager.hold(self._request)


class RecordedMapping(Protocol):
    """One mapping of a lease, as its record sees it."""

    @property
    def shows(self) -> LeaseState:
        """What it contributes to the state of the lease."""

    @property
    def granted_mapping(self) -> PortMapping | None:
        """What was granted last, None if nothing ever was."""

    @property
    def port(self) -> LeasedPort:
        """What the lease shows of it."""

    last_confirmed: datetime | None


@dataclass(slots=True)
class _Snapshot:
    """A mapping of a lease that has ended."""

    shows: LeaseState
    granted_mapping: PortMapping | None
    port: LeasedPort
    last_confirmed: datetime | None


class LeaseRecord:
    """What is known of one lease; written to by the manager, read through :class:`Lease`.

    The state of the lease is not stored: it is the worst of those of its ``mappings``, which their owners set before
    the lease begins. Whoever makes a transition of one of them calls :meth:`mapping_changed`.
    """

    __slots__ = (
        "__weakref__",
        "_in_outage",
        "_readers",
        "_told_address",
        "_waiters",
        "external_address",
        "failure",
        "is_ended",
        "is_kept",
        "last_confirmed",
        "mappings",
        "pinhole_error",
        "pinholes",
        "request",
    )

    def __init__(self, request: LeaseRequest) -> None:
        self.request = request
        self.mappings: Sequence[RecordedMapping] = ()
        self.pinholes: tuple[Pinhole, ...] = ()
        self.pinhole_error: IGDError | None = None
        self.external_address: IPv4Address | IPv6Address | None = None
        self.last_confirmed: datetime | None = None
        self.is_ended = False
        self.is_kept = False
        """Its mappings stay although it has ended."""
        self.failure: IGDError | None = None
        """What keeps the manager from beginning it, or from looking after it."""
        self._told_address: IPv4Address | IPv6Address | None = None
        self._readers: WeakSet[_Reader] | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._in_outage = True
        """Whether it was LOST since it was ACTIVE: the first of many mappings to come back does not end the outage."""

    @property
    def state(self) -> LeaseState:
        """The worst state of its mappings; LOST while there is nothing to show."""
        return max((one.shows for one in self.mappings), key=_BADNESS.__getitem__, default=LeaseState.LOST)

    @property
    def external_port(self) -> int:
        """The external port of the first mapping that was ever granted, 0 for none."""
        return next((one.granted_mapping.external_port for one in self.mappings if one.granted_mapping is not None), 0)

    @property
    def ports(self) -> tuple[LeasedPort, ...]:
        """How it stands with each port and protocol."""
        if not self.mappings:
            return tuple(LeasedPort(one, LeaseState.LOST, self.failure) for one in self.request.wanted_mappings())
        return tuple(one.port for one in self.mappings)

    @property
    def error(self) -> IGDError | None:
        """Why it cannot be looked after, or is not ACTIVE."""
        state = self.state
        if self.failure is not None or state is LeaseState.ACTIVE:
            return self.failure
        errors = (one.port.error for one in self.mappings if one.shows is state)
        return next((error for error in errors if error is not None), None)

    async def wait_active(self, seconds: float) -> None:
        """Wait until it is ACTIVE; raises why it is not, in the end."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self.is_ended and self.state is not LeaseState.ACTIVE:
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.append(waiter)
            try:
                await asyncio.wait([waiter], timeout=until - loop.time())
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
            if not waiter.done():
                if self.error is not None:
                    raise self.error.copy()
                raise DeadlineError(f"the lease is still {self.state.value} after {seconds:g} s")
        if self.is_ended:
            raise UsageError("this lease has ended")

    def changes(self) -> AsyncIterator[Change]:
        """Return an iterator over what happens from now on."""
        reader = _Reader(ended=self.is_ended)
        if not self.is_ended:
            if self._readers is None:
                self._readers = WeakSet()
            self._readers.add(reader)
        return reader

    def confirmed(self, mapping: RecordedMapping, *, before: PortMapping | None) -> None:
        """Note that the gateway holds a mapping; ``before``: what of it was granted before, if anything was."""
        self.last_confirmed = mapping.last_confirmed = datetime.now(UTC)
        granted = mapping.granted_mapping
        self._tell_address()
        if before is not None and granted is not None and before.external_port != granted.external_port:
            self._report(ChangeKind.NEW_PORT, granted)
        self.mapping_changed(mapping)

    def mapping_changed(self, mapping: RecordedMapping) -> None:
        """Report the beginning or the end of an outage, if a change of this mapping is one."""
        shows = mapping.shows
        if shows is LeaseState.LOST and not self._in_outage:
            self._in_outage = True
            port = mapping.port
            log.warning("%s is lost: %s", port.mapping.key, port.error or "the gateway does not hold it")
            self._report(ChangeKind.LOST, mapping.granted_mapping)
        elif self._in_outage and shows is LeaseState.ACTIVE and self._is_active():
            self._in_outage = False
            self._report(ChangeKind.BACK, mapping.granted_mapping)
        if self._waiters and shows is LeaseState.ACTIVE and self._is_active():
            self._wake_waiters()

    def set_external_address(self, address: IPv4Address | IPv6Address | None, *, silently: bool = False) -> None:
        """Note the external address. It is told once a port is known, too, and only if it is not the one told last."""
        self.external_address = address
        if silently:
            self._told_address = address
        self._tell_address()

    def set_pinholes(self, pinholes: tuple[Pinhole, ...], error: IGDError | None) -> None:
        """Note which pinholes are open, and why not all of them are."""
        self.pinholes, self.pinhole_error = pinholes, error

    def gateway_replaced(self) -> None:
        """Note that another gateway has taken the place of the one before."""
        self._report(ChangeKind.GATEWAY_REPLACED)

    def end(self) -> None:
        """Note that the lease is over: its readers read to the end, and stop. What it shows stays as it is."""
        self.is_ended = True
        self.mappings = [
            _Snapshot(one.shows, one.granted_mapping, one.port, one.last_confirmed) for one in self.mappings
        ]
        self._wake_waiters()
        readers, self._readers = self._readers, None
        for reader in readers or ():
            reader.end()

    def _is_active(self) -> bool:
        # From the end, because they come back one after another in their order: for a thousand that is linear in all.
        return all(one.shows is LeaseState.ACTIVE for one in reversed(self.mappings))

    def _tell_address(self) -> None:
        address = self.external_address
        if address is not None and address != self._told_address and self.external_port:
            self._told_address = address
            self._report(ChangeKind.NEW_ADDRESS)

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _report(self, kind: ChangeKind, mapping: PortMapping | None = None) -> None:
        if self._readers:
            change = Change(kind, self.external_address, self.external_port, datetime.now(UTC), mapping)
            for reader in tuple(self._readers):
                reader.put(change)


class _Reader(AsyncIterator[Change]):
    """One reader of the changes, and what it has not read. The lease does not keep it alive."""

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
