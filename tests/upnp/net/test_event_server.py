"""The server for event messages: only the gateway, only with the secret path, only in time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Mapping

import pytest

from aioigd.upnp.net import event_server
from aioigd.upnp.net.event_server import CallbackServer
from aioigd.upnp.wire.url import parse_url

pytestmark = pytest.mark.usefixtures("nothing_is_left")

GATEWAY = "127.0.0.1"
BODY = b"<p><property><ExternalIPAddress>1.2.3.4</ExternalIPAddress></property></p>"


@pytest.fixture
async def heard() -> list[Mapping[str, str]]:
    return []


@pytest.fixture
async def server(heard: list[Mapping[str, str]]) -> AsyncIterator[CallbackServer]:
    server = CallbackServer(GATEWAY, "127.0.0.1", lambda values, _: heard.append(values))
    await server.open()
    server.subscribed("uuid:1")
    yield server
    await server.close()


async def hang_up(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def say(server: CallbackServer, message: bytes, sender: str = GATEWAY) -> bytes:
    url = parse_url(server.url)
    try:
        reader, writer = await asyncio.open_connection(url.host, url.port, local_addr=(sender, 0))
    except ConnectionError:
        return b""
    try:
        writer.write(message)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def event(server: CallbackServer, *, path: str = "", sid: str = "uuid:1", seq: int = 0, body: bytes = BODY) -> bytes:
    target = path or parse_url(server.url).target
    head = f"NOTIFY {target} HTTP/1.1\r\nNT: upnp:event\r\nNTS: upnp:propchange\r\nSID: {sid}\r\nSEQ: {seq}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def test_an_event_of_the_gateway_is_heard(server: CallbackServer, heard: list[Mapping[str, str]]) -> None:
    assert b" 200 " in await say(server, event(server))
    assert heard == [{"externalipaddress": "1.2.3.4"}]


async def test_others_are_not(server: CallbackServer, heard: list[Mapping[str, str]]) -> None:
    assert await say(server, event(server), "127.0.0.9") == b""
    assert b" 404 " in await say(server, event(server, path="/guess"))
    assert b" 412 " in await say(server, event(server, sid="uuid:2"))
    assert b" 400 " in await say(server, event(server, body=b"<!DOCTYPE x><p/>"))
    assert b" 400 " in await say(server, b"GET / HTTP/1.1\r\n\r\n")
    assert await say(server, b"x" * 100_000) == b""
    assert heard == []


async def test_one_that_comes_before_the_reply_to_the_subscribe_is_heard_after_it(
    server: CallbackServer, heard: list[Mapping[str, str]]
) -> None:
    server.subscribed("")
    assert b" 200 " in await say(server, event(server, sid="uuid:2"))
    assert b" 200 " in await say(server, event(server, sid="uuid:stranger"))
    assert heard == []
    server.subscribed("uuid:2")
    assert heard == [{"externalipaddress": "1.2.3.4"}]
    server.subscribed("uuid:2")
    assert len(heard) == 1


async def test_a_message_in_pieces_is_heard(server: CallbackServer, heard: list[Mapping[str, str]]) -> None:
    url = parse_url(server.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    for byte in event(server):
        writer.write(bytes((byte,)))
        await asyncio.sleep(0)
    assert b" 200 " in await reader.read()
    await hang_up(writer)
    assert len(heard) == 1


@pytest.mark.parametrize("words", [b"", b"NOTIFY "], ids=["silent", "slow"])
async def test_idle_connections_of_the_gateway_do_not_make_it_deaf(
    server: CallbackServer, heard: list[Mapping[str, str]], words: bytes
) -> None:
    url = parse_url(server.url)
    idle = []
    for _ in range(20):
        idle.append(await asyncio.open_connection(url.host, url.port))
        idle[-1][1].write(words)
    async with asyncio.timeout(1.0):
        for number in range(5):
            assert b" 200 " in await say(server, event(server, seq=number))
        assert await idle[0][0].read() == b"", "the oldest gives way"
    assert len(heard) == 5
    await hang_up(*(writer for _, writer in idle))


@pytest.mark.waits
async def test_one_that_goes_on_speaking_does_not_give_way(server: CallbackServer) -> None:
    url = parse_url(server.url)
    slow, slow_writer = await asyncio.open_connection(url.host, url.port)
    message = event(server)
    idle = []
    for start in range(0, len(message), 10):
        slow_writer.write(message[start : start + 10])
        await asyncio.sleep(0.01)
        idle.append(await asyncio.open_connection(url.host, url.port))
    assert len(idle) > 16
    assert b" 200 " in await slow.read()
    await hang_up(slow_writer, *(writer for _, writer in idle))


async def test_strangers_take_no_slot(server: CallbackServer, heard: list[Mapping[str, str]]) -> None:
    url = parse_url(server.url)
    with contextlib.ExitStack() as strangers:
        for _ in range(100):  # more than the server accepts at once, and fewer than its backlog
            stranger = strangers.enter_context(socket.socket())
            stranger.setblocking(False)
            stranger.bind(("127.0.0.9", 0))
            stranger.connect_ex((url.host, url.port))
        async with asyncio.timeout(2.0):
            assert b" 200 " in await say(server, event(server))
    assert len(heard) == 1


@pytest.mark.one_loop
async def test_it_listens_on_an_event_loop_without_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    def add_reader(*_: object) -> None:
        raise NotImplementedError

    heard: list[Mapping[str, str]] = []
    server = CallbackServer(GATEWAY, "127.0.0.1", lambda values, _: heard.append(values))
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "add_reader", add_reader)
        await server.open()
    server.subscribed("uuid:1")
    assert await say(server, event(server), "127.0.0.9") == b""
    assert b" 200 " in await say(server, event(server))
    assert len(heard) == 1
    await server.close()


@pytest.mark.one_loop
async def test_where_no_connection_can_be_accepted_it_tries_again(
    server: CallbackServer, heard: list[Mapping[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_server, "_ACCEPT_PAUSE", 0.05)
    accepting = socket.socket.accept
    failures = [OSError(errno.EMFILE, "too many open files"), ConnectionAbortedError()]

    def accept(listener: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise failures.pop()
        return accepting(listener)

    monkeypatch.setattr(socket.socket, "accept", accept)
    assert b" 200 " in await say(server, event(server))
    assert (len(heard), failures) == (1, [])


async def test_who_is_silent_does_not_keep_it_open(server: CallbackServer) -> None:
    url = parse_url(server.url)
    connections = [await asyncio.open_connection(url.host, url.port) for _ in range(8)]
    await asyncio.sleep(0.05)
    await server.close()
    for reader, writer in connections:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.transport.abort()
