"""``aioigd status``: how it stands with the router and its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeVar

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .. import (
    ConnectionStatus,
    ConnectionType,
    Device,
    FirewallStatus,
    Gateway,
    IGDError,
    LinkProperties,
    NatStatus,
    TrafficTotals,
)
from .format import address_note, amount, bits, clean, duration, host_of, name_of
from .options import Command, Settings, shared
from .output import busy, device_facts
from .runner import Exit, run

__all__ = ["Status", "status", "status_screen"]

T = TypeVar("T")

_EPILOG = """\
\b
JSON, one document; null for what the router does not tell:
  {"gateway": {as in discover}, "external_address",
   "connection": {"status", "last_error", "uptime"},
   "connection_type": {"current", "possible"},
   "nat": {"nat_enabled", "rsip_available"},
   "link": {"access_type", "upstream_max_bit_rate",
            "downstream_max_bit_rate", "link_status"},
   "traffic": {"bytes_sent", "bytes_received",
               "packets_sent", "packets_received"},
   "firewall": {"enabled", "pinholes_allowed"}}
"""


@click.command(cls=Command, epilog=_EPILOG, short_help="Show the router, its connection and its line.")
@shared
def status(settings: Settings) -> None:
    """Show the router, its connection, its line and its traffic so far."""
    run(lambda: _status(settings), settings.output)


async def _status(settings: Settings) -> Exit:
    async with settings.mapper() as mapper, busy(settings.output, "Asking the router"):
        gateway = await mapper.get_gateway()
        said = await _ask(gateway)
    settings.output.document(_facts(gateway, said))
    settings.output.show(status_screen(gateway.device, said))
    return Exit.OK


async def _ask(gateway: Gateway) -> Status:
    about_connection = asyncio.gather(
        _or_none(gateway.query_external_address()),
        _or_none(gateway.query_status()),
        _or_none(gateway.query_connection_type()),
        _or_none(gateway.query_nat_status()),
    )
    about_line = asyncio.gather(
        _or_none(gateway.query_link_properties()),
        _or_none(gateway.query_traffic()),
        _or_none(gateway.query_firewall_status()),
    )
    return Status(*await about_connection, *await about_line)


async def _or_none(question: Awaitable[T]) -> T | None:
    try:
        return await question
    except IGDError:
        return None


def _facts(gateway: Gateway, said: Status) -> dict[str, Any]:
    facts: dict[str, Any] = {"gateway": device_facts(gateway.device), "external_address": said.external_address}
    for name in ("connection", "connection_type", "nat", "link", "traffic", "firewall"):
        value = getattr(said, name)
        facts[name] = None if value is None else asdict(value)
    if said.traffic is not None:
        del facts["traffic"]["at"]  # of a clock that nobody else has
    return facts


@dataclass(frozen=True)
class Status:
    """What a gateway tells; None for what it does not."""

    external_address: IPv4Address | IPv6Address | None
    connection: ConnectionStatus | None
    connection_type: ConnectionType | None
    nat: NatStatus | None
    link: LinkProperties | None
    traffic: TrafficTotals | None
    firewall: FirewallStatus | None


def status_screen(device: Device, said: Status) -> RenderableType:
    """Return the gateway with everything that it tells."""
    title = Text(name_of(device), style="bold")
    made = clean(" ".join(part for part in (device.manufacturer, device.model_name) if part), 60)
    if made and made != name_of(device):
        title.append(f"  {made}", style="dim not bold")
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for what, text in _rows(device, said):
        table.add_row(what, text)
    return Group(title, table)


def _rows(device: Device, said: Status) -> list[tuple[str, Text]]:
    service = device.igd_service_type.rpartition("service:")[2]
    rows = [
        (
            "Router",
            Text(f"{host_of(device.igd_control_url)}, found from {device.igd_our_addr}, speaks {clean(service, 40)}"),
        ),
        ("Internet address", _address(said)),
        ("Connection", _connection(said)),
    ]
    if said.link is not None:
        link = Text(clean(said.link.access_type, 30) or "unknown kind")
        if said.link.downstream_max_bit_rate:
            link.append(f", ↓ {bits(said.link.downstream_max_bit_rate)} ↑ {bits(said.link.upstream_max_bit_rate)}")
        link.append(f", {clean(said.link.link_status.lower(), 20)}", style="" if said.link.is_up else "red")
        rows.append(("Line", link))
    if said.traffic is not None:
        rows.append(
            ("Traffic so far", Text(f"↓ {amount(said.traffic.bytes_received)}  ↑ {amount(said.traffic.bytes_sent)}"))
        )
    rows.append(("IPv6 firewall", _firewall(said)))
    return rows


def _address(said: Status) -> Text:
    if said.external_address is None:
        return Text("not told", style="yellow")
    text = Text(str(said.external_address), style="bold cyan")
    if note := address_note(said.external_address):
        text.append(f"  {note}", style="not bold yellow")
    return text


def _connection(said: Status) -> Text:
    if said.connection is None:
        return Text("not told", style="dim")
    style = "green" if said.connection.is_connected else "red"
    text = Text(clean(said.connection.status.lower(), 30), style=style)
    if said.connection.uptime:
        text.append(f" for {duration(said.connection.uptime)}", style="not bold default")
    details = []
    if said.connection_type is not None and said.connection_type.current:
        details.append(clean(said.connection_type.current, 30))
    if said.nat is not None:
        details.append("NAT" if said.nat.nat_enabled else "no NAT: nothing to map")
    if details:
        text.append(f"  ({', '.join(details)})", style="dim")
    if not said.connection.is_connected and said.connection.last_error not in ("", "ERROR_NONE"):
        text.append(f"  {clean(said.connection.last_error, 40)}", style="yellow")
    return text


def _firewall(said: Status) -> Text:
    if said.firewall is None:
        return Text("no control over it", style="dim")
    if not said.firewall.enabled:
        return Text("off")
    return Text("on, pinholes can be opened" if said.firewall.pinholes_allowed else "on, and allows no pinholes")
