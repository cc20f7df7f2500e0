"""The WAN line of a gateway for WANCommonInterfaceConfig, with counters that wrap around as real ones do.

No I/O: traffic is counted by a test, or by the forwarder.
"""

from __future__ import annotations

from .wan_connection import ActionCall, Outputs

__all__ = ["Line"]

_COUNTER_RANGE = 1 << 32
"""The counters are of the type ui4 (WANCommonInterfaceConfig:1 section 2.2)."""


class Line:
    """The line of one gateway; all of it can be changed at any time.

    The counters have no limit here; replies have their lowest 32 bits.
    """

    def __init__(self) -> None:
        self.access_type = "Cable"
        self.link_status = "Up"
        self.upstream_max_bit_rate = 40_000_000
        self.downstream_max_bit_rate = 100_000_000
        self.bytes_sent = 1_048_576
        self.bytes_received = 4_194_304
        self.packets_sent = 1024
        self.packets_received = 4096

    def count(self, *, sent: int = 0, received: int = 0) -> None:
        """Count bytes; each call counts as one packet in each direction that has any."""
        self.bytes_sent += sent
        self.bytes_received += received
        self.packets_sent += bool(sent)
        self.packets_received += bool(received)

    def restart(self) -> None:
        """Reset the counters."""
        self.bytes_sent = self.bytes_received = self.packets_sent = self.packets_received = 0

    def invoke(self, call: ActionCall) -> Outputs:
        """Perform an action."""
        if call.action == "GetCommonLinkProperties":
            return {
                "NewWANAccessType": self.access_type,
                "NewLayer1UpstreamMaxBitRate": str(self.upstream_max_bit_rate),
                "NewLayer1DownstreamMaxBitRate": str(self.downstream_max_bit_rate),
                "NewPhysicalLinkStatus": self.link_status,
            }
        counters = {
            "GetTotalBytesSent": self.bytes_sent,
            "GetTotalBytesReceived": self.bytes_received,
            "GetTotalPacketsSent": self.packets_sent,
            "GetTotalPacketsReceived": self.packets_received,
        }
        return {call.action.replace("Get", "New", 1): str(counters[call.action] % _COUNTER_RANGE)}
