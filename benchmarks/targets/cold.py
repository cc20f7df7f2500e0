"""From nothing to the first mapping, and how long it takes to see that there is no gateway."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ..bench import Bench
from ..peers import BARE, BARE_KEEP_ALIVE, FLOOR, OURS

REAL: Final = "miniupnpd"
EMULATED: Final = "emulated gateway"
NEVER_SEARCH: Final = (BARE, BARE_KEEP_ALIVE)


def emulated(bench: Bench) -> None:
    """Start cold on a gateway that answers at once."""
    with bench.gateway():
        _starts(bench, EMULATED)


def real(bench: Bench) -> None:
    """Start cold on miniupnpd, where there is a lab."""
    if bench.lab:
        bench.lab.start_router()
        try:
            _starts(bench, REAL)
        finally:
            bench.lab.reset()


def nobody(bench: Bench) -> None:
    """Search a network without a gateway. All search at the same time: they do nothing but wait."""
    for _ in range(bench.plan.runs):
        names = list(bench.turns(without=(*NEVER_SEARCH, FLOOR), runs=1))
        for name in names:
            bench.worker(name)
        with ThreadPoolExecutor(len(names)) as pool:
            for name, done in zip(names, pool.map(lambda one: bench.ask(one, "start", port=0), names), strict=True):
                if done and not done["found"]:
                    bench.add("nobody", name, "s", done["seconds"])


def _starts(bench: Bench, gateway: str) -> None:
    for name in (OURS, FLOOR):
        # What a process does once is done before: the first thread, the router's first rule. The others take so long
        # that it makes no difference.
        bench.ask(name, "start", port=next(bench.ports))
    for name in bench.turns(without=NEVER_SEARCH):
        if done := bench.ask(name, "start", port=next(bench.ports)):
            bench.add("cold start", name, "s", done["seconds"], gateway=gateway)
