"""Output of a run: a console for people, JSON for programs, live screens, and the JSON shapes that commands share."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from rich import box
from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from .. import Device, IGDError, PortMapping
from .format import ERROR_MARK, WARNING_MARK, error_text

__all__ = ["Output", "busy", "device_json", "error_json", "live", "mapping_json", "new_table"]

_PIPE_COLUMNS: Final = 200
"""Columns where the output is no terminal, so that nothing is cut there."""
_FRAMES_PER_SECOND: Final = 8

Json = Mapping[str, Any]


class Output:
    """Standard output and standard error of one run; with ``as_json`` only JSON is written."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = _console(sys.stdout)
        self.errors = _console(sys.stderr)

    @property
    def is_live(self) -> bool:
        """Whether screens are redrawn: the output is a terminal that can do so."""
        return not self.as_json and self.console.is_terminal and not self.console.is_dumb_terminal

    def show(self, what: RenderableType = "") -> None:
        """Print text, a table or anything else that rich renders."""
        if not self.as_json:
            self._print(self.console, what)

    def warn(self, text: str) -> None:
        """Print a warning on standard error."""
        if not self.as_json:
            self._print(self.errors, Text.assemble(WARNING_MARK, text))

    def fail(self, error: BaseException, hint: str = "") -> None:
        """Print the error that ended the run: on standard error, or as a JSON document."""
        if self.as_json:
            self.json_line({"error": error_json(error)})
            return
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
    spinner = Spinner("dots", style="cyan")

    def step(text: str) -> None:
        spinner.update(text=Text(f" {text} …", style="dim"))

    step(text)
    async with live(output, lambda: spinner):
        yield step


def new_table(*titles: str) -> Table:
    """Return an empty table in the style of the command, with a column that does not wrap for each title."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", collapse_padding=True)
    for title in titles:
        table.add_column(title, no_wrap=True)
    return table


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
    }


def error_json(error: BaseException) -> dict[str, Any]:
    """Return an error as it is in the JSON of all commands."""
    if isinstance(error, IGDError):
        return {"message": error.message, "result": error.result.name, "error_code": error.error_code}
    return {"message": str(error) or type(error).__name__, "result": "UNKNOWN_ERROR", "error_code": None}


async def _redraw(view: Live, screen: Callable[[], RenderableType]) -> None:
    while True:
        view.update(screen(), refresh=True)
        await asyncio.sleep(1 / _FRAMES_PER_SECOND)


def _console(stream: Any) -> Console:
    is_terminal = bool(getattr(stream, "isatty", lambda: False)())
    return Console(
        file=stream, highlight=False, markup=False, emoji=False, width=None if is_terminal else _PIPE_COLUMNS
    )


def _json_value(value: object) -> object:
    if isinstance(value, (IPv4Address, IPv6Address)):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, Enum):
        return value.name
    raise TypeError(f"{value!r} is not for JSON")
