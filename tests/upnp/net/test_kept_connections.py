"""Connections that are kept: when they are used again, when they are not, and that none is left open."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aioigd import DeadlineError, InvalidResponseError, TransportError
from aioigd.testing import loopback_address
from aioigd.testing.http import End, Transmission
from aioigd.upnp.net.http import HttpClient
from aioigd.upnp.net.kept_connections import IDLE, Keep, KeptConnections, Verdict
from aioigd.upnp.wire.http_reply import HttpReply
from aioigd.upnp.wire.xml import MAX_DOCUMENT

from .server import DOCUMENT, Server, good, raw

pytestmark = pytest.mark.usefixtures("nothing_is_left")

OTHER = b"<root><device>y</device></root>"


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


@pytest.fixture
def kept() -> KeptConnections:
    return KeptConnections()


def head(*headers: bytes, version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"HTTP/" + version + b" 200 OK", *headers, b"", b""])


def stays(body: bytes = DOCUMENT, *headers: bytes, version: bytes = b"1.1", behind: bytes = b"") -> Transmission:
    """A good reply on a connection that stays open, and what comes behind it."""
    message = head(*headers, b"Content-Length: %d" % len(body), version=version) + body
    return raw(message + behind, end=End.KEEP)


async def ask(
    http: HttpClient,
    server: Server,
    kept: KeptConnections,
    *,
    most: int = 1,
    seconds: float = 5,
    repeatable: bool = True,
    may_reuse: bool = True,
    expected: bytes = b"device",
    source: str = "",
) -> HttpReply:
    number = object()
    try:
        return await http.request(
            "POST",
            server.url,
            deadline=asyncio.get_running_loop().time() + seconds,
            source=source,
            body=b"<body/>",
            repeatable=repeatable,
            keep=Keep(kept, most, may_reuse, expected, number),
        )
    finally:
        kept.others_out.discard(number)


async def prove(http: HttpClient, server: Server, kept: KeptConnections) -> None:
    for _ in range(2):
        assert (await ask(http, server, kept)).body == DOCUMENT
    assert kept.verdict is Verdict.PROVEN
    assert len(kept) == 1


def used(server: Server) -> list[int]:
    """The connection of each request."""
    return [request.connection for request in server.requests]


async def test_a_second_request_on_the_same_connection_is_the_proof(
    http: HttpClient, kept: KeptConnections, address: str
) -> None:
    async with Server(address, stays()) as server:
        await ask(http, server, kept)
        await ask(http, server, kept)
        assert kept.verdict is Verdict.PROVEN
        await ask(http, server, kept)
        assert used(server) == [1, 1, 1]
        assert {request.header("Connection") for request in server.requests} == {None}
        assert sorted(name for name, _ in server.requests[0].headers) == ["Accept-Encoding", "Content-Length", "Host"]


async def test_the_last_request_says_that_it_is_the_last(http: HttpClient, kept: KeptConnections, address: str) -> None:
    async with Server(address, stays()) as server:
        await prove(http, server, kept)
        await ask(http, server, kept, most=0)
        assert used(server) == [1, 1, 1]
        assert server.requests[-1].header("Connection") == "close"
        assert len(kept) == 0


async def test_nothing_is_tried_where_nobody_waits(http: HttpClient, kept: KeptConnections, address: str) -> None:
    async with Server(address, stays()) as server:
        for _ in range(3):
            await ask(http, server, kept, most=0)
        assert used(server) == [1, 2, 3]
        assert kept.verdict is Verdict.UNTRIED


@pytest.mark.parametrize(
    "reply",
    [
        good(),
        stays(DOCUMENT, b"Connection: Close"),
        stays(DOCUMENT, b"Connection: keep-alive", b"Connection: close"),
        stays(DOCUMENT, version=b"1.0"),
        stays(DOCUMENT, b"Keep-Alive: timeout=0, max=5"),
        stays(DOCUMENT, b"Keep-Alive: max=1"),
        stays(DOCUMENT, b"Content-Length: 5"),
        stays(DOCUMENT, b"Transfer-Encoding: chunked"),
        stays(DOCUMENT, b"no header"),
        stays(DOCUMENT, behind=b"\r\n"),
        stays(DOCUMENT, behind=stays().steps[0]),  # type: ignore[index]
        raw(head() + DOCUMENT, end=End.KEEP),
        raw(head(b"Content-Length: 999") + DOCUMENT, end=End.KEEP),
        raw(head(b"Content-Length: 8") + DOCUMENT, end=End.KEEP),
        raw(b"HTTP/1.1 100 Continue\r\n\r\n", *stays().steps, end=End.KEEP),
        raw(b"HTTP/1.1 200 OK\nContent-Length: %d\n\n" % len(DOCUMENT) + DOCUMENT, end=End.KEEP),
        raw(
            head(b"Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\nA: b\r\n\r\n" % (len(DOCUMENT), DOCUMENT),
            end=End.KEEP,
        ),
        raw(DOCUMENT, end=End.CLOSE),
    ],
    ids=str,
)
async def test_a_gateway_that_leaves_a_doubt_is_tried_once(
    http: HttpClient, kept: KeptConnections, address: str, reply: Transmission
) -> None:
    async with Server(address, reply) as server:
        for _ in range(3):
            assert (await ask(http, server, kept)).body == DOCUMENT
        assert kept.verdict is Verdict.REFUSED
        assert [request.header("Connection") for request in server.requests][:2] == [None, "close"]
        assert len(set(used(server))) == len(server.requests)
        assert len(kept) == 0


@pytest.mark.parametrize(
    "reply",
    [
        stays(DOCUMENT, b"Connection: keep-alive", version=b"1.0"),
        stays(DOCUMENT, b"Connection: Keep-Alive", b"Keep-Alive: timeout=1, max=5"),
        raw(
            head(b"Transfer-Encoding: Chunked") + b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(DOCUMENT), DOCUMENT), end=End.KEEP
        ),
        raw(head(b"Content-Length: %d" % len(DOCUMENT)), DOCUMENT, end=End.KEEP),
        raw(head(b"Content-Length: %d" % (len(DOCUMENT) + 3)) + DOCUMENT, b"\n\n\n", end=End.KEEP),
    ],
    ids=str,
)
async def test_a_gateway_that_leaves_no_doubt_is_kept(
    http: HttpClient, kept: KeptConnections, address: str, reply: Transmission
) -> None:
    async with Server(address, reply) as server:
        for _ in range(2):
            assert (await ask(http, server, kept)).body.strip() == DOCUMENT
        assert kept.verdict is Verdict.PROVEN
        assert used(server) == [1, 1]


async def test_what_is_promised_of_a_connection_is_heeded(
    http: HttpClient, kept: KeptConnections, address: str
) -> None:
    async with Server(address, stays(DOCUMENT, b"Keep-Alive: timeout=1, max=3")) as server:
        for _ in range(6):
            await ask(http, server, kept)
        assert used(server) == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
async def test_a_request_that_is_cut_on_a_kept_connection_is_sent_again_at_once(
    http: HttpClient, kept: KeptConnections, address: str, end: End
) -> None:
    async with Server(address, stays(), stays(), raw(end=end), stays()) as server:
        await prove(http, server, kept)
        assert (await ask(http, server, kept)).body == DOCUMENT
        assert used(server) == [1, 1, 1, 2]
        assert server.requests[3].header("Connection") == "close"
        assert kept.verdict is Verdict.REFUSED
        await ask(http, server, kept)
        assert used(server) == [1, 1, 1, 2, 3]


async def test_a_reply_that_is_cut_on_a_kept_connection_is_not_believed(
    http: HttpClient, kept: KeptConnections, address: str
) -> None:
    cut = raw(head(b"Content-Length: 99") + b"<root><device>z", end=End.CLOSE)
    async with Server(address, stays(), stays(), cut, stays()) as server:
        await prove(http, server, kept)
        assert (await ask(http, server, kept)).body == DOCUMENT
        assert used(server) == [1, 1, 1, 2]


@pytest.mark.parametrize(
    "reply",
    [
        stays(OTHER, behind=stays(OTHER).steps[0]),  # type: ignore[index]
        stays(OTHER, behind=b"\r\n"),
        stays(b"<root><another/></root>"),
        raw(head() + OTHER, end=End.KEEP),
        raw(OTHER, end=End.KEEP),
        raw(b"HTTP/1.1 100 Continue\r\n\r\n" + head() + OTHER, end=End.KEEP),
    ],
    ids=str,
)
async def test_a_doubtful_reply_on_a_kept_connection_is_not_believed(
    http: HttpClient, kept: KeptConnections, address: str, reply: Transmission
) -> None:
    async with Server(address, stays(), stays(), reply, stays()) as server:
        await prove(http, server, kept)
        assert (await ask(http, server, kept)).body == DOCUMENT
        assert kept.verdict is Verdict.REFUSED
        assert used(server) == [1, 1, 1, 2]


async def test_a_reply_that_nobody_asked_for_ends_it(http: HttpClient, kept: KeptConnections, address: str) -> None:
    late = raw(*stays().steps, 0.02, *stays(OTHER).steps, end=End.KEEP)
    async with Server(address, stays(), stays(), late, stays()) as server:
        await prove(http, server, kept)
        await ask(http, server, kept)
        await asyncio.sleep(0.05)
        assert (await ask(http, server, kept)).body == DOCUMENT
        assert kept.verdict is Verdict.REFUSED
        assert used(server) == [1, 1, 1, 2]


async def test_a_connection_that_was_closed_meanwhile_is_not_used(
    http: HttpClient, kept: KeptConnections, address: str
) -> None:
    async with Server(address, stays(), stays(), raw(*stays().steps, end=End.CLOSE), stays()) as server:
        await prove(http, server, kept)
        await ask(http, server, kept)
        await asyncio.sleep(0.05)
        await ask(http, server, kept)
        assert used(server) == [1, 1, 1, 2]
        assert kept.verdict is Verdict.PROVEN  # closing idle connections is everybody's right


async def test_silence_on_a_kept_connection_ends_soon(http: HttpClient, kept: KeptConnections, address: str) -> None:
    async with Server(address, stays(), raw(end=End.HANG), stays()) as server:
        await ask(http, server, kept)
        async with asyncio.timeout(4):
            assert (await ask(http, server, kept, seconds=30)).body == DOCUMENT
        assert used(server) == [1, 1, 2]
        assert kept.verdict is Verdict.REFUSED


async def test_a_gateway_that_is_known_to_be_slow_is_given_time(
    http: HttpClient, kept: KeptConnections, address: str
) -> None:
    kept.seconds_needed = 60
    async with Server(address, stays(), raw(end=End.HANG), stays()) as server:
        await ask(http, server, kept)
        with pytest.raises(DeadlineError):
            await ask(http, server, kept, seconds=1)
        assert used(server) == [1, 1]
        assert len(kept) == 0


@pytest.mark.parametrize("options", [{"repeatable": False}, {"may_reuse": False}], ids=str)
async def test_what_must_not_be_sent_twice_goes_over_new_connections(
    http: HttpClient, kept: KeptConnections, address: str, options: dict[str, Any]
) -> None:
    async with Server(address, stays()) as server:
        await ask(http, server, kept, **options)
        assert kept.verdict is Verdict.UNTRIED  # nor is it that with which something is tried
        await prove(http, server, kept)
        await ask(http, server, kept, **options)
        await ask(http, server, kept)
        assert used(server) == [1, 2, 2, 3, 3]


async def test_one_that_must_not_be_sent_twice_fails_where_it_is_cut(
    http: HttpClient, kept: KeptConnections, address: str
) -> None:
    async with Server(address, stays(), stays(), raw(end=End.CLOSE)) as server:
        await prove(http, server, kept)
        with pytest.raises(TransportError) as caught:
            await ask(http, server, kept, repeatable=False)
        assert caught.value.may_have_arrived
        assert len(server.requests) == 3


async def test_a_reply_that_breaks_a_cap_ends_its_connection(
    http: HttpClient, kept: KeptConnections, address: str
) -> None:
    flood = raw(head(b"Content-Length: 99999999") + b"<root>" + bytes(2 * MAX_DOCUMENT), end=End.KEEP)
    async with Server(address, stays(), stays(), flood) as server:
        await prove(http, server, kept)
        with pytest.raises(InvalidResponseError):
            await ask(http, server, kept)
        assert len(kept) == 0


async def test_a_connection_belongs_to_one_address_of_ours(
    http: HttpClient, kept: KeptConnections, address: str
) -> None:
    with loopback_address() as ours:
        async with Server(address, stays()) as server:
            await prove(http, server, kept)
            await ask(http, server, kept, source=ours, most=2)
            assert used(server) == [1, 1, 2]
            assert server.requests[-1].sender[0] == ours


async def test_no_more_are_kept_than_may_be_out(http: HttpClient, kept: KeptConnections, address: str) -> None:
    async with Server(address, stays()) as server:
        await prove(http, server, kept)
        await asyncio.gather(*(ask(http, server, kept, most=3) for _ in range(3)))
        assert len(kept) == 3
        await ask(http, server, kept, most=2)
        assert len(kept) == 2
        await ask(http, server, kept, most=1, repeatable=False)
        assert len(kept) == 1


async def test_an_idle_connection_is_closed_soon(http: HttpClient, kept: KeptConnections, address: str) -> None:
    async with Server(address, stays()) as server:
        await prove(http, server, kept)
        async with asyncio.timeout(20 * IDLE):
            while server.open_connections:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.05)
        assert len(kept) == 0
        assert kept.verdict is Verdict.PROVEN


async def test_closing_the_client_closes_them(http: HttpClient, kept: KeptConnections, address: str) -> None:
    async with Server(address, stays(), stays(), raw(end=End.HANG)) as server:
        await prove(http, server, kept)
        out = asyncio.create_task(ask(http, server, kept))
        while len(server.requests) < 3:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        await http.close()
        with pytest.raises(TransportError):
            await out
        assert len(kept) == 0


async def test_a_request_that_is_cancelled_takes_its_connection_along(
    http: HttpClient, kept: KeptConnections, address: str
) -> None:
    async with Server(address, stays(), stays(), raw(end=End.HANG), stays()) as server:
        await prove(http, server, kept)
        out = asyncio.create_task(ask(http, server, kept))
        while len(server.requests) < 3:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        out.cancel()
        with pytest.raises(asyncio.CancelledError):
            await out
        assert len(kept) == 0
        await ask(http, server, kept)
        assert used(server) == [1, 1, 1, 2]


async def test_nothing_is_tried_beside_requests_that_get_no_answer_as_long_as_it_is_open(
    http: HttpClient, kept: KeptConnections, address: str
) -> None:
    async with Server(address, stays()) as server:
        other = object()
        kept.others_out.add(other)
        await ask(http, server, kept, most=4)
        await asyncio.sleep(0.05)
        await ask(http, server, kept, most=4)
        assert used(server) == [1, 2]
        async with asyncio.timeout(20 * IDLE):
            while kept.verdict is Verdict.TRYING:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.05)
        assert kept.verdict is Verdict.REFUSED


@pytest.mark.one_loop
def test_nothing_of_one_event_loop_is_used_in_another(address: str) -> None:
    http, kept = HttpClient(), KeptConnections()

    async def one(*, is_closed: bool) -> list[int]:
        async with Server(address, stays()) as server:
            await ask(http, server, kept)
            await ask(http, server, kept)
            if is_closed:
                await http.close()
            return used(server)

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for _ in range(2):
            loop = asyncio.new_event_loop()
            assert loop.run_until_complete(one(is_closed=False)) == [1, 1]
            loop.close()
            http.abandon()
        assert asyncio.run(one(is_closed=True)) == [1, 1]
        assert len(kept) == 0
        gc.collect()
