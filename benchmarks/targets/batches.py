"""Batches of mappings on gateways that are slow, that keep connections open, or that serve one at a time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Sequence
from contextlib import ExitStack
from typing import Any, Final

from aioigd import PortMapper
from aioigd.testing import quirks

from ..bench import Bench
from ..gateway_server import emulated_process, gateway_process
from ..peers import AT_ONCE, BARE_KEEP_ALIVE, FLOOR, GODOT, MINI_LONG, ONE_BY_ONE, OURS, PORTS, UPNPC, heartbeat
from ..process import Process
from .callers import EMPTY, nothing

CROWDED_DELAY: Final = 0.005
COLD_DELAY: Final = 0.02
MOST: Final = {0.1: 240}
NOT_AT_ONCE: Final = (GODOT, UPNPC)
"""These two also make several requests for each mapping."""


def closed(bench: Bench) -> None:
    """Map at once and one after another, for each delay of the gateway."""
    for delay in bench.plan.delays:
        _delay(bench, delay, kept=False)


def kept(bench: Bench) -> None:
    """Map at once on a gateway that keeps connections open."""
    for delay in bench.plan.kept_delays:
        _delay(bench, delay, kept=True)


def one_at_a_time(bench: Bench) -> None:
    """Map at once on an emulated gateway that resets each connection that comes while another is open."""
    count, resets = bench.plan.crowded, 0
    of: dict[str, Any] = {"count": count, "delay": CROWDED_DELAY}
    with ExitStack() as stack:
        with bench.inside("lan"):
            slow = emulated_process(quirks.one_connection_or_reset, quirks.slow(CROWDED_DELAY))
            gateway = stack.enter_context(slow)
        for name in bench.turns(without=(MINI_LONG, FLOOR, BARE_KEEP_ALIVE, *NOT_AT_ONCE)):
            done = bench.ask(name, "batch", location=gateway.location, count=count, way=AT_ONCE)
            before, resets = resets, gateway.ask()["resets"]
            # Who does not even get the description has lost everything.
            bench.add("crowded: lost", name, "", count - done["made"] if done else count, **of)
            bench.add("crowded: resets", name, "", resets - before, **of)
            if done:
                bench.add("crowded: time", name, "s", done["seconds"], **of)


def stalls(bench: Bench) -> None:
    """Watch the loop during a batch with the discovery in it, and while as many empty coroutines are gathered."""
    ports = PORTS[: max(bench.plan.counts)]
    with gateway_process("--delay", COLD_DELAY) as gateway:
        for _ in range(bench.plan.runs):
            cold, empty = asyncio.run(_map_cold(gateway, ports)), asyncio.run(_watched([nothing() for _ in ports]))
            bench.add("stall: cold", OURS, "ms", cold * 1e3, count=len(ports))
            bench.add("stall: cold", EMPTY, "ms", empty * 1e3, count=len(ports))


def _delay(bench: Bench, delay: float, *, kept: bool) -> None:
    # A gateway for each, at a port of its own: who closes a connection cannot use its pair of ports for a minute, and
    # after tens of thousands there is none left.
    with bench.gateway("--delay", delay, *(["--keep-alive"] if kept else [])) as gateway:
        for name in bench.turns(without=(MINI_LONG, FLOOR, *(() if kept else (BARE_KEEP_ALIVE,)))):
            if not kept:
                sample = bench.plan.delays[delay] // (2 if name in NOT_AT_ONCE else 1)
                _batch(bench, gateway, name, sample, 1_000, {"way": ONE_BY_ONE, "delay": delay, "kept": False})
            for count in bench.plan.counts if name not in NOT_AT_ONCE else ():
                sample = min(count, MOST.get(delay, count))
                _batch(bench, gateway, name, sample, count, {"way": AT_ONCE, "delay": delay, "kept": kept})
    bench.say(f"  {delay * 1000:g} ms, {'kept' if kept else 'closed'} connections")


def _batch(bench: Bench, gateway: Process, name: str, sample: int, count: int, of: dict[str, Any]) -> None:
    watch = of["way"] == AT_ONCE
    done = bench.ask(name, "batch", location=gateway.location, count=sample, way=of["way"], watch=watch)
    if done:
        note = "" if sample == count else f"from {sample}"
        bench.add("batch", name, "s", done["seconds"] / sample * count, note=note, count=count, **of)
        bench.add("lost", name, "", sample - done["made"], note=note, count=count, **of)
        if watch:
            bench.add("stall", name, "ms", done["stall"] * 1e3, count=count, **of)
            bench.add("stall: worked", name, "ms", done["worked"] * 1e3, count=count, **of)


async def _map_cold(gateway: Process, ports: Sequence[int]) -> float:
    async with PortMapper(source_address=gateway.address) as mapper:
        return await _watched([mapper.add_port_mapping(port, desc="benchmark", proto="TCP") for port in ports])


async def _watched(work: Sequence[Awaitable[object]]) -> float:
    """Return the longest stall (seconds) while all of it is awaited."""
    gc.collect()
    async with heartbeat() as worst:
        await asyncio.gather(*work)
    return worst["stall"]
