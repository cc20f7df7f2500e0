"""How cost grows, and where it is."""

from __future__ import annotations

from collections.abc import Iterator

from ...peers.registry import BARE, OURS
from ..hotpath import KERNEL
from ..record import Record
from ..tables import cell, quantity, table


def growth(record: Record) -> Iterator[str]:
    """Cost over mappings, devices and leases."""
    if not any(record.find("growth: mappings")):
        return
    yield "## How cost grows\n"
    yield "Dotted: in proportion to the number. A line that is flatter grows more slowly than that.\n"
    yield "![Growth](_static/bench-growth.svg)\n"
    rows = [
        (f"{one.of['count']:,} mappings at once", cell(one), _each(one.median, one.of["count"]))
        for one in record.find("growth: mappings", OURS)
    ]
    rows += [
        (f"gateway found among {one.of['devices']:,} devices", cell(one), "")
        for one in record.find("growth: devices", OURS)
    ]
    rows += [
        (f"{one.of['leases']:,} leases taken and released", cell(one), _each(one.median, one.of["leases"]))
        for one in record.find("growth: leases", OURS)
    ]
    yield table(("aioigd", "time", "for each"), rows)
    yield (
        "Leases are measured without a network, on a clock that jumps. Their memory (one run, as it is the same each "
        "time) and the timers that are pending at once:\n"
    )
    rows = [
        (
            f"{one.of['leases']:,}",
            cell(one),
            cell(record.get("growth: leases, timers", OURS, leases=one.of["leases"])),
        )
        for one in record.find("growth: leases, memory", OURS)
    ]
    yield table(("leases", "memory for each", "timers"), rows)


def profile(record: Record) -> Iterator[str]:
    """Where the microseconds of one mapping go."""
    ours, bare = record.get("profile: all", OURS), record.get("profile: all", BARE)
    if ours is None or bare is None:
        return
    yield "## Where the microseconds go\n"
    kernel = [record.get("profile: area", name, area=KERNEL) for name in (OURS, BARE)]
    yield (
        f"One mapping after another on a gateway that answers at once takes {cell(ours)} of CPU time, a post of bare "
        f"aiohttp {cell(bare)}, the profiler's own work included. The stack was looked at with each tick of the CPU "
        f"clock; what a function does in C counts as its own. Of all of it the kernel has "
        f"{cell(kernel[0])} and {cell(kernel[1])}: making, binding, connecting and closing a socket, which a "
        f"connection for each request costs anybody; it is part of asyncio's share, because asyncio calls it.\n"
    )
    areas = [one.of["area"] for one in record.find("profile: area", OURS) if one.of["area"] != KERNEL]
    rows = [
        (
            area,
            cell(record.get("profile: area", OURS, area=area)),
            cell(record.get("profile: area", BARE, area=area)),
        )
        for area in areas
    ]
    yield table(("", OURS, BARE), rows)
    yield "![Where the microseconds go](_static/bench-hot-path.svg)\n"
    yield "The functions with most time of their own:\n"
    slow = record.find("profile: function", OURS)
    yield table(("aioigd, for one mapping", ""), [(f"`{one.of['function']}`", cell(one)) for one in slow])
    yield "And what the library's own pure steps take, each called by itself:\n"
    yield table(("step", ""), [(str(one.of["step"]), cell(one)) for one in record.find("profile: step", OURS)])


def _each(seconds: float, count: int) -> str:
    return quantity(seconds / count * 1e6, "us")
