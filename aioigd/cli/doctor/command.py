"""``aioigd doctor``: finds out why ports cannot be opened. Options, report, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

import click
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ... import UPnPResult
from ...text import printable
from ..format import ERROR_MARK, PROTOCOL_NAMES, WARNING_MARK, joined, name_and_host, protocol_names
from ..options import Command, Settings, common_options
from ..output import busy, device_json
from ..runner import Exit, run
from .collect import collect_findings
from .rules import Advice, Findings, Severity, diagnose

__all__ = ["doctor"]

_MARKS: Final = {
    Severity.PROBLEM: ERROR_MARK,
    Severity.WARNING: WARNING_MARK,
    Severity.NOTE: ("· ", "bold cyan"),
}
_GOOD: Final = ("✓", "bold green")
_BAD: Final = ("✗", "bold red")
_UNSURE: Final = ("!", "bold yellow")
_MAX_COLUMNS: Final = 88

_EPILOG = """\
\b
It tells of:
  no network, no gateway on any interface, UPnP switched off, an access point
  that is no router, a description that cannot be read, several gateways, a
  gateway that is not the router in use, double NAT, CGNAT, no external
  address, no connection, VPN, container, the wrong interface, a firewall that
  drops multicast, a router that refuses, a full table, a yes that is a no,
  another NAT in between, a protocol that is there and serves nobody, a VPN
  whose gateway has to be named, and what the router is particular about.

\b
JSON, one document:
  {"advice": [{"code", "severity" ("PROBLEM", "WARNING" or "NOTE"),
               "title", "why", "to_do": [...]}],
   "findings": {"links", "asked_for", "default_address", "next_hops",
                "router_is_there", "in_container", "unicast_only",
                "devices": [as in discover], "gateway": {as in discover},
                "external_address", "is_connected", "mappings", "trial",
                "named", "replies": [{"protocol", "said" ("served", "refused",
                "closed" or "silent"), "result", "error_code", "reason"}]}}

Exits with 0 if there is nothing worse than a note, with 4 otherwise.
"""


@click.command(cls=Command, epilog=_EPILOG)
@click.option("--no-trial", is_flag=True, help="Do not open a port to see whether that can be done.")
@common_options
def doctor(settings: Settings, no_trial: bool) -> None:
    """Find out why ports cannot be opened, and say what to do.

    Looks at this machine, searches on all its interfaces, asks the gateway, and opens a TCP port there that nobody
    uses, for a moment. The search takes half of --timeout, and 3 seconds at most.
    """
    run(lambda: _doctor(settings, trial=not no_trial), settings.output)


async def _doctor(settings: Settings, *, trial: bool) -> Exit:
    output = settings.output
    async with busy(output, "Looking") as step:
        findings = await collect_findings(settings, trial=trial, step=step, limit=settings.limit)
    advice = diagnose(findings)
    output.json_document(
        {
            "advice": [{**asdict(each), "severity": each.severity.name} for each in advice],
            "findings": _findings_json(findings),
        }
    )
    output.show(_report_view(findings, advice, is_whole=not settings.limit.is_over))
    if settings.limit.is_over:
        output.warn(f"Not all was looked into: {settings.limit.error.message}")
        return Exit.TIME_IS_UP
    return Exit.FINDINGS if any(each.severity is not Severity.NOTE for each in advice) else Exit.OK


def _findings_json(findings: Findings) -> dict[str, Any]:
    content = {name: getattr(findings, name) for name in Findings.__dataclass_fields__}
    return content | {
        "links": [asdict(link) for link in findings.links],
        "next_hops": sorted(findings.next_hops),
        "devices": [device_json(each) for each in findings.devices],
        "gateway": None if findings.gateway is None else device_json(findings.gateway),
        "trial": None if findings.trial is None else {**asdict(findings.trial), "result": findings.trial.result.name},
        "replies": [{**asdict(each), "result": each.result.name} for each in findings.replies],
    }


def _report_view(findings: Findings, advice: Sequence[Advice], *, is_whole: bool = True) -> RenderableType:
    """Return the table of checks, and the advice below it."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for (mark, style), what, text in _checks(findings):
        table.add_row(Text(mark, style=style), Text(what, style="bold"), Text(text))
    parts: list[RenderableType] = [table]
    for each in advice:
        parts += [Text(), *_advice(each)]
    if is_whole and not advice:
        parts += [Text(), Text("All is well: ports can be opened, and are open to the internet.", style="green")]
    return Group(*parts)


def _checks(found: Findings) -> Iterator[tuple[tuple[str, str], str, str]]:
    links = joined([str(link) for link in found.links])
    yield (_GOOD if links else _BAD), "This machine", links or "not connected to any network"
    if found.links:
        hops = joined(sorted(found.next_hops))
        yield (
            (_GOOD if hops else _UNSURE),
            "Way to the internet",
            f"over {hops}" if hops else "no default route is known",
        )
        gateways = found.valid_gateways
        yield (
            _GOOD if len(gateways) == 1 else _UNSURE if gateways else _BAD,
            "Gateway",
            joined([name_and_host(each) for each in gateways]) or "none answers",
        )
    if found.gateway is None:
        return
    spoken = found.protocols
    used = f"; {PROTOCOL_NAMES[found.gateway.protocol]} is used" if len(spoken) > 1 else ""
    yield _GOOD, "It speaks", f"{protocol_names(spoken)}{used}"
    address = found.external_address
    is_open = address is not None and address.is_global
    yield (_GOOD if is_open else _UNSURE if address is None else _BAD), "Internet address", str(address or "not told")
    if found.mappings is not None:
        yield _GOOD, "Ports open now", str(found.mappings)
    trial = found.trial
    if trial is not None:
        served = [each.protocol for each in found.replies if each.said == "served"]
        works = trial.result is UPnPResult.SUCCESS and trial.was_there
        says = "a port was opened and closed again" if works else printable(trial.reason, 120) or "not really"
        if not works and served:
            works, says = True, f"a port was opened and closed again by {protocol_names(served)}"
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
    grid.add_column(max_width=_MAX_COLUMNS, overflow="fold")
    grid.add_row(what)
    return grid
