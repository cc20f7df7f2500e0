"""Batches: how long, what gets lost, and how long the loop stalls."""

from __future__ import annotations

from collections.abc import Iterator

from ...peers.interface import AT_ONCE
from ...peers.registry import OURS
from ..record import Record
from ..tables import cell, quantity, table


def batches(record: Record) -> Iterator[str]:
    """How long batches take."""
    delays = sorted({one.of["delay"] for one in record.find("batch", kept=False)})
    if not delays:
        return
    yield "## Batches\n"
    yield (
        "1,000 different mappings, one after another and at once. At once is a `gather` for aioigd and "
        "async-upnp-client, 128 threads for miniupnpc and upnpclient, eight tasks for bare aiohttp. What would take "
        "minutes is extrapolated from a sample (one after another always; at 100 ms also at once; JSON has the sizes). "
        "Godot deletes before it adds, and upnpc asks twice more, so these two make more requests for a mapping. "
        "The gateway's only cost is its delay, and it stands any number of connections, as no router does: see "
        "below for one that does not.\n"
    )
    for kept, title in ((False, "gateway closes each connection"), (True, "gateway keeps connections open")):
        shown = [delay for delay in delays if any(record.find("batch", kept=kept, delay=delay))]
        if not shown:
            continue
        rows = []
        for name, way in _ways(record, kept=kept):
            of = {"way": way, "kept": kept, "count": _most(record) if way == AT_ONCE else 1_000}
            cells = [cell(record.get("batch", name, delay=delay, **of)) for delay in shown]
            rows.append((f"{name}, {way}", *cells))
        yield table((title, *(f"{delay * 1000:g} ms" for delay in shown)), rows)
    yield (
        "aioigd opens a connection for each request on purpose: many routers close theirs whatever they say, and a "
        "request on a connection that just ends is lost. What that costs is the difference to bare aiohttp with "
        "connections kept.\n"
    )
    yield "![Time for 1,000 mappings](_static/bench-batches.svg)\n"
    counts = sorted({one.of["count"] for one in record.find("batch", way=AT_ONCE)})
    of = {"delay": 0.02, "way": AT_ONCE, "kept": False}
    names = [name for name, way in _ways(record, kept=False) if way == AT_ONCE]
    rows = [(name, *(cell(record.get("batch", name, count=count, **of)) for count in counts)) for name in names]
    yield table(("at once, 20 ms", *(f"{count:,}" for count in counts)), rows)


def crowded(record: Record) -> Iterator[str]:
    """What gets lost where one connection is served at a time."""
    series = list(record.find("crowded: lost"))
    if not series:
        return
    yield "## One connection at a time\n"
    of = series[0].of
    yield (
        f"{of['count']:,} mappings at once on a gateway that takes {of['delay'] * 1000:g} ms for each, serves one "
        "connection at a time and resets those that come meanwhile, as some routers do. A mapping is lost when the "
        "caller gets an error. Who loses nearly all of them is done early.\n"
    )
    rows = [
        (
            one.who,
            cell(one),
            cell(record.get("crowded: resets", one.who)),
            cell(record.get("crowded: time", one.who)),
        )
        for one in sorted(series, key=lambda one: (one.who != OURS, one.median))
    ]
    yield table(("", "mappings lost", "connections reset", "time"), rows)
    yield "![Mappings lost](_static/bench-lost.svg)\n"


def stalls(record: Record) -> Iterator[str]:
    """How long the event loop stalls."""
    delays = sorted({one.of["delay"] for one in record.find("stall", kept=False)})
    if not delays:
        return
    yield "## Stalls of the event loop\n"
    yield (
        f"The longest time in which the event loop got to nothing else while {_most(record):,} mappings were made at "
        "once, by a timer of one millisecond. With miniupnpc and upnpclient the loop stands beside 128 threads. In "
        "italics the longest that the loop's own thread computed without a pause, which other programs cannot "
        "lengthen.\n"
    )
    rows = []
    for name in [name for name, way in _ways(record, kept=False) if way == AT_ONCE]:
        cells = []
        for delay in delays:
            of = {"way": AT_ONCE, "kept": False, "delay": delay, "count": _most(record)}
            wall, worked = record.get("stall", name, **of), record.get("stall: worked", name, **of)
            cells.append(f"{cell(wall)}, *{quantity(worked.median, 'ms')}*" if worked else cell(wall))
        rows.append((name, *cells))
    yield table(("", *(f"{delay * 1000:g} ms" for delay in delays)), rows)


def _ways(record: Record, *, kept: bool) -> list[tuple[str, str]]:
    """Return who mapped batches, and how: first ours."""
    found = {(one.who, one.of["way"]): None for one in record.find("batch", kept=kept)}
    return sorted(found, key=lambda one: (one[1] != AT_ONCE, one[0] != OURS, one[0]))


def _most(record: Record) -> int:
    return max(int(one.of["count"]) for one in record.find("batch", way=AT_ONCE))
