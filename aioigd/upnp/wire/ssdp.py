"""SSDP datagrams (UDA 1.1 section 1): searches are built, replies and notifications parsed.

The parser takes any bytes and never raises: a datagram that cannot be used is None, as most are on a network with
many devices.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = [
    "ALL_TARGET",
    "LIKELY_TARGETS",
    "MULTICAST_V4",
    "MULTICAST_V6",
    "PORT",
    "RARE_TARGETS",
    "Announcement",
    "build_search",
    "parse_datagram",
]

MULTICAST_V4: Final = "239.255.255.250"
"""The multicast group over IPv4."""
MULTICAST_V6: Final = ("ff02::c", "ff05::c")
"""The multicast groups over IPv6: link-local and site-local scope (UDA 1.1 annex A.3)."""
PORT: Final = 1900
"""The UDP port of SSDP."""
MAX_DATAGRAM: Final = 8192
"""Bytes. A reply of a real device fits an Ethernet frame."""

LIKELY_TARGETS: Final = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "upnp:rootdevice",
)
"""Search targets that nearly every gateway answers."""
RARE_TARGETS: Final = (
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
"""Search targets each of which is the only one that some router answers."""
ALL_TARGET: Final = "ssdp:all"
"""The last resort: one device sends a dozen replies, and some drop other searches while they do."""

_START_LINE = re.compile(rb"\s*(?:HTTP/\d(?:\.\d)?\s+(\d{3})(?!\d)|(NOTIFY)\s)", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]+")
_FOLD = re.compile(rb"(?<=[^\r\n])\r?\n[ \t]+(?=\S)")
"""A header that is continued on the next line (RFC 9112 section 5.2)."""
_WRAPPED: Final = " \t<>\"'"
"""Characters that some devices put around the URL in LOCATION."""


class Announcement(NamedTuple):
    """The contents of a datagram: a search reply, or a NOTIFY.

    ``kind`` is ``"reply"``, or the NTS of a NOTIFY: ``"ssdp:alive"``, ``"ssdp:byebye"``, ``"ssdp:update"``;
    ``target`` the ST or NT; ``boot_id`` the BOOTID.UPNP.ORG, None where there is none.
    """

    kind: str
    location: str
    target: str
    usn: str
    server: str
    boot_id: int | None


def build_search(target: str, host: str, mx: int = 1) -> bytes:
    """Return an M-SEARCH for a search target; ``mx`` (seconds, 1 to 5) goes into MX.

    ``host`` goes into HOST: the multicast group, also where the search is sent to one host. UDA 1.1 section 1.3.2 would
    have the host's own address there, but libupnp takes nothing for a search that does not name the group.
    """
    address = f"[{host.partition('%')[0]}]" if ":" in host else host
    return (
        f'M-SEARCH * HTTP/1.1\r\nHOST: {address}:{PORT}\r\nMAN: "ssdp:discover"\r\nMX: {mx}\r\nST: {target}\r\n\r\n'
    ).encode("ascii")


def parse_datagram(datagram: bytes) -> Announcement | None:
    """Return what a datagram announces, or None for anything but a good search reply or NOTIFY."""
    if not datagram or len(datagram) > MAX_DATAGRAM:
        return None
    start = _START_LINE.match(datagram)
    if start is None or (start.group(1) is not None and start.group(1) != b"200"):
        return None
    headers: dict[str, str] = {}
    for line in _FOLD.sub(b" ", datagram[start.end() :]).splitlines()[1:64]:
        name, colon, value = line.partition(b":")
        text = _CONTROL.sub("", value.decode("utf-8", "replace")).strip()
        if colon and text:
            headers.setdefault(name.strip().lower().decode("latin-1"), text)
    is_notify = start.group(2) is not None
    kind = headers.get("nts", "").lower() if is_notify else "reply"
    location = headers.get("location", "").strip(_WRAPPED)
    if kind not in ("reply", "ssdp:alive", "ssdp:byebye", "ssdp:update") or (not location and kind != "ssdp:byebye"):
        return None
    boot_id = headers.get("bootid.upnp.org", "")
    return Announcement(
        kind=kind,
        location=location,
        target=headers.get("nt" if is_notify else "st", ""),
        usn=headers.get("usn", ""),
        server=headers.get("server", ""),
        boot_id=int(boot_id) if boot_id.isascii() and boot_id.isdigit() and len(boot_id) < 12 else None,
    )
