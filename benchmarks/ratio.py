"""How much this checkout takes beside another one.

Run it from the root of the project::

    python -m benchmarks.ratio PATH_TO_OTHER_CHECKOUT [--pairs N] [--only NAME ...] [--limit RATIO] [--by PROTOCOL]

What only computes is measured in CPU time of its process, which other programs on the machine hardly lengthen; a cold
start also waits, and is measured in both. Each measure is taken in pairs of fresh processes, one for each checkout,
which differ in PYTHONPATH alone. The order alternates (this, other, other, this), so what drifts slowly weighs on both.
Printed is the median of the ratios within the pairs with its 95 % confidence interval. A limit holds if the interval
reaches it, that is, if its lower end is not above; a wide interval says that more pairs are needed. With ``--by pcp``
this checkout maps by PCP, and the other as it always does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from math import comb
from pathlib import Path
from statistics import median
from typing import Final

from . import workload
from .gateway_server import gateway_process
from .process import Process
from .workload import HERE

NAMES: Final = (*workload.WORK, "import")
CONFIDENCE: Final = 0.95


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the confidence interval of the median by order statistics; under six values their whole range."""
    ordered, below, rank = sorted(values), 0.0, 0
    while rank < len(ordered) // 2:
        below += comb(len(ordered), rank) / 2 ** len(ordered)
        if below > (1 - CONFIDENCE) / 2:
            break
        rank += 1
    lowest = max(rank - 1, 0)
    return ordered[lowest], ordered[len(ordered) - 1 - lowest]


def measure(name: str, checkout: Path, gateway: Process, by: Sequence[str]) -> dict[str, float]:
    """Return the figures (seconds) of one process that imports aioigd from a checkout; this one maps ``by``."""
    if name == "import":
        return {"CPU of import aioigd": workload.seconds_to_import("aioigd", checkout, "process_time")}
    command = [sys.executable, "-P", workload.__file__, name, gateway.address, gateway.location]
    command += by if checkout == HERE else ()
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": ""}
    answer = json.loads(subprocess.check_output(command, env=environment, timeout=120))
    assert Path(answer["imported"]).is_relative_to(checkout), answer["imported"]
    figures: dict[str, float] = answer["figures"]
    return figures


def compare(
    name: str, other: Path, gateway: Process, pairs: int, by: Sequence[str]
) -> dict[str, list[tuple[float, float]]]:
    """Return for each figure the values of this and of the other checkout, pair by pair."""
    found: dict[str, list[tuple[float, float]]] = {}
    for checkout in (HERE, other):
        measure(name, checkout, gateway, by)  # compiles what has not been, and warms up the gateway
    for pair in range(pairs):
        order = (HERE, other) if pair % 2 == 0 else (other, HERE)
        taken = {checkout: measure(name, checkout, gateway, by) for checkout in order}
        for figure, seconds in taken[HERE].items():
            found.setdefault(figure, []).append((seconds, taken[other][figure]))
    return found


def main() -> int:
    """Measure and print; the exit status is 1 where a limit does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ratio", description="Compare with another checkout.")
    parser.add_argument("other", type=Path, help="the root of the other checkout")
    parser.add_argument("--pairs", type=int, default=20, help="how many of each measure (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="what is measured")
    parser.add_argument("--limit", type=float, default=1.02, help="the most of a ratio (default: %(default)s)")
    parser.add_argument("--by", nargs=1, choices=("pcp", "nat-pmp"), default=[], help="how this checkout maps ports")
    options = parser.parse_args()
    other = options.other.resolve()
    if not (other / "aioigd").is_dir() or options.pairs < 1:
        parser.error("another checkout and at least one pair are needed")
    print(f"{'':<34} {'this':>12} {'other':>12}   {'ratio (95 % interval)':<26} limit {options.limit:g}", flush=True)
    failed = False
    with gateway_process(pcp=True) as gateway:
        for name in options.only:
            for figure, pairs in compare(name, other, gateway, options.pairs, options.by).items():
                ratios = [this / other for this, other in pairs]
                low, high = median_interval(ratios)
                failed |= low > options.limit
                this, others = (median(values) * 1e3 for values in zip(*pairs, strict=True))
                shown = f"{median(ratios):.3f} ({low:.3f} to {high:.3f})"
                verdict = "EXCEEDED" if low > options.limit else "holds"
                print(f"{figure:<34} {this:>9.4g} ms {others:>9.4g} ms   {shown:<26} {verdict}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
