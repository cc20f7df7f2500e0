"""What each peer has to be able to do."""

from __future__ import annotations

import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..stalls import Heartbeat

ONE_BY_ONE: Final = "one by one"
AT_ONCE: Final = "at once"
PORTS: Final = range(1_000, 11_000)
"""What is mapped in batches, the first so many."""


@dataclass
class Batch:
    """How a batch went.

    ``stall`` (seconds) where an event loop ran meanwhile and was watched; ``worked``: the same in CPU time of the
    loop's thread, which other programs on the machine cannot lengthen.
    """

    seconds: float
    cpu: float
    made: int
    stall: float | None = None
    worked: float | None = None

    def watched(self, heartbeat: Heartbeat) -> Batch:
        """Add what the heartbeat saw."""
        self.stall, self.worked = heartbeat.longest, heartbeat.longest_cpu
        return self


class Peer(ABC):
    """One way to map ports. ``source``: the address of this machine that it is to work from."""

    def __init__(self, source: str) -> None:
        self.source = source

    def cold_start(self, port: int) -> None:
        """From nothing to the first mapping, with the peer's own defaults."""
        raise NotImplementedError

    def search(self) -> int:
        """Search as the peer does by default; return the number of gateways."""
        raise NotImplementedError

    @abstractmethod
    def batch(self, location: str, ports: Sequence[int], way: str, *, watch: bool) -> Batch:
        """Map all ports on a gateway whose description is known; ``watch`` the event loop for stalls."""

    def swallow(self, location: str) -> tuple[float, float | None]:
        """Read a description that is hostile, and map a port there.

        Return the seconds, and the longest stall of the loop if there is one.
        """
        raise NotImplementedError


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


_seen: set[str] = set()


def print_once(error: BaseException) -> None:
    """Tell of an error on standard error, each kind once."""
    if type(error).__name__ not in _seen:
        _seen.add(type(error).__name__)
        print(f"{type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
