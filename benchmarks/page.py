"""The page of the documentation: the template ``page.md``, filled with tables of what was measured.

``{{name}}`` stands for a table of TABLES, ``{{goals}}`` for the goals, and ``{{measured}}`` for where and when. A
section all of whose tables are empty is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from .bench import Record, Series
from .peers import AT_ONCE, OURS
from .targets import GOALS

TEMPLATE: Final = Path(__file__).with_name("page.md")
TABLES: Final[dict[str, tuple[Sequence[str], str, dict[str, Any]]]] = {
    "cold": (["cold start", "nobody"], "gateway", {}),
    "datagrams": (["first mapping", "UPnP silent"], "gateway", {}),
    "cpu-protocols": (["cpu: protocols"], "way", {}),
    "batches": (["batch"], "delay", {"kept": False, "count": 1_000}),
    "batches-again": (["batch: again"], "delay", {}),
    "batches-kept": (["batch"], "delay", {"kept": True, "count": 1_000}),
    "batches-counts": (["batch"], "count", {"kept": False, "delay": 0.02, "way": "at once"}),
    "crowded": (["crowded: lost", "crowded: resets", "crowded: time"], "figure", {}),
    "stalls": (["stall", "stall: worked"], "delay", {"kept": False, "count": 1_000}),
    "stalls-cold": (["stall: cold", "stall: after callers"], "figure", {}),
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
    filled = {
        name: table(record, figures, across, of, weak=name == "batches")
        for name, (figures, across, of) in TABLES.items()
    }
    rows = [
        (
            *(goal.name, f"{'≥' if goal.least else '≤'} {goal.limit:g}", goal.unit, *shown(values, goal.unit)),
            "reached" if goal.is_reached(values) else "**missed**",
        )
        for goal in GOALS
        if (values := goal.values(record))
    ]
    filled["goals"] = markdown(("", "goal", "unit", "median", "spread", ""), rows)
    known = record.environment
    text = TEMPLATE.read_text("utf-8").replace("{{measured}}", _measured(known))
    sections = []
    for section in re.split(r"(?m)^(?=## )", text):
        names = re.findall(r"\{\{([\w-]+)\}\}", section)
        for name in names:
            section = section.replace(f"{{{{{name}}}}}", filled[name])
        if not names or any(filled[name] for name in names):
            sections.append(section.strip("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(sections)) + "\n"


def write(record: Record, docs: Path) -> None:
    """Write the page, the values and the plots."""
    from .plots import draw  # matplotlib need not be there for the rest

    draw(record, docs / "_static")
    (docs / "_static" / "benchmarks.json").write_text(record.as_json())
    (docs / "benchmarks.md").write_text(page(record), "utf-8")


def table(record: Record, figures: Sequence[str], across: str, of: dict[str, Any], *, weak: bool = False) -> str:
    """Return a table with a row for all that has the same name, and a column for each value of ``across``.

    ``weak``: with another column for what each loses, done in the same way, on a gateway that stands one connection.
    """
    series = [one for figure in figures for one in record.find(figure, **of)]
    found = [({"who": one.who, "figure": one.figure, **one.of}, one) for one in series]
    vary = {key for keys, _ in found for key in keys if len({other.get(key) for other, _ in found}) > 1}
    rows: dict[str, dict[Any, Series]] = {}
    for keys, one in found:
        name = ", ".join(_label(key, value) for key, value in keys.items() if key in vary and key != across)
        rows.setdefault(name, {})[keys.get(across, "")] = one
    names = sorted(rows, key=lambda name: not name.startswith(OURS))
    if not across:
        return markdown(("", "median", "spread"), [(name, *shown(rows[name][""])) for name in names])
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    head = ("", *(_label(across, column) for column in columns))
    cells = [(name, *(cell(rows[name].get(column)) for column in columns)) for name in names]
    if weak:
        head = (*head, "lost on a weak router")
        cells = [(*row, _lost(record, next(iter(rows[row[0]].values())))) for row in cells]
    return markdown(head, cells)


def _lost(record: Record, one: Series) -> str:
    """Return how many mappings of how many were lost on a weak router by who has this series, in the same way."""
    lost = [other for other in record.find("crowded: lost", one.who) if other.of.get("way", AT_ONCE) == one.of["way"]]
    return f"{cell(lost[0])} of {lost[0].of['count']:,}" if lost else ""


def shown(series: Series | Sequence[float], unit: str = "") -> tuple[str, str]:
    """Return the median in the unit in which it is best read, and the least and the greatest."""
    values, unit = (series.values, series.unit) if isinstance(series, Series) else (series, unit)
    if unit == "s" and median(values) < 1:
        values, unit = [value * 1e3 for value in values], "ms"
    middle = f"{_number(median(values))} {unit.replace('us', 'µs')}".rstrip()
    return middle, f"{_number(min(values))} to {_number(max(values))}" if len(set(values)) > 1 else ""


def cell(series: Series | None) -> str:
    """Return a figure in a table with several columns; a clock where a limit ended it."""
    if series is None:
        return ""
    middle, spread = shown(series)
    return ("⏱ " if "limit" in series.note else "") + (f"{middle} ({spread})" if spread else middle)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, or nothing without rows; the first column is text, the others are figures."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if len(lines) > 2 else ""


def _measured(known: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for key in ("packages", "debian") for name, number in known[key].items())
    text = f"{known['date']}: {known['processor']}, {known['system']}, {known['python']}; {versions}."
    text += f" The place: {known['place']}." + (f" Again: {', '.join(known['again'])}." if "again" in known else "")
    text += "".join(f" {note}" for note in known.get("notes", ()))
    return text + (" **This was a smoke test (`--quick`): the figures mean nothing.**" if known.get("quick") else "")


def _label(key: str, value: Any) -> str:
    if key == "delay":
        return f"{value * 1000:g} ms"
    return f"{key} {value:,}" if isinstance(value, int) else str(value)


def _number(value: float) -> str:
    """Return a number with three significant digits."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"
