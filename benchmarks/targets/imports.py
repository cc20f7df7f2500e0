"""What ``import aioigd`` costs a program that starts, against the two large packages that it needs."""

from __future__ import annotations

import subprocess
import sys

from ..figures import Figure, ratios

_TIMED = "import time; started = time.perf_counter(); import {}; print(time.perf_counter() - started)"
_OURS = "aioigd"
_THEIRS = "aiohttp, lxml.etree"


def seconds_to_import(names: str) -> float:
    """Return the seconds that an import takes in a new interpreter, its start excluded."""
    # Isolated from the directory and the environment, as both cost something for each module that is looked for.
    command = [sys.executable, "-I", "-c", _TIMED.format(names)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(runs: int) -> list[Figure]:
    """Measure both in turn, each in a new process."""
    for names in (_OURS, _THEIRS):
        seconds_to_import(names)
    pairs = [(seconds_to_import(_OURS), seconds_to_import(_THEIRS)) for _ in range(runs)]
    ours, theirs = [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
    return [
        Figure("import aioigd", [one * 1e3 for one in ours], "ms"),
        Figure(f"import {_THEIRS}", [one * 1e3 for one in theirs], "ms"),
        ratios("import of aioigd, to aiohttp and lxml alone", ours, theirs, 1.15),
    ]
