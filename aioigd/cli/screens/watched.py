"""What ``watch`` shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..format import address_note, amount, clean, clock, duration, name_of, plain_error, rate
from ..traffic import Traffic
from ..watched import Event, Watched
from .traffic import curve

__all__ = ["ending", "event_line", "watch_screen"]

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
