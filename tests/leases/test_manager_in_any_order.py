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
ELSEWHERE = ("home hint", "steal elsewhere", "give back elsewhere", "stopgap restarts", "begin", "end")
"""What can happen as well where there is another gateway: leases are at it while the router is away."""


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


@settings(max_examples=100, deadline=None)
@given(
    events=st.lists(
        st.tuples(
            # Not "our address": what we have at the router from an address of before is another's to us (secure mode).
            st.sampled_from(EVENTS + MOVES[1:] + ELSEWHERE + ("go away", "come back") * 2),
            st.sampled_from([0.0, 0.003, 0.02, 0.3, 7.0, 59.0, 100.0, 4000.0]),
        ),
        max_size=14,
    ),
    duration=st.sampled_from([0, 120, 3600]),
    on_conflict=st.sampled_from(["fail", "take_over"]),
)
def test_leases_come_home_in_the_end_and_leave_nothing_elsewhere(
    events: list[tuple[str, float]], duration: int, on_conflict: str
) -> None:
    """Leases begin at a stopgap, and the router of the default route comes and goes.

    ==================  =============================================================================
    event               in the end
    ==================  =============================================================================
    go away, come back  all that can be had at home is there, and nothing of it at the stopgap
    steal               with "fail" the lease is still ACTIVE at the stopgap, or LOST at home
    steal elsewhere     what is another's at the stopgap is untouched
    home hint, hint     no matter
    begin, end          as the others; what has ended is nowhere
    ==================  =============================================================================
    """

    async def main() -> None:
        router, stopgap = ModelRouter(), ModelRouter(name="stopgap", host="stopgap")
        router.is_away = True
        manager = ModelManager(router, stopgap=stopgap)
        manager.cache.devices.clear()
        leases = {
            port: await manager.hold(lease_request(port, duration=duration, on_conflict=on_conflict)) for port in PORTS
        }
        beginning: list[asyncio.Task[None]] = []
        ended: set[int] = set()

        async def begin(port: int) -> None:
            request = lease_request(port, duration=duration, on_conflict=on_conflict, required=False)
            leases[port] = await manager.hold(request)

        for number, (event, pause) in enumerate(events):
            if event == "begin":
                beginning.append(asyncio.create_task(begin(9000 + number)))
            elif event == "end" and len(leases) > 1:
                ended.add(min(leases))
                beginning.append(asyncio.create_task(leases.pop(min(leases)).release()))
            else:
                happen(router, event, number, stopgap)
            await asyncio.sleep(pause)
        router.is_away = router.is_mute = False
        await asyncio.gather(*beginning)
        await asyncio.sleep(1500.0 if duration != 3600 else 2500.0)
        for port, lease in leases.items():
            if router.owner(port) == THEM:
                is_there = stopgap.owner(port) == stopgap.us
                assert state_of(lease) is (LeaseState.ACTIVE if is_there else LeaseState.LOST)
            else:
                assert router.owner(port) == router.us
                assert state_of(lease) is LeaseState.ACTIVE
                assert stopgap.owner(port) in (None, THEM)
        theirs = {key for gateway in (router, stopgap) for key, row in gateway.table.items() if row.client == THEM}
        await manager.close()
        assert set(stopgap.table) <= theirs
        # A lease that ends just when the router goes away cannot be deleted there.
        left = {key.external_port for key in list(router.table) if router.live(key) and key not in theirs}
        assert left <= (ended if ("go away" in dict(events)) else set())

    run(main(), debug=False)


def happen(router: ModelRouter, event: str, number: int, stopgap: ModelRouter | None = None) -> None:
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
        case "home hint" if router.on_hint is not None:
            router.on_hint(Hint.HOME)
        case "steal elsewhere" if stopgap is not None:
            stopgap.hold(port)
        case "give back elsewhere" if stopgap is not None:
            for key in [key for key, row in stopgap.table.items() if row.client == THEM]:
                del stopgap.table[key]
        case "stopgap restarts" if stopgap is not None:
            stopgap.restart(new_place=bool(number % 2))
