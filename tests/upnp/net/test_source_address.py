"""One host may be asked from several of our addresses at once, and each request comes from its own."""

from __future__ import annotations

import asyncio

import pytest

from aioigd.testing import EmulatedGateway, loopback_address
from aioigd.upnp.net.http import HttpClient
from aioigd.upnp.wire.url import parse_url

pytestmark = pytest.mark.usefixtures("nothing_is_left")


async def test_requests_to_one_host_do_not_mix_up_where_they_come_from() -> None:
    client = HttpClient()
    with loopback_address() as one, loopback_address() as other:
        async with EmulatedGateway(address=None) as gateway:
            url = parse_url(gateway.location)
            deadline = asyncio.get_running_loop().time() + 5
            sources = [one, other] * 10
            await asyncio.gather(*(client.request("GET", url, deadline=deadline, source=source) for source in sources))
            assert sorted(request.sender[0] for request in gateway.requests) == sorted(sources)
    await client.close()
