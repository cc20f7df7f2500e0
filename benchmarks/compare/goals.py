"""The goals of the project, held against what was measured; and for those that may be missed, why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from ..peers.interface import AT_ONCE, ONE_BY_ONE
from ..peers.registry import BARE, FLOOR, FLOORS, OURS
from .callers import EMPTY
from .cost import NEEDED
from .record import Record


@dataclass(frozen=True)
class Goal:
    """What should be, and what is: ratios within each run, or single values."""

    name: str
    values: Sequence[float]
    limit: float
    most: bool = True
    """Whether ``limit`` is the most that the median may be; otherwise it is the least."""
    unit: str = "x"
    why: str = ""
    """If it is missed."""

    @property
    def is_reached(self) -> bool:
        """Whether the median is within the limit."""
        return median(self.values) <= self.limit if self.most else median(self.values) >= self.limit


def ratios(record: Record, figure: str, over: str, under: str, **of: object) -> list[float]:
    """Return one peer's values divided by another's, run by run."""
    ours, theirs = record.get(figure, over, **of), record.get(figure, under, **of)
    if ours is None or theirs is None:
        return []
    return [one / other for one, other in zip(ours.values, theirs.values, strict=False) if other]


def closest(record: Record, figure: str, names: Sequence[str], **of: object) -> tuple[str, list[float]]:
    """Return the peer that comes closest to aioigd, with the ratios of its values to ours; ours are ``at once``."""
    found = [(name, values) for name in names if (values := _to_ours(record, figure, name, **of))]
    return min(found, key=lambda one: median(one[1]), default=("", []))


def goals(record: Record) -> Iterator[Goal]:
    """Return those goals for which something was measured."""
    yield from (goal for goal in _goals(record) if goal.values)


def _goals(record: Record) -> Iterator[Goal]:
    for gateway in _WHY:
        start = ratios(record, "cold start", OURS, FLOOR, gateway=gateway)
        yield Goal(f"cold start to the blocking floor, {gateway}", start, 1.2, why=_WHY[gateway])
    peers = sorted({one.who for one in record.find("cold start")} - {OURS, *FLOORS})
    for gateway in _WHY:
        name, values = closest(record, "cold start", peers, gateway=gateway)
        yield Goal(f"cold start, {gateway}: the fastest peer ({name}) to aioigd", values, 20, most=False, why=_PEER)
    cpu = ratios(record, "cpu", OURS, BARE, way=ONE_BY_ONE)
    yield Goal("CPU of a mapping to bare aiohttp, one by one", cpu, 1.25, why=_CPU)
    yield Goal(
        "CPU of a mapping to bare aiohttp, at once", ratios(record, "cpu", OURS, BARE, way=AT_ONCE), 1.25, why=_CPU
    )
    of = {"delay": 0.02, "kept": False, "count": 1_000}
    peers = sorted({one.who for one in record.find("batch")} - {OURS, *FLOORS})
    name, values = closest(record, "batch", peers, **of)
    yield Goal(f"1,000 mappings at 20 ms: the fastest peer one by one ({name}) to aioigd", values, 4, most=False)
    values = ratios(record, "batch", OURS, BARE, way=AT_ONCE, **of)
    yield Goal("1,000 mappings at 20 ms to bare aiohttp, 8 at once", values, 1.15, why=_WINDOW)
    lost = record.get("crowded: lost", OURS)
    yield Goal("requests lost by aioigd, one connection at a time", lost.values if lost else [], 0, unit="")
    worst = max(record.find("stall", OURS, way=AT_ONCE, count=1_000), key=lambda one: one.median, default=None)
    if worst:
        where = f"{worst.of['delay'] * 1000:g} ms, connections {'kept' if worst.of['kept'] else 'closed'}"
        yield Goal(f"longest stall in 1,000 at once, the worst ({where})", worst.values, 20, unit="ms", why=_STALL)
    yield from _callers(record)
    yield Goal("import to aiohttp and lxml", ratios(record, "import", OURS, NEEDED), 1.15, why=_IMPORT)


def _callers(record: Record) -> Iterator[Goal]:
    most = max((one.of["callers"] for one in record.find("callers", OURS)), default=0)
    values = _callers_ratio(record, "callers", EMPTY, most)
    yield Goal(f"{most:,} identical callers to as many empty coroutines", values, 2.5, why=_CALLERS)
    for figure, detail in (("callers: cancelled", ""), ("callers: uncollected", ", garbage collector off")):
        large = record.get(figure, OURS, callers=most)
        small = record.get(figure, OURS, callers=most // 10)
        if large and small:
            values = [one / other for one, other in zip(large.values, small.values, strict=False)]
            yield Goal(f"cancelling {most:,} callers to cancelling {most // 10:,}{detail}", values, 12.5, why=_CANCEL)


def _callers_ratio(record: Record, figure: str, other: str, callers: int) -> list[float]:
    return ratios(record, figure, OURS, other, callers=callers)


def _to_ours(record: Record, figure: str, name: str, **of: object) -> list[float]:
    """Return how many times longer a peer takes; in batches it works one by one, as its documentation shows."""
    batch = figure == "batch"
    theirs = record.get(figure, name, **of, **({"way": ONE_BY_ONE} if batch else {}))
    ours = record.get(figure, OURS, **of, **({"way": AT_ONCE} if batch else {}))
    if theirs is None or ours is None:
        return []
    return [one / other for one, other in zip(theirs.values, ours.values, strict=False)]


_WHY: Final = {
    "miniupnpd": "The library sends more searches than one, and checks what the floor takes for granted.",
    "emulated gateway": (
        "This gateway answers at once, so there is nothing to wait for: what is compared is how long a few blocking "
        "calls take, and how long asyncio and aiohttp take to make a session and two connections, with searches on "
        "every target that some router answers alone. On a real gateway the waiting outweighs it."
    ),
}
_PEER: Final = (
    "What is left of aioigd's time is miniupnpd's own: the blocking floor, which does nothing twice, takes nearly as "
    "long. A peer that listens for one second cannot be twenty times slower than that."
)
_CPU: Final = (
    "Beside what bare aiohttp does each mapping has its arguments checked, its place in the order and in the limit, a "
    "deadline, a source address, a task that survives its callers, and a reply that is read with care. The profile "
    "below shows where it goes."
)
_WINDOW: Final = "aioigd begins with four requests at once and reaches eight only as the gateway proves that it copes."
_STALL: Final = (
    "A stall is wall time: on a machine with two processors, one of them taken by the gateway, the loop also waits for "
    "other programs. What the loop's own thread computed without a pause is in the table of stalls."
)
_CALLERS: Final = "Each caller has its arguments checked, and joins the request under way with a future of its own."
_CANCEL: Final = (
    "What grows more than the number is the garbage collector, which looks at all tasks again and again: cancelling "
    "plain tasks, which do nothing, grows by more than the tenfold too, and without the collector the library's is "
    "linear (both in the table of identical callers)."
)
_IMPORT: Final = (
    "The rest is aioigd's own modules; models.py, whose dataclasses are made at import, takes longest of them."
)
