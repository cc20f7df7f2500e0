"""Mappings by PCP and NAT-PMP through the core: the same promises by both protocols."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Literal

import pytest

from aioigd.core.backend import Backend, Hint, SearchScope
from aioigd.core.calls import CallQueue, Operation
from aioigd.core.dispatcher import Dispatcher
from aioigd.core.finder import Finder
from aioigd.core.gateway_cache import GatewayCache
from aioigd.errors import (
    ConflictError,
    DeadlineError,
    DiscoveryError,
    InvalidResponseError,
    NoRouteError,
    RefusedError,
    TransportError,
    UnsupportedError,
)
from aioigd.models import MappingKey, MappingRequest, Pinhole, PinholeRequest, PortMapping, Proto, Terms
from aioigd.pcp.backend import LONGEST_LIFETIME, join_address, split_address
from aioigd.pcp.driver import PcpDriver
from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.results import UPnPResult
from aioigd.testing import EmulatedGateway, Hooks, PcpProceed, PcpQuery, PcpReply, Quirk, quirk, quirks
from aioigd.testing.network import neighbour_of

from ..leases import virtual
from ..testing.test_gateway import on_linux

Name = Literal["pcp", "nat-pmp"]
BOTH: Sequence[Name] = ("pcp", "nat-pmp")
by_both = pytest.mark.parametrize("protocol", BOTH)


class Core:
    """The core with one driver, as a mapper makes it."""

    def __init__(
        self, gateway: EmulatedGateway, protocol: Name, *, timeout: float = 10.0, secret: bytes = b"s"
    ) -> None:
        scope = SearchScope(source_address=gateway.address)
        self.driver = PcpDriver(protocol, scope, port=gateway.pcp_port, secret=secret)
        self.queue = CallQueue()
        self.finder = Finder([self.driver], scope)
        self.cache = GatewayCache([self.driver], self.finder, self.queue, discovery_timeout=2.0)
        self.dispatcher = Dispatcher(self.queue, self.cache, timeout)

    async def add(
        self,
        port: int,
        internal_port: int = 0,
        proto: Proto = "TCP",
        duration: int = 3600,
        *,
        client: str = "",
        remote_host: str = "",
        overwrite: bool = True,
    ) -> PortMapping:
        key = MappingKey(port, proto, remote_host)
        request = MappingRequest(key, internal_port or port, client, Terms("my server", duration))
        return await self.dispatcher.add(request, overwrite=overwrite)

    async def delete(self, port: int, proto: Proto = "TCP") -> None:
        await self.dispatcher.delete(MappingKey(port, proto))

    async def backend(self) -> Backend:
        return await self.cache.find()


@asynccontextmanager
async def served(
    protocol: Name, *quirks: Quirk[...] | str, timeout: float = 10.0, address: str | None = None
) -> AsyncIterator[tuple[EmulatedGateway, Core]]:
    async with EmulatedGateway(*quirks, address=address, protocols=BOTH) as gateway:
        core = Core(gateway, protocol, timeout=timeout)
        try:
            yield gateway, core
        finally:
            await core.queue.drain()
            await core.driver.close()


async def until_mapping(gateway: EmulatedGateway, times: int) -> None:
    while gateway.count("MAP") < times:  # noqa: ASYNC110 (the record tells nobody that it grows)
        await asyncio.sleep(0.001)


def ports(gateway: EmulatedGateway) -> list[int]:
    return sorted(each.external_port for each in gateway.mappings)


@by_both
async def test_a_port_is_mapped_and_deleted(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        mapping = await core.add(8080, 80)
        assert mapping == PortMapping(8080, 80, gateway.address, "TCP", "", 3600)
        assert ports(gateway) == [8080]
        assert [each.action for each in gateway.requests] == ["ANNOUNCE" if protocol == "pcp" else "ADDRESS", "MAP"]
        await core.delete(8080)
        assert ports(gateway) == []
        assert gateway.problems == []


@by_both
async def test_a_renewal_is_one_datagram(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        for _ in range(3):
            await core.add(8080, 80)
        assert gateway.count("MAP") == 3
        assert ports(gateway) == [8080]


@by_both
async def test_no_limit_is_a_week(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        mapping = await core.add(8080, duration=0)
        assert mapping.duration == (86_400 if protocol == "pcp" else LONGEST_LIFETIME)
        assert gateway.requests[-1].arguments["lifetime"] == str(LONGEST_LIFETIME)


@by_both
async def test_what_is_granted_is_what_is_told(protocol: Name) -> None:
    async with served(protocol, "grants_lifetime") as (_, core):
        assert (await core.add(8080)).duration == 60


@by_both
@pytest.mark.parametrize("overwrite", [True, False])
async def test_the_port_of_another_host_is_a_conflict_and_nothing_stays(protocol: Name, overwrite: bool) -> None:
    async with served(protocol) as (gateway, core):
        theirs = gateway.add_mapping(8080, proto="TCP")
        with pytest.raises(ConflictError):
            await core.add(8080, 80, overwrite=overwrite)
        assert gateway.mappings == [theirs]
        assert gateway.problems == []


@by_both
@pytest.mark.parametrize("name", ["assigns_own_ports", "internal_port_only"])
async def test_another_port_than_this_one_is_a_conflict_and_nothing_stays(protocol: Name, name: str) -> None:
    async with served(protocol, name) as (gateway, core):
        with pytest.raises(ConflictError):
            await core.add(8080, 80)
        assert gateway.mappings == []


async def test_another_port_is_given_back_where_failure_cannot_be_preferred() -> None:
    @quirk("pcp", reason="Options are optional.", source="this test")
    def knows_no_options() -> Hooks:
        """Refuses requests with options, as UNSUPP_OPTION."""

        def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
            has_options = isinstance(query.request, pcp.Request) and query.request.options
            return proceed(replace(query, request=pcp.ResultCode.UNSUPP_OPTION) if has_options else query)

        return Hooks(pcp_action=act)

    async with served("pcp", knows_no_options) as (gateway, core):
        await core.add(8080, 80)
        gateway.add_mapping(9090, proto="TCP")
        with pytest.raises(ConflictError):
            await core.add(9090, 90)
        assert ports(gateway) == [8080, 9090]
        with pytest.raises(RefusedError) as caught:
            await core.add(7070, remote_host="192.0.2.1")
        assert caught.value.result is UPnPResult.REMOTE_HOST_MUST_BE_WILDCARD


@by_both
async def test_a_port_that_is_mapped_is_not_moved(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        await core.add(8080, 80)
        with pytest.raises(ConflictError, match="external port 8080 already"):
            await core.add(9090, 80)
        assert ports(gateway) == [8080]
        await core.delete(8080)
        await core.add(9090, 80)
        assert ports(gateway) == [9090]


@by_both
@pytest.mark.parametrize("name", ["moves_second_port", "keeps_first_port", "adds_second_port"])
async def test_of_two_ports_for_one_at_once_one_is_had(protocol: Name, name: str) -> None:
    async with served(protocol, name) as (gateway, core):
        outcomes = await asyncio.gather(core.add(8080, 80), core.add(9090, 80), return_exceptions=True)
        mapped = [each.external_port for each in outcomes if isinstance(each, PortMapping)]
        assert len(mapped) == sum(isinstance(each, ConflictError) for each in outcomes) == 1
        assert ports(gateway) == mapped


@by_both
async def test_any_port_is_taken_where_that_was_asked_for(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        gateway.add_mapping(8080, proto="TCP")
        request = MappingRequest(MappingKey(8080, "TCP"), 80, "", Terms("", 600))
        assert (await core.dispatcher.add_any(request)).external_port == 8081


@by_both
async def test_what_cannot_be_asked_is_unsupported(protocol: Name) -> None:
    async with served(protocol) as (_, core):
        with pytest.raises(UnsupportedError) as caught:
            await core.dispatcher.find(MappingKey(8080, "TCP"))
        assert caught.value.result is UPnPResult.INVALID_GATEWAY


# Deleting


@by_both
async def test_a_mapping_of_an_earlier_run_is_deleted_by_its_number(protocol: Name) -> None:
    async with EmulatedGateway(address=None, protocols=BOTH) as gateway:
        for _ in range(2):
            core = Core(gateway, protocol)
            await core.add(8080)
        await Core(gateway, protocol).delete(8080)
        assert gateway.mappings == []


async def test_a_mapping_with_another_secret_stays() -> None:
    async with EmulatedGateway(address=None, protocols=BOTH) as gateway:
        await Core(gateway, "pcp").add(8080)
        stranger = Core(gateway, "pcp", secret=b"another")
        for work in (stranger.add(8080), stranger.delete(8080)):
            with pytest.raises(RefusedError) as caught:
                await work
            assert caught.value.result is UPnPResult.NOT_AUTHORIZED
        assert ports(gateway) == [8080]


async def test_a_strict_router_deletes_too() -> None:
    async with served("pcp", "strict_deletions") as (gateway, core):
        await core.add(8080, 80)
        await core.delete(8080)
        assert gateway.mappings == []


# Other hosts


async def test_pcp_maps_for_a_third_party() -> None:
    async with served("pcp") as (gateway, core):
        assert (await core.add(8080, client="192.168.1.9")).internal_client == "192.168.1.9"
        await core.delete(8080)
        assert gateway.mappings == []


async def test_what_would_lead_elsewhere_is_refused() -> None:
    async with served("nat-pmp") as (gateway, core):
        with pytest.raises(RefusedError, match="NAT-PMP maps ports of") as caught:
            await core.add(8080, client="192.168.1.9")
        assert caught.value.result is UPnPResult.NOT_AUTHORIZED
        with pytest.raises(RefusedError) as caught:
            await core.add(8080, remote_host="192.0.2.1")
        assert caught.value.result is UPnPResult.REMOTE_HOST_MUST_BE_WILDCARD
        assert gateway.count("MAP") == 0
    async with served("pcp", "refuses_third_party") as (gateway, core):
        with pytest.raises(RefusedError) as caught:
            await core.add(8080, client="192.168.1.9")
        assert caught.value.result is UPnPResult.NOT_AUTHORIZED


async def test_a_remote_host_is_a_filter() -> None:
    async with served("pcp") as (gateway, core):
        mapping = await core.add(8080, remote_host="192.0.2.1")
        assert mapping.remote_host == "192.0.2.1"
        entry = gateway.entry(8080, "TCP", "192.0.2.1")
        assert entry is not None
        assert entry.filters == (pcp.Filter(128, 0, IPv4Address("192.0.2.1")),)
        with pytest.raises(RefusedError, match="not by 'example'"):
            await core.add(9090, remote_host="example")


# The external address


async def test_nat_pmp_asks_for_the_address() -> None:
    async with served("nat-pmp") as (gateway, core):
        assert await core.dispatcher.external_address() == IPv4Address("11.22.33.44")
        assert gateway.count("MAP") == 0


async def test_pcp_tells_the_address_of_the_last_mapping() -> None:
    async with served("pcp") as (gateway, core):
        await core.add(8080)
        assert await core.dispatcher.external_address() == IPv4Address("11.22.33.44")
        assert gateway.count("MAP") == 1


async def test_without_a_mapping_pcp_makes_one_for_it_and_deletes_it() -> None:
    async with served("pcp") as (gateway, core):
        assert await core.dispatcher.external_address() == IPv4Address("11.22.33.44")
        assert gateway.mappings == []
        assert [each.arguments.get("lifetime") for each in gateway.requests] == [None, "120", "0"]
        assert await core.dispatcher.external_address() == IPv4Address("11.22.33.44")
        assert gateway.count("MAP") == 2


@by_both
async def test_an_address_that_is_none_is_no_answer(protocol: Name) -> None:
    async with served(protocol, quirks.unspecified_address_at_first(100)) as (gateway, core):
        with pytest.raises(InvalidResponseError):
            await core.dispatcher.external_address()
        assert gateway.mappings == []


# What is believed


@by_both
async def test_forged_replies_are_not_believed(protocol: Name) -> None:
    async with served(protocol, "forged_replies_first") as (gateway, core):
        assert (await core.add(8080, 80)).external_port == 8080
        assert gateway.count("MAP") == 1


@by_both
@pytest.mark.parametrize("name", ["pcp_from_other_address", "pcp_from_other_port", "silent_port"])
@on_linux
@pytest.mark.waits
async def test_who_answers_from_elsewhere_is_not_there(protocol: Name, name: str) -> None:
    async with served(protocol, name) as (_, core):
        with pytest.raises(DiscoveryError) as caught:
            await core.finder.find_gateway(0.1)
        assert caught.value.result is UPnPResult.NO_DEVICES


@by_both
async def test_a_mapping_without_lifetime_is_none(protocol: Name) -> None:
    @quirk("pcp", reason="To test it.", source="this test")
    def lifetime_of_0() -> Hooks:
        """Grants mappings with a lifetime of 0."""

        def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
            reply = proceed(query)
            is_mapping = isinstance(reply, pcp.Response | nat_pmp.MapResponse)
            return replace(reply, lifetime=0) if is_mapping else reply  # type: ignore[type-var]

        return Hooks(pcp_action=act)

    async with served(protocol, lifetime_of_0) as (_, core):
        with pytest.raises(InvalidResponseError):
            await core.add(8080)


# What goes wrong


@by_both
async def test_refusals_have_their_results(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        await core.backend()
        gateway.connected = False
        with pytest.raises(RefusedError) as caught:
            await core.add(8080)
        assert caught.value.result is UPnPResult.ACTION_FAILED
        assert caught.value.error_code == (7 if protocol == "pcp" else 3)
        (attempt,) = caught.value.attempts
        assert (attempt.action, attempt.result) == ("MAP", UPnPResult.ACTION_FAILED)
        assert attempt.arguments["external_port"] == "8080"


@by_both
async def test_a_router_that_went_away_is_searched_for(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        await core.add(8080)
        await gateway.stop(polite=False)
        with pytest.raises(TransportError):
            await core.add(8081)


@by_both
@pytest.mark.parametrize("name", ["loses_first_datagrams", "repeats_replies", "slow_pcp", "errors_without_lifetime"])
@pytest.mark.waits
async def test_ports_are_mapped_all_the_same(protocol: Name, name: str) -> None:
    async with served(protocol, name) as (gateway, core):
        await core.add(8080, 80)
        await core.delete(8080)
        assert gateway.mappings == []


@by_both
def test_a_silent_router_is_asked_until_the_deadline(protocol: Name) -> None:
    async def main() -> None:
        async with served(protocol) as (gateway, core):
            backend = await core.backend()
            gateway.hang()
            request = MappingRequest(MappingKey(8080, "TCP"), 80, "", Terms("", 600))
            began = asyncio.get_running_loop().time()
            with pytest.raises(DeadlineError):
                await backend.add(Operation(10.0), request, overwrite=True, verify=False)
            assert asyncio.get_running_loop().time() - began == pytest.approx(10.0, abs=0.1)
            assert gateway.count("MAP") >= 8, "sent again, and asked anew after half of the time"

    virtual.run(main())


# Many at once, and those that nobody waits for


@by_both
async def test_two_hundred_at_once(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        await asyncio.gather(*(core.add(port) for port in range(10_000, 10_200)))
        assert ports(gateway) == list(range(10_000, 10_200))
        assert gateway.count("MAP") >= 200
        await asyncio.gather(*(core.delete(port) for port in range(10_000, 10_200)))
        assert gateway.mappings == []


@by_both
def test_a_loss_of_a_third_each_way_loses_no_mapping(protocol: Name) -> None:
    async def main() -> None:
        async with served(protocol, "loses_datagrams", timeout=60.0) as (gateway, core):
            await core.backend()
            await asyncio.gather(*(core.add(port) for port in range(10_000, 10_050)))
            assert ports(gateway) == list(range(10_000, 10_050))

    virtual.run(main())


@by_both
async def test_identical_calls_are_one(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        await asyncio.gather(*(core.add(8080) for _ in range(50)))
        assert gateway.count("MAP") == 1


@by_both
@pytest.mark.waits
async def test_what_nobody_waits_for_is_taken_back(protocol: Name) -> None:
    async with served(protocol, quirks.slow_pcp(0.2)) as (gateway, core):
        await core.backend()
        adding = asyncio.create_task(core.add(8080))
        await until_mapping(gateway, 1)
        assert ports(gateway) == [8080], "made, and the reply is on its way"
        adding.cancel()
        with suppress(asyncio.CancelledError):
            await adding
        await core.queue.drain()
        assert gateway.mappings == []


@by_both
@pytest.mark.waits
async def test_a_renewal_that_nobody_waits_for_leaves_the_mapping(protocol: Name) -> None:
    async with served(protocol, quirks.slow_pcp(0.2)) as (gateway, core):
        await core.add(8080)
        adding = asyncio.create_task(core.add(8080))
        await until_mapping(gateway, 2)
        adding.cancel()
        with suppress(asyncio.CancelledError):
            await adding
        await core.queue.drain()
        assert ports(gateway) == [8080]


# Restarts


@by_both
async def test_an_epoch_that_began_anew_is_a_hint_and_frees_ports(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        hints: list[Hint] = []
        listener = await core.driver.listen(hints.append)
        try:
            await core.add(8080, 80)
            backend = await core.backend()
            state = backend._state  # type: ignore[attr-defined]
            state._epoch.seconds += 10_000
            await core.add(7070, 70)
            assert hints == [Hint.RESTARTED]
            gateway.remove_mapping(8080, "TCP")
            await core.add(9090, 80)
            assert hints == [Hint.RESTARTED]
        finally:
            await listener.close()
        assert gateway.problems == []


@by_both
async def test_after_a_restart_the_same_port_is_had_again(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        await core.add(8080, 80)
        await gateway.restart()
        assert (await core.add(8080, 80)).external_port == 8080


# Pinholes


async def test_over_ipv6_pcp_opens_pinholes() -> None:
    async with served("pcp", address="::1") as (gateway, core):
        request = PinholeRequest("", 8080, "UDP", "", 0, 600)
        pinhole = await core.dispatcher.add_pinhole(request)
        assert pinhole == Pinhole(0, "::1", 8080, "UDP", "", 0, 600)
        backend = await core.backend()
        await core.dispatcher.do(lambda backend, op: backend.update_pinhole(op, pinhole, 1200))
        (opened,) = gateway.firewall.pinholes
        assert (opened.internal_port, opened.duration) == (8080, 1200)
        await core.dispatcher.delete_pinhole(pinhole)
        assert gateway.firewall.pinholes == []
        remote = await core.dispatcher.add_pinhole(PinholeRequest("", 8080, "UDP", "2001:db8::1", 443, 600))
        assert gateway.firewall.pinholes[0].remote_host == remote.remote_host == "2001:db8::1"
        assert backend.internal_client_v6 == "::1"
        with pytest.raises(NoRouteError, match="maps no IPv4 ports"):
            await core.add(8080)


async def test_over_ipv4_there_are_none() -> None:
    async with served("pcp") as (_, core):
        with pytest.raises(NoRouteError, match="opens no pinholes"):
            await core.dispatcher.add_pinhole(PinholeRequest("", 8080, "UDP", "", 0, 600))
    async with served("nat-pmp") as (_, core):
        with pytest.raises(UnsupportedError):
            await core.dispatcher.add_pinhole(PinholeRequest("", 8080, "UDP", "", 0, 600))


# Who it is


@by_both
async def test_what_a_backend_says_of_itself(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        backend = await core.backend()
        assert backend.protocol == backend.device.protocol == protocol
        assert backend.internal_client == gateway.address
        assert backend.address == gateway.address
        assert backend.gateway_id == backend.device.address == join_address(gateway.address, gateway.pcp_port)
        assert backend.location == (backend.device.address, gateway.address)
        assert not backend.local_address_changed()
        assert backend.home_hosts() == ()
        assert backend.device.description_url == ""
        assert backend.device.is_valid_gateway()
        other: Name = "nat-pmp" if protocol == "pcp" else "pcp"
        assert PcpDriver(other, SearchScope()).connect(backend.device) is None


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [
        ("10.0.0.1", 5351, "10.0.0.1"),
        ("10.0.0.1", 1234, "10.0.0.1:1234"),
        ("fe80::1%eth0", 5351, "fe80::1%eth0"),
        ("fe80::1%eth0", 1234, "[fe80::1%eth0]:1234"),
    ],
)
def test_addresses_with_and_without_a_port(host: str, port: int, address: str) -> None:
    assert join_address(host, port) == address
    assert split_address(address) == (host, port)


@on_linux
async def test_another_host_is_another_client() -> None:
    async with EmulatedGateway(address=None, protocols=BOTH) as gateway:
        scope = SearchScope(source_address=neighbour_of(gateway.address), host=gateway.address)
        device, _ = await Finder([PcpDriver("pcp", scope)], scope).find_gateway(2.0)
        assert device.igd_our_addr == neighbour_of(gateway.address)
        backend = PcpDriver("pcp", scope).connect(device)
        assert backend is not None
        request = MappingRequest(MappingKey(8080, "TCP"), 80, "", Terms("", 600))
        await backend.add(Operation(5.0), request, overwrite=True, verify=False)
        assert gateway.mappings[0].internal_client == neighbour_of(gateway.address)
