"""The façade on a real loopback network: mapping, caching, sharing, finding the gateway again, and ending."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import aiohttp
import pytest

from aioigd import (
    DeadlineError,
    Device,
    DiscoveryError,
    Gateway,
    IGDError,
    IGDStatus,
    InvalidResponseError,
    PortMapper,
    PortMapping,
    RefusedError,
    TransportError,
    UPnPResult,
    UsageError,
)
from aioigd.testing import EmulatedGateway, UPnPError, loopback_address, quirks
from aioigd.testing.hooks import Exchange, Proceed
from aioigd.testing.http import Admission, Response
from aioigd.testing.wan_connection import ActionCall, Outputs
from aioigd.upnp.wire.error_codes import RESULT_OF_ERROR_CODE

from .support import Canary, connected, odd, once, page, refuses, settled_loop

pytestmark = pytest.mark.usefixtures("nothing_is_left")

ADD, DELETE = "AddPortMapping", "DeletePortMapping"


def mapping(gateway: EmulatedGateway, port: int = 8080, **changes: Any) -> PortMapping:
    return replace(PortMapping(port, port, gateway.address, "UDP"), **changes)


# Mapping ports


async def test_a_port_is_mapped_with_one_round_of_searches_one_get_and_one_post(
    gateway: EmulatedGateway, mapper: PortMapper
) -> None:
    made = await mapper.add_port_mapping(8080, proto="tcp", desc="my <server>", duration=3600)  # type: ignore[arg-type]
    assert made == mapping(gateway, proto="TCP", desc="my <server>", duration=3600)
    assert gateway.mappings == [made]
    assert (gateway.search_rounds, gateway.count("GET"), gateway.count("POST")) == (1, 1, 1)


async def test_the_defaults_are_udp_the_same_port_and_no_limit(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    assert await mapper.add_port_mapping(8080) == mapping(gateway)


async def test_every_argument_reaches_the_gateway(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    made = await mapper.add_port_mapping(
        8080, 80, "d", "TCP", 60, internal_client=IPv4Address("192.168.1.5"), remote_host="11.22.33.1", verify=True
    )
    assert made == PortMapping(8080, 80, "192.168.1.5", "TCP", "d", 60, "11.22.33.1")
    assert gateway.mappings == [made]


async def test_a_mapping_of_another_host_is_overwritten(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    gateway.add_mapping(8080)
    made = await mapper.add_port_mapping(8080)
    assert gateway.mappings == [made]


async def test_the_gateway_itself_never_overwrites(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    theirs = gateway.add_mapping(8080)
    found = await mapper.get_gateway()
    with pytest.raises(IGDError) as caught:
        await found.add_port_mapping(8080)
    assert caught.value.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING
    assert [attempt.action for attempt in caught.value.attempts] == ["GetSpecificPortMappingEntry"]
    assert gateway.mappings == [theirs]


async def test_the_gateway_itself_has_all_the_verbs(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    found = await mapper.get_gateway()
    made = await found.add_port_mapping(8080, desc="first")
    again = await found.add_port_mapping(8080, desc="second", verify=True)
    assert (made.desc, again.desc) == ("first", "second")
    assert str(await found.query_external_address()) == "11.22.33.44"
    await found.delete_port_mapping(8080)
    assert gateway.mappings == []
    assert found.device.description_url == gateway.location
    assert repr(found) == f"<Gateway 'Emulated gateway' at {found.device.igd_control_url}>"


async def test_a_mapping_is_deleted_once(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    await mapper.add_port_mapping(8080)
    await mapper.delete_port_mapping(8080)
    assert gateway.mappings == []
    with pytest.raises(RefusedError) as caught:
        await mapper.delete_port_mapping(8080)
    assert caught.value.result is UPnPResult.NO_SUCH_ENTRY_IN_ARRAY
    assert [(attempt.action, attempt.error_code) for attempt in caught.value.attempts] == [(DELETE, 714)]


async def test_the_external_address_is_told_as_it_is(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    assert await mapper.query_external_address() == IPv4Address("11.22.33.44")
    gateway.external_address = "100.64.1.2"
    assert await mapper.query_external_address() == IPv4Address("100.64.1.2")


@pytest.mark.parametrize("address", ["", "0.0.0.0", "127.0.0.1", "239.1.1.1", "unknown"])
async def test_an_external_address_that_cannot_be_one_is_an_invalid_response(
    gateway: EmulatedGateway, mapper: PortMapper, address: str
) -> None:
    gateway.external_address = address
    with pytest.raises(InvalidResponseError) as caught:
        await mapper.query_external_address()
    assert [attempt.action for attempt in caught.value.attempts] == ["GetExternalIPAddress"]


@pytest.mark.parametrize("code", [*RESULT_OF_ERROR_CODE, 799])
async def test_every_error_code_comes_back_as_its_result_with_the_attempts(code: int) -> None:
    async with connected(refuses(ADD, code), refuses("GetExternalIPAddress", code)) as (gateway, mapper):
        with pytest.raises(RefusedError) as caught:
            await mapper.add_port_mapping(8080, desc="x", duration=60)
        error = caught.value
        assert error.error_code == code
        assert error.result is RESULT_OF_ERROR_CODE.get(code, UPnPResult.UNKNOWN_ERROR)
        assert error.attempts[0].arguments["NewExternalPort"] == "8080"
        assert error.attempts[0].error_code == code
        assert [attempt.action for attempt in error.attempts] == [
            request.action for request in gateway.requests if request.kind == "POST"
        ]
        with pytest.raises(RefusedError) as caught:
            await mapper.query_external_address()
        assert [(attempt.action, attempt.error_code) for attempt in caught.value.attempts] == [
            ("GetExternalIPAddress", code)
        ]


async def test_what_was_granted_instead_is_told_and_remembered() -> None:
    no_leases = refuses(ADD, 725, lambda call: call.arguments["NewLeaseDuration"] != "0")
    async with connected(no_leases) as (gateway, mapper):
        first = await mapper.add_port_mapping(8080, duration=3600)
        second = await mapper.add_port_mapping(8081, duration=3600)
        assert (first.duration, second.duration) == (0, 0)
        assert gateway.count(ADD) == 3


# The gateway in mind, and the list of devices


async def test_the_gateway_is_kept_in_mind(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    found = await mapper.get_gateway()
    searched = gateway.count("M-SEARCH")
    assert await mapper.get_gateway() is found
    await mapper.add_port_mapping(8080)
    assert (gateway.count("M-SEARCH"), gateway.count("GET")) == (searched, 1)
    assert mapper.devices == [found.device]
    assert found.device.igd_status is IGDStatus.OK


async def test_a_given_location_is_read_instead_of_searching(gateway: EmulatedGateway) -> None:
    async with PortMapper(location=gateway.location, source_address=gateway.address) as mapper:
        await mapper.add_port_mapping(8080)
        assert gateway.count("M-SEARCH") == 0


@pytest.mark.waits
async def test_discover_replaces_the_list_and_the_first_valid_device_is_the_gateway(
    gateway: EmulatedGateway, mapper: PortMapper
) -> None:
    devices = await mapper.discover(0.2)
    assert devices is mapper.devices
    assert [device.description_url for device in devices] == [gateway.location]
    assert (await mapper.get_gateway()).device == devices[0]
    assert gateway.count("GET") == 1


async def test_discover_that_finds_nobody_is_empty(address: str) -> None:
    async with PortMapper(source_address=address) as mapper:
        assert await mapper.discover(0.1) == []


async def test_identical_discoveries_share_one_search(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    first, second = await asyncio.gather(mapper.discover(0.2), mapper.discover(0.2))
    assert first == second
    assert gateway.count("GET") == 1


async def test_a_device_that_is_appended_is_used_without_a_search(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    async with PortMapper(source_address=gateway.address) as other:
        device = (await other.get_gateway()).device
    searches = gateway.count("M-SEARCH")
    mapper.devices.append(Device())
    mapper.devices.append(device)
    assert (await mapper.get_gateway()).device == device
    await mapper.add_port_mapping(8080)
    assert gateway.count("M-SEARCH") == searches


async def test_a_list_that_is_cleared_means_a_new_search(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    found = await mapper.get_gateway()
    searches = gateway.count("M-SEARCH")
    mapper.devices.clear()
    again = await mapper.get_gateway()
    assert gateway.count("M-SEARCH") > searches
    assert again.device == found.device


@pytest.mark.waits
async def test_removing_and_assigning_are_heeded_by_the_next_call() -> None:
    with loopback_address() as here:
        async with (
            EmulatedGateway(address=here) as one,
            EmulatedGateway(address=here) as two,
            PortMapper(source_address=here) as mapper,
        ):
            await mapper.discover(0.3)
            first, second = mapper.devices
            await mapper.add_port_mapping(1)
            mapper.devices.remove(first)
            await mapper.add_port_mapping(2)
            mapper.devices = [first]
            await mapper.add_port_mapping(3)
            ports = {gateway.location: [each.external_port for each in gateway.mappings] for gateway in (one, two)}
            assert ports == {first.description_url: [1, 3], second.description_url: [2]}


async def test_a_device_with_a_control_url_that_must_not_be_followed_is_an_invalid_gateway(mapper: PortMapper) -> None:
    mapper.devices.append(Device(igd_control_url="ftp://192.168.1.1/ctl", igd_status=IGDStatus.OK))
    with pytest.raises(IGDError) as caught:
        await mapper.add_port_mapping(8080)
    assert caught.value.result is UPnPResult.INVALID_GATEWAY
    assert repr(mapper) == "<PortMapper 0 calls under way, gateway None>"


async def test_nobody_is_no_devices_and_the_failure_is_not_kept(address: str) -> None:
    async with PortMapper(source_address=address, discovery_timeout=0.2) as mapper:
        with pytest.raises(DiscoveryError) as caught:
            await mapper.add_port_mapping(8080)
        assert caught.value.result is UPnPResult.NO_DEVICES
        async with EmulatedGateway(address=address):
            await mapper.add_port_mapping(8080)


# A gateway that has gone


@pytest.mark.parametrize("polite", [True, False])
@pytest.mark.waits
async def test_a_gateway_that_restarted_at_another_port_is_found_again(
    gateway: EmulatedGateway, mapper: PortMapper, polite: bool
) -> None:
    before = await mapper.get_gateway()
    await mapper.add_port_mapping(8080)
    await gateway.restart(polite=polite)
    made = await mapper.add_port_mapping(8080)
    assert gateway.mappings == [made]
    after = await mapper.get_gateway()
    assert after.device.igd_control_url != before.device.igd_control_url
    with pytest.raises(TransportError) as caught:
        await before.query_external_address()  # this one and no other
    assert len(caught.value.attempts) == 2


async def test_a_gateway_that_restarted_is_found_again_once_for_all_callers(
    gateway: EmulatedGateway, mapper: PortMapper
) -> None:
    await mapper.get_gateway()
    await gateway.restart()
    rounds = gateway.search_rounds
    await asyncio.gather(*(mapper.add_port_mapping(port) for port in range(1, 51)))
    assert len(gateway.mappings) == 50
    assert gateway.search_rounds == rounds + 1
    assert gateway.count("GET") == 2


async def test_a_control_url_that_has_gone_is_found_again() -> None:
    gone = False

    def intercept(exchange: Exchange) -> Response | None:
        nonlocal gone
        if exchange.purpose == "description":
            gone = False
        return page("<html>not found</html>", 404) if gone and exchange.purpose == "control" else None

    async with connected(odd(intercept=intercept)) as (gateway, mapper):
        await mapper.get_gateway()
        gone = True
        await mapper.add_port_mapping(8080)
        assert gateway.count("GET") == 2


async def test_another_gateway_at_another_address_takes_its_place() -> None:
    with loopback_address() as here:
        async with PortMapper(source_address=here) as mapper:
            async with EmulatedGateway(address=here) as old:
                await mapper.add_port_mapping(8080)
                assert len(old.mappings) == 1
            async with EmulatedGateway(address=here) as new:
                await mapper.add_port_mapping(8080)
                assert len(new.mappings) == 1


@pytest.mark.waits
async def test_a_gateway_that_has_gone_for_good_is_reported_as_it_went(
    gateway: EmulatedGateway,
) -> None:
    async with PortMapper(source_address=gateway.address, discovery_timeout=0.3) as mapper:
        await mapper.get_gateway()
        await gateway.stop()
        with pytest.raises(TransportError) as caught:
            await mapper.add_port_mapping(8080)
        assert caught.value.result is UPnPResult.SOCKET_ERROR
        assert {attempt.action for attempt in caught.value.attempts} == {ADD}


@pytest.mark.waits
async def test_a_given_location_that_has_gone_is_reported_as_it_went(gateway: EmulatedGateway) -> None:
    here = gateway.address
    async with PortMapper(location=gateway.location, source_address=here, discovery_timeout=10) as mapper:
        await mapper.get_gateway()
        await gateway.stop()
        with pytest.raises(TransportError) as caught:
            await mapper.add_port_mapping(8080)
        assert {attempt.action for attempt in caught.value.attempts} == {ADD}


async def test_what_was_learned_of_a_gateway_survives_its_restart() -> None:
    no_leases = refuses(ADD, 725, lambda call: call.arguments["NewLeaseDuration"] != "0")
    async with connected(no_leases) as (gateway, mapper):
        await mapper.add_port_mapping(8080, duration=60)
        await gateway.restart()
        await mapper.add_port_mapping(8080, duration=60)
        assert gateway.count(ADD) == 3


# Deadlines


def elapsed() -> Callable[[], float]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    return lambda: loop.time() - began


VERBS: list[Callable[[PortMapper], Awaitable[object]]] = [
    lambda mapper: mapper.add_port_mapping(8080),
    lambda mapper: mapper.delete_port_mapping(8080),
    lambda mapper: mapper.query_external_address(),
]
VERB_NAMES = ["add", "delete", "query"]


@pytest.mark.parametrize("verb", VERBS, ids=VERB_NAMES)
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.waits
async def test_a_gateway_that_hangs_is_an_error_within_the_deadline(
    gateway: EmulatedGateway, verb: Callable[[PortMapper], Awaitable[object]], known: bool
) -> None:
    async with PortMapper(source_address=gateway.address, timeout=0.5) as mapper:
        if known:
            await mapper.get_gateway()
        gateway.hang()
        took = elapsed()
        with pytest.raises(IGDError) as caught:
            await verb(mapper)
        assert took() < 0.5 + 0.5
        if known:
            assert isinstance(caught.value, DeadlineError)
            assert isinstance(caught.value, TimeoutError)
            assert caught.value.result is UPnPResult.HTTP_ERROR
        else:
            assert caught.value.result is UPnPResult.NO_DEVICES
        gateway.resume()


@pytest.mark.waits
async def test_a_gateway_that_hangs_only_in_its_controls_is_an_error_within_the_deadline() -> None:
    def intercept(exchange: Exchange) -> Response | None:
        return Response(delay=60) if exchange.purpose == "control" else None

    async with connected(odd(intercept=intercept), timeout=0.5) as (_, mapper):
        for _ in range(2):
            took = elapsed()
            with pytest.raises(DeadlineError):
                await mapper.query_external_address()
            assert took() < 0.5 + 0.5


@pytest.mark.waits
async def test_one_answer_that_never_comes_leaves_time_for_another_try() -> None:
    first = once()

    def intercept(exchange: Exchange) -> Response | None:
        return Response(delay=60) if exchange.purpose == "control" and first(exchange) else None

    async with connected(odd(intercept=intercept), timeout=2) as (gateway, mapper):
        await mapper.add_port_mapping(8080)
        assert gateway.count(ADD) == 2


@pytest.mark.waits
async def test_waiting_behind_ones_own_requests_does_not_count() -> None:
    def slowly(exchange: Exchange, response: Response) -> Response:
        return response.delayed(0.1) if exchange.purpose == "control" else response

    async with connected(odd(response=slowly), timeout=0.5) as (gateway, mapper):
        took = elapsed()
        await asyncio.gather(*(mapper.add_port_mapping(port) for port in range(1, 97)))
        assert len(gateway.mappings) == 96
        assert took() > 0.5


async def test_a_deadline_of_the_callers_leaves_nothing_behind(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    await mapper.get_gateway()
    gateway.hang()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await mapper.add_port_mapping(8080)
    gateway.resume()
    await mapper._release_sockets()
    assert gateway.mappings == []
    assert "0 calls under way" in repr(mapper)


# Many callers at once


@pytest.mark.one_loop
async def test_ten_thousand_identical_calls_are_one(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    asyncio.get_running_loop().set_debug(False)
    made = await asyncio.gather(*(mapper.add_port_mapping(8080) for _ in range(10_000)))
    assert set(made) == {mapping(gateway)}
    assert (gateway.search_rounds, gateway.count("GET"), gateway.count("POST")) == (1, 1, 1)


@pytest.mark.one_loop
async def test_ten_thousand_calls_that_are_cancelled_send_nothing_more(
    gateway: EmulatedGateway, mapper: PortMapper
) -> None:
    asyncio.get_running_loop().set_debug(False)
    tasks = [asyncio.create_task(mapper.add_port_mapping(8080)) for _ in range(10_000)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await settled_loop()
    assert "0 calls under way" in repr(mapper)
    assert gateway.count("POST") == 0


async def test_calls_for_one_port_are_carried_out_in_their_order(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    calls: list[Awaitable[object]] = []
    for number in range(5):
        calls.append(mapper.add_port_mapping(8080, desc=f"number {number}"))
        calls.append(mapper.delete_port_mapping(8080))
    calls.append(mapper.add_port_mapping(8080, desc="last"))
    await asyncio.gather(*calls)
    actions = [request.action for request in gateway.requests if request.kind == "POST"]
    assert actions == [ADD, DELETE] * 5 + [ADD]
    assert [each.desc for each in gateway.mappings] == ["last"]


async def test_a_call_that_equals_an_earlier_one_but_for_one_in_between_is_made_again(
    gateway: EmulatedGateway, mapper: PortMapper
) -> None:
    await asyncio.gather(mapper.add_port_mapping(8080), mapper.delete_port_mapping(8080), mapper.add_port_mapping(8080))
    assert gateway.mappings == [mapping(gateway)]


async def test_the_mapper_and_its_gateway_share_the_order_but_no_request(
    gateway: EmulatedGateway, mapper: PortMapper
) -> None:
    found = await mapper.get_gateway()
    await asyncio.gather(mapper.add_port_mapping(8080), found.add_port_mapping(8080))
    assert gateway.count(ADD) == 2


@pytest.mark.parametrize("number", [1000])
async def test_a_gateway_that_serves_one_connection_at_a_time_gets_all_of_a_large_batch(number: int) -> None:
    crowded = odd(admit=lambda others: Admission.RESET if others else Admission.SERVE)
    async with EmulatedGateway(crowded, address=None) as gateway:
        asyncio.get_running_loop().set_debug(False)
        async with PortMapper(source_address=gateway.address) as mapper:
            await asyncio.gather(*(mapper.add_port_mapping(port, duration=3600) for port in range(1, number + 1)))
            assert len(gateway.mappings) == number
            assert (await mapper.get_gateway())._backend._client.state.limiter.window < 2  # type: ignore[attr-defined]
            assert gateway.count(ADD) <= number + 5
            assert gateway.tally.reset <= 12


async def test_a_batch_learns_from_its_first_requests() -> None:
    no_leases = refuses(ADD, 725, lambda call: call.arguments["NewLeaseDuration"] != "0")
    async with connected(no_leases) as (gateway, mapper):
        await asyncio.gather(*(mapper.add_port_mapping(port, duration=60) for port in range(1, 101)))
        assert len(gateway.mappings) == 100
        assert gateway.count(ADD) <= 110


async def test_cancelled_callers_do_not_disturb_the_others(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    tasks = [asyncio.create_task(mapper.add_port_mapping(8080)) for _ in range(10)]
    await asyncio.sleep(0.002)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[1::2] == [mapping(gateway)] * 5
    assert gateway.count(ADD) == 1


async def test_an_error_that_many_wait_for_is_everyones_own() -> None:
    async with connected(refuses(ADD, 724)) as (gateway, mapper):
        calls = (mapper.add_port_mapping(8080) for _ in range(5))
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert len({id(error) for error in errors}) == 5
        assert all(isinstance(error, RefusedError) and len(error.attempts) == 1 for error in errors)
        assert gateway.count(ADD) == 1


# The caller's mistakes


BAD_ADDS: list[tuple[dict[str, Any], UPnPResult]] = [
    ({"port": 0}, UPnPResult.INVALID_PORT),
    ({"port": 65536}, UPnPResult.INVALID_PORT),
    ({"port": -1}, UPnPResult.INVALID_PORT),
    ({"port": True}, UPnPResult.INVALID_PORT),
    ({"port": "80"}, UPnPResult.INVALID_PORT),
    ({"port": 80.0}, UPnPResult.INVALID_PORT),
    ({"port": 80, "internal_port": 65536}, UPnPResult.INVALID_PORT),
    ({"port": 80, "proto": "SCTP"}, UPnPResult.INVALID_PROTOCOL),
    ({"port": 80, "proto": None}, UPnPResult.INVALID_PROTOCOL),
    ({"port": 80, "duration": -1}, UPnPResult.INVALID_DURATION),
    ({"port": 80, "duration": 2**32}, UPnPResult.INVALID_DURATION),
    ({"port": 80, "duration": 1.5}, UPnPResult.INVALID_DURATION),
    ({"port": 80, "desc": "a\nb"}, UPnPResult.INVALID_ARGS),
    ({"port": 80, "desc": b"bytes"}, UPnPResult.INVALID_ARGS),
    ({"port": 80, "internal_client": "localhost"}, UPnPResult.INVALID_ARGS),
    ({"port": 80, "remote_host": "::1"}, UPnPResult.INVALID_ARGS),
]


@contextmanager
def no_io() -> Iterator[None]:
    """Fail where a socket or a session is made."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket or session is made for a call that is wrong")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiohttp, "ClientSession", refuse)
        patch.setattr(socket, "socket", refuse)
        yield


@pytest.mark.one_loop
@pytest.mark.parametrize(("arguments", "result"), BAD_ADDS, ids=str)
async def test_a_wrong_argument_is_an_error_before_anything_is_sent(
    arguments: dict[str, Any], result: UPnPResult
) -> None:
    async with PortMapper() as mapper:
        with no_io(), pytest.raises(UsageError) as caught:
            await mapper.add_port_mapping(**arguments)
        assert isinstance(caught.value, ValueError)
        assert (caught.value.result, caught.value.error_code, caught.value.attempts) == (result, None, ())


@pytest.mark.one_loop
async def test_the_other_calls_check_their_arguments_too() -> None:
    async with PortMapper() as mapper:
        for wrong in (
            mapper.delete_port_mapping(0),
            mapper.delete_port_mapping(80, "ICMP"),  # type: ignore[arg-type]
            mapper.delete_port_mapping(80, remote_host="x"),
            mapper.discover(0),
            mapper.discover(float("nan")),
            mapper.discover(float("inf")),
            mapper.discover(True),
            mapper.discover(1, 256),
            mapper.discover(1, True),
            mapper.discover(1, 2, 3),  # type: ignore[arg-type]
        ):
            with no_io(), pytest.raises(UsageError):
                await wrong


WRONG_MAPPERS: list[dict[str, Any]] = [
    {"timeout": 0},
    {"timeout": -1},
    {"timeout": 3601},
    {"timeout": "10"},
    {"timeout": True},
    {"discovery_timeout": float("nan")},
    {"ttl": -1},
    {"ttl": 256},
    {"ttl": 1.5},
    {"local_port": -1},
    {"local_port": 65536},
    {"source_address": "router"},
    {"source_address": "0.0.0.0"},
    {"source_address": "239.255.255.250"},
    {"source_address": 1},
    {"location": "https://192.168.1.1/"},
    {"location": "file:///etc/passwd"},
    {"location": "http://user@192.168.1.1/"},
    {"location": 80},
]


@pytest.mark.parametrize("options", WRONG_MAPPERS, ids=str)
def test_a_mapper_with_wrong_options_is_not_made(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        PortMapper(**options)


def test_a_mapper_is_made_without_an_event_loop() -> None:
    assert repr(PortMapper()) == "<PortMapper 0 calls under way, gateway None>"


# The end


async def use(mapper: PortMapper, gateway: Gateway) -> list[object]:
    """Try everything; return what came of it."""
    calls: list[Callable[[], Awaitable[object]]] = [
        mapper.get_gateway,
        lambda: mapper.add_port_mapping(8080),
        lambda: mapper.delete_port_mapping(8080),
        mapper.query_external_address,
        lambda: mapper.discover(0.1),
        mapper.__aenter__,
        lambda: gateway.add_port_mapping(8080),
        lambda: gateway.delete_port_mapping(8080),
        gateway.query_external_address,
    ]
    results: list[object] = []
    for call in calls:
        try:
            results.append(await call())
        except IGDError as error:
            results.append(error)
    return results


async def test_a_closed_mapper_does_nothing_any_more(gateway: EmulatedGateway) -> None:
    mapper = PortMapper(source_address=gateway.address)
    found = await mapper.get_gateway()
    await mapper.close()
    await mapper.close()
    assert repr(mapper).startswith("<PortMapper closed")
    requests = len(gateway.requests)
    assert all(isinstance(result, UsageError) and "closed" in str(result) for result in await use(mapper, found))
    assert len(gateway.requests) == requests


async def test_closing_deletes_no_mapping(gateway: EmulatedGateway) -> None:
    async with PortMapper(source_address=gateway.address) as mapper:
        made = await mapper.add_port_mapping(8080)
    assert gateway.mappings == [made]


async def test_closing_cancels_what_is_under_way_and_settles_it(gateway: EmulatedGateway) -> None:
    mapper = PortMapper(source_address=gateway.address)
    await mapper.get_gateway()
    gateway.hang()
    tasks = [asyncio.create_task(mapper.add_port_mapping(port)) for port in range(1, 21)]
    await asyncio.sleep(0.05)
    asyncio.get_running_loop().call_later(0.1, gateway.resume)
    await mapper.close()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*tasks, return_exceptions=True)
    )
    assert gateway.mappings == []


async def test_calls_that_were_cancelled_before_their_request_was_sent_send_nothing(
    gateway: EmulatedGateway, mapper: PortMapper
) -> None:
    await mapper.get_gateway()
    gateway.hang()
    tasks = [asyncio.create_task(mapper.add_port_mapping(port)) for port in range(1, 101)]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    gateway.resume()
    await mapper._release_sockets()
    assert gateway.mappings == []
    assert gateway.count(ADD) <= 4  # as many as were out


async def test_a_mapper_that_was_released_can_be_used_again(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    await mapper.add_port_mapping(8080)
    await mapper._release_sockets()
    await mapper.add_port_mapping(8081)
    assert gateway.search_rounds == 1


@pytest.mark.one_loop
async def test_a_mapper_belongs_to_one_event_loop(gateway: EmulatedGateway, mapper: PortMapper) -> None:
    found = await mapper.get_gateway()
    results: list[object] = []

    def elsewhere() -> None:
        async def there() -> None:
            results.extend(await use(mapper, found))
            with pytest.raises(UsageError):
                await mapper.close()

        asyncio.run(there())

    await asyncio.to_thread(elsewhere)
    assert all(isinstance(result, UsageError) and "another event loop" in str(result) for result in results)
    assert await mapper.query_external_address()


async def test_no_request_ever_goes_to_another_host(canary: Canary) -> None:
    def control(_: ActionCall, proceed: Proceed) -> Outputs:
        raise UPnPError(501)

    def redirect(exchange: Exchange, response: Response) -> Response:
        return Response(307, (("Location", canary.location),)) if exchange.purpose == "control" else response

    async with connected(odd(action=control, response=redirect)) as (_, mapper):
        with pytest.raises(IGDError):
            await mapper.query_external_address()
    assert not canary.is_touched


# A gateway that needs long for an action


@pytest.mark.one_loop
@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.waits
async def test_a_gateway_that_needs_more_than_half_the_call_is_waited_for(verify: bool) -> None:
    async with (
        EmulatedGateway(quirks.slow_actions(1.2), address=None) as gateway,
        PortMapper(source_address=gateway.address, timeout=2.0) as mapper,
    ):
        mapping = await mapper.add_port_mapping(8080, verify=verify)
        assert gateway.mappings == [mapping]
        assert gateway.count("AddPortMapping") == 1


@pytest.mark.long
@pytest.mark.one_loop
async def test_what_a_call_has_made_that_ran_into_its_deadline_is_taken_back_behind_it() -> None:
    async with EmulatedGateway(quirks.slow_actions(2.0), address=None) as gateway:
        async with PortMapper(source_address=gateway.address, timeout=1.5) as mapper:
            loop = asyncio.get_running_loop()
            began = loop.time()
            with pytest.raises(DeadlineError):
                await mapper.add_port_mapping(8080)
            failed_after = loop.time() - began
            assert len(gateway.mappings) == 1
        closed_after = loop.time() - began
        assert closed_after > failed_after + 1.0  # it has waited for the undo
        assert gateway.mappings == []
