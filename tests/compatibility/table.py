"""Serves a router with each quirk of the catalogue, and writes the table of them into the documentation.

Run it from the root of the project::

    python -m tests.compatibility.table

The table says how many requests it took to map the first port. One round of M-SEARCH, one GET and one POST are the
least, and what a router of good manners takes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aioigd.testing import quirks

from .served import USABLE, Served, serve, serve_all

PLACE = Path("docs/routers.md")
HEAD = """# Routers that are served

Each row is one way in which routers differ from the standard, as the emulated gateway of `aioigd.testing` has it by the
same name. The numbers are the requests until the first port was mapped: rounds of M-SEARCH (a round asks for each
search target once), GET, POST. Written by `python -m tests.compatibility.table`.

| what the router does | quirk | seen with | M-SEARCH | GET | POST |
|---|---|---|---|---|---|
"""


PCP_HEAD = """
## PCP and NAT-PMP

What routers do at UDP port 5351, as the emulated gateway has it with `protocols=("pcp", "nat-pmp")` and the quirk. The
library does not speak these protocols yet.

| what the router does | quirk | seen with |
|---|---|---|
"""


def pcp_rows() -> str:
    """Return the table of the quirks of PCP and NAT-PMP."""
    of_pcp = [(name, each) for name, each in quirks.CATALOGUE.items() if each.family == "pcp"]
    cells = [(each.summary.rstrip("."), f"`{name}`", each.source.replace("|", "/")) for name, each in of_pcp]
    return "".join(f"| {' | '.join(each)} |\n" for each in cells)


def row(served: Served) -> str:
    """Return a line of the table."""
    numbers = " | ".join(map(str, served.requests))
    if not served.names:
        return f"| keeps to the standard | | | {numbers} |"
    (name,) = served.names
    quirk = USABLE[name]
    source = quirk.source.replace("|", "/")
    return f"| {quirk.summary.rstrip('.')} | `{name}` | {source} | {numbers} |"


async def measure() -> list[Served]:
    """Serve all of them, and the one without quirks first."""
    return [await serve(), *await serve_all((name,) for name in USABLE)]


def main() -> int:
    """Write the table; tell which routers are not served."""
    results = asyncio.run(measure())
    PLACE.write_text(HEAD + "\n".join(map(row, results)) + "\n" + PCP_HEAD + pcp_rows(), "utf-8")
    unserved = [each for each in results if each.problem]
    for each in unserved:
        sys.stdout.write(f"NOT SERVED: {each.names[0]}: {each.problem}\n")
    least = sum(each.requests == (1, 1, 1) for each in results)
    served = len(results) - len(unserved)
    sys.stdout.write(f"{served} of {len(results)} routers are served, {least} of them with 1, 1, 1 requests\n")
    return 1 if unserved else 0


if __name__ == "__main__":
    sys.exit(main())
