"""Clients that know nothing of this package find the gateway and use it, and it finds nothing wrong with them."""

from __future__ import annotations

import asyncio
import shutil
from datetime import timedelta
from ipaddress import IPv4Address
from typing import Any, Literal

import pytest

from aioigd.models import PortMapping
from aioigd.testing import EmulatedGateway

from .client import IGD_1

versions = pytest.mark.parametrize("version", [1, 2])


async def upnpc(*arguments: str) -> str:
    """Run Debian's client, and return what it prints."""
    command = shutil.which("upnpc")
    if command is None:
        pytest.skip("upnpc is not installed (Debian's miniupnpc)")
    process = await asyncio.create_subprocess_exec(
        command, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return output.decode()


async def test_upnpc_finds_each_version_by_multicast(gateway: EmulatedGateway, gateway_v2: EmulatedGateway) -> None:
    both = (gateway, gateway_v2)
    for each in both:
        each.add_mapping(8080, 80, "TCP", internal_client="192.168.1.7", desc="theirs")
    outputs = await asyncio.gather(*(upnpc("-m", each.address, "-l") for each in both))
    for gateway, output in zip(both, outputs, strict=True):
        assert f"Found valid IGD : {gateway.location.replace('rootDesc.xml', 'ctl/WANIPConn1')}" in output
        assert "ExternalIPAddress = 11.22.33.44" in output
        assert "TCP  8080->192.168.1.7:80    'theirs' ''" in output
        assert "GetGenericPortMappingEntry() returned 713" in output
        assert gateway.problems == []


async def test_upnpc_maps_and_deletes(gateway: EmulatedGateway) -> None:
    output = await upnpc("-u", gateway.location, "-e", "hello", "-a", "192.168.1.2", "80", "8080", "TCP", "3600")
    assert "external 11.22.33.44:8080 TCP is redirected to internal 192.168.1.2:80" in output
    assert gateway.mappings == [PortMapping(8080, 80, "192.168.1.2", "TCP", "hello", 3600)]
    await upnpc("-u", gateway.location, "-d", "8080", "TCP")
    assert gateway.mappings == []
    assert gateway.problems == []


async def test_upnpc_lists_version_2(gateway_v2: EmulatedGateway) -> None:
    gateway_v2.add_mapping(8080, 80, "TCP", internal_client="192.168.1.7")
    gateway_v2.add_mapping(9090, proto="UDP", internal_client="192.168.1.8")
    output = await upnpc("-u", gateway_v2.location, "-L")
    assert "8080->192.168.1.7:80" in output
    assert "9090->192.168.1.8:9090" in output
    output = await upnpc("-u", gateway_v2.location, "-n", "192.168.1.9", "1", "8080", "TCP", "60")
    assert "external 11.22.33.44:8081 TCP is redirected" in output
    assert gateway_v2.problems == []


@versions
async def test_miniupnpc_from_pypi_finds_and_uses_it(version: Literal[1, 2]) -> None:
    miniupnpc = pytest.importorskip("miniupnpc", reason="PyPI's miniupnpc is not installed")

    def use(address: str) -> dict[str, Any]:
        client = miniupnpc.UPnP(multicastif=address, discoverdelay=100)
        return {
            "devices": client.discover(),
            "gateway": client.selectigd(),
            "address": client.externalipaddress(),
            "status": client.statusinfo()[0],
            "added": client.addportmapping(8080, "TCP", "192.168.1.2", 80, "hello", "", 3600),
            "read": client.getspecificportmapping(8080, "TCP"),
            "listed": client.getgenericportmapping(0),
            "end": client.getgenericportmapping(1),
            "deleted": client.deleteportmapping(8080, "TCP"),
        }

    async with EmulatedGateway(address=None, version=version) as gateway:
        assert await asyncio.to_thread(use, gateway.address) == {
            "devices": 1,
            "gateway": gateway.location.replace("rootDesc.xml", "ctl/WANIPConn1"),
            "address": "11.22.33.44",
            "status": "Connected",
            "added": True,
            "read": ("192.168.1.2", 80, "hello", True, 3600),
            "listed": (8080, "TCP", ("192.168.1.2", 80), "hello", "1", "", 3600),
            "end": None,
            "deleted": True,
        }
        assert gateway.count("AddPortMapping") == 1
        assert gateway.problems == []


@versions
async def test_async_upnp_client_finds_and_uses_it(version: Literal[1, 2]) -> None:
    pytest.importorskip("async_upnp_client", reason="async-upnp-client is not installed")
    from async_upnp_client.aiohttp import AiohttpRequester
    from async_upnp_client.client_factory import UpnpFactory
    from async_upnp_client.profiles.igd import IgdDevice
    from async_upnp_client.search import SsdpSearchListener

    async with EmulatedGateway(address=None, version=version) as gateway:
        found: asyncio.Queue[str] = asyncio.Queue()

        async def note(headers: Any) -> None:
            found.put_nowait(headers["location"])

        listener = SsdpSearchListener(async_callback=note, source=(gateway.address, 0), search_target=IGD_1, timeout=1)
        await listener.async_start()
        listener.async_search()
        location = await found.get()
        listener.async_stop()
        assert location == gateway.location

        # It reads every service document, so those are proven here as well.
        igd = IgdDevice(await UpnpFactory(AiohttpRequester()).async_create_device(location), None)
        assert await igd.async_get_external_ip_address() == "11.22.33.44"
        await igd.async_add_port_mapping(
            remote_host=IPv4Address("198.51.100.7"),
            external_port=8080,
            protocol="TCP",
            internal_port=80,
            internal_client=IPv4Address("192.168.1.2"),
            enabled=True,
            description="hello",
            lease_duration=timedelta(seconds=3600),
        )
        assert gateway.mappings == [PortMapping(8080, 80, "192.168.1.2", "TCP", "hello", 3600, "198.51.100.7")]
        assert gateway.problems == []
