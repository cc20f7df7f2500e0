"""The plain functions: one mapper behind them for each event loop, and nothing that stays open."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

import aioigd
from aioigd import IGDError, PortMapper, RefusedError, UPnPResult, UsageError, functions
from aioigd.testing import EmulatedGateway, loopback_address

from .support import settled_loop, sockets

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[PortMapper]:
    """All mappers that are made."""
    made: list[PortMapper] = []

    class Noted(PortMapper):
        def __init__(self, **options: object) -> None:
            super().__init__(**options)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(functions, "PortMapper", Noted)
    return made


async def test_a_port_is_mapped_and_deleted_and_nothing_stays_open(gateway: EmulatedGateway) -> None:
    before = (sockets(), asyncio.all_tasks())
    here = gateway.address
    made = await aioigd.add_port_mapping(8080, 80, "d", "TCP", 60, verify=True, source_address=here)
    await settled_loop()
    assert (sockets(), asyncio.all_tasks()) == before
    assert gateway.mappings == [made]
    assert await aioigd.query_external_address(source_address=here) == IPv4Address("11.22.33.44")
    await aioigd.delete_port_mapping(8080, "TCP", source_address=here)
    await settled_loop()
    assert (sockets(), asyncio.all_tasks()) == before
    assert gateway.mappings == []


async def test_the_gateway_is_kept_in_mind_for_the_next_call(gateway: EmulatedGateway) -> None:
    for port in range(1, 6):
        await aioigd.add_port_mapping(port, source_address=gateway.address)
    assert (gateway.search_rounds, gateway.count("GET"), gateway.count("POST")) == (1, 1, 5)


async def test_a_location_may_be_given(gateway: EmulatedGateway) -> None:
    await aioigd.add_port_mapping(8080, source_address=gateway.address, location=gateway.location)
    assert gateway.count("M-SEARCH") == 0


async def test_calls_at_the_same_time_share_a_mapper(gateway: EmulatedGateway, sessions: list[PortMapper]) -> None:
    here = gateway.address
    await asyncio.gather(*(aioigd.add_port_mapping(port, source_address=here) for port in range(1, 51)))
    assert len(gateway.mappings) == 50
    assert len(sessions) == 1
    assert (gateway.search_rounds, gateway.count("GET")) == (1, 1)


async def test_calls_that_come_while_others_end_are_served(gateway: EmulatedGateway) -> None:
    async def call(number: int) -> None:
        await asyncio.sleep(0.001 * number)
        await aioigd.add_port_mapping(number + 1, source_address=gateway.address)

    await asyncio.gather(*(call(number) for number in range(30)))
    assert len(gateway.mappings) == 30
    assert gateway.search_rounds == 1


async def test_each_way_of_searching_has_a_mapper_of_its_own(sessions: list[PortMapper]) -> None:
    async with EmulatedGateway(address=None) as one, EmulatedGateway(address=None) as two:
        for gateway in (one, two, one, two):
            await aioigd.add_port_mapping(8080, source_address=gateway.address)
        assert len(sessions) == 2
        assert len(one.mappings) == len(two.mappings) == 1


async def test_mappers_that_were_not_used_for_long_are_closed(
    gateway: EmulatedGateway, sessions: list[PortMapper]
) -> None:
    async def ask(number: int) -> None:
        """Ask one of many gateways, all of which are this one."""
        await aioigd.query_external_address(location=f"{gateway.location}#{number}", source_address=gateway.address)

    kept = functions._of_loop.setdefault(asyncio.get_running_loop(), {})
    for number in range(functions._MOST_MAPPERS):
        await ask(number)
    assert len(sessions) == len(kept) == functions._MOST_MAPPERS == 32
    await ask(0)  # which is the one that was used last now
    for number in range(100, 103):
        await ask(number)
    assert len(kept) == 32
    assert [each for each in sessions if each._queue.is_closed] == sessions[1:4]
    await ask(0)
    assert len(sessions) == 35
    await ask(1)
    assert len(sessions) == 36


async def test_no_mapper_is_closed_that_a_call_is_using(gateway: EmulatedGateway, sessions: list[PortMapper]) -> None:
    await asyncio.gather(
        *(
            aioigd.query_external_address(location=f"{gateway.location}#{number}", source_address=gateway.address)
            for number in range(40)
        )
    )
    assert len(sessions) == 40
    await aioigd.query_external_address(source_address=gateway.address)
    assert len(functions._of_loop[asyncio.get_running_loop()]) == 32


@pytest.mark.waits
async def test_everybody_is_discovered_with_a_mapper_of_its_own(gateway: EmulatedGateway) -> None:
    before = sockets()
    (device,) = await aioigd.discover(0.2, source_address=gateway.address)
    await settled_loop()
    assert device.description_url == gateway.location
    assert sockets() == before


async def test_errors_are_those_of_the_methods(gateway: EmulatedGateway) -> None:
    with pytest.raises(RefusedError) as caught:
        await aioigd.delete_port_mapping(8080, source_address=gateway.address)
    assert caught.value.result is UPnPResult.NO_SUCH_ENTRY_IN_ARRAY
    assert len(caught.value.attempts) == 1
    for wrong in (
        aioigd.add_port_mapping(0),
        aioigd.add_port_mapping(80, source_address="router"),
        aioigd.query_external_address(location="ftp://192.168.1.1/"),
        aioigd.delete_port_mapping(80, "ICMP"),  # type: ignore[arg-type]
        aioigd.discover(-1),
    ):
        with pytest.raises(UsageError):
            await wrong


async def test_a_cancelled_call_leaves_nothing_open(gateway: EmulatedGateway) -> None:
    before = sockets()
    gateway.hang()
    task = asyncio.create_task(aioigd.add_port_mapping(8080, source_address=gateway.address))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled_loop()
    assert sockets() == before
    gateway.resume()


async def test_the_last_to_leave_does_not_end_what_another_has_begun_meanwhile(gateway: EmulatedGateway) -> None:
    here = gateway.address
    await aioigd.query_external_address(source_address=here)
    gateway.hang()
    first = asyncio.create_task(aioigd.add_port_mapping(8080, source_address=here))
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.sleep(0)
    second = asyncio.create_task(aioigd.add_port_mapping(8081, source_address=here))
    asyncio.get_running_loop().call_later(0.05, gateway.resume)
    await asyncio.wait({first, second})
    assert first.cancelled()
    assert [each.external_port for each in gateway.mappings] == [8081]


def loops(factories: list[Callable[[], asyncio.AbstractEventLoop]]) -> int:
    """Map a port in one event loop after another, and return how many of them are still in memory."""
    alive = []
    with loopback_address() as here:
        for factory in factories:

            async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
                async with EmulatedGateway(address=here) as gateway:
                    await aioigd.add_port_mapping(8080, source_address=here)
                    assert len(gateway.mappings) == 1
                    assert gateway.search_rounds == 1
                return weakref.ref(asyncio.get_running_loop())

            with asyncio.Runner(loop_factory=factory) as runner:
                alive.append(runner.run(main()))
    gc.collect()
    return sum(each() is not None for each in alive)


def test_two_event_loops_one_after_another_each_have_their_own_and_are_not_kept() -> None:
    assert loops([asyncio.new_event_loop] * 3) == 0


def test_the_same_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")
    assert loops([uvloop.new_event_loop] * 3) == 0


async def test_nothing_foreign_escapes_from_a_mapper_that_breaks(
    gateway: EmulatedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("aioigd.upnp.soap_client.soap.parse_reply", broken)
    with pytest.raises(IGDError, match="unexpected ZeroDivisionError"):
        await aioigd.add_port_mapping(8080, source_address=gateway.address)


@pytest.mark.one_loop
@pytest.mark.parametrize("nonsense", [[], 127, b"127.0.0.1", {}])
async def test_what_is_no_text_is_a_mistake_of_the_callers(nonsense: object) -> None:
    with pytest.raises(UsageError):
        await aioigd.add_port_mapping(8080, source_address=nonsense)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        await aioigd.query_external_address(location=nonsense)  # type: ignore[arg-type]


async def test_a_batch_leaves_no_connection_that_was_kept(gateway: EmulatedGateway) -> None:
    before = sockets()
    for _ in range(2):
        calls = [aioigd.add_port_mapping(port, source_address=gateway.address) for port in range(2_000, 2_080)]
        await asyncio.gather(*calls)
        await settled_loop()
        assert not sockets() - before
    assert gateway.tally.accepted < gateway.count("POST")  # some were kept until then
