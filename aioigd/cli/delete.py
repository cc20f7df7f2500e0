"""``aioigd delete``: close ports."""

from __future__ import annotations

import asyncio

import click
from rich.text import Text

from ..errors import IGDError, UsageError
from ..gateway import Gateway
from ..models import MappingKey, Proto
from .format import name_of, plain_error, port_ranges
from .options import PORTS, Command, Ports, Settings, protocols, shared
from .output import busy, device_facts, error_facts
from .runner import ABSENT, Exit, run

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
    keys = [MappingKey(port, proto, remote_host) for port in ports for proto in protos]
    async with settings.mapper() as mapper, busy(output, "Closing"):
        gateway = await mapper.get_gateway()
        outcomes = await asyncio.gather(*(_outcome(gateway, key) for key in keys))
    gone = [key for key, error in zip(keys, outcomes, strict=True) if error is None]
    failures = [(key, error) for key, error in zip(keys, outcomes, strict=True) if error is not None]
    if gone:
        failures = [(key, error) for key, error in failures if error.result not in ABSENT]
    output.document(
        {
            "gateway": device_facts(gateway.device),
            "deleted": [key._asdict() for key in gone],
            "failures": [{**key._asdict(), "error": error_facts(error)} for key, error in failures],
        }
    )
    for proto in protos:
        closed = [key.external_port for key in gone if key.proto == proto]
        if closed:
            text = f"{proto} {port_ranges(closed)} closed on {name_of(gateway.device)}"
            output.show(Text.assemble(("✓ ", "bold green"), text))
    if len(failures) == len(keys) and all(error.result in ABSENT for _, error in failures):
        output.warn(f"{' and '.join(protos)} {port_ranges(ports)} is not open on {name_of(gateway.device)}.")
    else:
        for _, error in failures:
            output.warn(plain_error(error))
    return Exit.FAILED if failures else Exit.OK


async def _outcome(gateway: Gateway, key: MappingKey) -> IGDError | None:
    try:
        await gateway.delete_port_mapping(key.external_port, key.proto, remote_host=key.remote_host)
    except UsageError:
        raise
    except IGDError as error:
        return error
    return None
