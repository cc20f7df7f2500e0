"""The page of the documentation: the template ``page.md``, filled with tables of what was measured.

``{{name}}`` stands for a table of TABLES, ``{{goals}}`` for the goals, and ``{{measured}}`` for where and when. A
section all of whose tables are empty is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from .bench import Record, Series
from .peers import OURS
from .targets import GOALS

TEMPLATE: Final = Path(__file__).with_name("page.md")
PLACES: Final = {
    "lab": (
        "The peers run on the LAN of the project's lab (network namespaces that are joined to nothing); the gateway, a "
        "process of its own, is where the router is."
    ),
    "loopback": "Everything runs on loopback.",
}
TABLES: Final[dict[str, tuple[Sequence[str], str, dict[str, Any]]]] = {
    "cold": (["cold start", "nobody"], "gateway", {}),
    "batches": (["batch"], "delay", {"kept": False, "count": 1_000}),
    "batches-kept": (["batch"], "delay", {"kept": True, "count": 1_000}),
    "batches-counts": (["batch"], "count", {"kept": False, "delay": 0.02, "way": "at once"}),
    "lost": (["lost"], "delay", {"kept": False}),
    "crowded": (["crowded: lost", "crowded: resets", "crowded: time"], "figure", {}),
    "stalls": (["stall", "stall: worked"], "delay", {"kept": False, "count": 1_000}),
    "stalls-cold": (["stall: cold"], "", {}),
    "costs": (["cpu", "cpu: kernel", "memory: peak", "memory: each", "import"], "figure", {}),
    "memory": (["memory: known"], "which", {}),
    "callers": (["callers", "callers: cancelled", "callers: uncollected", "callers: cold"], "callers", {}),
    "hostile": (["hostile: time", "hostile: memory", "hostile: stall"], "who", {}),
    "growth": (["growth: mappings", "growth: mappings, stall"], "count", {}),
    "devices": (["growth: devices", "growth: devices, cpu"], "", {}),
    "leases": (["growth: leases", "growth: leases, memory", "growth: leases, timers"], "figure", {}),
    "profile": (["profile: area"], "who", {}),
    "functions": (["profile: function"], "", {}),
    "steps": (["profile: step"], "", {}),
}
"""For each table its figures, what its columns are (one for each value of it), and of which kind the figures are."""


def page(record: Record) -> str:
    """Return the page."""
    filled = {name: table(record, figures, across, of) for name, (figures, across, of) in TABLES.items()}
    filled["goals"] = goals(record)
    sections = []
    for section in re.split(r"(?m)^(?=## )", TEMPLATE.read_text("utf-8")):
        names = set(re.findall(r"\{\{([\w-]+)\}\}", section))
        if any(filled.get(name, name) for name in names):
            values = {**filled, "measured": measured(record.environment)}
            sections.append(re.sub(r"\{\{([\w-]+)\}\}", lambda match: values[match[1]], section).strip("\n"))  # noqa: B023
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(sections)) + "\n"


def write(record: Record, docs: Path) -> None:
    """Write the page, the values and the plots."""
    from .plots import draw  # matplotlib need not be there for the rest

    draw(record, docs / "_static")
    (docs / "_static" / "benchmarks.json").write_text(json.dumps(record.as_json(), indent=1) + "\n")
    (docs / "benchmarks.md").write_text(page(record), "utf-8")


def measured(known: dict[str, Any]) -> str:
    """Return on what the record was made."""
    versions, debian = (", ".join(map(" ".join, known[key].items())) for key in ("packages", "debian"))
    return (
        f"{known['date']}: {known['processor']}, {known['system']}, {known['python']}; {versions}"
        f"{debian and f'; of Debian {debian}'}. {PLACES[known['place']]}"
        + (" **This was a smoke test (`--quick`): the figures mean nothing.**" if known.get("quick") else "")
        + (
            f" Measured again later, in the place of what it had: {', '.join(known['again'])}."
            if "again" in known
            else ""
        )
    )


def goals(record: Record) -> str:
    """Return the table of the goals for which something was measured, and why some are missed."""
    found = [(goal, values) for goal in GOALS if (values := goal.values(record))]
    rows = [
        (
            *(
                goal.name,
                f"{'≥' if goal.least else '≤'} {goal.limit:g} {goal.unit}".rstrip(),
                *shown(values, goal.unit),
            ),
            "reached" if goal.is_reached(values) else "**missed**",
        )
        for goal, values in found
    ]
    missed = [f"- *{goal.name}*: {goal.why}" for goal, values in found if goal.why and not goal.is_reached(values)]
    why = "\n\nWhere a goal is missed, and why:\n\n" + "\n".join(missed) if missed else ""
    return markdown(("", "goal", "median", "spread", ""), rows) + why


def table(record: Record, figures: Sequence[str], across: str, of: dict[str, Any]) -> str:
    """Return a table with a row for all that has the same name, and a column for each value of ``across``."""
    found = [(keys(one), one) for figure in figures for one in record.find(figure, **of)]
    vary = {key for every, _ in found for key in every if len({each.get(key) for each, _ in found}) > 1}
    rows: dict[str, dict[Any, Series]] = {}
    for every, one in found:
        name = ", ".join(label(key, value) for key, value in every.items() if key in vary and key != across)
        rows.setdefault(name, {})[every.get(across, "")] = one
    names = sorted(rows, key=lambda name: not name.startswith(OURS))
    if not across:
        return markdown(("", "median", "spread"), [(name, *shown(rows[name][""])) for name in names])
    columns = dict.fromkeys(column for row in rows.values() for column in row)
    heads = [label(across, column) for column in columns]
    return markdown(("", *heads), [(name, *(cell(rows[name].get(column)) for column in columns)) for name in names])


def keys(series: Series) -> dict[str, Any]:
    """Return all that tells a series from others."""
    return {"who": series.who, "figure": series.figure, **series.of}


def label(key: str, value: Any) -> str:
    """Return how a value is called in the name of a row or in the head of a column."""
    if key == "delay":
        return f"{value * 1000:g} ms"
    return f"{key} {value:,}" if isinstance(value, int) else str(value)


def shown(series: Series | Sequence[float], unit: str = "") -> tuple[str, str]:
    """Return the median in the unit in which it is best read, and the least and the greatest."""
    values, unit = (series.values, series.unit) if isinstance(series, Series) else (series, unit)
    if unit == "s" and median(values) < 1:
        values, unit = [value * 1e3 for value in values], "ms"
    middle = f"{number(median(values))} {unit.replace('us', 'µs')}".rstrip()
    return middle, f"{number(min(values))} to {number(max(values))}" if len(set(values)) > 1 else ""


def cell(series: Series | None) -> str:
    """Return a figure in a table with several columns; a clock where a limit ended it."""
    if series is None:
        return ""
    middle, spread = shown(series)
    limited = "⏱ " if "limit" in series.note else ""
    return f"{limited}{middle} ({spread})" if spread else f"{limited}{middle}"


def number(value: float) -> str:
    """Return a number with three significant digits."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, or nothing without rows; the first column is text, the others are figures."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if len(lines) > 2 else ""
