"""How one mapping is deleted, or all in a range of ports: by the gateway in one go, or one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from ..core.backend import LATE_TABLE, LOOK_PAUSE
from ..core.calls import Operation
from ..errors import (
    GONE_STATUSES,
    IGDError,
    InvalidResponseError,
    NotFoundError,
    RefusedError,
    TransportError,
    is_denied,
    is_gone,
)
from ..models import MappingKey, PortMapping, Proto
from ..results import UPnPResult
from .list_mappings import find_mapping, iter_mappings
from .soap_client import SoapClient, is_denial, is_doubtful, read_answer
from .wire import soap, wan_ip_connection
from .wire.error_codes import UPnPErrorCode, refused

__all__ = ["delete_mapping", "delete_range"]

_MAY_MEAN_ABSENT: Final = frozenset({UPnPErrorCode.INVALID_ARGS, UPnPErrorCode.ACTION_FAILED, None})


async def delete_mapping(client: SoapClient, key: MappingKey, op: Operation, *, verify: bool = False) -> None:
    """Delete a mapping. Raises NotFoundError where there is none.

    What this program has made is deleted once: another host's that has taken its place meanwhile is not. With
    ``verify`` a clear yes is not enough: the gateway is asked until it holds the mapping no longer, for LATE_TABLE at
    most.
    """
    made = client.state.ours.pop(key, None)  # whatever becomes of it: nobody wants it any more
    try:
        await _delete_as_spelt(client, key, op, made)
    except RefusedError:
        plain = key.normalised()
        if plain == key:
            raise
        # Some show a remote host in another way than they want it to be spelt.
        await _delete_as_spelt(client, plain, op, made)
    if verify:
        await _check_deleted(client, key, op)


async def _delete_as_spelt(client: SoapClient, key: MappingKey, op: Operation, made: PortMapping | None) -> None:
    action = wan_ip_connection.delete_port_mapping(key)

    async def look() -> tuple[int, soap.Reply] | None:
        """Look whether it is gone, before another deletion could hit what somebody else has made meanwhile."""
        with suppress(RefusedError, InvalidResponseError):
            held = await find_mapping(client, key, op)
            if held is None:
                return 200, soap.Answer({})
            if made is not None and held.leads_to(made.internal_client, made.internal_port) is False:
                return 200, soap.Answer({})
        return None

    try:
        status, reply = await client.send(action, op, beside=look, looks_again=True)
    except TransportError as error:
        if error.may_have_arrived and not op.expired:
            with suppress(IGDError):
                if await look() is not None:
                    return
        raise
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


async def _check_deleted(client: SoapClient, key: MappingKey, op: Operation) -> None:
    """Raise RefusedError (ACTION_FAILED) where the gateway goes on to say that it holds what it has deleted."""
    loop = asyncio.get_running_loop()
    until = loop.time() + LATE_TABLE
    while True:
        try:
            held = await find_mapping(client, key, op)
        except IGDError:
            return  # who cannot tell has said yes
        if held is None:
            return
        if loop.time() >= until:
            break
        await asyncio.sleep(max(0.0, min(LOOK_PAUSE, op.deadline - loop.time())))
    raise RefusedError(f"the gateway says that it deleted {key}, and still holds it", UPnPResult.ACTION_FAILED)


async def delete_range(client: SoapClient, first: int, last: int, proto: Proto, op: Operation) -> None:
    """Delete the mappings of a protocol on the external ports from ``first`` to ``last``, as far as the gateway allows.

    Raises NotFoundError where there is none, and with the gateway's refusal of the first that it does not let go of,
    after all were tried.
    """
    ours = client.state.ours
    for key in [key for key in ours if key.proto == proto and first <= key.external_port <= last]:
        del ours[key]
    refusal: RefusedError | None = None
    is_doubtful_range = False
    if client.service_version >= 2:
        action = wan_ip_connection.delete_port_mapping_range(first, last, proto)

        async def one_by_one() -> tuple[int, soap.Reply]:
            await _delete_each(client, await _keys_in_range(client, first, last, proto, op), op)
            return 200, soap.Answer({})

        try:
            read_answer(await client.send(action, op, beside=one_by_one), action)
        except TransportError as error:
            if not error.may_have_arrived or op.expired:
                raise
            is_doubtful_range = True  # some refuse without words
        except RefusedError as error:
            if isinstance(error, NotFoundError) and op.reply_lost:
                return  # a repeated request: the first one had arrived
            if is_denied(error):
                raise
            refusal = error  # some refuse a range that they let go of one by one, with whatever code
        except InvalidResponseError as error:
            if is_gone(error):
                raise
            is_doubtful_range = True
        else:
            return
    try:
        keys = await _keys_in_range(client, first, last, proto, op)
    except (RefusedError, InvalidResponseError):
        if refusal is not None:
            raise refusal from None
        raise
    if await _delete_each(client, keys, op) or is_doubtful_range:
        return
    if refusal is not None and not UPnPErrorCode.is_unsupported(refusal.error_code):
        raise refusal
    raise NotFoundError(f"no {proto} port from {first} to {last} is mapped", UPnPResult.PORT_MAPPING_NOT_FOUND)


async def _keys_in_range(
    client: SoapClient, first: int, last: int, proto: Proto, op: Operation
) -> Sequence[MappingKey]:
    return [
        mapping.key
        async for mapping in iter_mappings(client, op)
        if mapping.proto == proto and first <= mapping.external_port <= last
    ]


async def _delete_each(client: SoapClient, keys: Sequence[MappingKey], op: Operation) -> bool:
    """Return whether there was any."""
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
