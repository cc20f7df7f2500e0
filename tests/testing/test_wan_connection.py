"""The table of mappings by itself, with a clock that stands still."""

from __future__ import annotations

from aioigd.models import MappingKey, PortMapping
from aioigd.testing import EmulatedGateway
from aioigd.testing.wan_connection import MappingTable

from .client import key, mapping, outcome, values


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(port: int, duration: int = 0) -> PortMapping:
    return PortMapping(port, port, "192.168.1.2", "TCP", "", duration)


def ports(table: MappingTable) -> list[int]:
    return [key.external_port for key in table.entries()]


def test_a_mapping_goes_when_its_lease_ends_and_not_before() -> None:
    clock = Clock()
    table = MappingTable(clock)
    table.put(made(1, duration=10))
    table.put(made(2))
    clock.now += 9.999
    assert ports(table) == [1, 2]
    clock.now += 0.001
    assert ports(table) == [2]


def test_a_renewed_mapping_outlives_its_first_lease() -> None:
    clock = Clock()
    table = MappingTable(clock)
    table.put(made(1, duration=10))
    clock.now += 5
    table.put(made(1, duration=10))
    clock.now += 9
    assert ports(table) == [1]
    clock.now += 1
    assert ports(table) == []


def test_a_mapping_made_permanent_stays() -> None:
    clock = Clock()
    table = MappingTable(clock)
    table.put(made(1, duration=10))
    table.put(made(1))
    clock.now += 1_000_000
    assert ports(table) == [1]


def test_room_is_free_again_when_a_lease_ends() -> None:
    clock = Clock()
    table = MappingTable(clock, size=1)
    table.put(made(1, duration=10))
    assert table.is_full
    clock.now += 10
    assert not table.is_full


def test_entries_have_their_place_in_the_order_they_came() -> None:
    table = MappingTable(Clock())
    for port in (3, 1, 2):
        table.put(made(port))
    entries = [table.at(index) for index in range(4)]
    assert [entry and entry.mapping.external_port for entry in entries] == [3, 1, 2, None]
    assert table.remove(MappingKey(1, "TCP"))
    assert not table.remove(MappingKey(1, "TCP"))


async def test_a_gateway_counts_by_the_clock_that_it_is_given() -> None:
    clock = Clock()
    async with EmulatedGateway(address=None, clock=clock) as gateway:
        await outcome(gateway, "AddPortMapping", mapping(lease=60))
        clock.now += 59.5
        assert (await values(gateway, "GetSpecificPortMappingEntry", key()))["newleaseduration"] == "1"
        clock.now += 0.5
        assert await outcome(gateway, "GetSpecificPortMappingEntry", key()) == 714
        assert gateway.mappings == []
        assert (await values(gateway, "GetStatusInfo"))["newuptime"] == "60"
        assert gateway.requests[-1].time == clock.now
