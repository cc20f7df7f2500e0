"""Two gateways in one LAN, and a host that has its default route over one of them: which one has its leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from aioigd import LeaseState, PortMapper
from aioigd.core.backend import SearchScope
from aioigd.core.finder import Finder
from aioigd.net.interfaces import Interface
from aioigd.testing import EmulatedGateway
from aioigd.upnp import backend as backend_module
from aioigd.upnp import reboot as reboot_module
from aioigd.upnp import search as search_module
from aioigd.upnp.driver import UpnpDriver
from aioigd.upnp.net.http import HttpClient

pytestmark = [pytest.mark.usefixtures("nothing_is_left"), pytest.mark.one_loop]

PATIENCE = 8.0
"""Seconds: what must happen happens sooner, unless the machine is very busy."""


class Lan:
    """The ``home`` router of the default route, which does not run yet, and another gateway, the ``stopgap``.

    The emulated ones hear what is multicast from their own address, so this host has that of the stopgap.
    """

    def __init__(self, home: EmulatedGateway, stopgap: EmulatedGateway) -> None:
        self.home = home
        self.stopgap = stopgap

    def searches(self) -> int:
        return self.home.count("M-SEARCH")


@pytest.fixture
async def lan(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lan]:
    home = EmulatedGateway(address=None, external_address="11.0.0.1", friendly_name="home")
    async with EmulatedGateway(address=None, external_address="99.0.0.9", friendly_name="stopgap") as stopgap:
        await home.start()
        hop = home.address
        await home.stop()
        for module in (search_module, reboot_module):
            monkeypatch.setattr(module, "interfaces", lambda **_: [Interface(stopgap.address, 1)])
        for module in (search_module, backend_module):
            monkeypatch.setattr(module, "default_next_hops", lambda ipv6=False: frozenset({hop}))
            monkeypatch.setattr(module, "source_address_for", lambda _: stopgap.address)
        yield Lan(home, stopgap)
        await home.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.01)


@asynccontextmanager
async def quick() -> AsyncIterator[PortMapper]:
    async with PortMapper(timeout=4.0, discovery_timeout=2.0) as mapper:
        yield mapper


@pytest.mark.waits
async def test_a_lease_goes_home_when_the_router_announces_itself(lan: Lan) -> None:
    async with quick() as mapper, mapper.lease(8080, proto="TCP", poll_interval=3600.0) as lease:
        assert len(lan.stopgap.mappings) == 1
        await asyncio.sleep(0.1)  # until the leases listen
        await lan.home.start()
        await until(lambda: len(lan.home.mappings) == 1 and not lan.stopgap.mappings)
        await until(lambda: str(lease.external_address) == "11.0.0.1")
        assert lease.state is LeaseState.ACTIVE
        assert (await mapper.get_gateway()).device.friendly_name == "home"
    assert lan.home.mappings == []


@pytest.mark.waits
async def test_a_router_that_says_nothing_is_asked_with_one_datagram_per_poll(
    lan: Lan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reboot_module.UpnpListener, "_is_home", lambda *_: False)
    async with quick() as mapper, mapper.lease(8080, proto="TCP", poll_interval=0.2) as lease:
        await lan.home.start()
        await until(lambda: len(lan.home.mappings) == 1 and not lan.stopgap.mappings)
        assert lan.searches() == 1
        assert lan.home.problems == []
        assert lease.state is LeaseState.ACTIVE


async def test_each_time_it_is_asked_for_another_target(lan: Lan) -> None:
    await lan.home.start()
    http = HttpClient()
    scope = SearchScope()
    finder = Finder([UpnpDriver(scope, http)], scope)
    try:
        for number in range(8):
            device, has_answered = await finder.find_home(lan.home.address, number, 3.0)
            assert has_answered
            assert device is not None
            assert device.friendly_name == "home"
        assert lan.searches() == 8
        assert len({request.target for request in lan.home.requests if request.kind == "M-SEARCH"}) == 3
    finally:
        await http.close()


@pytest.mark.waits
async def test_a_router_that_is_not_there_costs_a_second_and_one_that_describes_itself_late_is_waited_for(
    lan: Lan,
) -> None:
    http = HttpClient()
    scope = SearchScope()
    finder = Finder([UpnpDriver(scope, http)], scope)
    try:
        before = asyncio.get_running_loop().time()
        assert await finder.find_home(lan.home.address, 0, 3.0) == (None, False)
        assert asyncio.get_running_loop().time() - before < 2.0
    finally:
        await http.close()


@pytest.mark.waits
async def test_a_mapper_that_is_bound_to_an_address_knows_no_stopgap(lan: Lan) -> None:
    async with (
        PortMapper(source_address=lan.stopgap.address, timeout=4.0) as mapper,
        mapper.lease(8080, proto="TCP", poll_interval=0.1),
    ):
        await lan.home.start()
        await asyncio.sleep(1.0)
        assert lan.searches() == 0
        assert len(lan.stopgap.mappings) == 1


@pytest.mark.waits
async def test_the_router_is_not_looked_for_while_it_is_in_use(lan: Lan) -> None:
    await lan.home.start()
    async with quick() as mapper, mapper.lease(8080, proto="TCP", poll_interval=0.1) as lease:
        before = lan.searches()
        await asyncio.sleep(1.0)
        assert lan.searches() == before
        assert lease.state is LeaseState.ACTIVE
        assert len(lan.home.mappings) == 1
