"""An emulated Internet Gateway Device on loopback, for the tests of programs that open ports.

:class:`EmulatedGateway` behaves as the standard requires; :mod:`aioigd.testing.quirks` has a catalogue of the ways
in which real routers do not. Modules are imported on first use, and no packet leaves the machine.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import quirks
    from .conversation import RecordingError
    from .device_tree import Device, Service, Site
    from .errors import BareError, UPnPError
    from .eventing import Subscription
    from .firewall import Firewall
    from .gateway import EmulatedGateway, GatewayFactory
    from .hooks import Exchange, Hooks, PcpProceed, Proceed, Quirk, quirk
    from .http import Admission, End, HttpRequest, Response, Tally, Transmission
    from .network import loopback_address
    from .pcp_messages import PcpDatagram, PcpQuery, PcpReply, PcpRules
    from .recording import record
    from .replay import ReplayedGateway
    from .request_log import Request
    from .ssdp import Datagram, Message, Search
    from .wan_connection import ActionCall, Entry, Outputs
    from .wan_line import Line
else:
    # The emulator is large, and most who import this package need a part of it.
    _MODULE_OF = {
        "ActionCall": ".wan_connection",
        "Admission": ".http",
        "BareError": ".errors",
        "Datagram": ".ssdp",
        "Device": ".device_tree",
        "EmulatedGateway": ".gateway",
        "End": ".http",
        "Entry": ".wan_connection",
        "Exchange": ".hooks",
        "Firewall": ".firewall",
        "GatewayFactory": ".gateway",
        "Hooks": ".hooks",
        "HttpRequest": ".http",
        "Line": ".wan_line",
        "Message": ".ssdp",
        "Outputs": ".wan_connection",
        "PcpDatagram": ".pcp_messages",
        "PcpProceed": ".hooks",
        "PcpQuery": ".pcp_messages",
        "PcpReply": ".pcp_messages",
        "PcpRules": ".pcp_messages",
        "Proceed": ".hooks",
        "Quirk": ".hooks",
        "RecordingError": ".conversation",
        "ReplayedGateway": ".replay",
        "Request": ".request_log",
        "Response": ".http",
        "Search": ".ssdp",
        "Service": ".device_tree",
        "Site": ".device_tree",
        "Subscription": ".eventing",
        "Tally": ".http",
        "Transmission": ".http",
        "UPnPError": ".errors",
        "loopback_address": ".network",
        "quirk": ".hooks",
        "record": ".recording",
    }

    def __getattr__(name):
        if name == "quirks":
            return import_module(".quirks", __name__)
        if name in _MODULE_OF:
            return getattr(import_module(_MODULE_OF[name], __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ActionCall",
    "Admission",
    "BareError",
    "Datagram",
    "Device",
    "EmulatedGateway",
    "End",
    "Entry",
    "Exchange",
    "Firewall",
    "GatewayFactory",
    "Hooks",
    "HttpRequest",
    "Line",
    "Message",
    "Outputs",
    "PcpDatagram",
    "PcpProceed",
    "PcpQuery",
    "PcpReply",
    "PcpRules",
    "Proceed",
    "Quirk",
    "RecordingError",
    "ReplayedGateway",
    "Request",
    "Response",
    "Search",
    "Service",
    "Site",
    "Subscription",
    "Tally",
    "Transmission",
    "UPnPError",
    "loopback_address",
    "quirk",
    "quirks",
    "record",
]
