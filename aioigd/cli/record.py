"""``aioigd record`` and ``aioigd replay``: a conversation with a router, to a file and back. Options, output, JSON."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click
from rich.text import Text

from .doctor.collect import collect_findings
from .doctor.rules import diagnose
from .format import OK_MARK
from .options import Command, Settings, common_options
from .output import Output, busy
from .runner import Exit, run

__all__ = ["record", "replay"]

_RECORD = """\
\b
JSON, one document:
  {"file", "datagrams", "requests" (how many were written down),
   "advice": [codes, as in doctor]}
"""
_REPLAY = """\
\b
JSON lines:
  {"event": "ready", "address", "location"}
"""


@click.command(cls=Command, epilog=_RECORD, short_help="Write a conversation with the router to a file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--no-trial", is_flag=True, help="Do not open a port to see whether that can be done.")
@common_options
def record(settings: Settings, file: Path, no_trial: bool) -> None:
    """Write down what the router says when it is searched for, asked, and told to open a port.

    The FILE is for a bug report. Addresses, serial numbers and the like are replaced in it; names that people have
    given to their router or to their ports are not: look at it before you pass it on.
    """
    run(lambda: _record(settings, file, trial=not no_trial), settings.output)


async def _record(settings: Settings, file: Path, *, trial: bool) -> Exit:
    from ..testing import record as record_to

    output = settings.output
    async with busy(output, "Looking") as step, record_to(file):
        findings = await collect_findings(settings, trial=trial, step=step)
    datagrams, requests = _count(file)
    codes = [each.code for each in diagnose(findings)]
    output.json_document({"file": str(file), "datagrams": datagrams, "requests": requests, "advice": codes})
    output.show(Text.assemble(OK_MARK, (str(file), "bold"), f" has {datagrams} datagrams and {requests} requests."))
    output.show(Text("  Look at it before you pass it on: names are in it as they are.", style="dim"))
    return Exit.OK if findings.devices else Exit.NO_GATEWAY


def _count(file: Path) -> tuple[int, int]:
    """Return how many datagrams and HTTP requests a recording has."""
    kinds = [event["kind"] for event in json.loads(file.read_text("utf-8"))["events"]]
    return kinds.count("datagram"), kinds.count("http")


@click.command(cls=Command, epilog=_REPLAY, short_help="Be the router of a recorded conversation.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Write JSON for programs (see the end of this page).")
def replay(file: Path, as_json: bool) -> None:
    """Answer on loopback as the router in FILE did, until Ctrl-C.

    Other commands find it with the --source-address that is shown. Nothing leaves the machine.
    """
    output = Output(as_json=as_json)
    run(lambda: _replay(output, file), output, ends_by_signal=True)


async def _replay(output: Output, file: Path) -> None:
    from ..testing import ReplayedGateway

    try:
        gateway = ReplayedGateway(file)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="FILE") from error
    async with gateway:
        output.json_line({"event": "ready", "address": gateway.address, "location": gateway.location})
        output.show(f"The router of {file} is at {gateway.location} until Ctrl-C. Talk to it, for instance, with")
        output.show(Text(f"  aioigd doctor --source-address {gateway.address}", style="cyan"))
        await asyncio.get_running_loop().create_future()
