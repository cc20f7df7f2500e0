"""What becomes of a mapping, for each thing that a gateway may say to it. The gateway is on paper, with no network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from aioigd import (
    Attempt,
    ConflictError,
    DeadlineError,
    IGDError,
    InvalidResponseError,
    PortMapping,
    RefusedError,
    UPnPResult,
)
from aioigd.core import calls
from aioigd.core.calls import Operation, Phase
from aioigd.errors import TransportError, UnsupportedError
from aioigd.models import MappingKey, MappingRequest, Terms
from aioigd.testing.errors import UPnPError
from aioigd.testing.wan_connection import ActionCall
from aioigd.upnp import add_mapping, retry
from aioigd.upnp import delete_mapping as delete_mapping_module
from aioigd.upnp.add_mapping import AddMapping
from aioigd.upnp.delete_mapping import delete_mapping
from aioigd.upnp.fallback import HOUR, WEEK, LeasePolicy, TermsPolicy
from aioigd.upnp.soap_client import GatewayState
from aioigd.upnp.wire.http_reply import HttpReply

from ..support import (
    CUT,
    OURS,
    THEIRS,
    UNREACHED,
    PaperGateway,
    Reaction,
    Respond,
    answer,
    fault,
    in_a_call,
    never_answered,
    once,
)

pytestmark = [pytest.mark.usefixtures("nothing_is_left"), pytest.mark.one_loop]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (add_mapping, retry):
        monkeypatch.setattr(module, "_FIRST_PAUSE", 0.0)
    for module in (add_mapping, delete_mapping_module):
        monkeypatch.setattr(module, "LATE_TABLE", 0.1)
        monkeypatch.setattr(module, "LOOK_PAUSE", 0.02)


KEY = MappingKey(8080, "TCP")
GRANTED = PortMapping(8080, 8080, OURS, "TCP", "my server", 3600)
ADD, DELETE = "AddPortMapping", "DeletePortMapping"
LOOK, WALK = "GetSpecificPortMappingEntry", "GetGenericPortMappingEntry"

EMPTY = HttpReply(200, b"")
PAGE = HttpReply(200, b"<html><body>Welcome</body></html>")
BROKEN = HttpReply(500, b"")
LATE = DeadlineError("late")


def request(desc: str = "my server", duration: int = 3600, *, client: str = "") -> MappingRequest:
    return MappingRequest(KEY, 8080, client, Terms(desc, duration))


def put(gateway: PaperGateway, client: str, *, desc: str = "old", port: int = 8080) -> PortMapping:
    mapping = PortMapping(8080, port, client, "TCP", desc)
    gateway.table.put(mapping)
    return mapping


def held(gateway: PaperGateway) -> PortMapping | None:
    entry = gateway.table.get(KEY)
    return None if entry is None else entry.mapping


def script(**reactions: list[Reaction | None]) -> Respond:
    """Give each request for an action the next reaction of its list; when that is used up, the gateway's own."""

    def respond(call: ActionCall) -> Reaction | None:
        return reactions[call.action].pop(0) if reactions.get(call.action) else None

    return respond


def done_but(gateway: PaperGateway, *reactions: Reaction, action: str = ADD) -> None:
    """Let the gateway carry the first requests out, and say something else about them."""
    left = list(reactions)

    def respond(call: ActionCall) -> Reaction | None:
        if call.action == action and left:
            gateway.carry_out(call)
            return left.pop(0)
        return None

    gateway.respond = respond


async def add(
    gateway: PaperGateway,
    asked: MappingRequest | None = None,
    *,
    overwrite: bool = True,
    verify: bool = False,
    timeout: float = 10,
    state: GatewayState | None = None,
    op: Operation | None = None,
) -> PortMapping:
    op = op or Operation(timeout)
    client = gateway.client(state=state)
    return await in_a_call(op, AddMapping(client, op, asked or request(), overwrite=overwrite, verify=verify).run())


async def delete(gateway: PaperGateway, op: Operation | None = None) -> None:
    await delete_mapping(gateway.client(), KEY, op or Operation(10))


def has_undo(op: Operation) -> bool:
    return op.take_undo() is not None


# Granted


async def test_what_is_granted_at_once_takes_one_request() -> None:
    gateway = PaperGateway()
    assert await add(gateway) == GRANTED
    assert gateway.actions == [ADD]
    assert held(gateway) == GRANTED


async def test_the_request_has_all_eight_arguments_in_their_order() -> None:
    gateway = PaperGateway()
    await add(gateway)
    assert list(gateway.calls[0].arguments.items()) == [
        ("NewRemoteHost", ""),
        ("NewExternalPort", "8080"),
        ("NewProtocol", "TCP"),
        ("NewInternalPort", "8080"),
        ("NewInternalClient", OURS),
        ("NewEnabled", "1"),
        ("NewPortMappingDescription", "my server"),
        ("NewLeaseDuration", "3600"),
    ]


async def test_another_client_is_mapped_to_where_that_is_asked_for() -> None:
    gateway = PaperGateway()
    assert (await add(gateway, request(client=THEIRS))).internal_client == THEIRS


async def test_an_answer_with_another_status_is_looked_into() -> None:
    gateway = PaperGateway()
    done_but(gateway, answer(ADD, status=500))
    assert await add(gateway) == GRANTED
    assert gateway.actions == [ADD, LOOK]


# Refused


@pytest.mark.parametrize("code", [401, 403, 713, 715, 716, 724, 726, 727, 728, 729, 730, 732, 733])
async def test_a_hopeless_refusal_takes_one_request(code: int) -> None:
    gateway = PaperGateway(script(AddPortMapping=[fault(code)]))
    with pytest.raises(RefusedError) as caught:
        await add(gateway)
    assert caught.value.error_code == code
    assert gateway.actions == [ADD]


async def test_a_refused_lease_is_given_up_and_that_is_remembered() -> None:
    gateway = PaperGateway(lambda call: fault(725) if call.arguments.get("NewLeaseDuration", "0") != "0" else None)
    state = GatewayState()
    assert (await add(gateway, state=state)).duration == 0
    assert gateway.terms() == [("my server", "3600"), ("my server", "0")]
    assert state.terms_policy == TermsPolicy(lease=LeasePolicy.NONE)
    assert (await add(gateway, request("another"), state=state)).duration == 0
    assert gateway.terms()[2:] == [("another", "0")]


@pytest.mark.parametrize("reaction", [fault(402), fault(501), fault(None), BROKEN, PAGE, EMPTY], ids=repr)
async def test_whatever_is_said_about_a_lease_that_is_not_wanted_it_is_given_up(reaction: HttpReply) -> None:
    gateway = PaperGateway(
        lambda call: reaction if call.action == ADD and call.arguments["NewLeaseDuration"] != "0" else None
    )
    assert (await add(gateway)).duration == 0
    assert gateway.terms() == [("my server", "3600"), ("my server", "0")]


async def test_what_others_learn_meanwhile_is_heeded_by_those_who_wait() -> None:
    gateway = PaperGateway(lambda call: fault(725) if call.arguments.get("NewLeaseDuration", "0") != "0" else None)
    client = gateway.client()
    asked = [request()._replace(key=MappingKey(port, "TCP")) for port in range(1, 101)]
    await asyncio.gather(
        *(AddMapping(client, Operation(10), each, overwrite=True, verify=False).run() for each in asked)
    )
    assert len(gateway.calls) <= 100 + 8
    assert len(gateway.table) == 100


async def test_where_nothing_helps_the_last_refusal_is_raised() -> None:
    gateway = PaperGateway(lambda call: fault(501) if call.action == ADD else None)
    with pytest.raises(RefusedError, match="AddPortMapping") as caught:
        await add(gateway, request("Ä", 3600))
    assert caught.value.error_code == 501
    assert len(gateway.terms()) == len(set(gateway.terms())) == 6
    assert gateway.actions[6:] == [LOOK]  # is something in the way? no


async def test_no_control_url_there_is_not_a_matter_of_terms() -> None:
    gateway = PaperGateway(script(AddPortMapping=[HttpReply(404, b"not found")]))
    with pytest.raises(InvalidResponseError) as caught:
        await add(gateway)
    assert caught.value.status == 404
    assert gateway.actions == [ADD]


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("body", [b"", b"<html>Unauthorized</html>", fault(None).body])
@pytest.mark.parametrize("overwrite", [True, False])
async def test_who_has_no_right_to_ask_is_told_so_at_once(status: int, body: bytes, overwrite: bool) -> None:
    gateway = PaperGateway(lambda _: HttpReply(status, body))
    op = Operation(10)
    with pytest.raises(RefusedError, match=rf"AddPortMapping \(HTTP status {status}\)") as caught:
        await add(gateway, overwrite=overwrite, op=op)
    assert (caught.value.result, caught.value.error_code) == (UPnPResult.NOT_AUTHORIZED, None)
    assert gateway.actions == [*([] if overwrite else [LOOK]), ADD]
    assert op.attempts[-1].result is UPnPResult.NOT_AUTHORIZED
    assert not has_undo(op)


async def test_a_code_says_more_than_the_status() -> None:
    gateway = PaperGateway(script(AddPortMapping=[fault(725, 401)]))
    assert (await add(gateway)).duration == 0


@pytest.mark.parametrize("code", [401, 602])
async def test_an_action_that_the_gateway_does_not_have_is_asked_for_once(code: int) -> None:
    gateway = PaperGateway(lambda _: fault(code))
    with pytest.raises(UnsupportedError) as caught:
        await add(gateway)
    assert caught.value.error_code == code
    assert gateway.actions == [ADD]


async def test_a_bad_request_may_be_an_argument_or_the_action_so_the_plainest_terms_are_tried() -> None:
    gateway = PaperGateway(script(AddPortMapping=[HttpReply(400, b"")]))
    assert await add(gateway) == replace(GRANTED, desc="", duration=0)
    assert gateway.terms() == [("my server", "3600"), ("", "0")]
    gateway = PaperGateway(lambda _: HttpReply(400, b"<html>Bad Request</html>"))
    with pytest.raises(UnsupportedError, match="HTTP status 400"):
        await add(gateway)
    assert gateway.actions.count(ADD) == 2
    assert len(gateway.calls) <= 6
    gateway = PaperGateway(lambda _: HttpReply(400, b""))
    with pytest.raises(UnsupportedError):
        await add(gateway, request("", 0))
    assert gateway.actions.count(ADD) == 1


# In the way of another


async def test_a_conflict_is_overwritten_once() -> None:
    gateway = PaperGateway()
    put(gateway, THEIRS)
    assert await add(gateway) == GRANTED
    assert gateway.actions == [ADD, LOOK, DELETE, ADD]
    assert held(gateway) == GRANTED


async def test_a_conflict_that_stays_is_reported() -> None:
    gateway = PaperGateway(lambda call: fault(718) if call.action == ADD else None)
    put(gateway, THEIRS)
    with pytest.raises(RefusedError) as caught:
        await add(gateway)
    assert caught.value.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING
    assert gateway.actions == [ADD, LOOK, DELETE, ADD, ADD, LOOK, ADD]  # the last one to put back what was there
    assert gateway.terms()[2] == ("my server TCP 8080", "3600")


async def test_a_mapping_that_may_not_be_deleted_stays() -> None:
    gateway = PaperGateway(script(DeletePortMapping=[fault(606)] * 5))
    theirs = put(gateway, THEIRS)
    with pytest.raises(RefusedError) as caught:
        await add(gateway)
    assert caught.value.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING
    assert gateway.actions.count(DELETE) == 1
    assert held(gateway) == theirs


async def test_a_conflict_that_has_gone_by_itself_is_no_reason_to_give_up() -> None:
    gateway = PaperGateway(script(AddPortMapping=[fault(718)]))
    assert await add(gateway) == GRANTED
    assert gateway.actions == [ADD, LOOK, ADD]


async def test_a_conflict_with_a_description_is_settled_by_another_description() -> None:
    gateway = PaperGateway(
        lambda call: fault(718) if call.arguments.get("NewPortMappingDescription") == "my server" else None
    )
    assert (await add(gateway)).desc == "my server TCP 8080"


@pytest.mark.parametrize("code", [402, 501, None])
async def test_a_vague_refusal_where_another_mapping_is_in_the_way_is_a_conflict(code: int | None) -> None:
    gateway = PaperGateway()
    gateway.respond = lambda call: fault(code) if call.action == ADD and held(gateway) else None
    put(gateway, THEIRS)
    assert (await add(gateway, request("x", 0))).internal_client == OURS
    assert gateway.actions.count(DELETE) == 1


async def test_not_authorized_with_nothing_in_the_way_is_reported_after_one_look() -> None:
    gateway = PaperGateway(script(AddPortMapping=[fault(606)]))
    with pytest.raises(RefusedError) as caught:
        await add(gateway)
    assert caught.value.result is UPnPResult.NOT_AUTHORIZED
    assert gateway.actions == [ADD, LOOK]


async def test_our_own_mapping_without_an_end_need_not_be_made_again() -> None:
    gateway = PaperGateway(lambda call: fault(501) if call.action == ADD else None)
    ours = put(gateway, OURS)
    assert await add(gateway) == ours
    assert held(gateway) == ours
    assert DELETE not in gateway.actions


async def test_our_own_mapping_that_will_end_is_deleted_where_it_cannot_be_prolonged() -> None:
    gateway = PaperGateway()
    gateway.respond = lambda call: fault(501) if call.action == ADD and held(gateway) else None
    gateway.table.put(PortMapping(8080, 8080, OURS, "TCP", "my server", 60))
    assert await add(gateway) == GRANTED
    assert gateway.actions.count(DELETE) == 1


# Doubtful success


@pytest.mark.parametrize("reaction", [EMPTY, PAGE, BROKEN, HttpReply(0, b"OK")], ids=repr)
async def test_a_doubtful_success_is_read_back(reaction: HttpReply) -> None:
    gateway = PaperGateway()
    done_but(gateway, reaction)
    assert await add(gateway) == GRANTED
    assert gateway.actions == [ADD, LOOK]


async def test_a_gateway_that_never_answers_an_addition_is_asked_what_it_holds() -> None:
    gateway = PaperGateway()
    done_but(gateway, *[CUT] * 6)
    assert await add(gateway) == GRANTED
    assert gateway.actions == [ADD] * 6 + [LOOK]


async def test_a_gateway_that_never_answers_an_addition_and_does_not_hold_it_is_reported() -> None:
    gateway = PaperGateway(script(AddPortMapping=[CUT] * 99))
    with pytest.raises(TransportError):
        await add(gateway)
    assert (
        gateway.terms() == [("my server", "3600")] * 6 + [("my server", "0")] * 2 + [("", "3600")] * 2 + [("", "0")] * 2
    )


async def test_a_reply_over_a_cap_is_doubtful_too() -> None:
    gateway = PaperGateway()
    done_but(gateway, InvalidResponseError("a reply of over 262144 bytes", status=200))
    assert await add(gateway) == GRANTED
    assert gateway.actions == [ADD, LOOK]


async def test_a_doubtful_success_of_which_nothing_is_there_is_none() -> None:
    gateway = PaperGateway(lambda call: PAGE if call.action == ADD else None)
    with pytest.raises(InvalidResponseError, match="AddPortMapping: a reply without") as caught:
        await add(gateway, request("x", 0))
    assert caught.value.result is UPnPResult.INVALID_RESPONSE
    assert held(gateway) is None


async def test_a_doubtful_success_is_none_where_the_gateway_cannot_tell() -> None:
    gateway = PaperGateway(lambda call: PAGE if call.action == ADD else fault(401))
    with pytest.raises(InvalidResponseError, match="AddPortMapping"):
        await add(gateway, request("x", 0))
    leases = ["0", str(WEEK), str(HOUR)]
    assert sorted(gateway.terms()) == sorted((desc, lease) for desc in ("x", "") for lease in leases)


async def test_a_doubtful_success_with_another_mapping_there_overwrites_it() -> None:
    gateway = PaperGateway()
    gateway.respond = lambda call: PAGE if call.action == ADD and held(gateway) else None
    put(gateway, THEIRS)
    assert (await add(gateway, request("x", 0))).internal_client == OURS
    assert gateway.actions.count(DELETE) == 1


def shown_late(adds: Callable[[ActionCall], Reaction]) -> Respond:
    """Answer adds so, and say for a moment that there is no such mapping, whatever is there."""
    shown_from = asyncio.get_running_loop().time() + 0.05

    def respond(call: ActionCall) -> Reaction | None:
        if call.action == ADD:
            return adds(call)
        return fault(714) if call.action == LOOK and asyncio.get_running_loop().time() < shown_from else None

    return respond


@pytest.mark.parametrize("reaction", [EMPTY, PAGE, HttpReply(204, b"")], ids=repr)
async def test_a_doubtful_success_that_is_shown_late_is_one(reaction: HttpReply) -> None:
    gateway = PaperGateway()

    def adds(call: ActionCall) -> Reaction:
        gateway.carry_out(call)
        return reaction

    gateway.respond = shown_late(adds)
    granted = await add(gateway, request("x", 0))
    assert granted == held(gateway)


@pytest.mark.parametrize("overwrite", [True, False])
async def test_what_a_lost_request_has_made_is_no_conflict_where_the_table_shows_it_late(overwrite: bool) -> None:
    gateway = PaperGateway()

    def adds(call: ActionCall) -> Reaction:
        if held(gateway) is not None:
            return fault(718)
        gateway.carry_out(call)
        return CUT

    gateway.respond = shown_late(adds)
    assert await add(gateway, overwrite=overwrite) == held(gateway) == GRANTED


async def test_a_conflict_behind_a_lost_request_that_was_with_another_is_one() -> None:
    gateway = PaperGateway()

    def adds(call: ActionCall) -> Reaction:
        if held(gateway) is not None:
            return fault(718)
        put(gateway, THEIRS)
        return CUT

    gateway.respond = shown_late(adds)
    with pytest.raises(RefusedError) as caught:
        await add(gateway, overwrite=False)
    assert caught.value.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING
    left = held(gateway)
    assert left is not None
    assert left.internal_client == THEIRS


async def test_a_doubtful_success_that_is_never_shown_is_taken_back() -> None:
    gateway = PaperGateway()
    done_but(gateway, *[EMPTY] * 20)
    inner = gateway.respond
    hidden = True
    gateway.respond = lambda call: fault(714) if call.action == LOOK and hidden else inner(call)
    op = Operation(10)
    with pytest.raises(InvalidResponseError):
        await add(gateway, request("x", 0), op=op)
    hidden = False
    assert op.is_to_be_undone
    await op.roll_back()
    assert held(gateway) is None


# Verified


async def test_verified_is_what_the_gateway_says_it_holds() -> None:
    gateway = PaperGateway()

    def rewrite(call: ActionCall) -> Reaction | None:
        if call.action != ADD:
            return None
        arguments = {**call.arguments, "NewLeaseDuration": "86400", "NewPortMappingDescription": "my ser"}
        return gateway.carry_out(ActionCall(call.service_type, ADD, arguments, OURS))

    gateway.respond = rewrite
    assert await add(gateway, verify=True) == PortMapping(8080, 8080, OURS, "TCP", "my ser", 86400)
    assert gateway.actions == [ADD, LOOK]


@pytest.mark.waits
async def test_verified_is_no_false_success() -> None:
    gateway = PaperGateway(lambda call: answer(ADD) if call.action == ADD else None)
    with pytest.raises(IGDError) as caught:
        await add(gateway, request("x", 0), verify=True)
    assert caught.value.result is UPnPResult.PORT_MAPPING_NOT_FOUND


async def test_verified_a_mapping_that_is_switched_off_is_none_and_is_removed() -> None:
    gateway = PaperGateway()

    def switched_off(call: ActionCall) -> Reaction | None:
        if call.action != ADD:
            return None
        assert call.arguments["NewEnabled"] == "1"
        arguments = {**call.arguments, "NewEnabled": "0"}
        return gateway.carry_out(ActionCall(call.service_type, ADD, arguments, OURS))

    gateway.respond = switched_off
    with pytest.raises(IGDError, match="switched it off") as caught:
        await add(gateway, request("x", 0), verify=True)
    assert caught.value.result is UPnPResult.PORT_MAPPING_NOT_FOUND
    assert held(gateway) is None


async def test_verified_a_false_success_for_a_lease_is_mended() -> None:
    gateway = PaperGateway(lambda call: answer(ADD) if call.arguments.get("NewLeaseDuration", "0") != "0" else None)
    assert await add(gateway, verify=True) == PortMapping(8080, 8080, OURS, "TCP", "my server", 0)


@pytest.mark.waits
async def test_verified_another_hosts_mapping_is_not_taken_for_ours() -> None:
    gateway = PaperGateway(lambda call: answer(ADD) if call.action == ADD else None)
    put(gateway, THEIRS)
    with pytest.raises(IGDError) as caught:
        await add(gateway, request("x", 0), verify=True)
    assert caught.value.result is UPnPResult.PORT_MAPPING_NOT_FOUND
    assert gateway.actions.count(DELETE) == 1


async def test_verified_what_is_granted_is_granted_where_the_gateway_cannot_tell() -> None:
    gateway = PaperGateway(lambda call: fault(401) if call.action in (LOOK, WALK) else None)
    assert await add(gateway, verify=True) == GRANTED
    assert gateway.actions == [ADD, LOOK, WALK]


ODD_TABLES = {
    "port 0": {"NewInternalPort": "0"},
    "a name": {"NewInternalClient": "desktop.lan"},
    "a name and port 0": {"NewInternalClient": "desktop.lan", "NewInternalPort": "0"},
    "no client": {"NewInternalClient": ""},
    "zeros in front": {"NewInternalClient": "192.168.001.002", "NewInternalPort": "08080"},
    "a mapped address": {"NewInternalClient": f"::ffff:{OURS}"},
}


def showing(**changes: str) -> PaperGateway:
    """A gateway that shows its mappings otherwise than they are."""
    gateway = PaperGateway()

    def respond(call: ActionCall) -> Reaction | None:
        if call.action not in (LOOK, WALK):
            return None
        try:
            return answer(call.action, {**gateway.wan.invoke(call), **changes})
        except UPnPError:
            return None

    gateway.respond = respond
    return gateway


@pytest.mark.parametrize("name", ODD_TABLES)
async def test_verified_what_cannot_tell_is_no_other_host(name: str) -> None:
    gateway = showing(**ODD_TABLES[name])
    assert await add(gateway, verify=True) == GRANTED
    assert gateway.actions == [ADD, LOOK]


@pytest.mark.parametrize("name", ODD_TABLES)
async def test_without_overwriting_what_cannot_tell_is_no_conflict(name: str) -> None:
    gateway = showing(**ODD_TABLES[name])
    put(gateway, OURS)
    assert await add(gateway, overwrite=False) == GRANTED


@pytest.mark.parametrize("name", ODD_TABLES)
async def test_what_cannot_tell_is_taken_back_all_the_same(name: str) -> None:
    gateway = showing(**ODD_TABLES[name])
    await abandon_during(gateway, ADD)
    assert held(gateway) is None


@pytest.mark.parametrize("name", ["a name", "no client"])
@pytest.mark.waits
async def test_what_cannot_tell_and_is_described_otherwise_is_not_taken_for_what_was_lost(name: str) -> None:
    gateway = showing(**ODD_TABLES[name])
    theirs = put(gateway, THEIRS)
    inner = gateway.respond
    gateway.respond = lambda call: CUT if call.action == ADD else inner(call)
    with pytest.raises(TransportError):
        await failed(gateway)
    assert held(gateway) == theirs


def late(gateway: PaperGateway, looks: int) -> None:
    """Let the table show nothing for so many looks."""
    left = [fault(714)] * looks
    gateway.respond = lambda call: left.pop() if call.action == LOOK and left else None


async def failed(gateway: PaperGateway, asked: MappingRequest | None = None, **how: bool) -> PortMapping:
    """Add, and undo what was done if that fails, as a call does."""
    op = Operation(10)
    try:
        return await add(gateway, asked, op=op, **how)  # type: ignore[arg-type]
    except IGDError:
        if op.is_to_be_undone:
            await op.roll_back()
        raise


@pytest.mark.waits
async def test_verified_a_table_may_be_late() -> None:
    gateway = PaperGateway()
    late(gateway, 3)
    assert await add(gateway, verify=True) == GRANTED
    assert gateway.actions == [ADD, LOOK, LOOK, LOOK, LOOK]


@pytest.mark.waits
async def test_verified_what_is_never_shown_fails_and_is_taken_back() -> None:
    gateway = PaperGateway()
    late(gateway, 1000)
    with pytest.raises(IGDError) as caught:
        await failed(gateway, request("", 0), verify=True)
    assert caught.value.result is UPnPResult.PORT_MAPPING_NOT_FOUND
    assert held(gateway) is None


async def test_verified_what_was_granted_is_granted_where_the_deadline_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(add_mapping, "LATE_TABLE", 60.0)
    gateway = PaperGateway()
    loop = asyncio.get_running_loop()
    until = loop.time() + 0.1

    def respond(call: ActionCall) -> Reaction | None:
        return (LATE if loop.time() >= until else fault(714)) if call.action == LOOK else None

    gateway.respond = respond
    assert await add(gateway, verify=True, timeout=0.1) == GRANTED
    assert gateway.actions.count(ADD) == 1
    assert held(gateway) == GRANTED


async def test_verified_a_lost_look_is_no_failure() -> None:
    gateway = PaperGateway(lambda call: UNREACHED if call.action == LOOK else None)
    assert await add(gateway, verify=True) == GRANTED


def one_entry_per_client(gateway: PaperGateway) -> None:
    """Let the gateway say yes to a mapping of a port that another host has, and go on forwarding to that one."""

    def respond(call: ActionCall) -> Reaction | None:
        there = held(gateway)
        is_hidden = there is not None and there.internal_client != call.arguments.get("NewInternalClient")
        return answer(ADD) if call.action == ADD and is_hidden else None

    gateway.respond = respond


async def test_verified_another_clients_entry_is_removed_where_that_is_wanted() -> None:
    gateway = PaperGateway()
    put(gateway, THEIRS)
    one_entry_per_client(gateway)
    assert await add(gateway, verify=True) == GRANTED
    assert held(gateway) == GRANTED


async def test_verified_another_clients_entry_is_a_conflict_where_it_is_to_stay() -> None:
    gateway = PaperGateway()
    one_entry_per_client(gateway)
    inner, seen = gateway.respond, once()

    def respond(call: ActionCall) -> Reaction | None:
        if call.action == ADD and seen(call):
            put(gateway, THEIRS)
        return inner(call)  # type: ignore[return-value]

    gateway.respond = respond
    with pytest.raises(ConflictError, match=THEIRS):
        await failed(gateway, overwrite=False, verify=True)
    there = held(gateway)
    assert there is not None
    assert there.internal_client == THEIRS


# A limit that nobody asked for


@pytest.mark.parametrize(("asked", "lasts"), [(0, WEEK), (60, 60)])
async def test_an_igd_2_makes_a_week_of_a_mapping_without_a_limit(asked: int, lasts: int) -> None:
    gateway = PaperGateway(version=2)
    assert (await add(gateway, request("x", asked))).duration == lasts


async def test_what_another_gateway_makes_of_it_is_known_once_it_was_read_back() -> None:
    gateway, state = PaperGateway(), GatewayState()
    gateway.respond = lambda call: (
        gateway.carry_out(replace(call, arguments={**call.arguments, "NewLeaseDuration": "86399"}))
        if call.action == ADD and call.arguments["NewLeaseDuration"] == "0"
        else None
    )
    assert (await add(gateway, request("x", 0), state=state)).duration == 0
    state.ours.clear()
    assert (await add(gateway, request("x", 0), state=state, verify=True)).duration == 86_399
    assert (await add(gateway, request("x", 0), state=state)).duration == 86_400
    assert (await add(gateway, request("x", 60), state=state)).duration == 60


# What was deleted in vain


def refuses_others(gateway: PaperGateway, code: int = 718) -> None:
    """Let it map ports to the host that asks, and to no other."""
    gateway.respond = lambda call: (
        fault(code) if call.action == ADD and call.arguments["NewInternalClient"] != OURS else None
    )


async def test_a_refused_mapping_for_another_host_leaves_what_was_there() -> None:
    gateway = PaperGateway()
    gateway.table.put(PortMapping(8080, 9090, OURS, "TCP", "mine", 600))
    refuses_others(gateway)
    with pytest.raises(ConflictError):
        await failed(gateway, request(client="10.9.0.50"))
    there = held(gateway)
    assert there is not None
    assert (there.internal_client, there.internal_port, there.desc) == (OURS, 9090, "mine")
    assert 590 <= there.duration <= 600  # the rest of its time


async def test_a_refusal_that_is_about_the_host_deletes_nothing() -> None:
    gateway = PaperGateway()
    mine = put(gateway, OURS, port=9090)
    refuses_others(gateway, 606)
    with pytest.raises(RefusedError) as caught:
        await failed(gateway, request(client="10.9.0.50"))
    assert caught.value.result is UPnPResult.NOT_AUTHORIZED
    assert DELETE not in gateway.actions
    assert held(gateway) == mine


async def test_what_cannot_be_put_back_is_named() -> None:
    gateway = PaperGateway(lambda call: fault(718) if call.action == ADD else None)
    put(gateway, THEIRS, desc="the camera")
    with pytest.raises(ConflictError, match=f"TCP port 8080 to {THEIRS} port 8080.*the camera.*cannot be put back"):
        await failed(gateway)
    assert held(gateway) is None


async def test_where_nobody_waits_any_more_what_was_deleted_is_put_back() -> None:
    gateway = PaperGateway()
    theirs = put(gateway, THEIRS)
    await abandon_during(gateway, DELETE)
    assert held(gateway) == theirs


@pytest.mark.waits
async def test_where_the_second_add_is_lost_what_was_deleted_is_put_back() -> None:
    gateway = PaperGateway()
    theirs = put(gateway, THEIRS)
    gateway.respond = script(AddPortMapping=[fault(718), *[CUT] * 12])
    with pytest.raises(TransportError):
        await failed(gateway)
    assert held(gateway) == theirs


async def test_what_cannot_be_read_is_deleted_only_if_it_is_said_to_be_in_the_way() -> None:
    for code, deletions in ((718, 1), (501, 0)):
        gateway = PaperGateway(
            lambda call, code=code: (
                fault(code) if call.action == ADD else fault(401) if call.action in (LOOK, WALK) else None
            )  # type: ignore[misc]
        )
        put(gateway, THEIRS)
        with pytest.raises(RefusedError):
            await failed(gateway)
        assert gateway.actions.count(DELETE) == deletions


# Silence


async def test_a_silent_request_is_looked_for_before_anything_is_sent_again() -> None:
    gateway = PaperGateway()

    async def hang(call: ActionCall) -> Reaction:
        gateway.carry_out(call)
        return await never_answered()

    gateway.respond = lambda call: hang(call) if call.action == ADD else None
    assert await add(gateway, timeout=0.4) == GRANTED
    assert gateway.actions == [ADD, LOOK]


@pytest.mark.parametrize(("asked", "then"), [(request("", 0), ("", "0")), (request(), ("my server", "0"))])
@pytest.mark.waits
async def test_a_silent_request_of_which_nothing_is_there_is_sent_again(
    asked: MappingRequest, then: tuple[str, str]
) -> None:
    """With less in it, if there is anything in it that the gateway may dislike."""
    gateway, first = PaperGateway(), once()
    gateway.respond = lambda call: never_answered() if call.action == ADD and first(call) else None
    assert await add(gateway, asked, timeout=0.4) == held(gateway)
    assert gateway.actions == [ADD, LOOK, ADD]
    assert gateway.terms()[1] == then


async def test_a_reply_that_comes_beside_the_look_counts() -> None:
    gateway = PaperGateway()

    async def slowly(call: ActionCall) -> Reaction:
        await asyncio.sleep(0.3)
        return gateway.carry_out(call)

    gateway.respond = slowly
    op = Operation(0.5)
    assert await add(gateway, op=op) == GRANTED
    assert gateway.actions == [ADD, LOOK]
    assert [attempt.result for attempt in op.attempts] == [UPnPResult.HTTP_ERROR, UPnPResult.SUCCESS]


async def test_what_is_left_of_an_older_mapping_is_not_taken_for_a_silent_request() -> None:
    gateway, first = PaperGateway(), once()
    gateway.table.put(PortMapping(8080, 8080, OURS, "TCP", "my server", 60))
    gateway.respond = lambda call: never_answered() if call.action == ADD and first(call) else None
    assert await add(gateway, timeout=0.4) == replace(GRANTED, duration=0) == held(gateway)


async def test_a_lost_request_that_may_have_been_done_before_a_refusal_is_taken_back() -> None:
    gateway = PaperGateway()
    left: list[Reaction] = [CUT, fault(727)]

    def respond(call: ActionCall) -> Reaction | None:
        if call.action == ADD and left:
            gateway.carry_out(call)
            return left.pop(0)
        return None

    gateway.respond = respond
    with pytest.raises(RefusedError):
        await failed(gateway)
    assert held(gateway) is None


async def test_what_could_not_be_reached_leaves_nothing_to_look_for() -> None:
    gateway = PaperGateway(lambda call: UNREACHED)
    op = Operation(10)
    with pytest.raises(TransportError):
        await add(gateway, op=op)
    assert not op.is_to_be_undone


# Without overwriting


async def test_without_overwriting_the_gateway_is_asked_first() -> None:
    gateway = PaperGateway()
    assert await add(gateway, overwrite=False) == GRANTED
    assert gateway.actions == [LOOK, ADD]


@pytest.mark.parametrize(("client", "port"), [(THEIRS, 8080), (OURS, 9090)])
async def test_without_overwriting_another_mapping_is_left_alone(client: str, port: int) -> None:
    gateway = PaperGateway()
    other = put(gateway, client, port=port)
    with pytest.raises(IGDError, match=f"is mapped to {client} port {port} already") as caught:
        await add(gateway, overwrite=False)
    assert caught.value.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING
    assert gateway.actions == [LOOK]
    assert held(gateway) == other


async def test_without_overwriting_our_own_mapping_is_refreshed() -> None:
    gateway = PaperGateway()
    put(gateway, OURS, desc="older")
    assert await add(gateway, overwrite=False) == GRANTED
    assert held(gateway) == GRANTED


async def test_without_overwriting_a_conflict_that_only_the_gateway_sees_is_reported() -> None:
    gateway = PaperGateway(lambda call: fault(718) if call.action == ADD else None)
    with pytest.raises(RefusedError) as caught:
        await add(gateway, overwrite=False)
    assert caught.value.error_code == 718
    assert gateway.actions == [LOOK, ADD]


async def test_without_overwriting_nothing_is_ever_deleted() -> None:
    for code in (402, 501, 606, 718, None):
        gateway = PaperGateway(lambda call, code=code: fault(code) if call.action == ADD else None)  # type: ignore[misc]
        with pytest.raises(IGDError):
            await add(gateway, overwrite=False)
        assert DELETE not in gateway.actions


async def test_without_overwriting_a_gateway_that_cannot_tell_is_asked_all_the_same() -> None:
    gateway = PaperGateway(lambda call: fault(401) if call.action in (LOOK, WALK) else None)
    assert await add(gateway, overwrite=False) == GRANTED
    assert gateway.actions == [LOOK, WALK, ADD]


@pytest.mark.parametrize("loss", [CUT, LATE], ids=["cut", "late"])
async def test_without_overwriting_a_lost_request_that_had_arrived_is_not_repeated(loss: Exception) -> None:
    gateway = PaperGateway()
    done_but(gateway, loss)
    assert await add(gateway, overwrite=False) == GRANTED
    assert gateway.actions == [LOOK, ADD, LOOK]
    assert gateway.repeatable[1] is False


@pytest.mark.parametrize("loss", [CUT, LATE], ids=["cut", "late"])
async def test_without_overwriting_a_lost_request_is_repeated_on_the_same_terms(loss: Exception) -> None:
    gateway = PaperGateway(script(AddPortMapping=[loss, loss]))
    state = GatewayState()
    assert await add(gateway, overwrite=False, state=state) == GRANTED
    assert gateway.actions == [LOOK, ADD, LOOK, ADD, LOOK, ADD]
    assert state.terms_policy == TermsPolicy()  # a loss is no refusal, and teaches nothing


async def test_without_overwriting_a_mapping_that_came_up_meanwhile_is_left_alone() -> None:
    gateway = PaperGateway()

    def respond(call: ActionCall) -> Reaction | None:
        if call.action != ADD:
            return None
        put(gateway, THEIRS)
        return CUT

    gateway.respond = respond
    with pytest.raises(RefusedError) as caught:
        await add(gateway, overwrite=False)
    assert caught.value.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING
    assert gateway.actions == [LOOK, ADD, LOOK]


async def test_without_overwriting_a_lost_refresh_is_repeated() -> None:
    gateway = PaperGateway(script(AddPortMapping=[CUT]))
    put(gateway, OURS, desc="older")
    assert await add(gateway, overwrite=False) == GRANTED
    assert held(gateway) == GRANTED


async def test_without_overwriting_losses_do_not_go_on_for_ever() -> None:
    gateway = PaperGateway(script(AddPortMapping=[CUT] * 50))
    with pytest.raises(TransportError):
        await add(gateway, overwrite=False)
    assert gateway.actions.count(ADD) == 12
    assert len(set(gateway.terms())) == 4


async def test_without_overwriting_a_lost_request_is_not_repeated_where_the_gateway_cannot_tell() -> None:
    gateway = PaperGateway(
        script(
            AddPortMapping=[CUT],
            GetSpecificPortMappingEntry=[fault(401)] * 9,
            GetGenericPortMappingEntry=[fault(401)] * 9,
        )
    )
    with pytest.raises(TransportError):
        await add(gateway, overwrite=False)
    assert gateway.actions == [LOOK, WALK, ADD, LOOK, WALK]


async def test_without_overwriting_a_gateway_that_cannot_be_reached_is_reported() -> None:
    gateway = PaperGateway(script(AddPortMapping=[UNREACHED] * 9))
    with pytest.raises(TransportError):
        await add(gateway, overwrite=False)
    assert gateway.actions == [LOOK, ADD, ADD]  # nothing has arrived, so repeating harms nobody


async def test_a_gateway_that_cuts_every_connection_may_have_done_what_was_asked() -> None:
    gateway = PaperGateway()
    done_but(gateway, *[CUT] * 50)
    assert await add(gateway) == GRANTED
    assert gateway.actions == [*[ADD] * 6, LOOK]


async def test_a_gateway_that_cuts_every_connection_and_cannot_tell_is_reported() -> None:
    gateway = PaperGateway(lambda call: CUT if call.action == ADD else fault(401))
    with pytest.raises(TransportError):
        await add(gateway)


async def test_a_gateway_that_cuts_a_connection_at_the_deadline_is_not_asked_anything_more() -> None:
    gateway = PaperGateway(script(AddPortMapping=[CUT]))
    with pytest.raises(TransportError):
        await add(gateway, timeout=0)
    assert gateway.actions == [ADD]


# Abandoned


async def abandon_during(gateway: PaperGateway, action: str, *, overwrite: bool = True) -> Operation:
    """Add, and leave when the first request of a kind is out; what is under way is finished."""
    op = Operation(10)
    left: list[str] = []
    inner = gateway.respond

    def respond(asked: ActionCall) -> object:
        reaction = inner(asked)
        if asked.action == action and not left:
            assert (op.phase is Phase.SENT) is (action != LOOK)
            op.unwanted()
            left.append(action)
        return reaction

    gateway.respond = respond  # type: ignore[assignment]
    with pytest.raises(asyncio.CancelledError):
        await add(gateway, overwrite=overwrite, op=op)
    return op


async def test_an_abandoned_mapping_is_taken_back() -> None:
    gateway = PaperGateway()
    await abandon_during(gateway, ADD)
    assert gateway.actions == [ADD, LOOK, DELETE]
    assert held(gateway) is None


async def test_an_abandoned_doubtful_success_is_taken_back() -> None:
    gateway = PaperGateway()
    done_but(gateway, PAGE)
    await abandon_during(gateway, ADD)
    assert held(gateway) is None


async def test_an_abandoned_refusal_leads_to_no_further_try() -> None:
    gateway = PaperGateway(script(AddPortMapping=[fault(501)]))
    await abandon_during(gateway, ADD)
    assert gateway.actions == [ADD, LOOK]


async def test_an_abandoned_call_that_gets_lost_is_taken_back_and_not_repeated() -> None:
    gateway = PaperGateway()
    done_but(gateway, CUT)
    await abandon_during(gateway, ADD, overwrite=False)
    assert held(gateway) is None
    assert gateway.actions.count(ADD) == 1


async def test_a_mapping_of_another_host_is_never_taken_back() -> None:
    gateway = PaperGateway(script(AddPortMapping=[answer(ADD)]))
    theirs = put(gateway, THEIRS)
    await abandon_during(gateway, ADD)
    assert held(gateway) == theirs


async def test_a_mapping_that_this_program_had_made_before_is_not_taken_back() -> None:
    gateway, state = PaperGateway(), GatewayState()
    await add(gateway, state=state)
    op = Operation(10)
    gateway.respond = lambda _: op.unwanted()
    with pytest.raises(asyncio.CancelledError):
        await add(gateway, state=state, op=op)
    assert held(gateway) == GRANTED
    assert not has_undo(op)


async def test_a_mapping_that_was_ours_before_this_program_began_is_not_taken_back_by_a_refresh() -> None:
    gateway = PaperGateway()
    put(gateway, OURS)
    await abandon_during(gateway, ADD, overwrite=False)
    assert held(gateway) == GRANTED


async def test_only_what_was_not_there_before_counts_as_made() -> None:
    gateway, state = PaperGateway(), GatewayState()
    first, second, third = Operation(10), Operation(10), Operation(10)
    await add(gateway, state=state, op=first)
    await add(gateway, state=state, op=second)
    assert (has_undo(first), has_undo(second)) == (True, False)
    await delete_mapping(gateway.client(state=state), KEY, Operation(10))
    await add(gateway, state=state, op=third)
    assert has_undo(third)


@pytest.mark.parametrize("patience", [0.0, 0.01])
async def test_taking_back_is_bounded(patience: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "ROLLBACK_TIMEOUT", patience)
    gateway = PaperGateway()

    gateway.respond = lambda call: never_answered() if call.action == LOOK else None
    await asyncio.wait_for(abandon_during(gateway, ADD), 5)
    assert gateway.actions == [ADD, LOOK] if patience else [ADD]


async def test_a_cancelled_task_takes_back_what_it_may_have_made() -> None:
    gateway = PaperGateway()
    arrived = asyncio.Event()

    async def hang(call: ActionCall) -> Reaction:
        gateway.carry_out(call)
        arrived.set()
        return await never_answered()

    gateway.respond = lambda call: hang(call) if call.action == ADD else None
    task = asyncio.create_task(add(gateway))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert held(gateway) is None
    assert gateway.actions == [ADD, LOOK, DELETE]


async def test_a_call_that_waits_for_its_turn_has_sent_nothing_to_take_back() -> None:
    gateway = PaperGateway()
    state = GatewayState()
    permits = [await state.limiter.acquire() for _ in range(state.limiter.window)]
    op = Operation(10)
    task = asyncio.create_task(add(gateway, state=state, op=op))
    await asyncio.sleep(0)
    assert op.phase is Phase.UNSENT
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gateway.calls == []
    for permit in permits:
        state.limiter.release(permit)


# Deleting


async def test_deleting_takes_one_request() -> None:
    gateway = PaperGateway()
    put(gateway, OURS)
    await delete(gateway)
    assert gateway.actions == [DELETE]
    assert held(gateway) is None


@pytest.mark.parametrize(
    ("code", "result"), [(714, UPnPResult.NO_SUCH_ENTRY_IN_ARRAY), (730, UPnPResult.PORT_MAPPING_NOT_FOUND)]
)
async def test_what_is_not_there_cannot_be_deleted(code: int, result: UPnPResult) -> None:
    gateway = PaperGateway(script(DeletePortMapping=[fault(code)]))
    with pytest.raises(RefusedError) as caught:
        await delete(gateway)
    assert (caught.value.result, caught.value.error_code) == (result, code)
    assert gateway.actions == [DELETE]


@pytest.mark.parametrize("code", [402, 501, None])
async def test_a_vague_refusal_to_delete_what_is_not_there_says_so(code: int | None) -> None:
    gateway = PaperGateway(script(DeletePortMapping=[fault(code)]))
    with pytest.raises(RefusedError) as caught:
        await delete(gateway)
    assert (caught.value.result, caught.value.error_code) == (UPnPResult.NO_SUCH_ENTRY_IN_ARRAY, code)


@pytest.mark.parametrize(
    ("code", "result"),
    [(402, UPnPResult.INVALID_ARGS), (501, UPnPResult.ACTION_FAILED), (None, UPnPResult.INVALID_RESPONSE)],
)
async def test_a_refusal_to_delete_what_is_there_is_what_it_says(code: int | None, result: UPnPResult) -> None:
    gateway = PaperGateway(script(DeletePortMapping=[fault(code)]))
    put(gateway, OURS)
    with pytest.raises(RefusedError) as caught:
        await delete(gateway)
    assert caught.value.result is result


async def test_a_refusal_to_delete_is_what_it_says_where_the_gateway_cannot_tell() -> None:
    gateway = PaperGateway(lambda call: fault(501 if call.action == DELETE else 401))
    with pytest.raises(RefusedError) as caught:
        await delete(gateway)
    assert caught.value.result is UPnPResult.ACTION_FAILED


async def test_any_other_refusal_to_delete_is_not_looked_into() -> None:
    gateway = PaperGateway(script(DeletePortMapping=[fault(606)]))
    with pytest.raises(RefusedError) as caught:
        await delete(gateway)
    assert caught.value.result is UPnPResult.NOT_AUTHORIZED
    assert gateway.actions == [DELETE]


@pytest.mark.parametrize("loss", [CUT, LATE], ids=["cut", "late"])
@pytest.mark.parametrize("code", [714, 730, 402, 501])
async def test_not_there_after_a_lost_request_is_success(loss: Exception, code: int) -> None:
    gateway = PaperGateway(script(DeletePortMapping=[loss, fault(code)]))
    await delete(gateway)


async def test_not_there_after_a_request_that_never_arrived_is_what_it_says() -> None:
    gateway = PaperGateway(script(DeletePortMapping=[UNREACHED]))
    with pytest.raises(RefusedError) as caught:
        await delete(gateway)
    assert caught.value.error_code == 714


@pytest.mark.parametrize("reaction", [EMPTY, PAGE, BROKEN, answer(DELETE, status=500)], ids=repr)
async def test_a_doubtful_deletion_is_looked_into(reaction: HttpReply) -> None:
    gateway = PaperGateway()
    put(gateway, OURS)
    done_but(gateway, reaction, action=DELETE)
    await delete(gateway)
    assert gateway.actions == [DELETE, LOOK]


async def test_a_doubtful_deletion_that_did_not_happen_is_reported() -> None:
    gateway = PaperGateway(script(DeletePortMapping=[PAGE]))
    put(gateway, OURS)
    with pytest.raises(InvalidResponseError, match="still there"):
        await delete(gateway)


async def test_a_deletion_that_found_no_control_url_is_reported() -> None:
    gateway = PaperGateway(script(DeletePortMapping=[HttpReply(404, b"")]))
    with pytest.raises(InvalidResponseError) as caught:
        await delete(gateway)
    assert caught.value.status == 404


async def test_a_deletion_whose_replies_were_all_lost_is_looked_into() -> None:
    gateway = PaperGateway()
    put(gateway, OURS)
    done_but(gateway, *[CUT] * 6, action=DELETE)
    await delete(gateway)
    assert gateway.actions == [DELETE, LOOK]


@pytest.mark.parametrize("can_tell", [True, False])
async def test_a_deletion_whose_replies_were_all_lost_and_that_was_not_done_is_reported(can_tell: bool) -> None:
    gateway = PaperGateway(lambda call: CUT if call.action == DELETE else None if can_tell else fault(401))
    put(gateway, OURS)
    with pytest.raises(TransportError):
        await delete(gateway)


async def test_a_silent_deletion_is_looked_for_before_it_is_sent_again() -> None:
    gateway = PaperGateway()
    put(gateway, OURS)

    async def hang(call: ActionCall) -> Reaction:
        gateway.carry_out(call)
        return await never_answered()

    gateway.respond = lambda call: hang(call) if call.action == DELETE else None
    await delete(gateway, Operation(0.4))
    assert gateway.actions == [DELETE, LOOK]


async def test_a_deletion_is_verified_with_one_look() -> None:
    gateway = PaperGateway()
    put(gateway, OURS)
    await delete_mapping(gateway.client(), KEY, Operation(10), verify=True)
    assert gateway.actions == [DELETE, LOOK]


async def test_a_deletion_that_is_answered_yes_and_not_done_is_none_if_it_is_verified() -> None:
    gateway = PaperGateway(lambda call: answer(DELETE) if call.action == DELETE else None)
    put(gateway, OURS)
    await delete_mapping(gateway.client(), KEY, Operation(10))
    with pytest.raises(RefusedError, match="still holds it") as caught:
        await delete_mapping(gateway.client(), KEY, Operation(10), verify=True)
    assert caught.value.result is UPnPResult.ACTION_FAILED


async def test_a_table_that_shows_for_a_while_what_was_deleted_is_only_late() -> None:
    gateway = PaperGateway()
    there = put(gateway, OURS)
    left = [there] * 2

    def respond(call: ActionCall) -> Reaction | None:
        if call.action != LOOK or not left:
            return None
        left.pop()
        return answer(LOOK, {"NewInternalClient": OURS, "NewInternalPort": "8080"})

    gateway.respond = respond
    await delete_mapping(gateway.client(), KEY, Operation(10), verify=True)
    assert gateway.actions == [DELETE, LOOK, LOOK, LOOK]


async def test_a_verified_deletion_counts_where_the_gateway_cannot_tell() -> None:
    gateway = PaperGateway(lambda call: fault(401) if call.action in (LOOK, WALK) else None)
    put(gateway, OURS)
    await delete_mapping(gateway.client(), KEY, Operation(10), verify=True)
    assert held(gateway) is None


@pytest.mark.parametrize("spelt", ["0.0.0.0", "*"])
@pytest.mark.parametrize("wants_it_so", [True, False])
async def test_what_is_listed_is_deleted_as_it_is_spelt_or_else_as_everybody_spells_it(
    spelt: str, wants_it_so: bool
) -> None:
    gateway = PaperGateway()
    put(gateway, OURS)

    def respond(call: ActionCall) -> Reaction | None:
        if call.action == DELETE and call.arguments["NewRemoteHost"] == spelt and wants_it_so:
            return gateway.carry_out(replace(call, arguments={**call.arguments, "NewRemoteHost": ""}))
        return None

    gateway.respond = respond
    await delete_mapping(gateway.client(), KEY._replace(remote_host=spelt), Operation(10))
    assert held(gateway) is None
    assert gateway.actions == [DELETE] * (1 if wants_it_so else 2)


async def test_undoing_says_nothing_of_failures() -> None:
    gateway = PaperGateway()
    op = Operation(10)
    op.sent(partial(delete_mapping, gateway.client(), KEY))
    await op.roll_back()
    assert gateway.actions == [DELETE]


# What is told of it


async def test_every_request_is_an_attempt() -> None:
    gateway = PaperGateway(script(AddPortMapping=[CUT, fault(718), fault(501)]))
    op = Operation(10)
    await add(gateway, op=op)
    told = [(attempt.action, attempt.error_code, attempt.result) for attempt in op.attempts]
    assert told == [
        (ADD, None, UPnPResult.SOCKET_ERROR),
        (ADD, 718, UPnPResult.CONFLICT_WITH_OTHER_MAPPING),
        (LOOK, 714, UPnPResult.NO_SUCH_ENTRY_IN_ARRAY),
        (ADD, 501, UPnPResult.ACTION_FAILED),
        (ADD, None, UPnPResult.SUCCESS),
    ]
    assert all(isinstance(attempt, Attempt) for attempt in op.attempts)
    assert op.attempts[0].arguments["NewLeaseDuration"] == "3600"
    assert op.attempts[-1].arguments["NewLeaseDuration"] == "0"
