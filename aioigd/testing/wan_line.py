"""The line of a gateway: what WANCommonInterfaceConfig tells of it, with counters that begin again as real ones do.

Pure: what is counted is what a test, or a forwarder, says.
"""

from __future__ import annotations

from .wan_connection import ActionCall, Outputs

__all__ = ["Line"]

_FULL = 1 << 32
"""The counters are of the type ui4 (WANCommonInterfaceConfig:1 section 2.2)."""


class Line:
    """The line of one gateway; all of it can be changed at any time.

    The counters count on without an end; what is told of them has 32 bits.
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
        """Count bytes, each call as one packet in a direction in which there are any."""
        self.bytes_sent += sent
        self.bytes_received += received
        self.packets_sent += bool(sent)
        self.packets_received += bool(received)

    def restart(self) -> None:
        """Begin to count at 0 again."""
        self.bytes_sent = self.bytes_received = self.packets_sent = self.packets_received = 0

    def invoke(self, call: ActionCall) -> Outputs:
        """Do an action."""
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
        return {call.action.replace("Get", "New", 1): str(counters[call.action] % _FULL)}
