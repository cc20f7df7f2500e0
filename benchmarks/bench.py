"""What every target gets: where it is measured, how much of it, and the record.

It is measured in the lab of tests/lab, which is joined to nothing, or (without root) on loopback. In the lab the
emulated gateway is where the router is and the peers are on the LAN, so that each can search as it always does. On
loopback only those take part that can be told from where to search.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from tests.lab.network import LAN_ADDRESS, ROUTER_ADDRESS, Lab, Place

from .gateway_server import GatewayProcess, gateway_process
from .peers import UPNP_CLIENT, available
from .process import OutOfTimeError, Process, ProcessError, run_process
from .record import Record

WORKER: Final = "benchmarks.peers.worker"
_LOOPBACK: Final = "127.77.7.7"


@dataclass(frozen=True)
class Plan:
    """How much is measured: the full run. Delays are seconds that the gateway takes for each action."""

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


QUICK: Final = Plan(
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
"""A smoke test, from which nothing is to be concluded."""


class Bench:
    """One whole run: the place, and the processes of the peers there, each started when it is first needed."""

    def __init__(self, plan: Plan, record: Record, lab: Lab | None, stack: ExitStack) -> None:
        self.plan = plan
        self.record = record
        self.lab = lab
        self.names = [name for name in available() if lab or name != UPNP_CLIENT]
        self.ports = itertools.count(20_000)
        """Each cold start takes a port of its own: gateways tell a new mapping from one that they hold."""
        self._stack = stack
        self._workers: dict[str, Process] = {}
        self._started = time.monotonic()

    def turns(self, names: Sequence[str]) -> Iterator[str]:
        """Return those names that are there, for each run, beginning with another one each time."""
        there = [name for name in names if name in self.names]
        for run in range(self.plan.runs):
            first = run % len(there) if there else 0
            yield from (*there[first:], *there[:first])

    @contextmanager
    def gateway(self, *arguments: str) -> Iterator[GatewayProcess]:
        """Run an emulated gateway."""
        with ExitStack() as stack:
            with self.inside("router"):
                address = ROUTER_ADDRESS if self.lab else _LOOPBACK
                running = stack.enter_context(gateway_process("--address", address, *arguments))
            yield running

    def worker(self, name: str) -> Process:
        """Return the process of a peer."""
        if name not in self._workers:
            with self.inside("lan"):
                source = LAN_ADDRESS if self.lab else _LOOPBACK
                running = run_process(WORKER, name, source, quiet=True)
                self._workers[name] = self._stack.enter_context(running)
        return self._workers[name]

    def ask(self, name: str, do: str, **arguments: Any) -> dict[str, Any] | None:
        """Have a peer do something; None, and a line on standard error, where it cannot."""
        try:
            return self.worker(name).ask(do=do, **arguments)
        except ProcessError as error:
            print(f"  {do}: {error}", file=sys.stderr, flush=True)
            if isinstance(error, OutOfTimeError):
                self._workers.pop(name, None)  # it may be in any state
            return None

    def inside(self, place: Place) -> AbstractContextManager[None]:
        """Move the calling thread there, as `Lab.inside` does; on loopback everything is in one place."""
        return self.lab.inside(place) if self.lab else nullcontext()

    def say(self, text: str) -> None:
        """Tell how far it is."""
        print(f"{time.monotonic() - self._started:6.0f} s  {text}", flush=True)


@contextmanager
def bench(plan: Plan, record: Record) -> Iterator[Bench]:
    """Build the lab where that is possible."""
    with ExitStack() as stack:
        possible = os.geteuid() == 0 and all(map(shutil.which, ("ip", "iptables-legacy-restore", "miniupnpd")))
        lab = stack.enter_context(Lab()) if possible else None
        record.environment["place"] = "lab" if lab else "loopback"
        yield Bench(plan, record, lab, stack)
