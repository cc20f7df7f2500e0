"""``aioigd watch``: what changes on the router, as it happens. Options, polling, live screen, lines, JSON events."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .. import ConnectionStatus, Gateway, IGDError, PortMapper, PortMapping, Proto, UPnPResult
from ..text import printable
from .format import (
    PROTOCOL_NAMES,
    address_text,
    byte_count,
    byte_rate,
    connection_text,
    device_name,
    duration,
    endpoint,
    error_text,
    time_of_day,
)
from .options import Command, Settings, common_options
from .output import device_json, error_json, live, mapping_json
from .runner import Exit, run
from .traffic import Traffic, curve, no_counters_line

__all__ = ["watch"]

_LIST_EVERY: Final = 5
"""Samples from one list of the mappings to the next: it takes a request for each mapping."""
_MOST_EVENTS: Final = 12
"""Events that the screen shows, the latest ones."""
_CURVE_WIDTH: Final = 20
_EVENT_STYLES: Final = {"away": "red", "back": "green", "restarted": "yellow", "address": "cyan"}

_EPILOG = """\
\b
JSON lines:
  {"event": "gateway", "at", "gateway": {as in discover}}
  {"event": "sample", "at", "external_address", "connection", "uptime",
   "mappings" (their number), "bytes_sent", "bytes_received",
   "rate_sent", "rate_received" (bytes per second)}, null: not told
  {"event": "address", "at", "old", "new"}
  {"event": "connection", "at", "old", "new"}
  {"event": "restarted", "at", "uptime"}
  {"event": "mapping-added", "at", "mapping": {as in list}}
  {"event": "mapping-removed", "at", "mapping": {as in list}}
  {"event": "away", "at",
   "error": {"message", "result", "error_code", "protocol"}}
  {"event": "back", "at"}
"""


@click.command(cls=Command, epilog=_EPILOG, short_help="Watch address, traffic and ports as they change.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    help="How often to look.",
)
@click.option("--count", type=click.IntRange(1), help="Stop after so many looks.")
@common_options
def watch(settings: Settings, interval: float, count: int | None) -> None:
    """Watch the router: external address, connection, traffic, ports, as they change.

    Goes on until Ctrl-C. Where the output is no terminal, it has a line for each change.
    """
    run(lambda: _watch(settings, interval, count), settings.output, ends_by_signal=True)


async def _watch(settings: Settings, interval: float, count: int | None) -> Exit:
    async with settings.mapper() as mapper:
        async with settings.limit.whole_step():
            gateway = await mapper.get_gateway()
        watcher = _Watcher(settings, mapper, gateway)
        watcher.show_gateway()
        try:
            async with live(settings.output, watcher.screen):
                samples = 0
                while True:
                    await watcher.sample(with_mappings=samples % _LIST_EVERY == 0)
                    samples += 1
                    if samples == count:
                        return Exit.OK
                    await asyncio.sleep(interval)
        finally:
            watcher.show_summary()


@dataclass(frozen=True)
class _Event:
    """One change: its name, its time, and its text."""

    name: str
    at: datetime
    text: str


class _Watcher:
    """The latest state of the gateway, None for what is not known, and the events that led to it."""

    def __init__(self, settings: Settings, mapper: PortMapper, gateway: Gateway) -> None:
        self._output = settings.output
        self._mapper = mapper
        self._gateway = gateway
        self._began = _now()
        self._is_first = True
        self._traffic = Traffic()
        self._address: IPv4Address | IPv6Address | None = None
        self._connection: ConnectionStatus | None = None
        self._mappings: dict[tuple[int, Proto, str], PortMapping] | None = None
        self._error: IGDError | None = None
        self._recent: deque[_Event] = deque(maxlen=_MOST_EVENTS)

    def show_gateway(self) -> None:
        """Write which gateway it is."""
        device = self._gateway.device
        self._output.json_line({"event": "gateway", "at": _now(), "gateway": device_json(device)})
        if not self._output.is_live:
            self._output.show(f"Watching {device_name(device)} by {PROTOCOL_NAMES[device.protocol]}")

    def show_summary(self) -> None:
        """Write the summary."""
        text = f"Watched for {duration((_now() - self._began).total_seconds())}"
        if self._traffic.totals is not None:
            text += f": {byte_count(self._traffic.received)} received, {byte_count(self._traffic.sent)} sent"
        self._output.show(Text(text + ".", style="dim"))

    async def sample(self, *, with_mappings: bool) -> None:
        """Query everything once, and write what has changed."""
        try:
            # The mapper finds a router again that has moved or restarted, which a Gateway does not.
            address = await self._mapper.query_external_address()
        except IGDError as error:
            if not _is_answer(error):
                self._set_error(error)
                return
            address = None
        self._clear_error()
        self._gateway = await self._mapper.get_gateway()
        self._set_address(address)
        await self._update_connection()
        await self._update_traffic()
        if with_mappings:
            await self._update_mappings()
        self._is_first = False
        self._write_sample()

    def _set_error(self, error: IGDError) -> None:
        if self._error is None:
            self._add_event("away", f"out of reach: {error_text(error)}", error=error_json(error))
        self._error = error

    def _clear_error(self) -> None:
        if self._error is not None:
            self._add_event("back", "answers again")
        self._error = None

    def _set_address(self, address: IPv4Address | IPv6Address | None) -> None:
        old = self._address
        if not self._is_first and address != old:
            self._add_event("address", f"external address: {old} → {address}", old=old, new=address)
        elif self._is_first and not self._output.is_live:
            self._output.show(f"external address: {address or 'not told'}")
        self._address = address

    async def _update_connection(self) -> None:
        with suppress(IGDError):
            old, new = self._connection, await self._gateway.query_status()
            self._connection = new
            if old is None:
                return
            if old.status != new.status:
                self._add_event("connection", f"connection: {new.status.lower()}", old=old.status, new=new.status)
            if new.uptime is not None and old.uptime is not None and new.uptime < old.uptime:
                self._add_event("restarted", "restarted, or connected anew", uptime=new.uptime)

    async def _update_traffic(self) -> None:
        if self._traffic.is_counted:
            try:
                await self._traffic.read(self._gateway)
            except IGDError:
                self._traffic.is_counted = self._traffic.totals is not None

    async def _update_mappings(self) -> None:
        with suppress(IGDError):
            old = self._mappings
            new: dict[tuple[int, Proto, str], PortMapping] = {}
            async for mapping in self._gateway.query_port_mappings():
                new[mapping.key] = mapping
            self._mappings = new
            if old is None:
                return
            for key in new.keys() - old.keys():
                self._add_event("mapping-added", f"{_mapping_text(new[key])} opened", mapping=mapping_json(new[key]))
            for key in old.keys() - new.keys():
                self._add_event("mapping-removed", f"{_mapping_text(old[key])} closed", mapping=mapping_json(old[key]))

    def _write_sample(self) -> None:
        totals, rates = self._traffic.totals, self._traffic.rates
        self._output.json_line(
            {
                "event": "sample",
                "at": _now(),
                "external_address": self._address,
                "connection": self._connection.status if self._connection else None,
                "uptime": self._connection.uptime if self._connection else None,
                "mappings": None if self._mappings is None else len(self._mappings),
                "bytes_sent": totals.bytes_sent if totals else None,
                "bytes_received": totals.bytes_received if totals else None,
                "rate_sent": round(rates.bytes_sent) if rates else None,
                "rate_received": round(rates.bytes_received) if rates else None,
            }
        )

    def _add_event(self, name: str, text: str, **details: Any) -> None:
        event = _Event(name, _now(), text)
        self._recent.append(event)
        self._output.json_line({"event": name, "at": event.at, **details})
        if not self._output.is_live:
            self._output.show(_event_line(event))

    def screen(self) -> RenderableType:
        """Return the live screen."""
        title = Text.assemble("Watching ", (device_name(self._gateway.device), "bold"))
        if self._error is not None:
            title.append(f"  out of reach: {error_text(self._error)}", style="bold red")
        parts: list[RenderableType] = [title, Text(), self._state_table(), Text(), _traffic_view(self._traffic)]
        if self._recent:
            parts += [Text(), *(_event_line(event) for event in self._recent)]
        return Group(*parts, Text(), Text("Ctrl-C ends it.", style="dim"))

    def _state_table(self) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="dim", no_wrap=True, width=16)
        table.add_column()
        table.add_row("Internet address", address_text(self._address))
        if self._connection is not None:
            table.add_row("Connection", connection_text(self._connection))
        if self._mappings is not None:
            table.add_row("Open ports", str(len(self._mappings)))
        return table


def _traffic_view(traffic: Traffic) -> RenderableType:
    if not traffic.is_counted:
        return no_counters_line()
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, width=16)
    table.add_column(no_wrap=True, min_width=10)
    table.add_column(no_wrap=True, min_width=_CURVE_WIDTH)
    table.add_column(style="dim")
    rates, totals = traffic.rates, traffic.totals
    rows = (
        ("↓ received", "green", "bytes_received", traffic.received),
        ("↑ sent", "blue", "bytes_sent", traffic.sent),
    )
    for title, style, name, since in rows:
        now = byte_rate(getattr(rates, name) if rates else None)
        bars = curve((getattr(each, name) for each in traffic.history), _CURVE_WIDTH)
        total = f"{byte_count(since)} now, {byte_count(getattr(totals, name))} in all" if totals else ""
        table.add_row(title, Text(f"{now:>10}", style="bold"), Text(bars, style=style), total)
    return table


def _event_line(event: _Event) -> Text:
    return Text.assemble(
        (f"{time_of_day(event.at)}  ", "dim"), (printable(event.text, 200), _EVENT_STYLES.get(event.name, ""))
    )


def _mapping_text(mapping: PortMapping) -> str:
    return f"{mapping.proto} {mapping.external_port} → {endpoint(mapping.internal_client, mapping.internal_port)}"


def _is_answer(error: IGDError) -> bool:
    """Return whether an error is the answer of a gateway that has no address to give."""
    return bool(error.attempts) and (error.error_code is not None or error.result is UPnPResult.INVALID_RESPONSE)


def _now() -> datetime:
    return datetime.now(UTC)
