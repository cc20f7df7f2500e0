"""Where the command writes: people get a console, programs get JSON; errors go to where each expects them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.text import Text

from ..errors import IGDError
from .format import plain_error

__all__ = ["Output", "error_facts"]

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
