"""Which messages of PCP are a mapping, the address and a pinhole, and what of a reply is believed? Its backend."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from ..core.backend import SearchScope
from ..core.calls import Operation, Undo
from ..errors import Attempt, IGDError, InvalidResponseError, NoRouteError, NotFoundError, RefusedError
from ..models import Device, Pinhole, PinholeRequest
from ..net.interfaces import ipv6_next_hops, is_our_address, public_ipv6_address
from ..results import UPnPResult
from .client import Doubtful, PcpClient
from .datagram_backend import (
    BRIEFLY,
    DatagramBackend,
    Granted,
    RouterPath,
    Wish,
    arguments_of,
    checked_address,
    is_usable_address,
    undo_nothing,
    unused_port,
)
from .epoch import PcpEpoch
from .nonce import derive_nonce
from .results import refused_by_pcp
from .state import Owner, Remote, RouterState
from .wire import nat_pmp, pcp
from .wire.common import NUMBER_OF, Address, unspecified_like

__all__ = ["PcpBackend"]

_ANYWHERE: Final = ("", 0)
"""A pinhole for packets from everywhere."""
_NO_FILTERS: Final = pcp.Filter(0, 0, IPv6Address(0))
"""Ends the filters that a mapping has (RFC 6887 section 13.3)."""
_PREFER_FAILURE: Final = pcp.PreferFailure()
_PREFER_FAILURE_SHOWN: Final = str(_PREFER_FAILURE)


class PcpBackend(DatagramBackend):
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
            with unused_port(ours, "UDP") as port:
                owner = Owner(ours, "UDP", port)
                await self._map(op, Wish(owner, 0, BRIEFLY, exactly=False), partial(self._take_back, owner))
                with suppress(IGDError):
                    await self._unmap(op, owner)
                op.settled(None)
        address: Address | None = self._state.external_address
        if address is None:
            raise InvalidResponseError("PCP granted a mapping without an external address")
        return checked_address(address)

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
            undo: Undo = undo_nothing if remote in known else partial(self._close, owner, remote)
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

    def _path_for(self, owner: Owner) -> RouterPath:
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

    def _beside(self) -> RouterPath:
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
        return RouterPath(client, hops[0].partition("%")[0], ours, state)

    def _path_from(self, ours: str, path: RouterPath) -> RouterPath:
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
            self._state.note_address(address if is_usable_address(address) else None)
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
        arguments = arguments_of(owner, external_port, lifetime)
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


def _check_named(pinhole: Pinhole) -> None:
    """Raise NotFoundError for a pinhole of which only a number is known: port 0 would be all ports of a host."""
    if not pinhole.internal_client or not pinhole.internal_port:
        raise NotFoundError("PCP has no numbers for pinholes: it knows them by their host and port")


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
