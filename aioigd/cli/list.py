"""``aioigd list``: the table of port mappings. Options, query, columns, JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final

import click
from rich.text import Text

from .. import Gateway, IGDError, PortMapping, UnsupportedError
from ..text import printable
from .format import PROTOCOL_NAMES, device_name, endpoint, error_text, host_of, lease_time
from .options import Command, Settings, common_options
from .output import Column, Listing, busy, device_json, error_json, mapping_json
from .runner import Exit, run

__all__ = ["list_mappings"]

_SEARCH_TIME: Final = 2.0
"""Seconds in which a router that is spoken to by another protocol has to answer by UPnP."""
_LEAST_DESCRIPTION: Final = 16
"""Columns that a description keeps on a narrow terminal, before the list changes its layout."""
_LEAST_BESIDE_HOSTS: Final = 8
"""The same, where there is a column for remote hosts."""

_EPILOG = """\
\b
JSON, one document:
  {"gateway": {as in discover},
   "mappings": [{"proto", "external_port", "internal_client", "internal_port",
                 "remote_host", "desc", "enabled", "protocol",
                 "duration" (seconds left, 0: no limit)}],
   "error": null, or {"message", "result", "error_code", "protocol"} if it
            broke off}
"""


@click.command("list", cls=Command, epilog=_EPILOG)
@click.option("-m", "--mine", is_flag=True, help="Only ports that lead to this machine.")
@common_options
def list_mappings(settings: Settings, mine: bool) -> None:
    """List the ports that the router forwards, and to whom.

    Some routers show a host its own ports only, and some show none. PCP and NAT-PMP have no such list: it is asked for
    by UPnP, where the router speaks that.
    """
    run(lambda: _list(settings, mine=mine), settings.output)


async def _list(settings: Settings, *, mine: bool) -> Exit:
    output = settings.output
    limit = settings.limit
    mappings: list[PortMapping] = []
    failure: IGDError | None = None
    async with busy(output, "Reading the router's table"), _gateway_with_a_table(settings) as gateway:
        try:
            async with limit.step():
                async for mapping in gateway.query_port_mappings():
                    if not mine or mapping.leads_to(gateway.device.igd_our_addr, 0):
                        mappings.append(mapping)
        except IGDError as error:
            if not mappings:
                raise
            failure = error
        if limit.is_over:
            failure = limit.error
    output.json_document(
        {
            "gateway": device_json(gateway.device),
            "mappings": [mapping_json(each) for each in mappings],
            "error": None if failure is None else error_json(failure),
        }
    )
    if mappings:
        output.show(_mapping_table(mappings, gateway.device.igd_our_addr))
    if failure is None:
        output.show(_summary(len(mappings), device_name(gateway.device), mine=mine))
        return Exit.OK
    output.show(_summary(len(mappings), device_name(gateway.device), mine=mine, at_least=True))
    output.warn(f"The list broke off: {error_text(failure)}")
    return Exit.TIME_IS_UP if limit.is_over else Exit.FAILED


@asynccontextmanager
async def _gateway_with_a_table(settings: Settings) -> AsyncIterator[Gateway]:
    """Find the gateway; where another protocol is used, ask the same router by UPnP."""
    async with settings.mapper() as mapper:
        async with settings.limit.whole_step():
            gateway = await mapper.get_gateway()
        if gateway.protocol == "upnp":
            yield gateway
            return
    name, host = PROTOCOL_NAMES[gateway.protocol], host_of(gateway.device)
    if "upnp" not in settings.protocols:
        raise UnsupportedError(f"{name} has no table of mappings; by UPnP the router may: `aioigd list --via upnp`")
    by_upnp = replace(settings, protocols=("upnp",))
    async with by_upnp.mapper() as mapper:
        async with settings.limit.whole_step(), aclosing(mapper.iter_devices(_SEARCH_TIME, host=host)) as found:
            mapper.devices = [device async for device in found if device.is_valid_gateway()]
        if not mapper.devices:
            raise UnsupportedError(f"the router at {host} speaks {name} and no UPnP: nobody can list its mappings")
        yield await mapper.get_gateway()


def _mapping_table(mappings: Sequence[PortMapping], our_address: str) -> Listing:
    """Return the mappings by their external ports; those to ``our_address`` are highlighted."""
    has_remote_hosts = any(each.key.normalised().remote_host for each in mappings)
    table = Listing(
        Column("Port", is_head=True, is_right=True),
        Column(is_head=True),
        Column("Leads to", is_head=True),
        Column("Time left", is_right=True),
        Column("Description", least=_LEAST_BESIDE_HOSTS if has_remote_hosts else _LEAST_DESCRIPTION),
        *([Column("Only for", label="only for ")] if has_remote_hosts else []),
    )
    for each in sorted(mappings, key=lambda each: (each.external_port, each.proto)):
        table.add_row(*_row(each, our_address, len(table.columns)))
    return table


def _row(mapping: PortMapping, our_address: str, columns: int) -> tuple[Text, ...]:
    is_ours = mapping.leads_to(our_address, 0)
    style = "" if mapping.enabled else "dim strike"
    desc = Text("(off) " if not mapping.enabled else "", style="yellow")
    row = (
        Text(str(mapping.external_port), style=f"{style} bold cyan" if is_ours else style),
        Text(mapping.proto, style=style),
        Text(endpoint(mapping.internal_client, mapping.internal_port), style=style),
        Text(lease_time(mapping.duration), style=f"{style} dim" if not mapping.duration else style),
        desc.append(printable(mapping.desc, 48), style=style),
        Text(printable(mapping.remote_host, 45)),
    )
    if is_ours:
        row[2].append("  here", style="green")
    return row[:columns]


def _summary(count: int, gateway: str, *, mine: bool, at_least: bool = False) -> Text:
    """Return the line below the table."""
    to = " to this machine" if mine else ""
    what = "1 port" if count == 1 else f"{count} ports" if count else "no port"
    return Text.assemble((gateway, "bold"), f" forwards {'at least ' if at_least and count else ''}{what}{to}.")
