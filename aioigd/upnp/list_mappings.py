"""All mappings of a gateway, by whatever way it has to list them.

An IGD:2 gives them in one piece for each protocol; where it does not, or says that there are none, its table is read
row by row, some rows at a time. Who reads the list may stop at any time, and no more is asked for then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar, get_args

from ..core.calls import Call
from ..errors import IGDError, InvalidResponseError, RefusedError
from ..models import MappingKey, PortMapping, Proto
from .find_mapping import read_row
from .mapping_table import Row, Table
from .soap_client import Channel
from .wire import wan_ip_connection

__all__ = ["Asker", "all_mappings", "within"]

T = TypeVar("T")

MOST_ENTRIES: Final = 4096
"""Mappings listed at most; home routers have room for 32 to 128, and a list need not have an end."""
_AT_ONCE: Final = 4
"""Rows that are asked for together: as many as a gateway that is not known yet gets requests at once."""
_NONE: Final = frozenset({713, 714, 730})


class Asker(Protocol):
    """Carries out one step on the gateway; each may be a call of its own, with a deadline of its own."""

    def __call__(self, operation: Callable[[Channel, Call], Awaitable[T]]) -> Awaitable[T]:
        """Return what the operation returns."""


def within(channel: Channel, call: Call) -> Asker:
    """Return an asker whose steps are parts of a call."""
    return lambda operation: operation(channel, call)


async def all_mappings(ask: Asker) -> AsyncIterator[PortMapping]:
    """Yield the mappings that a gateway holds, each once.

    Raises what asking raises, and InvalidResponseError for a list that has more than MOST_ENTRIES.
    """
    seen: set[MappingKey] = set()
    answered = True
    for proto in get_args(Proto):
        rows = await ask(lambda channel, call, proto=proto: _list_of(channel, proto, call))  # type: ignore[misc]
        if rows is None:
            answered = False
            break
        for mapping in rows:
            if mapping.key not in seen:
                seen.add(mapping.key)
                yield _counted(mapping, len(seen))
    if answered and seen:
        return
    # "None" is told by some that have the action, but nothing behind it.
    async for mapping in _table(ask):
        if mapping.key not in seen:
            seen.add(mapping.key)
            yield _counted(mapping, len(seen))


async def _table(ask: Asker) -> AsyncIterator[PortMapping]:
    table = Table()
    first, number = 0, 1  # the first alone: most lists are short
    while first < 2 * MOST_ENTRIES:
        indices = range(first, first + number)
        for row in await ask(lambda channel, call, indices=indices: _rows(channel, indices, call)):  # type: ignore[misc]
            mapping = table.read(row)
            if table.ended:
                return
            if mapping is not None:
                yield mapping
        first += number
        number = _AT_ONCE
    raise _too_many()


async def _list_of(channel: Channel, proto: Proto, call: Call) -> Sequence[PortMapping] | None:
    """Return the list of an IGD:2, None where it gives none (606 included: the table may tell more)."""
    if channel.service_version < 2:
        return None
    try:
        return wan_ip_connection.read_port_listing(await channel.ask(wan_ip_connection.get_list(proto), call))
    except RefusedError as error:
        return () if error.error_code in _NONE else None
    except InvalidResponseError:
        return None


async def _rows(channel: Channel, indices: range, call: Call) -> list[Row]:
    """Return what comes back for some rows, failures included: those behind the end of the table do not count."""
    found: list[Row] = []
    for row in await asyncio.gather(*(read_row(channel, index, call) for index in indices), return_exceptions=True):
        if not isinstance(row, (PortMapping, IGDError)):
            raise row
        # Raised, if at all, when the call is over: so it takes along now what the call has tried.
        found.append(row.with_attempts(tuple(call.attempts)) if isinstance(row, IGDError) else row)
    return found


def _counted(mapping: PortMapping, number: int) -> PortMapping:
    if number > MOST_ENTRIES:
        raise _too_many()
    return mapping


def _too_many() -> InvalidResponseError:
    return InvalidResponseError(f"the gateway lists more than {MOST_ENTRIES} mappings")
