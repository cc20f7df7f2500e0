"""``aioigd delete``: closes ports. Options, requests, result, JSON."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from .. import NotFoundError, Proto
from .format import OK_MARK, device_name, error_text, port_ranges
from .options import PORTS, Command, Ports, Settings, common_options, protocol_options
from .output import busy, device_json, error_json
from .runner import Exit, outcomes, run

__all__ = ["delete"]

_EPILOG = """\
\b
JSON, one document:
  {"gateway": {as in discover},
   "deleted": [{"proto", "external_port", "remote_host"}],
   "failures": [{"proto", "external_port", "remote_host",
                 "error": {"message", "result", "error_code", "protocol"}}]}
"""


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("ports", metavar="PORT[-PORT]", type=PORTS)
@protocol_options
@click.option("--remote", "remote_host", default="", metavar="ADDR", help="The remote host it was made for, if any.")
@click.option("--verify", is_flag=True, help="Ask the router whether it is closed: some only say so.")
@common_options
def delete(settings: Settings, ports: Ports, protos: tuple[Proto, ...], remote_host: str, verify: bool) -> None:
    """Close a port, or a range of ports, on the router.

    In a range, and with --both, what is not there counts as deleted as long as something was.
    """
    run(lambda: _delete(settings, ports, protos, remote_host, verify), settings.output)


async def _delete(settings: Settings, ports: Ports, protos: tuple[Proto, ...], remote_host: str, verify: bool) -> Exit:
    output = settings.output
    wanted = [(port, proto) for port in ports for proto in protos]
    limit = settings.limit
    async with settings.mapper() as mapper, busy(output, "Closing"):
        async with limit.whole_step():
            gateway = await mapper.get_gateway()
        results = await outcomes(
            limit,
            lambda each: gateway.delete_port_mapping(*each, remote_host=remote_host, verify=verify),
            wanted,
        )
    unfinished = [each for each in wanted if each not in results]
    gone = [each for each, error in results.items() if error is None]
    failures = [(each, error) for each, error in results.items() if error is not None]
    if gone:
        failures = [(each, error) for each, error in failures if not isinstance(error, NotFoundError)]

    def key_json(port: int, proto: Proto) -> dict[str, Any]:
        return {"external_port": port, "proto": proto, "remote_host": remote_host}

    output.json_document(
        {
            "gateway": device_json(gateway.device),
            "deleted": [key_json(*each) for each in gone],
            "failures": [
                {**key_json(*each), "error": error_json(error)}
                for each, error in [*failures, *((each, limit.error) for each in unfinished)]
            ],
        }
    )
    for proto in protos:
        closed = [port for port, each in gone if each == proto]
        if closed:
            text = f"{proto} {port_ranges(closed)} closed on {device_name(gateway.device)}"
            output.show(Text.assemble(OK_MARK, text))
    if len(failures) == len(wanted) and all(isinstance(error, NotFoundError) for _, error in failures):
        output.warn(f"{' and '.join(protos)} {port_ranges(ports)} is not open on {device_name(gateway.device)}.")
    else:
        for _, error in failures:
            output.warn(error_text(error))
    for proto in protos:
        if late := [port for port, each in unfinished if each == proto]:
            output.warn(f"{proto} {port_ranges(late)} perhaps not closed: {limit.error.message}")
    return Exit.TIME_IS_UP if unfinished else Exit.FAILED if failures else Exit.OK
