"""The table of devices that answered a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ...models import Device
from ...results import IGDStatus
from ..format import clean, host_of, name_of

__all__ = ["STATUS_WORDS", "device_table", "searching"]

STATUS_WORDS: Final = {
    IGDStatus.OK: "gateway",
    IGDStatus.HTTP_ERROR: "description out of reach",
    IGDStatus.HTTP_EMPTY: "description is empty",
    IGDStatus.NO_URLS: "no control URL",
    IGDStatus.NO_IGD: "no gateway",
    IGDStatus.DISCONNECTED: "gateway, offline",
    IGDStatus.UNKNOWN_DEVICE: "description unreadable",
    IGDStatus.INVALID_CONTROL: "unusable control URL",
}


def device_table(devices: Sequence[Device], place_of: dict[str, str]) -> Table:
    """Return the devices, gateways first; ``place_of`` has the name of the interface for each of our addresses."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", collapse_padding=True)
    table.add_column("", min_width=1, no_wrap=True)
    table.add_column("Device", max_width=36)  # the only one that may shrink
    table.add_column("Address", no_wrap=True)
    table.add_column("Is a", no_wrap=True)
    table.add_column("Found from", no_wrap=True)
    table.add_column("Maps ports with", no_wrap=True)
    for device in sorted(devices, key=lambda each: not each.is_valid_gateway()):
        table.add_row(*_row(device, place_of))
    return table


def searching(devices: Sequence[Device], place_of: dict[str, str], others: int, seconds_left: float) -> RenderableType:
    """Return the table while the search goes on."""
    note = f" Searching, {seconds_left:.0f} s left" + (f" · {others} other devices" if others else "")
    spinner = Spinner("dots", Text(note, style="dim"), style="cyan")
    return Group(device_table(devices, place_of), spinner) if devices else spinner


def _row(device: Device, place_of: dict[str, str]) -> tuple[Text, ...]:
    usable = device.is_valid_gateway()
    style = "" if usable else "dim"
    name = Text(name_of(device), style="bold" if usable else style)
    if device.model_name and device.model_name != device.friendly_name:
        name.append(
            f"\n{clean(' '.join(filter(None, (device.manufacturer, device.model_name))), 48)}", style="dim not bold"
        )
    service = device.igd_service_type.rpartition("service:")[2]
    place = place_of.get(device.igd_our_addr, "")
    return (
        Text("●", style="green") if usable else Text("○", style="dim"),
        name,
        Text(host_of(device.description_url), style=style),
        Text(STATUS_WORDS.get(device.igd_status, "unknown"), style="green" if usable else "yellow"),
        Text(f"{device.igd_our_addr} ({place})" if place else device.igd_our_addr, style=style),
        Text(clean(service, 24), style=style),
    )
