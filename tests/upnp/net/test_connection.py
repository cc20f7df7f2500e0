"""Connections that do not come about, whichever way a request goes, and requests that end at any step of one."""

from __future__ import annotations

import asyncio
import errno
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aioigd import IGDError, NoRouteError, TransportError
from aioigd.net.guard import VARIABLE
from aioigd.upnp.net import connection, kept_connections
from aioigd.upnp.net.http import HttpClient
from aioigd.upnp.net.kept_connections import Keep, KeptConnections
from aioigd.upnp.wire.http_reply import HttpReply
from aioigd.upnp.wire.url import HttpUrl

from .server import Server, good

pytestmark = pytest.mark.usefixtures("nothing_is_left")

STEPS = 40
"""More iterations of the loop than a request takes on a machine that is not busy."""


class Way:
    """Sends requests by aiohttp, by the tolerant reader, or over connections that are to be kept."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.http = HttpClient()

    async def get(self, url: HttpUrl, source: str = "") -> HttpReply:
        if self.name == "lenient":
            self.http._remember_lenient((url.host, url.port))
        keep = Keep(KeptConnections(), 1) if self.name == "kept" else None
        deadline = asyncio.get_running_loop().time() + 5
        return await self.http.request("GET", url, deadline=deadline, source=source, keep=keep)


@pytest.fixture(params=["aiohttp", "lenient", "kept"])
async def way(request: pytest.FixtureRequest) -> AsyncIterator[Way]:
    way = Way(request.param)
    yield way
    await way.http.close()


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("127.0.0.1", "192.0.2.77"),
        ("127.0.0.1", "::1"),
        ("::1", "127.0.0.1"),
        ("::1%nowhere", ""),
        ("::1%4294967297", ""),
        ("::1%" + "9" * 5000, ""),
        ("localhost", ""),
    ],
)
async def test_where_nothing_was_sent_nothing_has_arrived(way: Way, host: str, source: str) -> None:
    with pytest.raises(TransportError) as caught:
        await way.get(HttpUrl(host, 9, "/"), source)
    assert not caught.value.may_have_arrived


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ETIMEDOUT]
)
async def test_whatever_the_system_says_it_is_no_deadline(
    way: Way, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, "it says")

    for module in (connection, kept_connections):
        monkeypatch.setattr(module, "open_socket", fail)
    with pytest.raises(TransportError) as caught:
        await way.get(HttpUrl("127.0.0.1", 9, "/"))
    assert not caught.value.may_have_arrived


async def test_the_zone_reaches_the_system(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on uvloop, which drops it from the address. Without one, a link-local address is an invalid argument."""
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(TransportError) as caught:
        await way.get(HttpUrl("fe80::1%99999999", 9, "/"))  # no interface: nothing is sent
    assert "Invalid argument" not in str(caught.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "fe80::1%1", "::ffff:192.0.2.1", "example.org"])
async def test_the_guard_lets_nothing_beyond_loopback(way: Way, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(NoRouteError):
        await way.get(HttpUrl(host, 9, "/"))


@pytest.mark.parametrize("closes", [False, True], ids=["cancelled", "closed"])
async def test_a_request_that_ends_at_any_step_leaves_nothing(way: Way, address: str, closes: bool) -> None:
    async with Server(address, good()) as server:
        steps, outcome = 0, None
        while steps < STEPS or not isinstance(outcome, HttpReply):  # a machine that is busy needs more of them
            task = asyncio.ensure_future(way.get(server.url))
            for _ in range(steps):
                await asyncio.sleep(0)
            if closes:
                await way.http.close()
            else:
                task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(outcome, HttpReply | (IGDError if closes else asyncio.CancelledError))
            steps += 1 if steps < STEPS else steps
    gc.collect()  # "Unclosed connection" is said by a destructor
