"""The command ``aioigd``. Only ``demo`` works without the extra ``cli``; nothing else in the package imports this."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final

from .streams import replace_unencodable

__all__ = ["main"]

_EXTRA: Final = ("click", "rich")
_MISSING: Final = """\
The command aioigd needs two more packages (click and rich). Install them with

    pip install "aioigd[cli]"

Without them there is `python -m aioigd demo`."""


def main() -> None:
    """Run the command with the arguments of the process."""
    replace_unencodable()
    if all(map(find_spec, _EXTRA)):
        from .app import command

        command.main(prog_name="aioigd")
    if sys.argv[1:] == ["demo"]:
        from .demo import demo

        sys.exit(demo())
    print(_MISSING, file=sys.stderr)  # noqa: T201 - a command prints
    sys.exit(2)
