"""The page of the documentation: the template ``page.md``, filled with what was measured and with nothing else.

``{{name}}`` stands for a value. A line whose value is missing is left out, and so is a section without any value;
``{{?name}}`` is such a condition without being shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from .attacks import ON_PEERS
from .peers import ASYNC_UPNP, BARE, FLOOR, GODOT, MINI, MINI_LONG, OURS, UPNP_CLIENT, UPNPC
from .peers.base import AT_ONCE, ONE_BY_ONE
from .record import Record, Series
from .targets.callers import EMPTY, PLAIN
from .targets.cost import NEEDED
from .targets.hostile import ATTACKED
from .targets.profile import KERNEL

Column = tuple[str, Callable[[Any], str]]
"""A column of a table: its head, and what it shows for a row."""

TEMPLATE: Final = Path(__file__).with_name("page.md")
RESULTS: Final = "benchmarks.json"
PLACES: Final = {
    "lab": (
        "The peers run on the LAN of the project's lab (network namespaces that are joined to nothing); the emulated "
        "gateway, a process of its own, is where the router is."
    ),
    "loopback": "Everything runs on loopback.",
}
GATEWAYS: Final = {"miniupnpd": "miniupnpd", "emulated": "emulated gateway"}
STARTING: Final = (OURS, FLOOR, MINI, MINI_LONG, GODOT, UPNPC, ASYNC_UPNP, UPNP_CLIENT)


@dataclass(frozen=True)
class Goal:
    """What should be, and what is: ratios within each run, or single values."""

    key: str
    name: str
    values: Sequence[float]
    limit: float
    most: bool = True
    """Whether ``limit`` is the most that the median may be; otherwise it is the least."""
    unit: str = "x"

    @property
    def is_reached(self) -> bool:
        """Whether the median is within the limit."""
        return median(self.values) <= self.limit if self.most else median(self.values) >= self.limit

    def missed(self) -> str:
        """Return by how much it is missed, if it is."""
        by = f" by {abs(median(self.values) / self.limit - 1):.0%}" if self.limit else ""
        return "" if self.is_reached else f"*{self.name}*: missed{by}"


def goals(record: Record) -> Iterator[Goal]:
    """Return the goals of the project, with empty values where nothing was measured."""
    peers = sorted({one.who for one in record.series.values()} - {OURS, FLOOR, BARE})
    for key, gateway in GATEWAYS.items():
        values = ratios(
            record.get("cold start", OURS, gateway=gateway), record.get("cold start", FLOOR, gateway=gateway)
        )
        yield Goal(f"floor-{key}", f"cold start to the blocking floor, {gateway}", values, 1.2)
    for key, gateway in GATEWAYS.items():
        ours = record.get("cold start", OURS, gateway=gateway)
        who, values = closest(ours, [record.get("cold start", one, gateway=gateway) for one in peers])
        yield Goal(f"peer-{key}", f"cold start, {gateway}: the fastest peer ({who}) to aioigd", values, 20, most=False)
    for way in (ONE_BY_ONE, AT_ONCE):
        values = ratios(record.get("cpu", OURS, way=way), record.get("cpu", BARE, way=way))
        yield Goal(f"cpu-{way.replace(' ', '-')}", f"CPU of a mapping to bare aiohttp, {way}", values, 1.25)
    of = {"delay": 0.02, "kept": False, "count": 1_000}
    ours = record.get("batch", OURS, way=AT_ONCE, **of)
    who, values = closest(ours, [record.get("batch", one, way=ONE_BY_ONE, **of) for one in peers])
    name = f"1,000 mappings at 20 ms: the fastest peer one by one ({who}) to aioigd"
    yield Goal("batch-peer", name, values, 4, most=False)
    values = ratios(ours, record.get("batch", BARE, way=AT_ONCE, **of))
    yield Goal("batch-bare", "1,000 mappings at 20 ms to bare aiohttp, 8 at once", values, 1.15)
    lost = record.get("crowded: lost", OURS)
    yield Goal("lost", "requests lost by aioigd, one connection at a time", lost.values if lost else [], 0, unit="")
    stalls = record.find("stall", OURS, way=AT_ONCE, count=1_000)
    for worst in sorted(stalls, key=lambda one: one.median)[-1:]:
        where = f"{worst.of['delay'] * 1000:g} ms, connections {'kept' if worst.of['kept'] else 'closed'}"
        yield Goal("stall", f"longest stall in 1,000 at once, the worst ({where})", worst.values, 20, unit="ms")
    callers = max((one.of["callers"] for one in record.find("callers", OURS)), default=0)
    values = ratios(record.get("callers", OURS, callers=callers), record.get("callers", EMPTY, callers=callers))
    yield Goal("callers", f"{callers:,} identical callers to as many empty coroutines", values, 2.5)
    for key, detail in (("cancelled", ""), ("uncollected", ", garbage collector off")):
        many, few = (record.get(f"callers: {key}", OURS, callers=number) for number in (callers, callers // 10))
        name = f"cancelling {callers:,} callers to cancelling {callers // 10:,}{detail}"
        yield Goal(key, name, ratios(many, few), 12.5)
    yield Goal("import", f"import to {NEEDED}", ratios(record.get("import", OURS), record.get("import", NEEDED)), 1.15)


def values(record: Record) -> dict[str, str]:
    """Return what the placeholders of the template stand for; empty where nothing was measured."""
    found = [goal for goal in goals(record) if goal.values]
    filled = {f"missed-{goal.key}": goal.missed() for goal in found}
    filled["missed"] = "".join(filled.values())
    filled["goals"] = table(
        ("goal", "limit", "measured", ""),
        [
            (
                goal.name,
                f"{'≤' if goal.most else '≥'} {goal.limit:g}",
                spread(goal.values, goal.unit),
                "reached" if goal.is_reached else "**missed**",
            )
            for goal in found
        ],
    )
    for part in (_environment, _cold, _batches, _stalls, _costs, _callers, _hostile, _growth, _profile):
        filled |= part(record)
    return filled


def page(record: Record) -> str:
    """Return the page."""
    filled = values(record)
    sections = []
    for section in re.split(r"(?m)^(?=## )", TEMPLATE.read_text("utf-8")):
        lines, used = [], []
        for line in section.splitlines():
            names = re.findall(r"\{\{\??([\w-]+)\}\}", line)
            used += [filled.get(name, "") for name in names]
            if all(filled.get(name) for name in names):
                line = re.sub(r"\{\{\?[\w-]+\}\}", "", line)
                lines.append(re.sub(r"\{\{([\w-]+)\}\}", lambda match: filled[match[1]], line))
        if any(used):
            sections.append("\n".join(lines).strip("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(sections)) + "\n"


def write(record: Record, docs: Path) -> None:
    """Write the page, the values and the plots."""
    from .plots import draw  # matplotlib need not be there for the rest

    static = docs / "_static"
    draw(record, static)
    (static / RESULTS).write_text(json.dumps(record.as_json(), indent=1) + "\n")
    (docs / "benchmarks.md").write_text(page(record), "utf-8")


def _environment(record: Record) -> dict[str, str]:
    known = record.environment
    versions = ", ".join(f"{name} {number}" for name, number in known["packages"].items())
    debian = ", ".join(f"{name} {number}" for name, number in known["debian"].items())
    return {
        "measured": (
            f"{known['date']}: {known['processor']}, {known['system']}, {known['python']}; {versions}; "
            f"Debian's {debian}. {PLACES[known['place']]}"
        ),
        "again": ", ".join(known.get("again", [])),
        "quick": "quick" if known.get("quick") else "",
    }


def _cold(record: Record) -> dict[str, str]:
    def columns(gateway: str) -> list[Column]:
        def to_ours(name: str) -> str:
            found = [record.get("cold start", one, gateway=gateway) for one in (name, OURS)]
            return f"{number(median(ratios(*found)))}x" if name != OURS and all(found) else ""

        return [(gateway, by(record, "cold start", gateway=gateway)), ("to aioigd", to_ours)]

    both = [column for gateway in ("emulated gateway", "miniupnpd") for column in columns(gateway)]
    names = present(record, "cold start", STARTING)
    ours, other = record.get("nobody", OURS), record.get("nobody", ASYNC_UPNP)
    later = "later" if ours and other and ours.median > other.median else ""
    return {
        "cold": grid("", names, [*both, ("no gateway there", by(record, "nobody"))]),
        "nobody-later": later,
        "nobody-sooner": "" if later or not names else "sooner",
    }


def _batches(record: Record) -> dict[str, str]:
    most = _most(record)

    def column(delay: float, *, kept: bool) -> Column:
        def shown(row: tuple[str, str]) -> str:
            count = most if row[1] == AT_ONCE else 1_000
            return cell(record.get("batch", row[0], way=row[1], kept=kept, count=count, delay=delay))

        return f"{delay * 1000:g} ms", shown

    def by_delay(title: str, *, kept: bool) -> str:
        delays = sorted({one.of["delay"] for one in record.find("batch", kept=kept)})
        return grid(title, _ways(record, kept=kept), [column(one, kept=kept) for one in delays], label=", ".join)

    of: dict[str, Any] = {"delay": 0.02, "way": AT_ONCE, "kept": False}
    counts = sorted({one.of["count"] for one in record.find("batch", way=AT_ONCE)})
    crowded = sorted(record.find("crowded: lost"), key=lambda one: (one.who != OURS, one.median))
    heads = {"mappings lost": "crowded: lost", "connections reset": "crowded: resets", "time": "crowded: time"}
    return {
        "most": f"{most:,}" if most else "",
        "batches-closed": by_delay("gateway closes each connection", kept=False),
        "batches-kept": by_delay("gateway keeps connections open", kept=True),
        "batches-counts": grid(
            "at once, 20 ms", _at_once(record), [(f"{one:,}", by(record, "batch", count=one, **of)) for one in counts]
        ),
        "crowded-count": f"{crowded[0].of['count']:,}" if crowded else "",
        "crowded": grid("", [one.who for one in crowded], [(head, by(record, one)) for head, one in heads.items()]),
    }


def _stalls(record: Record) -> dict[str, str]:
    def column(delay: float) -> Column:
        def shown(name: str) -> str:
            of = {"way": AT_ONCE, "kept": False, "delay": delay, "count": _most(record)}
            wall, worked = record.get("stall", name, **of), record.get("stall: worked", name, **of)
            return f"{cell(wall)}, *{quantity(worked.median, 'ms')}*" if worked else cell(wall)

        return f"{delay * 1000:g} ms", shown

    delays = sorted({one.of["delay"] for one in record.find("stall", kept=False)})
    cold = record.get("stall: cold", OURS)
    return {
        "stalls": grid("", _at_once(record) if delays else [], [column(delay) for delay in delays]),
        "stalls-cold": cell(cold),
        "stalls-cold-count": f"{cold.of['count']:,}" if cold else "",
        "stalls-empty": cell(record.get("stall: cold", EMPTY)),
    }


def _costs(record: Record) -> dict[str, str]:
    columns = [
        ("CPU, one by one", by(record, "cpu", way=ONE_BY_ONE)),
        ("CPU, at once", by(record, "cpu", way=AT_ONCE)),
        ("memory", by(record, "memory: peak")),
        ("for each more", by(record, "memory: each")),
        ("import", by(record, "import")),
    ]
    known = {"one mapping": "peak", "each in a batch": "batch_peak", "stays": "kept", "stays of a batch": "batch_kept"}
    figures = ("cpu", "memory: peak", "import")
    names = sorted({one.who for figure in figures for one in record.find(figure)} - {OURS})
    ratio = ratios(record.get("import", OURS), record.get("import", NEEDED))
    return {
        "costs": grid("", [OURS, *names] if names else [], columns),
        "import-ratio": spread(ratio, "x") if ratio else "",
        "memory": grid(
            "",
            present(record, "memory: known", (OURS, BARE)),
            [(head, by(record, "memory: known", which=which)) for head, which in known.items()],
        ),
    }


def _callers(record: Record) -> dict[str, str]:
    columns = [
        ("aioigd", by(record, "callers", "callers", who=OURS)),
        (EMPTY, by(record, "callers", "callers", who=EMPTY)),
        ("cancelled", by(record, "callers: cancelled", "callers", who=OURS)),
        ("without the garbage collector", by(record, "callers: uncollected", "callers", who=OURS)),
        (f"cancelled {PLAIN}", by(record, "callers: cancelled", "callers", who=PLAIN)),
    ]
    counts = sorted({int(one.of["callers"]) for one in record.find("callers")})
    cold = record.find("callers: cold")
    return {
        "callers": grid("callers", counts, columns, label="{:,}".format),
        "callers-cold": ", ".join(f"{one.of['n']:,} identical calls take {cell(one)}" for one in cold),
    }


def _hostile(record: Record) -> dict[str, str]:
    def column(name: str) -> Column:
        def shown(attack: str) -> str:
            seconds = record.get("hostile: time", name, attack=attack)
            memory = record.get("hostile: memory", name, attack=attack)
            stall = record.get("hostile: stall", name, attack=attack)
            if seconds is None or memory is None:
                return ""
            clock = "⏱ " if "time limit" in seconds.note else ""
            stalled = f", stall {quantity(stall.median / 1e3, 's')}" if stall else ""
            return f"{clock}{quantity(seconds.median, 's')}, {number(max(memory.median, 0.0))} MiB{stalled}"

        return name, shown

    attacks = [attack for attack in ON_PEERS if record.find("hostile: time", attack=attack)]
    return {"hostile": grid("", attacks, [column(name) for name in present(record, "hostile: time", ATTACKED)])}


def _growth(record: Record) -> dict[str, str]:
    rows = []
    for figure, key, text, is_shared in (
        ("growth: mappings", "count", "{:,} mappings at once", True),
        ("growth: devices", "devices", "gateway found among {:,} devices", False),
        ("growth: leases", "leases", "{:,} leases taken and released", True),
    ):
        for one in record.find(figure, OURS):
            each = quantity(one.median / one.of[key] * 1e6, "us") if is_shared else ""
            rows.append((text.format(one.of[key]), cell(one), each))
    leases = [one.of["leases"] for one in record.find("growth: leases, memory", OURS)]
    columns = [
        ("memory for each", by(record, "growth: leases, memory", "leases")),
        ("timers", by(record, "growth: leases, timers", "leases")),
    ]
    return {
        "growth": table(("aioigd", "time", "for each"), rows),
        "leases": grid("leases", leases, columns, label="{:,}".format),
    }


def _profile(record: Record) -> dict[str, str]:
    areas = [one.of["area"] for one in record.find("profile: area", OURS) if one.of["area"] != KERNEL]
    functions = [(f"`{one.of['function']}`", cell(one)) for one in record.find("profile: function", OURS)]
    steps = [(str(one.of["step"]), cell(one)) for one in record.find("profile: step", OURS)]
    return {
        "profile-ours": cell(record.get("profile: all", OURS)),
        "profile-bare": cell(record.get("profile: all", BARE)),
        "kernel-ours": cell(record.get("profile: area", OURS, area=KERNEL)),
        "kernel-bare": cell(record.get("profile: area", BARE, area=KERNEL)),
        "profile": grid("", areas, [(who, by(record, "profile: area", "area", who=who)) for who in (OURS, BARE)]),
        "functions": table(("aioigd, for one mapping", ""), functions),
        "steps": table(("step", ""), steps),
    }


def _at_once(record: Record) -> list[str]:
    return [name for name, way in _ways(record, kept=False) if way == AT_ONCE]


def _ways(record: Record, *, kept: bool) -> list[tuple[str, str]]:
    """Return who mapped batches, and how: first ours."""
    found = {(one.who, str(one.of["way"])) for one in record.find("batch", kept=kept)}
    return sorted(found, key=lambda one: (one[1] != AT_ONCE, one[0] != OURS, one[0]))


def _most(record: Record) -> int:
    return max((int(one.of["count"]) for one in record.find("batch", way=AT_ONCE)), default=0)


def ratios(ours: Series | None, theirs: Series | None) -> list[float]:
    """Return the values of one series divided by those of another, run by run."""
    if ours is None or theirs is None:
        return []
    return [one / other for one, other in zip(ours.values, theirs.values, strict=False) if other]


def closest(ours: Series | None, peers: Iterable[Series | None]) -> tuple[str, list[float]]:
    """Return the peer that comes closest to ours, with the ratios of its values to ours."""
    found = [(one.who, ratios(one, ours)) for one in peers if one and ours]
    return min(found, key=lambda one: median(one[1]), default=("", []))


def present(record: Record, figure: str, order: Sequence[str]) -> list[str]:
    """Return those of some names for which a figure was measured."""
    there = {one.who for one in record.find(figure)}
    return [name for name in order if name in there]


def number(value: float) -> str:
    """Return a number with three significant digits."""
    size = abs(value)
    if size >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def quantity(value: float, unit: str) -> str:
    """Return a value in the unit in which it is best read."""
    return spread([value], unit)


def spread(values: Sequence[float], unit: str) -> str:
    """Return the median, and the least and the greatest."""
    if unit == "s" and median(values) < 1:
        values, unit = [value * 1e3 for value in values], "ms"
    if unit == "B" and median(values) >= 10_000:
        values, unit = [value / 1024 for value in values], "KiB"
    write = number if unit else "{:,.0f}".format
    middle = f"{write(median(values))} {unit.replace('us', 'µs')}".rstrip()
    return middle if len(set(values)) == 1 else f"{middle} ({write(min(values))} to {write(max(values))})"


def cell(series: Series | None) -> str:
    """Return a figure as it stands in a table."""
    return spread(series.values, series.unit) if series else ""


def by(record: Record, figure: str, key: str = "who", **of: Any) -> Callable[[Any], str]:
    """Return what shows a figure in the row of each peer, or of each value of another ``key``."""
    return lambda row: cell(record.get(figure, **of, **{key: row}))


def grid(corner: str, rows: Sequence[Any], columns: Sequence[Column], label: Callable[[Any], str] = str) -> str:
    """Return a table with a label and the columns for each row, or nothing without rows."""
    heads = [head for head, _ in columns]
    return table((corner, *heads), [(label(row), *(shown(row) for _, shown in columns)) for row in rows])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, or nothing without rows; the first column is text, the others are figures."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""
