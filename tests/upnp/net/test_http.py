"""Requests as they go out, byte by byte, and what is made of replies that are too long, too late or not quite HTTP."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from aioigd import DeadlineError, InvalidResponseError, TransportError
from aioigd.testing import loopback_address
from aioigd.testing.http import End, Transmission
from aioigd.upnp.net import lenient_http
from aioigd.upnp.net.connection import open_socket
from aioigd.upnp.net.http import HttpClient
from aioigd.upnp.net.lenient_http import ask
from aioigd.upnp.wire import gena
from aioigd.upnp.wire.http_reply import BodyRule, HttpReply
from aioigd.upnp.wire.url import HttpUrl
from aioigd.upnp.wire.xml import MAX_DOCUMENT

from ...support import Canary, settled_loop, sockets
from .server import DOCUMENT, Server, good, raw

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


async def get(http: HttpClient, server: Server, *, seconds: float = 5, **options: Any) -> HttpReply:
    deadline = asyncio.get_running_loop().time() + seconds
    return await http.request("GET", server.url, deadline=deadline, **options)


async def fetch(http: HttpClient, address: str, *replies: Transmission, **options: Any) -> HttpReply:
    async with Server(address, *replies) as server:
        return await get(http, server, **options)


# Requests

SOAP = {"Content-Type": 'text/xml; charset="utf-8"', "SOAPAction": '"urn:x:service:Y:1#Z"'}


async def post(http: HttpClient, server: Server) -> HttpReply:
    deadline = asyncio.get_running_loop().time() + 5
    return await http.request("POST", server.url, deadline=deadline, headers=SOAP, body=b"<body/>")


async def test_a_get_has_exactly_these_headers(http: HttpClient, address: str) -> None:
    async with Server(address, good()) as server:
        await get(http, server)
        (request,) = server.requests
        assert request.raw.startswith(b"GET /desc.xml?a=%20b HTTP/1.1\r\n")
        assert sorted(request.headers) == [
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
            ("Host", f"{address}:{server.url.port}"),
        ]


async def test_a_post_has_exactly_these_headers_and_comes_in_one_segment(http: HttpClient, address: str) -> None:
    async with Server(address, good()) as server:
        await post(http, server)
        (request,) = server.requests
        assert sorted(request.headers) == [
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
            ("Content-Length", "7"),
            ("Content-Type", 'text/xml; charset="utf-8"'),
            ("Host", f"{address}:{server.url.port}"),
            ("SOAPAction", '"urn:x:service:Y:1#Z"'),
        ]
        assert request.raw.endswith(b"\r\n\r\n<body/>")
        assert request.segments == 1
        assert not request.half_closed()


async def test_the_tolerant_reader_sends_the_same_request(http: HttpClient, address: str) -> None:
    async with Server(address, raw(DOCUMENT), good()) as server:
        await post(http, server)
        await post(http, server)
        first, again, third = server.requests
        assert sorted(first.headers) == sorted(again.headers) == sorted(third.headers)
        assert (first.body, first.segments) == (again.body, again.segments)
        assert again.raw.startswith(b"POST /desc.xml?a=%20b HTTP/1.1\r\n")


async def test_every_request_has_a_connection_of_its_own(http: HttpClient, address: str) -> None:
    async with Server(address, good()) as server:
        for _ in range(3):
            await get(http, server)
        assert server.connections == 3


@pytest.mark.parametrize("tolerant", [False, True])
async def test_a_request_is_sent_from_the_address_that_is_given(http: HttpClient, address: str, tolerant: bool) -> None:
    with loopback_address() as ours:
        async with Server(address, raw(DOCUMENT) if tolerant else good()) as server:
            await get(http, server, source=ours)
            assert {request.sender[0] for request in server.requests} == {ours}
            await asyncio.gather(*(get(http, server, source=source) for source in (ours, address, "")))
            assert {request.sender[0] for request in server.requests} >= {ours, address}


async def test_an_address_that_is_not_ours_cannot_be_sent_from(http: HttpClient, address: str) -> None:
    async with Server(address, good()) as server:
        with pytest.raises(TransportError) as caught:
            await get(http, server, source="192.0.2.77")
        assert not caught.value.may_have_arrived


async def test_a_proxy_from_the_environment_is_ignored(
    http: HttpClient, address: str, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{canary.address}:{canary.port}")
    assert (await fetch(http, address, good())).body == DOCUMENT


async def test_a_netrc_is_ignored(
    http: HttpClient, address: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {address} login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with Server(address, good()) as server:
        await get(http, server)
        assert server.requests[0].header("Authorization") is None


async def test_cookies_are_not_kept(http: HttpClient, address: str) -> None:
    async with Server(address, good(DOCUMENT, b"Set-Cookie: a=b; Path=/")) as server:
        await get(http, server)
        await get(http, server)
        assert server.requests[1].header("Cookie") is None


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 Temporary Redirect", b"308 Permanent Redirect"])
async def test_redirects_are_not_followed(http: HttpClient, address: str, canary: Canary, status: bytes) -> None:
    elsewhere = b"Location: " + canary.location.encode()
    reply = await fetch(http, address, good(DOCUMENT, elsewhere, status=status))
    assert (reply.status, reply.body) == (int(status[:3]), DOCUMENT)


# Replies


@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found", b"500 Internal Server Error"])
async def test_a_reply_is_its_status_and_its_body(http: HttpClient, address: str, status: bytes) -> None:
    reply = await fetch(http, address, good(DOCUMENT, status=status))
    assert (reply.status, reply.body) == (int(status[:3]), DOCUMENT)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n"

SLOPPY = {
    "no length": raw(HEAD + b"\r\n" + DOCUMENT),
    "length too long": raw(HEAD + b"Content-Length: 9999\r\n\r\n" + DOCUMENT),
    "length too long, and left open": raw(HEAD + b"Content-Length: 9999\r\n\r\n" + DOCUMENT, end=End.HANG),
    "length too short": raw(HEAD + b"Content-Length: 9\r\n\r\n" + DOCUMENT),
    "length of zero": raw(HEAD + b"Content-Length: 0\r\n\r\n" + DOCUMENT),
    "length that is no number": raw(HEAD + b"Content-Length: some\r\n\r\n" + DOCUMENT),
    "two lengths": raw(HEAD + b"Content-Length: 1\r\nContent-Length: 31\r\n\r\n" + DOCUMENT),
    "left open": raw(HEAD + b"\r\n" + DOCUMENT, end=End.HANG),
    "reset at the end": raw(HEAD + b"\r\n" + DOCUMENT, 0.05, end=End.RESET),
    "bare line feeds": raw((HEAD + b"Content-Length: 31\r\n\r\n").replace(b"\r", b"") + DOCUMENT),
    "HTTP/1.0": raw(HEAD.replace(b"1.1", b"1.0") + b"\r\n" + DOCUMENT),
    "no reason": raw(b"HTTP/1.1 200\r\n\r\n" + DOCUMENT),
    "no version": raw(b"HTTP 200 OK\r\n\r\n" + DOCUMENT),
    "header without a colon": raw(HEAD + b"nonsense\r\n\r\n" + DOCUMENT),
    "header with a blank in its name": raw(HEAD + b"Bad Name: x\r\n\r\n" + DOCUMENT),
    "header with bytes above ASCII": raw(HEAD + b"Server: \xff\xfe\r\n\r\n" + DOCUMENT),
    "header that is folded": raw(HEAD + b"Server: a\r\n b\r\n\r\n" + DOCUMENT),
    "chunked": raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1f\r\n" + DOCUMENT + b"\r\n0\r\n\r\n"),
    "chunked without an end": raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1f\r\n" + DOCUMENT + b"\r\n"),
    "chunked, it says": raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + DOCUMENT),
    "chunked with a wrong size": raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n" + DOCUMENT),
    "chunked and a length": raw(
        HEAD + b"Content-Length: 31\r\nTransfer-Encoding: chunked\r\n\r\n1f\r\n" + DOCUMENT + b"\r\n0\r\n\r\n"
    ),
    "no head": raw(DOCUMENT),
    "no head, and left open": raw(DOCUMENT, end=End.HANG),
    "blank lines first": raw(b"\r\n\r\n" + HEAD + b"Content-Length: 31\r\n\r\n" + DOCUMENT),
    "byte by byte": raw(*(bytes([byte]) for byte in HEAD + b"\r\n" + DOCUMENT)),
    "a long head": raw(HEAD + b"X: y\r\n" * 1000 + b"\r\n" + DOCUMENT),
    "a long line": raw(HEAD + b"X: " + b"y" * 9000 + b"\r\n\r\n" + DOCUMENT),
}


@pytest.mark.parametrize("reply", SLOPPY.values(), ids=SLOPPY.keys())
async def test_a_lenient_reply_counts_if_its_document_has_arrived(
    http: HttpClient, address: str, reply: Transmission
) -> None:
    async with Server(address, reply) as server:
        for _ in range(2):  # the second time it may be known that this one is sloppy
            assert (await get(http, server)).body.strip() == DOCUMENT


@pytest.mark.parametrize("reply", SLOPPY.values(), ids=SLOPPY.keys())
async def test_what_must_not_be_repeated_is_not_asked_for_again(
    http: HttpClient, address: str, reply: Transmission
) -> None:
    async with Server(address, reply) as server:
        answer = await get(http, server, repeatable=False)
        assert answer.body.strip() in (DOCUMENT, b"", DOCUMENT[:9])
        assert server.connections == 1


async def test_a_lenient_device_is_remembered_and_asked_once(http: HttpClient, address: str) -> None:
    async with Server(address, raw(DOCUMENT)) as server:
        for expected in (2, 3, 4):
            await get(http, server)
            assert server.connections == expected
        assert (await get(http, server, repeatable=False)).body == DOCUMENT


async def test_not_all_lenient_devices_are_remembered_for_ever(http: HttpClient) -> None:
    for port in range(1, 1000):
        http._remember_lenient(("192.168.1.1", port))
    assert len(http._lenient) == 64
    assert ("192.168.1.1", 999) in http._lenient


@pytest.mark.parametrize("body", [b"", b"OK", b"plain text, and no document"])
async def test_a_reply_without_a_document_is_what_it_is(http: HttpClient, address: str, body: bytes) -> None:
    async with Server(address, good(body)) as server:
        reply = await get(http, server)
        assert (reply.status, reply.body) == (200, body)
        assert server.connections == 1


async def test_a_document_that_was_cut_off_is_asked_for_again(http: HttpClient, address: str) -> None:
    half = raw(HEAD + b"Content-Length: 31\r\n\r\n" + DOCUMENT[:20])
    assert (await fetch(http, address, half, good())).body == DOCUMENT


# A head alone


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lenient_http, "GRACE", 0.15)


ALONE = {
    "no length": raw(HEAD + b"\r\n", end=End.HANG),
    "HTTP/1.0": raw(HEAD.replace(b"1.1", b"1.0") + b"\r\n", end=End.HANG),
    "204": raw(b"HTTP/1.1 204 No Content\r\n\r\n", end=End.HANG),
    "length of zero": raw(HEAD + b"Content-Length: 0\r\n\r\n", end=End.HANG),
    "an interim reply first": raw(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"\r\n", end=End.HANG),
}


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize("reply", ALONE.values(), ids=ALONE.keys())
@pytest.mark.waits
async def test_a_head_alone_is_the_reply_where_it_may_be(
    http: HttpClient, address: str, reply: Transmission, tolerant: bool
) -> None:
    async with Server(address, reply) as server:
        if tolerant:
            http._remember_lenient((address, server.url.port))
        answer = await get(http, server, body_rule=BodyRule.OPTIONAL)
        assert (answer.status, answer.body) in ((200, b""), (204, b""))
        assert server.connections == 1


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.waits
async def test_for_the_body_of_a_fault_it_is_waited_longer(
    http: HttpClient, address: str, tolerant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lenient_http, "GRACE", 0.0)
    monkeypatch.setattr(lenient_http, "_FAULT_GRACE", 0.4)
    head = b"HTTP/1.1 500 Internal Server Error\r\n\r\n"
    for steps, body in (((head, 0.1, DOCUMENT), DOCUMENT), ((head,), b"")):
        async with Server(address, raw(*steps, end=End.HANG)) as server:
            if tolerant:
                http._remember_lenient((address, server.url.port))
            answer = await get(http, server, body_rule=BodyRule.OPTIONAL)
            assert (answer.status, answer.body) == (500, body)


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.waits
async def test_a_body_that_comes_a_little_later_is_read_all_the_same(
    http: HttpClient, address: str, tolerant: bool
) -> None:
    async with Server(address, raw(HEAD + b"\r\n", 0.1, DOCUMENT[:9], 0.1, DOCUMENT[9:], end=End.HANG)) as server:
        if tolerant:
            http._remember_lenient((address, server.url.port))
        assert (await get(http, server, body_rule=BodyRule.OPTIONAL)).body == DOCUMENT


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize(
    ("reply", "body_rule"),
    [
        (raw(HEAD + b"\r\n", end=End.HANG), BodyRule.EXPECTED),
        (raw(HEAD + b"Content-Length: 31\r\n\r\n", end=End.HANG), BodyRule.OPTIONAL),
        (raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", end=End.HANG), BodyRule.OPTIONAL),
        (raw(b"HTTP/1.1 500 Internal Server Error\r\n\r\n", end=End.HANG), BodyRule.OPTIONAL),
        (raw(HEAD, end=End.HANG), BodyRule.NONE),
    ],
    ids=["a document is asked for", "a length", "chunks", "a fault", "half a head"],
)
@pytest.mark.waits
async def test_and_waited_for_where_something_has_to_follow(
    http: HttpClient, address: str, reply: Transmission, body_rule: BodyRule, tolerant: bool
) -> None:
    async with Server(address, reply) as server:
        if tolerant:
            http._remember_lenient((address, server.url.port))
        with pytest.raises(DeadlineError):
            await get(http, server, body_rule=body_rule, seconds=0.4)


@pytest.mark.parametrize(
    "line",
    [b"no colon", b"Bad Name: x", b"X\0: y", b": x", b" X: y", b"\xff\xfe: x", b"X: \r", b"X: " + b"y" * 9000, b"\t"],
)
@pytest.mark.parametrize(
    "frame", [b"%s\r\nSID: uuid:1\r\nTIMEOUT: Second-300\r\n", b"SID: uuid:1\r\nTIMEOUT: Second-300\r\n%s\r\n"]
)
async def test_one_broken_line_costs_no_other_header(http: HttpClient, address: str, line: bytes, frame: bytes) -> None:
    reply = raw(b"HTTP/1.1 200 OK\r\n" + frame.replace(b"%s", line) + b"\r\n", end=End.HANG)
    async with Server(address, reply) as server:
        answer = await get(http, server, body_rule=BodyRule.NONE, repeatable=False)
        assert gena.read_grant(answer.headers) == ("uuid:1", 300.0)
        assert server.connections == 1


async def test_what_follows_a_head_that_says_it_all_is_not_waited_for(http: HttpClient, address: str) -> None:
    reply = raw(HEAD + b"SID: uuid:1\r\nContent-Length: 999\r\n\r\n", end=End.HANG)
    answer = await fetch(http, address, reply, body_rule=BodyRule.NONE)
    assert (answer.status, answer.body, answer.headers["SID"]) == (200, b"", "uuid:1")


# Limits


async def test_a_body_may_be_as_long_as_the_cap(http: HttpClient, address: str) -> None:
    body = b"<a>" + b"x" * (MAX_DOCUMENT - 7) + b"</a>"
    assert len((await fetch(http, address, good(body))).body) == MAX_DOCUMENT


def endless(piece: bytes) -> Iterator[bytes]:
    return itertools.repeat(piece)


@pytest.mark.parametrize(
    "head",
    [HEAD + b"\r\n", HEAD + b"Content-Length: 999999999\r\n\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b""],
    ids=["no length", "length", "chunked", "no head"],
)
async def test_an_endless_body_is_cut_off(http: HttpClient, address: str, head: bytes) -> None:
    piece = b"4000\r\n" + b"x" * 16384 + b"\r\n" if b"chunked" in head else b"<a>" * 5000
    reply = Transmission(itertools.chain([head], endless(piece)), End.CLOSE)
    async with Server(address, reply) as server:
        with pytest.raises(InvalidResponseError, match="over 262144 bytes"):
            await get(http, server)
        for _ in range(1000):
            if not server.open_connections:
                break
            await asyncio.sleep(0)
        assert server.open_connections == 0


async def test_an_endless_head_is_cut_off(http: HttpClient, address: str) -> None:
    reply = Transmission(itertools.chain([HEAD], endless(b"X-Filler: " + b"y" * 1000 + b"\r\n")), End.CLOSE)
    with pytest.raises(InvalidResponseError):
        await fetch(http, address, reply)


class Endless:
    """A head, and one piece again and again; ``sent`` counts the bytes."""

    def __init__(self, head: bytes, piece: bytes) -> None:
        self.head, self.piece = head, piece
        self.sent = 0

    def __iter__(self) -> Iterator[bytes]:
        for step in itertools.chain([self.head], endless(self.piece)):
            self.sent += len(step)
            yield step


NO_END = {
    "interim replies": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "extensions of chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 4000 + b"\r\ny\r\n"),
    "one extension": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 8192),
    "tiny chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1000),
    "blank lines": (b"", b"\r\n" * 1000),
    "blanks in a header": (HEAD + b"X:", b" " * 1000),
    "folded lines": (HEAD, b" x\r\n" * 1000),
    "header lines": (HEAD, b"X:\r\n" * 1000),
}


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize(("head", "piece"), NO_END.values(), ids=NO_END.keys())
async def test_whatever_has_no_end_is_cut_off_by_its_bytes(
    http: HttpClient, address: str, head: bytes, piece: bytes, tolerant: bool
) -> None:
    steps = Endless(head, piece)
    async with Server(address, Transmission(steps, End.CLOSE)) as server:
        if tolerant:
            http._remember_lenient((address, server.url.port))
        with pytest.raises(InvalidResponseError, match=r"a reply (of over|with a head of over|in over)"):
            await get(http, server, seconds=20)
    assert steps.sent < 64 * 2**20  # what the buffers of the system hold, too


async def test_trailers_without_an_end_are_cut_off_or_not_read(http: HttpClient, address: str) -> None:
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    reply = Transmission(Endless(head, b"X: " + b"y" * 4000 + b"\r\n"), End.CLOSE)
    async with Server(address, reply) as server:
        with pytest.raises(InvalidResponseError):
            await get(http, server)
        http._remember_lenient((address, server.url.port))
        assert (await get(http, server)).body == b""


async def test_a_document_in_small_chunks_is_read(http: HttpClient, address: str) -> None:
    body = b"".join(b"%x;a=b\r\n%s\r\n" % (len(piece), piece) for piece in [b"<root>"] + [b"<a>x</a>"] * 3000)
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    reply = await fetch(http, address, raw(head + body + b"7\r\n</root>\r\n0\r\n\r\n", end=End.HANG))
    assert reply.body == b"<root>" + b"<a>x</a>" * 3000 + b"</root>"


async def test_a_head_without_an_end_is_refused(http: HttpClient, address: str) -> None:
    with pytest.raises(InvalidResponseError, match="head of over"):
        await fetch(http, address, raw(HEAD + b"X: y\r\n" * 7000))


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"x-unknown", b"GZIP"])
@pytest.mark.parametrize("tolerant", [False, True])
async def test_an_encoded_body_is_refused(http: HttpClient, address: str, encoding: bytes, tolerant: bool) -> None:
    body = gzip.compress(b"<a>" + b"\0" * 1_000_000 + b"</a>")
    header = b"Content-Encoding: " + encoding
    with pytest.raises(InvalidResponseError, match="encoding"):
        await fetch(http, address, good(body, header, *([b"no colon"] if tolerant else [])))


async def test_an_identity_encoding_is_none(http: HttpClient, address: str) -> None:
    assert (await fetch(http, address, good(DOCUMENT, b"Content-Encoding: identity"))).body == DOCUMENT
    sloppy = good(DOCUMENT, b"Content-Encoding: identity", b"no colon")
    assert (await fetch(http, address, sloppy)).body == DOCUMENT


# Time


@pytest.mark.parametrize(
    "reply",
    [
        raw(60.0),
        raw(HEAD, 60.0),
        raw(HEAD + b"Content-Length: 31\r\n\r\n" + DOCUMENT[:9], 60.0),
        Transmission(itertools.chain.from_iterable((b"x", 0.01) for _ in itertools.count()), End.CLOSE),
        Transmission(itertools.chain([HEAD + b"\r\n"], itertools.cycle([b"<a>", 0.01])), End.CLOSE),
    ],
    ids=["silence", "half a head", "half a body", "trickling head", "trickling body"],
)
@pytest.mark.waits
async def test_whatever_takes_too_long_ends_at_the_deadline(
    http: HttpClient, address: str, reply: Transmission
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(DeadlineError) as caught:
        await fetch(http, address, reply, seconds=0.2)
    assert isinstance(caught.value, TimeoutError)
    assert loop.time() - began < 0.2 + 0.5


async def test_a_deadline_that_has_passed_is_kept(http: HttpClient, address: str) -> None:
    with pytest.raises(DeadlineError):
        await fetch(http, address, good(), seconds=-1)


# No reply


async def test_a_port_where_nobody_listens_was_not_reached(http: HttpClient, address: str) -> None:
    deadline = asyncio.get_running_loop().time() + 5
    with pytest.raises(TransportError) as caught:
        await http.request("GET", HttpUrl(address, 9, "/"), deadline=deadline)
    assert not caught.value.may_have_arrived
    assert "Connection refused" in str(caught.value)


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
async def test_a_connection_that_ends_without_a_byte_was_cut(
    http: HttpClient, address: str, end: End, tolerant: bool
) -> None:
    async with Server(address, raw(end=end)) as server:
        if tolerant:
            http._remember_lenient((address, server.url.port))
        with pytest.raises(TransportError) as caught:
            await get(http, server)
        assert caught.value.may_have_arrived
        assert address in str(caught.value)


async def test_a_connection_that_ends_before_the_body_was_cut(http: HttpClient, address: str) -> None:
    with pytest.raises(TransportError) as caught:
        await fetch(http, address, raw(HEAD + b"Content-Length: 31\r\n\r\n"))
    assert caught.value.may_have_arrived


# The end


async def test_closing_leaves_nothing_open_and_a_later_request_opens_anew(address: str) -> None:
    http = HttpClient()
    await http.close()
    async with Server(address, good()) as server:
        before = sockets()
        for _ in range(2):
            await get(http, server)
            await http.close()
            await settled_loop()
            for _ in range(1000):
                if not server.open_connections:
                    break
                await asyncio.sleep(0)
            assert sockets() == before


@pytest.mark.parametrize("tolerant", [False, True])
async def test_a_cancelled_request_leaves_nothing(address: str, tolerant: bool) -> None:
    http = HttpClient()
    async with Server(address, raw(60.0)) as server:
        if tolerant:
            http._remember_lenient((address, server.url.port))
        tasks = [asyncio.create_task(get(http, server)) for _ in range(5)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await http.close()
        assert all(task.cancelled() for task in tasks)


async def test_a_hundred_requests_at_once_are_served(http: HttpClient, address: str) -> None:
    async with Server(address, good()) as server:
        replies = await asyncio.gather(*(get(http, server, seconds=60) for _ in range(100)))
        assert {reply.body for reply in replies} == {DOCUMENT}


# Pieces of the tolerant reader


async def test_the_tolerant_reader_speaks_to_ipv6_addresses() -> None:
    async with Server("::1", good()) as server:
        reply = await ask("GET", server.url, "::1", {"Host": server.url.netloc}, None)
        assert reply[:2] == (200, DOCUMENT)
        assert server.requests[0].header("Host") == f"[::1]:{server.url.port}"


async def test_a_socket_that_cannot_be_bound_is_closed() -> None:
    before = sockets()
    with pytest.raises(OSError, match="assign"):
        open_socket("127.0.0.1", 80, "192.0.2.77")
    assert sockets() == before


@pytest.mark.parametrize("zone", [str(socket.if_nametoindex("lo")), "lo"])
@pytest.mark.parametrize("reply", [good(), raw(b"HTTP/1.1 200\nno colon\n\n" + DOCUMENT)], ids=["aiohttp", "lenient"])
async def test_numbers_are_never_resolved_not_even_with_a_zone(
    http: HttpClient, zone: str, reply: Transmission
) -> None:
    """Which asyncio would do in the executor of the application, and that may be busy."""
    with ThreadPoolExecutor(1) as executor:
        busy = threading.Event()
        asyncio.get_running_loop().set_default_executor(executor)
        executor.submit(busy.wait, 30)
        try:
            async with Server("::1", *[reply] * 3) as server:
                url = server.url.with_host(f"::1%{zone}")
                deadline = asyncio.get_running_loop().time() + 5
                found = await http.request("GET", url, deadline=deadline, source="::1")
                assert found.body == DOCUMENT
        finally:
            busy.set()


async def test_a_zone_that_is_not_there_is_a_transport_error(http: HttpClient) -> None:
    deadline = asyncio.get_running_loop().time() + 5
    with pytest.raises(TransportError):
        await http.request("GET", HttpUrl("fe80::1%nowhere", 9, "/"), deadline=deadline)


async def test_names_are_not_resolved(http: HttpClient) -> None:
    deadline = asyncio.get_running_loop().time() + 5
    with pytest.raises(TransportError, match="is a name"):
        await http.request("GET", HttpUrl("localhost", 9, "/"), deadline=deadline)
