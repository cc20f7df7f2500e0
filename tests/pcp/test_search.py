"""Who is asked whether it speaks PCP or NAT-PMP, how its answer is taken, and how long others wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest

from aioigd import PortMapper
from aioigd.core.backend import NEVER, Candidate, Rank, SearchScope
from aioigd.core.finder import Finder
from aioigd.errors import DiscoveryError, NoRouteError
from aioigd.models import Device
from aioigd.net import interfaces as interfaces_module
from aioigd.net.interfaces import Interface, _Route
from aioigd.pcp import search as search_module
from aioigd.pcp.driver import PcpDriver
from aioigd.pcp.search import PATIENCE, PcpSearch, hosts_of
from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.results import ProtocolName, UPnPResult
from aioigd.testing import EmulatedGateway, Hooks, PcpDatagram, Quirk, loopback_address, quirk, quirks

from ..leases import virtual
from ..support import sockets
from ..testing.test_gateway import on_linux
from .loops import has_no_readers

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


def test_over_ipv6_a_link_local_next_hop_has_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = [
        _Route(1024, "fe80::2", "eth1"),
        _Route(100, "fe80::1", "eth0"),
        _Route(100, "2001:db8::1", "eth0"),
        _Route(1, None, "tun0"),
    ]
    ours = [Interface("2001:db8::7", 2, 64, (), "eth1")]
    monkeypatch.setattr(interfaces_module, "_default_routes", lambda *, ipv6: routes if ipv6 else [])
    monkeypatch.setattr(interfaces_module, "all_addresses", lambda: ours)
    assert list(hosts_of(SearchScope(ipv6=True))) == ["2001:db8::1", "fe80::1%eth0"]
    assert list(hosts_of(SearchScope(source_address="2001:db8::7"))) == ["fe80::2%eth1"]
    assert list(hosts_of(SearchScope(source_address="2001:db8::8"))) == []


@by_both
async def test_a_router_that_is_known_may_be_asked_at_once(protocol: Name, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = PcpDriver(protocol, SearchScope(host="127.0.0.1", port=4321))
    device = driver.presume()
    assert device is not None
    assert (device.protocol, device.address, device.igd_our_addr) == (protocol, "127.0.0.1:4321", "127.0.0.1")
    backend = driver.connect(device)
    assert backend is not None
    assert backend.address == "127.0.0.1"
    anycast = PcpDriver(protocol, SearchScope(host="192.0.0.9", source_address="127.0.0.1")).presume()
    assert anycast is not None
    assert anycast.address == "192.0.0.9"
    monkeypatch.setattr(search_module, "default_next_hops", lambda *, ipv6: frozenset({"10.0.0.1", "10.0.0.2"}))
    assert PcpDriver(protocol, SearchScope()).presume() is None
    monkeypatch.setattr(search_module, "default_next_hops", lambda *, ipv6: frozenset())
    assert PcpDriver(protocol, SearchScope()).presume() is None
    assert PcpDriver(protocol, SearchScope(location="http://127.0.0.1/")).presume() is None


@by_both
async def test_what_is_presumed_is_what_is_found(protocol: Name) -> None:
    async with EmulatedGateway(address=None, protocols=("pcp", "nat-pmp")) as gateway:
        for scope in (
            SearchScope(host=gateway.address, port=gateway.pcp_port),
            SearchScope(host=gateway.address, port=gateway.pcp_port, source_address="127.0.0.1"),
        ):
            driver = PcpDriver(protocol, scope)
            device, _ = await Finder([driver], scope).find_gateway(2.0)
            assert driver.presume() == device


async def test_one_router_with_two_protocols_is_two_candidates() -> None:
    async with EmulatedGateway(address=None, protocols=("pcp", "nat-pmp")) as gateway:
        scope = SearchScope(host=gateway.address, port=gateway.pcp_port)
        finder = Finder([PcpDriver("pcp", scope), PcpDriver("nat-pmp", scope)], scope)
        found = await finder.discover(0.1, 2, "InternetGatewayDevice")
        assert sorted(device.protocol for device in found) == ["nat-pmp", "pcp"]


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
@pytest.mark.waits
async def test_a_router_that_answers_is_certain(protocol: Name, quirk: str | None, rank: Rank) -> None:
    async with EmulatedGateway(*([quirk] if quirk else []), address=None, protocols=("pcp", "nat-pmp")) as gateway:
        assert (await find(gateway, protocol))[0] is rank
        assert gateway.count("MAP") == 0


async def test_without_an_address_it_may_map_all_the_same() -> None:
    async with EmulatedGateway(address=None, protocols=("pcp", "nat-pmp"), external_address="") as gateway:
        assert (await find(gateway, "nat-pmp"))[0] is Rank.LAST_RESORT
        assert (await find(gateway, "pcp"))[0] is Rank.CERTAIN


@pytest.mark.parametrize(
    ("result", "rank"),
    [
        (pcp.ResultCode.UNSUPP_OPCODE, Rank.CERTAIN),
        (pcp.ResultCode.NOT_AUTHORIZED, Rank.USELESS),
    ],
)
async def test_a_refused_announce_may_show_a_server(result: pcp.ResultCode, rank: Rank) -> None:
    @quirk("pcp", reason="ANNOUNCE is the newest of the opcodes.", source="this test")
    def refuses_announce() -> Hooks:
        """Refuses every request."""
        return Hooks(pcp_action=lambda query, proceed: proceed(replace(query, request=result)))

    async with EmulatedGateway(refuses_announce, address=None, protocols=("pcp",)) as gateway:
        assert (await find(gateway, "pcp"))[0] is rank


@by_both
async def test_a_forged_refusal_does_not_end_the_search(protocol: Name) -> None:
    """It needs only the port; the true answer comes a moment later."""
    refusals = (
        nat_pmp.build_response(nat_pmp.Refusal(0, nat_pmp.ResultCode.UNSUPPORTED_VERSION, 0)),
        pcp.build_response(pcp.Response(pcp.Opcode.ANNOUNCE, pcp.ResultCode.NOT_AUTHORIZED, 0, 0)),
        pcp.build_response(pcp.Response(pcp.Opcode.ANNOUNCE, pcp.ResultCode.UNSUPP_VERSION, 0, 0)),
    )

    @quirk("pcp", reason="Sockets can be guessed.", source="this test")
    def forged_refusals() -> Hooks:
        """Sends refusals before the answer."""
        return Hooks(
            pcp_datagrams=lambda query, sent: [
                *map(PcpDatagram, refusals),
                *(replace(each, delay=0.01) for each in sent),
            ]
        )

    async with EmulatedGateway(forged_refusals, address=None, protocols=("pcp", "nat-pmp")) as gateway:
        assert (await find(gateway, protocol))[0] is Rank.CERTAIN
        assert len(gateway.requests) == 1


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
        with pytest.raises(DiscoveryError, match=f"no router answers by {protocol.upper()}") as caught:
            await Finder([PcpDriver(protocol, scope)], scope).find_gateway(60.0)
        assert caught.value.result is UPnPResult.NO_DEVICES


@pytest.mark.parametrize("protocols", [("pcp", "nat-pmp"), ("nat-pmp",), ("upnp",)], ids=str)
@pytest.mark.waits
async def test_a_gateway_that_was_named_and_is_silent_is_named_by_the_failure(
    protocols: tuple[ProtocolName, ...],
) -> None:
    with loopback_address() as address:
        async with PortMapper(gateway=address, protocols=protocols, discovery_timeout=0.2) as mapper:
            with pytest.raises(DiscoveryError, match=f" at {address}") as caught:
                await mapper.get_gateway()
        assert caught.value.result is UPnPResult.NO_DEVICES


@by_both
async def test_where_no_default_route_is_known_the_error_says_what_to_do(
    protocol: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows and macOS."""
    monkeypatch.setattr(search_module, "default_next_hops", lambda *, ipv6: frozenset())
    scope = SearchScope()
    with pytest.raises(DiscoveryError, match=f"by {protocol.upper()}: no default route is known .* gateway") as caught:
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


def upnp_device(host: str) -> Device:
    return Device(description_url=f"http://{host}:5000/rootDesc.xml")


@by_both
@on_linux
@pytest.mark.parametrize(
    ("after", "device", "patience"),
    [
        (0.005, lambda host: upnp_device(host), 0.25),
        (0.1, lambda host: upnp_device(host), 0.3),
        (0.8, lambda host: upnp_device(host), PATIENCE),
        (0.1, lambda host: Device(protocol="pcp", address=f"{host}:1234"), {"pcp": PATIENCE, "nat-pmp": 0.3}),
        (0.1, lambda host: Device(protocol="nat-pmp", address=host), {"pcp": 0.3, "nat-pmp": PATIENCE}),
        (0.1, lambda host: upnp_device("127.0.0.1"), PATIENCE),
        (0.1, lambda host: Device(description_url="http://[::1/"), PATIENCE),
    ],
)
def test_who_answers_by_another_protocol_is_waited_for_less(
    protocol: Name, after: float, device: Callable[[str], Device], patience: float | dict[Name, float]
) -> None:
    """A router that drops PCP silently and speaks NAT-PMP costs no more than it took to find that out."""
    expected = patience[protocol] if isinstance(patience, dict) else patience

    async def main() -> None:
        async with EmulatedGateway("silent_port", address=None, protocols=("pcp", "nat-pmp")) as gateway:
            loop = asyncio.get_running_loop()
            began = loop.time()
            found: list[Candidate | None] = []
            scope = SearchScope(source_address=gateway.address)
            search = PcpSearch(protocol, scope, gateway.pcp_port, began + 30, found.append)
            async with search:
                await asyncio.sleep(after)
                search.note_candidate(Candidate(device(gateway.address), Rank.CERTAIN))
                assert search.may_report_until(Rank.CERTAIN) == pytest.approx(began + expected, abs=0.001)
                await asyncio.sleep(1.0)
                assert len(gateway.requests) >= 3, "the search goes on"

    virtual.run(main())


@by_both
@on_linux
def test_a_look_for_home_is_one_datagram(protocol: Name) -> None:
    async def main() -> None:
        async with EmulatedGateway("silent_port", address=None, protocols=("pcp", "nat-pmp")) as gateway:
            scope = SearchScope(source_address=gateway.address)
            finder = Finder([PcpDriver(protocol, scope, port=gateway.pcp_port)], scope)
            assert await finder.find_home(gateway.address, 1, 30.0) == (None, False)
            assert len(gateway.requests) == 1

    virtual.run(main())


@by_both
@on_linux
async def test_where_nobody_listens_a_search_is_over_when_it_begins(protocol: Name) -> None:
    with loopback_address() as address:
        scope = SearchScope(source_address=address)
        found: list[Candidate | None] = []
        before = asyncio.all_tasks()
        async with PcpDriver(protocol, scope).search(
            scope, asyncio.get_running_loop().time() + 30, found.append
        ) as search:
            assert found == [None]
            assert search.may_report_until(Rank.CERTAIN) == NEVER
            assert asyncio.all_tasks() == before


@by_both
@pytest.mark.waits
async def test_a_loop_without_readers_will_do(protocol: Name, monkeypatch: pytest.MonkeyPatch) -> None:
    async with EmulatedGateway("loses_first_datagrams", address=None, protocols=("pcp", "nat-pmp")) as gateway:
        has_no_readers(monkeypatch)
        assert (await find(gateway, protocol))[0] is Rank.CERTAIN


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
