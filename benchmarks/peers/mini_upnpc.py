"""PyPI's miniupnpc: the C library everybody uses, called from Python."""

from __future__ import annotations

from typing import ClassVar

import miniupnpc

from .base import Add, BlockingPeer


class Mini(BlockingPeer):
    """With its default delay, which becomes a second: the library never listens for less, whatever it is told."""

    delay: ClassVar[int] = 0

    def _client(self) -> miniupnpc.UPnP:
        return miniupnpc.UPnP(multicastif=self.source, discoverdelay=self.delay)

    def cold_start(self, port: int) -> None:
        """Discover, select, add."""
        client = self._client()
        client.discover()
        client.selectigd()
        client.addportmapping(port, "TCP", client.lanaddr, port, "benchmark", "")

    def search(self) -> int:
        """Discover; where nobody answers the library raises."""
        try:
            return int(self._client().discover())
        except Exception:
            return 0

    def open(self, location: str) -> Add:
        """Select by URL."""
        client = self._client()
        client.selectigd(location)
        address = client.lanaddr
        return lambda port: client.addportmapping(port, "TCP", address, port, "benchmark", "")


class MiniLong(Mini):
    """It listens for two seconds, as the library's command and Godot do: routers may wait before they answer."""

    delay: ClassVar[int] = 2000
