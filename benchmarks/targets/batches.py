"""Batches of mappings on gateways that are slow, that keep connections open, or that serve one at a time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Sequence
from typing import Any

from aioigd import PortMapper

from ..bench import Bench
from ..gateway_server import GatewayProcess, gateway_process
from ..peers import BARE_KEEP_ALIVE, FLOOR, GODOT, MINI_LONG, OURS, UPNPC
from ..peers.base import AT_ONCE, ONE_BY_ONE, PORTS, Heartbeat
from .callers import EMPTY, nothing

CROWDED_DELAY = 0.005
COLD_DELAY = 0.02


def closed(bench: Bench) -> None:
    """Map at once and one after another, for each delay of the gateway."""
    for delay in bench.plan.delays:
        _delay(bench, delay, kept=False)


def kept(bench: Bench) -> None:
    """Map at once on a gateway that keeps connections open."""
    for delay in bench.plan.kept_delays:
        _delay(bench, delay, kept=True)


def one_at_a_time(bench: Bench) -> None:
    """Map at once on a gateway that resets each connection that comes while another is open."""
    count = bench.plan.crowded
    of: dict[str, Any] = {"count": count, "delay": CROWDED_DELAY}
    with bench.gateway("--one-at-a-time", "--delay", str(CROWDED_DELAY)) as gateway:
        for name in bench.turns([name for name in _batching(bench, kept=False) if name not in (GODOT, UPNPC)]):
            gateway.counts()
            done = bench.ask(name, "batch", location=gateway.location, count=count, way=AT_ONCE, watch=False)
            if not done:
                continue
            bench.record.add("crowded: lost", name, "", count - done["made"], **of)
            bench.record.add("crowded: resets", name, "", gateway.counts().get("resets", 0), **of)
            bench.record.add("crowded: time", name, "s", done["seconds"], **of)


def stalls(bench: Bench) -> None:
    """Watch the loop during a batch with the discovery in it, and while as many empty coroutines are gathered."""
    ports = PORTS[: max(bench.plan.counts)]
    with gateway_process("--delay", str(COLD_DELAY)) as gateway:
        for _ in range(bench.plan.runs):
            for who, longest in (
                (OURS, asyncio.run(_map_cold(gateway, ports))),
                (EMPTY, asyncio.run(_watched([nothing() for _ in ports]))),
            ):
                bench.record.add("stall: cold", who, "ms", longest * 1e3, count=len(ports))


def _delay(bench: Bench, delay: float, *, kept: bool) -> None:
    # A gateway for each, at a port of its own: who closes a connection cannot use its pair of ports for a minute, and
    # after tens of thousands there is none left.
    with bench.gateway("--delay", str(delay), *(["--keep-alive"] if kept else [])) as gateway:
        for name in bench.turns(_batching(bench, kept=kept)):
            if not kept:
                _sequence(bench, gateway, name, delay)
            if name not in (GODOT, UPNPC):
                for count in bench.plan.counts:
                    _together(bench, gateway, name, count, delay, kept=kept)
    bench.say(f"  {delay * 1000:g} ms, {'kept' if kept else 'closed'} connections")


def _batching(bench: Bench, *, kept: bool) -> list[str]:
    left_out = (MINI_LONG, FLOOR) if kept else (MINI_LONG, FLOOR, BARE_KEEP_ALIVE)
    return [name for name in bench.names if name not in left_out]


def _sequence(bench: Bench, gateway: GatewayProcess, name: str, delay: float) -> None:
    # These two make several requests for each mapping.
    sample = bench.plan.samples[delay] // (2 if name in (GODOT, UPNPC) else 1)
    done = bench.ask(name, "batch", location=gateway.location, count=sample, way=ONE_BY_ONE, watch=False)
    if not done:
        return
    of: dict[str, Any] = {"way": ONE_BY_ONE, "delay": delay, "kept": False, "count": 1_000}
    bench.record.add("batch", name, "s", done["seconds"] / sample * 1_000, note=f"from {sample}", **of)
    bench.record.add("lost", name, "", sample - done["made"], note=f"of {sample}", **of)


def _together(bench: Bench, gateway: GatewayProcess, name: str, count: int, delay: float, *, kept: bool) -> None:
    sample = min(count, bench.plan.most_at.get(delay, count))
    done = bench.ask(name, "batch", location=gateway.location, count=sample, way=AT_ONCE, watch=True)
    if not done:
        return
    of: dict[str, Any] = {"way": AT_ONCE, "delay": delay, "kept": kept, "count": count}
    note = "" if sample == count else f"from {sample}"
    bench.record.add("batch", name, "s", done["seconds"] / sample * count, note=note, **of)
    bench.record.add("lost", name, "", sample - done["made"], **of)
    bench.record.add("stall", name, "ms", done["stall"] * 1e3, **of)
    bench.record.add("stall: worked", name, "ms", done["worked"] * 1e3, **of)


async def _map_cold(gateway: GatewayProcess, ports: Sequence[int]) -> float:
    async with PortMapper(source_address=gateway.address) as mapper:
        return await _watched([mapper.add_port_mapping(port, desc="benchmark", proto="TCP") for port in ports])


async def _watched(work: Sequence[Awaitable[object]]) -> float:
    """Return the longest stall (seconds) while all of it is awaited."""
    gc.collect()
    async with Heartbeat() as heartbeat:
        await asyncio.gather(*work)
    return heartbeat.longest
