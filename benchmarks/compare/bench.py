"""What every scenario gets: where, how much, and what to note it in."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..peers.worker import OutOfTime, PeerError
from .place import Site
from .plan import Plan
from .record import Record


@dataclass
class Bench:
    """One whole run of the benchmark."""

    site: Site
    plan: Plan
    record: Record
    ports: Iterator[int] = field(default_factory=lambda: itertools.count(20_000))
    """Each cold start takes a port of its own: gateways tell a new mapping from one that they hold."""
    _started: float = field(default_factory=time.monotonic)

    def turns(self, names: Sequence[str]) -> Iterator[str]:
        """Return the names for each run, beginning with another one each time."""
        for run in range(self.plan.runs):
            first = run % len(names) if names else 0
            yield from (*names[first:], *names[:first])

    def ask(self, name: str, do: str, **arguments: Any) -> dict[str, Any] | None:
        """Have a peer do something; None, and a line on standard error, where it cannot."""
        try:
            return self.site.worker(name).ask(do, **arguments)
        except PeerError as error:
            print(f"  {error}", file=sys.stderr, flush=True)
            if isinstance(error, OutOfTime):
                self.site.forget(name)
            return None

    def say(self, text: str) -> None:
        """Tell how far it is."""
        print(f"{time.monotonic() - self._started:6.0f} s  {text}", flush=True)
