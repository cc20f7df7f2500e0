"""``aioigd status``: the router, its connection and its line. Options, queries, rows, JSON."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

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
    LinkProperties,
    NatStatus,
    TrafficTotals,
)
from .format import address_text, bit_rate, byte_count, clean, connection_text, device_name, host_of
from .options import Command, Settings, common_options
from .output import busy, device_json
from .runner import Exit, result_or_none, run

__all__ = ["status"]

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


@dataclass(frozen=True)
class _Status:
    """The answers of a gateway, None for those that it did not give."""

    external_address: IPv4Address | IPv6Address | None
    connection: ConnectionStatus | None
    connection_type: ConnectionType | None
    nat: NatStatus | None
    link: LinkProperties | None
    traffic: TrafficTotals | None
    firewall: FirewallStatus | None


@click.command(cls=Command, epilog=_EPILOG, short_help="Show the router, its connection and its line.")
@common_options
def status(settings: Settings) -> None:
    """Show the router, its connection, its line and its traffic so far."""
    run(lambda: _show_status(settings), settings.output)


async def _show_status(settings: Settings) -> Exit:
    async with settings.mapper() as mapper, busy(settings.output, "Asking the router"):
        gateway = await mapper.get_gateway()
        answers = await _query(gateway)
    settings.output.json_document(_status_json(gateway.device, answers))
    settings.output.show(_status_view(gateway.device, answers))
    return Exit.OK


async def _query(gateway: Gateway) -> _Status:
    connection = asyncio.gather(
        result_or_none(gateway.query_external_address()),
        result_or_none(gateway.query_status()),
        result_or_none(gateway.query_connection_type()),
        result_or_none(gateway.query_nat_status()),
    )
    line = asyncio.gather(
        result_or_none(gateway.query_link_properties()),
        result_or_none(gateway.query_traffic()),
        result_or_none(gateway.query_firewall_status()),
    )
    return _Status(*await connection, *await line)


def _status_json(device: Device, answers: _Status) -> dict[str, Any]:
    content: dict[str, Any] = {"gateway": device_json(device), "external_address": answers.external_address}
    for name in ("connection", "connection_type", "nat", "link", "traffic", "firewall"):
        value = getattr(answers, name)
        content[name] = None if value is None else asdict(value)
    if answers.traffic is not None:
        del content["traffic"]["at"]  # the clock of the event loop, which means nothing to others
    return content


def _status_view(device: Device, answers: _Status) -> RenderableType:
    title = Text(device_name(device), style="bold")
    model = clean(" ".join(part for part in (device.manufacturer, device.model_name) if part), 60)
    if model and model != device_name(device):
        title.append(f"  {model}", style="dim not bold")
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(device, answers):
        table.add_row(name, value)
    return Group(title, table)


def _rows(device: Device, answers: _Status) -> list[tuple[str, Text]]:
    service = device.igd_service_type.rpartition("service:")[2]
    rows = [
        (
            "Router",
            Text(f"{host_of(device.igd_control_url)}, found from {device.igd_our_addr}, speaks {clean(service, 40)}"),
        ),
        ("Internet address", address_text(answers.external_address)),
        ("Connection", _connection(answers)),
    ]
    if answers.link is not None:
        link = Text(clean(answers.link.access_type, 30) or "unknown kind")
        if answers.link.downstream_max_bit_rate:
            down, up = answers.link.downstream_max_bit_rate, answers.link.upstream_max_bit_rate
            link.append(f", ↓ {bit_rate(down)} ↑ {bit_rate(up)}")
        link.append(f", {clean(answers.link.link_status.lower(), 20)}", style="" if answers.link.is_up else "red")
        rows.append(("Line", link))
    if answers.traffic is not None:
        received, sent = answers.traffic.bytes_received, answers.traffic.bytes_sent
        rows.append(("Traffic so far", Text(f"↓ {byte_count(received)}  ↑ {byte_count(sent)}")))
    rows.append(("IPv6 firewall", _firewall(answers)))
    return rows


def _connection(answers: _Status) -> Text:
    connection = answers.connection
    if connection is None:
        return Text("not told", style="dim")
    text = connection_text(connection)
    details = []
    if answers.connection_type is not None and answers.connection_type.current:
        details.append(clean(answers.connection_type.current, 30))
    if answers.nat is not None:
        details.append("NAT" if answers.nat.nat_enabled else "no NAT: nothing to map")
    if details:
        text.append(f"  ({', '.join(details)})", style="dim")
    if not connection.is_connected and connection.last_error not in ("", "ERROR_NONE"):
        text.append(f"  {clean(connection.last_error, 40)}", style="yellow")
    return text


def _firewall(answers: _Status) -> Text:
    if answers.firewall is None:
        return Text("no control over it", style="dim")
    if not answers.firewall.enabled:
        return Text("off")
    return Text("on, pinholes can be opened" if answers.firewall.pinholes_allowed else "on, and allows no pinholes")
