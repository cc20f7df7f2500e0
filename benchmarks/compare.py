"""Everything side by side, in one command: measure, write the JSON, the page of the documentation and the plots.

Run it from the root of the project::

    python -m benchmarks.compare [--quick] [--only NAME ...] [--json FILE] [--docs DIRECTORY]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from . import page
from .bench import Record, bench, environment
from .targets import GOALS, TARGETS


def main() -> int:
    """Measure, and write; the exit status tells of goals only when asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description="Compare aioigd with its peers.")
    parser.add_argument("--quick", action="store_true", help="a smoke test: little of everything")
    parser.add_argument("--only", nargs="+", choices=TARGETS, metavar="NAME", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all values go")
    parser.add_argument("--rest", type=Path, metavar="FILE", help="take what is not measured from an earlier --json")
    parser.add_argument("--docs", type=Path, metavar="DIRECTORY", help="write benchmarks.md and its plots there")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="measure nothing, show an earlier --json")
    parser.add_argument("--note", help="what else the page says of how it was measured")
    parser.add_argument("--strict", action="store_true", help="end with 1 where a goal is missed")
    options = parser.parse_args()
    if options.from_json:
        record = Record(json.loads(options.from_json.read_text()))
    else:
        record = Record({"environment": {**environment(), "quick": options.quick}})
        with bench(options.quick, record) as running:
            try:
                for name in options.only or TARGETS:
                    running.say(name)
                    TARGETS[name](running)
            except KeyboardInterrupt:
                record.environment["interrupted"] = True  # what has been measured until then is shown
            running.say("measured")
    if options.rest:
        earlier = Record(json.loads(options.rest.read_text()))
        record.series = {
            **{key: one for key, one in earlier.series.items() if key not in record.series},
            **record.series,
        }
        record.environment = {**earlier.environment, "again": options.only or []}
    if options.note:
        record.environment["notes"] = [*record.environment.get("notes", ()), options.note]
    if options.json:
        options.json.write_text(record.as_json())
    if options.docs:
        page.write(record, options.docs)
    else:
        print(page.page(record))
    missed = any(values and not goal.is_reached(values) for goal in GOALS for values in [goal.values(record)])
    return int(options.strict and missed)


if __name__ == "__main__":
    sys.exit(main())
