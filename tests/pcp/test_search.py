"""Who is asked whether it speaks PCP or NAT-PMP, how its answer is taken, and how long others wait for it."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from aioigd.core.backend import NEVER, Candidate, Rank, SearchScope
from aioigd.core.finder import Finder
from aioigd.errors import DiscoveryError, NoRouteError
from aioigd.pcp import search as search_module
from aioigd.pcp.driver import PcpDriver
from aioigd.pcp.search import PATIENCE, hosts_of
from aioigd.results import UPnPResult
from aioigd.testing import EmulatedGateway, Quirk, loopback_address, quirks

from ..leases import virtual
from ..support import sockets
from ..testing.test_gateway import on_linux

Name = Literal["pcp", "nat-pmp"]
by_both = pytest.mark.parametrize("protocol", ["pcp", "nat-pmp"])


# Who is asked


@pytest.mark.parametrize(
    ("scope", "hosts"),
    [
        (SearchScope(), ["10.0.0.1"]),
        (SearchScope(source_address="10.0.0.7"), ["10.0.0.1"]),
        (SearchScope(source_address="192.168.1.7"), []),
        (SearchScope(source_address="127.0.0.2"), ["127.0.0.2"]),
        (SearchScope(source_address="::1"), ["::1"]),
        (SearchScope(host="10.2.0.1"), ["10.2.0.1"]),
        (SearchScope(source_address="127.0.0.2", host="127.0.0.1"), ["127.0.0.1"]),
        (SearchScope(location="http://10.0.0.1/"), []),
        (SearchScope(host="239.255.255.250"), []),  # a group of SSDP
    ],
)
def test_whom_a_search_asks(monkeypatch: pytest.MonkeyPatch, scope: SearchScope, hosts: list[str]) -> None:
    monkeypatch.setattr(search_module, "default_next_hops", lambda *, ipv6: frozenset({"10.0.0.1"}))
    monkeypatch.setattr(search_module, "source_address_for", lambda host: "10.0.0.7")
    assert list(hosts_of(scope)) == hosts


# How its answer is taken


async def find(gateway: EmulatedGateway, protocol: Name, *, timeout: float = 2.0) -> tuple[Rank, float]:
    """Search, and return the rank of what was found and how long it took."""
    scope = SearchScope(source_address=gateway.address)
    loop = asyncio.get_running_loop()
    began = loop.time()
    found: list[Candidate | None] = []
    done = asyncio.Event()

    def report(candidate: Candidate | None) -> None:
        found.append(candidate)
        if candidate is None:
            done.set()

    driver = PcpDriver(protocol, scope, port=gateway.pcp_port)
    async with driver.search(scope, began + timeout, report):
        await done.wait()
    return next((each.rank for each in found if each is not None), Rank.USELESS), loop.time() - began


@by_both
@pytest.mark.parametrize(
    ("quirk", "rank"),
    [
        (None, Rank.CERTAIN),
        ("pcp_refuses_mappings", Rank.CERTAIN),
        ("repeats_replies", Rank.CERTAIN),
        ("forged_replies_first", Rank.CERTAIN),
        ("loses_first_datagrams", Rank.CERTAIN),
    ],
)
async def test_a_router_that_answers_is_certain(protocol: Name, quirk: str | None, rank: Rank) -> None:
    async with EmulatedGateway(*([quirk] if quirk else []), address=None, protocols=("pcp", "nat-pmp")) as gateway:
        assert (await find(gateway, protocol))[0] is rank
        assert gateway.count("MAP") == 0


async def test_without_an_address_it_may_map_all_the_same() -> None:
    async with EmulatedGateway(address=None, protocols=("pcp", "nat-pmp"), external_address="") as gateway:
        assert (await find(gateway, "nat-pmp"))[0] is Rank.LAST_RESORT
        assert (await find(gateway, "pcp"))[0] is Rank.CERTAIN


@pytest.mark.parametrize(("spoken", "asked"), [("nat-pmp", "pcp"), ("pcp", "nat-pmp")])
async def test_who_speaks_the_other_one_says_so_at_once(spoken: Name, asked: Name) -> None:
    async with EmulatedGateway(address=None, protocols=(spoken,)) as gateway:
        rank, _ = await find(gateway, asked, timeout=60.0)
        assert rank is Rank.USELESS
        assert len(gateway.requests) == 1


@by_both
@on_linux
async def test_a_closed_port_ends_the_search_at_once(protocol: Name) -> None:
    with loopback_address() as address:
        scope = SearchScope(source_address=address)
        with pytest.raises(DiscoveryError, match=f"no router answers by {protocol}") as caught:
            await Finder([PcpDriver(protocol, scope)], scope).find_gateway(60.0)
        assert caught.value.result is UPnPResult.NO_DEVICES


@by_both
async def test_where_nothing_can_be_sent_that_is_the_failure(protocol: Name) -> None:
    scope = SearchScope(host="192.0.2.1")
    with pytest.raises(NoRouteError, match="AIOIGD_LOOPBACK_ONLY"):
        await Finder([PcpDriver(protocol, scope)], scope).find_gateway(2.0)


@by_both
async def test_where_nobody_is_to_be_asked_it_ends_at_once(protocol: Name) -> None:
    scope = SearchScope(location="http://127.0.0.1/")
    with pytest.raises(DiscoveryError):
        await Finder([PcpDriver(protocol, scope)], scope).find_gateway(60.0)


# How long others wait for it


@by_both
@on_linux
@pytest.mark.parametrize("quirk", [quirks.silent_port])
def test_others_wait_for_silence_only_briefly(protocol: Name, quirk: Quirk[...]) -> None:
    async def main() -> None:
        async with EmulatedGateway(quirk, address=None, protocols=("pcp", "nat-pmp")) as gateway:
            scope = SearchScope(source_address=gateway.address)
            loop = asyncio.get_running_loop()
            began = loop.time()
            found: list[Candidate | None] = []
            driver = PcpDriver(protocol, scope, port=gateway.pcp_port)
            async with driver.search(scope, began + 30, found.append) as search:
                assert search.may_report_until(Rank.CERTAIN) == pytest.approx(began + PATIENCE, abs=0.01)
                await asyncio.sleep(PATIENCE)
                assert len(gateway.requests) == 3
                await asyncio.sleep(20)
                assert 6 <= len(gateway.requests) <= 8
                await asyncio.sleep(10)
                assert search.may_report_until(Rank.CERTAIN) == NEVER
                assert found == [None]

    virtual.run(main())


@by_both
@on_linux
async def test_a_search_that_is_left_leaves_nothing(protocol: Name) -> None:
    async with EmulatedGateway("silent_port", address=None, protocols=("pcp", "nat-pmp")) as gateway:
        scope = SearchScope(source_address=gateway.address)
        before, tasks = sockets(), asyncio.all_tasks()
        found: list[Candidate | None] = []
        driver = PcpDriver(protocol, scope, port=gateway.pcp_port)
        async with driver.search(scope, asyncio.get_running_loop().time() + 30, found.append):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        assert sockets() == before
        assert asyncio.all_tasks() == tasks
        assert found == []
