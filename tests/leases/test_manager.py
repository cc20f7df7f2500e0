"""The manager, with a model of a router and in virtual time: hours pass at once, and nothing depends on the machine."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from aioigd import (
    Change,
    ChangeKind,
    ConflictError,
    IGDError,
    Lease,
    LeaseState,
    UnexpectedError,
    UPnPResult,
    UsageError,
)
from aioigd.core.backend import Hint
from aioigd.errors import is_unreachable
from aioigd.leases.acquisition import MAX_CONCURRENT
from aioigd.leases.release import RELEASE_STALL
from aioigd.upnp.wire.error_codes import refused

from .model import THEM, US, ModelManager, ModelRouter, failure_of, lease_request, state_of
from .virtual import VirtualLoop, run

HOUR = 3600.0
DAY = 24 * HOUR
POLL = 60.0


@asynccontextmanager
async def leased(router: ModelRouter, port: object = 8080, **changes: object) -> AsyncIterator[Lease]:
    """A lease on a manager of its own, after which nothing may be left."""
    manager = ModelManager(router)
    lease = await manager.hold(lease_request(port, **changes))
    try:
        yield lease
    finally:
        await lease.release()
        await manager.close()
        assert not len(manager)
        assert not router.listeners
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def changed(lease: Lease) -> list[Change]:
    """Collect what happens to a lease until it ends."""
    return [change async for change in lease.changes()]


def kinds(changes: list[Change]) -> list[ChangeKind]:
    return [change.kind for change in changes]


class Recorded:
    """What a reader of a lease's changes has read so far."""

    def __init__(self, lease: Lease) -> None:
        self._changes: list[Change] = []
        self._iterator = lease.changes()

    async def kinds(self) -> list[ChangeKind]:
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.0001):
                    self._changes.append(await anext(self._iterator))
        return kinds(self._changes)


# The ordinary life of a lease


def test_a_lease_is_renewed_at_half_its_time_and_gone_in_the_end() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, duration=3600) as lease:
            assert (lease.state, lease.external_port, str(lease.external_address)) == (
                LeaseState.ACTIVE,
                8080,
                "11.22.33.44",
            )
            assert lease.last_confirmed is not None
            for half_hours in range(1, 20):
                before = router.asked["add"]
                await asyncio.sleep(HOUR / 2 + 1)
                assert (router.asked["add"] - before, half_hours) == (1, half_hours)
                assert router.owner(8080) == US
        assert router.table == {}

    run(main(), debug=False)


def test_all_leases_of_a_mapper_share_one_task_and_one_timer() -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        before = asyncio.all_tasks()
        leases = [await manager.hold(lease_request(port)) for port in range(1000, 1100)]
        assert len(asyncio.all_tasks() - before) == 1
        await asyncio.sleep(3 * HOUR)
        assert all(state_of(lease) is LeaseState.ACTIVE for lease in leases)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        assert loop.most_timers < 30
        await manager.close()
        assert router.table == {}

    run(main(), debug=False)


def test_several_ports_and_both_protocols_are_one_lease() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, [8080, 8081], proto=["TCP", "udp"]) as lease:
            assert [(one.external_port, one.proto) for one in lease.mappings] == [
                (8080, "TCP"),
                (8080, "UDP"),
                (8081, "TCP"),
                (8081, "UDP"),
            ]
            del router.table[lease.mappings[2].key]
            await asyncio.sleep(HOUR)
            assert len(router.table) == 4
        assert router.table == {}

    run(main())


@pytest.mark.parametrize("can_tell", [True, False])
def test_a_permanent_mapping_is_looked_after_and_made_again(can_tell: bool) -> None:
    async def main() -> None:
        router = ModelRouter(grants=lambda _: 0, can_tell=can_tell)
        async with leased(router) as lease:
            await asyncio.sleep(DAY)
            assert router.asked["add"] == 1
            assert state_of(lease) is LeaseState.ACTIVE
            router.restart()
            await asyncio.sleep(POLL + 1)
            assert router.owner(8080) == US

    run(main(), debug=False)


@pytest.mark.parametrize("reports", [lambda remaining: remaining, lambda _: 0, lambda _: 3600])
@pytest.mark.parametrize("part", [0.9, 0.4, 0.1])
def test_a_lease_that_the_router_cuts_short_is_learned_and_held_all_the_same(part: float, reports: object) -> None:
    async def main() -> None:
        router = ModelRouter(really_lasts=lambda granted: granted * part, reports=reports)  # type: ignore[arg-type]
        async with leased(router, duration=3600):
            await asyncio.sleep(4 * HOUR)
            dark = 0
            for _ in range(50):
                await asyncio.sleep(97.0)
                dark += router.owner(8080) is None
            assert dark == 0

    run(main(), debug=False)


def test_a_router_that_says_yes_and_does_nothing_is_an_error() -> None:
    async def main() -> None:
        router = ModelRouter(really_lasts=lambda _: -1.0)
        with pytest.raises(IGDError) as caught:
            async with leased(router):
                pass
        assert caught.value.result is UPnPResult.PORT_MAPPING_NOT_FOUND

    run(main())


def test_what_only_this_machine_reaches_is_an_error_that_names_the_address() -> None:
    async def main() -> None:
        router = ModelRouter()
        with pytest.raises(IGDError, match=rf"127\.0\.0\.1: let the server listen on {US} or 0\.0\.0\.0") as caught:
            async with leased(router, internal_client="127.0.0.1"):
                pass
        assert caught.value.result is UPnPResult.INVALID_ARGS
        assert not isinstance(caught.value, UsageError)
        async with leased(router, internal_client="127.0.0.1", required=False) as lease:
            await asyncio.sleep(HOUR)
            assert state_of(lease) is LeaseState.LOST
        with pytest.raises(IGDError, match="127"):
            async with leased(router, 0, internal_client="127.0.0.1"):
                pass
        assert router.asked["add"] + router.asked["add_any"] == 0
        router.us = "127.0.0.1"
        async with leased(router, internal_client="127.0.0.1"):
            assert router.owner(8080) == "127.0.0.1"

    run(main())


def test_another_client_is_kept_and_checked_as_ours_is() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, internal_client=THEM) as lease:
            router.restart()
            await asyncio.sleep(POLL + 1)
            assert state_of(lease) is LeaseState.ACTIVE
            assert router.owner(8080) == THEM
        assert router.table == {}

    run(main())


# Recovery


@pytest.mark.parametrize("new_place", [True, False])
def test_after_a_restart_nobody_announced_the_mapping_is_back_within_one_poll(new_place: bool) -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, [8080, 8081]) as lease:
            record = Recorded(lease)
            await asyncio.sleep(100.0)
            router.restart(new_place=new_place)
            await asyncio.sleep(POLL + 1)
            assert len(router.table) == 2
            assert state_of(lease) is LeaseState.ACTIVE
            assert await record.kinds() == [ChangeKind.LOST, ChangeKind.BACK]

    run(main())


@pytest.mark.parametrize("new_place", [True, False])
def test_after_a_restart_that_was_announced_the_mapping_is_back_at_once(new_place: bool) -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router):
            for _ in range(100):
                await asyncio.sleep(5.0)
                router.restart(new_place=new_place)
                assert router.on_hint is not None
                router.on_hint(Hint.RESTARTED)
                await asyncio.sleep(1.0)
                assert router.owner(8080) == US
            assert router.asked["add"] == 101

    run(main())


def test_a_hundred_restarts_do_not_make_the_lease_seem_a_short_one() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router):
            for _ in range(100):
                router.restart()
                await asyncio.sleep(POLL + 5)
            before = router.asked["add"]
            await asyncio.sleep(HOUR)
            assert router.asked["add"] - before <= 2

    run(main())


def test_a_router_that_is_away_is_not_asked_for_each_mapping_and_all_are_back_when_it_is() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, list(range(1000, 1200)), duration=600) as lease:
            record = Recorded(lease)
            router.is_away = True
            router.asked.clear()
            await asyncio.sleep(300.0)
            assert state_of(lease) is LeaseState.RENEWING
            await asyncio.sleep(2 * HOUR)
            assert sum(router.asked.values()) < 300
            assert state_of(lease) is LeaseState.LOST
            router.is_away = False
            await asyncio.sleep(POLL + 5)
            assert state_of(lease) is LeaseState.ACTIVE
            assert len([key for key in router.table if router.owner(key.external_port) == US]) == 200
            assert await record.kinds() == [ChangeKind.LOST, ChangeKind.BACK]

    run(main(), debug=False)


def test_when_this_machine_gets_another_address_the_mapping_follows() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router) as lease:
            router.us = "192.168.1.3"
            await asyncio.sleep(POLL + 1)
            assert router.owner(8080) == "192.168.1.3"
            assert lease.mappings[0].internal_client == "192.168.1.3"
        assert router.table == {}

    run(main())


def test_another_gateway_and_another_external_address_are_told() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router) as lease:
            record = Recorded(lease)
            router.name, router.address = "another", "5.6.7.8"
            router.restart()
            await asyncio.sleep(POLL + 1)
            router.address = None
            await asyncio.sleep(POLL + 1)
            assert lease.external_address is None
            router.address = "5.6.7.8"
            assert router.on_hint is not None
            router.on_hint(Hint.CHANGED)
            await asyncio.sleep(1.0)
            assert str(lease.external_address) == "5.6.7.8"
            assert await record.kinds() == [
                ChangeKind.NEW_ADDRESS,
                ChangeKind.GATEWAY_REPLACED,
                ChangeKind.LOST,
                ChangeKind.BACK,
            ], "that the line was down for a while is no new address"

    run(main())


def test_after_the_machine_was_suspended_everything_is_looked_after() -> None:
    async def main() -> None:
        router = ModelRouter(reports=lambda _: 0)
        asleep = 0.0
        loop = asyncio.get_running_loop()
        manager = ModelManager(router, wall_clock=lambda: loop.time() + asleep)
        lease = await manager.hold(lease_request(duration=3600))
        await asyncio.sleep(10.0)
        asleep += 8 * HOUR
        router.table.clear()
        await asyncio.sleep(POLL)
        assert router.owner(8080) == US
        asleep += 1800.0  # the router still has it, but not for long
        await asyncio.sleep(POLL + 1)
        assert router.asked["add"] == 3
        await lease.release()

    run(main())


def test_hints_that_prove_false_are_followed_ever_more_rarely() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, list(range(1000, 1100))):
            router.asked.clear()
            for _ in range(6_000):  # ten a second for ten minutes
                assert router.on_hint is not None
                assert router.on_hint is not None
                router.on_hint(Hint.RESTARTED)
                router.on_hint(Hint.CHANGED)
                await asyncio.sleep(0.1)
            assert router.asked["look"] < 20
            assert sum(router.asked.values()) < 150
            router.restart()
            await asyncio.sleep(POLL + 1)
            assert router.owner(1000) == US

    run(main(), debug=False)


async def forge(router: ModelRouter, seconds: float) -> None:
    """Send hints of any kind without end, each with another LOCATION that leads to the same gateway."""
    for number in range(int(100 * seconds)):
        assert router.on_hint is not None
        router.query = f"?{number}"
        router.on_hint((Hint.RESTARTED, Hint.CHANGED)[number % 2])
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("is_mute", [False, True], ids=["is found", "is not found by a search"])
def test_forged_hints_starve_no_renewal_and_cost_little(is_mute: bool) -> None:
    """200 leases of 60 s, hints for 90 s: three times as long as it took to lose 192 of them."""

    async def asked(*, forged: bool) -> tuple[Counter[str], int]:
        router = ModelRouter(search_takes=5.0 if is_mute else 0.05)
        expired = 0

        async def answer_slowly(_: str) -> None:
            await asyncio.sleep(0.05)

        router.before_answer = answer_slowly
        async with leased(router, list(range(1000, 1200)), duration=60, poll_interval=3600.0):
            router.is_mute = is_mute
            router.asked.clear()
            forger = asyncio.ensure_future(forge(router, 90.0) if forged else asyncio.sleep(90.0))
            while not forger.done():
                expired += sum(router.owner(port) != US for port in range(1000, 1200))
                await asyncio.sleep(0.5)
            await forger
        return router.asked, expired

    async def main() -> None:
        quiet, _ = await asked(forged=False)
        busy, expired = await asked(forged=True)
        assert expired == 0
        assert busy["look"] < 25
        # In 90 s seven hints of each kind are followed; each poll has a sample.
        assert sum(busy.values()) - busy["look"] - sum(quiet.values()) < 30
        assert busy["add"] <= quiet["add"] + 8

    run(main(), debug=False)


def test_the_gateway_is_listened_to_anew_where_it_may_have_forgotten_us() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router):
            await asyncio.sleep(POLL + 1)
            assert True not in router.resubscribed
            router.restart()
            await asyncio.sleep(POLL + 1)
            assert True in router.resubscribed

    run(main())


# Ports that are somebody else's


def test_by_default_a_port_of_another_host_is_left_alone() -> None:
    async def main() -> None:
        router = ModelRouter()
        router.hold(8080)
        with pytest.raises(IGDError) as caught:
            async with leased(router):
                pass
        assert caught.value.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING
        assert router.owner(8080) == THEM

    run(main())


def test_a_port_that_was_stolen_is_reported_left_alone_and_taken_again_when_it_is_free() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router) as lease:
            record = Recorded(lease)
            key = router.hold(8080)
            await asyncio.sleep(HOUR)
            assert state_of(lease) is LeaseState.LOST
            assert router.owner(8080) == THEM
            del router.table[key]
            await asyncio.sleep(2 * POLL)
            assert state_of(lease) is LeaseState.ACTIVE
            assert await record.kinds() == [ChangeKind.LOST, ChangeKind.BACK]
            router.hold(8080)
        assert router.owner(8080) == THEM, "what somebody has taken is not deleted"

    run(main())


def test_take_over_takes_it_back() -> None:
    async def main() -> None:
        router = ModelRouter()
        router.hold(8080)
        async with leased(router, on_conflict="take_over"):
            assert router.owner(8080) == US
            router.hold(8080)
            await asyncio.sleep(POLL + 1)
            assert router.owner(8080) == US

    run(main())


def test_other_port_takes_another_and_stays_on_it() -> None:
    async def main() -> None:
        router = ModelRouter()
        router.hold(8080)
        async with leased(router, on_conflict="other_port") as lease:
            record = Recorded(lease)
            first = lease.external_port
            assert first != 8080
            assert lease.mappings[0].internal_port == 8080
            await asyncio.sleep(DAY)
            assert lease.external_port == first
            router.restart()
            await asyncio.sleep(POLL + 1)
            assert lease.external_port == first
            router.hold(first)
            await asyncio.sleep(POLL + 1)
            assert lease.external_port not in (first, 8080)
            assert (await record.kinds())[-2:] == [ChangeKind.NEW_PORT, ChangeKind.BACK]
        assert sorted(router.table.values(), key=lambda row: row.client)[0].client == THEM

    run(main(), debug=False)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("begins_lost", [False, True])
def test_a_lease_that_ends_while_another_port_is_tried_leaves_none(number: int, begins_lost: bool) -> None:
    async def main() -> None:
        router = ModelRouter(is_away=begins_lost)
        manager = ModelManager(router)
        lease = await manager.hold(lease_request(on_conflict="other_port", required=False))
        other = await manager.hold(lease_request(9090, required=False))
        await asyncio.sleep(10.0)
        router.table.clear()
        router.hold(8080)
        router.asked.clear()
        tried: list[int] = []
        releases: list[asyncio.Future[None]] = []

        async def end(what: str) -> None:
            if what == "add":
                tried.append(1)
                if len(tried) >= number and not releases:
                    releases.append(asyncio.ensure_future(lease.release()))
                    await asyncio.sleep(0.01)

        router.before_answer = end
        router.is_away = False
        await asyncio.sleep(2 * POLL)
        router.before_answer = None
        await asyncio.gather(*releases)
        await asyncio.sleep(POLL)
        assert {key.external_port for key, row in router.table.items() if row.client == US} == {9090}
        assert other.error is None
        await manager.close()
        assert {row.client for row in router.table.values()} == {THEM}

    run(main(), debug=False)


def test_any_port_is_the_same_one_in_the_next_run_and_another_one_for_the_next_lease() -> None:
    async def main() -> list[int]:
        router = ModelRouter()
        manager = ModelManager(router)
        leases = await asyncio.gather(*(manager.hold(lease_request(0, desc="a game")) for _ in range(3)))
        ports = [lease.external_port for lease in leases]
        assert len(set(ports)) == 3
        assert all(lease.mappings[0].internal_port == lease.external_port for lease in leases)
        await manager.close()
        return ports

    assert run(main()) == run(main())


def test_a_router_that_can_choose_the_port_does() -> None:
    async def main() -> None:
        router = ModelRouter(can_choose=True)
        async with leased(router, 0, internal_port=8080) as lease:
            first = lease.external_port
        router.hold(first)
        async with leased(router, 0, internal_port=8080) as lease:
            assert (lease.external_port, lease.mappings[0].internal_port) == (first + 1, 8080)
        async with leased(router, 0) as lease:
            first = lease.external_port
        router.hold(first)
        async with leased(router, 0) as lease:
            assert lease.mappings[0].internal_port == lease.external_port == first + 1
        assert {row.client for row in router.table.values()} == {THEM}

    run(main())


def test_of_a_range_the_first_free_port_is_taken_for_both_protocols() -> None:
    async def main() -> None:
        router = ModelRouter()
        for port in (7000, 7001, 7003):
            router.hold(port, proto="UDP")
        async with leased(router, range(7000, 7004), proto=["TCP", "UDP"]) as lease:
            assert {one.key for one in lease.mappings} == {(7002, "TCP", ""), (7002, "UDP", "")}
        assert len(router.table) == 3
        router.hold(7002, proto="UDP")
        with pytest.raises(IGDError) as caught:
            async with leased(router, range(7000, 7004), proto=["TCP", "UDP"]):
                pass
        assert caught.value.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING
        assert len(router.table) == 4

    run(main())


def test_two_leases_on_one_port_share_the_mapping_and_the_last_one_deletes_it() -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        one, other = await manager.hold(lease_request()), await manager.hold(lease_request())
        await one.release()
        assert router.owner(8080) == US
        await other.release()
        assert router.table == {}

    run(main())


# Beginnings and ends


def test_a_lease_that_is_not_required_begins_as_lost_and_is_had_when_the_router_comes() -> None:
    async def main() -> None:
        router = ModelRouter(is_away=True)
        async with leased(router, list(range(1000, 1100)), required=False) as lease:
            assert asyncio.get_running_loop().time() == 0.0, "it is there at once"
            record = Recorded(lease)
            with pytest.raises(IGDError, match="nobody there") as caught:
                await lease.wait_active(5.0)
            assert is_unreachable(caught.value)
            assert sum(router.asked.values()) < 20
            assert len(lease.ports) == 100
            assert (lease.state, lease.external_port, lease.last_confirmed) == (LeaseState.LOST, 0, None)
            await asyncio.sleep(HOUR)
            router.is_away = False
            await lease.wait_active(POLL + 5)
            assert state_of(lease) is LeaseState.ACTIVE
            assert failure_of(lease) is None
            assert (len(lease.mappings), lease.external_port) == (100, 1000)
            assert await record.kinds() == [ChangeKind.NEW_ADDRESS, ChangeKind.BACK]

    run(main())


@pytest.mark.parametrize("required", [True, False])
def test_a_mapper_that_is_closed_begins_no_lease_even_if_it_is_not_required(required: bool) -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        manager.queue.is_closed = True
        with pytest.raises(UsageError, match="closed"):
            await (await manager.hold(lease_request(required=required))).wait_active(1.0)
        assert not len(manager)
        await manager.close()
        with pytest.raises(UsageError, match="closed"):
            await manager.hold(lease_request(required=required))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_a_required_lease_that_cannot_be_had_leaves_nothing() -> None:
    async def main() -> None:
        router = ModelRouter()
        router.hold(1050)
        with pytest.raises(IGDError):
            async with leased(router, list(range(1000, 1100))):
                pass
        assert [row.client for row in router.table.values()] == [THEM]
        assert router.asked["add"] < 70

    run(main())


@pytest.mark.parametrize("after", range(12))
def test_a_lease_that_is_cancelled_while_it_begins_leaves_nothing(after: int) -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        task = asyncio.ensure_future(manager.hold(lease_request([8080, 8081])))
        await asyncio.sleep(after * 0.0005)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await (await task).release()
        await manager.close()
        assert router.table == {}
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


@pytest.mark.parametrize("after", range(8))
def test_closing_ends_leases_that_are_about_to_begin(after: int) -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        held = await manager.hold(lease_request(9000))
        task = asyncio.ensure_future(manager.hold(lease_request([8080, 8081])))
        await asyncio.sleep(after * 0.0005)
        await manager.close()
        with suppress(UsageError):
            await (await task).release()
        await held.release()
        assert router.table == {}
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_the_end_is_bounded_when_the_router_hangs() -> None:
    async def main() -> None:
        router = ModelRouter()
        loop = asyncio.get_running_loop()
        async with leased(router, list(range(1000, 1100))):
            router.before_answer = lambda _: asyncio.sleep(10_000.0)
            started = loop.time()
        assert loop.time() - started <= RELEASE_STALL + 0.1

    run(main())


def test_an_end_that_is_cancelled_goes_on_behind() -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        lease = await manager.hold(lease_request())
        ending = asyncio.ensure_future(lease.release())
        await asyncio.sleep(0)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        await manager.close()
        assert router.table == {}

    run(main())


def test_a_lease_that_ends_while_it_is_renewed_leaves_nothing() -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        lease = await manager.hold(lease_request(duration=100))
        other = await manager.hold(lease_request(9000))
        adds = router.asked["add"]
        await asyncio.sleep(49.0)
        while router.asked["add"] == adds:  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.0005)
        await lease.release()
        await asyncio.sleep(1.0)
        assert router.owner(8080) is None
        await other.release()
        assert router.table == {}

    run(main())


def test_changes_end_with_the_lease_for_every_reader() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router) as lease:
            readers = [asyncio.ensure_future(changed(lease)) for _ in range(3)]
            await asyncio.sleep(0)
            readers[0].cancel()
            router.restart()
            await asyncio.sleep(POLL + 1)
            later = asyncio.ensure_future(changed(lease))
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*readers, later, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert outcomes[1] == outcomes[2]
        assert [one.kind for one in outcomes[1]] == [ChangeKind.LOST, ChangeKind.BACK]  # type: ignore[union-attr]
        assert outcomes[3] == []
        assert await changed(lease) == []

    run(main())


def test_what_the_manager_handles_by_itself_is_nothing_to_worry_about(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aioigd")

    async def main() -> None:
        router = ModelRouter()
        async with leased(router, [8080, 8081], duration=600):
            router.restart()
            await asyncio.sleep(POLL + 1)
            router.is_away = True
            await asyncio.sleep(HOUR)
            router.is_away = False
            await asyncio.sleep(POLL + 1)
            router.hold(8080)
            await asyncio.sleep(HOUR)

    run(main())
    assert {record.name for record in caplog.records} - {"aioigd.discovery"} == {"aioigd.lease"}
    losses = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert len(losses) == 3, "each outage is a warning, once, and nothing else is"
    assert losses[0].startswith("TCP port 8080 is lost: TCP port 8080 was mapped, and the gateway holds it no longer")
    assert losses[1].startswith("TCP port 8080 is lost: nobody there")
    assert losses[2].startswith("TCP port 8080 is lost: TCP port 8080 was mapped, and the gateway has it for")


def test_a_defect_in_the_house_does_not_end_the_keeping(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router):
            router.defect = ZeroDivisionError()
            await asyncio.sleep(POLL + 5)
            router.defect = None
            router.restart()
            await asyncio.sleep(2 * POLL)
            assert router.owner(8080) == US

    run(main())
    assert "ZeroDivisionError" in caplog.text


def test_a_listener_that_cannot_begin_does_not_end_the_keeping(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise ValueError("no URL")

    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        monkeypatch.setattr(manager.cache, "listen", fails)
        lease = await manager.hold(lease_request())
        await asyncio.sleep(0.1)
        assert isinstance(lease.error, UnexpectedError)
        assert isinstance(lease.error.__cause__, ValueError)
        router.restart()
        await asyncio.sleep(2 * POLL)
        assert router.owner(8080) == US
        assert failure_of(lease) is None
        await manager.close()

    run(main())
    assert [one.levelname for one in caplog.records if "looked after" in one.getMessage()] == ["WARNING"]


def test_the_task_does_not_end_unnoticed(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        lease = await manager.hold(lease_request())
        assert failure_of(lease) is None
        assert manager._task is not None
        await asyncio.sleep(1.0)
        manager._task.cancel()
        await asyncio.sleep(1.0)
        assert isinstance(lease.error, UnexpectedError)
        other = await manager.hold(lease_request(9000))
        await asyncio.sleep(HOUR)
        assert (failure_of(lease), failure_of(other)) == (None, None)
        await manager.close()

    run(main())
    assert "was cancelled" in caplog.text


@pytest.mark.parametrize("where", ["find", "add"])
def test_a_mapping_whose_work_failed_unexpectedly_is_tried_again(
    where: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        lease = await manager.hold(lease_request([8080, 8081]))
        with monkeypatch.context() as patched:
            patched.setattr(manager._acquisition if where == "add" else manager.dispatcher, where, fails)
            await asyncio.sleep(HOUR / 2 + 5.0)
            assert state_of(lease) is LeaseState.RENEWING
            assert {type(one.error) for one in lease.ports} == {UnexpectedError}
            before = len(reports(caplog))
            await asyncio.sleep(HOUR / 4)
            assert len(reports(caplog)) - before <= 2 * (15 + 7), "each of them ever more rarely, up to once a minute"
        await asyncio.sleep(2 * POLL)
        assert state_of(lease) is LeaseState.ACTIVE
        assert failure_of(lease) is None
        await manager.close()
        assert router.table == {}

    caplog.set_level(logging.DEBUG, "aioigd")
    run(main())
    assert [one.levelname for one in reports(caplog)].count("WARNING") == 1
    assert reports(caplog)[0].levelname == "WARNING"


def reports(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [one for one in caplog.records if one.exc_info]


def test_a_beginning_in_the_background_that_fails_unexpectedly_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        with monkeypatch.context() as patched:
            patched.setattr(manager._acquisition, "acquire_each", fails)
            lease = await manager.hold(lease_request(required=False))
            await asyncio.sleep(0.3)
            assert isinstance(lease.error, UnexpectedError)
            assert [one.error for one in lease.ports] == [lease.error]
        await lease.wait_active(1.0)
        await manager.close()
        assert router.table == {}

    run(main())


@pytest.mark.parametrize("after", range(12))
@pytest.mark.parametrize("closes", [True, False])
def test_a_lease_that_ends_while_it_begins_in_the_background_leaves_nothing(after: int, closes: bool) -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        lease = await manager.hold(lease_request([8080, 8081], required=False))
        reader = asyncio.ensure_future(changed(lease))
        await asyncio.sleep(after * 0.0005)
        if not closes:
            await lease.release()
        await manager.close()
        await lease.release()
        await reader
        assert router.table == {}
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


# What the table shows


@pytest.mark.parametrize("late", [0.5, 1.5, 1.9])
def test_a_table_that_is_late_makes_no_lease_fail(late: float) -> None:
    async def main() -> None:
        router = ModelRouter(late=late)
        async with leased(router, duration=60) as lease:
            assert state_of(lease) is LeaseState.ACTIVE
            await asyncio.sleep(100.0)
            assert state_of(lease) is LeaseState.ACTIVE
            assert lease.error is None
        assert router.table == {}

    run(main())


def test_what_was_lost_and_is_added_again_is_not_judged_before_the_table_can_show_it() -> None:
    async def main() -> None:
        router = ModelRouter(late=1.5)
        async with leased(router, poll_interval=0.3) as lease:
            adds = router.asked["add"]
            router.restart(new_place=False)
            await asyncio.sleep(10.0)
            assert router.asked["add"] == adds + 1
            assert state_of(lease) is LeaseState.ACTIVE

    run(main())


@pytest.mark.parametrize(
    ("port", "client"), [(0, None), (None, "desktop.lan"), (0, "desktop.lan"), (None, "192.168.001.002")]
)
def test_what_cannot_tell_is_no_other_host(port: int | None, client: str | None) -> None:
    async def main() -> None:
        router = ModelRouter(shown_port=port, shown_client=client)
        async with leased(router, duration=60, poll_interval=10.0) as lease:
            await asyncio.sleep(600.0)
            assert state_of(lease) is LeaseState.ACTIVE
            assert router.asked["add"] <= 25  # no more than its renewals
        assert router.table == {}

    run(main())


def test_where_the_client_is_shown_by_name_a_new_address_is_heeded_all_the_same() -> None:
    async def main() -> None:
        router = ModelRouter(shown_client="desktop.lan")
        async with leased(router, on_conflict="take_over") as lease:
            router.us = "192.168.1.3"
            await asyncio.sleep(2 * POLL)
            assert lease.mappings[0].internal_client == "192.168.1.3"
            assert router.owner(8080) == "192.168.1.3"

    run(main())


@pytest.mark.parametrize("limit", [604_800, 86_400])
def test_a_limit_that_the_gateway_has_set_by_itself_is_shown_and_heeded(limit: int) -> None:
    async def main() -> None:
        router = ModelRouter(reports=lambda rest: rest, really_lasts=lambda duration: float(duration or limit))
        async with leased(router, duration=0, poll_interval=limit / 100) as lease:
            assert limit - 5 <= lease.mappings[0].duration <= limit
            await asyncio.sleep(1.5 * limit)
            assert state_of(lease) is LeaseState.ACTIVE
            assert router.owner(8080) == US

    run(main())


@pytest.mark.parametrize("lazy", [1, 2, 5])
def test_a_deletion_that_is_not_done_is_asked_for_once_more(lazy: int) -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router):
            router.lazy_deletions = lazy
        assert router.asked["delete"] == 2
        assert (router.owner(8080) is None) is (lazy == 1)

    run(main())


def test_the_end_of_a_lease_looks_once_whether_it_is_done() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, list(range(1000, 1010))):
            looks = router.asked["find"]
        assert router.asked["find"] - looks == 2 * 10  # before, whose it is; and after

    run(main())


# What is to be kept


@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize("prolongs", [True, False])
def test_what_is_being_renewed_while_its_lease_ends_is_kept_if_it_is_to_be(others: bool, prolongs: bool) -> None:
    async def main() -> None:
        router = ModelRouter(prolongs=prolongs)
        manager = ModelManager(router)
        lease = await manager.hold(lease_request(duration=100))
        other = await manager.hold(lease_request(9000)) if others else None
        # Just before it is renewed, or, once it is known that this prolongs nothing, deleted and added.
        await asyncio.sleep(49.5 if prolongs else 93.5)
        what = "add" if prolongs else "delete"
        asked = router.asked[what]
        while router.asked[what] == asked:  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.0005)
        await lease.release(keep=True)
        assert router.owner(8080) == US
        await asyncio.sleep(1.0)
        assert router.owner(8080) == US
        assert (manager._task is None) is not others
        if other is not None:
            await other.release()
        await manager.close()
        assert router.owner(8080) == US
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_what_a_lease_has_made_that_is_still_beginning_is_kept_if_it_is_to_be() -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        lease = await manager.hold(lease_request(list(range(8000, 8040)), required=False))
        while len(router.table) < 10:  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.0005)
        made = set(router.table)
        await lease.release(keep=True)
        await manager.close()
        assert len(made - set(router.table)) <= MAX_CONCURRENT  # those that were just on their way
        assert 0 < len(router.table) < 40

    run(main())


# Mappings that are switched off


def test_a_mapping_that_was_switched_off_is_added_again() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router) as lease:
            record = Recorded(lease)
            for row in router.table.values():
                row.enabled = False
            await asyncio.sleep(POLL + 1)
            assert [row.enabled for row in router.table.values()] == [True]
            assert await record.kinds() == [ChangeKind.LOST, ChangeKind.BACK]

    run(main())


def test_one_that_stays_switched_off_is_lost_until_it_is_on() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router) as lease:
            router.switches_off = True
            for row in router.table.values():
                row.enabled = False
            await asyncio.sleep(HOUR)
            assert state_of(lease) is LeaseState.LOST
            assert lease.error is not None
            assert lease.error.result is UPnPResult.PORT_MAPPING_NOT_FOUND
            router.switches_off = False
            await lease.wait_active(2 * POLL)
        assert router.table == {}

    run(main())


def test_one_that_is_switched_off_from_the_beginning_is_an_error() -> None:
    async def main() -> None:
        router = ModelRouter(switches_off=True)
        with pytest.raises(IGDError, match="switched it off") as caught:
            async with leased(router):
                pass
        assert caught.value.result is UPnPResult.PORT_MAPPING_NOT_FOUND
        assert router.table == {}
        async with leased(router, required=False) as lease:
            await asyncio.sleep(HOUR)
            assert state_of(lease) is LeaseState.LOST
            router.switches_off = False
            await lease.wait_active(2 * POLL)

    run(main())


# Renewals that do not prolong, or are refused


class Dark:
    """Looks every 10 ms whether the port is open, from a time on, and notes what the lease said while it was not."""

    def __init__(self, router: ModelRouter, lease: Lease) -> None:
        self.seconds = 0.0
        self.said: set[LeaseState] = set()
        self._router = router
        self._lease = lease

    async def watch(self, seconds: float, step: float = 0.01) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until:
            await asyncio.sleep(step)
            if self._router.owner(8080) is None:
                self.seconds += step
                self.said.add(self._lease.state)


@pytest.mark.parametrize(
    ("reports", "at_first"),
    [(lambda rest: rest, 0.0), (lambda _: 0, 3.0), (lambda _: 120, 3.0)],
    ids=["the rest", "0", "what was granted"],
)
def test_where_a_renewal_does_not_prolong_it_is_deleted_and_added_just_before_its_end(
    reports: Callable[[int], int], at_first: float
) -> None:
    async def main() -> None:
        router = ModelRouter(prolongs=False, reports=reports)
        async with leased(router, duration=120) as lease:
            dark = Dark(router, lease)
            await dark.watch(130.0)
            assert dark.seconds <= at_first + 0.02, "until it is known"
            known = Dark(router, lease)
            before = router.asked.copy()
            await known.watch(6 * 120.0)
            assert known.seconds <= 6 * 0.02
            assert known.said <= {LeaseState.RENEWING}
            made = {what: router.asked[what] - before[what] for what in ("add", "delete")}
            assert 6 <= made["add"] == made["delete"] <= 7
            assert (router.owner(8080), state_of(lease)) == (US, LeaseState.ACTIVE)
        assert router.table == {}

    run(main(), debug=False)


@pytest.mark.parametrize("reports", [lambda rest: rest, lambda _: 0, lambda _: 600])
def test_one_reading_for_each_mapping_is_enough_where_renewals_prolong(reports: Callable[[int], int]) -> None:
    async def main() -> int:
        router = ModelRouter(reports=reports)
        async with leased(router, list(range(1000, 1100)), duration=600):
            await asyncio.sleep(10 * 600.0 - 10.0)
            assert router.asked["add"] == 100 * 20
            return router.asked["find"]

    # One at the beginning, at a quarter and at half, and samples.
    assert run(main(), debug=False) <= 100 * 4 + 6000 / POLL


def test_what_is_known_of_a_gateway_holds_for_all_its_mappings_and_not_for_the_next_gateway() -> None:
    async def main() -> None:
        router = ModelRouter(prolongs=False, reports=lambda _: 0)
        manager = ModelManager(router)
        leases = [await manager.hold(lease_request(port, duration=600)) for port in (8080, 8081)]
        await asyncio.sleep(100.0)
        leases += [await manager.hold(lease_request(port, duration=600)) for port in (8082, 8083)]
        await asyncio.sleep(610.0)
        late = Dark(router, leases[2])
        assert {router.owner(port) for port in (8080, 8081, 8082, 8083)} == {US}
        await late.watch(1200.0, 1.0)
        assert router.asked["delete"] >= 4
        router.name, router.prolongs = "another", True
        router.restart()
        await asyncio.sleep(2 * 600.0)
        before = router.asked["delete"]
        await asyncio.sleep(10 * 600.0)
        assert router.asked["delete"] == before
        assert all(state_of(lease) is LeaseState.ACTIVE for lease in leases)
        await manager.close()

    run(main(), debug=False)


@pytest.mark.parametrize("duration", [30, 120, 900])
def test_a_renewal_that_is_refused_until_the_end_is_made_right_after_it(duration: int) -> None:
    async def main() -> None:
        router = ModelRouter(refuses_renewals=True)
        async with leased(router, duration=duration) as lease:
            dark = Dark(router, lease)
            await dark.watch(5.0 * duration, 0.05)
            assert dark.seconds <= 5 * 0.25
            assert dark.said <= {LeaseState.RENEWING}
            assert state_of(lease) is not LeaseState.LOST

    run(main(), debug=False)


def test_if_it_cannot_be_added_after_it_was_deleted_it_is_lost() -> None:
    async def main() -> None:
        router = ModelRouter(prolongs=False)
        async with leased(router, duration=600) as lease:
            await asyncio.sleep(590.0)
            assert state_of(lease) is LeaseState.ACTIVE

            async def steal(what: str) -> None:
                if what == "add":
                    router.hold(8080)

            router.before_answer = steal
            await asyncio.sleep(20.0)
            assert state_of(lease) is LeaseState.LOST
            assert isinstance(lease.error, ConflictError)
        assert router.owner(8080) == THEM

    run(main(), debug=False)


@pytest.mark.parametrize(("retry_after", "pause"), [(600.0, 600.0), (0xFFFFFFFF, 1800.0), (None, 60.0), (-5.0, 60.0)])
def test_a_router_that_wants_to_be_left_alone_is_left_alone_for_a_while(
    retry_after: float | None, pause: float
) -> None:
    async def main() -> None:
        router = ModelRouter()
        refusal = refused("not now", 501)
        refusal.retry_after = retry_after
        router.refusal = lambda _: refusal
        manager = ModelManager(router)
        lease = await manager.hold(lease_request(required=False))
        await asyncio.sleep(7200)
        asked = [at for at, what, _ in router.log if what == "add"]
        assert asked[-1] - asked[-2] == pytest.approx(pause, abs=1.0)
        assert failure_of(lease) is not None
        router.refusal = lambda _: None
        await asyncio.sleep(2000)
        assert state_of(lease) is LeaseState.ACTIVE
        await manager.close()

    run(main())
