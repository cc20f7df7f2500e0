"""How are mappings made, kept and deleted at a router by PCP and NAT-PMP? What both have in common.

Both know a mapping by the host and internal port to which it leads, and suggest the external port. So that an external
port is what was asked for or a conflict, another one that is granted is given back; and a port that this program has
mapped is not silently mapped to another external port.
"""

from __future__ import annotations

import asyncio
import socket
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import Final, NamedTuple, NoReturn, TypeVar

from ..core.backend import Backend, SearchScope
from ..core.calls import Operation, Undo
from ..errors import (
    Attempt,
    ConflictError,
    DeadlineError,
    IGDError,
    InvalidResponseError,
    NoRouteError,
    NotFoundError,
    RefusedError,
)
from ..models import Device, MappingKey, MappingRequest, Pinhole, PortMapping, Proto
from ..net.interfaces import default_next_hops, ipv6_next_hops, public_ipv6_address, source_address_for
from ..results import PROTOCOL_NAMES, UPnPResult
from ..text import get_logger
from .client import PcpClient, Reader
from .state import Held, Owner, RouterState
from .wire import pcp
from .wire.common import SERVER_PORT, Address

__all__ = [
    "BRIEFLY",
    "LONGEST_LIFETIME",
    "DatagramBackend",
    "Granted",
    "RouterPath",
    "Wish",
    "arguments_of",
    "checked_address",
    "is_usable_address",
    "join_address",
    "split_address",
    "undo_nothing",
    "unused_port",
]

T = TypeVar("T")

log = get_logger("aioigd.discovery")

LONGEST_LIFETIME: Final = 604_800
"""Seconds, a week: what is asked for where a mapping is to have no limit.

Not 4294967295: there are routers that add it to their clock in 32 bits, and drop the mapping at once (miniupnpd 2.3.1).
"""
_DISCARD_PORT: Final = 9
"""The internal port of a mapping that leads to nobody, where no other can be had (RFC 6887 section 11.6)."""
BRIEFLY: Final = 120
"""Seconds, the lifetime of such a mapping."""


class Granted(NamedTuple):
    """What a router has granted; ``lifetime`` in seconds. NAT-PMP does not tell the address."""

    external_port: int
    lifetime: int
    external_address: Address | None = None


class Wish(NamedTuple):
    """What is asked for: an external port for an owner, this one ``exactly`` or any other."""

    owner: Owner
    external_port: int
    lifetime: int
    exactly: bool
    filters: tuple[pcp.Filter, ...] = ()


def join_address(host: str, port: int) -> str:
    """Return how a device tells its address: with its port where that is not the usual one."""
    if port == SERVER_PORT:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of the address of a device."""
    if address.startswith("["):
        host, _, port = address[1:].partition("]:")
        return host, int(port)
    if address.count(":") == 1:
        host, _, port = address.partition(":")
        return host, int(port)
    return address, SERVER_PORT


class RouterPath(NamedTuple):
    """A router that is asked from our address ``ours``; ``host`` is its address without a zone."""

    client: PcpClient
    host: str
    ours: str
    state: RouterState

    @property
    def address(self) -> Address:
        """Our address."""
        return _parsed(self.ours)


class DatagramBackend(Backend):
    """What both protocols have in common."""

    def __init__(self, device: Device, state: RouterState, scope: SearchScope) -> None:
        self.device = device
        self.limiter = state.limiter
        self._state = state
        self._scope = scope
        self._host, self._port = split_address(device.address)
        client = PcpClient(self._host, self._port, scope.source_address, state.limiter)
        self._path = RouterPath(client, self._host.partition("%")[0], device.igd_our_addr, state)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.device.address}>"

    @property
    def internal_client(self) -> str:
        """The address of this machine towards the router, where that is an IPv4 address."""
        if ":" in self._host:
            raise NoRouteError(f"the router {self._host} is reached over IPv6, and maps no IPv4 ports there")
        return self.device.igd_our_addr

    @property
    def internal_client_v6(self) -> str:
        """The address of this machine for its pinholes, where the router is reached over IPv6."""
        if ":" not in self._host:
            raise NoRouteError(f"the router {self._host} is reached over IPv4, and opens no pinholes there")
        if not ip_address(self.device.igd_our_addr).is_link_local:
            return self.device.igd_our_addr
        return public_ipv6_address()

    @property
    def gateway_id(self) -> Hashable:
        """The address: these protocols have no names for routers."""
        return self.device.address

    @property
    def address(self) -> str:
        """The address without the port."""
        return self._host

    @property
    def location(self) -> Hashable:
        """The address, and that of this machine."""
        return self.device.address, self.device.igd_our_addr

    @property
    def holds_since(self) -> float:
        """When the epoch of the router began."""
        return self._state.holds_since

    def home_hosts(self) -> Sequence[str]:
        """Return the next hops of the best default route, unless this router is one or was chosen by the program."""
        if self._scope.source_address is not None or self._scope.host is not None:
            return ()
        hops = ipv6_next_hops() if ":" in self._host else default_next_hops(ipv6=False)
        return () if self._host in hops else sorted(hops)

    def local_address_changed(self) -> bool:
        """Return whether the way to the router leads over another address of this machine now."""
        if self._scope.source_address is not None:
            return False
        try:
            return source_address_for(self._host) != self.device.igd_our_addr
        except IGDError:
            return True

    # Mappings

    async def add(
        self, op: Operation, request: MappingRequest, *, overwrite: bool, verify: bool, trial: object = None
    ) -> PortMapping:
        """Map exactly this external port. The mapping of another host is never replaced.

        ``verify`` is fulfilled by the reply, and a ``trial`` costs one request as it is.
        """
        return await self._add(op, request, exactly=True)

    async def add_any(self, op: Operation, request: MappingRequest) -> PortMapping:
        """Map the external port that was asked for, or the one that the router chooses."""
        return await self._add(op, request, exactly=False)

    def has_made(self, what: MappingKey | Pinhole) -> bool:
        """Return whether this program has made a mapping that lasts until now, as far as the router has not lost it."""
        if not isinstance(what, MappingKey):
            return super().has_made(what)
        return self._state.owner_of(what, asyncio.get_running_loop().time()) is not None

    async def delete(self, op: Operation, key: MappingKey, *, verify: bool = False) -> None:
        """Delete what this program has made for a key, or else what leads to the same port of this machine.

        ``verify`` is fulfilled by the reply. Deleting nothing is a success on the wire, and so is deleting what is
        another host's, which stays. So for what this program does not know for sure the port is asked for, before and
        after, for a port of this machine where nobody listens. Raises NotFoundError where it was free before, and
        RefusedError (NOT_AUTHORIZED) where it is not after: it is another's, or the router gives no such port.
        """
        now = asyncio.get_running_loop().time()
        owner = self._state.owner_of(key, now)
        owner = owner or Owner(self.internal_client, key.proto, key.external_port)
        async with self._state.turn(owner):
            held = self._state.held(owner, now)
            if held is not None and held.key == key:
                await self._unmap_held(op, owner)
                return
            if await self._is_free(op, key):
                if held is None:
                    self._state.gone(owner)
                raise NotFoundError(f"nothing is mapped to {key} by {PROTOCOL_NAMES[self.protocol]}")
            if held is None:
                await self._unmap_held(op, owner)
                is_gone = await self._is_free(op, key)
            else:
                is_gone = await self._unmap_beside(op, owner, held, key)
            if not is_gone:
                raise RefusedError(
                    f"{key} does not belong to this machine, or {PROTOCOL_NAMES[self.protocol]} cannot tell",
                    UPnPResult.NOT_AUTHORIZED,
                )

    async def _unmap_beside(self, op: Operation, owner: Owner, held: Held, key: MappingKey) -> bool:
        """Delete what has a key beside another mapping to the same internal port, and return whether it is gone.

        Some routers delete both at once, and some one of them, no matter which.
        """
        for _ in range(2):
            op.sent(partial(self._map_again, owner, held))
            await self._unmap_held(op, owner)
            await self._map_again(owner, held, op)
            if await self._is_free(op, key):
                return True
        return False

    async def _unmap_held(self, op: Operation, owner: Owner) -> None:
        self._state.doubted(owner)  # in case nobody hears what becomes of it
        await self._unmap(op, owner)
        self._state.gone(owner)

    async def _map_again(self, owner: Owner, held: Held, op: Operation) -> None:
        """Make a mapping again that a deletion may have taken with another one to the same internal port."""
        filters = self._filters_for(held.key.remote_host)
        wish = Wish(owner, held.key.external_port, held.lifetime, exactly=True, filters=filters)
        granted = await self._map(op, wish, undo_nothing)
        op.rejected()
        if granted.external_port == held.key.external_port:
            self._state.granted(owner, held.key, granted.lifetime, asyncio.get_running_loop().time())

    async def _is_free(self, op: Operation, key: MappingKey, undo: Undo | None = None) -> bool:
        """Return whether an external port can be had: it is mapped for a moment to a port where nobody listens.

        ``undo`` takes back what else was sent before that.
        """
        with unused_port(self.internal_client, key.proto) as port:
            owner = Owner(self.internal_client, key.proto, port)
            wish = Wish(owner, key.external_port, BRIEFLY, exactly=True)
            undo_both = partial(self._take_both_back, owner, undo)
            try:
                granted = await self._map(op, wish, undo_both)
            except RefusedError:
                is_free = False
            except BaseException:
                if undo is not None:
                    op.sent(undo_both)
                raise
            else:
                is_free = granted.external_port == key.external_port
                with suppress(IGDError):
                    await self._unmap(op, owner)
            if undo is None:
                op.rejected()
            else:
                op.sent(undo)
            return is_free

    async def _take_both_back(self, owner: Owner, undo: Undo | None, op: Operation) -> None:
        with suppress(IGDError):
            await self._unmap(op, owner)
        if undo is not None:
            await undo(op)

    async def _add(self, op: Operation, request: MappingRequest, *, exactly: bool) -> PortMapping:
        key, ours = request.key, self.internal_client
        owner = Owner(request.internal_client or ours, key.proto, request.internal_port)
        async with self._state.turn(owner):
            return await self._add_in_turn(op, owner, request, exactly=exactly)

    async def _add_in_turn(self, op: Operation, owner: Owner, request: MappingRequest, *, exactly: bool) -> PortMapping:
        key = request.key
        loop = asyncio.get_running_loop()
        held = self._state.held(owner, loop.time())
        if held is not None and exactly and held.key != key:
            raise ConflictError(
                f"{owner} is mapped to external port {held.key.external_port} already,"
                f" and {PROTOCOL_NAMES[self.protocol]} maps it once"
            )
        wish = Wish(
            owner,
            key.external_port if held is None else held.key.external_port,
            min(request.terms.duration or LONGEST_LIFETIME, LONGEST_LIFETIME),
            exactly,
            self._filters_for(key.remote_host),
        )
        undo: Undo = undo_nothing if held is not None else partial(self._take_back, owner)
        granted = await self._map(op, wish, undo)
        if exactly and granted.external_port != wish.external_port:
            await self._give_back(op, owner, key, undo, is_known=held is not None)
            raise ConflictError(
                f"external port {key.external_port} cannot be had by {PROTOCOL_NAMES[self.protocol]}:"
                f" it gives {granted.external_port}"
            )
        granted_key = key._replace(external_port=granted.external_port)
        self._state.granted(owner, granted_key, granted.lifetime, loop.time())
        op.settled(undo)
        return PortMapping(
            granted.external_port,
            owner.internal_port,
            owner.client,
            owner.proto,
            duration=granted.lifetime,
            remote_host=key.remote_host,
            protocol=self.protocol,
        )

    async def _give_back(self, op: Operation, owner: Owner, key: MappingKey, undo: Undo, *, is_known: bool) -> None:
        """Give back another port than the one that was asked for.

        Where that one can be had all the same, by another internal port, it was no conflict: the router has kept a
        mapping of this internal port that somebody else on this machine has made, and that stays.
        """
        with suppress(IGDError):
            if not is_known and await self._is_free(op, key, undo):
                op.rejected()
                return
            await self._unmap_held(op, owner)
            op.rejected()

    async def _take_back(self, owner: Owner, op: Operation) -> None:
        async with self._state.turn(owner):
            await self._unmap_held(op, owner)

    @abstractmethod
    def _filters_for(self, remote_host: str, remote_port: int = 0) -> tuple[pcp.Filter, ...]:
        """Return the filters for a remote host, "" for any. Raises RefusedError where there are none."""

    @abstractmethod
    async def _map(self, op: Operation, wish: Wish, undo: Undo) -> Granted:
        """Make or renew a mapping. A request that was refused several times is refused at once for a while."""

    @abstractmethod
    async def _unmap(self, op: Operation, owner: Owner) -> None:
        """Delete a mapping."""

    async def _ask(
        self,
        op: Operation,
        action: str,
        arguments: Mapping[str, str],
        datagram: bytes,
        read: Reader[T],
        undo: Undo | None = None,
        client: PcpClient | None = None,
    ) -> T:
        """Send a request until it is answered, or the call is over; each failure is noted in ``op.attempts``."""
        client = client or self._path.client
        loop = asyncio.get_running_loop()
        while True:
            waiting_since = loop.time()
            is_out = False

            def begin(since: float = waiting_since) -> float:
                nonlocal is_out
                op.request_started(since)
                is_out = True
                if undo is not None:
                    op.sent(undo)
                return op.attempt_deadline

            try:
                return await client.request(datagram, read, begin, first=op.goes_first)
            except IGDError as error:
                op.attempts.append(Attempt(action, arguments, None, error.result, self.protocol))
                op.reply_lost = op.reply_lost or isinstance(error, DeadlineError)
                op.checkpoint()
                if not isinstance(error, DeadlineError) or op.rediscover_on_timeout or op.expired:
                    raise
            finally:
                if is_out:
                    op.request_finished()

    def _check_not_refused(self, request: Hashable) -> None:
        """Raise the error of a request that was refused several times, if it is too early to send it again."""
        error = self._state.refusal(request, asyncio.get_running_loop().time())
        if error is not None:
            raise error

    def _refuse(
        self,
        op: Operation,
        attempt: Attempt,
        error: RefusedError,
        request: Hashable,
        lifetime: int = 0,
    ) -> NoReturn:
        """Note that a request was refused, and for how long that counts, and raise the error."""
        op.attempts.append(attempt)
        op.rejected()
        error.retry_after = float(lifetime) if lifetime else None
        # A conflict may be over at any moment, by what another host does.
        if request is not None and not isinstance(error, ConflictError):
            self._state.note_refusal(request, error, lifetime, asyncio.get_running_loop().time())
            if error.result is UPnPResult.NOT_AUTHORIZED and not self._state.has_told_of_refusals:
                self._state.has_told_of_refusals = True
                log.info(
                    "%s refuses mappings by %s; some want it to be allowed in their pages",
                    self._host,
                    PROTOCOL_NAMES[self.protocol],
                )
        raise error


@contextmanager
def unused_port(address: str, proto: Proto) -> Iterator[int]:
    """Yield a port of ours that nobody listens on, and nobody can until this ends."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if proto == "UDP" else socket.SOCK_STREAM
    with ExitStack() as stack:
        port = _DISCARD_PORT
        with suppress(OSError):
            bound = stack.enter_context(socket.socket(family, kind))
            bound.bind((address, 0))
            port = bound.getsockname()[1]
        yield port


@lru_cache(maxsize=64)
def _parsed(address: str) -> Address:
    return ip_address(address)


async def undo_nothing(_: Operation) -> None:
    """Undo a renewal: the mapping stays as it was wanted before."""


def is_usable_address(address: Address) -> bool:
    """Return whether an address can be that of a router on the internet, or of one behind another."""
    return not (address.is_unspecified or address.is_loopback or address.is_multicast)


def checked_address(address: Address) -> Address:
    """Return an external address, or raise InvalidResponseError for one that can be nobody's."""
    if not is_usable_address(address):
        raise InvalidResponseError(f"{address} cannot be the address of a router on the internet")
    return address


def arguments_of(owner: Owner, external_port: int, lifetime: int) -> dict[str, str]:
    """Return what a MAP is sent with, as an :class:`Attempt` tells it."""
    return {
        "proto": owner.proto,
        "internal_port": str(owner.internal_port),
        "external_port": str(external_port),
        "lifetime": str(lifetime),
    }
