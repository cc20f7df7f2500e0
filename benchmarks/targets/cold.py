"""From nothing to the first mapping, and how long it takes to see that there is no gateway."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ..bench import Bench
from ..peers import BARE, BARE_KEEP_ALIVE, FLOOR, OURS


def emulated(bench: Bench) -> None:
    """Start cold on the emulated gateway, which answers at once."""
    with bench.gateway():
        _starts(bench, "emulated gateway")


def real(bench: Bench) -> None:
    """Start cold on miniupnpd, where there is a lab."""
    if bench.lab is None:
        return
    bench.lab.start_router()
    try:
        _starts(bench, "miniupnpd")
    finally:
        bench.lab.reset()


def nobody(bench: Bench) -> None:
    """Search a network without a gateway. All search at the same time: they do nothing but wait."""
    names = [name for name in bench.names if name not in (BARE, BARE_KEEP_ALIVE, FLOOR)]
    for name in names:
        bench.worker(name)
    for _ in range(bench.plan.runs):
        with ThreadPoolExecutor(len(names)) as pool:
            for name, done in zip(names, pool.map(lambda one: bench.ask(one, "search"), names), strict=True):
                if done and not done["found"]:
                    bench.record.add("nobody", name, "s", done["seconds"])


def _starts(bench: Bench, gateway: str) -> None:
    for name in (OURS, FLOOR):
        # What a process does once is done before: the first thread, the router's first rule. The others take so long
        # that it makes no difference.
        bench.ask(name, "first", port=next(bench.ports))
    for name in bench.turns([name for name in bench.names if name not in (BARE, BARE_KEEP_ALIVE)]):
        done = bench.ask(name, "first", port=next(bench.ports))
        if done:
            bench.record.add("cold start", name, "s", done["seconds"], gateway=gateway)
