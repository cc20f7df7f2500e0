"""How values are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from .record import Record, Series


def number(value: float) -> str:
    """Return a number with three digits that count."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def quantity(value: float, unit: str) -> str:
    """Return a value in the unit in which it is best read."""
    if unit == "":
        return f"{value:,.0f}"
    if unit == "s" and value < 1:
        return f"{number(value * 1e3)} ms"
    if unit == "us":
        return f"{number(value)} µs"
    if unit == "B" and value >= 10_000:
        return f"{number(value / 1024)} KiB"
    return f"{number(value)} {unit}".rstrip()


def spread(values: Sequence[float], unit: str) -> str:
    """Return the median, and the least and the greatest."""
    if len(set(values)) == 1:
        return quantity(values[0], unit)
    scaled, shown = list(values), unit
    if unit == "s" and median(values) < 1:
        scaled, shown = [value * 1e3 for value in values], "ms"
    if unit == "B" and median(values) >= 10_000:
        scaled, shown = [value / 1024 for value in values], "KiB"
    shown = shown.replace("us", "µs")
    write = "{:,.0f}".format if not unit else number
    return f"{write(median(scaled))} {shown}".rstrip() + f" ({write(min(scaled))} to {write(max(scaled))})"


def cell(series: Series | None) -> str:
    """Return a figure as it stands in a table."""
    return spread(series.values, series.unit) if series else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; the first column is text, the others are figures."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def present(record: Record, figure: str, order: Sequence[str]) -> list[str]:
    """Return those of some names for which a figure was measured."""
    there = {one.who for one in record.find(figure)}
    return [name for name in order if name in there]
