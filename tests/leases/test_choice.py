"""A refusal is not the end of a choice: which ports are tried, with how many requests, and what ends it."""

from __future__ import annotations

import asyncio

import pytest

from aioigd import ChangeKind, ConflictError, IGDError, OneOf, PortMapper, RefusedError, UnsupportedError, UPnPResult
from aioigd.errors import InvalidResponseError, TransportError
from aioigd.leases.acquisition import leaves_choice
from aioigd.models import MappingKey
from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.testing.request_log import Request
from aioigd.upnp.wire.error_codes import refused

from ..support import connected, refuses
from .model import THEM, US, ModelRouter, lease_request
from .test_manager import POLL, Recorded, leased
from .virtual import run

pytestmark = pytest.mark.usefixtures("nothing_is_left")


# A MAP-E line


def customer(position: int, desc: str = "") -> int:
    """The customer of a MAP-E line whose ports are tried at this position."""
    return int(lease_request(0, internal_port=9000, desc=desc).choices[position]) // 16 % 256


@pytest.mark.parametrize("code", [718, 606, 501, 402, -911, 729])
async def test_a_customer_with_240_ports_gets_one_of_them(code: int) -> None:
    wanted = customer(40)
    async with connected(quirks.map_e(code, wanted)) as (gateway, mapper):
        async with mapper.lease(0, 9000, proto=["TCP", "UDP"]) as lease:
            assert lease.external_port is not None
            assert lease.external_port // 16 % 256 == wanted
            assert {one.external_port for one in gateway.mappings} == {lease.external_port}
            assert len(gateway.mappings) == 2
        assert gateway.mappings == []
        assert gateway.count("POST") < 100


@pytest.mark.parametrize("code", [718, *(pytest.param(code, marks=pytest.mark.long) for code in (606, 501))])
async def test_so_does_the_last_of_all_customers_with_at_most_512_requests(code: int) -> None:
    async with connected(quirks.map_e(code, customer(255, "my server"))) as (gateway, mapper):
        async with mapper.lease(0, 9000, "my server", "TCP", 3600):
            assert len(gateway.mappings) == 1
        assert gateway.count("POST") <= 512
        assert len({call.arguments["NewExternalPort"] for call in added(gateway)}) == 256


@pytest.mark.parametrize("code", [725, 501])
async def test_it_does_where_leases_are_refused_as_well(code: int) -> None:
    line = quirks.map_e(501, customer(30, "my server"))
    async with (
        connected(quirks.refuses_leases(code), line) as (gateway, mapper),
        mapper.lease(0, 9000, "my server", "TCP", 3600),
    ):
        (mapping,) = gateway.mappings
        assert mapping.duration == 0


async def test_the_first_port_gets_all_terms_and_the_others_two_at_most() -> None:
    async with connected(quirks.refuses_everything) as (gateway, mapper):
        with pytest.raises(RefusedError) as caught:
            await mapper.lease(OneOf(range(7000, 7010)), 9000, "Ä server", "TCP", 3600)
        assert caught.value.result is UPnPResult.ACTION_FAILED
        requests = [call.arguments["NewExternalPort"] for call in added(gateway)]
        assert requests == ["7000"] * 6 + [str(port) for port in range(7001, 7010) for _ in range(2)]


async def test_a_router_that_can_choose_does_so_first() -> None:
    async with EmulatedGateway(quirks.map_e(606, 7), address=None, version=2) as gateway:
        async with (
            PortMapper(source_address=gateway.address) as mapper,
            mapper.lease(0, 9000, proto="TCP") as lease,
            mapper.lease(8080, proto="TCP", on_conflict="other_port") as other,
        ):
            ports = [lease.external_port, other.external_port]
            assert {port // 16 % 256 for port in ports if port} == {7}
            assert {one.internal_port for one in gateway.mappings} == {9000, 8080}
        assert gateway.count("AddPortMapping") <= 7


async def test_a_port_that_was_asked_for_gives_way_to_another_on_such_a_line() -> None:
    async with connected(quirks.map_e(606, 7)) as (gateway, mapper):
        async with mapper.lease(8080, proto=["TCP", "UDP"], on_conflict="other_port"):
            assert {one.external_port // 16 % 256 for one in gateway.mappings} == {7}
            assert {(one.internal_port, one.proto) for one in gateway.mappings} == {(8080, "TCP"), (8080, "UDP")}
        with pytest.raises(RefusedError) as caught:
            await mapper.lease(8080, proto="TCP")
        assert caught.value.error_code == 606


# What is in the way


async def test_of_some_ports_the_first_that_is_free_is_had() -> None:
    async with connected() as (gateway, mapper):
        theirs = [gateway.add_mapping(port, proto="TCP") for port in (6881, 51413)]
        async with mapper.lease(OneOf([6881, 51413, 6889]), 9000, proto="TCP") as lease:
            assert lease.external_port == 6889
        assert gateway.mappings == theirs
        with pytest.raises(ConflictError):
            await mapper.lease(OneOf([51413, 6881]), proto="TCP")
        assert gateway.mappings == theirs


async def test_a_long_way_leads_past_what_belongs_to_others() -> None:
    async with connected() as (gateway, mapper):
        theirs = [gateway.add_mapping(port, proto="TCP") for port in range(7000, 7030)]
        async with mapper.lease(OneOf(range(7000, 7040)), 9000, proto="TCP") as lease:
            assert lease.external_port == 7030
        assert gateway.mappings == theirs, "also where nothing is asked before it is added"


async def test_the_internal_port_follows_where_both_are_open() -> None:
    async with connected() as (gateway, mapper):
        gateway.add_mapping(6881, proto="TCP")
        async with mapper.lease(OneOf([6881, 51413]), proto="TCP") as lease:
            assert [one.internal_port for one in lease.mappings] == [51413]


async def test_a_choice_of_the_caller_is_not_left_by_the_router() -> None:
    async with EmulatedGateway(address=None, version=2) as gateway:
        gateway.add_mapping(7000, proto="TCP")
        gateway.add_mapping(7001, proto="TCP")
        async with PortMapper(source_address=gateway.address) as mapper:
            for choice in (OneOf([7000, 7001]), range(7000, 7002)):
                with pytest.raises(ConflictError):
                    await mapper.lease(choice, 9000, proto="TCP")
        assert gateway.count("AddAnyPortMapping") == 0


async def test_several_leases_at_once_get_ports_of_their_own() -> None:
    async with connected(quirks.map_e(501, customer(20))) as (gateway, mapper):
        leases = await asyncio.gather(*(mapper.lease(0, 9000, proto="TCP") for _ in range(3)))
        others = await asyncio.gather(*(mapper.lease(0, port, proto="TCP") for port in (9001, 9002)))
        ports = [lease.external_port for lease in (*leases, *others)]
        assert len(set(ports)) == len(gateway.mappings) == 5


async def test_what_another_lease_has_is_not_taken_back_with_what_was_made_in_vain() -> None:
    async with connected() as (gateway, mapper), mapper.lease(8080, proto="TCP"):
        gateway.add_mapping(8080, proto="UDP")
        async with mapper.lease(8080, proto=["TCP", "UDP"], on_conflict="other_port") as lease:
            assert lease.external_port != 8080
            assert len(gateway.mappings) == 4
        assert sorted(one.proto for one in gateway.mappings) == ["TCP", "UDP"]
        assert {one.external_port for one in gateway.mappings} == {8080}


# What ends it


@pytest.mark.parametrize(
    "quirk",
    [
        quirks.denies_control,
        refuses("AddPortMapping", 728),
        quirks.false_success,
        quirks.same_ports_only,
        refuses("AddPortMapping", 401),
        refuses("AddPortMapping", 602),
        refuses("AddPortMapping", 732),
    ],
    ids=repr,
)
@pytest.mark.waits
async def test_another_cause_than_the_port_ends_it_at_once(quirk: Quirk[...]) -> None:
    async with connected(quirk) as (gateway, mapper):
        with pytest.raises(IGDError):
            await mapper.lease(OneOf(range(7000, 7010)), 9000, "x", "TCP")
        assert {call.arguments["NewExternalPort"] for call in added(gateway)} == {"7000"}


@pytest.mark.parametrize(
    ("error", "leaves"),
    [
        *((refused("no", code), True) for code in (718, 606, 402, 501, 729, 600, 899, -911, None)),
        *((refused("no", code), False) for code in (728, 724, 725, 726, 732, 733, 714)),
        (RefusedError("HTTP 401", UPnPResult.NOT_AUTHORIZED), False),
        (RefusedError("it leads to loopback", UPnPResult.INVALID_ARGS), False),
        (UnsupportedError("no such action", 401), False),
        (InvalidResponseError("gibberish", status=500), True),
        (InvalidResponseError("not here", status=404), False),
        (TransportError("cut", may_have_arrived=True), False),
    ],
    ids=str,
)
def test_what_may_be_a_matter_of_the_port(error: IGDError, leaves: bool) -> None:
    assert leaves_choice(error) is leaves


async def test_what_is_refused_whatever_the_terms_shortens_the_rest_of_a_batch() -> None:
    async with connected(quirks.refuses_everything) as (gateway, mapper):
        for port in range(7000, 7010):
            with pytest.raises(RefusedError):
                await mapper.add_port_mapping(port, desc="Ä server", duration=3600, proto="TCP")
        requests = [call.arguments["NewExternalPort"] for call in added(gateway)]
        assert [requests.count(str(port)) for port in range(7000, 7010)] == [6, *[2] * 9]


# Later


def test_a_lease_that_has_lost_its_port_takes_both_protocols_to_another() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, proto=["TCP", "UDP"], on_conflict="other_port") as lease:
            record = Recorded(lease)
            assert {(one.external_port, one.proto) for one in lease.mappings} == {(8080, "TCP"), (8080, "UDP")}
            router.restart()
            router.hold(8080, proto="UDP")
            await asyncio.sleep(2 * POLL)
            (port,) = {one.external_port for one in lease.mappings}
            assert port != 8080
            assert {one.internal_port for one in lease.mappings} == {8080}
            assert router.owner(port) == router.owner(port, "UDP") == US
            assert router.owner(8080) is None
            assert router.owner(8080, "UDP") == THEM
            assert lease.state.value == "active"
            assert ChangeKind.NEW_PORT in await record.kinds()
        assert {row.client for row in router.table.values()} == {THEM}

    run(main(), debug=False)


def test_a_lease_does_not_leave_its_port_while_the_line_is_down() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, on_conflict="other_port") as lease:
            router.restart()
            router.refusal = lambda _: refused("the line is down", 501)
            await asyncio.sleep(POLL + 10)
            assert lease.state.value == "lost"
            router.refusal = lambda _: None
            await asyncio.sleep(POLL)
            assert (lease.external_port, lease.state.value) == (8080, "active")

    run(main(), debug=False)


def test_but_it_does_when_that_lasts_and_another_port_is_had() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, on_conflict="other_port") as lease:
            router.restart()
            router.refusal = lambda key: None if key.external_port // 16 % 256 == 7 else refused("not yours", 606)
            await asyncio.sleep(5 * POLL)
            assert lease.external_port is not None
            assert lease.external_port // 16 % 256 == 7
            assert lease.state.value == "active"

    run(main(), debug=False)


def test_where_every_port_is_refused_few_are_tried_each_time() -> None:
    async def main() -> None:
        router = ModelRouter()
        router.refusal = lambda _: refused("no", 501)
        async with leased(router, 0, required=False) as lease:
            await asyncio.sleep(1.0)
            assert router.asked["add"] >= 256
            router.asked.clear()
            await asyncio.sleep(60 * POLL)
            assert router.asked["add"] < 400
            free = MappingKey(lease_request(0).choices[7], "TCP")
            router.refusal = lambda key: None if key == free else refused("no", 501)
            await asyncio.sleep(80 * POLL)
            assert lease.external_port == free.external_port

    run(main(), debug=False)


def added(gateway: EmulatedGateway) -> list[Request]:
    return [request for request in gateway.requests if request.action == "AddPortMapping"]
