"""``aioigd status``: the router, its connection and its line. Options, queries, rows, JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

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
    ProtocolName,
    TrafficTotals,
)
from ..text import printable
from .format import (
    PROTOCOL_NAMES,
    address_text,
    bit_rate,
    byte_count,
    connection_text,
    device_name,
    host_of,
    joined,
    same_address,
)
from .options import Command, Settings, common_options
from .output import busy, device_json
from .runner import Exit, result_or_none, run

__all__ = ["status"]

_EPILOG = """\
\b
JSON, one document; null for what the router does not tell:
  {"gateway": {as in discover}, "external_address",
   "protocols": those that the router speaks, the one that is used first,
   "connection": {"status", "last_error", "uptime"},
   "connection_type": {"current", "possible"},
   "nat": {"nat_enabled", "rsip_available"},
   "link": {"access_type", "upstream_max_bit_rate",
            "downstream_max_bit_rate", "link_status"},
   "traffic": {"bytes_sent", "bytes_received",
               "packets_sent", "packets_received"},
   "firewall": {"enabled", "pinholes_allowed"}}
"""


_SEARCH_TIME: Final = 1.0
"""Seconds in which the router has to answer by the protocols that are not used."""


@dataclass
class _Status:
    """The answers of a gateway, None for those that it did not give, and by what else it can be spoken to."""

    external_address: IPv4Address | IPv6Address | None = None
    connection: ConnectionStatus | None = None
    connection_type: ConnectionType | None = None
    nat: NatStatus | None = None
    link: LinkProperties | None = None
    traffic: TrafficTotals | None = None
    firewall: FirewallStatus | None = None
    others: list[ProtocolName] = field(default_factory=list)


@click.command(cls=Command, epilog=_EPILOG, short_help="Show the router, its connection and its line.")
@common_options
def status(settings: Settings) -> None:
    """Show the router, its connection, its line and its traffic so far."""
    run(lambda: _show_status(settings), settings.output)


async def _show_status(settings: Settings) -> Exit:
    limit = settings.limit
    answers = _Status()
    async with settings.mapper() as mapper, busy(settings.output, "Asking the router"):
        async with limit.whole_step():
            gateway = await mapper.get_gateway()
        async with limit.step():
            await asyncio.gather(_query(gateway, answers), _look_for_others(settings, gateway.device, answers))
    settings.output.json_document(_status_json(gateway.device, answers))
    settings.output.show(_status_view(gateway.device, answers))
    if limit.is_over:
        settings.output.warn(f"Not all was told: {limit.error.message}")
        return Exit.TIME_IS_UP
    return Exit.OK


async def _query(gateway: Gateway, answers: _Status) -> None:
    """Ask everything at once, and note the answers as they come."""

    async def ask(name: str, question: Callable[[], Awaitable[object]]) -> None:
        setattr(answers, name, await result_or_none(question()))

    await asyncio.gather(
        ask("external_address", gateway.query_external_address),
        ask("connection", gateway.query_status),
        ask("connection_type", gateway.query_connection_type),
        ask("nat", gateway.query_nat_status),
        ask("link", gateway.query_link_properties),
        ask("traffic", gateway.query_traffic),
        ask("firewall", gateway.query_firewall_status),
    )


async def _look_for_others(settings: Settings, device: Device, answers: _Status) -> None:
    """Ask the router by the protocols that are not used."""
    if settings.location is not None:
        return
    others = tuple(each for each in settings.protocols if each != device.protocol)
    if others:
        with suppress(IGDError):
            async with (
                replace(settings, protocols=others).mapper() as mapper,
                aclosing(mapper.iter_devices(_SEARCH_TIME, host=host_of(device))) as found,
            ):
                async for other in found:
                    if other.is_valid_gateway() and same_address(host_of(other), host_of(device)):
                        answers.others = [each for each in others if each in {other.protocol, *answers.others}]
                        if len(answers.others) == len(others):
                            break


def _status_json(device: Device, answers: _Status) -> dict[str, Any]:
    content: dict[str, Any] = {
        "gateway": device_json(device),
        "external_address": answers.external_address,
        "protocols": [device.protocol, *answers.others],
    }
    for name in ("connection", "connection_type", "nat", "link", "traffic", "firewall"):
        value = getattr(answers, name)
        content[name] = None if value is None else asdict(value)
    if answers.traffic is not None:
        del content["traffic"]["at"]  # the clock of the event loop, which means nothing to others
    return content


def _status_view(device: Device, answers: _Status) -> RenderableType:
    title = Text(device_name(device), style="bold")
    model = printable(" ".join(part for part in (device.manufacturer, device.model_name) if part), 60)
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
            Text(
                f"{host_of(device)}, found from {device.igd_our_addr}"
                + (f", speaks {printable(service, 40)}" if service else "")
            ),
        ),
        ("Protocols", _protocols(device, answers)),
        ("Internet address", address_text(answers.external_address)),
        ("Connection", _connection(answers)),
    ]
    if answers.link is not None:
        link = Text(printable(answers.link.access_type, 30) or "unknown kind")
        if answers.link.downstream_max_bit_rate:
            down, up = answers.link.downstream_max_bit_rate, answers.link.upstream_max_bit_rate
            link.append(f", ↓ {bit_rate(down)} ↑ {bit_rate(up)}")
        link.append(f", {printable(answers.link.link_status.lower(), 20)}", style="" if answers.link.is_up else "red")
        rows.append(("Line", link))
    if answers.traffic is not None:
        received, sent = answers.traffic.bytes_received, answers.traffic.bytes_sent
        rows.append(("Traffic so far", Text(f"↓ {byte_count(received)}  ↑ {byte_count(sent)}")))
    rows.append(("IPv6 firewall", _firewall(answers)))
    return rows


def _protocols(device: Device, answers: _Status) -> Text:
    text = Text(PROTOCOL_NAMES[device.protocol])
    if answers.others:
        text.append(f" is used, {joined([PROTOCOL_NAMES[each] for each in answers.others])} would do, too")
    return text


def _connection(answers: _Status) -> Text:
    connection = answers.connection
    if connection is None:
        return Text("not told", style="dim")
    text = connection_text(connection)
    details = []
    if answers.connection_type is not None and answers.connection_type.current:
        details.append(printable(answers.connection_type.current, 30))
    if answers.nat is not None:
        details.append("NAT" if answers.nat.nat_enabled else "no NAT: nothing to map")
    if details:
        text.append(f"  ({', '.join(details)})", style="dim")
    if not connection.is_connected and connection.last_error not in ("", "ERROR_NONE"):
        text.append(f"  {printable(connection.last_error, 40)}", style="yellow")
    return text


def _firewall(answers: _Status) -> Text:
    if answers.firewall is None:
        return Text("no control over it", style="dim")
    if not answers.firewall.enabled:
        return Text("off")
    return Text("on, pinholes can be opened" if answers.firewall.pinholes_allowed else "on, and allows no pinholes")
