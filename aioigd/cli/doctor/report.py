"""What ``doctor`` shows: what was looked at, and what is to be done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ...results import UPnPResult
from ..format import clean, host_of, listed, name_of
from .rules import Advice, Findings, Severity

__all__ = ["report"]

_MARKS: Final = {
    Severity.PROBLEM: ("✗ ", "bold red"),
    Severity.WARNING: ("! ", "bold yellow"),
    Severity.NOTE: ("· ", "bold cyan"),
}
_GOOD: Final = ("✓", "bold green")
_BAD: Final = ("✗", "bold red")
_UNSURE: Final = ("!", "bold yellow")
_WIDEST: Final = 88


def report(findings: Findings, advice: Sequence[Advice]) -> RenderableType:
    """Return the whole report."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for (mark, style), what, text in _checks(findings):
        table.add_row(Text(mark, style=style), Text(what, style="bold"), Text(text))
    parts: list[RenderableType] = [table]
    for each in advice:
        parts += [Text(), *_advice(each)]
    if not advice:
        parts += [Text(), Text("All is well: ports can be opened, and are open to the internet.", style="green")]
    return Group(*parts)


def _checks(found: Findings) -> Iterator[tuple[tuple[str, str], str, str]]:
    links = listed([str(link) for link in found.links])
    yield (_GOOD if links else _BAD), "This machine", links or "not connected to any network"
    if found.links:
        hops = listed(sorted(found.next_hops))
        yield (
            (_GOOD if hops else _UNSURE),
            "Way to the internet",
            f"over {hops}" if hops else "no default route is known",
        )
        gateways = found.valid_gateways
        yield (
            _GOOD if len(gateways) == 1 else _UNSURE if gateways else _BAD,
            "Gateway",
            listed([f"{name_of(each)} at {host_of(each.description_url)}" for each in gateways]) or "none answers",
        )
    if found.gateway is None:
        return
    address = found.external_address
    is_open = address is not None and address.is_global
    yield (_GOOD if is_open else _UNSURE if address is None else _BAD), "Internet address", str(address or "not told")
    if found.mappings is not None:
        yield _GOOD, "Ports open now", str(found.mappings)
    trial = found.trial
    if trial is not None:
        works = trial.result is UPnPResult.SUCCESS and trial.was_there
        says = "a port was opened and closed again" if works else clean(trial.reason) or "not really"
        yield (_GOOD if works else _BAD), "Opening a port", says


def _advice(advice: Advice) -> Iterator[RenderableType]:
    mark, style = _MARKS[advice.severity]
    yield Text.assemble((mark, style), (advice.title, "bold"))
    yield _indented(Text(advice.why))
    for each in advice.to_do:
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_row(Text("→", style="cyan"), Text(each, overflow="fold"))
        yield _indented(line)


def _indented(what: RenderableType) -> Padding:
    return Padding(_narrow(what), (0, 0, 0, 2))


def _narrow(what: RenderableType) -> RenderableType:
    grid = Table.grid()
    grid.add_column(max_width=_WIDEST, overflow="fold")
    grid.add_row(what)
    return grid
