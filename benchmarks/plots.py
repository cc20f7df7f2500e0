"""The plots of the documentation, drawn from what benchmarks.compare measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot

from .bench import Record, Series
from .page import cell

STYLE: Final[dict[Any, Any]] = {
    "figure.facecolor": "white",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "legend.frameon": False,
    "svg.hashsalt": "aioigd",
}


@dataclass(frozen=True)
class Panel:
    """A chart of some figures: bars, or lines over ``x``, a key of theirs; ``of``: of which kind the figures are."""

    title: str
    figures: Sequence[str]
    x: str = ""
    of: dict[str, Any] = field(default_factory=dict)
    log: bool = True


PLOTS: Final[dict[str, Sequence[Panel]]] = {
    "bench-cold.svg": [Panel("seconds from nothing to the first mapping", ["cold start"])],
    "bench-batches.svg": [
        Panel(f"seconds for 1,000 mappings, {way}", ["batch"], "delay", {"way": way, "kept": False, "count": 1_000})
        for way in ("one by one", "at once")
    ],
    "bench-lost.svg": [Panel("mappings lost, one connection at a time", ["crowded: lost"], log=False)],
    "bench-growth.svg": [
        Panel("seconds, mappings at once", ["growth: mappings"], "count"),
        Panel("seconds, identical callers", ["callers", "callers: cancelled"], "callers"),
        Panel("milliseconds, gateway among devices", ["growth: devices", "growth: devices, cpu"], "devices"),
        Panel("seconds, leases taken and released", ["growth: leases"], "leases"),
    ],
    "bench-hot-path.svg": [Panel("microseconds of a mapping", ["profile: area"], log=False)],
}
"""The panels of each file, two in a row."""


def draw(record: Record, directory: Path) -> None:
    """Write all plots for which there are figures."""
    directory.mkdir(parents=True, exist_ok=True)
    mpl.use("svg")
    with mpl.rc_context(STYLE):
        for name, panels in PLOTS.items():
            found = [[one for figure in panel.figures for one in record.find(figure, **panel.of)] for panel in panels]
            if any(found):
                rows, columns = (len(panels) + 1) // 2, min(len(panels), 2)
                size = (8.0, 3.4 * rows)
                figure, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
                for panel, series, place in zip(panels, found, axes.flat, strict=True):
                    chart(place, panel, series)
                figure.savefig(directory / name, metadata={"Date": None})
                pyplot.close(figure)


def chart(axes: Any, panel: Panel, series: Sequence[Series]) -> None:
    """Draw one panel: the medians, and from the least to the greatest."""
    axes.set_title(panel.title, fontsize=9)
    if not panel.x:
        for row, one in enumerate(reversed(series)):
            spread = [[one.median - min(one.values)], [max(one.values) - one.median]]
            axes.barh(row, one.median, xerr=spread, ecolor="#333333", color=_colour(one.who))
            axes.text(max(one.values), row, f" {cell(one).partition(' (')[0]}", va="center", fontsize=8)
        axes.set_yticks(
            range(len(series)),
            [
                ", ".join((one.who, *(str(value) for value in one.of.values() if isinstance(value, str))))
                for one in reversed(series)
            ],
        )
        axes.set_xscale("log" if panel.log else "linear")
        return
    lines: dict[str, list[Series]] = {}
    for one in series:
        lines.setdefault(f"{one.who}{one.figure.removeprefix(panel.figures[0])}", []).append(one)
    for number, (label, points) in enumerate(lines.items()):
        points.sort(key=lambda one: one.of[panel.x])
        x = [one.of[panel.x] for one in points]
        colour = _colour(points[0].who)
        axes.plot(x, [one.median for one in points], "-o" if number % 2 else "--o", ms=3, label=label, color=colour)
        least, greatest = [min(one.values) for one in points], [max(one.values) for one in points]
        axes.fill_between(x, least, greatest, alpha=0.15, color=colour)
    axes.set(xlabel=panel.x, yscale="log", xscale="symlog" if panel.x == "delay" else "log")
    if panel.x == "delay":
        axes.set_xscale("symlog", linthresh=0.005)
    axes.legend(fontsize=7)


_colours: dict[str, str] = {}


def _colour(who: str) -> str:
    """Return the colour of a peer, the same in all plots."""
    return _colours.setdefault(who, f"C{len(_colours)}")
