"""What hostile gateways do."""

from __future__ import annotations

from collections.abc import Iterator

from ...peers.registry import ASYNC_UPNP, MINI, OURS, UPNP_CLIENT
from ..hostile_gateway import ATTACKS
from ..record import Record
from ..tables import number, present, quantity, table


def hostile(record: Record) -> Iterator[str]:
    """Time, memory and stall for each attack."""
    attacks = [attack for attack in ATTACKS if any(record.find("hostile: time", attack=attack))]
    if not attacks:
        return
    yield "## Hostile gateways\n"
    yield (
        "Any device on a network can play the router. Each peer reads the description of one that attacks, in a new "
        "process with a time limit and 3 GiB of address space. Time, growth of memory, and where there is an event "
        "loop its longest stall. ⏱: stopped by the time limit at least once (what it held by then is what is shown). "
        "Those who reached it, or took over half of the memory, were not tried again: their figures are of one run.\n"
    )
    names = present(record, "hostile: time", (OURS, ASYNC_UPNP, MINI, UPNP_CLIENT))
    rows = []
    for attack in attacks:
        row = [attack]
        for name in names:
            seconds = record.get("hostile: time", name, attack=attack)
            memory = record.get("hostile: memory", name, attack=attack)
            stall = record.get("hostile: stall", name, attack=attack)
            if seconds is None or memory is None:
                row.append("")
                continue
            parts = [f"{'⏱ ' if 'time limit' in seconds.note else ''}{quantity(seconds.median, 's')}"]
            parts.append(f"{number(max(memory.median, 0.0))} MiB")
            if stall:
                parts.append(f"stall {quantity(stall.median / 1e3, 's')}")
            row.append(", ".join(parts))
        rows.append(row)
    yield table(("", *names), rows)
