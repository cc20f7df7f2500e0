"""What is measured, by name, and what should be; each target takes the bench and adds to its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ..bench import Bench, Goal
from . import batches, callers, cold, cost, growth, hostile

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
    "hot-path": cost.hot_path,
    "batches": batches.closed,
    "batches-kept": batches.kept,
    "stalls": batches.stalls,
}
GOALS: Final[tuple[Goal, ...]] = (*cold.GOALS, *cost.GOALS, *batches.GOALS, *callers.GOALS)
