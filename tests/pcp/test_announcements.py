"""What a router announces is a hint to look, once for each change, whoever sent it in its name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import pytest

from aioigd.core.backend import Hint, SearchScope
from aioigd.core.finder import Finder
from aioigd.pcp.announcements import AnnouncementListener
from aioigd.pcp.driver import PcpDriver
from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.pcp.wire.common import CLIENT_PORT, GROUP_V4
from aioigd.results import ProtocolName
from aioigd.testing import EmulatedGateway, Quirk, network, quirks

from ..support import sockets
from ..testing.test_gateway import on_linux

pytestmark = on_linux


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.005)


@asynccontextmanager
async def listening(
    *quirks: Quirk[...] | str, protocols: Sequence[ProtocolName] = ("pcp",), follow: bool = True
) -> AsyncIterator[tuple[EmulatedGateway, AnnouncementListener, list[Hint]]]:
    """Listen to a gateway, and yield it with the listener and the hints that that gives."""
    hints: list[Hint] = []
    async with EmulatedGateway(*quirks, address=None, protocols=protocols) as gateway:
        scope = SearchScope(source_address=gateway.address)
        driver = PcpDriver("pcp", scope, port=gateway.pcp_port)
        listener = await driver.listen(hints.append)
        try:
            device, _ = await Finder([driver], scope).find_gateway(2.0)
            listener.follow(driver.connect(device) if follow else None, resubscribe=False)
            yield gateway, listener, hints
        finally:
            await listener.close()


def multicast(address: str, *responses: pcp.Response | nat_pmp.Response) -> None:
    """Send announcements in the name of the router at an address."""
    with network.spare_socket(address) as sender:
        for response in responses:
            is_pcp = isinstance(response, pcp.Response)
            payload = pcp.build_response(response) if is_pcp else nat_pmp.build_response(response)  # type: ignore[arg-type]
            sender.sendto(payload, (GROUP_V4, CLIENT_PORT))


def announcement(epoch: int) -> pcp.Response:
    return pcp.Response(pcp.Opcode.ANNOUNCE, 0, 0, epoch)


@pytest.mark.waits
async def test_a_restart_is_one_hint_however_often_it_is_announced() -> None:
    many = quirks.double_announcements(20)
    async with listening(many, protocols=("pcp", "nat-pmp")) as (gateway, _, hints):
        await gateway.restart()
        await until(lambda: len(hints) >= 2)
        await asyncio.sleep(0.3)
        assert hints == [Hint.RESTARTED] * 2, "one by each protocol"


@pytest.mark.waits
async def test_another_address_is_a_change() -> None:
    first, second = IPv4Address("11.22.33.44"), IPv4Address("11.22.33.55")
    async with listening("announces_nothing") as (gateway, listener, hints):
        listener.note_address(first)
        multicast(gateway.address, nat_pmp.AddressResponse(0, first))
        await until(lambda: hints == [Hint.RESTARTED])
        multicast(gateway.address, *[nat_pmp.AddressResponse(0, second)] * 5)
        await until(lambda: len(hints) > 1)
        await asyncio.sleep(0.05)
        assert hints == [Hint.RESTARTED, Hint.CHANGED]


async def test_an_epoch_that_goes_back_is_a_restart() -> None:
    async with listening("announces_nothing") as (gateway, _, hints):
        multicast(gateway.address, announcement(1000), announcement(1000), announcement(0), announcement(0))
        await until(lambda: len(hints) >= 2)
        await asyncio.sleep(0.05)
        assert hints == [Hint.RESTARTED] * 2


async def test_what_others_announce_is_no_hint() -> None:
    async with listening("announces_nothing") as (gateway, _, hints):
        multicast(network.neighbour_of(gateway.address), announcement(0))
        multicast(
            gateway.address,
            nat_pmp.MapResponse(0, "TCP", 80, 80, 60),
            nat_pmp.Refusal(0, 3, 0),
            pcp.Response(pcp.Opcode.ANNOUNCE, 2, 0, 0),
        )
        await asyncio.sleep(0.05)
        assert hints == []


async def test_where_no_router_is_in_use_none_is_heeded() -> None:
    async with listening("announces_nothing", follow=False) as (gateway, _, hints):
        multicast(gateway.address, announcement(0))
        await asyncio.sleep(0.05)
        assert hints == []


async def test_a_flood_is_read_in_small_portions() -> None:
    async with listening("announces_nothing") as (gateway, _, hints):
        for number in range(200):
            multicast(gateway.address, announcement(1_000_000 * (number % 2)))
        await until(lambda: bool(hints))
        assert len(hints) <= 16


async def test_nothing_is_left_open() -> None:
    before = sockets()
    async with listening() as (_, listener, _hints):
        used = len(sockets())
        listener.refresh()
        assert len(sockets()) == used
        await listener.close()
        await asyncio.sleep(0)
        assert len(sockets()) == used - 1
    await asyncio.sleep(0.01)
    assert sockets() == before


async def test_where_the_interface_has_gone_nothing_is_heard() -> None:
    before = sockets()
    listener = await PcpDriver("pcp", SearchScope(source_address="192.0.2.7")).listen(lambda hint: None)
    assert sockets() == before
    await listener.close()


async def test_the_guard_keeps_it_on_loopback() -> None:
    before = sockets()
    listener = await PcpDriver("nat-pmp", SearchScope()).listen(lambda hint: None)
    assert sockets() == before
    await listener.close()
