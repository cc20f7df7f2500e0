"""Everything in one command: measure, write the JSON, the page of the documentation and the plots.

Run it from the root of the project::

    python -m benchmarks.compare [--quick] [--only NAME ...] [--json FILE] [--docs DIRECTORY]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from . import batches, callers, cold, cost, document, growth, hostile, hotpath
from .bench import Bench
from .place import site
from .plan import Plan, quick
from .record import Record, environment

SCENARIOS: Final[dict[str, Callable[[Bench], None]]] = {
    "nobody": cold.nobody,
    "hostile": hostile.measure,
    "leases": growth.leases,
    "devices": growth.devices,
    "cold": cold.emulated,
    "cold-lab": cold.real,
    "memory": cost.memory,
    "imports": cost.imports,
    "cpu": cost.cpu,
    "callers": callers.measure,
    "one-at-a-time": batches.one_at_a_time,
    "mappings": growth.mappings,
    "hot-path": hotpath.measure,
    "batches": batches.closed,
    "batches-kept": batches.kept,
}


def measure(plan: Plan, names: list[str], record: Record) -> None:
    """Run the scenarios. Who interrupts gets what has been measured until then."""
    with site() as place:
        record.environment["place"] = "lab" if place.lab else "loopback"
        bench = Bench(place, plan, record)
        try:
            for name in names:
                bench.say(name)
                SCENARIOS[name](bench)
        except KeyboardInterrupt:
            record.environment["interrupted"] = True
        bench.say("measured")


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test: little of everything")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="NAME", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all values go")
    parser.add_argument("--rest", type=Path, metavar="FILE", help="take what is not measured from an earlier --json")
    parser.add_argument("--docs", type=Path, metavar="DIRECTORY", help="write benchmarks.md and its plots there")
    options = parser.parse_args()
    plan = quick() if options.quick else Plan()
    record = Record()
    record.environment = {**environment(), "quick": options.quick}
    measure(plan, options.only or list(SCENARIOS), record)
    if options.rest:
        record.fill(Record.from_json(json.loads(options.rest.read_text())), options.only or [])
    if options.json:
        options.json.write_text(json.dumps(record.as_json(), indent=1) + "\n")
    if options.docs:
        document.write(record, options.docs)
    else:
        print(document.page(record))


if __name__ == "__main__":
    main()
