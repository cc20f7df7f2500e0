"""What a search sends, and when: within its budget, and often enough where a good part of it gets lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection
from itertools import combinations, pairwise
from typing import NamedTuple

import pytest

from aioigd import DiscoveryError
from aioigd.core.backend import SearchScope
from aioigd.core.finder import Finder
from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.testing.device_tree import Site
from aioigd.testing.ssdp import Message, Search
from aioigd.upnp.driver import UpnpDriver
from aioigd.upnp.net.http import HttpClient
from aioigd.upnp.search_schedule import SINGLE_TARGETS, Budget, Way, schedule
from aioigd.upnp.wire.ssdp import ALL_TARGET, LIKELY_TARGETS, RARE_TARGETS

from ..leases.virtual import run
from ..support import odd

pytestmark = pytest.mark.one_loop

TARGETS = (*LIKELY_TARGETS, *RARE_TARGETS, ALL_TARGET)
SPANS = (0.05, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 60.0, 300.0)
LOSS = 0.3


class Sent(NamedTuple):
    at: float
    target: str
    way: Way


def sent_in(span: float, *, full: bool = True) -> list[Sent]:
    """What one network gets in a search."""
    return [
        Sent(burst.at, target, burst.way)
        for burst in schedule(span)
        if full or burst.way is Way.EVERY_GROUP
        for target in burst.targets
    ]


@pytest.mark.parametrize(("full", "most"), [(True, 40), (False, 9)])
def test_no_network_gets_more_than_its_budget_in_any_five_seconds(full: bool, most: int) -> None:
    for span in SPANS:
        times = [one.at for one in sent_in(span, full=full)]
        assert times == sorted(times)
        assert max(sum(start <= at <= start + 5 for at in times) for start in times) <= most, span
        assert all(at < span for at in times)
    assert len(sent_in(5.0, full=full)) == most


def test_the_first_round_asks_at_once_what_nearly_all_answer_and_then_the_rest() -> None:
    for span in SPANS[1:]:
        first, second = sent_in(span)[:3], sent_in(span)[3:6]
        assert [(one.at, one.target) for one in first] == [(0.0, target) for target in LIKELY_TARGETS]
        assert [one.target for one in second] == [*RARE_TARGETS]
        assert 0.05 <= second[0].at <= 0.1


def test_never_more_than_four_at_once_and_the_busiest_router_keeps_up() -> None:
    for span in SPANS:
        bursts = list(schedule(span))
        assert all(len(burst.targets) <= 4 for burst in bursts)
        gaps = [later.at - burst.at for burst, later in pairwise(bursts)]
        assert all(gap > 0.049 for gap in gaps)
        # 27 ms for each: what is left over when the next round begins is never more than half a round.
        backlog = 0.0
        for burst, gap in zip(bursts, [*gaps, 1.0], strict=True):
            backlog = max(0.0, backlog + 0.027 * len(burst.targets) - gap)
            assert backlog < 0.2


def test_the_router_is_asked_by_unicast_for_every_target_soon() -> None:
    for span in (1.0, 5.0, 60.0):
        asked = [one for one in sent_in(span) if one.way is Way.HOST and one.at <= 0.4]
        assert Counter(one.target for one in asked) == Counter(TARGETS)
    assert {*SINGLE_TARGETS} <= {*TARGETS}


def test_the_budget_is_for_all_searches_of_a_driver() -> None:
    budget = Budget()

    def granted(network: str, start: float, span: float, *, full: bool = True) -> list[float]:
        bursts = (burst for burst in schedule(span) if full or burst.way is Way.EVERY_GROUP)
        times: list[float] = []
        for burst in bursts:
            at, number = start + burst.at, len(burst.targets)
            if budget.take(network, number, at, is_full=full, is_first=burst.at == 0.0):
                times += [at] * number
        return times

    def densest(times: list[float]) -> int:
        return max(sum(start <= at < start + 5 for at in times) for start in times)

    alone = granted("lan", 0.0, 5.0)
    assert len(alone) == 40
    assert len(granted("bridge", 0.0, 5.0, full=False)) == 9
    assert len(granted("lan", 5.5, 5.0)) == 40, "one after another they have it each"
    assert len(granted("lan", 100.0, 5.0)) == 40
    in_a_row = [at for number in range(40) for at in granted("lan", 1000.0 + number * 1.2, 1.0)]
    assert 40 <= densest(in_a_row) <= 40 + 5 * 3
    assert len(budget._sent) == 1, "what is long ago is forgotten"


def chance(targets: Collection[str], *, by_unicast: bool = True) -> float:
    """How likely one search of 5 s is to be answered, once at least, by a router that answers these targets."""
    tries = sum(one.target in targets and (by_unicast or one.way is not Way.HOST) for one in sent_in(5.0))
    return 1 - float((1 - (1 - LOSS) ** 2) ** tries)


def test_through_loss_a_router_is_found_that_answers_one_target_or_more() -> None:
    for target in TARGETS:
        assert chance([target]) >= 0.96
        assert chance([target], by_unicast=False) >= 0.93
    for pair in combinations(TARGETS, 2):
        assert chance(pair) >= 0.99
        assert chance(pair, by_unicast=False) >= 0.99


@pytest.mark.long
def test_in_a_hundred_searches_it_is_so() -> None:
    dice = random.Random(12)

    def is_answered(targets: Collection[str]) -> bool:
        asked = [one for one in sent_in(5.0) if one.target in targets]
        return any(dice.random() >= LOSS and dice.random() >= LOSS for _ in asked)

    for target in TARGETS:
        assert sum(is_answered([target]) for _ in range(100)) >= 88
    for pair in combinations(TARGETS, 2):
        assert sum(is_answered(pair) for _ in range(100)) >= 96


def router(targets: Collection[str], dice: random.Random) -> Quirk[[]]:
    """A router that answers these targets, through loss each way, with one reply for each search that it hears."""

    def hears(search: Search) -> bool:
        return search.target in targets and dice.random() >= LOSS

    def replies(search: Search, _: object, site: Site) -> list[Message]:
        headers = (("LOCATION", site.location), ("ST", search.target), ("USN", f"uuid:1::{search.target}"))
        return [Message("HTTP/1.1 200 OK", headers)] if dice.random() >= LOSS else []

    return odd(hears=hears, replies=replies)


async def is_found(source: str, span: float = 5.0) -> bool:
    """Whether a program that has just been started finds a gateway."""
    scope = SearchScope(source_address=source)
    http = HttpClient()
    try:
        await Finder([UpnpDriver(scope, http)], scope).find_gateway(span)
    except DiscoveryError:
        return False
    finally:
        await http.close()
    return True


@pytest.mark.parametrize(
    ("targets", "least"),
    [
        *(((target,), 88) for target in TARGETS),
        ((LIKELY_TARGETS[0], LIKELY_TARGETS[2]), 96),
        ((RARE_TARGETS[2], ALL_TARGET), 96),
        ((LIKELY_TARGETS[1], RARE_TARGETS[1]), 96),
    ],
)
@pytest.mark.long
def test_over_real_sockets_too(targets: Collection[str], least: int) -> None:
    async def searches() -> list[bool]:
        async with EmulatedGateway(router(targets, random.Random(77)), address=None) as gateway:
            return [await is_found(gateway.address) for _ in range(100)]

    assert sum(run(searches())) >= least


# A router that is slow to answer


async def time_to_find(source: str) -> float:
    began = asyncio.get_running_loop().time()
    assert await is_found(source)
    return asyncio.get_running_loop().time() - began


def test_eight_programs_at_once_find_a_slow_router() -> None:
    async def searches() -> list[float]:
        async with EmulatedGateway(quirks.slow_searches, address=None) as gateway:
            return await asyncio.gather(*(time_to_find(gateway.address) for _ in range(8)))

    assert max(run(searches())) < 2.0


@pytest.mark.parametrize("target", [LIKELY_TARGETS[2], RARE_TARGETS[2], ALL_TARGET])
def test_eight_programs_at_once_find_a_slow_router_that_answers_one_target_only(target: str) -> None:
    def replies(search: Search, _: object, site: Site) -> list[Message]:
        headers = (("LOCATION", site.location), ("ST", target), ("USN", f"uuid:1::{target}"))
        return [Message("HTTP/1.1 200 OK", headers)] if search.target == target else []

    async def searches() -> list[float]:
        async with EmulatedGateway(odd(replies=replies), quirks.slow_searches, address=None) as gateway:
            return await asyncio.gather(*(time_to_find(gateway.address) for _ in range(8)))

    assert max(run(searches())) < 5.0


def test_eight_cold_starts_in_a_row_do_not_get_slower() -> None:
    async def searches() -> list[float]:
        async with EmulatedGateway(quirks.slow_searches, address=None) as gateway:
            return [await time_to_find(gateway.address) for _ in range(8)]

    times = run(searches())
    assert max(times) < 0.3, times
    assert max(times[4:]) <= max(times[:4]) + 0.001, times


def test_what_is_noted_of_networks_is_forgotten() -> None:
    budget = Budget()
    for number in range(1000):
        assert budget.take(f"bridge {number}", 3, number * 0.1, is_full=False)
    assert len(budget._sent) <= 100 + 1
