"""How cost grows: with the mappings of a batch, with the devices on the network, with the leases that are held."""

from __future__ import annotations

import asyncio
import time

from aioigd import PortMapper
from tests.leases.virtual import run

from ..bench import Bench
from ..gateway_server import gateway_process
from ..leases import month
from ..peers import AT_ONCE, BARE, OURS
from ..process import Process

_MOST_TRACED = 20_000
_SHORT_LIFE = 0.01
"""Days: the leases are measured when they have been made, not as they grow old."""


def mappings(bench: Bench) -> None:
    """Map ever more at once, on a gateway that answers at once."""
    with bench.gateway() as gateway:
        for name in bench.turns(OURS, BARE):
            for count in bench.plan.growth:
                done = bench.ask(name, "batch", location=gateway.location, count=count, way=AT_ONCE, watch=True)
                if done and done["made"] == count:
                    bench.add("growth: mappings", name, "s", done["seconds"], count=count)
                    bench.add("growth: mappings, stall", name, "ms", done["stall"] * 1e3, count=count)


def devices(bench: Bench) -> None:
    """Look for the one gateway among ever more devices."""
    for count in bench.plan.devices:
        with gateway_process("--devices", count) as gateway:
            for _ in range(bench.plan.runs):
                seconds, cpu = asyncio.run(_find(gateway))
                bench.add("growth: devices", OURS, "ms", seconds * 1e3, devices=count)
                bench.add("growth: devices, cpu", OURS, "ms", cpu * 1e3, devices=count)


def leases(bench: Bench) -> None:
    """Hold ever more leases, in virtual time; with tracemalloc for the memory, without it for the time.

    Memory is the same each time and takes minutes to trace, so it is looked at once, and not for the most.
    """
    for count in bench.plan.leases:
        if count <= _MOST_TRACED:
            traced = run(month(count, _SHORT_LIFE, measure_memory=True), debug=False)
            bench.add("growth: leases, memory", OURS, "B", traced.bytes_per_lease, leases=count)
        for _ in range(bench.plan.runs):
            figures = run(month(count, _SHORT_LIFE), debug=False)
            bench.add("growth: leases", OURS, "s", figures.seconds, leases=count)
            bench.add("growth: leases, timers", OURS, "", figures.most_timers, leases=count)


async def _find(gateway: Process) -> tuple[float, float]:
    async with PortMapper(source_address=gateway.address) as mapper:
        started, cpu = time.perf_counter(), time.process_time()
        found = await mapper.get_gateway()
        took = time.perf_counter() - started, time.process_time() - cpu
    assert found
    return took
