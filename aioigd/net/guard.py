"""A guard for tests: while AIOIGD_LOOPBACK_ONLY is set, nothing that this package sends leaves loopback.

Without it, a forgotten ``source_address`` in a test searches the developer's real network. With it, that is an error
that says so. The variable is read whenever a socket is made, so it can be set and unset at any time; child processes
inherit it. The pytest plugin sets it where a project asks for that.
"""

from __future__ import annotations

import os
from ipaddress import IPv6Address, ip_address
from typing import Final

from ..errors import NoRouteError

__all__ = ["VARIABLE", "check_destination", "is_loopback_only"]

VARIABLE: Final = "AIOIGD_LOOPBACK_ONLY"
"""The environment variable; unset, empty and "0" mean that the guard is off."""


def is_loopback_only() -> bool:
    """Return whether the guard is on."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def check_destination(host: str, source: str = "") -> None:
    """Raise NoRouteError if the guard is on, and a packet to ``host`` would leave loopback.

    ``host`` is an IP address, or a name: of names, only ``localhost`` is loopback, as others are not even to be
    resolved. A multicast group is where ``source`` is, the local address that is sent from ("" for any).
    """
    if not is_loopback_only() or _is_loopback(host, source):
        return
    where = f"{host} (from {source})" if source else host
    raise NoRouteError(
        f'{VARIABLE} is set, and {where} is not on loopback: pass source_address="127.0.0.1" (or that of an '
        f"emulated gateway), or unset {VARIABLE} (in pytest: -o aioigd_loopback_only=false)"
    )


def _is_loopback(host: str, source: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_multicast:
        return bool(source) and ip_address(source).is_loopback
    return address.is_loopback
