"""For how long a gateway is used that a search has found: a last resort for a minute, then a better one is sought."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from aioigd import Device, IGDStatus
from aioigd.core.backend import Driver
from aioigd.core.calls import CallQueue
from aioigd.core.finder import Finder
from aioigd.core.gateway_cache import GatewayCache
from aioigd.results import ProtocolName

pytestmark = pytest.mark.virtual_time


@dataclass
class Found:
    """A gateway that is no stopgap."""

    device: Device
    protocol: ProtocolName = "upnp"
    address: str = "192.168.1.1"

    def home_hosts(self) -> Sequence[str]:
        return ()


@dataclass
class Lan:
    """What a search finds; a finder and a driver in one."""

    status: IGDStatus
    searches: int = 0
    found: list[Found] = field(default_factory=list)

    async def find_gateway(self, _: float) -> tuple[Device, list[Device]]:
        self.searches += 1
        device = Device(description_url="http://192.168.1.1/", igd_status=self.status)
        return device, [device]

    def connect(self, device: Device) -> Found:
        self.found.append(Found(device))
        return self.found[-1]

    def cache(self) -> GatewayCache:
        return GatewayCache([cast(Driver, self)], cast(Finder, self), CallQueue(), discovery_timeout=5.0)


@pytest.mark.parametrize("has_leases", [False, True])
@pytest.mark.parametrize("status", [IGDStatus.DISCONNECTED, IGDStatus.INVALID_CONTROL])
async def test_a_last_resort_is_used_for_a_minute(status: IGDStatus, has_leases: bool) -> None:
    lan = Lan(status)
    cache = lan.cache()
    cache.keep_stopgap(has_leases)
    await cache.find()
    await asyncio.sleep(59)
    await cache.find()
    assert lan.searches == 1
    await asyncio.sleep(2)
    lan.status = IGDStatus.OK
    assert (await cache.find()).device.is_valid_gateway()
    assert lan.searches == 2


async def test_a_good_gateway_is_used_for_as_long_as_it_is_there() -> None:
    lan = Lan(IGDStatus.OK)
    cache = lan.cache()
    await cache.find()
    await asyncio.sleep(86_400)
    await cache.find()
    assert lan.searches == 1


async def test_what_the_program_has_chosen_is_kept() -> None:
    lan = Lan(IGDStatus.OK)
    cache = lan.cache()
    await cache.find()
    cache.devices = [Device(description_url="http://192.168.1.2/", igd_status=IGDStatus.OK)]
    await asyncio.sleep(120)
    assert (await cache.find()).device.description_url == "http://192.168.1.2/"
    assert lan.searches == 1
