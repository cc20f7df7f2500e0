"""Serves a router with each quirk of the catalogue, and writes the table of them into the documentation.

Run it from the root of the project::

    python -m tests.compatibility.table

The table says how many requests it took to map the first port. One round of M-SEARCH, one GET and one POST are the
least, and what a router of good manners takes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from aioigd.results import ProtocolName
from aioigd.testing import quirks

from .served import USABLE, Served, outcome_by, serve, serve_all

_DATAGRAMS: Final[tuple[ProtocolName, ...]] = ("pcp", "nat-pmp")
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

What routers do at UDP port 5351. The last columns say what becomes of a mapping of a port that is free, by one of these
protocols alone, with `protocols=("pcp", "nat-pmp")` of the emulated gateway: `mapped`, or the result of the error. What
one of them refuses the other may do, and UPnP, where the router has it.

| what the router does | quirk | seen with | by PCP | by NAT-PMP |
|---|---|---|---|---|
"""
SETTINGS_HEAD = """
Some of what real routers do needs no quirk:

| what the router does | how it is played | seen with |
|---|---|---|
"""
SETTINGS = (
    (
        "Has NAT-PMP and PCP, and no UPnP",
        '`protocols=("pcp", "nat-pmp")`',
        "AirPort, pfSense and OPNsense set-ups, many OpenWrt",
    ),
    (
        'Answers PCP by NAT-PMP\'s "unsupported version" of 8 bytes',
        '`protocols=("nat-pmp",)`, `protocols=("upnp", "nat-pmp")`',
        "AirPort, old miniupnpd, Verizon CR1000A: bitcoin#31663",
    ),
    (
        "Is told by the system that nobody listens at port 5351",
        '`protocols=("upnp",)`',
        "Huawei HG8145V5, ProtonVPN without +pmp: bitcoin#31663, gluetun#1760, #2679",
    ),
    (
        "Grants 60 s, and one port of its own choice for TCP and UDP",
        "`grants_lifetime` with `assigns_own_ports`",
        "ProtonVPN and other VPN gateways",
    ),
    (
        "Grants 120 s to a day by PCP, and by NAT-PMP whatever is asked for",
        "as it is",
        "miniupnpd: measured",
    ),
    (
        "Wants the nonce of a mapping to delete it",
        "as it is",
        "miniupnpd: tailscale#1080, #21127, #21277",
    ),
    (
        "Refuses PREFER_FAILURE with neither port nor address, as MALFORMED_OPTION",
        "as it is",
        "miniupnpd, RFC 6887 section 13.2",
    ),
    (
        "Sends errors of PCP with the request behind their header",
        "as it is",
        "miniupnpd: source, measured",
    ),
    (
        "Refuses PCP mappings with NO_RESOURCES and those of NAT-PMP with result 4 where its table is full",
        "`table_size=`",
        "RFC 6886, RFC 6887",
    ),
    (
        "Has no address yet, or its line is down: NETWORK_FAILURE",
        '`external_address=""`, `gateway.connected = False`',
        "after boot",
    ),
)
"""What is played by the arguments of the emulated gateway: what happens, how, where it was seen."""


async def pcp_rows() -> str:
    """Return the table of the quirks of PCP and NAT-PMP, and that of what needs none."""
    names = [name for name, each in quirks.CATALOGUE.items() if each.family == "pcp"]
    tasks = [outcome_by(protocol, *quirk) for quirk in ((), *((each,) for each in names)) for protocol in _DATAGRAMS]
    outcomes = iter(await asyncio.gather(*tasks))
    rows = [("keeps to the standard", "", "", next(outcomes), next(outcomes))]
    for name in names:
        quirk = quirks.CATALOGUE[name]
        cells = (quirk.summary.rstrip("."), f"`{name}`", quirk.source.replace("|", "/"))
        rows.append((*cells, next(outcomes), next(outcomes)))
    return "".join(map(_line, rows)) + SETTINGS_HEAD + "".join(map(_line, SETTINGS))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def row(served: Served) -> str:
    """Return a line of the table."""
    numbers = " | ".join(map(str, served.requests))
    if not served.names:
        return f"| keeps to the standard | | | {numbers} |"
    (name,) = served.names
    quirk = USABLE[name]
    source = quirk.source.replace("|", "/")
    return f"| {quirk.summary.rstrip('.')} | `{name}` | {source} | {numbers} |"


async def measure() -> tuple[list[Served], str]:
    """Serve all of them, and the one without quirks first; return the rows of PCP and NAT-PMP, too."""
    return [await serve(), *await serve_all((name,) for name in USABLE)], await pcp_rows()


def main() -> int:
    """Write the table; tell which routers are not served."""
    results, by_datagrams = asyncio.run(measure())
    PLACE.write_text(HEAD + "\n".join(map(row, results)) + "\n" + PCP_HEAD + by_datagrams, "utf-8")
    unserved = [each for each in results if each.problem]
    for each in unserved:
        sys.stdout.write(f"NOT SERVED: {each.names[0]}: {each.problem}\n")
    least = sum(each.requests == (1, 1, 1) for each in results)
    served = len(results) - len(unserved)
    sys.stdout.write(f"{served} of {len(results)} routers are served, {least} of them with 1, 1, 1 requests\n")
    return 1 if unserved else 0


if __name__ == "__main__":
    sys.exit(main())
