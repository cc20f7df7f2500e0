"""How requests travel: what is sent again, when, how often, and where to."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from aioigd import DeadlineError, IGDError, InvalidResponseError, RefusedError, UPnPResult
from aioigd.core.calls import Operation, Phase
from aioigd.errors import TransportError
from aioigd.models import Device
from aioigd.net.interfaces import source_address_for
from aioigd.testing.wan_connection import ActionCall
from aioigd.upnp import retry, soap_client
from aioigd.upnp.net.kept_connections import Keep
from aioigd.upnp.soap_client import GatewayState, SoapClient
from aioigd.upnp.wire import soap
from aioigd.upnp.wire.http_reply import HttpReply
from aioigd.upnp.wire.soap import Action
from aioigd.upnp.wire.url import parse_url
from aioigd.upnp.wire.wan_ip_connection import GET_EXTERNAL_IP_ADDRESS, GET_STATUS_INFO

from ..support import CUT, OURS, UNREACHED, PaperGateway, Reaction, answer, fault, never_answered, paper_device

pytestmark = [pytest.mark.usefixtures("nothing_is_left"), pytest.mark.one_loop]

ACTION = "GetExternalIPAddress"
HERE = "http://192.168.1.1:5000/ctl"
THERE = "http://192.168.1.1:80/ctl"
ELSEWHERE = "http://192.168.1.1:5000/other"
NOT_FOUND = HttpReply(404, b"<html>not found</html>")
LATE = DeadlineError("late")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.0)


def saying(*reactions: Reaction | None) -> PaperGateway:
    """A gateway that says these things first, and then answers."""
    left = list(reactions)
    return PaperGateway(lambda _: left.pop(0) if left else None)


def living_at(url: str) -> PaperGateway:
    """A gateway whose control URL is this one; it has no other."""
    gateway = PaperGateway()
    gateway.respond = lambda _: None if str(gateway.urls[-1]) == url else NOT_FOUND
    return gateway


async def ask(gateway: PaperGateway, op: Operation | None = None) -> str:
    return (await gateway.client().call(GET_EXTERNAL_IP_ADDRESS, op or Operation(10)))["newexternalipaddress"]


# What comes back


async def test_an_answer_is_its_output_arguments() -> None:
    assert await ask(saying()) == "11.22.33.44"


async def test_an_answer_counts_whatever_the_status() -> None:
    assert await ask(saying(answer(ACTION, {"NewExternalIPAddress": "1.2.3.4"}, status=500))) == "1.2.3.4"


@pytest.mark.parametrize("status", [200, 400, 404, 500])
async def test_a_fault_is_a_refusal_whatever_the_status(status: int) -> None:
    with pytest.raises(RefusedError, match="the gateway refused GetExternalIPAddress: Action Failed") as caught:
        await ask(saying(fault(501, status)))
    assert caught.value.error_code == 501


async def test_anything_else_is_an_invalid_response() -> None:
    with pytest.raises(InvalidResponseError, match=r"GetExternalIPAddress: .* \(HTTP status 200\)") as caught:
        await ask(saying(HttpReply(200, b"<html/>")))
    assert caught.value.status == 200


@pytest.mark.parametrize(
    ("reaction", "code", "result"),
    [
        (None, None, UPnPResult.SUCCESS),
        (fault(606), 606, UPnPResult.NOT_AUTHORIZED),
        (fault(None), None, UPnPResult.INVALID_RESPONSE),
        (HttpReply(500, b""), None, UPnPResult.INVALID_RESPONSE),
        (InvalidResponseError("too long"), None, UPnPResult.INVALID_RESPONSE),
    ],
)
async def test_each_request_is_noted(reaction: Reaction | None, code: int | None, result: UPnPResult) -> None:
    op = Operation(10)
    with suppress(InvalidResponseError):
        await saying(reaction).client().send(GET_EXTERNAL_IP_ADDRESS, op)
    (attempt,) = op.attempts
    assert (attempt.action, dict(attempt.arguments), attempt.error_code, attempt.result) == (ACTION, {}, code, result)


# What got lost


async def test_a_gateway_that_refuses_connections_is_tried_twice() -> None:
    gateway, op = saying(*[UNREACHED] * 9), Operation(10)
    with pytest.raises(TransportError) as caught:
        await ask(gateway, op)
    assert not caught.value.may_have_arrived
    assert len(gateway.calls) == 2
    assert not op.reply_lost  # nothing can have been done


async def test_a_gateway_that_cuts_connections_is_tried_six_times() -> None:
    gateway, op = saying(*[CUT] * 9), Operation(10)
    with pytest.raises(TransportError):
        await ask(gateway, op)
    assert len(gateway.calls) == 6
    assert op.reply_lost


async def test_a_lost_request_is_sent_again() -> None:
    gateway = saying(UNREACHED, CUT, CUT)
    assert await ask(gateway) == "11.22.33.44"
    assert len(gateway.calls) == 4


async def test_a_late_answer_is_asked_for_again_while_there_is_time() -> None:
    gateway, op = saying(LATE), Operation(10)
    assert await ask(gateway, op) == "11.22.33.44"
    assert op.reply_lost


async def test_a_late_answer_at_the_deadline_is_the_end() -> None:
    gateway = saying(LATE)
    with pytest.raises(DeadlineError):
        await ask(gateway, Operation(0.0))
    assert len(gateway.calls) == 1


async def test_a_loss_at_the_deadline_is_the_end() -> None:
    gateway = saying(CUT)
    with pytest.raises(TransportError):
        await ask(gateway, Operation(0.0))
    assert len(gateway.calls) == 1


async def test_a_silent_gateway_that_may_have_moved_is_not_asked_again() -> None:
    gateway, op = saying(LATE), Operation(10)
    op.rediscover_on_timeout = True
    with pytest.raises(DeadlineError):
        await ask(gateway, op)
    assert len(gateway.calls) == 1


@pytest.mark.parametrize("loss", [CUT, LATE], ids=["cut", "late"])
async def test_what_must_not_be_repeated_is_not(loss: Exception) -> None:
    gateway = saying(loss)
    with pytest.raises(type(loss)):
        await gateway.client().send(GET_EXTERNAL_IP_ADDRESS, Operation(10), repeatable=False)
    assert len(gateway.calls) == 1


async def test_what_must_not_be_repeated_is_if_it_has_not_arrived() -> None:
    gateway = saying(UNREACHED)
    status, _ = await gateway.client().send(GET_EXTERNAL_IP_ADDRESS, Operation(10), repeatable=False)
    assert status == 200
    assert gateway.repeatable == [False, False]


async def test_what_got_lost_among_others_is_sent_again_as_often_as_it_takes() -> None:
    gateway = PaperGateway()
    out = 0

    async def one_at_a_time(call: ActionCall) -> Reaction:
        nonlocal out
        out += 1
        try:
            crowded = out > 1
            await asyncio.sleep(0)
            return CUT if crowded else gateway.carry_out(call)
        finally:
            out -= 1

    gateway.respond = one_at_a_time
    client = gateway.client()
    calls = [Operation(10) for _ in range(200)]
    await asyncio.gather(*(client.call(GET_STATUS_INFO, call) for call in calls))
    assert client.state.limiter.window < 2
    assert len(gateway.calls) < 220


async def test_a_cancelled_request_gives_its_slot_back_and_says_nothing_about_the_gateway() -> None:
    gateway = PaperGateway()

    gateway.respond = lambda _: never_answered()
    client = gateway.client()
    task = asyncio.create_task(client.call(GET_STATUS_INFO, Operation(10)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert repr(client.state.limiter) == "<Limiter window=3 out=0 waiting=0>"


# Documents


class Shelf(PaperGateway):
    """A gateway that serves a document, or what a test has put in front of it."""

    def __init__(self, *reactions: Reaction) -> None:
        super().__init__()
        self.left = list(reactions)
        self.gets = 0

    async def request(self, *_: object, **__: object) -> HttpReply:
        self.gets += 1
        reaction = self.left.pop(0) if self.left else HttpReply(200, b"<scpd/>")
        if isinstance(reaction, Exception):
            raise reaction
        return reaction


async def test_a_document_is_read_again_if_that_fails_once() -> None:
    gateway = Shelf(CUT.copy())
    client = gateway.client()
    assert (await client.get(parse_url(THERE), Operation(10), OURS)).body == b"<scpd/>"
    assert gateway.gets == 2
    assert "out=0" in repr(client.state.limiter)


@pytest.mark.parametrize("loss", [CUT, UNREACHED, LATE], ids=["cut", "unreached", "late"])
async def test_a_document_that_cannot_be_read_is_an_error(loss: IGDError) -> None:
    gateway = Shelf(*(loss.copy() for _ in range(9)))
    with pytest.raises(type(loss)):
        await gateway.client().get(parse_url(THERE), Operation(10), OURS)
    assert gateway.gets == 2


# Time


async def test_the_clock_begins_with_the_first_request_and_stands_still_while_waiting_for_others() -> None:
    gateway, state = PaperGateway(), GatewayState()
    client = gateway.client(state=state)
    permits = [await state.limiter.acquire() for _ in range(state.limiter.window)]
    fresh, begun = Operation(0.1), Operation(0.1)
    begun.start()
    tasks = [asyncio.create_task(client.call(GET_STATUS_INFO, call)) for call in (fresh, begun)]
    await asyncio.sleep(0.3)
    assert not fresh.goes_first
    for permit in permits:
        state.limiter.release(permit)
    await asyncio.gather(*tasks)
    assert not fresh.expired
    assert not begun.expired


async def test_a_call_that_has_begun_comes_before_those_that_have_not() -> None:
    gateway, state = PaperGateway(), GatewayState()
    client = gateway.client(state=state)
    permits = [await state.limiter.acquire() for _ in range(state.limiter.window)]
    fresh, begun = Operation(10), Operation(10)
    begun.start()
    tasks = [
        asyncio.create_task(client.call(GET_STATUS_INFO, fresh)),
        asyncio.create_task(client.call(GET_EXTERNAL_IP_ADDRESS, begun)),
    ]
    await asyncio.sleep(0)
    for permit in permits:
        state.limiter.release(permit)
    await asyncio.gather(*tasks)
    assert gateway.actions == [ACTION, "GetStatusInfo"]


async def test_an_attempt_gets_half_of_the_time_of_a_call_and_never_more_than_is_left() -> None:
    now = asyncio.get_running_loop().time()
    call = Operation(10)
    call.start()
    assert call.attempt_deadline == pytest.approx(now + 5, abs=1)
    assert call.deadline == pytest.approx(now + 10, abs=1)
    assert not call.expired
    short = Operation(0)
    short.start()
    assert short.attempt_deadline == short.deadline
    assert short.expired


# Where to


async def test_a_control_url_that_is_not_there_leads_to_the_next() -> None:
    gateway = living_at(ELSEWHERE)
    client = gateway.client(THERE, ELSEWHERE)
    for _ in range(2):
        await client.call(GET_STATUS_INFO, Operation(10))
    assert [str(url) for url in gateway.urls] == [HERE, THERE, ELSEWHERE, ELSEWHERE]


async def test_a_control_port_that_refuses_leads_to_the_next() -> None:
    gateway = PaperGateway()
    gateway.respond = lambda _: UNREACHED if str(gateway.urls[-1]) == HERE else None
    client = gateway.client(THERE)
    await client.call(GET_STATUS_INFO, Operation(10))
    assert [str(url) for url in gateway.urls] == [HERE, THERE]


async def test_several_requests_at_once_turn_to_the_next_url_together() -> None:
    gateway = living_at(THERE)
    client = gateway.client(THERE, ELSEWHERE)
    await asyncio.gather(*(client.call(GET_STATUS_INFO, Operation(10)) for _ in range(20)))
    assert {str(url) for url in gateway.urls} == {HERE, THERE}


async def test_the_last_url_is_the_last() -> None:
    gateway = living_at("http://192.168.1.1:5000/nowhere")
    with pytest.raises(InvalidResponseError) as caught:
        await gateway.client(THERE).call(GET_STATUS_INFO, Operation(10))
    assert caught.value.status == 404
    assert [str(url) for url in gateway.urls] == [HERE, THERE]


async def test_a_url_that_has_answered_is_left_no_more() -> None:
    gateway = living_at(HERE)
    client = gateway.client(THERE)
    await client.call(GET_STATUS_INFO, Operation(10))
    gateway.respond = lambda _: NOT_FOUND
    with pytest.raises(InvalidResponseError):
        await client.call(GET_STATUS_INFO, Operation(10))
    assert [str(url) for url in gateway.urls] == [HERE, HERE]


async def test_a_fault_with_status_404_is_no_reason_to_look_elsewhere() -> None:
    gateway = saying(fault(501, 404))
    with pytest.raises(RefusedError):
        await gateway.client(THERE).call(GET_STATUS_INFO, Operation(10))


# Which action, and who commits


async def test_the_action_may_be_chosen_when_it_is_its_turn() -> None:
    gateway, state = PaperGateway(), GatewayState()
    permits = [await state.limiter.acquire() for _ in range(state.limiter.window)]
    name = "GetStatusInfo"
    task = asyncio.create_task(gateway.client(state=state).send(lambda: Action(name, {}), Operation(10)))
    await asyncio.sleep(0)
    name = ACTION
    for permit in permits:
        state.limiter.release(permit)
    status, reply = await task
    assert status == 200
    assert isinstance(reply, soap.Answer)
    assert gateway.actions == [ACTION]


@pytest.mark.parametrize("changes_something", [False, True])
async def test_a_call_has_something_to_undo_from_when_its_request_goes_out(changes_something: bool) -> None:
    gateway, op = PaperGateway(), Operation(10)
    seen: list[Phase] = []

    async def undo(_: Operation) -> None:
        raise AssertionError("nobody has cancelled it")

    gateway.respond = lambda _: seen.append(op.phase)
    await gateway.client().send(GET_STATUS_INFO, op, undo=undo if changes_something else None)
    assert seen == [Phase.SENT if changes_something else Phase.UNSENT]


# Who we are


def at(address: str) -> SoapClient:
    return SoapClient(PaperGateway(), Device(igd_control_url=HERE, igd_our_addr=address), GatewayState())


def test_this_machine_is_known_to_the_gateway_by_the_address_it_asks_from() -> None:
    assert PaperGateway().client().internal_client == OURS


def test_behind_a_gateway_found_over_ipv6_it_is_the_address_towards_the_ipv4_route(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(soap_client, "default_next_hops", lambda: frozenset({"127.9.9.9"}))
    assert at("2001:db8::2").internal_client == source_address_for("127.9.9.9")
    assert at("::1").internal_client == "127.0.0.1"
    monkeypatch.setattr(soap_client, "default_next_hops", frozenset)
    monkeypatch.setattr(soap_client, "source_address_for", lambda host: f"towards {host}")
    assert at("2001:db8::2").internal_client == "towards 192.0.2.1"


def test_a_control_url_that_must_not_be_followed_is_refused() -> None:
    with pytest.raises(ValueError, match="scheme"):
        SoapClient(PaperGateway(), Device(igd_control_url="ftp://192.168.1.1/ctl"), GatewayState())


def test_the_headers_name_service_and_action_as_the_gateway_spells_them() -> None:
    assert soap.soap_action(paper_device().igd_service_type, ACTION).startswith('"urn:schemas-upnp-org:service:')


# Connections that are kept


class Late:
    """A call that has not begun."""

    def begin(self) -> None:
        pass


class Keeping(PaperGateway):
    """A gateway that notes how each request may use connections."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Keep | None] = []

    async def request(self, *args: Any, keep: object = None, **options: Any) -> HttpReply:
        assert keep is None or isinstance(keep, Keep)
        self.kept.append(keep)
        return await super().request(*args, **options)


async def test_connections_are_kept_for_those_who_wait_and_for_nobody_else() -> None:
    gateway = Keeping()
    client = gateway.client()
    await client.call(GET_EXTERNAL_IP_ADDRESS, Operation(10))
    await asyncio.gather(*(client.call(GET_EXTERNAL_IP_ADDRESS, Operation(10)) for _ in range(40)))
    await client.call(GET_EXTERNAL_IP_ADDRESS, Operation(10))
    assert gateway.kept[0] is gateway.kept[-1] is None
    asked = [keep for keep in gateway.kept if keep is not None]
    assert asked
    assert all(1 <= keep.most <= 64 and keep.may_reuse and keep.expected == ACTION.encode() for keep in asked)
    assert not client.state.limiter.waiting
    assert not client.state.kept.others_out


async def test_a_pinhole_is_not_added_over_a_connection_that_was_used_before() -> None:
    gateway = Keeping()
    client = gateway.client()
    while client.state.limiter.enter(Late()):
        pass  # the last one waits
    with suppress(IGDError):
        await client.call(Action("AddPinhole", {}), Operation(1))
    (keep,) = gateway.kept
    assert keep is not None
    assert not keep.may_reuse
