"""Which of several gateways leads to the internet? Asks each for its status and external address.

An access point that plays the gateway often answers a search sooner than the router. It says that it is disconnected,
or has no external address; the router has a public one, or at least a private one where there is another router behind
it, or a provider with few addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from ..errors import DeadlineError, IGDError, RefusedError, TransportError
from ..results import UPnPResult
from .backend import Backend
from .calls import Operation

__all__ = ["CONNECTED", "DISCONNECTED", "HAS_ADDRESS", "REFUSES", "SILENT", "UNREACHABLE", "most_connected", "standing"]

UNREACHABLE: Final = -2
"""Nothing can be sent to it."""
REFUSES: Final = -1
"""It wants a password, or does not know what it was asked."""
DISCONNECTED: Final = 0
"""It says that it is not connected, and has no public address."""
SILENT: Final = 1
"""It did not answer in time: it may be slow, and is not known to lead nowhere."""
HAS_ADDRESS: Final = 4
"""From here on it has an external address, and does not say that it is not connected."""
CONNECTED: Final = 7
"""It says that it is connected, and has a public address: there is no better one."""
_PATIENCE: Final = 2.0
"""Seconds for the answers of one gateway."""
_HEAD_START: Final = 0.3
"""Seconds that the others get once the first one has turned out to be connected."""
_UP: Final = frozenset({"connected", "up"})


def standing(is_up: bool | None, address: IPv4Address | IPv6Address | None) -> int:
    """Return how likely it is that a gateway leads to the internet, by what it says; the higher the better.

    ``is_up``: whether it says that it is connected, None where it does not tell. ``address``: its external address,
    None where it has none.
    """
    if is_up is False:
        # Some deny it, and map ports all the same.
        return DISCONNECTED + 2 * (address is not None and address.is_global)
    return 2 + bool(is_up) + 2 * (address is not None) + 2 * (address is not None and address.is_global)


async def most_connected(backends: Sequence[Backend], seconds: float) -> tuple[Backend, int]:
    """Return the gateway that most likely leads to the internet, the first of equals, and how likely it does.

    At most ``seconds`` are used.
    """
    loop = asyncio.get_running_loop()
    patience = min(_PATIENCE, seconds)
    tasks = [loop.create_task(_standing_of(backend, patience)) for backend in backends]
    try:
        until = loop.time() + patience
        pending = set(tasks)
        while pending and loop.time() < until:
            done, pending = await asyncio.wait(
                pending, timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
            if any(task.result() >= CONNECTED for task in done):
                until = min(until, loop.time() + _HEAD_START)
        found = [task.result() if task.done() else SILENT for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return backends[found.index(max(found))], max(found)


async def _standing_of(backend: Backend, seconds: float) -> int:
    op = Operation(seconds)
    is_up: bool | None = None
    talks = True
    try:
        is_up = (await backend.connection_status(op)).status.lower() in _UP
    except TransportError:
        return UNREACHABLE
    except DeadlineError:
        return SILENT
    except RefusedError as error:  # not all gateways tell
        talks = error.result is not UPnPResult.NOT_AUTHORIZED
    except IGDError:
        talks = False
    try:
        address = await backend.external_address(op)
    except IGDError:
        return standing(is_up, None) if talks else REFUSES
    return standing(is_up, address)
