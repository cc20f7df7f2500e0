"""The monitor of the gateway: every event of its table in both states, on the model and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from aioigd import (
    ConflictError,
    DeadlineError,
    Device,
    DiscoveryError,
    IGDError,
    IGDStatus,
    TransportError,
    UPnPResult,
)
from aioigd.core.backend import Hint
from aioigd.leases.monitor import REACHABLE, Contents, Finding, GatewayMonitor, Reachability
from aioigd.leases.schedule import NEVER

from .model import ModelManager, ModelRouter
from .virtual import run


class Monitored:
    """A monitor that is started, and what it says to whoever would be its manager."""

    def __init__(self, interval: float = 60.0) -> None:
        self.router = ModelRouter()
        self.below = ModelManager(self.router)
        self.wakes = 0
        self.monitor = GatewayMonitor(self.below.dispatcher, self.below.cache, self._wake)
        self._interval = interval

    async def __aenter__(self) -> Monitored:
        self.monitor.start(self._interval)
        self._listener = await self.monitor.listen()
        assert self.router.resubscribed == [False]
        self.conclude(await self.monitor.poll(), may_be_empty=False)
        self.router.asked.clear()
        self.router.resubscribed.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.monitor.stop()
        assert self.monitor.next_due == NEVER
        await self._listener.close()
        await self.below.close()

    @property
    def due_in(self) -> float:
        return round(self.monitor.next_due - asyncio.get_running_loop().time(), 3)

    def conclude(self, finding: Finding, *, may_be_empty: bool, is_missing: bool | None = None) -> None:
        is_missing = may_be_empty if is_missing is None else is_missing
        self.monitor.concluded(finding, may_be_empty=may_be_empty, is_missing=is_missing)

    async def go_away(self, polls: int) -> None:
        self.router.is_away = True
        for _ in range(polls):
            await self.monitor.poll()

    def _wake(self) -> None:
        self.wakes += 1


def monitored(test: Callable[[Monitored], Awaitable[None]], interval: float = 60.0) -> None:
    async def main() -> None:
        async with Monitored(interval) as it:
            await test(it)

    run(main())


# A poll that is answered


@pytest.mark.parametrize(
    ("polls_away", "change", "finding"),
    [
        (0, {}, Finding(Contents.NEEDS_SAMPLE)),
        (0, {"address": "5.6.7.8"}, Finding(Contents.NEEDS_SAMPLE, has_new_address=True)),
        (0, {"address": None}, Finding(Contents.NEEDS_SAMPLE, has_new_address=True)),
        (0, {"place": 2}, Finding(Contents.MAY_BE_GONE)),
        (0, {"us": "192.168.1.3"}, Finding(Contents.MAY_BE_GONE)),
        (0, {"place": 2, "name": "another"}, Finding(Contents.MAY_BE_GONE, is_replaced=True)),
        (1, {}, Finding(Contents.MAY_BE_GONE)),
        (5, {}, Finding(Contents.MAY_BE_GONE)),
        (5, {"address": "5.6.7.8"}, Finding(Contents.MAY_BE_GONE, has_new_address=True)),
        (
            5,
            {"place": 2, "name": "another", "address": "5.6.7.8"},
            Finding(Contents.MAY_BE_GONE, has_new_address=True, is_replaced=True),
        ),
    ],
    ids=str,
)
def test_a_poll_that_is_answered(polls_away: int, change: dict[str, object], finding: Finding) -> None:
    async def test(it: Monitored) -> None:
        await it.go_away(polls_away)
        it.router.is_away = False
        for name, value in change.items():
            setattr(it.router, name, value)
        assert await it.monitor.poll() == finding
        assert (it.monitor.reachability, it.due_in) == (REACHABLE, 60.0)

    monitored(test)


@pytest.mark.parametrize("may_be_empty", [True, False])
def test_where_it_may_be_empty_it_may_have_forgotten_the_subscription(may_be_empty: bool) -> None:
    async def test(it: Monitored) -> None:
        finding = await it.monitor.poll()
        assert it.router.resubscribed == []
        it.conclude(finding, may_be_empty=may_be_empty)
        assert it.router.resubscribed == [may_be_empty]

    monitored(test)


def test_the_listener_looks_at_the_interfaces_with_each_poll_and_search() -> None:
    async def test(it: Monitored) -> None:
        before = it.router.refreshed
        await it.monitor.poll()
        assert it.router.refreshed == before + 1
        it.router.is_away = True
        await it.monitor.poll()
        await it.monitor.rediscover()
        assert it.router.refreshed == before + 3

    monitored(test)


def test_the_listener_knows_the_address_so_that_it_can_tell_what_contradicts_it() -> None:
    async def test(it: Monitored) -> None:
        assert it.router.noted_addresses == [None, "11.22.33.44"], "before anybody has asked there is none"
        for address in ("5.6.7.8", None):
            it.router.address = address
            await it.monitor.poll()
            assert it.router.noted_addresses[-1] == address

    monitored(test)


# A poll that is not answered


@pytest.mark.parametrize(("interval", "longest"), [(60.0, 60.0), (3.0, 3.0), (600.0, 60.0)])
def test_a_poll_that_is_not_answered(interval: float, longest: float) -> None:
    async def test(it: Monitored) -> None:
        it.router.is_away = True
        for failures in range(1, 10):
            finding = await it.monitor.poll()
            assert finding == Finding(Contents.IN_DOUBT)
            assert it.monitor.reachability == Reachability(failures)
            assert it.monitor.is_away
            assert it.due_in == min(longest, 0.5 * 2 ** (failures - 1))
            it.conclude(finding, may_be_empty=False)
        assert it.router.resubscribed == []

    monitored(test, interval)


# A request of a lease that has failed


@pytest.mark.parametrize(
    ("error", "is_away"),
    [
        (TransportError("refused", may_have_arrived=False), True),
        (DeadlineError("too late"), True),
        (DiscoveryError("nobody", UPnPResult.NO_DEVICES), True),
        (TransportError("cut", may_have_arrived=True), False),
        (ConflictError("taken", 718), False),
    ],
    ids=str,
)
def test_a_request_that_failed_while_reachable(error: IGDError, is_away: bool) -> None:
    async def test(it: Monitored) -> None:
        await asyncio.sleep(10.0)
        it.monitor.request_failed(error)
        assert it.monitor.reachability == Reachability(is_away)
        assert (it.due_in, it.wakes) == ((0.5, 1) if is_away else (50.0, 0))

    monitored(test)


def test_a_request_that_failed_while_away_is_nothing_new() -> None:
    async def test(it: Monitored) -> None:
        await it.go_away(5)
        it.monitor.request_failed(DeadlineError("too late"))
        assert (it.monitor.reachability, it.due_in, it.wakes) == (Reachability(5), 8.0, 0)

    monitored(test)


# Hints


@pytest.mark.parametrize("polls_away", [0, 9])
@pytest.mark.parametrize("hint", Hint)
def test_a_hint_is_followed_soon(hint: Hint, polls_away: int) -> None:
    async def test(it: Monitored) -> None:
        await it.go_away(polls_away)
        it.monitor.on_hint(hint)
        assert (it.due_in, it.wakes) == (0.2, 1)
        is_restart = hint is Hint.RESTARTED
        assert (it.monitor.rediscovery_due < it.monitor.poll_due) is is_restart

    monitored(test)


@pytest.mark.parametrize("hint", [Hint.RESTARTED, Hint.CHANGED])
def test_a_hint_that_was_wrong_makes_the_next_of_its_kind_wait(hint: Hint) -> None:
    async def follow(it: Monitored) -> Finding:
        return await (it.monitor.rediscover() if hint is Hint.RESTARTED else it.monitor.poll())

    async def test(it: Monitored) -> None:
        for gap in (0.2, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
            it.monitor.on_hint(hint)
            hint_due_in = (
                min(it.monitor.rediscovery_due, it.monitor._change_hint_due) - asyncio.get_running_loop().time()
            )
            assert hint_due_in == pytest.approx(gap, abs=0.002)  # the gap begins with the search, before the poll
            await asyncio.sleep(hint_due_in)
            it.conclude(await follow(it), may_be_empty=False)
        it.monitor.on_hint(hint)
        await asyncio.sleep(60.0)
        it.conclude(await follow(it), may_be_empty=True)
        it.monitor.on_hint(hint)
        assert it.due_in == 0.2

    monitored(test)


def test_polls_without_a_hint_do_not_make_hints_wait() -> None:
    async def test(it: Monitored) -> None:
        for _ in range(20):
            await asyncio.sleep(60.0)
            it.conclude(await it.monitor.poll(), may_be_empty=False)
        it.monitor.on_hint(Hint.CHANGED)
        assert it.due_in == 0.2

    monitored(test)


@pytest.mark.parametrize(
    ("change", "is_missing", "is_proved"),
    [
        ({"query": "?k"}, False, False),
        ({"place": 2}, False, False),
        ({"us": "192.168.1.3"}, False, False),
        ({"name": "another"}, False, True),
        ({}, True, True),
    ],
    ids=str,
)
def test_what_proves_the_hint_of_a_restart(change: dict[str, object], is_missing: bool, is_proved: bool) -> None:
    async def test(it: Monitored) -> None:
        for name, value in change.items():
            setattr(it.router, name, value)
        it.monitor.on_hint(Hint.RESTARTED)
        await asyncio.sleep(0.2)
        finding = await it.monitor.rediscover()
        is_moved = finding.contents is Contents.MAY_BE_GONE
        assert is_moved is ("query" not in change and bool(change) and "name" not in change)
        it.conclude(finding, may_be_empty=is_moved, is_missing=is_missing)
        it.monitor.on_hint(Hint.RESTARTED)
        assert it.due_in == (0.2 if is_proved else pytest.approx(1.0, abs=0.01))

    monitored(test)


@pytest.mark.parametrize("hint", [Hint.RESTARTED, Hint.CHANGED])
def test_hints_that_come_while_one_is_followed_wait_for_their_turn(hint: Hint) -> None:
    async def test(it: Monitored) -> None:
        follow = it.monitor.rediscover if hint is Hint.RESTARTED else it.monitor.poll
        it.monitor.on_hint(hint)
        await asyncio.sleep(0.2)
        following = asyncio.ensure_future(follow())
        await asyncio.sleep(0.0005)
        it.monitor.on_hint(hint)
        it.conclude(await following, may_be_empty=False)
        assert it.due_in == pytest.approx(1.0, abs=0.01)

    monitored(test)


def test_hints_without_end_that_lead_to_nobody_cost_ever_fewer_searches() -> None:
    async def test(it: Monitored) -> None:
        await it.go_away(1)
        loop = asyncio.get_running_loop()
        it.router.asked.clear()
        until = loop.time() + 600.0
        while loop.time() < until:
            it.monitor.on_hint(Hint.RESTARTED)
            if it.monitor.rediscovery_due <= loop.time():
                it.conclude(await it.monitor.rediscover(), may_be_empty=False)
            await asyncio.sleep(0.1)
        assert it.router.asked["look"] < 90, "six for each that is followed, and those ever more rarely"

    monitored(test)


def test_a_new_address_makes_the_hint_of_a_change_right() -> None:
    async def test(it: Monitored) -> None:
        it.monitor.on_hint(Hint.CHANGED)
        it.router.address = "5.6.7.8"
        it.conclude(await it.monitor.poll(), may_be_empty=False)
        it.monitor.on_hint(Hint.CHANGED)
        assert it.due_in == 0.2

    monitored(test)


# Rediscovery


@pytest.mark.parametrize("polls_away", [0, 3])
@pytest.mark.parametrize(
    ("place", "contents"), [(1, Contents.NEEDS_SAMPLE), (2, Contents.MAY_BE_GONE)], ids=["same place", "elsewhere"]
)
def test_a_rediscovery_that_finds_it_is_a_poll(polls_away: int, place: int, contents: Contents) -> None:
    async def test(it: Monitored) -> None:
        await it.go_away(polls_away)
        it.router.is_away = False
        it.router.place = place
        it.router.asked.clear()
        found_at = asyncio.get_running_loop().time() + 0.01
        finding = await it.monitor.rediscover()
        assert finding == Finding(Contents.MAY_BE_GONE if polls_away else contents, hint_followed_at=found_at)
        assert it.router.asked == {"look": 1, "address": 1}
        assert (it.monitor.reachability, it.monitor.rediscovery_due) == (REACHABLE, NEVER)

    monitored(test)


@pytest.mark.parametrize("polls_away", [0, 3])
def test_a_rediscovery_that_finds_nobody_is_repeated_5_times(polls_away: int) -> None:
    async def test(it: Monitored) -> None:
        await it.go_away(polls_away)
        it.router.is_away = True
        it.monitor.on_hint(Hint.RESTARTED)
        pauses = []
        while it.monitor.rediscovery_due != NEVER:
            await asyncio.sleep(max(0.0, it.monitor.rediscovery_due - asyncio.get_running_loop().time()))
            finding = await it.monitor.rediscover()
            assert finding == Finding()
            it.conclude(finding, may_be_empty=False)
            if it.monitor.rediscovery_due != NEVER:
                pauses.append(round(it.monitor.rediscovery_due - asyncio.get_running_loop().time(), 3))
        assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0]
        assert it.monitor.reachability == Reachability(polls_away), "that is for the poll to find out"
        it.monitor.on_hint(Hint.RESTARTED)
        assert it.monitor.rediscovery_due != NEVER

    monitored(test)


@pytest.mark.parametrize(("place", "follows"), [(1, True), (2, False)])
def test_what_is_announced_during_the_search_that_finds_it_elsewhere_is_dropped(place: int, follows: bool) -> None:
    async def test(it: Monitored) -> None:
        it.router.place = place
        search = asyncio.ensure_future(it.monitor.rediscover())
        await asyncio.sleep(0.005)
        it.monitor.on_hint(Hint.RESTARTED)
        await search
        assert (it.monitor.rediscovery_due != NEVER) is follows

    monitored(test)


# The external address, the beginning and the end


def test_the_address_is_asked_for_until_it_is_known() -> None:
    async def test(it: Monitored) -> None:
        assert not await it.monitor.learn_address()
        assert it.router.asked["address"] == 0
        it.monitor.stop()
        it.router.address = "5.6.7.8"
        assert await it.monitor.learn_address()
        assert str(it.monitor.external_address) == "5.6.7.8"
        it.monitor.stop()
        it.router.is_away = True
        with pytest.raises(IGDError):
            await it.monitor.learn_address()

    monitored(test)


def test_the_next_poll_is_never_later_than_the_interval() -> None:
    async def test(it: Monitored) -> None:
        it.monitor.start(30.0)
        assert it.due_in == 30.0
        it.monitor.start(50.0)
        assert it.due_in == 30.0
        it.monitor.poll_now()
        assert it.due_in == 0.0

    monitored(test)


def test_a_device_that_cannot_be_asked_is_no_gateway() -> None:
    async def test(it: Monitored) -> None:
        it.below.cache.devices[:] = [Device(udn="speaks nothing", igd_status=IGDStatus.OK)]
        finding = await it.monitor.poll()
        assert finding == Finding(Contents.MAY_BE_GONE, has_new_address=True, is_replaced=True)
        it.conclude(finding, may_be_empty=True)

    monitored(test)
