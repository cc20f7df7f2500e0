"""``aioigd status``: how it stands with the router and its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import asdict
from typing import Any, TypeVar

import click

from ..errors import IGDError
from ..gateway import Gateway
from .exits import Exit
from .facts import device_facts
from .help import Command
from .live import busy
from .options import Settings, shared
from .runner import run
from .screens.status import status_screen
from .told import Status

__all__ = ["Status", "status"]

T = TypeVar("T")

_EPILOG = """\
\b
JSON, one document; null for what the router does not tell:
  {"gateway": {as in discover}, "external_address",
   "connection": {"status", "last_error", "uptime"},
   "connection_type": {"current", "possible"},
   "nat": {"nat_enabled", "rsip_available"},
   "link": {"access_type", "upstream_max_bit_rate",
            "downstream_max_bit_rate", "link_status"},
   "traffic": {"bytes_sent", "bytes_received",
               "packets_sent", "packets_received"},
   "firewall": {"enabled", "pinholes_allowed"}}
"""


@click.command(cls=Command, epilog=_EPILOG, short_help="Show the router, its connection and its line.")
@shared
def status(settings: Settings) -> None:
    """Show the router, its connection, its line and its traffic so far."""
    run(lambda: _status(settings), settings.output)


async def _status(settings: Settings) -> Exit:
    async with settings.mapper() as mapper, busy(settings.output, "Asking the router"):
        gateway = await mapper.get_gateway()
        said = await _ask(gateway)
    settings.output.document(_facts(gateway, said))
    settings.output.show(status_screen(gateway.device, said))
    return Exit.OK


async def _ask(gateway: Gateway) -> Status:
    about_connection = asyncio.gather(
        _or_none(gateway.query_external_address()),
        _or_none(gateway.query_status()),
        _or_none(gateway.query_connection_type()),
        _or_none(gateway.query_nat_status()),
    )
    about_line = asyncio.gather(
        _or_none(gateway.query_link_properties()),
        _or_none(gateway.query_traffic()),
        _or_none(gateway.query_firewall_status()),
    )
    return Status(*await about_connection, *await about_line)


async def _or_none(question: Awaitable[T]) -> T | None:
    try:
        return await question
    except IGDError:
        return None


def _facts(gateway: Gateway, said: Status) -> dict[str, Any]:
    facts: dict[str, Any] = {"gateway": device_facts(gateway.device), "external_address": said.external_address}
    for name in ("connection", "connection_type", "nat", "link", "traffic", "firewall"):
        value = getattr(said, name)
        facts[name] = None if value is None else asdict(value)
    if said.traffic is not None:
        del facts["traffic"]["at"]  # of a clock that nobody else has
    return facts
