"""Looking for gateways: which of the devices that answer to take, and when to stop looking."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from ..models import Device
from ..upnp.net.http import HttpClient
from ..upnp.probe import Examined
from ..upnp.search import Found, Rank, Search, SearchOptions

__all__ = ["Finder"]

log = logging.getLogger("aioigd.discovery")

_GRACE: Final = 0.4
"""Seconds to look on for a gateway that is certainly right, once there is one that may be."""
_SILENT_GRACE: Final = 0.9
"""Seconds from the start of the search in which the router of the default route may still answer: MX allows it 1."""
_LONGER_GRACE: Final = 1.5
"""The same, while the router of the default route has answered and its description is being read."""


class Finder:
    """Finds devices and gateways by the options it was made with."""

    def __init__(self, http: HttpClient, options: SearchOptions) -> None:
        self._http = http
        self._options = options

    async def discover(self, timeout: float, ttl: int, device_filter: str) -> list[Device]:
        """Search for ``timeout`` seconds and return all devices that pass the filter, likely gateways first."""
        until = asyncio.get_running_loop().time() + timeout
        found: dict[str, Found] = {}
        async with self._search(until, ttl) as search:
            while one := await search.next(until):
                found[one.examined.device.description_url] = one
        best_first = sorted(found.values(), key=lambda one: one.rank)
        return [one.examined.device for one in best_first if _passes(one.examined, device_filter)]

    async def iter_devices(
        self, timeout: float, ttl: int, device_filter: str, host: str | None
    ) -> AsyncGenerator[Device, None]:
        """Search for ``timeout`` seconds and yield each device that passes the filter as soon as it is known.

        A device whose description could be read only later comes twice; the later one counts.
        """
        until = asyncio.get_running_loop().time() + timeout
        async with self._search(until, ttl, host) as search:
            while one := await search.next(until):
                if _passes(one.examined, device_filter):
                    yield one.examined.device

    async def find_gateway(self, timeout: float, udn: str = "") -> tuple[Device, list[Device]]:
        """Return the gateway to use and all devices seen on the way, as soon as that is certain.

        With a ``udn`` (UDA 1.1 section 2.3) only the device that has it will do.

        Raises DiscoveryError: NO_DEVICES where nobody answers within ``timeout`` seconds, NO_GATEWAY where nobody
        who does can map ports. With a ``location``, what reading it raises.
        """
        loop = asyncio.get_running_loop()
        until = decide_at = loop.time() + timeout
        seen: dict[str, Device] = {}
        best: Found | None = None
        async with self._search(until, self._options.ttl) as search:
            while True:
                one = await search.next(decide_at)
                if one is None:
                    if best is None or not search.next_hop_pending or loop.time() >= search.started + _LONGER_GRACE:
                        break
                    decide_at = min(until, search.started + _LONGER_GRACE)
                    continue
                seen[one.examined.device.description_url] = one.examined.device
                if udn and one.examined.device.udn != udn:
                    continue
                if one.rank == Rank.USELESS or (best is not None and one.rank >= best.rank):
                    continue
                if best is None:
                    patience = search.started + _SILENT_GRACE if search.next_hop_silent else 0.0
                    decide_at = min(until, max(loop.time() + _GRACE, patience))
                best = one
                if best.rank == Rank.CERTAIN:
                    break
            if best is None:
                raise search.failure()
        log.info("gateway: %s", best.examined.device)
        others = [device for device in seen.values() if device is not best.examined.device]
        return best.examined.device, [best.examined.device, *others]

    @asynccontextmanager
    async def _search(self, until: float, ttl: int, host: str | None = None) -> AsyncIterator[Search]:
        search = Search(self._http, replace(self._options, host=host), until, ttl)
        try:
            await search.start()
            yield search
        finally:
            await search.stop()


def _passes(examined: Examined, device_filter: str) -> bool:
    said = [examined.device.service_type, examined.device.igd_service_type]
    if examined.description is not None:
        said += [examined.description.device_type, *(service.service_type for service in examined.description.services)]
    return any(device_filter in text for text in said)
