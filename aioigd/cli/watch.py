"""``aioigd watch``: what changes on the router, as it happens."""

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

from .. import ConnectionStatus, Gateway, IGDError, PortMapper, PortMapping, Proto
from .format import address_note, amount, clean, clock, duration, name_of, plain_error, rate
from .options import Command, Settings, shared
from .output import device_facts, error_facts, live, mapping_facts
from .runner import Exit, run
from .traffic import Traffic, curve

__all__ = ["Event", "Watched", "ending", "event_line", "watch", "watch_screen"]

_Key = tuple[int, Proto, str]
"""What identifies a mapping on its router: external port, protocol and remote host."""

_TABLE_EVERY: Final = 5
"""The table is read at every fifth look: it takes a request for each mapping."""

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
  {"event": "away", "at", "error": {"message", "result", "error_code"}}
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
@shared
def watch(settings: Settings, interval: float, count: int | None) -> None:
    """Watch the router: external address, connection, traffic, ports, as they change.

    Goes on until Ctrl-C. Where the output is no terminal, it has a line for each change.
    """
    run(lambda: _watch(settings, interval, count), settings.output, ends_by_signal=True)


async def _watch(settings: Settings, interval: float, count: int | None) -> Exit:
    async with settings.mapper() as mapper:
        gateway = await mapper.get_gateway()
        watching = _Watching(settings, mapper, gateway)
        watching.begin()
        try:
            async with live(settings.output, watching.screen):
                looks = 0
                while True:
                    await watching.look(with_table=looks % _TABLE_EVERY == 0)
                    looks += 1
                    if looks == count:
                        return Exit.OK
                    await asyncio.sleep(interval)
        finally:
            watching.end()


@dataclass(frozen=True)
class Event:
    """One thing that happened: its name, when, and what goes with it."""

    name: str
    at: datetime
    facts: dict[str, Any]
    text: str = ""


class Watched:
    """The last that is known; None for what the gateway does not tell."""

    def __init__(self, gateway: Gateway, began: datetime) -> None:
        self.gateway = gateway
        self.began = began
        self.traffic = Traffic()
        self.address: IPv4Address | IPv6Address | None = None
        self.connection: ConnectionStatus | None = None
        self.mappings: dict[_Key, PortMapping] | None = None
        self.error: IGDError | None = None
        self.recent: deque[Event] = deque(maxlen=_RECENT)


class _Watching(Watched):
    """Looks again and again, and tells what that makes of what was seen before."""

    def __init__(self, settings: Settings, mapper: PortMapper, gateway: Gateway) -> None:
        super().__init__(gateway, _now())
        self._output = settings.output
        self._mapper = mapper
        self._looked = False

    def begin(self) -> None:
        """Say what is watched."""
        device = self.gateway.device
        self._output.line({"event": "gateway", "at": _now(), "gateway": device_facts(device)})
        if not self._output.is_live:
            self._output.show(f"Watching {name_of(device)}")

    def end(self) -> None:
        """Say what it comes to."""
        self._output.show(ending(self.began, self.traffic))

    def screen(self) -> RenderableType:
        """Return what there is to see."""
        return watch_screen(self)

    async def look(self, *, with_table: bool) -> None:
        """Ask for everything once, and tell of what has changed."""
        try:
            # The mapper finds a router again that has moved or restarted; the gateway in hand would not.
            address = await self._mapper.query_external_address()
        except IGDError as error:
            if not _is_answer(error):
                self._went_away(error)
                return
            address = None
        self._came_back()
        self.gateway = await self._mapper.get_gateway()
        self._see_address(address)
        await self._see_connection()
        await self._see_traffic()
        if with_table:
            await self._see_table()
        self._looked = True
        self._sample()

    def _went_away(self, error: IGDError) -> None:
        if self.error is None:
            self._tell("away", {"error": error_facts(error)}, f"out of reach: {plain_error(error)}")
        self.error = error

    def _came_back(self) -> None:
        if self.error is not None:
            self._tell("back", {}, "answers again")
        self.error = None

    def _see_address(self, address: IPv4Address | IPv6Address | None) -> None:
        if self._looked and address != self.address:
            self._tell(
                "address", {"old": self.address, "new": address}, f"external address: {self.address} → {address}"
            )
        elif not self._looked and not self._output.is_live:
            self._output.show(f"external address: {address or 'not told'}")
        self.address = address

    async def _see_connection(self) -> None:
        with suppress(IGDError):
            now, before = await self.gateway.query_status(), self.connection
            self.connection = now
            if before is None:
                return
            if before.status != now.status:
                self._tell("connection", {"old": before.status, "new": now.status}, f"connection: {now.status.lower()}")
            if now.uptime is not None and before.uptime is not None and now.uptime < before.uptime:
                self._tell("restarted", {"uptime": now.uptime}, "restarted, or connected anew")

    async def _see_traffic(self) -> None:
        if self.traffic.is_counted:
            try:
                await self.traffic.read(self.gateway)
            except IGDError:
                self.traffic.is_counted = self.traffic.totals is not None

    async def _see_table(self) -> None:
        with suppress(IGDError):
            before = self.mappings
            now: dict[_Key, PortMapping] = {each.key: each async for each in self.gateway.query_port_mappings()}
            self.mappings = now
            if before is None:
                return
            for key in now.keys() - before.keys():
                self._tell("mapping-added", {"mapping": mapping_facts(now[key])}, f"{_shown(now[key])} opened")
            for key in before.keys() - now.keys():
                self._tell("mapping-removed", {"mapping": mapping_facts(before[key])}, f"{_shown(before[key])} closed")

    def _sample(self) -> None:
        totals, rates = self.traffic.totals, self.traffic.rates
        self._output.line(
            {
                "event": "sample",
                "at": _now(),
                "external_address": self.address,
                "connection": self.connection.status if self.connection else None,
                "uptime": self.connection.uptime if self.connection else None,
                "mappings": None if self.mappings is None else len(self.mappings),
                "bytes_sent": totals.bytes_sent if totals else None,
                "bytes_received": totals.bytes_received if totals else None,
                "rate_sent": round(rates.bytes_sent) if rates else None,
                "rate_received": round(rates.bytes_received) if rates else None,
            }
        )

    def _tell(self, name: str, facts: dict[str, Any], text: str) -> None:
        event = Event(name, _now(), facts, text)
        self.recent.append(event)
        self._output.line({"event": name, "at": event.at, **facts})
        if not self._output.is_live:
            self._output.show(event_line(event))


def _is_answer(error: IGDError) -> bool:
    """Whether a gateway is there that says something, if not an address."""
    return bool(error.attempts) and (error.error_code is not None or error.result.name == "INVALID_RESPONSE")


def _shown(mapping: PortMapping) -> str:
    return f"{mapping.proto} {mapping.external_port} → {mapping.internal_client}:{mapping.internal_port}"


def _now() -> datetime:
    return datetime.now(UTC)


_RECENT: Final = 12


_STYLES: Final = {"away": "red", "back": "green", "restarted": "yellow", "address": "cyan"}
_WIDTH: Final = 20


def watch_screen(seen: Watched) -> RenderableType:
    """Return the whole screen."""
    title = Text.assemble("Watching ", (name_of(seen.gateway.device), "bold"))
    if seen.error is not None:
        title.append(f"  out of reach: {plain_error(seen.error)}", style="bold red")
    parts: list[RenderableType] = [title, Text(), _facts(seen), Text(), _traffic(seen)]
    if seen.recent:
        parts += [Text(), *(event_line(event) for event in seen.recent)]
    return Group(*parts, Text(), Text("Ctrl-C ends it.", style="dim"))


def _facts(seen: Watched) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, width=16)
    table.add_column()
    address = Text(str(seen.address or "not told"), style="bold cyan" if seen.address else "yellow")
    if note := address_note(seen.address):
        address.append(f"  {note}", style="not bold yellow")
    table.add_row("Internet address", address)
    if seen.connection is not None:
        style = "green" if seen.connection.is_connected else "red"
        connection = Text(clean(seen.connection.status.lower(), 30), style=style)
        if seen.connection.uptime:
            connection.append(f" for {duration(seen.connection.uptime)}", style="default")
        table.add_row("Connection", connection)
    if seen.mappings is not None:
        table.add_row("Open ports", str(len(seen.mappings)))
    return table


def _traffic(seen: Watched) -> RenderableType:
    traffic = seen.traffic
    if not traffic.is_counted:
        return Text("This router does not count its traffic.", style="dim")
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, width=16)
    table.add_column(no_wrap=True, min_width=10)
    table.add_column(no_wrap=True, min_width=_WIDTH)
    table.add_column(style="dim", no_wrap=True)
    rates, totals = traffic.rates, traffic.totals
    rows = (
        ("↓ received", "green", "bytes_received", traffic.received),
        ("↑ sent", "blue", "bytes_sent", traffic.sent),
    )
    for title, style, name, since in rows:
        now = rate(getattr(rates, name) if rates else None)
        bars = curve((getattr(each, name) for each in traffic.history), _WIDTH)
        total = f"{amount(since)} now, {amount(getattr(totals, name))} in all" if totals else ""
        table.add_row(title, Text(f"{now:>10}", style="bold"), Text(bars, style=style), total)
    return table


def ending(began: datetime, traffic: Traffic) -> Text:
    """Return what came through while it was watched."""
    text = f"Watched for {duration((datetime.now(UTC) - began).total_seconds())}"
    if traffic.totals is not None:
        text += f": {amount(traffic.received)} received, {amount(traffic.sent)} sent"
    return Text(text + ".", style="dim")


def event_line(event: Event) -> Text:
    """Return one thing that happened, with its time."""
    return Text.assemble((f"{clock(event.at)}  ", "dim"), (clean(event.text, 200), _STYLES.get(event.name, "")))
