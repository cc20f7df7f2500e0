"""PyPI's upnpclient: requests, and a class for each device and service."""

from __future__ import annotations

from typing import Any

import upnpclient

from .base import Add, BlockingPeer


class UpnpClient(BlockingPeer):
    """It searches from every address of the machine but 127.0.0.1, so it has to be in a network of its own."""

    def cold_start(self, port: int) -> None:
        """Discover, look for the service, add."""
        self._adder(upnpclient.discover()[0])(port)

    def search(self) -> int:
        """Discover."""
        return len(upnpclient.discover())

    def open(self, location: str) -> Add:
        """Read the description."""
        return self._adder(upnpclient.Device(location))

    def _adder(self, device: Any) -> Add:
        service = next(one for one in device.services if "WANIPConnection" in one.service_type)
        return lambda port: service.AddPortMapping(
            NewRemoteHost="",
            NewExternalPort=port,
            NewProtocol="TCP",
            NewInternalPort=port,
            NewInternalClient=self.source,
            NewEnabled="1",
            NewPortMappingDescription="benchmark",
            NewLeaseDuration=0,
        )
