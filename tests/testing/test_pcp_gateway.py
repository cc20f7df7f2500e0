"""A gateway that speaks PCP and NAT-PMP as a whole: its port, its restarts, what it announces and what it leaves."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any, Final

import pytest

from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.testing import EmulatedGateway, Hooks, PcpDatagram, PcpQuery, network, quirk, quirks

from ..support import settled_loop
from .client import Heard, mapping, outcome
from .pcp_client import address_of, announce, announcements_of, ask, map_by_nat_pmp, map_by_pcp, one_reply
from .test_gateway import on_linux
from .test_pcp_server import Clock

pytestmark = pytest.mark.waits

ALL: Final = ("upnp", "pcp", "nat-pmp")
BOTH: Final = ("pcp", "nat-pmp")


def read(heard: Sequence[Heard]) -> list[pcp.Response | nat_pmp.Response | None]:
    return [pcp.parse_response(one.payload) or nat_pmp.parse_response(one.payload) for one in heard]


# Its port


@on_linux
async def test_on_an_address_of_its_own_it_has_the_usual_port() -> None:
    async with (
        EmulatedGateway(address=None, protocols=BOTH) as one,
        EmulatedGateway(address=None, protocols=BOTH) as other,
    ):
        assert one.pcp_port == other.pcp_port == 5351


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_on_a_shared_address_it_has_another_port(address: str) -> None:
    async with EmulatedGateway(address=address, protocols=("pcp",)) as gateway:
        assert gateway.pcp_port not in (0, 5351)
        assert (await announce(gateway)).result == 0


@on_linux
async def test_where_the_usual_port_is_taken_it_has_another_one() -> None:
    with network.loopback_address() as address, network.spare_socket(address, 5351):
        async with EmulatedGateway(address=address, protocols=("pcp",)) as gateway:
            assert gateway.pcp_port != 5351
            assert (await announce(gateway)).result == 0


async def test_without_these_protocols_there_is_no_port() -> None:
    async with EmulatedGateway(address=None) as gateway:
        assert gateway.pcp_port == 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((gateway.address, 5351))
            client.send(b"\0\0")
            client.settimeout(1)
            with pytest.raises(ConnectionRefusedError):
                client.recv(100)


async def test_without_upnp_there_is_nothing_of_upnp() -> None:
    async with EmulatedGateway(address=None, protocols=("nat-pmp",)) as gateway:
        assert gateway.port == 0
        assert gateway.subscriptions == []
        with pytest.raises(RuntimeError, match="speaks nat-pmp only has no description"):
            _ = gateway.location
        assert f"on {gateway.address} by nat-pmp running, 0 mappings" in repr(gateway)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((gateway.address, 1900))
            client.send(b"M-SEARCH")
            client.settimeout(1)
            with pytest.raises(ConnectionRefusedError):
                client.recv(100)


@pytest.mark.parametrize("protocols", [(), ("upnp", "snmp"), "pcp"])
def test_the_protocols_must_be_known(protocols: Any) -> None:
    with pytest.raises(ValueError, match=r"are some of upnp, pcp, nat-pmp, not"):
        EmulatedGateway(protocols=protocols)


# Its epoch


async def test_the_epoch_is_the_age_of_its_state() -> None:
    clock = Clock()
    async with EmulatedGateway(address=None, protocols=ALL, clock=clock) as gateway:
        clock.now += 99.9
        assert (await announce(gateway)).epoch == 99
        assert (await address_of(gateway)).epoch == 99
        await gateway.restart(polite=False)
        clock.now += 3
        assert (await announce(gateway)).epoch == 3
        await gateway.restart(keep_mappings=True)
        clock.now += 3
        assert (await map_by_pcp(gateway)).epoch == 6


async def test_another_external_address_begins_a_new_epoch() -> None:
    clock = Clock()
    async with EmulatedGateway(address=None, protocols=BOTH, clock=clock) as gateway:
        await map_by_pcp(gateway, 80, 8080)
        clock.now += 50
        gateway.external_address = "11.22.33.55"
        assert await address_of(gateway) == nat_pmp.AddressResponse(0, IPv4Address("11.22.33.55"))
        clock.now += 5
        renewed = await map_by_pcp(gateway, 80, 8080)
        assert renewed.epoch == 5
        assert renewed.mapping is not None
        assert renewed.mapping.external_address == IPv4Address("11.22.33.55")


async def test_a_restart_forgets_mappings_and_keeps_the_port() -> None:
    async with EmulatedGateway(protocols=BOTH) as gateway:
        await map_by_pcp(gateway, 80, 8080)
        port = gateway.pcp_port
        await gateway.restart()
        assert gateway.pcp_port == port
        assert gateway.mappings == []
        await map_by_nat_pmp(gateway, 80, 8080)
        await gateway.restart(keep_mappings=True)
        assert len(gateway.mappings) == 1
        assert await map_by_nat_pmp(gateway, 80) == nat_pmp.MapResponse(0, "TCP", 80, 8080, 3600)


@pytest.mark.waits
async def test_a_hanging_gateway_answers_later() -> None:
    async with EmulatedGateway(address=None, protocols=BOTH) as gateway:
        gateway.hang()
        asking = asyncio.create_task(ask(gateway, b"\0\0", patience=0.5))
        while not gateway.count("NAT-PMP"):  # noqa: ASYNC110 (the record tells nobody that it grows)
            await asyncio.sleep(0.001)
        assert not asking.done()
        gateway.resume()
        assert len(await asking) == 1
        gateway.hang()
        assert await ask(gateway, b"\0\0") == []


# What it announces


@on_linux
async def test_a_start_and_a_change_of_address_are_announced() -> None:
    clock = Clock()
    with network.loopback_address() as address:
        gateway = EmulatedGateway(address=address, protocols=ALL, clock=clock)
        async with announcements_of(address) as heard, gateway:
            await settled_loop()
            assert read(heard) == [
                pcp.Response(pcp.Opcode.ANNOUNCE, 0, 0, 0),
                nat_pmp.AddressResponse(0, IPv4Address("11.22.33.44")),
            ]
            assert {one.sender for one in heard} == {(address, 5351)}
            heard.clear()
            clock.now += 100
            await gateway.set_external_address("11.22.33.55")
            await settled_loop()
            assert read(heard) == [
                pcp.Response(pcp.Opcode.ANNOUNCE, 0, 0, 0),
                nat_pmp.AddressResponse(0, IPv4Address("11.22.33.55")),
            ]
            heard.clear()
            await gateway.restart()
            await settled_loop()
            assert len(heard) == 2


@on_linux
@pytest.mark.waits
async def test_an_announcement_is_repeated() -> None:
    async with EmulatedGateway(address=None, protocols=("pcp",)) as gateway, announcements_of(gateway.address) as heard:
        await asyncio.sleep(0.9)
        assert read(heard) == [pcp.Response(pcp.Opcode.ANNOUNCE, 0, 0, 0)] * len(heard)
        assert 1 <= len(heard) <= 2, "0.25 and 0.5 seconds after the first"


@on_linux
async def test_a_gateway_that_speaks_upnp_only_announces_nothing_there() -> None:
    with network.loopback_address() as address:
        async with announcements_of(address) as heard, EmulatedGateway(address=address):
            await settled_loop()
            assert heard == []


# The rest


@on_linux
@pytest.mark.waits
async def test_a_mapped_port_is_open_on_the_internet_side_for_whom_the_filter_names() -> None:
    async with EmulatedGateway(address=None, protocols=BOTH, forward=True) as gateway:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind((gateway.address, 0))
            server.setblocking(False)
            port = server.getsockname()[1]
            loop = asyncio.get_running_loop()
            await map_by_nat_pmp(gateway, port, 8080, proto="UDP")
            friend, stranger = network.neighbour_of(gateway.internet_side), "127.0.0.1"
            for sender, filters, expected in (
                (stranger, [], b"hello"),
                (stranger, [pcp.Filter(128, 0, IPv4Address(friend))], None),
                (friend, [pcp.Filter(128, 0, IPv4Address(friend))], b"hello"),
            ):
                await map_by_pcp(gateway, port, 8080, proto="UDP", options=filters)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.bind((sender, 0))
                    client.sendto(b"hello", (gateway.internet_side, 8080))
                    try:
                        async with asyncio.timeout(0.3 if expected is None else 5):
                            received = await loop.sock_recv(server, 100)
                    except TimeoutError:
                        received = None
                assert received == expected


async def test_the_table_has_a_place_for_each_mapping_whoever_made_it() -> None:
    async with EmulatedGateway(address=None, protocols=ALL, table_size=3) as gateway:
        await map_by_pcp(gateway, 80, 8080)
        await map_by_nat_pmp(gateway, 81, 8081)
        assert await outcome(gateway, "AddPortMapping", mapping(8082)) == 0
        assert await outcome(gateway, "AddPortMapping", mapping(8083)) == 728
        assert isinstance(await map_by_nat_pmp(gateway, 82), nat_pmp.Refusal)


async def test_a_new_quirk_is_a_function_of_a_few_lines() -> None:
    @quirk("pcp", reason="To show it.", source="this test")
    def shouts(times: int = 2) -> Hooks:
        """Says everything several times."""

        def datagrams(query: PcpQuery, sent: Sequence[PcpDatagram]) -> list[PcpDatagram]:
            return [*sent] * times

        return Hooks(pcp_datagrams=datagrams)

    async with EmulatedGateway(shouts(3), address=None, protocols=BOTH) as gateway:
        assert len(await ask(gateway, b"\0\0")) == 3


@on_linux
async def test_nothing_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        async with EmulatedGateway(quirks.slow_pcp(5.0), address=None, protocols=BOTH) as gateway:
            assert await ask(gateway, b"\0\0") == []
            await gateway.restart()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_it_can_be_used_after_it_was_stopped() -> None:
    gateway = EmulatedGateway(protocols=BOTH)
    for _ in range(2):
        async with gateway:
            assert await one_reply(gateway, b"\0\0")
