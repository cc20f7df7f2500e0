"""What is compared: aioigd, what people use today, and two floors; each runs in a process of its own.

A peer's packages are imported in its own process only, by :func:`load`.
"""

from __future__ import annotations

import shutil
from importlib import import_module
from importlib.util import find_spec
from typing import Final, cast

from .base import Peer

OURS: Final = "aioigd"
FLOOR: Final = "blocking floor"
BARE: Final = "bare aiohttp"
BARE_KEEP_ALIVE: Final = "bare aiohttp, connections kept"
MINI: Final = "miniupnpc"
MINI_LONG: Final = "miniupnpc, 2 s"
ASYNC_UPNP: Final = "async-upnp-client"
UPNP_CLIENT: Final = "upnpclient"
GODOT: Final = "godot3-server"
UPNPC: Final = "upnpc"

_CLASSES: Final = {
    OURS: ("ours", "Ours"),
    FLOOR: ("floors", "Floor"),
    BARE: ("floors", "Bare"),
    BARE_KEEP_ALIVE: ("floors", "BareKeepAlive"),
    MINI: ("mini_upnpc", "Mini"),
    MINI_LONG: ("mini_upnpc", "MiniLong"),
    ASYNC_UPNP: ("async_upnp", "AsyncUpnp"),
    UPNP_CLIENT: ("upnp_client", "UpnpClient"),
    GODOT: ("commands", "Godot"),
    UPNPC: ("commands", "Upnpc"),
}
_MODULES: Final = {
    MINI: "miniupnpc",
    MINI_LONG: "miniupnpc",
    ASYNC_UPNP: "async_upnp_client",
    UPNP_CLIENT: "upnpclient",
}


def available() -> list[str]:
    """Return the names of the peers that are installed; those that are not are left out of the comparison."""
    return [name for name in _CLASSES if _is_installed(name)]


def load(name: str, source: str) -> Peer:
    """Return a peer that works from an address of this host."""
    module, kind = _CLASSES[name]
    return cast(Peer, getattr(import_module(f"{__package__}.{module}"), kind)(source))


def _is_installed(name: str) -> bool:
    if name in (GODOT, UPNPC):
        return shutil.which(name) is not None
    return name not in _MODULES or find_spec(_MODULES[name]) is not None
