"""Asking a gateway what it holds: by key, or by walking through its table however that ends."""

from __future__ import annotations

import pytest

from aioigd import InvalidResponseError, PortMapping, RefusedError
from aioigd.core.calls import Operation
from aioigd.models import MappingKey
from aioigd.testing.wan_connection import ActionCall
from aioigd.upnp.list_mappings import find_mapping
from aioigd.upnp.wire.http_reply import HttpReply

from ..support import OURS, PaperGateway, Reaction, Respond, answer, fault

pytestmark = [pytest.mark.usefixtures("nothing_is_left"), pytest.mark.one_loop]

KEY = MappingKey(8080, "TCP")
LOOK, WALK = "GetSpecificPortMappingEntry", "GetGenericPortMappingEntry"
BLANK = answer(
    WALK,
    {
        "NewRemoteHost": "",
        "NewExternalPort": "",
        "NewProtocol": "",
        "NewInternalPort": "",
        "NewInternalClient": "",
        "NewEnabled": "0",
        "NewPortMappingDescription": "",
        "NewLeaseDuration": "0",
    },
)


def entry(port: int, *, client: str = OURS) -> PortMapping:
    return PortMapping(port, port, client, "TCP", f"port {port}")


def holding(*ports: int, respond: Respond = lambda _: None) -> PaperGateway:
    gateway = PaperGateway(respond)
    for port in ports:
        gateway.table.put(entry(port))
    return gateway


async def find(gateway: PaperGateway) -> PortMapping | None:
    return await find_mapping(gateway.client(), KEY, Operation(10))


def cannot_look(code: int = 401, walk: Respond = lambda _: None) -> Respond:
    return lambda call: fault(code) if call.action == LOOK else walk(call)


async def test_one_question_is_enough_where_the_gateway_can_answer_it() -> None:
    gateway = holding(80, 8080)
    assert await find(gateway) == entry(8080)
    assert gateway.actions == [LOOK]


@pytest.mark.parametrize("code", [713, 714, 730])
async def test_it_says_that_there_is_none(code: int) -> None:
    gateway = holding(respond=cannot_look(code))
    assert await find(gateway) is None
    assert gateway.actions == [LOOK]


@pytest.mark.parametrize("code", [401, 402, 501, 602, 606])
async def test_the_table_tells_where_the_gateway_cannot_look_for_one(code: int) -> None:
    gateway = holding(80, 8080, 90, respond=cannot_look(code))
    assert await find(gateway) == entry(8080)
    assert gateway.actions == [LOOK, WALK, WALK]


async def test_the_table_tells_where_the_answer_is_blank() -> None:
    gateway = holding(8080, respond=lambda call: answer(LOOK) if call.action == LOOK else None)
    assert await find(gateway) == entry(8080)


@pytest.mark.parametrize("code", [713, 714, 402, 501, 730, 699])
async def test_the_table_ends_with_whatever_code(code: int) -> None:
    def walk(call: ActionCall) -> Reaction | None:
        return fault(code) if call.arguments["NewPortMappingIndex"] == "3" else None

    gateway = holding(1, 2, 3, 8080, respond=cannot_look(walk=walk))
    assert await find(gateway) is None
    assert gateway.actions == [LOOK, *[WALK] * 4]


async def test_the_table_ends_where_its_last_entry_is_repeated() -> None:
    def walk(call: ActionCall) -> Reaction | None:
        index = min(int(call.arguments["NewPortMappingIndex"]), 2)
        return gateway.carry_out(ActionCall(call.service_type, WALK, {"NewPortMappingIndex": str(index)}, call.sender))

    gateway = holding(1, 2, 3, respond=cannot_look(walk=walk))
    assert await find(gateway) is None
    assert gateway.actions == [LOOK, *[WALK] * 4]


async def test_blank_entries_are_gaps() -> None:
    def walk(call: ActionCall) -> Reaction | None:
        index = int(call.arguments["NewPortMappingIndex"])
        if index % 20:
            return BLANK
        return gateway.carry_out(
            ActionCall(call.service_type, WALK, {"NewPortMappingIndex": str(index // 20)}, call.sender)
        )

    gateway = holding(1, 2, 8080, respond=cannot_look(walk=walk))
    assert await find(gateway) == entry(8080)


async def test_blank_entries_without_end_are_an_end() -> None:
    gateway = holding(respond=cannot_look(walk=lambda _: BLANK))
    assert await find(gateway) is None
    assert len(gateway.calls) < 50


async def test_a_table_without_end_is_not_walked_through() -> None:
    def walk(call: ActionCall) -> Reaction | None:
        port = 10_000 + int(call.arguments["NewPortMappingIndex"])
        made_up = {
            "NewExternalPort": str(port),
            "NewProtocol": "TCP",
            "NewInternalPort": "1",
            "NewInternalClient": OURS,
        }
        return answer(WALK, made_up)

    gateway = holding(respond=cannot_look(walk=walk))
    client = gateway.client()
    for budget in (64, 0, 0):
        gateway.calls.clear()
        with pytest.raises(InvalidResponseError, match=r"more than 64|is long"):
            await find_mapping(client, KEY, Operation(10))
        assert gateway.actions.count(WALK) == budget  # nor is it read again soon
        assert gateway.actions.count(LOOK) == 1


@pytest.mark.parametrize("code", [401, 602])
async def test_a_gateway_that_has_neither_action_cannot_tell(code: int) -> None:
    gateway = holding(8080, respond=cannot_look(walk=lambda _: fault(code)))
    with pytest.raises(RefusedError):
        await find(gateway)


@pytest.mark.parametrize("reply", [HttpReply(200, b"<html/>"), HttpReply(500, b"")])
async def test_a_gateway_that_answers_with_something_else_cannot_tell(reply: HttpReply) -> None:
    gateway = holding(8080, respond=lambda _: reply)
    with pytest.raises(InvalidResponseError):
        await find(gateway)
    assert gateway.actions == [LOOK, WALK]


async def test_the_same_port_of_the_other_protocol_is_another_entry() -> None:
    gateway = holding(respond=cannot_look())
    gateway.table.put(PortMapping(8080, 8080, OURS, "UDP"))
    assert await find(gateway) is None
