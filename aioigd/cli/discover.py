"""``aioigd discover``: the devices that answer a search. Options, search, columns, JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Final

import click
from rich.console import Group, RenderableType
from rich.text import Text

from .. import Device, IGDStatus
from ..text import printable
from .format import PROTOCOL_NAMES, device_name, host_of, place_of, protocol_names, routers_of
from .options import Command, Settings, all_interfaces, common_options
from .output import Column, Listing, Output, device_json, live
from .runner import Exit, run

__all__ = ["discover"]

_SEARCH_TIME: Final = 3.0
"""Seconds, without --timeout."""
_LEAST_NAME: Final = 16
"""Columns that the name of a device keeps on a narrow terminal, before the list changes its layout."""
_STATUS_TEXTS: Final = {
    IGDStatus.OK: "gateway",
    IGDStatus.HTTP_ERROR: "description out of reach",
    IGDStatus.HTTP_EMPTY: "description is empty",
    IGDStatus.NO_URLS: "no control URL",
    IGDStatus.NO_IGD: "no gateway",
    IGDStatus.DISCONNECTED: "gateway, offline",
    IGDStatus.UNKNOWN_DEVICE: "description unreadable",
    IGDStatus.INVALID_CONTROL: "unusable control URL",
}
_EPILOG = """\
\b
JSON lines, one for each device as it answers:
  {"friendly_name", "manufacturer", "model_name", "description_url",
   "service_type", "igd_service_type", "igd_control_url", "igd_our_addr",
   "igd_status" ("OK", "NO_IGD", ...), "is_valid_gateway", "udn", "server",
   "protocol" ("upnp", "pcp" or "nat-pmp"), "address"}

A router that speaks several protocols has a line for each; by PCP and NAT-PMP
it tells no more than its address.

Exits with 0 if there is a gateway, with 3 if there is none.
"""


@click.command(cls=Command, epilog=_EPILOG)
@click.option("-a", "--all", "everything", is_flag=True, help="List devices that are no gateways, too.")
@common_options
def discover(settings: Settings, everything: bool) -> None:
    """Search for gateways, and list them as they answer.

    The search takes as long as --timeout says, 3 seconds otherwise; a router that sleeps may take more.
    """
    run(lambda: _Search(settings, everything).run(), settings.output)


class _Search:
    """One search, and the devices that it has found so far."""

    def __init__(self, settings: Settings, everything: bool) -> None:
        self._settings = settings
        self._everything = everything
        self._seconds = settings.timeout or _SEARCH_TIME
        self._found: dict[str, Device] = {}
        self._interfaces = {each.address: each.name for each in all_interfaces(ipv6=settings.ipv6)}
        self._until = 0.0

    async def run(self) -> Exit:
        """Search and show the result."""
        self._until = asyncio.get_running_loop().time() + self._seconds
        async with live(self._settings.output, self._screen):
            await self._search()
        self._show_result()
        return Exit.OK if any(each.is_valid_gateway() for each in self._found.values()) else Exit.NO_GATEWAY

    async def _search(self) -> None:
        settings = self._settings
        async with (
            settings.mapper() as mapper,
            aclosing(mapper.iter_devices(self._seconds, device_filter="")) as devices,
        ):
            async for device in devices:
                is_new = self._found.get(place_of(device)) != device
                self._found[place_of(device)] = device
                if is_new and self._is_listed(device):
                    settings.output.json_line(device_json(device))

    def _is_listed(self, device: Device) -> bool:
        return (
            self._everything
            or device.is_valid_gateway()
            or bool(device.igd_control_url)
            or "InternetGatewayDevice" in device.service_type
        )

    @property
    def _listed(self) -> list[Device]:
        return [each for each in self._found.values() if self._is_listed(each)]

    def _screen(self) -> RenderableType:
        left = max(0.0, self._until - asyncio.get_running_loop().time())
        others = len(self._found) - len(self._listed)
        return _search_view(self._settings.output, self._listed, self._interfaces, others, left)

    def _show_result(self) -> None:
        output, listed = self._settings.output, self._listed
        if listed:
            output.show(_device_table(listed, self._interfaces))
        gateways = routers_of(listed)
        if not gateways:
            output.warn("No gateway has answered. `aioigd doctor` says why.")
        elif len(gateways) > 1:
            output.show(
                Text(
                    f"{len(gateways)} gateways. Commands take the router of the default route; choose with --gateway "
                    "or --location."
                )
            )
        else:
            spoken = [each.protocol for each in listed if each.is_valid_gateway()]
            output.show(protocols_line(spoken, self._settings.protocols))
        hidden = len(self._found) - len(listed)
        if hidden:
            what = "device that is no gateway" if hidden == 1 else "devices that are no gateways"
            output.show(Text(f"{hidden} {what} answered, too: --all lists them.", style="dim"))


def protocols_line(spoken: Collection[str], order: Sequence[str]) -> Text:
    """Return what a router speaks, and which of it is used."""
    first, *others = [each for each in order if each in spoken]
    text = Text.assemble("It speaks ", (protocol_names(spoken), "bold"))
    if others:
        text.append(f"; {PROTOCOL_NAMES[first]} is used, and what it refuses is asked for by the others. Choose: --via")
    return text.append(".")


def _search_view(
    output: Output, devices: Sequence[Device], interfaces: Mapping[str, str], others: int, seconds_left: float
) -> RenderableType:
    """Return the screen while the search runs."""
    note = f" Searching, {seconds_left:.0f} s left" + (f" · {others} other devices" if others else "")
    spinner = output.spinner(note)
    return Group(_device_table(devices, interfaces), spinner) if devices else spinner


def _device_table(devices: Sequence[Device], interfaces: Mapping[str, str]) -> Listing:
    """Return the devices, gateways first; ``interfaces`` has the name of the interface for each of our addresses."""
    table = Listing(
        Column(is_head=True),
        Column("Device", least=_LEAST_NAME, is_head=True),
        Column("Address"),
        Column("Is a"),
        Column("Found from", label="from "),
        Column("Maps ports with", least=len("Maps ports with")),
    )
    for device in sorted(devices, key=lambda each: (not each.is_valid_gateway(), each.protocol != "upnp")):
        table.add_row(*_row(device, interfaces))
    return table


def _row(device: Device, interfaces: Mapping[str, str]) -> tuple[Text, ...]:
    usable = device.is_valid_gateway()
    style = "" if usable else "dim"
    name = Text(device_name(device), style="bold" if usable else style)
    if device.model_name and device.model_name != device.friendly_name:
        name.append(
            f"\n{printable(' '.join(filter(None, (device.manufacturer, device.model_name))), 48)}", style="dim not bold"
        )
    service = device.igd_service_type.rpartition("service:")[2]
    interface = interfaces.get(device.igd_our_addr, "")
    return (
        Text("●", style="green") if usable else Text("○", style="dim"),
        name,
        Text(printable(device.address, 60) if device.protocol != "upnp" else host_of(device), style=style),
        Text(_STATUS_TEXTS.get(device.igd_status, "unknown"), style="green" if usable else "yellow"),
        Text(printable(f"{device.igd_our_addr} ({interface})" if interface else device.igd_our_addr, 80), style=style),
        Text(
            f"{PROTOCOL_NAMES[device.protocol]} {printable(service, 24)}".rstrip() if usable or service else "",
            style=style,
        ),
    )
