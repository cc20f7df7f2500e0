"""``aioigd discover``: who is there."""

from __future__ import annotations

import asyncio

import click
from rich.console import RenderableType
from rich.text import Text

from ..core.finder import Finder
from ..models import Device
from ..upnp.net.http import HttpClient
from ..upnp.search import SearchOptions
from .exits import Exit
from .facts import device_facts
from .help import Command
from .live import live
from .options import Settings, all_interfaces, interface_name, shared
from .runner import run
from .screens.devices import device_table, searching

__all__ = ["discover"]

_EPILOG = """\
\b
JSON lines, one for each device as it answers:
  {"friendly_name", "manufacturer", "model_name", "description_url",
   "service_type", "igd_service_type", "igd_control_url", "igd_our_addr",
   "igd_status" ("OK", "NO_IGD", ...), "is_valid_gateway", "udn", "server"}

Exits with 0 if there is a gateway, with 3 if there is none.
"""


@click.command(cls=Command, epilog=_EPILOG)
@click.option("-a", "--all", "everything", is_flag=True, help="List devices that are no gateways, too.")
@shared
def discover(settings: Settings, everything: bool) -> None:
    """Search for gateways, and list them as they answer.

    The search takes as long as --timeout says, 3 seconds otherwise; a router that sleeps may take more.
    """
    run(lambda: _Search(settings, everything).run(), settings.output)


class _Search:
    """One search, and what it has found so far."""

    def __init__(self, settings: Settings, everything: bool) -> None:
        self._settings = settings
        self._everything = everything
        self._seconds = settings.timeout or 3.0
        self._found: dict[str, Device] = {}
        self._places = {each.address: interface_name(each) for each in all_interfaces(ipv6=settings.ipv6)}
        self._until = 0.0

    async def run(self) -> Exit:
        """Search, show, and tell whether there is a gateway."""
        self._until = asyncio.get_running_loop().time() + self._seconds
        output = self._settings.output
        async with live(output, self._screen):
            await self._search()
        self._show()
        return Exit.OK if any(each.is_valid_gateway() for each in self._found.values()) else Exit.NO_GATEWAY

    async def _search(self) -> None:
        settings = self._settings
        http = HttpClient()
        options = SearchOptions(settings.source_address, settings.location, ipv6=settings.ipv6)
        try:
            async for device in Finder(http, options).iter_devices(self._seconds, options.ttl, "", None):
                is_news = self._found.get(device.description_url) != device
                self._found[device.description_url] = device
                if is_news and self._is_listed(device):
                    settings.output.line(device_facts(device))
        finally:
            await http.close()

    def _is_listed(self, device: Device) -> bool:
        return self._everything or device.is_valid_gateway() or bool(device.igd_control_url) or _is_igd(device)

    @property
    def _listed(self) -> list[Device]:
        return [each for each in self._found.values() if self._is_listed(each)]

    def _screen(self) -> RenderableType:
        left = max(0.0, self._until - asyncio.get_running_loop().time())
        return searching(self._listed, self._places, len(self._found) - len(self._listed), left)

    def _show(self) -> None:
        output, listed = self._settings.output, self._listed
        if listed:
            output.show(device_table(listed, self._places))
        gateways = sum(each.is_valid_gateway() for each in listed)
        if not gateways:
            output.warn("No gateway has answered. `aioigd doctor` says why.")
        elif gateways > 1:
            output.show(
                Text(f"{gateways} gateways. Commands take the router of the default route; choose with --location.")
            )
        hidden = len(self._found) - len(listed)
        if hidden:
            what = "device that is no gateway" if hidden == 1 else "devices that are no gateways"
            output.show(Text(f"{hidden} {what} answered, too: --all lists them.", style="dim"))


def _is_igd(device: Device) -> bool:
    return "InternetGatewayDevice" in device.service_type
