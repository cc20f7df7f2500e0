"""What is a mapping to PCP and NAT-PMP? A router spoken to by one of them, as the core sees it.

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
from ipaddress import IPv4Address, IPv6Address, ip_address
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
from ..models import Device, MappingKey, MappingRequest, Pinhole, PinholeRequest, PortMapping, Proto
from ..net.interfaces import (
    default_next_hops,
    ipv6_next_hops,
    is_our_address,
    public_ipv6_address,
    source_address_for,
)
from ..results import PROTOCOL_NAMES, UPnPResult
from ..text import get_logger
from .client import Doubtful, PcpClient, Reader
from .epoch import PcpEpoch
from .nonce import derive_nonce
from .results import refused_by_nat_pmp, refused_by_pcp
from .state import Held, Owner, Remote, RouterState
from .wire import nat_pmp, pcp
from .wire.common import NUMBER_OF, SERVER_PORT, Address, unspecified_like

__all__ = ["LONGEST_LIFETIME", "NatPmpBackend", "PcpBackend", "join_address", "split_address"]

T = TypeVar("T")

log = get_logger("aioigd.discovery")

LONGEST_LIFETIME: Final = 604_800
"""Seconds, a week: what is asked for where a mapping is to have no limit.

Not 4294967295: there are routers that add it to their clock in 32 bits, and drop the mapping at once (miniupnpd 2.3.1).
"""
_DISCARD_PORT: Final = 9
"""The internal port of a mapping that leads to nobody, where no other can be had (RFC 6887 section 11.6)."""
_BRIEFLY: Final = 120
"""Seconds, the lifetime of such a mapping."""
_ANYWHERE: Final = ("", 0)
"""A pinhole for packets from everywhere."""
_NO_FILTERS: Final = pcp.Filter(0, 0, IPv6Address(0))
"""Ends the filters that a mapping has (RFC 6887 section 13.3)."""
_PREFER_FAILURE: Final = pcp.PreferFailure()
_PREFER_FAILURE_SHOWN: Final = str(_PREFER_FAILURE)


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


class _Path(NamedTuple):
    """A router that is asked from our address ``ours``; ``host`` is its address without a zone."""

    client: PcpClient
    host: str
    ours: str
    state: RouterState

    @property
    def address(self) -> Address:
        """Our address."""
        return _parsed(self.ours)


class _Backend(Backend):
    """What both protocols have in common."""

    def __init__(self, device: Device, state: RouterState, scope: SearchScope) -> None:
        self.device = device
        self._state = state
        self._scope = scope
        self._host, self._port = split_address(device.address)
        client = PcpClient(self._host, self._port, scope.source_address, state.limiter)
        self._path = _Path(client, self._host.partition("%")[0], device.igd_our_addr, state)

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
        granted = await self._map(op, wish, _nothing)
        op.rejected()
        if granted.external_port == held.key.external_port:
            self._state.granted(owner, held.key, granted.lifetime, asyncio.get_running_loop().time())

    async def _is_free(self, op: Operation, key: MappingKey, undo: Undo | None = None) -> bool:
        """Return whether an external port can be had: it is mapped for a moment to a port where nobody listens.

        ``undo`` takes back what else was sent before that.
        """
        with _unused_port(self.internal_client, key.proto) as port:
            owner = Owner(self.internal_client, key.proto, port)
            wish = Wish(owner, key.external_port, _BRIEFLY, exactly=True)
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
        undo: Undo = _nothing if held is not None else partial(self._take_back, owner)
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
                return await client.request(datagram, read, begin, first=op.is_started)
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


class NatPmpBackend(_Backend):
    """A router that is spoken to by NAT-PMP (RFC 6886)."""

    protocol = "nat-pmp"

    async def external_address(self, op: Operation) -> IPv4Address | IPv6Address:
        """Ask for the address (section 3.2)."""
        response = await self._exchange(op, "ADDRESS", {}, nat_pmp.AddressRequest(), None)
        if not isinstance(response, nat_pmp.AddressResponse):
            raise InvalidResponseError("what came back is no external address")
        self._state.external_address = response.address
        return _checked(response.address)

    def _filters_for(self, remote_host: str, remote_port: int = 0) -> tuple[pcp.Filter, ...]:
        if remote_host:
            raise RefusedError("NAT-PMP has no mappings for one remote host", UPnPResult.REMOTE_HOST_MUST_BE_WILDCARD)
        return ()

    async def _map(self, op: Operation, wish: Wish, undo: Undo) -> Granted:
        if wish.owner.client != self.internal_client:
            raise RefusedError(
                f"NAT-PMP maps ports of {self.internal_client} only, from where it is asked", UPnPResult.NOT_AUTHORIZED
            )
        response = await self._change(op, wish.owner, wish.external_port, wish.lifetime, undo)
        if not response.external_port or not response.lifetime:
            raise InvalidResponseError("NAT-PMP granted a mapping without a port or lifetime")
        return Granted(response.external_port, response.lifetime)

    async def _unmap(self, op: Operation, owner: Owner) -> None:
        await self._change(op, owner, 0, 0, None)

    async def _change(
        self, op: Operation, owner: Owner, external_port: int, lifetime: int, undo: Undo | None
    ) -> nat_pmp.MapResponse:
        request = nat_pmp.MapRequest(owner.proto, owner.internal_port, external_port, lifetime)
        if lifetime:
            self._check_not_refused(request)
        arguments = {
            "proto": owner.proto,
            "internal_port": str(owner.internal_port),
            "external_port": str(external_port),
            "lifetime": str(lifetime),
        }
        response = await self._exchange(op, "MAP", arguments, request, undo)
        if not isinstance(response, nat_pmp.MapResponse):
            raise InvalidResponseError("what came back is no mapping")
        self._state.accepted(request)
        return response

    async def _exchange(
        self, op: Operation, action: str, arguments: Mapping[str, str], request: nat_pmp.Request, undo: Undo | None
    ) -> nat_pmp.Response:
        """Send a request, and return what answers it; raises RefusedError for a refusal."""
        read = partial(_read_nat_pmp, request)
        response: nat_pmp.Response = await self._ask(op, action, arguments, nat_pmp.build_request(request), read, undo)
        self._state.note_epoch(response.epoch, asyncio.get_running_loop().time())
        if isinstance(response, nat_pmp.Refusal):
            error = refused_by_nat_pmp(response.result, action)
            is_map = isinstance(request, nat_pmp.MapRequest) and request.lifetime
            attempt = Attempt(action, arguments, response.result, error.result, self.protocol)
            self._refuse(op, attempt, error, request if is_map else None)
        op.attempts.append(Attempt(action, arguments, None, UPnPResult.SUCCESS, self.protocol))
        return response


class PcpBackend(_Backend):
    """A router that is spoken to by PCP (RFC 6887). ``secret`` is that from which nonces are derived."""

    protocol = "pcp"

    def __init__(self, device: Device, state: RouterState, scope: SearchScope, secret: bytes) -> None:
        super().__init__(device, state, scope)
        self._secret = secret
        self._refuses_prefer_failure = False

    @property
    def internal_client_v6(self) -> str:
        """The address of this machine for its pinholes: towards this router, or the one beside it that has IPv6."""
        return super().internal_client_v6 if ":" in self._host else self._beside().ours

    async def external_address(self, op: Operation) -> IPv4Address | IPv6Address:
        """Return that of the last mapping; without one, a mapping is made for it and deleted (section 11.6).

        Where it is in doubt, a mapping that is there is asked for again. As the program wants to know what is so now,
        the router is asked whether it has restarted since then.
        """
        ours = self.internal_client
        if self._state.external_address is not None:
            await self._announce(op)
        if self._state.external_address is None:
            await self._renew_one(op, ours)
        if self._state.external_address is None:
            # Some routers map only ports above 1023, so that it is not the port of the discard service.
            with _unused_port(ours, "UDP") as port:
                owner = Owner(ours, "UDP", port)
                await self._map(op, Wish(owner, 0, _BRIEFLY, exactly=False), partial(self._take_back, owner))
                with suppress(IGDError):
                    await self._unmap(op, owner)
                op.settled(None)
        address: Address | None = self._state.external_address
        if address is None:
            raise InvalidResponseError("PCP granted a mapping without an external address")
        return _checked(address)

    async def _renew_one(self, op: Operation, ours: str) -> None:
        """Ask again, until the same time, for a mapping of this host that this program has, if there is one."""
        loop = asyncio.get_running_loop()
        owner = self._state.last_owner(ours, loop.time())
        if owner is None:
            return
        async with self._state.turn(owner):
            held = self._state.held(owner, loop.time())
            if held is None:
                return  # deleted meanwhile
            lifetime = max(1, round(held.expires - loop.time()))
            with suppress(RefusedError):
                await self._map_again(owner, held._replace(lifetime=lifetime), op)

    # Pinholes

    async def add_pinhole(self, op: Operation, request: PinholeRequest) -> Pinhole:
        """Open the firewall by MAP over IPv6; there is nothing to translate (section 11).

        To PCP the pinholes to one port are one mapping with a filter for each, which are sent together.
        """
        owner = Owner(request.internal_client or self.internal_client_v6, request.proto, request.internal_port)
        path = self._path_for(owner)
        remote = request.remote_host, request.remote_port
        self._filters_for(*remote)
        async with path.state.turn(owner):
            known = path.state.pinholes(owner, asyncio.get_running_loop().time())
            undo: Undo = _nothing if remote in known else partial(self._close, owner, remote)
            granted = await self._open(op, owner, known, {remote: request.duration}, undo)
            op.settled(undo)
        return Pinhole(0, owner.client, owner.internal_port, owner.proto, *remote, granted.lifetime, self.protocol)

    async def update_pinhole(self, op: Operation, pinhole: Pinhole, duration: int) -> Pinhole:
        """Let a pinhole last so many seconds from now on: it is asked for again."""
        _check_named(pinhole)
        return await self.add_pinhole(
            op,
            PinholeRequest(
                pinhole.internal_client,
                pinhole.internal_port,
                pinhole.proto,
                pinhole.remote_host,
                pinhole.remote_port,
                duration,
            ),
        )

    async def delete_pinhole(self, op: Operation, pinhole: Pinhole) -> None:
        """Close a pinhole; others to the same port stay open."""
        _check_named(pinhole)
        owner = Owner(pinhole.internal_client, pinhole.proto, pinhole.internal_port)
        await self._close(owner, (pinhole.remote_host, pinhole.remote_port), op)

    async def _close(self, owner: Owner, remote: Remote, op: Operation) -> None:
        path = self._path_for(owner)
        async with path.state.turn(owner):
            left = path.state.pinholes(owner, asyncio.get_running_loop().time())
            left.pop(remote, None)
            if left:
                await self._open(op, owner, left, {}, None)
            else:
                await self._unmap(op, owner)
                path.state.opened(owner, {})

    async def _open(
        self, op: Operation, owner: Owner, known: dict[Remote, float], wanted: dict[Remote, int], undo: Undo | None
    ) -> Granted:
        """Open a port for those that are known, until the times that were told, and for others."""
        loop = asyncio.get_running_loop()
        remotes = known.keys() | wanted.keys()
        lifetime = max((*wanted.values(), *(round(expires - loop.time()) for expires in known.values())))
        filters: tuple[pcp.Filter, ...] = ()
        if _ANYWHERE not in remotes:
            filters = tuple(each for remote in sorted(remotes) for each in self._filters_for(*remote))
        if len(remotes) > 1 or not wanted:
            filters = (_NO_FILTERS, *filters)  # otherwise they were added to those of before
        wish = Wish(owner, owner.internal_port, max(lifetime, 1), exactly=True, filters=filters)
        granted = await self._map(op, wish, undo)
        expires = loop.time() + granted.lifetime
        self._path_for(owner).state.opened(owner, known | dict.fromkeys(wanted, expires))
        return granted

    def _filters_for(self, remote_host: str, remote_port: int = 0) -> tuple[pcp.Filter, ...]:
        if not remote_host and not remote_port:
            return ()
        if not remote_host:
            # A prefix of no length would end all filters (section 13.3).
            halves = (IPv6Address("::"), IPv6Address("8000::"))
            return tuple(pcp.Filter(1, remote_port, half) for half in halves)
        try:
            return (pcp.Filter(128, remote_port, ip_address(remote_host)),)
        except ValueError:
            raise RefusedError(f"PCP filters by addresses, not by {remote_host!r}", UPnPResult.INVALID_ARGS) from None

    # Requests

    def _path_for(self, owner: Owner) -> _Path:
        """Return by which router packets to a host come in, and from where that is to be asked."""
        if ":" not in owner.client:
            return self._path
        path = self._path if ":" in self._host else self._beside()
        if owner.client == path.ours:
            return path
        # Whoever asks from the address itself needs no leave to ask for others.
        ours = owner.client if is_our_address(owner.client) else ""
        if not ours and ip_address(path.ours).is_link_local:
            ours = self.internal_client_v6
        return self._path_from(ours, path) if ours else path

    def _beside(self) -> _Path:
        """Return the next hop of the IPv6 default route on the interface over which this router is reached."""
        hops = ipv6_next_hops(beside=self.device.igd_our_addr)
        if not hops:
            raise NoRouteError(
                f"the router {self._host} is reached over IPv4, and opens no pinholes there; none beside it has IPv6"
            )
        state = self._state.beside.get(hops[0])
        if state is None:
            state = self._state.beside[hops[0]] = RouterState(PcpEpoch())
            state.on_restart = self._state.on_restart
        ours = public_ipv6_address()
        client = PcpClient(hops[0], self._port, ours, state.limiter)
        return _Path(client, hops[0].partition("%")[0], ours, state)

    def _path_from(self, ours: str, path: _Path) -> _Path:
        """Return the same path from another address of ours."""
        client = PcpClient(path.client.host, path.client.port, ours, path.state.limiter)
        return path._replace(client=client, ours=ours)

    async def _map(self, op: Operation, wish: Wish, undo: Undo | None) -> Granted:
        exactly = wish.exactly and bool(wish.external_port) and not self._refuses_prefer_failure
        options: tuple[pcp.Option, ...] = (*wish.filters, _PREFER_FAILURE) if exactly else wish.filters
        try:
            response = await self._change(op, wish.owner, wish.external_port, wish.lifetime, options, undo)
        except RefusedError as error:
            if error.error_code != pcp.ResultCode.UNSUPP_OPTION or not exactly:
                raise
            # Without it another port is given back, as by NAT-PMP.
            response = await self._change(op, wish.owner, wish.external_port, wish.lifetime, wish.filters, undo)
            self._refuses_prefer_failure = True
        mapping = response.mapping
        if mapping is None or not mapping.external_port or not response.lifetime:
            raise InvalidResponseError("PCP granted a mapping without a port or lifetime")
        address = mapping.external_address
        known = self._state.external_address
        if address != known and address.version == 4 and wish.owner.client == self._path.ours:
            self._state.note_address(address if _is_usable(address) else None)
        return Granted(mapping.external_port, response.lifetime, address)

    async def _unmap(self, op: Operation, owner: Owner) -> None:
        try:
            await self._change(op, owner, 0, 0, (), None)
        except RefusedError as error:
            # So miniupnpd says that there is nothing to delete: it never was there, or an answer to this was lost.
            if error.error_code != pcp.ResultCode.NO_RESOURCES:
                raise

    async def _change(
        self,
        op: Operation,
        owner: Owner,
        external_port: int,
        lifetime: int,
        options: tuple[pcp.Option, ...],
        undo: Undo | None,
    ) -> pcp.Response:
        """Send a MAP, and return what answers it; raises RefusedError for a refusal."""
        repeated = owner, external_port, options
        if lifetime:
            self._check_not_refused(repeated)
        path = self._path if owner.client == self._path.ours else self._path_for(owner)
        ours = path.address
        client = ours
        if owner.client != path.ours:
            client = ip_address(owner.client)
            options = (pcp.ThirdParty(client), *options)
        nonce = derive_nonce(self._secret, path.host, owner.client, owner.proto, owner.internal_port)
        asked = pcp.MapData(nonce, NUMBER_OF[owner.proto], owner.internal_port, external_port, unspecified_like(client))
        request = pcp.build_request(pcp.Request(pcp.Opcode.MAP, ours, lifetime, asked, options))
        arguments = {
            "proto": owner.proto,
            "internal_port": str(owner.internal_port),
            "external_port": str(external_port),
            "lifetime": str(lifetime),
        }
        for option in options:
            arguments[type(option).__name__] = _PREFER_FAILURE_SHOWN if option is _PREFER_FAILURE else str(option)
        response: pcp.Response = await self._ask(
            op, "MAP", arguments, request, partial(_read_map, asked), undo, path.client
        )
        if response.mapping is not None:  # otherwise anybody could have sent it
            path.state.note_epoch(response.epoch, asyncio.get_running_loop().time())
        if response.result:
            error = refused_by_pcp(response.result, f"MAP of {owner}", options)
            attempt = Attempt("MAP", arguments, response.result, error.result, self.protocol)
            self._refuse(op, attempt, error, repeated if lifetime else None, response.lifetime)
        op.attempts.append(Attempt("MAP", arguments, None, UPnPResult.SUCCESS, self.protocol))
        self._state.accepted(repeated)
        return response

    async def _announce(self, op: Operation) -> None:
        """Ask for the epoch (section 14.1). That the router does not know the question does not matter."""
        request = pcp.build_request(pcp.Request(pcp.Opcode.ANNOUNCE, self._path.address))
        response: pcp.Response = await self._ask(op, "ANNOUNCE", {}, request, _read_announce)
        self._state.note_epoch(response.epoch, asyncio.get_running_loop().time())
        error = refused_by_pcp(response.result, "ANNOUNCE") if response.result else None
        result = UPnPResult.SUCCESS if error is None else error.result
        op.attempts.append(Attempt("ANNOUNCE", {}, response.result or None, result, self.protocol))
        if error is not None and response.result == pcp.ResultCode.UNSUPP_VERSION:
            raise error


@contextmanager
def _unused_port(address: str, proto: Proto) -> Iterator[int]:
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


def _check_named(pinhole: Pinhole) -> None:
    """Raise NotFoundError for a pinhole of which only a number is known: port 0 would be all ports of a host."""
    if not pinhole.internal_client or not pinhole.internal_port:
        raise NotFoundError("PCP has no numbers for pinholes: it knows them by their host and port")


async def _nothing(_: Operation) -> None:
    """Undo a renewal: the mapping stays as it was wanted before."""


def _read_nat_pmp(request: nat_pmp.Request, datagram: bytes) -> nat_pmp.Response | Doubtful[nat_pmp.Response] | None:
    """Return the response in a datagram if it answers this request. A refusal repeats nothing of it."""
    response = nat_pmp.parse_response(datagram)
    if response is None:
        other = pcp.parse_response(datagram)
        if other is not None and other.result == pcp.ResultCode.UNSUPP_VERSION:
            return Doubtful(nat_pmp.Refusal(request.opcode, nat_pmp.ResultCode.UNSUPPORTED_VERSION, other.epoch))
        return None
    if response.opcode != request.opcode:
        return None
    if isinstance(response, nat_pmp.Refusal):
        return Doubtful(response)
    if not isinstance(response, nat_pmp.MapResponse):
        return response
    answers = isinstance(request, nat_pmp.MapRequest) and response.internal_port == request.internal_port
    return response if answers else None


def _read_map(asked: pcp.MapData, datagram: bytes) -> pcp.Response | Doubtful[pcp.Response] | None:
    """Return the response in a datagram if it answers this MAP. What does not repeat the nonce is doubtful."""
    response = pcp.parse_response(datagram)
    if response is None:
        return _read_other_version(datagram, pcp.Opcode.MAP)
    if response.opcode != pcp.Opcode.MAP:
        return None
    given = response.mapping
    if given is None:
        return Doubtful(response) if response.result else None
    answers = (given.nonce, given.protocol, given.internal_port) == (asked.nonce, asked.protocol, asked.internal_port)
    return response if answers else None


def _read_announce(datagram: bytes) -> pcp.Response | Doubtful[pcp.Response] | None:
    """Return the response in a datagram if it answers an ANNOUNCE, which nothing tells for sure."""
    response = pcp.parse_response(datagram)
    if response is None:
        return _read_other_version(datagram, pcp.Opcode.ANNOUNCE)
    if response.opcode != pcp.Opcode.ANNOUNCE:
        return None
    return Doubtful(response) if response.result else response


def _read_other_version(datagram: bytes, opcode: pcp.Opcode) -> Doubtful[pcp.Response] | None:
    """Return what a router says that speaks NAT-PMP only (RFC 6887 section 9)."""
    other = nat_pmp.parse_response(datagram)
    if isinstance(other, nat_pmp.Refusal) and other.result == nat_pmp.ResultCode.UNSUPPORTED_VERSION:
        return Doubtful(pcp.Response(opcode, pcp.ResultCode.UNSUPP_VERSION, 0, other.epoch))
    return None


def _is_usable(address: Address) -> bool:
    return not (address.is_unspecified or address.is_loopback or address.is_multicast)


def _checked(address: Address) -> Address:
    if not _is_usable(address):
        raise InvalidResponseError(f"{address} cannot be the address of a router on the internet")
    return address
