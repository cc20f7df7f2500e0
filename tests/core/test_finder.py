"""When a search may end, whatever the protocol; and how an operator forbids it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Self

import pytest

import aioigd
from aioigd import Device, DiscoveryError, IGDStatus, LeaseState, NoRouteError, PortMapper, UPnPResult
from aioigd.core.backend import NEVER, Backend, Candidate, Driver, Hint, Listener, Rank, Search, SearchScope
from aioigd.core.finder import Finder
from aioigd.testing import EmulatedGateway

pytestmark = pytest.mark.usefixtures("nothing_is_left")

Report = Callable[[Candidate | None], None]


def candidate(name: str, rank: Rank) -> Candidate:
    return Candidate(Device(description_url=name, igd_status=IGDStatus.OK), rank, ("InternetGatewayDevice",))


class ScriptedSearch(Search):
    """Reports candidates at given times; ``certain_until`` is until when it says that a certain one may come."""

    def __init__(self, report: Report, script: Sequence[tuple[float, Candidate | None]], certain_until: float) -> None:
        self._report = report
        self._script = script
        self._certain_until = certain_until
        self._timers: list[asyncio.TimerHandle] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        self._timers = [loop.call_later(after, self._report, each) for after, each in self._script]
        return self

    async def __aexit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.cancel()

    def may_report_until(self, rank: Rank) -> float:
        return self._began + self._certain_until if self._certain_until else NEVER

    def failure(self) -> DiscoveryError:
        return DiscoveryError("nobody", UPnPResult.NO_DEVICES)


class ScriptedDriver(Driver):
    def __init__(self, *script: tuple[float, Candidate | None], certain_until: float = 0.0) -> None:
        self._script = script
        self._certain_until = certain_until

    def search(self, scope: SearchScope, until: float, report: Report) -> Search:
        return ScriptedSearch(report, self._script, self._certain_until)

    def connect(self, device: Device) -> Backend | None:
        return None

    async def listen(self, on_hint: Callable[[Hint], None]) -> Listener:
        raise AssertionError("nobody listens")

    async def close(self) -> None:
        pass


async def found(*drivers: Driver, timeout: float = 5.0) -> tuple[str, float]:
    """The name of the gateway that is found, and after how many seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    device, _ = await Finder(drivers, SearchScope()).find_gateway(timeout)
    return device.description_url, loop.time() - began


LIKELY, CERTAIN = candidate("likely", Rank.LIKELY), candidate("certain", Rank.CERTAIN)
LAST, USELESS = candidate("last", Rank.LAST_RESORT), candidate("useless", Rank.USELESS)


async def test_what_is_certain_ends_a_search_at_once() -> None:
    name, took = await found(ScriptedDriver((0.0, USELESS), (0.0, LIKELY), (0.01, CERTAIN)))
    assert name == "certain"
    assert took < 0.3


@pytest.mark.waits
async def test_what_is_likely_waits_a_moment_for_something_better() -> None:
    name, took = await found(ScriptedDriver((0.0, LAST), (0.1, LIKELY), (3.0, CERTAIN)))
    assert name == "likely"
    assert 0.3 < took < 2.5


@pytest.mark.waits
async def test_it_waits_as_long_as_something_certain_may_come() -> None:
    name, _ = await found(ScriptedDriver((0.0, LIKELY), (0.7, CERTAIN), certain_until=2.0))
    assert name == "certain"


async def test_a_search_that_is_complete_is_not_waited_for() -> None:
    name, took = await found(ScriptedDriver((0.0, LAST), (0.01, None)))
    assert name == "last"
    assert took < 0.3


async def test_all_drivers_search_at_the_same_time() -> None:
    name, took = await found(ScriptedDriver((0.05, CERTAIN)), ScriptedDriver(certain_until=9.0))
    assert name == "certain"
    assert took < 1.0


PREFERRED, OTHER = candidate("preferred", Rank.CERTAIN), candidate("other", Rank.CERTAIN)


@pytest.mark.waits
async def test_a_preferred_protocol_is_waited_for_as_long_as_it_asks_for() -> None:
    name, took = await found(ScriptedDriver((0.2, PREFERRED), certain_until=0.9), ScriptedDriver((0.0, OTHER)))
    assert name == "preferred"
    assert took < 0.8
    name, took = await found(ScriptedDriver((3.0, PREFERRED), certain_until=0.3), ScriptedDriver((0.0, OTHER)))
    assert name == "other"
    assert took >= 0.29


async def test_a_preferred_protocol_whose_search_has_ended_is_not_waited_for() -> None:
    name, took = await found(ScriptedDriver((0.05, None), certain_until=4.0), ScriptedDriver((0.0, OTHER)))
    assert name == "other"
    assert took < 3.0


@pytest.mark.waits
async def test_the_router_counts_more_than_the_protocol() -> None:
    name, _ = await found(ScriptedDriver((0.0, LIKELY), certain_until=0.3), ScriptedDriver((0.1, OTHER)))
    assert name == "other"


class MuteSearch(ScriptedSearch):
    async def __aenter__(self) -> Self:
        raise NoRouteError("no network")


class MuteDriver(ScriptedDriver):
    """One that cannot search here."""

    def search(self, scope: SearchScope, until: float, report: Report) -> Search:
        return MuteSearch(report, (), 0.0)


async def test_where_one_protocol_cannot_search_the_others_do() -> None:
    name, _ = await found(MuteDriver(), ScriptedDriver((0.05, CERTAIN)))
    assert name == "certain"
    with pytest.raises(NoRouteError, match="no network"):
        await found(MuteDriver(), ScriptedDriver((0.0, None)))
    with pytest.raises(NoRouteError, match="no network"):
        await Finder([MuteDriver(), ScriptedDriver((0.0, None))], SearchScope()).discover(0.1, 2, "")


async def test_nobody_there_is_what_the_first_search_says() -> None:
    with pytest.raises(DiscoveryError) as caught:
        await found(ScriptedDriver((0.0, USELESS)), timeout=0.05)
    assert caught.value.result is UPnPResult.NO_DEVICES


@pytest.mark.waits
async def test_an_operator_can_forbid_all_searches_while_a_program_runs(
    gateway: EmulatedGateway, mapper: PortMapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOIGD_DISABLE", "1")
    for refused in (
        mapper.add_port_mapping(8080),
        mapper.get_gateway(),
        mapper.discover(0.1),
        aioigd.query_external_address(location=gateway.location),
    ):
        with pytest.raises(DiscoveryError, match="AIOIGD_DISABLE") as caught:
            await refused
        assert caught.value.result is UPnPResult.NO_GATEWAY
    async with mapper.lease(8080, required=False) as lease:
        with pytest.raises(DiscoveryError):
            await lease.wait_active(0.3)
        assert lease.state is LeaseState.LOST
        assert gateway.requests == []
    monkeypatch.delenv("AIOIGD_DISABLE")
    assert (await mapper.add_port_mapping(8080)).external_port == 8080
