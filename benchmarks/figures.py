"""A measured figure: its values, their spread, the goal it is held against, and how all of them are shown."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Figure:
    """What was measured, once for each run. Less is better; ``goal`` is the most that it should be."""

    name: str
    values: Sequence[float]
    unit: str
    goal: float | None = None

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def is_reached(self) -> bool | None:
        """Whether the median is within the goal, None where there is none."""
        return None if self.goal is None else self.middle <= self.goal

    def row(self) -> str:
        """Return the figure as a line of a table."""
        spread = f"{min(self.values):.4g} to {max(self.values):.4g} ({len(self.values)})"
        goal = "" if self.goal is None else f"<= {self.goal:g}"
        verdict = {True: "reached", False: "MISSED", None: ""}[self.is_reached]
        return f"{self.name:<66} {self.middle:>10.4g} {self.unit:<8} {spread:<28} {goal:<9} {verdict}".rstrip()

    def as_json(self) -> dict[str, Any]:
        """Return everything about the figure."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.middle,
            "values": list(self.values),
            "goal": self.goal,
            "reached": self.is_reached,
        }


def ratios(name: str, ours: Sequence[float], theirs: Sequence[float], goal: float | None = None) -> Figure:
    """Return how much more ours took than theirs, run by run: the two of a run were measured right after each other."""
    return Figure(name, [one / other for one, other in zip(ours, theirs, strict=True)], "x", goal)


def environment() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "python": sys.version,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "versions": {name: version(name) for name in ("aioigd", "aiohttp", "lxml", "yarl", "async-timeout")},
    }


def report(groups: dict[str, list[Figure]]) -> str:
    """Return all figures and the environment as JSON."""
    figures = {name: [figure.as_json() for figure in group] for name, group in groups.items()}
    return json.dumps({"environment": environment(), "figures": figures}, indent=2)
