"""Leases by PCP and NAT-PMP: the VPN case, restarts, and epochs and announcements that lie."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from ipaddress import IPv4Address
from typing import Literal

import pytest

from aioigd import LeaseState, PortMapper
from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.pcp.wire.common import CLIENT_PORT, GROUP_V4
from aioigd.testing import EmulatedGateway, Quirk, quirks

from ..leases import virtual
from ..testing.test_gateway import on_linux
from .test_backend import BOTH

Name = Literal["pcp", "nat-pmp"]
by_both = pytest.mark.parametrize("protocol", BOTH)


@asynccontextmanager
async def keeping(
    protocol: Name, *rules: Quirk[...] | str, secret: bytes = b"s"
) -> AsyncIterator[tuple[EmulatedGateway, PortMapper]]:
    async with EmulatedGateway(*rules, address=None, protocols=BOTH) as gateway:
        named = f"{gateway.address}:{gateway.pcp_port}"
        async with PortMapper(protocols=(protocol,), gateway=named, pcp_secret=secret) as mapper:
            yield gateway, mapper


def ports(gateway: EmulatedGateway) -> list[tuple[int, str]]:
    return sorted((each.external_port, each.proto) for each in gateway.mappings)


@by_both
@pytest.mark.parametrize("seconds", [20, 60])
def test_behind_a_vpn_the_servers_choice_is_kept_as_long_as_it_is_renewed(protocol: Name, seconds: int) -> None:
    """The gateway is named, lifetimes are short, and the port is the server's, the same for TCP and UDP."""

    async def main() -> None:
        async with keeping(protocol, quirks.grants_lifetime(seconds), "assigns_own_ports") as (gateway, mapper):
            async with mapper.lease(0, 6881, proto=["TCP", "UDP"]) as lease:
                port = lease.external_port
                assert ports(gateway) == [(port, "TCP"), (port, "UDP")]
                before = gateway.count("MAP")
                for _ in range(20):
                    await asyncio.sleep(60)
                    assert lease.state is LeaseState.ACTIVE
                    assert ports(gateway) == [(port, "TCP"), (port, "UDP")]
                renewals = 2 * 1200 / (seconds / 2)
                assert renewals * 0.8 <= gateway.count("MAP") - before <= renewals * 1.3
                assert {each.internal_port for each in gateway.mappings} == {6881}
            assert gateway.mappings == []
            assert gateway.problems == []

    virtual.run(main())


@by_both
def test_what_a_restart_has_lost_is_mapped_again(protocol: Name) -> None:
    """Also where nothing is announced: the next look at the gateway tells its epoch."""

    async def main() -> None:
        async with keeping(protocol, "announces_nothing") as (gateway, mapper):
            async with mapper.lease(8080, 80, proto="TCP") as first, mapper.lease(9090, 90, proto="TCP") as second:
                await asyncio.sleep(600)
                before = gateway.count("MAP")
                await gateway.restart()
                for each in gateway.mappings:
                    gateway.remove_mapping(each.external_port, each.proto)
                await asyncio.sleep(65)
                assert ports(gateway) == [(8080, "TCP"), (9090, "TCP")]
                assert gateway.count("MAP") - before <= 6
                assert first.state is second.state is LeaseState.ACTIVE
            assert gateway.mappings == []

    virtual.run(main())


@by_both
def test_an_epoch_that_jumps_to_and_fro_costs_a_bounded_number_of_requests(protocol: Name) -> None:
    async def main() -> None:
        async with (
            keeping(protocol, "epoch_jumps") as (gateway, mapper),
            mapper.lease(8080, 80, proto="TCP") as lease,
        ):
            await asyncio.sleep(600)
            before = len(gateway.requests)
            await asyncio.sleep(3600)
            # A poll a minute, and after each hint, of which there is one a minute, a search, a poll and a renewal.
            assert len(gateway.requests) - before <= 60 * 8
            assert lease.state is LeaseState.ACTIVE
            assert ports(gateway) == [(8080, "TCP")]

    virtual.run(main())


@by_both
@on_linux
def test_a_flood_of_announcements_costs_one_look(protocol: Name) -> None:
    """Whoever sends them in the name of the router: each has another epoch."""

    async def main() -> None:
        async with (
            AsyncExitStack() as stack,
            keeping(protocol) as (gateway, mapper),
            mapper.lease(8080, 80, proto="TCP") as lease,
        ):
            send = stack.enter_context(sender(gateway.address))
            await asyncio.sleep(1)
            before = len(gateway.requests)
            for epoch in range(10_000, 0, -10):
                send(protocol, epoch)
                await asyncio.sleep(0.0005)
            await asyncio.sleep(0.2)
            assert 2 <= len(gateway.requests) - before <= 8
            for epoch in range(600):
                send(protocol, epoch % 2 * 100_000)
                await asyncio.sleep(0.1)
            assert len(gateway.requests) - before <= 60
            assert lease.state is LeaseState.ACTIVE
            assert ports(gateway) == [(8080, "TCP")]

    virtual.run(main())


@contextmanager
def sender(address: str) -> Iterator[Callable[[Name, int], None]]:
    """Yield what sends an announcement with an epoch from an address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        opened.bind((address, 0))

        def send(protocol: Name, epoch: int) -> None:
            told: bytes
            if protocol == "pcp":
                told = pcp.build_response(pcp.Response(pcp.Opcode.ANNOUNCE, 0, 0, epoch))
            else:
                told = nat_pmp.build_response(nat_pmp.AddressResponse(epoch, IPv4Address("6.6.6.6")))
            opened.sendto(told, (GROUP_V4, CLIENT_PORT))

        yield send
