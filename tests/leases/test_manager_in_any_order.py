"""Whatever happens to a router, in whatever order: when it is quiet again, all is as it should be."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from aioigd import LeaseState
from aioigd.core.backend import Hint

from .model import THEM, US, ModelManager, ModelRouter, lease_request, state_of
from .virtual import run

PORTS = (8080, 8081, 8082)
EVENTS = ("restart", "restart elsewhere", "lose one", "lose all", "steal", "give back", "go away", "come back")
RENEWALS = ("renewals keep the end", "renewals are refused", "renewals prolong", "switch off", "tell no rest")
MOVES = ("our address", "external address", "hint", "change hint", "another LOCATION", "no answer to searches")


@settings(max_examples=60, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.sampled_from(EVENTS + MOVES + RENEWALS), st.sampled_from([0.0, 0.3, 7.0, 100.0, 4000.0])),
        max_size=12,
    ),
    duration=st.sampled_from([0, 120, 3600]),
)
def test_what_can_be_had_is_there_and_what_is_others_is_untouched(
    events: list[tuple[str, float]], duration: int
) -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        leases = [await manager.hold(lease_request(port, duration=duration)) for port in PORTS]
        for number, (event, pause) in enumerate(events):
            happen(router, event, number)
            await asyncio.sleep(pause)
        router.is_away = router.is_mute = False
        if router.refuses_renewals:
            happen(router, "renewals prolong", 0)  # or what is right in the end depends on the moment
        await asyncio.sleep(300.0 if duration != 3600 else 2000.0)
        for lease, port in zip(leases, PORTS, strict=True):
            wanted = THEM if router.owner(port) == THEM else router.us
            assert router.owner(port) == wanted
            assert state_of(lease) is (LeaseState.LOST if wanted == THEM else LeaseState.ACTIVE)
            assert (lease.error is None) is (wanted != THEM)
        assert all(row.enabled for row in router.table.values())
        theirs = {key for key, row in router.table.items() if row.client == THEM}
        assert len(router.table) == len(PORTS)
        await manager.close()
        assert set(router.table) == theirs

    run(main(), debug=False)


def happen(router: ModelRouter, event: str, number: int) -> None:
    port = PORTS[number % len(PORTS)]
    match event:
        case "restart":
            router.restart(new_place=False)
        case "restart elsewhere":
            router.restart()
        case "lose one":
            for key in list(router.table)[:1]:
                del router.table[key]
        case "lose all":
            router.table.clear()
        case "steal":
            router.hold(port)
        case "give back":
            for key in [key for key, row in router.table.items() if row.client == THEM]:
                del router.table[key]
        case "go away":
            router.is_away = True
        case "come back":
            router.is_away = False
        case "renewals keep the end":
            router.prolongs = False
        case "renewals are refused":
            router.refuses_renewals = True
        case "renewals prolong":
            router.prolongs, router.refuses_renewals = True, False
        case "switch off":
            for row in router.table.values():
                row.enabled = row.client == THEM
        case "tell no rest":
            router.reports = lambda _: 0
        case "our address":
            router.us = f"192.168.1.{number + 10}" if number % 2 else US
        case "external address":
            router.address = f"5.6.7.{number + 1}"
        case "another LOCATION":
            router.query = f"?{number}"
        case "no answer to searches":
            router.is_mute = not router.is_mute
        case "hint" if router.on_hint is not None:
            router.on_hint(Hint.RESTARTED)
        case "change hint" if router.on_hint is not None:
            router.on_hint(Hint.CHANGED)
