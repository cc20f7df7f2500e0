"""A range of ports is deleted in one go, or one by one; what is not in it stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aioigd import DeadlineError, IGDError, PortMapper, PortMapping, RefusedError, UPnPResult
from aioigd.core.calls import Operation
from aioigd.models import MappingKey
from aioigd.testing import EmulatedGateway, quirks
from aioigd.testing.http import End, Transmission
from aioigd.testing.wan_connection import ActionCall
from aioigd.upnp import delete_mapping
from aioigd.upnp.soap_client import GatewayState
from aioigd.upnp.wire.http_reply import HttpReply

from ..leases.virtual import run
from ..support import CUT, OURS, THEIRS, PaperGateway, Reaction, fault, never_answered, odd

pytestmark = [pytest.mark.usefixtures("nothing_is_left"), pytest.mark.one_loop]

RANGE, DELETE = "DeletePortMappingRange", "DeletePortMapping"
LOOK = "GetSpecificPortMappingEntry"


def paper(version: int, *ports: int) -> PaperGateway:
    gateway = PaperGateway(version=version)
    for port in ports:
        gateway.table.put(PortMapping(port, port, THEIRS, "TCP"))
    return gateway


async def delete(gateway: PaperGateway, state: GatewayState | None = None) -> list[int]:
    """Delete TCP ports 10 to 20, and return those that are left."""
    await delete_mapping.delete_range(gateway.client(state=state), 10, 20, "TCP", Operation(10))
    return [key.external_port for key in gateway.table.entries()]


async def test_a_gateway_of_version_2_does_it_in_one_go() -> None:
    gateway = paper(2, 9, 10, 15, 20, 21)
    assert await delete(gateway) == [9, 21]
    assert gateway.actions == [RANGE]


@pytest.mark.parametrize("code", [401, 402, 501, 602, 606, 730, None])
async def test_one_by_one_where_the_gateway_refuses_the_range(code: int | None) -> None:
    gateway = paper(2, 9, 10, 15, 20, 21)
    gateway.respond = lambda call: fault(code) if call.action == RANGE else None
    assert await delete(gateway) == [9, 21]
    assert gateway.actions.count(DELETE) == 3


async def test_one_by_one_in_version_1() -> None:
    gateway = paper(1, 9, 10, 15, 20, 21)
    gateway.table.put(PortMapping(12, 12, THEIRS, "UDP"))
    assert await delete(gateway) == [9, 21, 12]
    assert RANGE not in gateway.actions


@pytest.mark.parametrize("version", [1, 2])
async def test_an_empty_range_is_an_error(version: int) -> None:
    with pytest.raises(IGDError) as caught:
        await delete(paper(version, 9, 21))
    assert caught.value.result is UPnPResult.PORT_MAPPING_NOT_FOUND


async def test_a_refusal_is_reported_after_all_were_tried() -> None:
    gateway = paper(1, 10, 11, 12)
    stuck = {"NewExternalPort": "11"}
    gateway.respond = lambda call: (
        fault(606) if call.action == DELETE and stuck.items() <= dict(call.arguments).items() else None
    )
    with pytest.raises(RefusedError) as caught:
        await delete(gateway)
    assert caught.value.result is UPnPResult.NOT_AUTHORIZED
    assert [key.external_port for key in gateway.table.entries()] == [11]


async def test_where_nothing_can_be_listed_the_refusal_of_the_range_is_what_counts() -> None:
    gateway = paper(2, 10)
    gateway.respond = lambda _: fault(606)
    with pytest.raises(RefusedError) as caught:
        await delete(gateway)
    assert caught.value.result is UPnPResult.NOT_AUTHORIZED
    assert DELETE not in gateway.actions


async def test_a_range_that_was_deleted_before_its_reply_was_lost_is_deleted() -> None:
    gateway, left = paper(2, 10), [CUT]

    def respond(call: ActionCall) -> Reaction | None:
        if left:
            gateway.carry_out(call)
            return left.pop()
        return None

    gateway.respond = respond
    assert await delete(gateway) == []
    assert gateway.actions == [RANGE, RANGE]


async def test_a_doubtful_success_is_made_sure_of() -> None:
    gateway = paper(2, 10, 11)
    gateway.respond = lambda call: HttpReply(200, b"") if call.action == RANGE else None
    assert await delete(gateway) == []


def is_lost(gateway: PaperGateway, action: str, reaction: Reaction | None, *, done: bool) -> None:
    """Let no reply come to an action; None for silence."""

    async def silence(call: ActionCall) -> Reaction:
        return await never_answered()

    def respond(call: ActionCall) -> Any:
        if call.action != action:
            return None
        if done:
            gateway.carry_out(call)
        return silence(call) if reaction is None else reaction

    gateway.respond = respond


@pytest.mark.parametrize("reaction", [CUT, None])
def test_one_by_one_where_the_range_is_refused_without_words(reaction: Reaction | None) -> None:
    async def main() -> None:
        gateway = paper(2, 9, 10, 15, 20, 21)
        is_lost(gateway, RANGE, reaction, done=False)
        assert await delete(gateway) == [9, 21]
        assert gateway.actions.count(DELETE) == 3

    run(main())


@pytest.mark.parametrize("reaction", [CUT, None])
@pytest.mark.parametrize("is_remade", [True, False])
def test_what_another_host_makes_while_the_reply_is_lost_is_left_alone(
    reaction: Reaction | None, is_remade: bool
) -> None:
    async def main() -> None:
        gateway, state = PaperGateway(), GatewayState()
        made = PortMapping(10, 10, OURS, "TCP")
        state.ours[made.key] = made
        gateway.table.put(PortMapping(10, 80, THEIRS, "TCP") if is_remade else made)
        is_lost(gateway, DELETE, reaction, done=not is_remade)
        await delete_mapping.delete_mapping(gateway.client(state=state), made.key, Operation(10))
        assert [one.mapping.internal_client for one in gateway.table.entries().values()] == [THEIRS] * is_remade
        assert gateway.actions == [DELETE, LOOK]

    run(main())


async def test_what_is_still_there_is_deleted_again() -> None:
    gateway, left = paper(1, 10), [CUT]
    gateway.respond = lambda call: left.pop() if left else None
    await delete_mapping.delete_mapping(gateway.client(), MappingKey(10, "TCP"), Operation(10))
    assert gateway.actions == [DELETE, LOOK, DELETE]


async def test_what_is_deleted_is_not_remembered() -> None:
    state = GatewayState()
    for port in (9, 10):
        mapping = PortMapping(port, port, THEIRS, "TCP")
        state.ours[mapping.key] = mapping
    await delete(paper(2, 10), state)
    assert [key.external_port for key in state.ours] == [9]


@pytest.mark.waits
async def test_a_gateway_that_hangs_is_given_up_after_the_calls_own_time() -> None:
    hangs = odd(intercept=lambda exchange: Transmission((), End.HANG) if exchange.action == DELETE else None)
    async with (
        EmulatedGateway(hangs, address=None) as router,
        PortMapper(location=router.location, timeout=0.5) as mapper,
    ):
        for port in range(10, 40):
            router.add_mapping(port, proto="TCP")
        gateway = await mapper.get_gateway()
        loop = asyncio.get_running_loop()
        before = loop.time()
        with pytest.raises(DeadlineError):
            await gateway.delete_port_mapping_range(10, 40, "TCP")
        assert loop.time() - before < 30 * 0.5 / 2  # not half a second for each port


@pytest.mark.waits
async def test_a_head_alone_is_an_answer_and_is_not_asked_for_again() -> None:
    async with (
        EmulatedGateway(quirks.head_alone, address=None, version=2) as router,
        PortMapper(location=router.location, timeout=20.0) as mapper,
    ):
        gateway = await mapper.get_gateway()
        for port in (10, 11, 12):
            await mapper.add_port_mapping(port, proto="TCP")
        await mapper.delete_port_mapping(10, "TCP")
        await gateway.delete_port_mapping_range(11, 12, "TCP")
        assert router.mappings == []
        assert [router.count(action) for action in ("AddPortMapping", DELETE, RANGE)] == [3, 1, 1]


@pytest.mark.parametrize("status", [401, 403])
async def test_who_may_not_delete_is_told_so_at_once(status: int) -> None:
    gateway = paper(1, 10)
    gateway.respond = lambda _: HttpReply(status, b"<html/>")
    with pytest.raises(RefusedError) as caught:
        await delete_mapping.delete_mapping(gateway.client(), MappingKey(10, "TCP"), Operation(10))
    assert caught.value.result is UPnPResult.NOT_AUTHORIZED
    assert gateway.actions == [DELETE]
