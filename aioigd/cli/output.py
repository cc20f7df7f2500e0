"""Output of a run: a console for people, JSON for programs, live screens, tables, and the JSON that commands share."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from .. import Device, IGDError, PortMapping
from ..text import printable
from .format import ERROR_MARK, WARNING_MARK, error_text, host_of
from .streams import replace_unencodable

__all__ = ["Column", "Listing", "Output", "busy", "device_json", "error_json", "live", "mapping_json"]

_PIPE_COLUMNS: Final = 200
"""Columns where the output is no terminal, so that nothing is cut there."""
_FRAMES_PER_SECOND: Final = 8

Json = Mapping[str, Any]


class Output:
    """Standard output and standard error of one run; with ``as_json`` only JSON is written."""

    def __init__(self, *, as_json: bool) -> None:
        replace_unencodable()
        self.as_json = as_json
        self.console = _console(sys.stdout)
        self.errors = _console(sys.stderr)

    @property
    def is_live(self) -> bool:
        """Whether screens are redrawn: the output is a terminal that can do so."""
        return not self.as_json and self.console.is_terminal and not self.console.is_dumb_terminal

    def spinner(self, text: str = "") -> Spinner:
        """Return something that turns as long as a live screen shows it, with a text behind it."""
        return Spinner("line" if self.console.options.ascii_only else "dots", Text(text, style="dim"), style="cyan")

    def show(self, what: RenderableType = "") -> None:
        """Print text, a table or anything else that rich renders."""
        if not self.as_json:
            self._print(self.console, printable(what) if isinstance(what, str) else what)

    def warn(self, text: str) -> None:
        """Print a warning on standard error."""
        if not self.as_json:
            self._print(self.errors, Text.assemble(WARNING_MARK, printable(text)))

    def fail(self, error: BaseException, hint: str = "") -> None:
        """Print the error that ended the run: on standard error, or as a JSON document where one can be written."""
        if self.as_json:
            try:
                self.json_line({"error": error_json(error)})
            except BrokenPipeError:
                raise
            except OSError:  # a full disk, which may be the error itself
                pass
            else:
                return
        with suppress(OSError):
            self._print(self.errors, Text.assemble(ERROR_MARK, error_text(error)))
            if hint:
                self._print(self.errors, Text(f"  {hint}", style="dim"))

    def json_document(self, content: Json) -> None:
        """Write the one JSON document of a run."""
        if self.as_json:
            self._write(json.dumps(content, indent=2, default=_json_value))

    def json_line(self, content: Json) -> None:
        """Write one line of JSON, at once."""
        if self.as_json:
            self._write(json.dumps(content, default=_json_value))

    @staticmethod
    def _print(console: Console, what: RenderableType) -> None:
        # Lines are wrapped on a terminal only: programs that read the output search in lines.
        console.print(what, soft_wrap=isinstance(what, (str, Text)) and not console.is_terminal)

    @staticmethod
    def _write(text: str) -> None:
        if sys.stdout is not None:  # as it is where the process was started with a closed one
            sys.stdout.write(text + "\n")
            sys.stdout.flush()


@asynccontextmanager
async def live(output: Output, screen: Callable[[], RenderableType]) -> AsyncIterator[None]:
    """Redraw a screen while the block runs; nothing where the output is not live.

    A task of the event loop draws it, not a thread, so that nothing changes while ``screen`` reads it.
    """
    if not output.is_live:
        yield
        return
    with Live(console=output.console, auto_refresh=False, transient=True, vertical_overflow="crop") as view:
        task = asyncio.get_running_loop().create_task(_redraw(view, screen))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


@asynccontextmanager
async def busy(output: Output, text: str) -> AsyncIterator[Callable[[str], None]]:
    """Show a spinner and a text while the block runs; yields a function that changes the text."""
    spinner = output.spinner()

    def step(text: str) -> None:
        spinner.update(text=Text(f" {text} …", style="dim"))

    step(text)
    async with live(output, lambda: spinner):
        yield step


@dataclass(frozen=True)
class Column:
    """A column of a listing. ``least``: to how many columns of the terminal it may be cut; None for what matters.

    Where the columns do not fit beside each other, ``is_head`` puts its cells into the first line of a row, and
    ``label`` stands before each of them.
    """

    title: str = ""
    least: int | None = None
    is_head: bool = False
    label: str = ""
    is_right: bool = False


class Listing:
    """Rows in columns; where these do not fit, each row in lines of its own. What matters is never cut."""

    _GAP: Final = 2
    _INDENT: Final = 4
    _NARROW: Final = 64
    """Columns of the terminal below which there is no table with titles, whatever is in it."""

    def __init__(self, *columns: Column, with_titles: bool = True) -> None:
        self.columns = columns
        self._with_titles = with_titles
        self._rows: list[tuple[Text, ...]] = []

    def add_row(self, *cells: Text) -> None:
        """Add a row with a cell for each column."""
        self._rows.append(cells)

    def first(self, count: int) -> Listing:
        """Return the first rows as a listing of their own."""
        part = Listing(*self.columns, with_titles=self._with_titles)
        part._rows = self._rows[:count]
        return part

    def widths(self, available: int) -> list[int] | None:
        """Return the widths of the columns, None where they do not fit."""
        if self._with_titles and available < self._NARROW:
            return None
        natural = [
            max([len(column.title) if self._with_titles else 0, *(max(map(cell_len, lines)) for lines in cells)])
            for column, cells in zip(self.columns, self._lines_of_cells(), strict=True)
        ]
        least = [
            wanted if column.least is None else min(wanted, column.least)
            for column, wanted in zip(self.columns, natural, strict=True)
        ]
        spare = available - sum(least) - self._GAP * len(natural)
        if spare < 0:
            return None
        found = []
        for wanted, fewest in zip(natural, least, strict=True):
            found.append(min(wanted, fewest + spare))
            spare -= found[-1] - fewest
        return found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self.widths(options.max_width)
        if widths is not None:
            yield self._table(widths)
            return
        for cells in self._rows:
            head = [
                Text.assemble(column.label, cell)
                for column, cell in zip(self.columns, cells, strict=True)
                if column.is_head and cell
            ]
            rest = [
                Text.assemble(column.label, cell)
                for column, cell in zip(self.columns, cells, strict=True)
                if not column.is_head and cell
            ]
            yield _folded(Text("  ").join(head))
            if rest:
                yield Padding(_folded(Text(" · ", style="dim").join(rest)), (0, 0, 0, self._INDENT))

    def _lines_of_cells(self) -> list[list[list[str]]]:
        return [[row[index].plain.split("\n") for row in self._rows] for index in range(len(self.columns))]

    def _table(self, widths: Sequence[int]) -> Table:
        if self._with_titles:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", collapse_padding=True)
        else:
            table = Table.grid(padding=(0, self._GAP, 0, 0))
        for column, width in zip(self.columns, widths, strict=True):
            justify: Literal["left", "right"] = "right" if column.is_right else "left"
            table.add_column(column.title, width=width, justify=justify, no_wrap=True, overflow="ellipsis")
        for row in self._rows:
            table.add_row(*row)
        return table


def _folded(text: Text) -> Text:
    """Return a text in one paragraph, in which even the longest word is shown whole."""
    line = Text(" · ", style="dim").join(text.split("\n"))
    line.overflow, line.no_wrap = "fold", False
    return line


def device_json(device: Device) -> dict[str, Any]:
    """Return a device as it is in the JSON of all commands."""
    return {
        "friendly_name": device.friendly_name,
        "manufacturer": device.manufacturer,
        "model_name": device.model_name,
        "description_url": device.description_url,
        "service_type": device.service_type,
        "igd_service_type": device.igd_service_type,
        "igd_control_url": device.igd_control_url,
        "igd_our_addr": device.igd_our_addr,
        "igd_status": device.igd_status.name,
        "is_valid_gateway": device.is_valid_gateway(),
        "udn": device.udn,
        "server": device.server,
        "protocol": device.protocol,
        "address": host_of(device),
    }


def mapping_json(mapping: PortMapping) -> dict[str, Any]:
    """Return a mapping as it is in the JSON of all commands."""
    return {
        "proto": mapping.proto,
        "external_port": mapping.external_port,
        "internal_client": mapping.internal_client,
        "internal_port": mapping.internal_port,
        "remote_host": mapping.remote_host,
        "desc": mapping.desc,
        "duration": mapping.duration,
        "enabled": mapping.enabled,
        "protocol": mapping.protocol,
    }


def error_json(error: BaseException) -> dict[str, Any]:
    """Return an error as it is in the JSON of all commands."""
    if isinstance(error, IGDError):
        code = error.error_code
        return {"message": error.message, "result": error.result.name, "error_code": code, "protocol": error.protocol}
    message = str(error) or type(error).__name__
    return {"message": message, "result": "UNKNOWN_ERROR", "error_code": None, "protocol": None}


async def _redraw(view: Live, screen: Callable[[], RenderableType]) -> None:
    while True:
        view.update(screen(), refresh=True)
        await asyncio.sleep(1 / _FRAMES_PER_SECOND)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise


def _console(stream: Any) -> Console:
    width = height = None
    if not getattr(stream, "isatty", lambda: False)():
        width = _PIPE_COLUMNS
    elif os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        with suppress(OSError, ValueError):  # rich would take it for one of 80 columns
            width, height = os.get_terminal_size(stream.fileno())
    return _Console(file=stream, highlight=False, markup=False, emoji=False, width=width or None, height=height or None)


def _json_value(value: object) -> object:
    if isinstance(value, (IPv4Address, IPv6Address)):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, Enum):
        return value.name
    raise TypeError(f"{value!r} is not for JSON")
