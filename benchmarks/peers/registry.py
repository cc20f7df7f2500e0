"""The peers by name. A peer's packages are imported in its own process only."""

from __future__ import annotations

import shutil
from importlib import import_module
from importlib.util import find_spec
from typing import Final, cast

from .interface import Peer

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

FLOORS: Final = (FLOOR, BARE, BARE_KEEP_ALIVE)

_CLASSES: Final = {
    OURS: ("ours", "Ours"),
    FLOOR: ("blocking_floor", "Floor"),
    BARE: ("bare_aiohttp", "Bare"),
    BARE_KEEP_ALIVE: ("bare_aiohttp", "BareKeepAlive"),
    MINI: ("mini", "Mini"),
    MINI_LONG: ("mini", "MiniLong"),
    ASYNC_UPNP: ("async_upnp", "AsyncUpnp"),
    UPNP_CLIENT: ("upnp_client", "UpnpClient"),
    GODOT: ("godot", "Godot"),
    UPNPC: ("upnpc", "Upnpc"),
}
_MODULES: Final = {
    MINI: "miniupnpc",
    MINI_LONG: "miniupnpc",
    ASYNC_UPNP: "async_upnp_client",
    UPNP_CLIENT: "upnpclient",
}
_COMMANDS: Final = {GODOT: "godot3-server", UPNPC: "upnpc"}


def available() -> list[str]:
    """Return the names of the peers that are installed; those that are not are left out of the comparison."""
    return [name for name in _CLASSES if _is_installed(name)]


def load(name: str, source: str) -> Peer:
    """Return a peer that works from an address of this host."""
    module, kind = _CLASSES[name]
    return cast(Peer, getattr(import_module(f"{__package__}.{module}"), kind)(source))


def _is_installed(name: str) -> bool:
    if name in _COMMANDS:
        return shutil.which(_COMMANDS[name]) is not None
    return name not in _MODULES or find_spec(_MODULES[name]) is not None
