"""How much is measured: everything, or a little of everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Plan:
    """The full run. Delays are seconds that the gateway takes for each action."""

    runs: int = 5
    delays: Sequence[float] = (0.0, 0.005, 0.02, 0.1)
    kept_delays: Sequence[float] = (0.0, 0.02)
    """The same with connections that the gateway keeps open."""
    counts: Sequence[int] = (1, 100, 1_000)
    """How many mappings at once."""
    most_at: Mapping[float, int] = field(default_factory=lambda: MappingProxyType({0.1: 240}))
    """At some delays a batch is extrapolated from so many, because it would take minutes."""
    samples: Mapping[float, int] = field(
        default_factory=lambda: MappingProxyType({0.0: 150, 0.005: 40, 0.02: 24, 0.1: 8})
    )
    """How many mappings one after another are measured for 1,000."""
    crowded: int = 1_000
    callers: Sequence[int] = (1, 10, 100, 1_000, 10_000, 100_000)
    growth: Sequence[int] = (1, 10, 100, 1_000, 10_000)
    devices: Sequence[int] = (1, 5, 20, 50, 100, 200, 500)
    leases: Sequence[int] = (1, 16, 256, 4_096, 16_384, 65_535)
    imports: int = 10
    cpu: int = 300
    cpu_runs: int = 12
    """CPU time is short to measure and noisy, so it has more runs."""
    hostile_limit: float = 6.0
    profile: int = 5_000


def quick() -> Plan:
    """Return the plan of a smoke test, from which nothing is to be concluded."""
    return Plan(
        runs=1,
        delays=(0.0, 0.02),
        kept_delays=(0.0,),
        counts=(1, 100),
        samples=MappingProxyType({0.0: 20, 0.02: 10}),
        crowded=100,
        callers=(1, 1_000, 10_000),
        growth=(1, 100, 1_000),
        devices=(1, 20, 50),
        leases=(1, 16, 256),
        imports=2,
        cpu=50,
        cpu_runs=2,
        hostile_limit=2.0,
        profile=300,
    )
