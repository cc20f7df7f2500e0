"""What a call that has failed, or that nobody waits for any more, leaves behind at a gateway, and how it is put right.

Two things: a mapping that was deleted because it was in the way (:class:`RemovedMapping`), and what requests make to
which no reply has come (:func:`delete_what_arrives`). A slow gateway may carry those out later, so they are looked for
until it has had the time that it was seen to need, and half as much again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from ..core.backend import LOOK_PAUSE
from ..core.calls import ROLLBACK_TIMEOUT, Operation
from ..errors import InvalidResponseError, RefusedError
from ..models import MappingRequest, PortMapping, Terms
from .delete_mapping import delete_mapping
from .list_mappings import find_mapping
from .soap_client import SoapClient
from .wire import wan_ip_connection

__all__ = ["RemovedMapping", "delete_what_arrives"]

_SLACK: Final = 1.5
"""How many times as long as it was seen to need a gateway may need for a request that was cut off."""
_REST: Final = 0.25
"""Part of an undo that looks leave to what follows from them."""
_LOOKS: Final = 20
"""Looks in the time of a slow gateway, at most."""


class RemovedMapping:
    """A mapping that was deleted in favour of another, as it was then."""

    def __init__(self, client: SoapClient, mapping: PortMapping) -> None:
        self._client = client
        self._mapping = mapping
        self._at = asyncio.get_running_loop().time()

    def __str__(self) -> str:
        mapping = self._mapping
        return f"{mapping.key} to {mapping.internal_client} port {mapping.internal_port} ({mapping.desc!r})"

    async def put_back(self, op: Operation) -> None:
        """Make it again, for the rest of its time, unless the port is in use. Raises IGDError."""
        mapping, key = self._mapping, self._mapping.key
        with suppress(RefusedError, InvalidResponseError):
            if await find_mapping(self._client, key, op) is not None:
                return
        gone_for = asyncio.get_running_loop().time() - self._at
        rest = max(1, mapping.duration - round(gone_for)) if mapping.duration else 0
        request = MappingRequest(key, mapping.internal_port, mapping.internal_client, Terms(mapping.desc, rest))
        action = wan_ip_connection.add_port_mapping(request, mapping.internal_client, request.terms)
        await self._client.call(action, op)


async def delete_what_arrives(
    client: SoapClient,
    op: Operation,
    failed: Operation,
    find: Callable[[Operation], Awaitable[PortMapping | None]],
    *,
    lost: int,
    looks_are_prompt: bool,
) -> None:
    """Delete what the requests of a ``failed`` call have made, each time that ``find`` finds it. Raises IGDError.

    ``lost``: requests to which no reply came; with none of them one look is enough. ``looks_are_prompt``: the gateway
    answers looks at once; otherwise it is not looked before it has had its time, so that the look sees what is done.
    """
    loop = asyncio.get_running_loop()

    def settled_at() -> float:
        needed = max(failed.seconds_needed, op.seconds_needed)
        return min(failed.last_sent + max(ROLLBACK_TIMEOUT, _SLACK * needed), op.deadline - _REST * op.timeout)

    if lost and not looks_are_prompt:
        await asyncio.sleep(settled_at() - loop.time())
    while True:
        is_last = not lost or loop.time() >= settled_at()
        mapping = await find(op)
        if mapping is not None:
            await delete_mapping(client, mapping.key, op)
            lost -= 1
        if is_last or not lost:
            return
        await asyncio.sleep(max(LOOK_PAUSE, failed.seconds_needed / _LOOKS))
