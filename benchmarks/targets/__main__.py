"""Measure the goals of the project and print them, each with its spread.

Run it from the root of the project::

    python -m benchmarks.targets [identical] [batch] [cpu] [imports] [allocations] [--runs N] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..figures import Figure, environment, report
from . import allocations, batch, cpu, identical, imports

MEASURES = {
    "identical": (identical.measure, 5),
    "batch": (batch.measure, 5),
    "cpu": (cpu.measure, 20),
    "imports": (imports.measure, 20),
    "allocations": (allocations.measure, 5),
}
"""What can be measured, and how many runs of it make a median."""


def main() -> int:
    """Measure, print and write; the exit status tells of goals only when asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets", description="Measure the project's goals.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"what to measure of {', '.join(MEASURES)}; else all")
    parser.add_argument("--runs", type=int, help="how often; each has a number of its own otherwise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values to a file as well")
    parser.add_argument("--strict", action="store_true", help="end with 1 where a goal is missed")
    options = parser.parse_args()
    unknown = set(options.names) - set(MEASURES)
    if unknown:
        parser.error(f"nothing is called {', '.join(sorted(unknown))}")

    groups: dict[str, list[Figure]] = {}
    print(", ".join(f"{name} {number}" for name, number in environment()["versions"].items()))
    print(f"{'':<66} {'median':>10} {'':<8} {'spread (runs)':<28} goal")
    for name in options.names or MEASURES:
        measure, runs = MEASURES[name]
        groups[name] = measure(options.runs or runs)
        for figure in groups[name]:
            print(figure.row(), flush=True)
    if options.json:
        options.json.write_text(report(groups))
    missed = any(figure.is_reached is False for group in groups.values() for figure in group)
    return int(options.strict and missed)


if __name__ == "__main__":
    sys.exit(main())
