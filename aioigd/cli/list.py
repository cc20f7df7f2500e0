"""``aioigd list``: the table of port mappings. Options, query, columns, JSON."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.table import Table
from rich.text import Text

from .. import IGDError, PortMapping
from .format import clean, device_name, endpoint, error_text, lease_time
from .options import Command, Settings, common_options
from .output import busy, device_json, error_json, mapping_json, new_table
from .runner import Exit, run

__all__ = ["list_mappings"]

_EPILOG = """\
\b
JSON, one document:
  {"gateway": {as in discover},
   "mappings": [{"proto", "external_port", "internal_client", "internal_port",
                 "remote_host", "desc", "enabled",
                 "duration" (seconds left, 0: no limit)}],
   "error": null, or {"message", "result", "error_code"} if it broke off}
"""


@click.command("list", cls=Command, epilog=_EPILOG)
@click.option("-m", "--mine", is_flag=True, help="Only ports that lead to this machine.")
@common_options
def list_mappings(settings: Settings, mine: bool) -> None:
    """List the ports that the router forwards, and to whom.

    Some routers show a host its own ports only, and some show none.
    """
    run(lambda: _list(settings, mine=mine), settings.output)


async def _list(settings: Settings, *, mine: bool) -> Exit:
    output = settings.output
    mappings: list[PortMapping] = []
    failure: IGDError | None = None
    async with settings.mapper() as mapper, busy(output, "Reading the router's table"):
        gateway = await mapper.get_gateway()
        try:
            async for mapping in gateway.query_port_mappings():
                if not mine or mapping.leads_to(gateway.device.igd_our_addr, 0):
                    mappings.append(mapping)
        except IGDError as error:
            if not mappings:
                raise
            failure = error
    output.json_document(
        {
            "gateway": device_json(gateway.device),
            "mappings": [mapping_json(each) for each in mappings],
            "error": None if failure is None else error_json(failure),
        }
    )
    if mappings:
        output.show(_mapping_table(mappings, gateway.device.igd_our_addr))
    output.show(_summary(len(mappings), device_name(gateway.device), mine=mine))
    if failure is not None:
        output.warn(f"The list broke off: {error_text(failure)}")
        return Exit.FAILED
    return Exit.OK


def _mapping_table(mappings: Sequence[PortMapping], our_address: str) -> Table:
    """Return the mappings by their external ports; those to ``our_address`` are highlighted."""
    table = new_table()
    table.add_column("Port", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("Leads to", no_wrap=True)
    table.add_column("Time left", justify="right", no_wrap=True)
    table.add_column("Description", overflow="ellipsis", no_wrap=True)
    has_remote_hosts = any(each.key.normalised().remote_host for each in mappings)
    if has_remote_hosts:
        table.add_column("Only for", no_wrap=True)
    for each in sorted(mappings, key=lambda each: (each.external_port, each.proto)):
        is_ours = each.leads_to(our_address, 0)
        style = "" if each.enabled else "dim strike"
        row = [
            Text(str(each.external_port), style=f"{style} bold cyan" if is_ours else style),
            Text(each.proto, style=style),
            Text(endpoint(clean(each.internal_client, 45), each.internal_port), style=style),
            Text(lease_time(each.duration), style=f"{style} dim" if not each.duration else style),
            Text(clean(each.desc, 48), style=style),
        ]
        if is_ours:
            row[2].append("  here", style="green")
        if not each.enabled:
            row[4].append(" (off)", style="yellow")
        if has_remote_hosts:
            row.append(Text(clean(each.remote_host, 45)))
        table.add_row(*row)
    return table


def _summary(count: int, gateway: str, *, mine: bool) -> Text:
    """Return the line below the table."""
    to = " to this machine" if mine else ""
    what = "1 port" if count == 1 else f"{count} ports" if count else "no port"
    return Text.assemble((gateway, "bold"), f" forwards {what}{to}.")
