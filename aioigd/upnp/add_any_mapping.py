"""How a mapping is made on a port that the gateway may choose, and how it is undone."""

from __future__ import annotations

import asyncio
from functools import partial

from async_timeout import timeout

from ..core.calls import Operation
from ..errors import (
    DeadlineError,
    IGDError,
    InvalidResponseError,
    RefusedError,
    TransportError,
    UnsupportedError,
    is_gone,
)
from ..models import MappingRequest, PortMapping
from .add_mapping import SHARE_IF_IMPATIENT, Addition, is_bad_request
from .delete_mapping import delete_mapping
from .list_mappings import find_mapping, iter_mappings
from .soap_client import SoapClient, read_answer
from .wire import soap, wan_ip_connection
from .wire.error_codes import UPnPErrorCode

__all__ = ["AddAnyMapping"]


class AddAnyMapping(Addition):
    """One AddAnyPortMapping (WANIPConnection:2 section 2.5.17) with all that may have to happen around it.

    Done twice it makes two mappings, on two ports. So a request whose reply was lost is not repeated before the gateway
    was asked what it holds: what is there for the same place on this machine is what was made.
    """

    def __init__(self, client: SoapClient, op: Operation, request: MappingRequest) -> None:
        super().__init__(client, op, request)
        self._descs: set[str] = set()
        """The descriptions in the requests so far."""

    async def run(self) -> PortMapping:
        """Make a mapping on the port asked for or, if it is taken, any other, and return what was granted.

        Raises UnsupportedError where the gateway has no such action, and otherwise its refusal.
        """
        if self._client.service_version < 2:
            raise UnsupportedError(f"a {self._client.service_type} does not choose ports, which takes version 2")
        while True:
            try:
                mapping = self._mapping(await self._ask())
            except RefusedError as error:
                self._op.rejected()
                if UPnPErrorCode.is_unsupported(error.error_code):
                    raise UnsupportedError(error.message, error.error_code) from error
                if not self._go_on_after(error):
                    raise
            except (TransportError, DeadlineError) as error:
                if not self._is_cut_off or not self._go_on_after(error):
                    raise
                self._is_cut_off = False
            except InvalidResponseError as error:
                if is_bad_request(error):
                    raise UnsupportedError(error.message) from error
                raise
            else:
                if self._policy != self._state.terms_policy:
                    self._learn_terms()
                had_before = mapping.key in self._state.ours
                self._state.ours[mapping.key] = mapping
                self._op.settled(None if had_before else partial(delete_mapping, self._client, mapping.key))
                return mapping

    async def undo_request(self, op: Operation) -> None:
        """Take back what requests may have made to which no reply came."""
        await self._delete_what_arrives(op, self._find_stray)

    async def _find_stray(self, op: Operation) -> PortMapping | None:
        mapping = await self._find_made(op)
        return None if mapping is None or mapping.key in self._state.ours else mapping

    async def _ask(self) -> int:
        """Ask once on the present terms, and return the port. Raises RefusedError for a no."""
        action = wan_ip_connection.add_any_port_mapping(self._request, self._internal_client, self._terms)
        self._descs.add(self._terms.desc)
        loop, losses = asyncio.get_running_loop(), 0
        while True:
            share = (self._op.deadline - loop.time()) * SHARE_IF_IMPATIENT if self._is_impatient else None
            try:
                self._lost += 1
                async with timeout(share):
                    reply = await self._client.send(
                        action, self._op, undo=self.undo_request, repeatable=False, beside=self._look_beside
                    )
                self._lost -= 1
                return wan_ip_connection.read_reserved_port(read_answer(reply, action)[1])
            except InvalidResponseError as error:
                if is_gone(error) or is_bad_request(error):
                    raise
                doubt: IGDError = error
            except (TransportError, TimeoutError) as error:  # DeadlineError, too
                losses += 1
                unconnected = isinstance(error, TransportError) and not error.may_have_arrived
                is_last = losses >= self._tries_if_cut
                if unconnected or (is_last and not self._may_blame_terms) or self._op.expired:
                    if unconnected:
                        self._lost -= 1
                        self._rejected()
                    raise
                doubt = error if isinstance(error, IGDError) else DeadlineError("no answer in its share of the time")
            try:
                mapping = await self._find_made(self._op)
            except (RefusedError, InvalidResponseError):
                raise doubt from doubt.__cause__
            if mapping is not None:
                return mapping.external_port
            if isinstance(doubt, InvalidResponseError):
                raise doubt
            if self._may_blame_terms and (is_last or isinstance(doubt, DeadlineError)):
                self._is_cut_off = True
                raise doubt from doubt.__cause__

    async def _look_beside(self) -> tuple[int, soap.Reply] | None:
        """Look what has become of a request to which no reply has come yet; None where it has made nothing."""
        try:
            mapping = await self._find_made(self._op)
        except (RefusedError, InvalidResponseError):
            return None
        return None if mapping is None else (200, soap.Answer({"newreservedport": str(mapping.external_port)}))

    async def _find_made(self, op: Operation) -> PortMapping | None:
        """Return what the gateway holds for the place that was asked for, on the port that was, or on any other."""
        held = await find_mapping(self._client, self._request.key, op)
        if held is not None and self._is_ours(held):
            return held
        async for mapping in iter_mappings(self._client, op):
            if self._is_ours(mapping) and mapping.key not in self._state.ours:
                return mapping
        return None

    def _is_ours(self, held: PortMapping) -> bool:
        key = self._request.key
        here = key.normalised()._replace(external_port=held.external_port)
        return held.key.normalised() == here and held.desc in self._descs and super()._is_ours(held)
