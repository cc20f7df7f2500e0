"""The floor for one mapping: aiohttp alone, sending the same bytes over a connection of its own each.

No checks, no limit that adapts, nothing that is tried again; the reply is read, and not looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

import aiohttp

from aioigd.arguments import check_request
from aioigd.upnp.wire import soap, wan_ip_connection

from .gateway_server import SERVICE

SKIPPED = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")


def bodies(client: str, ports: Iterable[int]) -> list[bytes]:
    """Return the requests that the library would send for these ports, ready to be sent."""
    found = []
    for port in ports:
        request = check_request(port, 0, "benchmark", "TCP", 0, None, "")
        action = wan_ip_connection.add_port_mapping(request, client, request.terms)
        found.append(soap.build_request(SERVICE, action.name, action.arguments))
    return found


def open_session() -> aiohttp.ClientSession:
    """Return a session that sends one request per connection; everything else is aiohttp's default."""
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    return aiohttp.ClientSession(connector=connector, skip_auto_headers=SKIPPED)


async def post(session: aiohttp.ClientSession, control_url: str, body: bytes) -> None:
    """Make one mapping."""
    headers = {
        "Accept-Encoding": "identity",
        "Content-Type": 'text/xml; charset="utf-8"',
        "SOAPAction": f'"{SERVICE}#AddPortMapping"',
    }
    async with session.post(control_url, data=body, headers=headers) as response:
        await response.read()


async def post_all(control_url: str, requests: Sequence[bytes], concurrency: int) -> None:
    """Make all mappings, so many at once."""
    waiting: Iterator[bytes] = iter(requests)

    async def work() -> None:
        for body in waiting:
            await post(session, control_url, body)

    async with open_session() as session:
        await asyncio.gather(*(work() for _ in range(concurrency)))
