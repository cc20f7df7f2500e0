"""A lease that had to go to another gateway comes home, and is open all the way.

====================================  ==========================================================================
the router of the default route       what a lease at the stopgap does
====================================  ==========================================================================
is away                               works there; the router is asked once per poll, after ten every 20 minutes
is back                               goes home at the next poll, or as soon as the router announces itself
has the port for another              ``on_conflict``: stays ("fail"), takes it over, or gets another port
does not answer while it goes home    stays, and nobody loses anything
====================================  ==========================================================================
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aioigd import Change, ChangeKind, Lease, LeaseState
from aioigd.core.backend import Hint
from aioigd.core.dispatcher import Dispatcher
from aioigd.leases.request import LeaseRequest

from . import virtual
from .model import THEM, ModelManager, ModelRouter, lease_request, state_of

POLL = 60.0
"""Seconds between two polls of these leases."""


class Town:
    """A router, and another gateway in the same LAN."""

    def __init__(self) -> None:
        self.home = ModelRouter()
        self.stopgap = ModelRouter(name="stopgap", host="stopgap", address="99.0.0.9")
        self.wall_clock_ahead = 0.0
        self.manager = ModelManager(self.home, self._wall_clock, stopgap=self.stopgap)
        self.changes: list[Change] = []
        self.states: list[LeaseState] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def kinds(self) -> list[ChangeKind]:
        return [change.kind for change in self.changes]

    async def hold(self, *requests: LeaseRequest) -> list[Lease]:
        leases = [await self.manager.hold(request) for request in requests]
        self._tasks += [asyncio.create_task(self._take(lease)) for lease in leases]
        await asyncio.sleep(0)
        return leases

    async def at_the_stopgap(self, *requests: LeaseRequest) -> list[Lease]:
        """Leases that begin while the router is away; it is back right after."""
        self.home.is_away = True
        self.manager.cache.devices.clear()
        leases = await self.hold(*requests)
        assert len(self.stopgap.table) == sum(len(lease.mappings) for lease in leases)
        self.home.is_away = False
        return leases

    def _wall_clock(self) -> float:
        return asyncio.get_running_loop().time() + self.wall_clock_ahead

    async def _take(self, lease: Lease) -> None:
        async for change in lease.changes():
            self.changes.append(change)
            self.states.append(lease.state)


@asynccontextmanager
async def town() -> AsyncIterator[Town]:
    """The end of it is checked: nothing of ours is left anywhere."""
    it = Town()
    try:
        yield it
    finally:
        await it.manager.close()
        assert [
            row.client for router in (it.home, it.stopgap) for row in router.table.values() if row.client != THEM
        ] == []
        for task in it._tasks:
            await task


def run(main: Coroutine[Any, Any, None]) -> None:
    virtual.run(main, debug=False)


def test_a_lease_whose_router_was_away_for_twelve_seconds_comes_home(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with town() as it:
            (lease,) = await it.hold(lease_request(poll_interval=5.0))
            it.home.is_away = True
            await asyncio.sleep(12.0)
            it.home.is_away = False
            assert it.stopgap.owner(8080) == it.stopgap.us
            assert state_of(lease) is LeaseState.ACTIVE
            assert ChangeKind.GATEWAY_REPLACED in it.kinds
            it.changes.clear()
            it.states.clear()
            await asyncio.sleep(5.5)
            assert it.home.owner(8080) == it.home.us
            assert it.stopgap.table == {}
            assert it.kinds == [ChangeKind.GATEWAY_REPLACED, ChangeKind.NEW_ADDRESS]
            assert set(it.states) == {LeaseState.ACTIVE}
            assert str(lease.external_address) == it.home.address
            backend = await it.manager.cache.find()
            assert backend.device.udn == it.home.name
            it.home.asked.clear()
            await asyncio.sleep(1000.0)
            assert it.home.asked["look for home"] == it.home.asked["look"] == 0

    with caplog.at_level(logging.WARNING, "aioigd.lease"):
        run(main())
    messages = [record.getMessage() for record in caplog.records]
    assert [sum(what in message for message in messages) for what in ("another one", "is lost", "go home")] == [1, 1, 1]
    assert len(messages) == 3


def test_it_is_active_at_the_stopgap_until_all_is_granted_at_home() -> None:
    async def main() -> None:
        async with town() as it:
            (lease,) = await it.at_the_stopgap(lease_request([8080, 8081, 8082], proto=["TCP", "UDP"]))

            async def look(what: str) -> None:
                await asyncio.sleep(1.0)
                assert state_of(lease) is LeaseState.ACTIVE
                if what == "add":
                    assert len(it.stopgap.table) == 6

            it.home.before_answer = look
            await asyncio.sleep(POLL + 20.0)
            assert (len(it.home.table), len(it.stopgap.table)) == (6, 0)
            assert ChangeKind.LOST not in it.kinds
            it.home.before_answer = None

    run(main())


@pytest.mark.parametrize("proto", ["TCP", ["TCP", "UDP"]])
def test_with_fail_it_stays_where_it_works_until_the_port_is_free_at_home(proto: str | list[str]) -> None:
    async def main() -> None:
        async with town() as it:
            taken, free = await it.at_the_stopgap(lease_request(8080, proto=proto), lease_request(9090))
            it.home.hold(8080, proto="UDP" if len(proto) == 2 else "TCP")
            await asyncio.sleep(4000.0)
            assert state_of(taken) is state_of(free) is LeaseState.ACTIVE
            assert it.home.owner(9090) == it.home.us
            assert it.stopgap.owner(9090) is None
            assert it.stopgap.owner(8080) == it.stopgap.us
            assert [row.client for row in it.home.table.values()].count(it.home.us) == 1
            assert it.kinds.count(ChangeKind.GATEWAY_REPLACED) == 1
            (fresh,) = await it.hold(lease_request(9091))
            assert it.home.owner(9091) == it.home.us
            it.home.table = {key: row for key, row in it.home.table.items() if row.client != THEM}
            await asyncio.sleep(POLL + 1)
            assert it.home.owner(8080) == it.home.us
            assert it.stopgap.table == {}
            assert ChangeKind.LOST not in it.kinds
            assert state_of(fresh) is LeaseState.ACTIVE

    run(main())


def test_with_fail_and_alone_it_tries_again_at_each_poll() -> None:
    async def main() -> None:
        async with town() as it:
            (lease,) = await it.at_the_stopgap(lease_request())
            it.home.hold(8080)
            await asyncio.sleep(10 * POLL + 1)
            assert it.home.asked["add"] == it.home.asked["look for home"] == 10
            assert (state_of(lease), it.kinds) == (LeaseState.ACTIVE, [])

    run(main())


def test_a_port_that_is_taken_at_home_is_taken_over_or_replaced() -> None:
    async def main() -> None:
        async with town() as it:
            await it.at_the_stopgap(
                lease_request(8080, on_conflict="take_over"), lease_request(8081, on_conflict="other_port")
            )
            it.home.hold(8080)
            it.home.hold(8081)
            await asyncio.sleep(POLL + 1)
            assert it.home.owner(8080) == it.home.us
            assert it.home.owner(8081) == THEM
            assert len(it.home.table) == 3
            assert it.stopgap.table == {}
            assert sorted(kind.name for kind in it.kinds if kind is not ChangeKind.NEW_ADDRESS) == [
                "GATEWAY_REPLACED",
                "GATEWAY_REPLACED",
                "NEW_PORT",
            ]

    run(main())


def test_one_that_has_stayed_and_can_work_there_no_more_is_lost() -> None:
    async def main() -> None:
        async with town() as it:
            lease, _ = await it.at_the_stopgap(lease_request(8080), lease_request(9090))
            it.home.hold(8080)
            await asyncio.sleep(POLL + 1)
            assert state_of(lease) is LeaseState.ACTIVE
            it.stopgap.is_away = True
            await asyncio.sleep(2 * POLL)
            assert state_of(lease) is LeaseState.LOST
            it.home.table = {key: row for key, row in it.home.table.items() if row.client != THEM}
            await asyncio.sleep(2 * POLL)
            assert state_of(lease) is LeaseState.ACTIVE
            assert it.home.owner(8080) == it.home.us
            it.stopgap.table.clear()

    run(main())


def test_leases_on_one_port_go_home_together() -> None:
    async def main() -> None:
        async with town() as it:
            await it.at_the_stopgap(lease_request([8080, 8081]))
            alone, _ = await it.hold(lease_request(8081), lease_request(9090))
            it.home.hold(8080)
            await asyncio.sleep(POLL + 1)
            assert it.home.owner(8081) is None
            assert it.home.owner(9090) == it.home.us
            await alone.release()
            assert it.stopgap.owner(8081) == it.stopgap.us

    run(main())


def test_the_router_is_asked_once_per_poll_and_rarely_when_it_never_answers() -> None:
    async def main() -> None:
        async with town() as it:
            await it.at_the_stopgap(lease_request())
            it.home.is_away = True
            await asyncio.sleep(10 * POLL + 1)
            assert it.home.asked["look for home"] == 10
            await asyncio.sleep(3600.0)
            assert it.home.asked["look for home"] == 13
            it.home.is_away = False
            await asyncio.sleep(1200.0)
            assert it.stopgap.table == {}

    run(main())


def test_ten_polls_in_as_many_seconds_are_no_reason_to_ask_rarely() -> None:
    async def main() -> None:
        async with town() as it:
            await it.at_the_stopgap(lease_request(poll_interval=1.0))
            it.home.is_away = True
            await asyncio.sleep(100.0)
            it.home.is_away = False
            await asyncio.sleep(1.5)
            assert it.stopgap.table == {}

    run(main())


@pytest.mark.parametrize("hint", [Hint.HOME, Hint.RESTARTED])
def test_it_goes_home_as_soon_as_the_router_or_the_stopgap_announces_something(hint: Hint) -> None:
    async def main() -> None:
        async with town() as it:
            (lease,) = await it.at_the_stopgap(lease_request(poll_interval=3600.0))
            assert it.home.on_hint is not None
            it.home.on_hint(hint)
            await asyncio.sleep(1.0)
            assert it.home.owner(8080) == it.home.us
            assert it.stopgap.table == {}
            assert ChangeKind.LOST not in it.kinds
            assert state_of(lease) is LeaseState.ACTIVE

    run(main())


def test_announcements_of_a_router_that_is_none_cost_ever_less() -> None:
    async def main() -> None:
        async with town() as it:
            await it.at_the_stopgap(lease_request(poll_interval=3600.0))
            it.home.is_away = True
            for _ in range(1000):
                if it.home.on_hint is not None:
                    it.home.on_hint(Hint.HOME)
                await asyncio.sleep(1.0)
            assert it.home.asked["look for home"] < 400
            it.home.is_away = False

    run(main())


def test_a_router_that_goes_away_again_while_leases_go_home_costs_nothing() -> None:
    async def main() -> None:
        async with town() as it:
            leases = await it.at_the_stopgap(*(lease_request(port) for port in range(8080, 8090)))

            async def leave(what: str) -> None:
                it.home.is_away = it.home.asked["add"] > 4

            it.home.before_answer = leave
            await asyncio.sleep(POLL + 40)
            assert len(it.stopgap.table) == 10
            assert all(state_of(lease) is LeaseState.ACTIVE for lease in leases)
            assert it.kinds == []
            it.home.before_answer = None
            it.home.is_away = False
            await asyncio.sleep(2 * POLL)
            assert (len(it.home.table), len(it.stopgap.table)) == (10, 0)

    run(main())


@pytest.mark.parametrize("at", range(16))
@pytest.mark.parametrize("whole", [True, False], ids=["close", "release"])
def test_whenever_a_lease_ends_on_its_way_nothing_is_left_anywhere(at: int, whole: bool) -> None:
    async def main() -> None:
        async with town() as it:
            leases = await it.at_the_stopgap(lease_request([8080, 8081]), lease_request(9090))
            await asyncio.sleep(POLL - asyncio.get_running_loop().time() + 0.001 * at * 2.5)
            if whole:
                await it.manager.close()
            else:
                await leases[0].release()
                assert it.stopgap.owner(8080) is None or it.home.owner(8080) is None
                await asyncio.sleep(1.0)
                assert {key.external_port for key in (*it.home.table, *it.stopgap.table)} == {9090}

    run(main())


@pytest.mark.parametrize("at", range(16))
def test_a_lease_that_begins_on_the_way_is_at_home_in_the_end(at: int) -> None:
    async def main() -> None:
        async with town() as it:
            await it.at_the_stopgap(lease_request([8080, 8081]))
            await asyncio.sleep(POLL - asyncio.get_running_loop().time() + 0.001 * at * 2.5)
            (lease,) = await it.hold(lease_request(9090))
            await asyncio.sleep(POLL + 10)
            assert {key.external_port for key in it.home.table} == {8080, 8081, 9090}
            assert it.stopgap.table == {}
            assert state_of(lease) is LeaseState.ACTIVE

    run(main())


def test_a_call_that_finds_the_router_first_takes_no_port_away_from_a_lease() -> None:
    async def main() -> None:
        async with town() as it:
            (lease,) = await it.at_the_stopgap(lease_request())
            it.stopgap.is_away = True
            await it.manager.dispatcher.external_address()
            it.stopgap.is_away = False
            assert it.manager.cache.last is not None
            assert it.manager.cache.last.device.udn == "router"
            await asyncio.sleep(POLL + 1)
            assert it.home.owner(8080) == it.home.us
            assert it.stopgap.table == {}
            assert ChangeKind.LOST not in it.kinds
            assert it.kinds.count(ChangeKind.GATEWAY_REPLACED) == 1
            assert state_of(lease) is LeaseState.ACTIVE

    run(main())


def test_a_suspension_of_this_machine_does_not_spare_a_lease_that_has_stayed() -> None:
    async def main() -> None:
        async with town() as it:
            lease, _ = await it.at_the_stopgap(lease_request(8080), lease_request(9090))
            it.home.hold(8080)
            await asyncio.sleep(POLL + 1)
            it.stopgap.table.clear()
            it.wall_clock_ahead = 3000.0
            await asyncio.sleep(POLL + 1)
            assert state_of(lease) is LeaseState.ACTIVE
            assert it.stopgap.owner(8080) == it.stopgap.us

    run(main())


def test_pinholes_are_opened_at_home_and_closed_at_the_stopgap() -> None:
    async def main() -> None:
        async with town() as it:
            (lease,) = await it.at_the_stopgap(lease_request(ipv6=True))
            assert len(it.stopgap.pinholes) == 1
            await asyncio.sleep(POLL + 1)
            assert (len(it.home.pinholes), len(it.stopgap.pinholes)) == (1, 0)
            assert lease.pinhole_error is None

    run(main())


def test_a_mapper_without_leases_drops_a_stopgap_after_a_minute_and_no_other_gateway() -> None:
    async def main() -> None:
        async with town() as it:
            cache = it.manager.cache
            calls = Dispatcher(it.manager.queue, cache, timeout=10.0)
            it.home.is_away = True
            cache.devices.clear()
            await calls.external_address()
            it.home.is_away = False
            for seconds, name in ((50.0, "stopgap"), (11.0, "router"), (10_000.0, "router")):
                await asyncio.sleep(seconds)
                await calls.external_address()
                assert cache.last is not None
                assert cache.last.device.udn == name
            assert it.home.asked["look"] == 2

    run(main())


def test_what_a_program_has_chosen_is_no_stopgap() -> None:
    async def main() -> None:
        async with town() as it:
            it.manager.cache.devices[:] = [it.stopgap.device()]
            (lease,) = await it.hold(lease_request())
            await asyncio.sleep(5000.0)
            assert it.home.asked["look for home"] == 0
            assert state_of(lease) is LeaseState.ACTIVE
            assert it.stopgap.owner(8080) == it.stopgap.us

    run(main())
