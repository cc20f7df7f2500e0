"""How one mapping is deleted, or all in a range of ports: by the gateway in one go, or one by one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from ..core.calls import Operation
from ..errors import GONE_STATUSES, InvalidResponseError, NotFoundError, RefusedError, is_gone
from ..models import MappingKey, Proto
from ..results import UPnPResult
from .list_mappings import find_mapping, iter_mappings
from .soap_client import SoapClient, is_denial, is_doubtful, read_answer
from .wire import soap, wan_ip_connection
from .wire.error_codes import UPnPErrorCode, refused

__all__ = ["delete_mapping", "delete_range"]

_MAY_MEAN_ABSENT: Final = frozenset({UPnPErrorCode.INVALID_ARGS, UPnPErrorCode.ACTION_FAILED, None})


async def delete_mapping(client: SoapClient, key: MappingKey, op: Operation) -> None:
    """Delete a mapping. Raises NotFoundError where there is none."""
    action = wan_ip_connection.delete_port_mapping(key)
    client.state.our_keys.discard(key)  # whatever becomes of it: nobody wants it any more
    status, reply = await client.send(action, op)
    if is_denial(status, reply):
        read_answer((status, reply), action)
    elif isinstance(reply, soap.Fault):
        await _judge_refusal(client, key, op, reply)
    elif is_doubtful(status, reply):
        if status in GONE_STATUSES and isinstance(reply, soap.InvalidReply):
            read_answer((status, reply), action)
        if await find_mapping(client, key, op) is not None:
            raise InvalidResponseError(
                f"{action.name}: no clear answer, and the mapping is still there (HTTP status {status})", status=status
            )


async def delete_range(client: SoapClient, first: int, last: int, proto: Proto, op: Operation) -> None:
    """Delete the mappings of a protocol on the external ports from ``first`` to ``last``, as far as the gateway allows.

    Raises NotFoundError where there is none, and with the gateway's refusal of the first that it does not let go of,
    after all were tried.
    """
    our_keys = client.state.our_keys
    our_keys -= {key for key in our_keys if key.proto == proto and first <= key.external_port <= last}
    doubtful = False
    if client.service_version >= 2:
        try:
            await client.call(wan_ip_connection.delete_port_mapping_range(first, last, proto), op)
        except RefusedError as error:
            if isinstance(error, NotFoundError) and op.reply_lost:
                return  # a repeated request: the first one had arrived
            if not UPnPErrorCode.is_unsupported(error.error_code):
                raise
        except InvalidResponseError as error:
            if is_gone(error):
                raise
            doubtful = True
        else:
            return
    if not await _delete_one_by_one(client, first, last, proto, op) and not doubtful:
        raise NotFoundError(f"no {proto} port from {first} to {last} is mapped", UPnPResult.PORT_MAPPING_NOT_FOUND)


async def _delete_one_by_one(client: SoapClient, first: int, last: int, proto: Proto, op: Operation) -> bool:
    """Return whether there was any."""
    keys = [
        mapping.key
        async for mapping in iter_mappings(client, op)
        if mapping.proto == proto and first <= mapping.external_port <= last
    ]
    outcomes = await asyncio.gather(*(delete_mapping(client, key, op) for key in keys), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, NotFoundError):
            raise outcome
    return bool(keys)


async def _judge_refusal(client: SoapClient, key: MappingKey, op: Operation, fault: soap.Fault) -> None:
    """Return where a refused deletion is none after all; raise otherwise."""
    may_be_our_doing = op.reply_lost  # a repeated request, and the first one had arrived
    if UPnPErrorCode.is_absent(fault.code) and may_be_our_doing:
        return
    message = f"the gateway refused to delete {key}: {fault.description or 'without a reason'}"
    if fault.code in _MAY_MEAN_ABSENT:
        is_there = True
        with suppress(RefusedError, InvalidResponseError):
            is_there = await find_mapping(client, key, op) is not None
        if not is_there:
            if may_be_our_doing:
                return
            raise NotFoundError(message, error_code=fault.code)
    raise refused(message, fault.code)
