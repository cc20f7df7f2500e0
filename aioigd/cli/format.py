"""Values as people read them: sizes, times, addresses, ports, names, errors. Pure functions.

Whatever a device says goes through :func:`~aioigd.text.printable` before it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from rich.text import Text

from .. import ConnectionStatus, Device, IGDError
from ..results import PROTOCOL_NAMES
from ..text import printable

__all__ = [
    "CARRIER_NAT",
    "ERROR_MARK",
    "OK_MARK",
    "PROTOCOL_NAMES",
    "WARNING_MARK",
    "address_note",
    "address_text",
    "age",
    "bit_rate",
    "byte_count",
    "byte_rate",
    "connection_text",
    "device_name",
    "duration",
    "endpoint",
    "error_text",
    "host_in",
    "host_of",
    "host_of_url",
    "joined",
    "lease_time",
    "name_and_host",
    "place_of",
    "port_ranges",
    "protocol_names",
    "routers_of",
    "same_address",
    "time_of_day",
]

CARRIER_NAT: Final = IPv4Network("100.64.0.0/10")
"""Shared address space (RFC 6598): what providers give to customers behind their own NAT."""
OK_MARK: Final = ("✓ ", "bold green")
WARNING_MARK: Final = ("! ", "bold yellow")
ERROR_MARK: Final = ("✗ ", "bold red")
_BYTE_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_TIME_UNITS: Final = ((604_800, "w"), (86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def error_text(error: BaseException) -> str:
    """Return the message of an error, in one clean line that begins with a capital letter."""
    text = error.message if isinstance(error, IGDError) else str(error) or type(error).__name__
    if isinstance(error, IGDError) and error.error_code is not None:
        text += f" ({PROTOCOL_NAMES[error.protocol or 'upnp']} error {error.error_code}, {error.result.name})"
    text = printable(text, 400)
    return text[:1].upper() + text[1:]


def byte_count(count: float) -> str:
    """Return a number of bytes with three digits: 999 B, 1.25 MB."""
    for unit in _BYTE_UNITS:
        if abs(count) < 999.5 or unit == _BYTE_UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.3g} {unit}"


def byte_rate(bytes_per_second: float | None) -> str:
    """Return a rate in bytes per second."""
    return "-" if bytes_per_second is None else f"{byte_count(bytes_per_second)}/s"


def bit_rate(bits_per_second: int) -> str:
    """Return the speed of a line in bits per second."""
    return byte_count(bits_per_second).replace("kB", "kbit").replace("B", "bit") + "/s"


def duration(seconds: float) -> str:
    """Return a time span in its two largest units: 1 d 4 h."""
    rest = max(0, round(seconds))
    parts = []
    for size, unit in _TIME_UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts) or "0 s"


def lease_time(seconds: int) -> str:
    """Return the duration of a mapping."""
    return "no limit" if seconds == 0 else duration(seconds)


def age(then: datetime | None, now: datetime) -> str:
    """Return how long ago something was."""
    return "never" if then is None else f"{duration((now - then).total_seconds())} ago"


def time_of_day(when: datetime) -> str:
    """Return a time in the local time zone, without its date."""
    return when.astimezone().strftime("%H:%M:%S")


def endpoint(address: IPv4Address | IPv6Address | str | None, port: int) -> str:
    """Return address and port in one word."""
    host = printable(str(address or "?"), 45)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_of(device: Device) -> str:
    """Return the host at which a device is spoken to, "" where it has none."""
    return host_in(device.address) if device.protocol != "upnp" else host_of_url(device.description_url)


def host_of_url(url: str) -> str:
    """Return the host of a URL, "" where it has none."""
    try:
        return printable(urlsplit(url).hostname or "", 60)
    except ValueError:
        return ""


def host_in(address: str) -> str:
    """Return the host of an IP address with or without a port: 10.2.0.1:5351, [fe80::1%eth0]:5351, fe80::1%eth0."""
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    else:
        host = address.partition(":")[0] if address.count(":") == 1 else address
    return printable(host, 60)


def place_of(device: Device) -> str:
    """Return what a device is known by among all others: where it describes itself, or is spoken to by a protocol."""
    return device.description_url or f"{device.protocol} {device.address}"


def routers_of(devices: Iterable[Device]) -> list[Device]:
    """Return one device for each router: what it is found by in PCP and NAT-PMP is no other one than by UPnP."""
    found: dict[tuple[str, str], Device] = {}
    usable = [each for each in devices if each.is_valid_gateway()]
    for device in sorted(usable, key=lambda each: each.protocol != "upnp"):
        host = host_of(device)
        if device.protocol == "upnp":
            found.setdefault((device.udn or device.description_url, host), device)
        elif not any(same_address(host, host_of(each)) for each in found.values()):
            found[device.protocol, host] = device
    return list(found.values())


def protocol_names(protocols: Iterable[str]) -> str:
    """Return protocols as people call them, in the order of the library: UPnP, PCP and NAT-PMP."""
    found = set(protocols)
    return joined([name for each, name in PROTOCOL_NAMES.items() if each in found])


def same_address(one: str, other: str) -> bool:
    """Return whether two texts are the same IP address, whatever their zone ids; names are never the same."""
    try:
        left, right = (ip_address(each.partition("%")[0]) for each in (one, other))
    except ValueError:
        return False
    return (getattr(left, "ipv4_mapped", None) or left) == (getattr(right, "ipv4_mapped", None) or right)


def device_name(device: Device) -> str:
    """Return the name of a device."""
    return printable(device.friendly_name or device.model_name or "unnamed device", 48)


def name_and_host(device: Device) -> str:
    """Return the name of a device and where it is, which those found by PCP and NAT-PMP have in their names."""
    name, host = device_name(device), host_of(device)
    return name if device.protocol != "upnp" else f"{name} at {host}"


def port_ranges(ports: Iterable[int]) -> str:
    """Return ports in few words: 80, 8000-8010."""
    runs: list[list[int]] = []
    for port in sorted(set(ports)):
        if runs and port == runs[-1][1] + 1:
            runs[-1][1] = port
        else:
            runs.append([port, port])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def joined(items: Sequence[str]) -> str:
    """Return items as a sentence has them: a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def address_note(address: IPv4Address | IPv6Address | str | None) -> str:
    """Return why an external address cannot be reached from the internet, "" where it can."""
    if not address:
        return ""
    parsed = ip_address(str(address))
    if isinstance(parsed, IPv4Address) and parsed in CARRIER_NAT:
        return "shared by the provider (CGNAT): not reachable from the internet"
    if parsed.is_private or parsed.is_link_local:
        return "private: the router is behind another one (double NAT)"
    return ""


def address_text(address: IPv4Address | IPv6Address | None) -> Text:
    """Return an external address with its note."""
    if address is None:
        return Text("not told", style="yellow")
    text = Text(str(address), style="bold cyan")
    if note := address_note(address):
        text.append(f"  {note}", style="not bold yellow")
    return text


def connection_text(connection: ConnectionStatus) -> Text:
    """Return the state of a connection, and for how long it has been up."""
    text = Text(printable(connection.status.lower(), 30), style="green" if connection.is_connected else "red")
    if connection.uptime:
        text.append(f" for {duration(connection.uptime)}", style="not bold default")
    return text
