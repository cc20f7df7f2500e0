"""PyPI's async-upnp-client, which Home Assistant uses: asyncio and aiohttp as well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import IPv4Address

import aiohttp
from async_upnp_client.aiohttp import AiohttpSessionRequester
from async_upnp_client.client_factory import UpnpFactory
from async_upnp_client.profiles.igd import IgdDevice

from .base import Add, Peer


class AsyncUpnp(Peer):
    """Its profile for gateways, over one session."""

    def cold_start(self, port: int) -> None:
        """Search, make the device, add."""
        asyncio.run(self._cold_start(port))

    def search(self) -> int:
        """Search."""
        return len(asyncio.run(IgdDevice.async_search(source=(self.source, 0))))

    @asynccontextmanager
    async def opened(self, location: str) -> AsyncIterator[Add]:
        """Make the device of a description."""
        async with aiohttp.ClientSession() as session:
            factory = UpnpFactory(AiohttpSessionRequester(session))
            device = IgdDevice(await factory.async_create_device(location), None)

            async def add(port: int) -> None:
                await device.async_add_port_mapping(
                    remote_host=IPv4Address("0.0.0.0"),
                    external_port=port,
                    protocol="TCP",
                    internal_port=port,
                    internal_client=IPv4Address(self.source),
                    enabled=True,
                    description="benchmark",
                    lease_duration=timedelta(0),
                )

            yield add

    async def _cold_start(self, port: int) -> None:
        found = await IgdDevice.async_search(source=(self.source, 0))
        async with self.opened(next(iter(found))["location"]) as add:
            await add(port)
