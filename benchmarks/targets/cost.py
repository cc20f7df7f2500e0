"""CPU time and memory of one mapping, how long it takes to import a peer, and where the CPU time goes."""

from __future__ import annotations

import timeit
from collections import Counter
from typing import Final

from tests.leases.virtual import run

from ..bench import Bench
from ..codecs import STEPS
from ..leases import month
from ..peers import ASYNC_UPNP, AT_ONCE, BARE, BARE_KEEP_ALIVE, FLOOR, MINI, ONE_BY_ONE, OURS, PEERS, UPNP_CLIENT
from ..workload import seconds_to_import

NEEDED: Final = "aiohttp and lxml"
MEASURED: Final = {
    ONE_BY_ONE: (OURS, BARE, BARE_KEEP_ALIVE, FLOOR, ASYNC_UPNP, MINI, UPNP_CLIENT),
    AT_ONCE: (OURS, BARE, BARE_KEEP_ALIVE, ASYNC_UPNP, MINI),
}
AREAS: Final = ("aioigd", "aiohttp", "asyncio", "the rest")
MOST_FUNCTIONS: Final = 12
MOST_TRACED: Final = 20_000
SHORT_LIFE: Final = 0.01  # days: the leases are measured when they have been made, not as they grow old


def cpu(bench: Bench) -> None:
    """Measure the CPU time of the process, on a gateway that answers at once."""
    count = bench.plan.cpu
    with bench.gateway() as gateway:
        for way, names in MEASURED.items():
            for name in bench.turns(*names, runs=bench.plan.cpu_runs):
                gateway.ask(keep_alive=name == BARE_KEEP_ALIVE)
                done = bench.ask(name, "batch", location=gateway.location, count=count, way=way)
                if done and done["made"] == count:
                    bench.add("cpu", name, "us", done["cpu"] / count * 1e6, way=way)
                    bench.add("cpu: kernel", name, "us", done["kernel"] / count * 1e6, way=way)


def memory(bench: Bench) -> None:
    """Measure Python's memory at its highest point; of ours and bare aiohttp also once the gateway is known."""
    with bench.gateway() as gateway:
        for name in bench.turns(OURS, BARE, ASYNC_UPNP, UPNP_CLIENT):
            if done := bench.ask(name, "memory", location=gateway.location, count=bench.plan.cpu):
                bench.add("memory: peak", name, "KiB", done["first"] / 1024)
                bench.add("memory: each", name, "B", done["each"])
                for which, value in done["known"].items() if name in (OURS, BARE) else ():
                    bench.add("memory: known", name, "B", value, which=which)


def imports(bench: Bench) -> None:
    """Measure in new interpreters, whose own start does not count."""
    modules = {name: ", ".join(PEERS[name].needs) for name in bench.turns(OURS, MINI, ASYNC_UPNP, UPNP_CLIENT, runs=1)}
    modules[NEEDED] = "aiohttp, lxml.etree"
    for number in range(bench.plan.cpu_runs):
        for name in modules if number % 2 else reversed(modules):
            seconds = seconds_to_import(modules[name])
            if number:  # the first compiles what has not been
                bench.add("import", name, "ms", seconds * 1e3)


def hot_path(bench: Bench) -> None:
    """Profile mappings one after another, by aioigd and by bare aiohttp; and time the library's pure steps."""
    ours: Counter[str] = Counter()
    with bench.gateway() as gateway:
        for name in bench.turns(OURS, BARE):
            done = bench.ask(name, "profile", location=gateway.location, count=bench.plan.profile)
            areas = dict.fromkeys(AREAS, 0.0)
            for function, seconds in (done or {}).items():
                areas[next((area for area in AREAS if f"/{area}/" in function), AREAS[-1])] += seconds
                if name == OURS:
                    ours[function] += seconds / bench.plan.runs
            for area, seconds in areas.items():
                bench.add("profile: area", name, "us", seconds * 1e6, area=area)
    for function, seconds in ours.most_common(MOST_FUNCTIONS):
        bench.add("profile: function", OURS, "us", seconds * 1e6, function="/".join(function.split("/")[-2:]))
    for _ in range(bench.plan.runs):
        for step, (call, _) in STEPS.items():
            best = min(timeit.repeat(call, number=bench.plan.profile, repeat=3))
            bench.add("profile: step", OURS, "us", best / bench.plan.profile * 1e6, step=step)


def leases(bench: Bench) -> None:
    """Hold ever more leases, in virtual time; with tracemalloc for the memory, without it for the time.

    Memory is the same each time and takes minutes to trace, so it is looked at once, and not for the most.
    """
    for count in bench.plan.leases:
        if count <= MOST_TRACED:
            traced = run(month(count, SHORT_LIFE, measure_memory=True), debug=False)
            bench.add("growth: leases, memory", OURS, "B", traced.bytes_per_lease, leases=count)
        for _ in range(bench.plan.runs):
            figures = run(month(count, SHORT_LIFE), debug=False)
            bench.add("growth: leases", OURS, "s", figures.seconds, leases=count)
            bench.add("growth: leases, timers", OURS, "", figures.most_timers, leases=count)
