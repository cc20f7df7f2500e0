"""``aioigd doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import click
from rich.spinner import Spinner
from rich.text import Text

from ..exits import Exit
from ..facts import device_facts
from ..help import Command
from ..live import live
from ..options import Settings, shared
from ..runner import run
from .collect import examine_all
from .report import report
from .rules import Advice, Findings, Severity, diagnose

__all__ = ["doctor"]

_EPILOG = """\
\b
It tells of:
  no network, no gateway on any interface, UPnP switched off, an access point
  that is no router, a description that cannot be read, several gateways, a
  gateway that is not the router in use, double NAT, CGNAT, no external
  address, no connection, VPN, container, the wrong interface, a firewall that
  drops multicast, a router that refuses, a full table, a yes that is a no,
  and what the router is particular about.

\b
JSON, one document:
  {"advice": [{"code", "severity" ("PROBLEM", "WARNING" or "NOTE"),
               "title", "why", "to_do": [...]}],
   "findings": {"links", "asked_for", "default_address", "next_hops",
                "router_is_there", "in_container", "unicast_only",
                "devices": [as in discover], "gateway": {as in discover},
                "external_address", "is_connected", "mappings", "trial"}}

Exits with 0 if there is nothing worse than a note, with 4 otherwise.
"""


@click.command(cls=Command, epilog=_EPILOG)
@click.option("--no-trial", is_flag=True, help="Do not open a port to see whether that can be done.")
@shared
def doctor(settings: Settings, no_trial: bool) -> None:
    """Find out why ports cannot be opened, and say what to do.

    Looks at this machine, searches on all its interfaces, asks the gateway, and opens a TCP port there that nobody
    uses, for a moment. --timeout is for the search; 3 seconds otherwise.
    """
    run(lambda: _doctor(settings, trial=not no_trial), settings.output)


async def _doctor(settings: Settings, *, trial: bool) -> Exit:
    output = settings.output
    now = "Looking"
    spinner = Spinner("dots", style="cyan")

    def step(what: str) -> None:
        nonlocal now
        now = what

    def screen() -> Spinner:
        spinner.update(text=Text(f" {now} …", style="dim"))
        return spinner

    async with live(output, screen):
        findings = await examine_all(settings, trial=trial, step=step)
    advice = diagnose(findings)
    output.document({"advice": [_advice_facts(each) for each in advice], "findings": _findings_facts(findings)})
    output.show(report(findings, advice))
    return Exit.FINDINGS if _is_serious(advice) else Exit.OK


def _is_serious(advice: Sequence[Advice]) -> bool:
    return any(each.severity is not Severity.NOTE for each in advice)


def _advice_facts(advice: Advice) -> dict[str, Any]:
    return {
        "code": advice.code,
        "severity": advice.severity.name,
        "title": advice.title,
        "why": advice.why,
        "to_do": list(advice.to_do),
    }


def _findings_facts(found: Findings) -> dict[str, Any]:
    return {
        "links": [dataclasses.asdict(link) for link in found.links],
        "asked_for": found.asked_for,
        "default_address": found.default_address,
        "next_hops": sorted(found.next_hops),
        "router_is_there": found.router_is_there,
        "in_container": found.in_container,
        "devices": [device_facts(each) for each in found.devices],
        "gateway": None if found.gateway is None else device_facts(found.gateway),
        "unicast_only": found.unicast_only,
        "external_address": found.external_address,
        "is_connected": found.is_connected,
        "mappings": found.mappings,
        "trial": None
        if found.trial is None
        else {**dataclasses.asdict(found.trial), "result": found.trial.result.name},
    }
