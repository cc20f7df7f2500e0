"""CPU time, memory, import, and callers that want the same."""

from __future__ import annotations

from collections.abc import Iterator

from ...peers.interface import AT_ONCE, ONE_BY_ONE
from ...peers.registry import OURS
from ..callers import EMPTY, PLAIN
from ..cost import NEEDED
from ..goals import ratios
from ..record import Record
from ..tables import cell, spread, table


def costs(record: Record) -> Iterator[str]:
    """What one mapping costs."""
    names = [one.who for one in record.find("cpu", way=ONE_BY_ONE)]
    if not names:
        return
    yield "## CPU, memory, import\n"
    yield (
        "CPU time of the process for one mapping, on a gateway that answers at once; the kernel's part is in it. "
        "Python's memory (tracemalloc) at its highest point, from reading the description to one mapping, and what "
        "each further mapping adds to that point; a C library's own memory does not show in it. Import in a new "
        "interpreter, the interpreter's start excluded.\n"
    )
    order = [OURS, *sorted({*names, *(one.who for one in record.find("import"))} - {OURS})]
    rows = [
        (
            name,
            cell(record.get("cpu", name, way=ONE_BY_ONE)),
            cell(record.get("cpu", name, way=AT_ONCE)),
            cell(record.get("memory: peak", name)),
            cell(record.get("memory: each", name)),
            cell(record.get("import", name)),
        )
        for name in order
    ]
    yield table(("", "CPU, one by one", "CPU, at once", "memory", "for each more", "import"), rows)
    yield (
        f"Import of aioigd to that of {NEEDED}: {spread(ratios(record, 'import', OURS, NEEDED) or [0], 'x')}.\n"
        if record.get("import", OURS)
        else ""
    )


def callers(record: Record) -> Iterator[str]:
    """What many callers cost that want the same."""
    counts = sorted({one.of["callers"] for one in record.find("callers")})
    if not counts:
        return
    yield "## Identical callers\n"
    yield (
        "So many calls for the same mapping at once, on a known gateway: it gets one request. (Every peer sends one "
        "for each call.) Beside it gathering as many coroutines that do nothing; and cancelling all callers while the "
        "request is out, beside cancelling as many tasks that wait for a future.\n"
    )
    rows = [
        (
            f"{count:,}",
            cell(record.get("callers", OURS, callers=count)),
            cell(record.get("callers", EMPTY, callers=count)),
            cell(record.get("callers: cancelled", OURS, callers=count)),
            cell(record.get("callers: uncollected", OURS, callers=count)),
            cell(record.get("callers: cancelled", PLAIN, callers=count)),
        )
        for count in counts
    ]
    yield table(("callers", "aioigd", EMPTY, "cancelled", "without the garbage collector", f"cancelled {PLAIN}"), rows)
    for one in record.find("callers: cold"):
        yield f"With the discovery in it, {one.of['n']:,} identical calls take {cell(one)}.\n"
