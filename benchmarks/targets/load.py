"""Batches on gateways that are slow, keep connections open, or serve one at a time; and many callers that agree."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import Sequence
from typing import Any, Final

from aioigd import PortMapper
from aioigd.testing import quirks

from ..bench import Bench
from ..gateway_server import gateway_process
from ..peers import AT_ONCE, BARE, BARE_KEEP_ALIVE, FLOOR, GODOT, MINI_LONG, ONE_BY_ONE, OURS, PORTS, UPNPC, heartbeat
from ..process import Process
from ..workload import CALLERS, PORT, call_identical

CROWDED_DELAY: Final = 0.005
COLD_DELAY: Final = 0.02
MOST: Final = {0.1: 240}
NOT_AT_ONCE: Final = (GODOT, UPNPC)
"""These two also make several requests for each mapping."""
EMPTY: Final = "empty coroutines"
PLAIN: Final = "plain tasks"
FEWEST_CANCELLED: Final = 1_000


def batches(bench: Bench, *, kept: bool = False) -> None:
    """Map at once and one after another, for each delay of the gateway; or at once where it keeps connections open."""
    for delay in bench.plan.kept_delays if kept else bench.plan.delays:
        # A gateway for each, at a port of its own: who closes a connection cannot use its pair of ports for a minute,
        # and after tens of thousands there is none left.
        with bench.gateway(delay=delay, keep_alive=kept) as gateway:
            for name in bench.turns(without=(MINI_LONG, FLOOR, *(() if kept else (BARE_KEEP_ALIVE,)))):
                if not kept:
                    sample = bench.plan.delays[delay] // (2 if name in NOT_AT_ONCE else 1)
                    _batch(bench, gateway, name, sample, 1_000, {"way": ONE_BY_ONE, "delay": delay, "kept": False})
                for count in bench.plan.counts if name not in NOT_AT_ONCE else ():
                    sample = min(count, MOST.get(delay, count))
                    _batch(bench, gateway, name, sample, count, {"way": AT_ONCE, "delay": delay, "kept": kept})
        bench.say(f"  {delay * 1000:g} ms, {'kept' if kept else 'closed'} connections")


def one_at_a_time(bench: Bench) -> None:
    """Map on an emulated gateway that resets each connection that comes while another is open, in both ways.

    It speaks HTTP/1.0: a connection that one peer keeps open would shut out the next.
    """
    resets = 0
    with bench.gateway(quirks.one_connection_or_reset, quirks.http_1_0, quirks.slow(CROWDED_DELAY)) as gateway:
        for name in bench.turns(without=(MINI_LONG, FLOOR, BARE_KEEP_ALIVE)):
            for way in (ONE_BY_ONE, AT_ONCE) if name not in NOT_AT_ONCE else (ONE_BY_ONE,):
                count = bench.plan.crowded if way == AT_ONCE else bench.plan.crowded_one_by_one
                of: dict[str, Any] = {"count": count, "delay": CROWDED_DELAY, "way": way}
                done = bench.ask(name, "batch", location=gateway.location, count=count, way=way)
                before, resets = resets, gateway.ask()["resets"]
                # Who does not even get the description has lost everything.
                bench.add("crowded: lost", name, "", count - done["made"] if done else count, **of)
                bench.add("crowded: resets", name, "", resets - before, **of)
                if done:
                    bench.add("crowded: time", name, "s", done["seconds"], **of)


def stalls(bench: Bench) -> None:
    """Watch the loop during a batch with the discovery in it, and while as many empty coroutines are gathered."""
    ports = PORTS[: max(bench.plan.counts)]
    with gateway_process(delay=COLD_DELAY) as gateway:
        for who in (OURS, EMPTY) * bench.plan.runs:
            bench.add("stall: cold", who, "ms", asyncio.run(_stall(gateway, who, ports)) * 1e3, count=len(ports))
            stall = asyncio.run(_stall(gateway, who, ports, callers=CALLERS))
            bench.add("stall: after callers", who, "ms", stall * 1e3, count=len(ports))


def mappings(bench: Bench) -> None:
    """Map ever more at once, on a gateway that answers at once."""
    with bench.gateway() as gateway:
        for name in bench.turns(OURS, BARE):
            for count in bench.plan.growth:
                done = bench.ask(name, "batch", location=gateway.location, count=count, way=AT_ONCE, watch=True)
                if done and done["made"] == count:
                    bench.add("growth: mappings", name, "s", done["seconds"], count=count)
                    bench.add("growth: mappings, stall", name, "ms", done["stall"] * 1e3, count=count)


def callers(bench: Bench) -> None:
    """Compare with gathering as many coroutines that do nothing, and cancelling as many tasks that wait."""
    with gateway_process() as gateway:
        for number, _ in itertools.product(bench.plan.callers, range(bench.plan.runs)):
            of: dict[str, Any] = {"callers": number}
            bench.add("callers", OURS, "s", asyncio.run(call_identical(gateway.location, number)), **of)
            bench.add("callers", EMPTY, "s", asyncio.run(_gather_nothing(number)), **of)
            if number >= FEWEST_CANCELLED:
                bench.add("callers: cancelled", OURS, "s", asyncio.run(_cancel_identical(gateway, number)), **of)
                bench.add("callers: cancelled", PLAIN, "s", asyncio.run(_cancel_plain(number)), **of)
                gc.disable()  # it looks at everything ever more often as there is more of it
                bench.add("callers: uncollected", OURS, "s", asyncio.run(_cancel_identical(gateway, number)), **of)
                gc.enable()
        several = min(CALLERS, max(bench.plan.callers))
        for _ in range(bench.plan.runs):
            bench.add("callers: cold", OURS, "s", asyncio.run(_call_cold(gateway, several)), n=several)


def _batch(bench: Bench, gateway: Process, name: str, sample: int, count: int, of: dict[str, Any]) -> None:
    watch = of["way"] == AT_ONCE
    again = watch and not of["kept"] and sample == count == 1_000
    done = bench.ask(name, "batch", location=gateway.location, count=sample, way=of["way"], watch=watch, again=again)
    if done:
        of = {**of, "count": count, "note": "" if sample == count else f"from {sample}"}
        bench.add("batch", name, "s", done["seconds"] / sample * count, **of)
        if again:
            bench.add("batch: again", name, "s", done["again"], **of)
        bench.add("lost", name, "", sample - done["made"], **of)
        if watch:
            bench.add("stall", name, "ms", done["stall"] * 1e3, **of)
            bench.add("stall: worked", name, "ms", done["worked"] * 1e3, **of)


async def _stall(gateway: Process, who: str, ports: Sequence[int], callers: int = 0) -> float:
    """Return the longest stall in a batch; ``callers``: so many identical ones have called before it."""
    async with PortMapper(source_address=gateway.address) as mapper:
        gc.collect()
        if callers:
            await asyncio.gather(*(mapper.add_port_mapping(PORT, proto="TCP") for _ in range(callers)))
        async with heartbeat() as worst:
            add = mapper.add_port_mapping
            await asyncio.gather(*(add(port, proto="TCP") if who == OURS else _nothing() for port in ports))
        return worst["stall"]


async def _nothing() -> None:
    """Be awaited."""


async def _gather_nothing(callers: int) -> float:
    gc.collect()
    started = time.perf_counter()
    await asyncio.gather(*(_nothing() for _ in range(callers)))
    return time.perf_counter() - started


async def _call_cold(gateway: Process, callers: int) -> float:
    """Return the seconds that so many identical calls take from nothing, and check what the gateway saw of them."""
    gateway.ask()
    async with PortMapper(source_address=gateway.address) as mapper:
        started = time.perf_counter()
        await asyncio.gather(*(mapper.add_port_mapping(PORT, proto="TCP") for _ in range(callers)))
        took = time.perf_counter() - started
    counts = gateway.ask()
    assert (counts["GET /rootDesc.xml"], counts["AddPortMapping"]) == (1, 1), counts
    return took


async def _cancel_plain(callers: int) -> float:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    return await _cancel([asyncio.create_task(wait()) for _ in range(callers)])


async def _cancel_identical(gateway: Process, callers: int) -> float:
    """Return the seconds from cancelling so many callers, while their request is out, until all have ended."""
    async with PortMapper(location=gateway.location) as mapper:
        await mapper.get_gateway()
        gateway.ask(delay=3600.0)
        calls = [asyncio.create_task(mapper.add_port_mapping(PORT, proto="TCP")) for _ in range(callers)]
        try:
            return await _cancel(calls)
        finally:
            gateway.ask(delay=0.0)  # what the mapper sends to take the mapping back is answered


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> float:
    await asyncio.sleep(0.1)
    gc.collect()
    started = time.perf_counter()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    took = time.perf_counter() - started
    assert all(task.cancelled() for task in tasks)
    return took
