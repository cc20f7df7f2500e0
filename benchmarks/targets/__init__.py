"""What is measured, by name, and what should be; each target takes the bench and adds to its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from ..bench import Bench, Goal, Which
from ..peers import AT_ONCE, BARE, BARE_KEEP_ALIVE, FLOOR, MINI, ONE_BY_ONE, OURS_FAST, OURS_NAT_PMP, OURS_PCP
from . import cost, load, network

_FIRST = (network.nobody, network.hostile, cost.leases, network.devices, network.cold)
_LAST = (cost.memory, cost.imports, cost.cpu, load.callers, load.one_at_a_time, load.mappings, cost.hot_path)
TARGETS: Final[Mapping[str, Callable[[Bench], None]]] = {
    **{target.__name__: target for target in _FIRST},
    "cold-lab": partial(network.cold, gateway=network.REAL),
    # Before what makes thousands of connections: miniupnpd reads the list of all for each mapping, for a minute.
    "datagrams-lab": partial(network.datagrams, gateway=network.REAL),
    "datagrams": network.datagrams,
    **{target.__name__.replace("_", "-"): target for target in _LAST},
    "batches": load.batches,
    "batches-kept": partial(load.batches, kept=True),
    "stalls": load.stalls,
}

_COLD, _BATCH = Which("cold start"), Which("batch", of={"delay": 0.02, "kept": False, "count": 1_000})
_KEPT = Which("batch", of={"delay": 0.0, "kept": True, "count": 1_000})
_FIRST_MAPPING = Which("first mapping")
_CPU_BY = Which("cpu: protocols")
_AGAIN = Which("batch: again", of={"delay": 0.02})
_RESETS = Which("crowded: resets", of={"way": AT_ONCE})
_CPU, _CALLERS = Which("cpu"), Which("callers", of={"callers": 100_000})
_CANCELLED, _UNCOLLECTED = Which("callers: cancelled"), Which("callers: uncollected")
_STALL = Which("stall", of={"way": AT_ONCE, "count": 1_000})
GOALS: Final = (
    *(
        goal
        for ours in (_COLD.by(gateway=network.REAL), _COLD.by(gateway=network.EMULATED))
        for goal in (
            Goal(f"cold start to the blocking floor, {ours.of['gateway']}", 1.2, ours, ours.by(FLOOR)),
            Goal(
                f"cold start of the fastest peer to aioigd, {ours.of['gateway']}", 20, ours.by(None), ours, least=True
            ),
        )
    ),
    *(
        goal
        for on in (_FIRST_MAPPING.by(gateway=network.REAL), _FIRST_MAPPING.by(gateway=network.EMULATED))
        for goal in (
            *(
                Goal(f"{who} beyond a blocking datagram, {on.of['gateway']}", 1, Which("over", who, on.of), unit="")
                for who in (OURS_PCP, OURS_NAT_PMP, OURS_FAST)
            ),
            Goal(f"miniupnpc to aioigd by PCP, {on.of['gateway']}", 100, on.by(MINI), on.by(OURS_PCP), least=True),
        )
    ),
    Goal("first mapping where UPnP is silent", 1.2, Which("UPnP silent"), unit="s"),
    *(
        Goal(f"CPU of a mapping by PCP to by UPnP, {way}", 0.333, _CPU_BY.by(OURS_PCP, way=way), _CPU_BY.by(way=way))
        for way in (ONE_BY_ONE, AT_ONCE)
    ),
    Goal("CPU of a mapping to bare aiohttp, one by one", 1.2, _CPU.by(way=ONE_BY_ONE), _CPU.by(BARE, way=ONE_BY_ONE)),
    Goal("CPU of a mapping to bare aiohttp, at once", 1.2, _CPU.by(way=AT_ONCE), _CPU.by(BARE, way=AT_ONCE)),
    Goal(
        "1,000 mappings at 20 ms: the fastest peer one by one to aioigd",
        *(4, _BATCH.by(None, way=ONE_BY_ONE), _BATCH.by(way=AT_ONCE)),
        least=True,
    ),
    Goal("1,000 mappings at 20 ms, at once", 0.6, _BATCH.by(way=AT_ONCE), unit="s"),
    Goal("1,000 more at 20 ms to bare aiohttp, 64 at once", 1.3, _AGAIN, _AGAIN.by(BARE)),
    Goal(
        "1,000 mappings on kept connections to bare aiohttp that keeps them",
        *(1.15, _KEPT.by(way=AT_ONCE), _KEPT.by(BARE_KEEP_ALIVE, way=AT_ONCE)),
    ),
    Goal("mappings lost by aioigd, one connection at a time", 0, Which("crowded: lost"), unit=""),
    Goal("connections reset for 1,000 mappings, one at a time", 8, _RESETS, unit=""),
    Goal("longest stall in 1,000 at once, the worst", 20, _STALL, unit="ms"),
    Goal("longest stall in 1,000 at once after 10,000 identical callers", 20, Which("stall: after callers"), unit="ms"),
    Goal("100,000 identical callers to as many empty coroutines", 2.5, _CALLERS, _CALLERS.by(load.EMPTY)),
    Goal("cancelling 100,000 callers to 10,000", 12.5, _CANCELLED.by(callers=100_000), _CANCELLED.by(callers=10_000)),
    Goal(
        "cancelling 100,000 callers to 10,000, garbage collector off",
        *(12.5, _UNCOLLECTED.by(callers=100_000), _UNCOLLECTED.by(callers=10_000)),
    ),
    Goal(f"import to {cost.NEEDED}", 1.15, Which("import"), Which("import", cost.NEEDED)),
)
"""What the project wants of the figures."""
