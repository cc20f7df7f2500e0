"""What is measured, by name; each target takes the bench and adds to its record.

A target is held against its goal, where it has one, by :mod:`benchmarks.page`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ..bench import Bench
from . import batches, callers, cold, cost, growth, hostile, profile

TARGETS: Final[Mapping[str, Callable[[Bench], None]]] = {
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
    "hot-path": profile.measure,
    "batches": batches.closed,
    "batches-kept": batches.kept,
    "stalls": batches.stalls,
}
