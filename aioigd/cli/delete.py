"""``aioigd delete``: close ports."""

from __future__ import annotations

import asyncio
from typing import Any

import click
from rich.text import Text

from .. import NotFoundError, Proto
from .format import name_of, plain_error, port_ranges
from .options import PORTS, Command, Ports, Settings, protocols, shared
from .output import busy, device_facts, error_facts
from .runner import Exit, outcome, run

__all__ = ["delete"]

_EPILOG = """\
\b
JSON, one document:
  {"gateway": {as in discover},
   "deleted": [{"proto", "external_port", "remote_host"}],
   "failures": [{"proto", "external_port", "remote_host",
                 "error": {"message", "result", "error_code"}}]}
"""


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("ports", metavar="PORT[-PORT]", type=PORTS)
@protocols
@click.option("--remote", "remote_host", default="", metavar="ADDR", help="The remote host it was made for, if any.")
@shared
def delete(settings: Settings, ports: Ports, protos: tuple[Proto, ...], remote_host: str) -> None:
    """Close a port, or a range of ports, on the router.

    In a range, and with --both, what is not there counts as deleted as long as something was.
    """
    run(lambda: _delete(settings, ports, protos, remote_host), settings.output)


async def _delete(settings: Settings, ports: Ports, protos: tuple[Proto, ...], remote_host: str) -> Exit:
    output = settings.output
    wanted = [(port, proto) for port in ports for proto in protos]
    async with settings.mapper() as mapper, busy(output, "Closing"):
        gateway = await mapper.get_gateway()
        outcomes = await asyncio.gather(
            *(outcome(gateway.delete_port_mapping(*each, remote_host=remote_host)) for each in wanted)
        )
    gone = [each for each, error in zip(wanted, outcomes, strict=True) if error is None]
    failures = [(each, error) for each, error in zip(wanted, outcomes, strict=True) if error is not None]
    if gone:
        failures = [(each, error) for each, error in failures if not isinstance(error, NotFoundError)]

    def facts(port: int, proto: Proto) -> dict[str, Any]:
        return {"external_port": port, "proto": proto, "remote_host": remote_host}

    output.document(
        {
            "gateway": device_facts(gateway.device),
            "deleted": [facts(*each) for each in gone],
            "failures": [{**facts(*each), "error": error_facts(error)} for each, error in failures],
        }
    )
    for proto in protos:
        closed = [port for port, each in gone if each == proto]
        if closed:
            text = f"{proto} {port_ranges(closed)} closed on {name_of(gateway.device)}"
            output.show(Text.assemble(("✓ ", "bold green"), text))
    if len(failures) == len(wanted) and all(isinstance(error, NotFoundError) for _, error in failures):
        output.warn(f"{' and '.join(protos)} {port_ranges(ports)} is not open on {name_of(gateway.device)}.")
    else:
        for _, error in failures:
            output.warn(plain_error(error))
    return Exit.FAILED if failures else Exit.OK
