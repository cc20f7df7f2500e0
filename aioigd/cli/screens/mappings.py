"""The table of mappings."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from ...models import PortMapping
from ..format import clean, endpoint, lease

__all__ = ["mapping_table", "summary"]


def mapping_table(mappings: Sequence[PortMapping], our_address: str) -> Table:
    """Return the mappings by their external ports; those that lead to ``our_address`` stand out."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", collapse_padding=True)
    table.add_column("Port", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("Leads to", no_wrap=True)
    table.add_column("Time left", justify="right", no_wrap=True)
    table.add_column("Description", overflow="ellipsis", no_wrap=True)
    remote = any(each.remote_host for each in mappings)
    if remote:
        table.add_column("Only for", no_wrap=True)
    for each in sorted(mappings, key=lambda each: (each.external_port, each.proto)):
        ours = each.internal_client == our_address
        style = "" if each.enabled else "dim strike"
        row = [
            Text(str(each.external_port), style=f"{style} bold cyan" if ours else style),
            Text(each.proto, style=style),
            Text(endpoint(clean(each.internal_client, 45), each.internal_port), style=style),
            Text(lease(each.duration), style=f"{style} dim" if not each.duration else style),
            Text(clean(each.desc, 48), style=style),
        ]
        if ours:
            row[2].append("  here", style="green")
        if not each.enabled:
            row[4].append(" (off)", style="yellow")
        table.add_row(*row, *([Text(clean(each.remote_host, 45))] if remote else []))
    return table


def summary(count: int, gateway: str, *, mine: bool) -> Text:
    """Return how many there are."""
    to = " to this machine" if mine else ""
    what = "1 port" if count == 1 else f"{count} ports" if count else "no port"
    return Text.assemble((gateway, "bold"), f" forwards {what}{to}.")
