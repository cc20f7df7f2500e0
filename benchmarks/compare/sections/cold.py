"""Cold starts, and networks without a gateway."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from ...peers.registry import ASYNC_UPNP, FLOOR, GODOT, MINI, MINI_LONG, OURS, UPNP_CLIENT, UPNPC
from ..goals import ratios
from ..record import Record
from ..tables import cell, number, present, table


def cold(record: Record) -> Iterator[str]:
    """How long until the first mapping."""
    names = present(record, "cold start", (OURS, FLOOR, MINI, MINI_LONG, GODOT, UPNPC, ASYNC_UPNP, UPNP_CLIENT))
    if not names:
        return
    yield "## Cold start\n"
    yield (
        "From nothing to the first mapping, in a process that runs: search, description, AddPortMapping. The emulated "
        "gateway answers at once; miniupnpd, the real one, lets a search wait and takes its time for a rule of the "
        "packet filter. Each peer searches with its own defaults. aioigd ends its search when it is certain; the "
        "others listen for a fixed time, miniupnpc for at least a second whatever it is told (in the second row for "
        "two, as its command and Godot do). upnpc is measured as a whole process, Godot by a script that times "
        "itself.\n"
    )
    rows = []
    for name in names:
        row = [name]
        for gateway in ("emulated gateway", "miniupnpd"):
            row.append(cell(record.get("cold start", name, gateway=gateway)))
            row.append(_ratio(record, "cold start", name, gateway=gateway))
        rows.append((*row, cell(record.get("nobody", name))))
    yield table(("", "emulated gateway", "to aioigd", "miniupnpd", "to aioigd", "no gateway there"), rows)
    yield "![Cold starts](_static/bench-cold.svg)\n"
    yield (
        "The last column is how long it takes to be told that there is no gateway. aioigd takes longer for it than "
        "async-upnp-client: it repeats its search, since a datagram may get lost, until `discovery_timeout` is over.\n"
        if _slower_without(record)
        else "The last column is how long it takes to be told that there is no gateway.\n"
    )


def _ratio(record: Record, figure: str, name: str, **of: object) -> str:
    values = ratios(record, figure, name, OURS, **of)
    return f"{number(median(values))}x" if values and name != OURS else ""


def _slower_without(record: Record) -> bool:
    ours, other = record.get("nobody", OURS), record.get("nobody", ASYNC_UPNP)
    return ours is not None and other is not None and ours.median > other.median
