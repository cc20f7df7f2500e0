"""Asking a gateway what it holds: one entry, by whatever way the gateway has."""

from __future__ import annotations

from typing import Final

from ..core.calls import Call
from ..errors import InvalidResponseError, RefusedError
from ..models import MappingKey, PortMapping
from .mapping_table import Row, Table
from .soap_client import Channel
from .wire import wan_ip_connection

__all__ = ["find_entry", "read_row"]

_ABSENT: Final = frozenset({713, 714, 730})
_MOST_ENTRIES: Final = 256
"""Entries walked through at most, where the table is the only way; home routers have 32 to 128."""


async def find_entry(channel: Channel, key: MappingKey, call: Call) -> PortMapping | None:
    """Return the mapping that the gateway holds for a key, None where it says that there is none.

    Routers that cannot answer for one entry are asked for the whole table. Raises RefusedError or
    InvalidResponseError where the gateway cannot be made to tell.
    """
    try:
        values = await channel.ask(wan_ip_connection.get_specific_entry(key), call)
        return wan_ip_connection.read_entry(key, values)
    except RefusedError as error:
        if error.error_code in _ABSENT:
            return None
    except InvalidResponseError:
        pass  # a blank entry is how some say "none"; the table tells
    return await _find_in_table(channel, key, call)


async def read_row(channel: Channel, index: int, call: Call) -> Row:
    """Return what the gateway says of one row of its table; a refusal and a blank row are results, too."""
    try:
        return wan_ip_connection.read_generic_entry(await channel.ask(wan_ip_connection.get_generic_entry(index), call))
    except (RefusedError, InvalidResponseError) as error:
        return error


async def _find_in_table(channel: Channel, key: MappingKey, call: Call) -> PortMapping | None:
    table = Table()
    for index in range(_MOST_ENTRIES):
        entry = table.read(await read_row(channel, index, call))
        if table.ended:
            return None
        if entry is not None and entry.key == key:
            return entry
    raise InvalidResponseError(f"the gateway lists more than {_MOST_ENTRIES} mappings")
