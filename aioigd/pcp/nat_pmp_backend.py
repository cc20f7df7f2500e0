"""Which messages of NAT-PMP are a mapping and the external address, and what of a reply is believed? Its backend."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from ..core.calls import Operation, Undo
from ..errors import Attempt, InvalidResponseError, RefusedError
from ..results import UPnPResult
from .client import Doubtful
from .datagram_backend import DatagramBackend, Granted, Wish, arguments_of, checked_address
from .results import refused_by_nat_pmp
from .state import Owner
from .wire import nat_pmp, pcp

__all__ = ["NatPmpBackend"]


class NatPmpBackend(DatagramBackend):
    """A router that is spoken to by NAT-PMP (RFC 6886)."""

    protocol = "nat-pmp"

    async def external_address(self, op: Operation) -> IPv4Address | IPv6Address:
        """Ask for the address (section 3.2)."""
        response = await self._exchange(op, "ADDRESS", {}, nat_pmp.AddressRequest(), None)
        if not isinstance(response, nat_pmp.AddressResponse):
            raise InvalidResponseError("what came back is no external address")
        self._state.external_address = response.address
        return checked_address(response.address)

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
        arguments = arguments_of(owner, external_port, lifetime)
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
