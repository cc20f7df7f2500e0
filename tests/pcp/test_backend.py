"""Mappings by PCP and NAT-PMP through the core: the same promises by both protocols."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
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
    NotFoundError,
    RefusedError,
    TransportError,
    UnsupportedError,
)
from aioigd.models import MappingKey, MappingRequest, Pinhole, PinholeRequest, PortMapping, Proto, Terms
from aioigd.pcp import pcp_backend as backend_module
from aioigd.pcp.datagram_backend import LONGEST_LIFETIME, join_address, split_address
from aioigd.pcp.driver import PcpDriver
from aioigd.pcp.nat_pmp_backend import NatPmpBackend
from aioigd.pcp.pcp_backend import PcpBackend
from aioigd.pcp.search import device_at
from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.pcp.wire.common import SERVER_PORT
from aioigd.results import UPnPResult
from aioigd.testing import (
    EmulatedGateway,
    Hooks,
    PcpDatagram,
    PcpProceed,
    PcpQuery,
    PcpReply,
    Quirk,
    ReplayedGateway,
    quirk,
    quirks,
)
from aioigd.testing.network import neighbour_of

from ..leases import virtual
from ..testing.test_gateway import on_linux

Name = Literal["pcp", "nat-pmp"]
BOTH: Sequence[Name] = ("pcp", "nat-pmp")
by_both = pytest.mark.parametrize("protocol", BOTH)


class Core:
    """The core with one driver, as a mapper makes it."""

    def __init__(
        self,
        gateway: EmulatedGateway | ReplayedGateway,
        protocol: Name,
        *,
        timeout: float = 10.0,
        secret: bytes = b"s",
    ) -> None:
        scope = SearchScope(source_address=gateway.address)
        self.driver = PcpDriver(protocol, scope, port=gateway.pcp_port or SERVER_PORT, secret=secret)
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
        assert gateway.requests[0].action == "MAP"  # before the search, which may begin a moment later
        assert gateway.count("MAP") == 1
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
        (asked,) = (each for each in gateway.requests if each.action == "MAP")
        assert asked.arguments["lifetime"] == str(LONGEST_LIFETIME)


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
async def test_what_the_internal_port_had_before_stays_and_keeps_its_port(protocol: Name) -> None:
    """A program that does not know of it asks for another external port."""
    async with served(protocol, "keeps_first_port") as (gateway, core):
        await Core(gateway, protocol).add(8080, 80)
        with pytest.raises(ConflictError):
            await core.add(9090, 80)
        assert ports(gateway) == [8080]


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


async def has_made(core: Core, port: int, proto: Proto = "TCP") -> bool:
    backend = await core.backend()
    assert isinstance(backend, PcpBackend | NatPmpBackend)
    return backend.has_made(MappingKey(port, proto))


@by_both
async def test_it_knows_what_this_program_has_made(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        assert not await has_made(core, 8080)
        await core.add(8080, 80)
        assert await has_made(core, 8080)
        assert not await has_made(core, 80)
        assert not await has_made(core, 8080, "UDP")
        await gateway.restart()
        assert await has_made(core, 8080), "it may be there, and if so it is ours"
        await core.delete(8080)
        assert not await has_made(core, 8080)
        assert not await has_made(Core(gateway, protocol), 8080)


@by_both
def test_what_has_expired_is_not_ours_any_more(protocol: Name) -> None:
    async def main() -> None:
        async with served(protocol) as (gateway, core):
            await core.add(8080, 80, duration=120)
            await asyncio.sleep(119)
            assert await has_made(core, 8080)
            await asyncio.sleep(2)
            assert not await has_made(core, 8080)
            with pytest.raises(NotFoundError):
                await core.delete(8080)
            await core.add(9090, 80)
            assert ports(gateway) == [9090]

    virtual.run(main())


@by_both
@pytest.mark.parametrize(
    "name", [None, "adds_second_port", "moves_second_port", "keeps_first_port", "strict_deletions"]
)
async def test_deleting_what_nobody_has_made_is_an_error(protocol: Name, name: str | None) -> None:
    async with served(protocol, *([name] if name else [])) as (gateway, core):
        await core.add(7070)
        with pytest.raises(NotFoundError) as caught:
            await core.delete(8080)
        assert caught.value.result is UPnPResult.NO_SUCH_ENTRY_IN_ARRAY
        assert ports(gateway) == [7070]
        assert gateway.problems == []
        await core.delete(7070)
        with pytest.raises(NotFoundError):
            await core.delete(7070)
        assert ports(gateway) == []


@by_both
@pytest.mark.parametrize(
    "name", [None, "adds_second_port", "moves_second_port", "keeps_first_port", "assigns_own_ports"]
)
async def test_deleting_what_is_another_hosts_is_an_error(protocol: Name, name: str | None) -> None:
    async with served(protocol, *([name] if name else [])) as (gateway, core):
        theirs = gateway.add_mapping(8080, proto="TCP")
        with pytest.raises(RefusedError) as caught:
            await core.delete(8080)
        assert caught.value.result is UPnPResult.NOT_AUTHORIZED
        assert gateway.mappings == [theirs]
        assert gateway.problems == []


@by_both
async def test_what_was_lost_in_a_restart_and_taken_by_another_host_is_not_deleted(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        await core.add(8080, 80)
        gateway.remove_mapping(8080, "TCP")
        theirs = gateway.add_mapping(8080, proto="TCP")
        backend = await core.backend()
        backend._state._epoch.seconds += 10_000  # type: ignore[attr-defined]
        await core.add(7070)
        with pytest.raises(RefusedError) as caught:
            await core.delete(8080)
        assert caught.value.result is UPnPResult.NOT_AUTHORIZED
        assert theirs in gateway.mappings


@by_both
@pytest.mark.parametrize("ours_first", [False, True])
async def test_where_a_deletion_takes_two_the_other_is_made_again(protocol: Name, ours_first: bool) -> None:
    """An earlier run has mapped 8080 to 8080, and this one 9090. By NAT-PMP both are deleted, by PCP the older one."""
    async with served(protocol, "adds_second_port") as (gateway, core):
        adding = [partial(Core(gateway, protocol).add, 8080), partial(core.add, 9090, 8080)]
        for add in reversed(adding) if ours_first else adding:
            await add()
        assert ports(gateway) == [8080, 9090]
        await core.delete(8080)
        assert ports(gateway) == [9090]
        assert await has_made(core, 9090)
        with pytest.raises(NotFoundError):
            await core.delete(8080)
        assert ports(gateway) == [9090]
        await core.delete(9090)
        assert ports(gateway) == []


async def test_a_mapping_with_another_secret_stays() -> None:
    async with EmulatedGateway(address=None, protocols=BOTH) as gateway:
        await Core(gateway, "pcp").add(8080)
        stranger = Core(gateway, "pcp", secret=b"another")
        for work in (stranger.add(8080), stranger.delete(8080)):
            with pytest.raises(RefusedError) as caught:
                await work
            assert caught.value.result is UPnPResult.NOT_AUTHORIZED
        assert ports(gateway) == [8080]


@pytest.mark.waits
async def test_a_deletion_that_was_done_and_is_refused_when_it_is_sent_again_is_done() -> None:
    lose = iter([False, True, *[False] * 100])

    @quirk("pcp", reason="UDP may be lost.", source="this test")
    def loses_a_reply() -> Hooks:
        """Loses the reply to the second request for a mapping."""
        return Hooks(pcp_datagrams=lambda query, sent: () if query.maps and next(lose) else sent)

    async with served("pcp", "deleting_nothing_is_refused", loses_a_reply) as (gateway, core):
        await core.add(8080, 80)
        await core.delete(8080)
        assert gateway.mappings == []
        assert gateway.count("MAP") == 3


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
        assert [each.arguments["lifetime"] for each in gateway.requests if each.action == "MAP"] == ["120", "0"]
        assert await core.dispatcher.external_address() == IPv4Address("11.22.33.44")
        assert gateway.count("MAP") == 2


async def test_the_address_is_asked_for_anew_after_a_restart() -> None:
    async with served("pcp") as (gateway, core):
        await core.add(8080)
        assert await core.dispatcher.external_address() == IPv4Address("11.22.33.44")
        assert gateway.count("MAP") == 1
        assert gateway.requests[-1].action == "ANNOUNCE", "it could have restarted meanwhile"
        gateway.external_address = "55.66.77.88"
        backend = await core.backend()
        backend._state._epoch.seconds += 10_000  # type: ignore[attr-defined]
        assert await core.dispatcher.external_address() == IPv4Address("55.66.77.88")
        assert ports(gateway) == [8080]


async def test_the_address_is_asked_for_anew_where_an_announcement_tells_of_a_change() -> None:
    async with served("pcp", "epoch_stays_at_address_change") as (gateway, core):
        await core.add(8080)
        hints: list[Hint] = []
        listener = await core.driver.listen(hints.append)
        try:
            gateway.external_address = "55.66.77.88"
            listener._on_other_address()
            assert await core.dispatcher.external_address() == IPv4Address("55.66.77.88")
            assert hints == []
            # The mapping that is there has told it, and no other one was made for that.
            asked = [each.arguments["internal_port"] for each in gateway.requests if each.action == "MAP"]
            assert asked == ["8080", "8080"]
        finally:
            await listener.close()


async def test_the_address_is_had_where_low_ports_are_not_to_be_mapped() -> None:
    @quirk("pcp", reason="The lists of what may be mapped begin at 1024.", source="miniupnpd's own miniupnpd.conf")
    def maps_high_ports_only() -> Hooks:
        """Refuses to map ports below 1024."""

        def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
            asked = query.request.mapping if isinstance(query.request, pcp.Request) else None
            is_low = asked is not None and asked.internal_port < 1024
            return proceed(replace(query, request=pcp.ResultCode.NOT_AUTHORIZED) if is_low else query)

        return Hooks(pcp_action=act)

    async with served("pcp", maps_high_ports_only) as (gateway, core):
        assert await core.dispatcher.external_address() == IPv4Address("11.22.33.44")
        assert gateway.mappings == []


async def test_a_router_that_knows_no_announce_tells_its_address() -> None:
    @quirk("pcp", reason="To test it.", source="this test")
    def knows_no_announce() -> Hooks:
        """Refuses ANNOUNCE."""

        def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
            return proceed(query if query.maps else replace(query, request=pcp.ResultCode.UNSUPP_OPCODE))

        return Hooks(pcp_action=act)

    async with served("pcp", knows_no_announce) as (_, core):
        await core.add(8080)
        assert await core.dispatcher.external_address() == IPv4Address("11.22.33.44")


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


# What is refused again and again


def refusing(code: int, lifetime: int) -> Quirk[...]:
    @quirk("pcp", reason="To test it.", source="this test")
    def refuses_maps() -> Hooks:
        """Refuses every mapping with this code, for so many seconds."""

        def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
            request = query.request
            match request:
                case pcp.Request(opcode=pcp.Opcode.MAP):
                    return pcp.Response(pcp.Opcode.MAP, code, lifetime, 1)
                case nat_pmp.MapRequest():
                    return nat_pmp.Refusal(request.opcode, code, 1)
            return proceed(query)

        return Hooks(pcp_action=act)

    return refuses_maps


LIFETIMES = [0, 30, 1800, 0xFFFFFFFF]


@pytest.mark.parametrize(
    ("protocol", "lifetime"),
    [
        # In the default run each lifetime once, and each protocol with half of them.
        pytest.param(protocol, lifetime, marks=pytest.mark.long if (row + column) % 2 else ())
        for row, protocol in enumerate(BOTH)
        for column, lifetime in enumerate(LIFETIMES)
    ],
)
def test_who_asks_all_the_time_does_not_flood_a_router_that_refuses(protocol: Name, lifetime: int) -> None:
    async def main() -> None:
        async with served(protocol, refusing(2, lifetime)) as (gateway, core):
            for _ in range(600):
                with pytest.raises(RefusedError) as caught:
                    await core.add(8080)
                assert caught.value.result is UPnPResult.NOT_AUTHORIZED
                assert caught.value.error_code == 2
                await asyncio.sleep(0.1)
            assert 4 <= gateway.count("MAP") <= 9
            before = gateway.count("MAP")
            await asyncio.sleep(1800)
            with pytest.raises(RefusedError):
                await core.add(8080)
            assert gateway.count("MAP") == before + 1, "whatever it says, it is asked again after half an hour"

    virtual.run(main())


@by_both
async def test_who_asks_again_once_what_was_in_the_way_has_gone_gets_the_port(protocol: Name) -> None:
    async with served(protocol) as (gateway, core):
        await core.backend()
        for _ in range(2):
            gateway.connected = False
            with pytest.raises(RefusedError):
                await core.add(8080)
            gateway.connected = True
            await core.add(8080)
        theirs = gateway.add_mapping(9090, proto="TCP")
        for _ in range(5):
            with pytest.raises(ConflictError):
                await core.add(9090)
        gateway.remove_mapping(theirs.external_port, "TCP")
        await core.add(9090)


@by_both
@pytest.mark.waits
async def test_a_refusal_concerns_no_other_port(protocol: Name) -> None:
    async with served(protocol, refusing(2, 1800)) as (gateway, core):
        for _ in range(3):
            for port in range(8080, 8090):
                with pytest.raises(RefusedError):
                    await core.add(port)
        assert gateway.count("MAP") == 20 + 10


@by_both
@pytest.mark.waits
async def test_that_it_refuses_everything_is_logged_once(protocol: Name, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aioigd.discovery")
    async with served(protocol, refusing(2, 0)) as (_, core):
        for port in range(8080, 8090):
            with pytest.raises(RefusedError):
                await core.add(port)
    assert sum("refuses mappings" in record.message for record in caplog.records) == 1


# Lifetimes


@by_both
@pytest.mark.parametrize("seconds", [20, 60, 7200, 0xFFFFFFFF])
async def test_lifetimes_are_what_was_assigned(protocol: Name, seconds: int) -> None:
    async with served(protocol, quirks.grants_lifetime(seconds)) as (_, core):
        assert (await core.add(8080, duration=3600)).duration == seconds
        assert (await core.add(8080, duration=3600)).duration == seconds


def granting(**changed: int) -> Quirk[...]:
    @quirk("pcp", reason="To test it.", source="this test")
    def grants_nothing() -> Hooks:
        """Says yes, without a port or lifetime."""

        def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
            reply = proceed(query)
            match reply:
                case pcp.Response(mapping=pcp.MapData() as mapping) if reply.lifetime:
                    port = changed.get("external_port", mapping.external_port)
                    lifetime = changed.get("lifetime", reply.lifetime)
                    return replace(reply, lifetime=lifetime, mapping=replace(mapping, external_port=port))
                case nat_pmp.MapResponse() if reply.lifetime:
                    return replace(reply, **changed)  # type: ignore[arg-type]
            return reply

        return Hooks(pcp_action=act)

    return grants_nothing


@by_both
@pytest.mark.parametrize("changed", [{"lifetime": 0}, {"external_port": 0}, {"lifetime": 0, "external_port": 0}])
async def test_a_yes_without_a_mapping_is_none_and_nothing_stays(protocol: Name, changed: dict[str, int]) -> None:
    async with served(protocol, granting(**changed)) as (gateway, core):
        with pytest.raises(InvalidResponseError):
            await core.add(8080)
        await core.queue.drain()
        assert gateway.mappings == []
        assert not await has_made(core, 8080)


# Forgers


def forging(*forged: bytes | Callable[[PcpQuery], bytes]) -> Quirk[...]:
    @quirk("pcp", reason="Who sends from the router's address has to guess the rest.", source="this test")
    def forges() -> Hooks:
        """Sends replies before the true one, which takes a moment."""

        def datagrams(query: PcpQuery, sent: Sequence[PcpDatagram]) -> Sequence[PcpDatagram]:
            made = [each if isinstance(each, bytes) else each(query) for each in forged]
            return [*map(PcpDatagram, made), *(replace(each, delay=0.01) for each in sent)]

        return Hooks(pcp_datagrams=datagrams)

    return forges


def pcp_reply(result: int, epoch: int = 0, lifetime: int = 0xFFFFFFFF, **changed: int) -> Callable[[PcpQuery], bytes]:
    """Return what makes a reply to a MAP that does not know the nonce, or something else of the request."""

    def make(query: PcpQuery) -> bytes:
        request = query.request
        if not isinstance(request, pcp.Request) or request.mapping is None:
            return b""
        asked = replace(request.mapping, external_port=666, external_address=IPv4Address("6.6.6.6"))
        asked = replace(asked, **changed) if changed else replace(asked, nonce=bytes(12))  # type: ignore[arg-type]
        return pcp.build_response(pcp.Response(pcp.Opcode.MAP, result, lifetime, epoch, asked))

    return make


FORGED: dict[str, bytes | Callable[[PcpQuery], bytes]] = {
    "another version": nat_pmp.build_response(nat_pmp.Refusal(0, 1, 4_000_000)),
    "another version of PCP": pcp.build_response(pcp.Response(pcp.Opcode.MAP, 1, 0, 4_000_000)),
    "a refusal without a nonce": pcp.build_response(pcp.Response(pcp.Opcode.MAP, 2, 0xFFFFFFFF, 4_000_000)),
    "a refusal with a wrong nonce": pcp_reply(2, 4_000_000),
    "a mapping with a wrong nonce": pcp_reply(0, 4_000_000),
    "a mapping of another port": pcp_reply(0, 4_000_000, internal_port=1),
    "a mapping by another protocol": pcp_reply(0, 4_000_000, protocol=132),
    "an announcement": pcp.build_response(pcp.Response(pcp.Opcode.ANNOUNCE, 0, 0, 4_000_000)),
    "nothing": b"",
    "noise": bytes(range(60)),
}


@pytest.mark.parametrize("what", FORGED)
async def test_who_guesses_only_the_port_stops_nothing_by_pcp(what: str) -> None:
    async with served("pcp", forging(FORGED[what])) as (gateway, core):
        backend = await core.backend()
        hints: list[Hint] = []
        listener = await core.driver.listen(hints.append)
        try:
            mapping = await core.add(8080, 80)
            assert (mapping.external_port, mapping.duration) == (8080, 3600)
            await core.add(8080, 80)
            await core.delete(8080)
        finally:
            await listener.close()
        assert hints == [], "no epoch of theirs is believed"
        assert isinstance(backend, PcpBackend)
        assert gateway.count("MAP") == 3


@pytest.mark.parametrize(
    "forged",
    [
        nat_pmp.build_response(nat_pmp.Refusal(nat_pmp.Opcode.MAP_TCP, 2, 5)),
        nat_pmp.build_response(nat_pmp.Refusal(nat_pmp.Opcode.MAP_UDP, 1, 5)),
        nat_pmp.build_response(nat_pmp.MapResponse(5, "TCP", 81, 666, 3600)),
        nat_pmp.build_response(nat_pmp.MapResponse(5, "UDP", 80, 666, 3600)),
        nat_pmp.build_response(nat_pmp.AddressResponse(5, IPv4Address("6.6.6.6"))),
        pcp.build_response(pcp.Response(pcp.Opcode.MAP, 1, 0, 5)),
    ],
)
async def test_a_forged_no_stops_nothing_by_nat_pmp(forged: bytes) -> None:
    async with served("nat-pmp", forging(forged)) as (gateway, core):
        assert (await core.add(8080, 80)).external_port == 8080
        assert gateway.count("MAP") == 1


@by_both
async def test_a_true_no_is_heard_all_the_same(protocol: Name) -> None:
    async with EmulatedGateway(address=None, protocols=("nat-pmp" if protocol == "pcp" else "pcp",)) as gateway:
        core = Core(gateway, protocol)
        device = core.driver.presume()
        assert device is not None
        backend = core.driver.connect(device)
        assert backend is not None
        request = MappingRequest(MappingKey(8080, "TCP"), 80, "", Terms("", 600))
        with pytest.raises(UnsupportedError) as caught:
            await backend.add(Operation(5.0), request, overwrite=True, verify=False)
        assert caught.value.error_code == 1
        assert len(gateway.requests) == 1


@by_both
@pytest.mark.parametrize("name", ["epoch_jumps", "epoch_counts_twice"])
def test_an_epoch_that_is_odd_costs_no_request(protocol: Name, name: str) -> None:
    async def main() -> None:
        async with served(protocol, name) as (gateway, core):
            for _ in range(50):
                assert (await core.add(8080, 80)).external_port == 8080
                await asyncio.sleep(30)
            assert gateway.count("MAP") == 50
            assert ports(gateway) == [8080]

    virtual.run(main())


@by_both
@pytest.mark.waits
async def test_a_reply_that_comes_late_is_not_taken_for_another(protocol: Name) -> None:
    """The first request was carried out, its reply comes after that to the second, and each comes three times."""
    times = iter([0.3, *[0.0] * 100])

    @quirk("pcp", reason="To test it.", source="this test")
    def late() -> Hooks:
        """Delays the first reply to a mapping."""

        def datagrams(query: PcpQuery, sent: Sequence[PcpDatagram]) -> Sequence[PcpDatagram]:
            delay = next(times) if query.maps else 0.0
            return [replace(each, delay=delay) for each in sent for _ in range(3)]

        return Hooks(pcp_datagrams=datagrams)

    async with served(protocol, late) as (gateway, core):
        first = await core.add(8080, 80)
        second = await core.add(9090, 90)
        assert (first.external_port, second.external_port) == (8080, 9090)
        assert ports(gateway) == [8080, 9090]


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
        assert pinhole == Pinhole(0, "::1", 8080, "UDP", "", 0, 600, "pcp")
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


async def test_pinholes_to_one_port_are_one_mapping_with_a_filter_each() -> None:
    async with served("pcp", address="::1") as (gateway, core):
        hosts = ["2001:db8::1", "2001:db8::2", "2001:db8::3"]
        holes = [await core.dispatcher.add_pinhole(PinholeRequest("", 8080, "UDP", host, 0, 600)) for host in hosts]
        assert filters_sent(gateway) == ["", *hosts]
        assert let_in(gateway) == hosts
        renewed = await core.dispatcher.add_pinhole(PinholeRequest("", 8080, "UDP", hosts[1], 0, 600))
        assert renewed == holes[1]
        await core.dispatcher.delete_pinhole(holes[1])
        assert filters_sent(gateway) == ["", hosts[0], hosts[2]], "the others stay"
        await core.dispatcher.add_pinhole(PinholeRequest("", 8080, "UDP", "", 0, 600))
        assert filters_sent(gateway) == [""]
        assert let_in(gateway) == [""], "everybody"
        await core.dispatcher.delete_pinhole(replace(holes[0], remote_host=""))
        assert filters_sent(gateway) == ["", hosts[0], hosts[2]]
        await core.dispatcher.delete_pinhole(holes[0])
        await core.dispatcher.delete_pinhole(holes[2])
        assert gateway.firewall.pinholes == []
        assert gateway.problems == []


def let_in(gateway: EmulatedGateway) -> list[str]:
    return sorted(one.remote_host for one in gateway.firewall.pinholes)


def filters_sent(gateway: EmulatedGateway) -> list[str]:
    """Return the remote hosts of the filters in the last request, "" for one that ends all before it."""
    request = pcp.parse_request(gateway.requests[-1].raw)
    assert isinstance(request, pcp.Request)
    filters = [option for option in request.options if isinstance(option, pcp.Filter)]
    return [str(each.address) if each.prefix_length else "" for each in filters]


async def test_beside_an_ipv4_router_pinholes_are_asked_for_at_the_ipv6_next_hop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def next_hops(*, beside: str = "") -> list[str]:
        asked.append(beside)
        return ["::1"]

    monkeypatch.setattr(backend_module, "ipv6_next_hops", next_hops)
    monkeypatch.setattr(backend_module, "public_ipv6_address", lambda: "::1")
    async with EmulatedGateway(address="::1", protocols=("pcp",)) as gateway:
        device = device_at("pcp", join_address("127.0.0.1", gateway.pcp_port), "127.0.0.1")
        backend = PcpDriver("pcp", SearchScope(), secret=b"s").connect(device)
        assert backend is not None
        assert backend.internal_client == "127.0.0.1"
        assert backend.internal_client_v6 == "::1"
        pinhole = await backend.add_pinhole(Operation(5.0), PinholeRequest("", 8080, "TCP", "", 0, 600))
        assert pinhole.internal_client == "::1"
        assert [one.internal_client for one in gateway.firewall.pinholes] == ["::1"]
        await backend.delete_pinhole(Operation(5.0), pinhole)
        assert gateway.firewall.pinholes == []
        assert set(asked) == {"127.0.0.1"}
        assert gateway.problems == []


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.waits
async def test_a_pinhole_that_nobody_waits_for_is_closed_and_a_renewal_is_not(whole: bool) -> None:
    async with served("pcp", quirks.slow_pcp(0.1), address="::1") as (gateway, core):
        kept = await core.dispatcher.add_pinhole(PinholeRequest("", 8080, "UDP", "2001:db8::1", 0, 600))
        host = kept.remote_host if whole else "2001:db8::2"

        async def add() -> None:
            await core.dispatcher.add_pinhole(PinholeRequest("", 8080, "UDP", host, 0, 600))

        adding = asyncio.create_task(add())
        await until_mapping(gateway, 2)
        adding.cancel()
        with suppress(asyncio.CancelledError):
            await adding
        await core.queue.drain()
        assert [one.remote_host for one in gateway.firewall.pinholes] == ["2001:db8::1"]
        assert gateway.count("MAP") == (2 if whole else 3)


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
