"""What is a mapping to PCP and NAT-PMP? A router spoken to by one of them, as the core sees it.

Both know a mapping by the host and internal port to which it leads, and suggest the external port. So that an external
port is what was asked for or a conflict, another one that is granted is given back; and a port that this program has
mapped is not silently mapped to another external port.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple, TypeVar

from ..core.backend import Backend, SearchScope
from ..core.calls import Operation, Undo
from ..errors import (
    Attempt,
    ConflictError,
    DeadlineError,
    IGDError,
    InvalidResponseError,
    NoRouteError,
    RefusedError,
)
from ..models import Device, MappingKey, MappingRequest, Pinhole, PinholeRequest, PortMapping
from ..net.interfaces import default_next_hops, source_address_for
from ..results import UPnPResult
from .client import PcpClient
from .nonce import derive_nonce
from .results import refused_by_nat_pmp, refused_by_pcp
from .state import Owner, RouterState
from .wire import nat_pmp, pcp
from .wire.common import NUMBER_OF, SERVER_PORT, Address, unspecified_like

__all__ = ["LONGEST_LIFETIME", "NatPmpBackend", "PcpBackend", "join_address", "split_address"]

T = TypeVar("T")

LONGEST_LIFETIME: Final = 604_800
"""Seconds, a week: what is asked for where a mapping is to have no limit.

Not 4294967295: there are routers that add it to their clock in 32 bits, and drop the mapping at once (miniupnpd 2.3.1).
"""
_DISCARD_PORT: Final = 9
"""The internal port of a mapping that is made to learn the external address (RFC 6887 section 11.6)."""
_BRIEFLY: Final = 120
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


class _Backend(Backend):
    """What both protocols have in common."""

    def __init__(self, device: Device, state: RouterState, scope: SearchScope) -> None:
        self.device = device
        self._state = state
        self._scope = scope
        self._host, port = split_address(device.address)
        self._client = PcpClient(self._host, port, scope.source_address, state.limiter)

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
        """The address of this machine towards the router, where that is an IPv6 address."""
        if ":" not in self._host:
            raise NoRouteError(f"the router {self._host} is reached over IPv4, and opens no pinholes there")
        return self.device.igd_our_addr

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
        hops = default_next_hops(ipv6=":" in self._host)
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

    async def delete(self, op: Operation, key: MappingKey, *, verify: bool = False) -> None:
        """Delete what this program has made for a key, or else what leads to the same port of this machine.

        ``verify`` is fulfilled by the reply.
        """
        owner = self._state.owner_of(key) or Owner(self.internal_client, key.proto, key.external_port)
        async with self._state.turn(owner):
            await self._unmap(op, owner)
            self._state.gone(owner)

    async def _add(self, op: Operation, request: MappingRequest, *, exactly: bool) -> PortMapping:
        key, ours = request.key, self.internal_client
        owner = Owner(request.internal_client or ours, key.proto, request.internal_port)
        async with self._state.turn(owner):
            return await self._add_in_turn(op, owner, request, exactly=exactly)

    async def _add_in_turn(self, op: Operation, owner: Owner, request: MappingRequest, *, exactly: bool) -> PortMapping:
        key = request.key
        held = self._state.held(owner, asyncio.get_running_loop().time())
        if held is not None and exactly and held.key != key:
            raise ConflictError(
                f"{owner} is mapped to external port {held.key.external_port} already, and {self.protocol} maps it once"
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
            self._state.gone(owner)
            with suppress(IGDError):
                await self._unmap(op, owner)
            op.rejected()
            raise ConflictError(
                f"external port {key.external_port} cannot be had by {self.protocol}: it gives {granted.external_port}"
            )
        granted_key = key._replace(external_port=granted.external_port)
        self._state.granted(owner, granted_key, asyncio.get_running_loop().time() + granted.lifetime)
        op.settled(undo)
        return PortMapping(
            granted.external_port,
            owner.internal_port,
            owner.client,
            owner.proto,
            duration=granted.lifetime,
            remote_host=key.remote_host,
        )

    async def _take_back(self, owner: Owner, op: Operation) -> None:
        async with self._state.turn(owner):
            self._state.gone(owner)
            await self._unmap(op, owner)

    def has_made(self, what: MappingKey | Pinhole) -> bool:
        """Return whether this program has made a mapping or pinhole by this protocol."""
        return self._state.owner_of(what) is not None if isinstance(what, MappingKey) else super().has_made(what)

    @abstractmethod
    def _filters_for(self, remote_host: str, remote_port: int = 0) -> tuple[pcp.Filter, ...]:
        """Return the filters for a remote host, "" for any. Raises RefusedError where there are none."""

    @abstractmethod
    async def _map(self, op: Operation, wish: Wish, undo: Undo) -> Granted:
        """Make or renew a mapping."""

    @abstractmethod
    async def _unmap(self, op: Operation, owner: Owner) -> None:
        """Delete a mapping."""

    async def _ask(
        self,
        op: Operation,
        action: str,
        arguments: Mapping[str, str],
        datagram: bytes,
        read: Callable[[bytes], T | None],
        undo: Undo | None = None,
    ) -> T:
        """Send a request until it is answered, or the call is over; each failure is noted in ``op.attempts``."""
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
                return await self._client.request(datagram, read, begin, first=op.is_started)
            except IGDError as error:
                op.attempts.append(Attempt(action, arguments, None, error.result, self.protocol))
                op.reply_lost = op.reply_lost or isinstance(error, DeadlineError)
                op.checkpoint()
                if not isinstance(error, DeadlineError) or op.rediscover_on_timeout or op.expired:
                    raise
            finally:
                if is_out:
                    op.request_finished()

    def _note(
        self, op: Operation, action: str, arguments: Mapping[str, str], code: int, error: IGDError | None
    ) -> None:
        """Note a request that was answered."""
        result = UPnPResult.SUCCESS if error is None else error.result
        op.attempts.append(Attempt(action, arguments, code or None, result, self.protocol))
        if error is not None:
            op.rejected()
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
        arguments = {
            "proto": owner.proto,
            "internal_port": str(owner.internal_port),
            "external_port": str(external_port),
            "lifetime": str(lifetime),
        }
        response = await self._exchange(op, "MAP", arguments, request, undo)
        if not isinstance(response, nat_pmp.MapResponse):
            raise InvalidResponseError("what came back is no mapping")
        return response

    async def _exchange(
        self, op: Operation, action: str, arguments: Mapping[str, str], request: nat_pmp.Request, undo: Undo | None
    ) -> nat_pmp.Response:
        """Send a request, and return what answers it; raises RefusedError for a refusal."""

        def read(datagram: bytes) -> nat_pmp.Response | None:
            response = nat_pmp.parse_response(datagram)
            if response is None:
                other = pcp.parse_response(datagram)
                if other is not None and other.result == pcp.ResultCode.UNSUPP_VERSION:
                    return nat_pmp.Refusal(request.opcode, nat_pmp.ResultCode.UNSUPPORTED_VERSION, other.epoch)
                return None
            answers = response.opcode == request.opcode and (
                not isinstance(response, nat_pmp.MapResponse)
                or (isinstance(request, nat_pmp.MapRequest) and response.internal_port == request.internal_port)
            )
            return response if answers else None

        response: nat_pmp.Response = await self._ask(op, action, arguments, nat_pmp.build_request(request), read, undo)
        self._state.note_epoch(response.epoch, asyncio.get_running_loop().time())
        code = response.result if isinstance(response, nat_pmp.Refusal) else 0
        self._note(op, action, arguments, code, refused_by_nat_pmp(code, action) if code else None)
        return response


class PcpBackend(_Backend):
    """A router that is spoken to by PCP (RFC 6887). ``secret`` is that from which nonces are derived."""

    protocol = "pcp"

    def __init__(self, device: Device, state: RouterState, scope: SearchScope, secret: bytes) -> None:
        super().__init__(device, state, scope)
        self._secret = secret
        self._refuses_prefer_failure = False

    async def external_address(self, op: Operation) -> IPv4Address | IPv6Address:
        """Return that of the last mapping; without one, a mapping is made for it and deleted (section 11.6)."""
        if self._state.external_address is None:
            owner = Owner(self.internal_client, "UDP", _DISCARD_PORT)
            undo = partial(self._take_back, owner)
            await self._map(op, Wish(owner, 0, _BRIEFLY, exactly=False), undo)
            with suppress(IGDError):
                await self._unmap(op, owner)
            op.settled(None)
        address: Address | None = self._state.external_address
        if address is None:
            raise InvalidResponseError("PCP granted a mapping without an external address")
        return _checked(address)

    async def poll(self, op: Operation) -> IPv4Address | IPv6Address:
        """Ask by ANNOUNCE, which changes nothing, for the epoch (section 14.1); the address is the last one told."""
        request = pcp.build_request(pcp.Request(pcp.Opcode.ANNOUNCE, ip_address(self.device.igd_our_addr)))
        response = await self._ask(op, "ANNOUNCE", {}, request, _read_announce)
        self._state.note_epoch(response.epoch, asyncio.get_running_loop().time())
        return await self.external_address(op)

    async def add_pinhole(self, op: Operation, request: PinholeRequest) -> Pinhole:
        """Open the firewall by MAP over IPv6; there is nothing to translate (section 11)."""
        owner = Owner(request.internal_client or self.internal_client_v6, request.proto, request.internal_port)
        filters = self._filters_for(request.remote_host, request.remote_port)
        wish = Wish(owner, request.internal_port, request.duration, exactly=True, filters=filters)
        undo = partial(self._take_back, owner)
        granted = await self._map(op, wish, undo)
        op.settled(undo)
        remote = request.remote_host, request.remote_port
        return Pinhole(0, owner.client, owner.internal_port, owner.proto, *remote, granted.lifetime, self.protocol)

    async def update_pinhole(self, op: Operation, pinhole: Pinhole, duration: int) -> Pinhole:
        """Let a pinhole last so many seconds from now on: it is asked for again."""
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
        """Close a pinhole."""
        await self._unmap(op, Owner(pinhole.internal_client, pinhole.proto, pinhole.internal_port))

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

    async def _map(self, op: Operation, wish: Wish, undo: Undo) -> Granted:
        exactly = wish.exactly and bool(wish.external_port) and not self._refuses_prefer_failure
        options: tuple[pcp.Option, ...] = (*wish.filters, *([pcp.PreferFailure()] if exactly else []))
        try:
            response = await self._change(op, wish.owner, wish.external_port, wish.lifetime, options, undo)
        except RefusedError as error:
            if error.error_code != pcp.ResultCode.UNSUPP_OPTION or not exactly:
                raise
            self._refuses_prefer_failure = True  # then another port is given back, as by NAT-PMP
            response = await self._change(op, wish.owner, wish.external_port, wish.lifetime, wish.filters, undo)
        mapping = response.mapping
        if mapping is None or not mapping.external_port or not response.lifetime:
            raise InvalidResponseError("PCP granted a mapping without a port or lifetime")
        if _is_usable(mapping.external_address):
            self._state.external_address = mapping.external_address
        return Granted(mapping.external_port, response.lifetime, mapping.external_address)

    async def _unmap(self, op: Operation, owner: Owner) -> None:
        await self._change(op, owner, 0, 0, (), None)

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
        ours = ip_address(self.device.igd_our_addr)
        client = ip_address(owner.client)
        if client != ours:
            options = (pcp.ThirdParty(client), *options)
        nonce = derive_nonce(self._secret, self._host, owner.client, owner.proto, owner.internal_port)
        asked = pcp.MapData(nonce, NUMBER_OF[owner.proto], owner.internal_port, external_port, unspecified_like(client))
        request = pcp.build_request(pcp.Request(pcp.Opcode.MAP, ours, lifetime, asked, options))
        arguments = {
            "proto": owner.proto,
            "internal_port": str(owner.internal_port),
            "external_port": str(external_port),
            "lifetime": str(lifetime),
            **{type(option).__name__: str(option) for option in options},
        }
        response = await self._ask(op, "MAP", arguments, request, partial(_read_map, asked), undo)
        self._state.note_epoch(response.epoch, asyncio.get_running_loop().time())
        code = response.result
        self._note(op, "MAP", arguments, code, refused_by_pcp(code, f"MAP of {owner}", options) if code else None)
        return response


async def _nothing(_: Operation) -> None:
    """Undo a renewal: the mapping stays as it was wanted before."""


def _read_announce(datagram: bytes) -> pcp.Response | None:
    """Return the response in a datagram if it answers an ANNOUNCE; each one tells the epoch, a refusal, too."""
    response = pcp.parse_response(datagram)
    if response is None:
        return _read_unsupported(datagram, pcp.Opcode.ANNOUNCE)
    return response if response.opcode == pcp.Opcode.ANNOUNCE else None


def _read_unsupported(datagram: bytes, opcode: pcp.Opcode) -> pcp.Response | None:
    """Return what a router says that speaks NAT-PMP only."""
    other = nat_pmp.parse_response(datagram)
    if isinstance(other, nat_pmp.Refusal) and other.result == nat_pmp.ResultCode.UNSUPPORTED_VERSION:
        return pcp.Response(opcode, pcp.ResultCode.UNSUPP_VERSION, 0, other.epoch)
    return None


def _read_map(asked: pcp.MapData, datagram: bytes) -> pcp.Response | None:
    """Return the response in a datagram if it answers this MAP."""
    response = pcp.parse_response(datagram)
    if response is None:
        return _read_unsupported(datagram, pcp.Opcode.MAP)
    if response.opcode != pcp.Opcode.MAP:
        return None
    if response.result == pcp.ResultCode.UNSUPP_VERSION:
        return response
    given = response.mapping
    answers = given is not None and (given.nonce, given.protocol, given.internal_port) == (
        asked.nonce,
        asked.protocol,
        asked.internal_port,
    )
    return response if answers else None


def _is_usable(address: Address) -> bool:
    return not (address.is_unspecified or address.is_loopback or address.is_multicast)


def _checked(address: Address) -> Address:
    if not _is_usable(address):
        raise InvalidResponseError(f"{address} cannot be the address of a router on the internet")
    return address
