"""The server for event messages: only the gateway, only with the secret path, only in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import pytest

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
    server.sid = "uuid:1"
    yield server
    await server.close()


async def say(server: CallbackServer, message: bytes, sender: str = GATEWAY) -> bytes:
    url = parse_url(server.url)
    reader, writer = await asyncio.open_connection(url.host, url.port, local_addr=(sender, 0))
    try:
        writer.write(message)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def event(server: CallbackServer, *, path: str = "", sid: str = "uuid:1", body: bytes = BODY) -> bytes:
    target = path or parse_url(server.url).target
    head = f"NOTIFY {target} HTTP/1.1\r\nNT: upnp:event\r\nNTS: upnp:propchange\r\nSID: {sid}\r\n"
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


async def test_who_is_silent_does_not_keep_it_open(server: CallbackServer) -> None:
    url = parse_url(server.url)
    connections = [await asyncio.open_connection(url.host, url.port) for _ in range(8)]
    await asyncio.sleep(0.05)
    await server.close()
    for reader, writer in connections:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.transport.abort()
