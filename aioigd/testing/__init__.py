"""An emulated Internet Gateway Device on loopback, for the tests of programs that open ports.

:class:`EmulatedGateway` behaves as the standard says; :mod:`aioigd.testing.quirks` has a catalogue of the ways
in which real routers do not. Nothing of this is loaded before it is used, and nothing leaves the machine.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import quirks
    from .errors import BareError, UPnPError
    from .gateway import EmulatedGateway
    from .hooks import Hooks, Quirk, quirk
    from .network import loopback_address
    from .recording import record
    from .replay import ReplayedGateway
    from .request_log import Request
else:
    # pytest loads this package in every run, for the sake of its plugin; that must cost nothing.
    _HOME = {
        "BareError": ".errors",
        "EmulatedGateway": ".gateway",
        "Hooks": ".hooks",
        "Quirk": ".hooks",
        "ReplayedGateway": ".replay",
        "Request": ".log",
        "UPnPError": ".errors",
        "loopback_address": ".network",
        "quirk": ".hooks",
        "record": ".recording",
    }

    def __getattr__(name):
        if name == "quirks":
            return import_module(".quirks", __name__)
        if name in _HOME:
            return getattr(import_module(_HOME[name], __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "BareError",
    "EmulatedGateway",
    "Hooks",
    "Quirk",
    "ReplayedGateway",
    "Request",
    "UPnPError",
    "loopback_address",
    "quirk",
    "quirks",
    "record",
]
