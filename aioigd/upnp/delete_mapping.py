"""How all mappings in a range of ports are deleted: by the gateway in one go, or one by one."""

from __future__ import annotations

import asyncio
from typing import Final

from ..core.calls import Call
from ..errors import IGDError, InvalidResponseError, NotFoundError, RefusedError
from ..models import Proto
from ..results import UPnPResult
from . import add_mapping
from .list_mappings import all_mappings, within
from .soap_client import NOT_THERE, Channel
from .wire import wan_ip_connection

__all__ = ["delete_range"]

_NO_SUCH_ACTION: Final = frozenset({401, 602})
_ABSENT: Final = frozenset({714, 730})
_ABSENT_RESULTS: Final = frozenset({UPnPResult.NO_SUCH_ENTRY_IN_ARRAY, UPnPResult.PORT_MAPPING_NOT_FOUND})


async def delete_range(channel: Channel, first: int, last: int, proto: Proto, call: Call) -> None:
    """Delete the mappings of a protocol on the external ports from ``first`` to ``last``, as far as the gateway allows.

    Raises IGDError with PORT_MAPPING_NOT_FOUND (or NO_SUCH_ENTRY_IN_ARRAY, as the gateway's code says) where there
    is none, and with the gateway's refusal of the first that it does not let go of, after all were tried.
    """
    for key in [key for key in channel.memory.made if key.proto == proto and first <= key.external_port <= last]:
        del channel.memory.made[key]
    doubtful = False
    if channel.service_version >= 2:
        try:
            await channel.ask(wan_ip_connection.delete_port_mapping_range(first, last, proto), call)
        except RefusedError as error:
            if error.error_code in _ABSENT and call.lost:
                return  # a repeated request: the first one had arrived
            if error.error_code not in _NO_SUCH_ACTION:
                raise
        except InvalidResponseError as error:
            if error.status in NOT_THERE:
                raise
            doubtful = True
        else:
            return
    if not await _one_by_one(channel, first, last, proto, call) and not doubtful:
        raise NotFoundError(f"no {proto} port from {first} to {last} is mapped", UPnPResult.PORT_MAPPING_NOT_FOUND)


async def _one_by_one(channel: Channel, first: int, last: int, proto: Proto, call: Call) -> bool:
    """Tell whether there was any."""
    keys = [
        mapping.key
        async for mapping in all_mappings(within(channel, call))
        if mapping.proto == proto and first <= mapping.external_port <= last
    ]
    outcomes = await asyncio.gather(*(add_mapping.delete(channel, key, call) for key in keys), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not _was_absent(outcome):
            raise outcome
    return bool(keys)


def _was_absent(error: BaseException) -> bool:
    return isinstance(error, IGDError) and error.result in _ABSENT_RESULTS
