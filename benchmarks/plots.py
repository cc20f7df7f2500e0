"""The plots of the documentation, drawn from what benchmarks.compare measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot

from .peers import ASYNC_UPNP, BARE, FLOOR, GODOT, MINI, MINI_LONG, OURS, UPNP_CLIENT, UPNPC
from .peers.base import AT_ONCE, ONE_BY_ONE
from .record import Record, Series
from .targets.callers import EMPTY, PLAIN
from .targets.profile import KERNEL

COLOURS: Final = {
    OURS: "#1b6ca8",
    BARE: "#7f7f7f",
    FLOOR: "#b0b0b0",
    MINI: "#d9822b",
    MINI_LONG: "#e8b07a",
    ASYNC_UPNP: "#3a9b5c",
    UPNP_CLIENT: "#8f5bb5",
    GODOT: "#c0504d",
    UPNPC: "#8c6d4f",
    EMPTY: "#7f7f7f",
    PLAIN: "#b0b0b0",
}
STYLE: Final[dict[Any, Any]] = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "aioigd",
    "svg.fonttype": "path",
}


def cold(record: Record) -> Any:
    """Draw the cold starts as bars."""
    figure, axes = pyplot.subplots(figsize=(7.5, 3.6), layout="constrained")
    gateways = ("emulated gateway", "miniupnpd")
    names = [one.who for one in record.find("cold start", gateway=gateways[0])]
    order = [name for name in (FLOOR, OURS, MINI, GODOT, MINI_LONG, UPNPC, ASYNC_UPNP, UPNP_CLIENT) if name in names]
    for shift, gateway, shade in ((0.2, gateways[0], 0.45), (-0.2, gateways[1], 1.0)):
        for row, name in enumerate(reversed(order)):
            one = record.get("cold start", name, gateway=gateway)
            if one is None:
                continue
            low, high = one.median - min(one.values), max(one.values) - one.median
            axes.barh(row + shift, one.median, 0.36, color=COLOURS[name], alpha=shade)
            axes.errorbar(one.median, row + shift, xerr=[[low], [high]], color="#333333", linewidth=1)
            text = f"{one.median * 1e3:.3g} ms" if one.median < 1 else f"{one.median:.2f} s"
            axes.text(max(one.values) * 1.12, row + shift, text, va="center", fontsize=8)
    axes.set_yticks(range(len(order)), list(reversed(order)))
    axes.set_xscale("log")
    axes.set_xlim(right=20)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("seconds from nothing to the first mapping (logarithmic)\npale: emulated gateway, full: miniupnpd")
    return figure


def batches(record: Record) -> Any:
    """Draw the time of 1,000 mappings over the gateway's delay."""
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
    for panel, way, title in (
        (axes[0], ONE_BY_ONE, "one after another (dashed), against aioigd at once"),
        (axes[1], AT_ONCE, "at once: 8 (aioigd, bare), 100 or 128 requests"),
    ):
        for name in (OURS, BARE, MINI, ASYNC_UPNP, UPNP_CLIENT, GODOT, UPNPC):
            ours_at_once = name == OURS
            found = record.find("batch", name, way=AT_ONCE if ours_at_once else way, kept=False, count=1_000)
            style = "-" if ours_at_once or way == AT_ONCE else "--"
            _line(panel, found, "delay", name, style, scale=1e3)
        panel.set(yscale="log", title=title, xlabel="time the gateway takes for each action, ms")
        panel.set_xscale("symlog", linthresh=5)
        panel.set_xlim(-0.5, 130)
        panel.set_xticks([0, 5, 20, 100], ["0", "5", "20", "100"])
        panel.title.set_fontsize(9.5)
    axes[0].set_ylabel("seconds for 1,000 mappings")
    axes[0].legend(ncols=2)
    if axes[1].lines:
        axes[1].legend()
    return figure


GROWTH: Final = (
    ("count", "mappings at once, gateway of 0 ms", "seconds", (("growth: mappings", OURS), ("growth: mappings", BARE))),
    (
        "callers",
        "identical callers",
        "seconds",
        (("callers", OURS), ("callers", EMPTY), ("callers: cancelled", OURS), ("callers: cancelled", PLAIN)),
    ),
    (
        "devices",
        "devices on the network",
        "milliseconds until the gateway is found",
        (("growth: devices", OURS), ("growth: devices, cpu", OURS)),
    ),
    ("leases", "leases held", "seconds to take and release them", (("growth: leases", OURS),)),
)


def growth(record: Record) -> Any:
    """Draw how cost grows, each beside a line that is proportional."""
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
    for panel, (key, label, unit, lines) in zip(axes.flat, GROWTH, strict=True):
        first: list[Series] = []
        for which, name in lines:
            found = list(record.find(which, name))
            first = first or found
            detail = {"callers: cancelled": ", cancelled", "growth: devices, cpu": ", CPU time"}.get(which, "")
            _line(panel, found, key, f"{name}{detail}", "--" if detail else "-", colour=COLOURS[name])
        if len(first) > 1:
            end = max(first, key=lambda one: one.of[key])
            ends = [min(one.of[key] for one in first), end.of[key]]
            panel.plot(ends, [end.median * x / end.of[key] for x in ends], ":", color="#aaaaaa", label="proportional")
        panel.set(xscale="log", yscale="log", xlabel=label, ylabel=unit)
        if panel.lines:
            panel.legend()
    return figure


def lost(record: Record) -> Any:
    """Draw the requests that are lost on a gateway of one connection."""
    series = sorted(record.find("crowded: lost"), key=lambda one: one.median, reverse=True)
    figure, axes = pyplot.subplots(figsize=(7.5, 2.4), layout="constrained")
    for row, one in enumerate(series):
        axes.barh(row, one.median, 0.6, color=COLOURS.get(one.who, "#999999"))
        axes.text(one.median + 8, row, f"{one.median:,.0f}", va="center", fontsize=8)
    axes.set_yticks(range(len(series)), [one.who for one in series])
    axes.grid(axis="y", visible=False)
    count = series[0].of["count"] if series else 0
    axes.set(xlim=(0, count * 1.08 or 1), xlabel=f"mappings lost of {count:,} at once, one connection at a time")
    return figure


def hot_path(record: Record) -> Any:
    """Draw where the microseconds of a mapping go."""
    figure, axes = pyplot.subplots(figsize=(7.5, 2.2), layout="constrained")
    colours = ("#1b6ca8", "#3a9b5c", "#d9822b", "#8f5bb5", "#c0504d", "#8c6d4f", "#9a9a9a")
    names = [name for name in (BARE, OURS) if record.get("profile: all", name)]
    for row, name in enumerate(names):
        left = 0.0
        areas = [one for one in record.find("profile: area", name) if one.of["area"] != KERNEL]
        for colour, one in zip(colours, areas, strict=False):
            label = one.of["area"] if row == 0 else None
            axes.barh(row, one.median, 0.55, left=left, color=colour, label=label)
            left += one.median
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("microseconds of CPU time for one mapping, gateway of 0 ms")
    axes.legend(ncols=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.0, handlelength=1.0)
    return figure


PLOTS: Final[dict[str, tuple[str, Callable[[Record], Any]]]] = {
    "bench-cold.svg": ("cold start", cold),
    "bench-batches.svg": ("batch", batches),
    "bench-lost.svg": ("crowded: lost", lost),
    "bench-growth.svg": ("growth: mappings", growth),
    "bench-hot-path.svg": ("profile: all", hot_path),
}
"""For each file what has to have been measured, and what draws it."""


def draw(record: Record, directory: Path) -> None:
    """Write all plots for which there are figures."""
    directory.mkdir(parents=True, exist_ok=True)
    mpl.use("svg")
    with mpl.rc_context(STYLE):
        for name, (needed, plot) in PLOTS.items():
            if any(record.find(needed)):
                figure = plot(record)
                figure.savefig(directory / name, metadata={"Date": None})
                pyplot.close(figure)


def _line(
    panel: Any, found: Iterable[Series], key: str, label: str, style: str, *, colour: str = "", scale: float = 1.0
) -> None:
    points = sorted((one.of[key] * scale, one.median, min(one.values), max(one.values)) for one in found)
    if not points:
        return
    x, middle, low, high = zip(*points, strict=True)
    colour = colour or COLOURS.get(label, "#333333")
    panel.plot(x, middle, style, marker="o", markersize=3.5, color=colour, label=label)
    panel.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
