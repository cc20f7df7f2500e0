"""CPU time and memory of one mapping, and how long it takes to import a peer."""

from __future__ import annotations

from typing import Final

from ..bench import Bench
from ..peers import ASYNC_UPNP, BARE, BARE_KEEP_ALIVE, FLOOR, MINI, OURS, UPNP_CLIENT
from ..peers.base import AT_ONCE, ONE_BY_ONE
from ..workload import seconds_to_import

NEEDED: Final = "aiohttp and lxml"
_PYTHON: Final = (OURS, BARE, ASYNC_UPNP, UPNP_CLIENT)
_MEASURED: Final = {
    ONE_BY_ONE: (OURS, BARE, BARE_KEEP_ALIVE, FLOOR, ASYNC_UPNP, MINI, UPNP_CLIENT),
    AT_ONCE: (OURS, BARE, BARE_KEEP_ALIVE, ASYNC_UPNP, MINI),
}
_IMPORTS: Final = {
    OURS: "aioigd",
    NEEDED: "aiohttp, lxml.etree",
    MINI: "miniupnpc",
    ASYNC_UPNP: "async_upnp_client.aiohttp, async_upnp_client.client_factory, async_upnp_client.profiles.igd",
    UPNP_CLIENT: "upnpclient",
}


def cpu(bench: Bench) -> None:
    """Measure the CPU time of the process, on a gateway that answers at once."""
    count = bench.plan.cpu
    with bench.gateway() as gateway:
        for run in range(bench.plan.cpu_runs):
            for way, measured in _MEASURED.items():
                names = [name for name in measured if name in bench.names]
                for name in names if run % 2 else reversed(names):
                    gateway.counts(keep_alive=name == BARE_KEEP_ALIVE)
                    done = bench.ask(name, "batch", location=gateway.location, count=count, way=way, watch=False)
                    if done and done["made"] == count:
                        bench.record.add("cpu", name, "us", done["cpu"] / count * 1e6, way=way)


def memory(bench: Bench) -> None:
    """Measure Python's memory at its highest point; of ours and bare aiohttp also once the gateway is known."""
    count = bench.plan.cpu
    with bench.gateway() as gateway:
        for name in bench.turns(_PYTHON):
            done = bench.ask(name, "memory", location=gateway.location, count=count)
            if done:
                bench.record.add("memory: peak", name, "KiB", done["peak"] / 1024)
                bench.record.add("memory: each", name, "B", done["growth"])
            known = (
                bench.ask(name, "allocations", location=gateway.location, count=count) if name in (OURS, BARE) else {}
            )
            for figure, value in (known or {}).items():
                bench.record.add("memory: known", name, "B", value, which=figure)


def imports(bench: Bench) -> None:
    """Measure in new interpreters, whose own start does not count."""
    names = [name for name in _IMPORTS if name == NEEDED or name in bench.names]
    for name in names:
        seconds_to_import(_IMPORTS[name])
    for run in range(bench.plan.imports):
        for name in names if run % 2 else reversed(names):
            bench.record.add("import", name, "ms", seconds_to_import(_IMPORTS[name]) * 1e3)
