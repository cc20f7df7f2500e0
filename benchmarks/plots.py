"""The plots of the documentation, drawn from what benchmarks.compare measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot

from .bench import Record, Series
from .page import cell
from .peers import PEERS

STYLE: Final[dict[Any, Any]] = {
    **{"figure.facecolor": "white", "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e4e4e4"},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9, "font.size": 8},
    **{"legend.frameon": False, "svg.hashsalt": "aioigd"},
}
Panel = tuple[str, Sequence[str], str, dict[str, Any]]
"""A chart of some figures: its title, the figures, the key that is x (none: bars), and of which kind they are."""

PLOTS: Final[dict[str, Sequence[Panel]]] = {
    "bench-cold.svg": [("seconds from nothing to the first mapping (logarithmic)", ["cold start"], "", {})],
    "bench-batches.svg": [
        (f"seconds for 1,000 mappings, {way}", ["batch"], "delay", {"way": way, "kept": False, "count": 1_000})
        for way in ("one by one", "at once")
    ],
    "bench-lost.svg": [("mappings lost, one connection at a time", ["crowded: lost"], "", {})],
    "bench-growth.svg": [
        ("seconds, mappings at once", ["growth: mappings"], "count", {}),
        ("seconds, identical callers", ["callers", "callers: cancelled"], "callers", {}),
        ("milliseconds, gateway among devices", ["growth: devices", "growth: devices, cpu"], "devices", {}),
        ("seconds, leases taken and released", ["growth: leases"], "leases", {}),
    ],
    "bench-hot-path.svg": [("microseconds of a mapping", ["profile: area"], "", {})],
}
"""The panels of each file, two in a row."""


def draw(record: Record, directory: Path) -> None:
    """Write all plots for which there are figures."""
    directory.mkdir(parents=True, exist_ok=True)
    mpl.use("svg")
    with mpl.rc_context(STYLE):
        for name, panels in PLOTS.items():
            found = [[one for figure in figures for one in record.find(figure, **of)] for _, figures, _, of in panels]
            rows, columns = (len(panels) + 1) // 2, min(len(panels), 2)
            if any(found):
                size = (8.0, 3.4 * rows)
                figure, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
                for (title, _, x, _), series, place in zip(panels, found, axes.flat, strict=True):
                    place.set_title(title)
                    chart(place, series, x)
                figure.savefig(directory / name, metadata={"Date": None})
                pyplot.close(figure)


def chart(axes: Any, series: Sequence[Series], x: str) -> None:
    """Draw the medians, and from the least to the greatest, as bars or as lines over ``x``."""
    lines: dict[str, list[Series]] = {}
    for one in series:
        kinds = (
            [str(value) for value in one.of.values() if isinstance(value, str)]
            if not x
            else [one.figure.rpartition(": ")[2]]
        )
        lines.setdefault(", ".join([one.who, *kinds]), []).append(one)
    for number, (label, points) in enumerate(lines.items()):
        points.sort(key=lambda one: one.of.get(x, 0))
        middle = [one.median for one in points]
        least, greatest = [min(one.values) for one in points], [max(one.values) for one in points]
        colour = f"C{list(PEERS).index(points[0].who)}" if points[0].who in PEERS else "#999999"
        if x:
            places = [one.of[x] for one in points]
            axes.plot(
                places,
                middle,
                ":o" if "cancelled" in label or "cpu" in label else "-o",
                ms=3,
                label=label,
                color=colour,
            )
            axes.fill_between(places, least, greatest, alpha=0.15, color=colour)
        else:
            spread = [[middle[0] - least[0]], [greatest[0] - middle[0]]]
            axes.barh(label, middle[0], xerr=spread, ecolor="#333333", color=colour)
            axes.text(greatest[0], number, f" {cell(points[0]).partition(' (')[0]}", va="center")
    if x:
        axes.set(xlabel=x, yscale="log")
        if x == "delay":
            axes.set_xscale("symlog", linthresh=0.005)
            axes.set_xlim(left=0)
        else:
            axes.set_xscale("log")
        if lines:
            axes.legend(fontsize=6)
    else:
        axes.invert_yaxis()
        axes.set_xscale("log" if series and series[0].figure == "cold start" else "linear")
