"""A mapping on a port that the gateway chooses: what is made is never made twice, and never left behind."""

from __future__ import annotations

import asyncio

import pytest

from aioigd import DeadlineError, IGDError, InvalidResponseError, PortMapping, RefusedError, UPnPResult
from aioigd.core.calls import Operation, Phase
from aioigd.errors import TransportError, UnsupportedError
from aioigd.models import MappingKey, MappingRequest, Terms
from aioigd.testing.wan_connection import ActionCall
from aioigd.upnp.add_any_mapping import AddAnyMapping
from aioigd.upnp.fallback import WEEK
from aioigd.upnp.soap_client import GatewayState
from aioigd.upnp.wire.http_reply import HttpReply

from ..support import CUT, OURS, THEIRS, UNREACHED, PaperGateway, Reaction, answer, fault, in_a_call

pytestmark = [pytest.mark.usefixtures("nothing_is_left"), pytest.mark.one_loop]

KEY = MappingKey(8080, "TCP")
REQUEST = MappingRequest(KEY, 8080, "", Terms("my server", 3600))
ANY = "AddAnyPortMapping"
PAGE = HttpReply(200, b"<html><body>Welcome</body></html>")


def put(gateway: PaperGateway, client: str, port: int = 8080, desc: str = "old") -> None:
    gateway.table.put(PortMapping(port, 8080, client, "TCP", desc))


def done_but(gateway: PaperGateway, *reactions: Reaction) -> None:
    """Let the gateway carry the first requests out, and say something else about them."""
    left = list(reactions)

    def respond(call: ActionCall) -> Reaction | None:
        if call.action == ANY and left:
            gateway.carry_out(call)
            return left.pop(0)
        return None

    gateway.respond = respond


async def add_any(gateway: PaperGateway, op: Operation | None = None, state: GatewayState | None = None) -> PortMapping:
    op = op or Operation(10)
    return await in_a_call(op, AddAnyMapping(gateway.client(state=state), op, REQUEST).run())


def paper() -> PaperGateway:
    return PaperGateway(version=2)


async def test_a_free_port_is_had_with_one_request() -> None:
    gateway = paper()
    assert await add_any(gateway) == PortMapping(8080, 8080, OURS, "TCP", "my server", 3600)
    assert gateway.actions == [ANY]


@pytest.mark.parametrize(
    ("reaction", "kind", "result"),
    [
        (fault(401), UnsupportedError, UPnPResult.INVALID_GATEWAY),
        (fault(602), UnsupportedError, UPnPResult.INVALID_GATEWAY),
        (HttpReply(400, b""), UnsupportedError, UPnPResult.INVALID_GATEWAY),
        (HttpReply(401, b"<html/>"), RefusedError, UPnPResult.NOT_AUTHORIZED),
        (HttpReply(403, b""), RefusedError, UPnPResult.NOT_AUTHORIZED),
    ],
)
async def test_what_no_other_terms_could_mend_takes_one_request(
    reaction: Reaction, kind: type[IGDError], result: UPnPResult
) -> None:
    gateway = paper()
    gateway.respond = lambda _: reaction
    with pytest.raises(kind) as caught:
        await add_any(gateway)
    assert caught.value.result is result
    assert gateway.actions == [ANY]


async def test_another_port_is_taken_where_it_belongs_to_somebody() -> None:
    gateway, state = paper(), GatewayState()
    put(gateway, THEIRS)
    mapping = await add_any(gateway, state=state)
    assert mapping.external_port == 8081
    again = Operation(10)
    assert await add_any(gateway, again, state) == mapping
    assert again.take_undo() is None  # it was there before


async def test_a_gateway_of_version_1_is_not_even_asked() -> None:
    gateway = PaperGateway()
    with pytest.raises(IGDError) as caught:
        await add_any(gateway)
    assert (caught.value.result, caught.value.error_code) == (UPnPResult.INVALID_GATEWAY, None)
    assert gateway.calls == []


@pytest.mark.parametrize("code", [401, 602])
async def test_a_gateway_without_the_action_is_the_wrong_one(code: int) -> None:
    gateway = paper()
    gateway.respond = lambda _: fault(code)
    with pytest.raises(RefusedError) as caught:
        await add_any(gateway)
    assert (caught.value.result, caught.value.error_code) == (UPnPResult.INVALID_GATEWAY, code)
    assert gateway.actions == [ANY]


async def test_a_refused_lease_is_done_without() -> None:
    gateway = paper()
    gateway.respond = lambda call: fault(725) if call.arguments["NewLeaseDuration"] != "0" else None
    assert (await add_any(gateway)).duration == WEEK  # what an IGD:2 makes of it


async def test_a_full_table_is_an_error_at_once() -> None:
    gateway, op = paper(), Operation(10)
    gateway.respond = lambda _: fault(728)
    with pytest.raises(RefusedError) as caught:
        await add_any(gateway, op)
    assert caught.value.result is UPnPResult.NO_PORT_MAPS_AVAILABLE
    assert op.phase is Phase.UNSENT
    assert gateway.actions == [ANY]


@pytest.mark.parametrize("lost", [CUT, DeadlineError("late")], ids=["cut", "late"])
@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
async def test_a_lost_reply_does_not_make_a_second_mapping(lost: IGDError, taken: bool) -> None:
    gateway = paper()
    if taken:
        put(gateway, THEIRS)
    done_but(gateway, lost)
    mapping = await add_any(gateway)
    assert mapping.external_port == 8080 + taken
    assert gateway.actions.count(ANY) == 1
    assert len(gateway.table) == 1 + taken


async def test_a_lost_request_is_sent_again_once_the_gateway_has_shown_that_it_holds_nothing() -> None:
    gateway, left = paper(), [CUT]
    gateway.respond = lambda call: left.pop() if call.action == ANY and left else None
    assert (await add_any(gateway)).external_port == 8080
    assert gateway.actions.count(ANY) == 2
    assert not any(gateway.repeatable[number] for number, action in enumerate(gateway.actions) if action == ANY)


async def test_what_a_call_before_has_made_is_not_taken_for_what_was_lost() -> None:
    gateway, state = paper(), GatewayState()
    put(gateway, THEIRS)
    first = await add_any(gateway, state=state)
    gateway.wan.table.put(PortMapping(8082, 1, THEIRS, "TCP"))
    left = [CUT]
    gateway.respond = lambda call: left.pop() if call.action == ANY and left else None
    assert await add_any(gateway, state=state) == first
    assert gateway.actions.count(ANY) == 3


@pytest.mark.parametrize("said", [PAGE, answer(ANY, {"NewReservedPort": "0"}), answer(ANY)], ids=["page", "0", "none"])
async def test_a_doubtful_success_is_settled_by_looking(said: HttpReply) -> None:
    gateway = paper()
    done_but(gateway, said)
    assert (await add_any(gateway)).external_port == 8080
    assert gateway.actions.count(ANY) == 1


async def test_a_doubtful_success_that_is_none_is_an_error() -> None:
    gateway = paper()
    gateway.respond = lambda call: PAGE if call.action == ANY else None
    with pytest.raises(InvalidResponseError, match=ANY):
        await add_any(gateway)
    assert gateway.actions.count(ANY) == 1


async def test_a_gateway_that_is_not_there_is_not_asked_what_it_holds() -> None:
    gateway = paper()
    gateway.respond = lambda _: UNREACHED
    with pytest.raises(TransportError):
        await add_any(gateway)
    assert set(gateway.actions) == {ANY}


async def test_a_gateway_that_cannot_tell_is_not_asked_twice_to_choose() -> None:
    gateway = paper()
    gateway.respond = lambda call: CUT if call.action == ANY else fault(401)
    with pytest.raises(TransportError):
        await add_any(gateway)
    assert gateway.actions.count(ANY) == 1


async def test_an_abandoned_choice_is_taken_back() -> None:
    gateway, op = paper(), Operation(10)
    gateway.respond = lambda _: op.unwanted()
    with pytest.raises(asyncio.CancelledError):
        await add_any(gateway, op)
    assert gateway.actions == [ANY, "DeletePortMapping"]
    assert len(gateway.table) == 0


async def test_a_choice_that_is_cancelled_before_its_reply_is_taken_back() -> None:
    gateway = paper()

    async def hang() -> Reaction:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    def respond(call: ActionCall) -> Reaction | object:
        if call.action == ANY:
            gateway.carry_out(call)
            return hang()
        return None

    gateway.respond = respond  # type: ignore[assignment]
    task = asyncio.ensure_future(add_any(gateway))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(gateway.table) == 0


async def test_a_silent_request_is_looked_for_and_not_repeated() -> None:
    gateway = paper()

    async def hang(call: ActionCall) -> Reaction:
        gateway.carry_out(call)
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    gateway.respond = lambda call: hang(call) if call.action == ANY else None
    mapping = await add_any(gateway, Operation(0.4))
    assert (mapping.external_port, gateway.actions.count(ANY)) == (8080, 1)
