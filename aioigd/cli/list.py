"""``aioigd list``: what the router forwards."""

from __future__ import annotations

from typing import Any

import click

from ..errors import IGDError
from ..models import PortMapping
from .exits import Exit
from .facts import device_facts, mapping_facts
from .format import name_of, plain_error
from .help import Command
from .live import busy
from .options import Settings, shared
from .output import error_facts
from .runner import run
from .screens.mappings import mapping_table, summary

__all__ = ["list_mappings"]

_EPILOG = """\
\b
JSON, one document:
  {"gateway": {as in discover},
   "mappings": [{"proto", "external_port", "internal_client", "internal_port",
                 "remote_host", "desc", "enabled",
                 "duration" (seconds left, 0: no limit)}],
   "error": null, or {"message", "result", "error_code"} if it broke off}
"""


@click.command("list", cls=Command, epilog=_EPILOG)
@click.option("-m", "--mine", is_flag=True, help="Only ports that lead to this machine.")
@shared
def list_mappings(settings: Settings, mine: bool) -> None:
    """List the ports that the router forwards, and to whom.

    Some routers show a host its own ports only, and some show none.
    """
    run(lambda: _list(settings, mine=mine), settings.output)


async def _list(settings: Settings, *, mine: bool) -> Exit:
    output = settings.output
    mappings: list[PortMapping] = []
    failure: IGDError | None = None
    async with settings.mapper() as mapper, busy(output, "Reading the router's table"):
        gateway = await mapper.get_gateway()
        try:
            async for mapping in gateway.query_port_mappings():
                if not mine or mapping.internal_client == gateway.device.igd_our_addr:
                    mappings.append(mapping)
        except IGDError as error:
            if not mappings:
                raise
            failure = error
    facts: dict[str, Any] = {
        "gateway": device_facts(gateway.device),
        "mappings": [mapping_facts(each) for each in mappings],
        "error": None if failure is None else error_facts(failure),
    }
    output.document(facts)
    if mappings:
        output.show(mapping_table(mappings, gateway.device.igd_our_addr))
    output.show(summary(len(mappings), name_of(gateway.device), mine=mine))
    if failure is not None:
        output.warn(f"The list broke off: {plain_error(failure)}")
        return Exit.FAILED
    return Exit.OK
