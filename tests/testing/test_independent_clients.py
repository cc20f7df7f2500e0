"""Clients that know nothing of this package find the gateway and use it, and it finds nothing wrong with them."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
from datetime import timedelta
from ipaddress import IPv4Address
from typing import Any, Literal

import pytest

from aioigd.models import PortMapping
from aioigd.testing import EmulatedGateway

from .client import IGD_1
from .test_gateway import on_linux

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


# PCP and NAT-PMP


async def natpmpc(*arguments: str) -> str:
    """Run the client of libnatpmp, and return what it prints."""
    command = shutil.which("natpmpc")
    if command is None:
        pytest.skip("natpmpc is not installed (Debian's natpmpc)")
    process = await asyncio.create_subprocess_exec(
        command, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return output.decode()


@on_linux
async def test_natpmpc_maps_renews_and_deletes() -> None:
    async with EmulatedGateway(address=None, protocols=("nat-pmp",)) as gateway:
        gateway.add_mapping(8080, proto="TCP")
        for asked, given in (("8080", "8081"), ("8081", "8081")):
            output = await natpmpc("-g", gateway.address, "-a", asked, "80", "tcp", "3600")
            assert "Public IP address : 11.22.33.44" in output
            assert f"Mapped public port {given} protocol TCP to local port 80" in output
        assert [each.external_port for each in gateway.mappings] == [8080, 8081]
        output = await natpmpc("-g", gateway.address, "-a", "0", "80", "tcp", "0")
        assert "Mapped public port 0 protocol TCP to local port 80" in output
        assert [each.external_port for each in gateway.mappings] == [8080]
        assert gateway.problems == []


@on_linux
async def test_natpmpc_hears_why_it_is_refused() -> None:
    async with EmulatedGateway("nat_pmp_errors_echo_request", address=None, protocols=("nat-pmp",)) as gateway:
        gateway.connected = False
        output = await natpmpc("-g", gateway.address, "-a", "8080", "80", "tcp", "3600")
        assert "NETWORKFAILURE" in output.replace(" ", "").upper()
        assert gateway.mappings == []


@on_linux
async def test_natpmpc_repeats_what_was_lost() -> None:
    async with EmulatedGateway("loses_first_datagrams", address=None, protocols=("nat-pmp",)) as gateway:
        assert "Public IP address : 11.22.33.44" in await natpmpc("-g", gateway.address)
        assert gateway.count("ADDRESS") == 3


async def py_natpmp(*calls: str) -> str:
    """Evaluate calls of PyPI's client in a process of its own, as it leaves its sockets open; return what they print.

    ``HOST`` in a call is the address of the gateway that is passed to the process as its argument.
    """
    if importlib.util.find_spec("natpmp") is None:
        pytest.skip("PyPI's py-natpmp is not installed")
    address, *rest = calls
    program = "import sys, natpmp; HOST = sys.argv[1]\n" + "\n".join(f"print(natpmp.{each})" for each in rest)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "ignore",
        "-c",
        program,
        address,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode()


@on_linux
async def test_py_natpmp_maps_and_deletes() -> None:
    async with EmulatedGateway(address=None, protocols=("pcp", "nat-pmp")) as gateway:
        output = await py_natpmp(
            gateway.address,
            "get_public_address(gateway_ip=HOST)",
            "map_tcp_port(8080, 80, 3600, gateway_ip=HOST)",
            "map_udp_port(8080, 81, 60, gateway_ip=HOST)",
        )
        address, tcp, udp = output.splitlines()
        assert address == "11.22.33.44"
        assert tcp.endswith("private_port 80, public port 8080, lifetime 3600")
        assert udp.endswith("private_port 81, public port 8080, lifetime 60")
        assert {(each.proto, each.external_port, each.internal_port) for each in gateway.mappings} == {
            ("TCP", 8080, 80),
            ("UDP", 8080, 81),
        }
        await py_natpmp(gateway.address, "map_tcp_port(0, 80, 0, gateway_ip=HOST)")
        assert [each.proto for each in gateway.mappings] == ["UDP"]
        assert gateway.problems == []


@on_linux
async def test_py_natpmp_hears_that_there_is_only_pcp() -> None:
    """The result is the same number in both protocols (RFC 6887 section 9)."""
    async with EmulatedGateway(address=None, protocols=("pcp",)) as gateway:
        output = await py_natpmp(gateway.address, "get_public_address(gateway_ip=HOST, retry=1)")
        assert "NATPMPResultError" in output
        assert gateway.count("PCP") == 1
