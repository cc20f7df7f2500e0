"""Where the command writes: people get a console, programs get JSON; errors go to where each expects them."""

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

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from .. import Device, IGDError, PortMapping
from .format import plain_error

__all__ = ["Output", "busy", "device_facts", "error_facts", "live", "mapping_facts"]

_WIDE: Final = 200
"""Columns where the output goes to a file or pipe: nothing is to be cut there."""

Facts = Mapping[str, Any]


class Output:
    """Standard output and standard error of one run."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = _console(sys.stdout)
        self.errors = _console(sys.stderr)

    @property
    def is_live(self) -> bool:
        """Whether a screen may be redrawn: people are looking at a terminal."""
        return not self.as_json and self.console.is_terminal and not self.console.is_dumb_terminal

    def show(self, what: RenderableType = "") -> None:
        """Print something for people, whatever it is made of; nothing where programs listen."""
        if not self.as_json:
            self._print(self.console, what)

    def document(self, facts: Facts) -> None:
        """Print the one JSON document of a run."""
        if self.as_json:
            self._write(json.dumps(facts, indent=2, default=_plain))

    def line(self, facts: Facts) -> None:
        """Print one line of JSON, at once."""
        if self.as_json:
            self._write(json.dumps(facts, default=_plain))

    def fail(self, error: BaseException, hint: str = "") -> None:
        """Tell of a failure: a JSON document where that is what is expected, words on standard error otherwise."""
        if self.as_json:
            self._write(json.dumps({"error": error_facts(error)}, default=_plain))
            return
        self._print(self.errors, Text.assemble(("✗ ", "bold red"), plain_error(error)))
        if hint:
            self._print(self.errors, Text(f"  {hint}", style="dim"))

    def warn(self, text: str) -> None:
        """Say something beside the result."""
        if not self.as_json:
            self._print(self.errors, Text.assemble(("! ", "bold yellow"), text))

    @staticmethod
    def _print(console: Console, what: RenderableType) -> None:
        # A line stays one line where no terminal has to show it: programs look for it.
        console.print(what, soft_wrap=isinstance(what, (str, Text)) and not console.is_terminal)

    def _write(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def error_facts(error: BaseException) -> dict[str, Any]:
    """Return an error as JSON has it."""
    if isinstance(error, IGDError):
        return {"message": error.message, "result": error.result.name, "error_code": error.error_code}
    return {"message": str(error) or type(error).__name__, "result": "UNKNOWN_ERROR", "error_code": None}


def _console(stream: Any) -> Console:
    is_terminal = bool(getattr(stream, "isatty", lambda: False)())
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=None if is_terminal else _WIDE)


def _plain(value: object) -> object:
    if isinstance(value, (IPv4Address, IPv6Address)):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, Enum):
        return value.name
    raise TypeError(f"{value!r} is not for JSON")


_PER_SECOND: Final = 8


@asynccontextmanager
async def live(output: Output, screen: Callable[[], RenderableType]) -> AsyncIterator[None]:
    """Show a screen, again and again, while the block runs; nothing where nobody is looking."""
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
async def busy(output: Output, text: str) -> AsyncIterator[None]:
    """Say what is being done while the block runs."""
    spinner = Spinner("dots", Text(f" {text} …", style="dim"), style="cyan")
    async with live(output, lambda: spinner):
        yield


async def _redraw(view: Live, screen: Callable[[], RenderableType]) -> None:
    while True:
        view.update(screen(), refresh=True)
        await asyncio.sleep(1 / _PER_SECOND)


def device_facts(device: Device) -> dict[str, Any]:
    """Return a device."""
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


def mapping_facts(mapping: PortMapping) -> dict[str, Any]:
    """Return a mapping."""
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
