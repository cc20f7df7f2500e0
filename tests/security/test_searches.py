"""What a reply may cause: bounded looks at its sender, hardly any at the router, and no choice.

Only the peer of a TCP connection is who it is; the sender of a datagram can be forged by any device.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest

from aioigd import IGDError, PortMapper
from aioigd.net import names
from aioigd.net.interfaces import Interface
from aioigd.testing import EmulatedGateway, loopback_address, quirks
from aioigd.testing.http import Response
from aioigd.upnp import search as search_module
from aioigd.upnp.reading_plan import GATEWAY_RESERVE, MAX_BYTES, MAX_DEVICES, MAX_REREADS, PER_SENDER
from aioigd.upnp.wire.description import Description, parse_description
from aioigd.upnp.wire.url import HttpUrl

from ..support import Neighbour

pytestmark = [pytest.mark.usefixtures("nothing_is_left"), pytest.mark.one_loop]

REBOOT = "/userRpm/SysRebootRpm.htm?Reboot=Reboot"


@pytest.fixture
def lan(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The address of a client, and of the next hop of its default route."""
    with loopback_address() as client, loopback_address() as router:
        monkeypatch.setattr(search_module, "interfaces", lambda **_: [Interface(client, 1)])
        monkeypatch.setattr(search_module, "default_next_hops", lambda ipv6=False: frozenset({router}))
        yield client, router


async def look_for_a_gateway(seconds: float = 1.2) -> None:
    async with PortMapper(discovery_timeout=seconds, timeout=seconds) as mapper:
        with pytest.raises(IGDError):
            await mapper.get_gateway()


@pytest.mark.waits
async def test_another_device_makes_us_ask_the_router_for_nothing(lan: tuple[str, str]) -> None:
    client, router = lan
    with loopback_address() as elsewhere:
        async with (
            Neighbour(client, router, targets=()) as asked,
            Neighbour(client, elsewhere, serve=lambda _: Response(404)) as liar,
        ):
            liar._locations = [f"http://{router}:{asked.port}{path}" for path in (REBOOT, "/goform/reboot", "/x.xml")]
            await look_for_a_gateway()
            assert asked.requests == []


@pytest.mark.parametrize("target", ["upnp:rootdevice", "urn:schemas-upnp-org:device:InternetGatewayDevice:1"])
@pytest.mark.waits
async def test_replies_forged_in_the_routers_name_cause_four_requests_and_none_with_a_query(
    lan: tuple[str, str], target: str
) -> None:
    """Here the forger has the address of the router, as a forged datagram has it."""
    client, router = lan
    async with Neighbour(client, router, serve=lambda _: Response(404), targets=(target,)) as asked:
        here = f"http://{router}:{asked.port}"
        asked._locations = [here + REBOOT, *(f"{here}/goform/reboot{number}" for number in range(40))]
        await look_for_a_gateway()
        assert len(asked.requests) == PER_SENDER
        assert not any("?" in request.target for request in asked.requests)


@pytest.mark.waits
async def test_a_search_costs_a_bounded_number_of_requests_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []

    def count(document: bytes, url: HttpUrl) -> Description:
        parsed.append(len(document))
        return parse_description(document, url)

    monkeypatch.setattr("aioigd.upnp.probe.parse_description", count)
    async with EmulatedGateway(quirks.long_descriptions, address=None) as gateway:
        async with PortMapper(source_address=gateway.address, discovery_timeout=1.5) as mapper:
            with pytest.raises(IGDError):
                await mapper.get_gateway()
        assert gateway.count("GET") <= MAX_DEVICES + GATEWAY_RESERVE + MAX_REREADS
    assert 0 < sum(parsed) <= 2 * MAX_BYTES


@pytest.mark.waits
async def test_eight_senders_of_long_descriptions_do_not_keep_the_router_from_being_read(lan: tuple[str, str]) -> None:
    client, router = lan
    long = b"<root>" + b"<a/>xxxxxxxxxx" * 18_000 + b"</root>"
    with ExitStack() as stack:
        addresses = [stack.enter_context(loopback_address()) for _ in range(8)]
        async with AsyncExitStack() as network:
            for address in addresses:
                liar = await network.enter_async_context(
                    Neighbour(client, address, serve=lambda _: Response(body=long))
                )
                liar._locations = [f"http://{address}:{liar.port}/{number}" for number in range(4)]
            there = await network.enter_async_context(Neighbour(client, router, delay=0.3))
            async with PortMapper() as mapper:
                assert (await mapper.get_gateway()).device.description_url == there.location


@pytest.mark.usefixtures("beyond_loopback")
async def test_a_silent_name_server_clogs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def silent(_: str) -> list[str]:
        answered.wait(60)
        return []

    monkeypatch.setattr(names, "_look_up", silent)

    async def fail() -> None:
        async with PortMapper(location="http://router.lan/desc.xml", timeout=0.2, discovery_timeout=0.2) as mapper:
            with pytest.raises(IGDError):
                await mapper.add_port_mapping(8080)

    try:
        await asyncio.gather(*(fail() for _ in range(50)))
        assert sum(thread.name == "aioigd-names" for thread in threading.enumerate()) == 1
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 5) == "free"
    finally:
        answered.set()
