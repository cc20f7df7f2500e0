"""``aioigd record`` and ``aioigd replay``: a conversation with a router, to a file and back. Options, output, JSON."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click
from rich.text import Text

from ..text import printable
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
  {"event": "ready", "address", "location" (null if no description was read),
   "pcp_port" (that of PCP and NAT-PMP, where it is another one than 5351)}
"""


@click.command(cls=Command, epilog=_RECORD, short_help="Write a conversation with the router to a file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--no-trial", is_flag=True, help="Do not open a port to see whether that can be done.")
@click.option("--overwrite", is_flag=True, help="Replace the FILE if there is one.")
@common_options
def record(settings: Settings, file: Path, no_trial: bool, overwrite: bool) -> None:
    """Write down what the router says when it is searched for, asked, and told to open a port.

    The FILE is for a bug report. It is a new one that only you may read. What could tell who or where you are is
    replaced in it: addresses, serial numbers, passwords, and every word that is not one of the standards or of router
    software. What the router says of its maker and model stays. Look at it before you pass it on.
    """
    run(lambda: _record(settings, file, trial=not no_trial, overwrite=overwrite), settings.output)


async def _record(settings: Settings, file: Path, *, trial: bool, overwrite: bool) -> Exit:
    from ..testing import record as record_to

    output = settings.output
    async with busy(output, "Looking") as step, record_to(file, overwrite=overwrite):
        findings = await collect_findings(settings, trial=trial, step=step)
    datagrams, requests = _count(file)
    codes = [each.code for each in diagnose(findings)]
    output.json_document({"file": str(file), "datagrams": datagrams, "requests": requests, "advice": codes})
    name = printable(str(file), 200)
    output.show(Text.assemble(OK_MARK, (name, "bold"), f" has {datagrams} datagrams and {requests} requests."))
    output.show(
        Text("  Words that are not those of router software are replaced. Look at it all the same.", style="dim")
    )
    return Exit.OK if findings.devices else Exit.NO_GATEWAY


def _count(file: Path) -> tuple[int, int]:
    """Return how many datagrams and HTTP requests a recording has."""
    kinds = [event["kind"] for event in json.loads(file.read_text("utf-8"))["events"]]
    return kinds.count("datagram") + kinds.count("pcp"), kinds.count("http")


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
    from ..testing import RecordingError, ReplayedGateway

    try:
        gateway = ReplayedGateway(file)
    except RecordingError as error:
        raise click.BadParameter(str(error), param_hint="FILE") from error
    async with gateway:
        try:
            location = gateway.location
        except RecordingError:  # nobody has read a description: there is something to be searched for all the same
            location = None
        ready: dict[str, str | int | None] = {"event": "ready", "address": gateway.address, "location": location}
        if gateway.pcp_port not in (0, 5351):  # where there is no loopback address of its own
            ready["pcp_port"] = gateway.pcp_port
        output.json_line(ready)
        place = location or gateway.address
        output.show(
            Text(f"The router of {printable(str(file), 200)} is at {place} until Ctrl-C. Talk to it, for instance,")
        )
        output.show(Text(f"with\n  aioigd doctor --source-address {gateway.address}", style="cyan"))
        await asyncio.get_running_loop().create_future()
