"""What does a gateway hold of what it has granted, or deleted? Tables may be late, so they are given LATE_TABLE."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..core.backend import LATE_TABLE, LOOK_PAUSE
from ..core.dispatcher import Dispatcher
from ..errors import IGDError, UnsupportedError
from ..models import MappingKey, PortMapping

__all__ = ["is_deleted", "read_back"]


async def read_back(dispatcher: Dispatcher, granted: PortMapping) -> PortMapping | None:
    """Return what the gateway holds where it has granted a mapping.

    That is None, or a mapping that leads elsewhere, only if it says so for LATE_TABLE. Where it cannot tell now, what
    was granted is granted; UnsupportedError where it never can.
    """

    def is_it(held: PortMapping | None) -> bool:
        return held is not None and held.leads_to(granted.internal_client, granted.internal_port) is not False

    try:
        return await _look(dispatcher, granted.key, is_it)
    except UnsupportedError:
        raise
    except IGDError:
        return granted


async def is_deleted(dispatcher: Dispatcher, deleted: PortMapping) -> bool:
    """Return whether the gateway no longer holds a mapping. Where it cannot tell, its yes counts."""

    def is_gone(held: PortMapping | None) -> bool:
        return held is None or held.leads_to(deleted.internal_client, deleted.internal_port) is False

    try:
        return is_gone(await _look(dispatcher, deleted.key, is_gone))
    except IGDError:
        return True


async def _look(
    dispatcher: Dispatcher, key: MappingKey, is_expected: Callable[[PortMapping | None], bool]
) -> PortMapping | None:
    """Return what the gateway holds: at once if it is as expected, and else what it is after LATE_TABLE."""
    loop = asyncio.get_running_loop()
    until = loop.time() + LATE_TABLE
    while True:
        held = await dispatcher.find(key)
        if is_expected(held) or loop.time() >= until:
            return held
        await asyncio.sleep(LOOK_PAUSE)
