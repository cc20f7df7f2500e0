"""What every target gets: where it is measured, how much of it, and the record.

It is measured in the lab of tests/lab, which is joined to nothing, or (without root) on loopback. In the lab the
gateway is where the router is and the peers are on the LAN, so that each can search as it always does. On loopback only
those take part that can be told from where to search.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from tests.lab.network import LAN_ADDRESS, ROUTER_ADDRESS, Lab, Place

from .gateway_server import emulated_process, gateway_process
from .peers import ALL, BARE, BARE_KEEP_ALIVE, FLOOR, LIBTORRENT, OURS, PEERS, UPNP_CLIENT
from .process import OutOfTimeError, Process, ProcessError, run_process

LOOPBACK: Final = "127.77.7.7"
PACKAGES: Final = ("aioigd", "aiohttp", "lxml", "yarl", "miniupnpc", "async-upnp-client", "upnpclient", "py-natpmp")
DEBIAN: Final = ("godot3-server", "miniupnpc", "miniupnpd-iptables", "natpmp-utils", "python3-libtorrent")


SIZES: Final[dict[str, tuple[Any, Any]]] = {
    "runs": (5, 1),
    "delays": ({0.0: 150, 0.005: 40, 0.02: 24, 0.1: 8}, {0.0: 20, 0.02: 10}),
    "kept_delays": ((0.0, 0.02), (0.0,)),
    "counts": ((1, 100, 1_000), (1, 100)),
    "crowded": (1_000, 100),
    "callers": ((1, 10, 100, 1_000, 10_000, 100_000), (1, 1_000, 10_000)),
    "growth": ((1, 10, 100, 1_000, 10_000), (1, 100, 1_000)),
    "devices": ((1, 5, 20, 50, 100, 200, 500), (1, 20, 50)),
    "leases": ((1, 16, 256, 4_096, 16_384, 65_535), (1, 16, 256)),
    "cpu": (300, 50),
    "cpu_runs": (12, 2),  # short to measure and noisy
    "hostile_limit": (6.0, 2.0),
    "profile": (1_000, 300),
    "datagrams": (40, 4),
}
"""How much is measured in a full run, and in a smoke test from which nothing is to be concluded.

``delays``: seconds that the gateway takes for each action, and how many mappings one after another stand for 1,000.
"""


@dataclass
class Series:
    """One figure of one peer, a value for each run. ``of`` says of which kind: the delay, the count, the way."""

    figure: str
    who: str
    unit: str
    of: Mapping[str, Any]
    values: list[float] = field(default_factory=list)
    note: str = ""
    median: float = 0.0


class Record:
    """All series, in the order in which they began."""

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        found = (Series(**one) for one in (data or {}).get("series", ()))
        self.series = {(one.figure, one.who, *sorted(one.of.items())): one for one in found}
        self.environment: dict[str, Any] = (data or {}).get("environment", {})

    def add(self, figure: str, who: str, unit: str, value: float, *, note: str = "", **of: Any) -> None:
        """Note the value of one run."""
        one = self.series.setdefault((figure, who, *sorted(of.items())), Series(figure, who, unit, of))
        one.values.append(value)
        one.median, one.note = median(one.values), note or one.note

    def find(self, figure: str, who: str | None = None, **of: Any) -> list[Series]:
        """Return the series of a figure, of one peer or of all, for which all of ``of`` holds."""
        found = (one for one in self.series.values() if one.figure == figure and who in (None, one.who))
        return [one for one in found if of.items() <= one.of.items()]

    def as_json(self) -> str:
        """Return everything, to be written to a file; what it holds makes a record again."""
        everything = {"environment": self.environment, "series": [vars(one) for one in self.series.values()]}
        return json.dumps(everything, indent=1) + "\n"


class Which(NamedTuple):
    """Some series: their figure, whose they are (None: a peer's), and of which kind."""

    figure: str
    who: str | None = OURS
    of: Mapping[str, Any] = {}

    def by(self, who: str | None = OURS, **of: object) -> Which:
        """Return the same of somebody else, or of another kind."""
        return Which(self.figure, who, {**self.of, **of})


@dataclass(frozen=True)
class Goal:
    """What should be: ``of``, or its ratio ``to`` another figure run by run, is ``limit`` at most, or at least.

    Where several series are found the one counts that is hardest to reach the goal with.
    """

    name: str
    limit: float
    of: Which
    to: Which | None = None
    least: bool = False
    unit: str = "x"

    def values(self, record: Record) -> list[float]:
        """Return what was measured, empty where nothing was."""
        ones = self._values(record, self.of)
        others = self._values(record, self.to) if self.to else [1.0] * len(ones)
        return [one / other for one, other in zip(ones, others, strict=False) if other]

    def is_reached(self, values: Sequence[float]) -> bool:
        """Return whether the median is within the limit."""
        return median(values) >= self.limit if self.least else median(values) <= self.limit

    def _values(self, record: Record, which: Which) -> list[float]:
        found = record.find(which.figure, which.who, **which.of)
        found = [one for one in found if which.who or one.who not in (OURS, FLOOR, BARE, BARE_KEEP_ALIVE)]
        found.sort(key=lambda one: one.median, reverse=not self.least)
        return found[0].values if found else []


class Bench:
    """One whole run: the place, and the processes of the peers there, each started when it is first needed."""

    def __init__(self, quick: bool, record: Record, lab: Lab | None, stack: ExitStack) -> None:
        self.plan = SimpleNamespace(**{name: sizes[quick] for name, sizes in SIZES.items()})
        self.record = record
        self.add = record.add
        self.lab = lab
        self.names = [
            name for name, peer in ALL.items() if peer.is_installed() and (lab or name not in (UPNP_CLIENT, LIBTORRENT))
        ]
        self.ports = itertools.count(20_000)
        """Each cold start takes a port of its own: gateways tell a new mapping from one that they hold."""
        self._stack = stack
        self._workers: dict[str, Process] = {}
        self._started = time.monotonic()

    def turns(self, *names: str, without: Sequence[str] = (), runs: int = 0) -> Iterator[str]:
        """Return those names that are there (all but some), for each run, beginning with another one each time."""
        there = [name for name in names or PEERS if name in self.names and name not in without]
        for run in range(runs or self.plan.runs):
            first = run % len(there) if there else 0
            yield from (*there[first:], *there[:first])

    @contextmanager
    def gateway(self, *quirks: object, **settings: object) -> Iterator[Process]:
        """Run a gateway of no cost where the peers look for it; or with quirks an emulated one on their loopback."""
        with ExitStack() as stack:
            with self.inside("lan" if quirks else "router"):
                address = ROUTER_ADDRESS if self.lab else LOOPBACK
                process = emulated_process(*quirks) if quirks else gateway_process(address=address, **settings)
                running = stack.enter_context(process)
            yield running

    def ask(self, name: str, do: str, **arguments: Any) -> dict[str, Any] | None:
        """Have a peer do something; None, and a line on standard error, where it cannot."""
        try:
            return self.worker(name).ask(do=do, **arguments)
        except ProcessError as error:
            print(f"  {do}: {error}", file=sys.stderr, flush=True)
            if isinstance(error, OutOfTimeError):
                self._workers.pop(name, None)  # it may be in any state
            return None

    def worker(self, name: str) -> Process:
        """Return the process of a peer."""
        if name not in self._workers:
            with self.inside("lan"):
                running = run_process("benchmarks.peers", name, LAN_ADDRESS if self.lab else LOOPBACK, quiet=True)
                self._workers[name] = self._stack.enter_context(running)
        return self._workers[name]

    def inside(self, place: Place) -> AbstractContextManager[None]:
        """Move the calling thread there, as `Lab.inside` does; on loopback everything is in one place."""
        return self.lab.inside(place) if self.lab else nullcontext()

    def say(self, text: str) -> None:
        """Tell how far it is."""
        print(f"{time.monotonic() - self._started:6.0f} s  {text}", flush=True)


@contextmanager
def bench(quick: bool, record: Record) -> Iterator[Bench]:
    """Build the lab where that is possible."""
    with ExitStack() as stack:
        possible = os.geteuid() == 0 and all(map(shutil.which, ("ip", "iptables-legacy-restore", "miniupnpd")))
        lab = stack.enter_context(Lab()) if possible else None
        record.environment["place"] = "lab" if lab else "loopback"
        yield Bench(quick, record, lab, stack)


def environment() -> dict[str, Any]:
    """Return what the figures depend on; nothing in it tells whose machine it is."""
    packages = {name: version(name) for name in PACKAGES if find_spec(name.replace("-", "_"))}
    command = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *DEBIAN]
    debian = subprocess.run(command, capture_output=True, text=True).stdout if shutil.which(command[0]) else ""
    cpuinfo = Path("/proc/cpuinfo")
    _, _, processor = (cpuinfo.read_text() if cpuinfo.exists() else "").partition("model name\t: ")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "processor": f"{os.cpu_count()} x {processor.partition(chr(10))[0] or platform.machine()}",
        "packages": packages,
        "debian": dict(line.split(" ") for line in debian.splitlines() if not line.endswith(" ")),
    }
