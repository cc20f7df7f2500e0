"""The library itself, with its defaults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aioigd import IGDError, PortMapper

from ..workload import cold_start
from .base import Add, Peer


class Ours(Peer):
    """Aioigd as its documentation shows it: one mapper, awaited or gathered."""

    def cold_start(self, port: int) -> None:
        """Map from a new mapper in a new loop."""
        asyncio.run(cold_start(self.source, port))

    def search(self) -> int:
        """Look for a gateway until the library gives up."""
        return asyncio.run(self._search())

    @asynccontextmanager
    async def opened(self, location: str) -> AsyncIterator[Add]:
        """Read the description."""
        async with PortMapper(location=location) as mapper:
            await mapper.get_gateway()
            yield lambda port: mapper.add_port_mapping(port, desc="benchmark", proto="TCP")

    async def _search(self) -> int:
        async with PortMapper(source_address=self.source) as mapper:
            try:
                await mapper.get_gateway()
            except IGDError:
                return 0
            return 1
