"""The floor of asyncio code: aiohttp alone, sending bytes that were made before (benchmarks/bare.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from urllib.parse import urljoin

import aiohttp

from .. import bare
from ..gateway_server import CONTROL
from .awaited import AsyncAdd, AsyncPeer
from .interface import PORTS

CONCURRENCY = 8
"""The largest window of aioigd's limiter."""


@lru_cache
def _bodies(source: str) -> dict[int, bytes]:
    return dict(zip(PORTS, bare.bodies(source, PORTS), strict=True))


class Bare(AsyncPeer):
    """A connection for each request; eight at once. It knows where the benchmark's gateway is controlled."""

    def session(self) -> aiohttp.ClientSession:
        """Return the session to send with."""
        return bare.open_session()

    @asynccontextmanager
    async def opened(self, location: str) -> AsyncIterator[AsyncAdd]:
        """Make the requests before they are asked for, once for all batches."""
        control_url = urljoin(location, CONTROL)
        bodies = _bodies(self.source)
        async with self.session() as session:
            yield lambda port: bare.post(session, control_url, bodies[port])

    async def at_once(self, add: AsyncAdd, ports: Sequence[int]) -> int:
        """Send with eight tasks."""
        waiting: Iterator[int] = iter(ports)

        async def work() -> int:
            made = 0
            for port in waiting:
                try:
                    await add(port)
                    made += 1
                except aiohttp.ClientError:
                    continue
            return made

        return sum(await asyncio.gather(*(work() for _ in range(CONCURRENCY))))


class BareKeepAlive(Bare):
    """The same over connections that stay open, where the gateway lets them."""

    def session(self) -> aiohttp.ClientSession:
        """Return a session that pools connections."""
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), skip_auto_headers=bare.SKIPPED)
