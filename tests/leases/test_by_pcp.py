"""Leases by PCP and NAT-PMP: nothing can be read back, so epochs, announcements and lifetimes tell all that is known.

On a virtual clock, with real datagrams: the emulated gateway counts its epoch by the same clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Any, Literal

import pytest

from aioigd import ChangeKind, ConflictError, LeaseState, PortMapper
from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.pcp.wire.common import CLIENT_PORT
from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.testing import network as emulated_network

from ..support import noted, odd
from .model import state_of
from .virtual import run

Name = Literal["pcp", "nat-pmp"]
by_both = pytest.mark.parametrize("protocol", ["pcp", "nat-pmp"])
UNHEARD = odd(pcp_notices=lambda _: [])
"""Announcements do not arrive, as in most containers."""


@asynccontextmanager
async def router(protocol: Name, *odd_ways: Quirk[...], age: float = 1000.0) -> AsyncIterator[EmulatedGateway]:
    """A router that speaks one of the protocols, and was started some time ago."""
    async with EmulatedGateway(*odd_ways, address=None, protocols=[protocol]) as gateway:
        await asyncio.sleep(age)
        yield gateway
        assert gateway.problems == []


@asynccontextmanager
async def at(gateway: EmulatedGateway, **options: Any) -> AsyncIterator[PortMapper]:
    async with PortMapper(source_address=gateway.address, protocols=("pcp", "nat-pmp"), **options) as mapper:
        yield mapper


def maps(gateway: EmulatedGateway) -> int:
    return gateway.count("MAP")


def nonce_of(gateway: EmulatedGateway) -> bytes:
    (entry,) = [gateway.entry(one.external_port, one.proto) for one in gateway.mappings]
    assert entry is not None
    return entry.nonce


# Lifetimes


@by_both
@pytest.mark.parametrize("seconds", [20, 60, 7200, 604_800])
def test_a_lease_follows_the_lifetime_that_it_is_granted_with_one_datagram_a_renewal(
    protocol: Name, seconds: int
) -> None:
    async def main() -> None:
        async with (
            router(protocol, quirks.grants_lifetime(seconds)) as gateway,
            at(gateway) as mapper,
            mapper.lease(8080, 80, duration=3600, poll_interval=3600) as lease,
        ):
            assert lease.mappings[0].duration == seconds
            first = maps(gateway)
            renewals = 4
            async with noted(lease) as changes:
                for _ in range(renewals * 16):
                    await asyncio.sleep(seconds / 16)
                    assert [one.external_port for one in gateway.mappings] == [8080]
            assert changes == []
            # Between a half and five eighths of its time, each of them.
            assert renewals * 8 / 5 - 1 <= maps(gateway) - first <= renewals * 2 + 1
        assert gateway.mappings == []

    run(main(), debug=False)


@by_both
def test_one_that_lasts_for_a_century_is_not_renewed(protocol: Name) -> None:
    async def main() -> None:
        async with (
            router(protocol, quirks.grants_lifetime(0xFFFFFFFF)) as gateway,
            at(gateway) as mapper,
            mapper.lease(8080, poll_interval=3600) as lease,
        ):
            assert lease.mappings[0].duration == 0xFFFFFFFF
            first = maps(gateway)
            await asyncio.sleep(10 * 86_400)
            assert maps(gateway) == first
            assert state_of(lease) is LeaseState.ACTIVE

    run(main(), debug=False)


@by_both
def test_without_a_limit_the_longest_is_asked_for_and_kept(protocol: Name) -> None:
    async def main() -> None:
        async with (
            router(protocol) as gateway,
            at(gateway) as mapper,
            mapper.lease(8080, duration=0, poll_interval=3600) as lease,
        ):
            granted = lease.mappings[0].duration
            assert granted == (86_400 if protocol == "pcp" else 604_800)
            await asyncio.sleep(3 * granted)
            assert len(gateway.mappings) == 1
            assert state_of(lease) is LeaseState.ACTIVE

    run(main(), debug=False)


@by_both
def test_nothing_is_looked_at_before_it_is_deleted(protocol: Name) -> None:
    async def main() -> None:
        async with router(protocol) as gateway, at(gateway) as mapper:
            async with mapper.lease(8080, proto=["TCP", "UDP"]):
                before = len(gateway.requests)
            assert [one.action for one in gateway.requests[before:]] == ["MAP", "MAP"]
            assert gateway.mappings == []

    run(main(), debug=False)


# Restarts


@by_both
@pytest.mark.parametrize("quirk", [None, UNHEARD], ids=["announced", "unheard"])
def test_after_a_restart_the_mapping_is_made_again_with_the_same_port_and_nonce(
    protocol: Name, quirk: Quirk[...] | None
) -> None:
    async def main() -> None:
        odd_ways = () if quirk is None else (quirk,)
        async with (
            router(protocol, *odd_ways) as gateway,
            at(gateway) as mapper,
            mapper.lease(8080, 80, poll_interval=60.0) as lease,
            noted(lease) as changes,
        ):
            nonce = nonce_of(gateway)
            await asyncio.sleep(100)
            asked = maps(gateway)
            await gateway.restart()
            await asyncio.sleep(5 if quirk is None else 65)
            assert [(one.external_port, one.internal_port) for one in gateway.mappings] == [(8080, 80)]
            assert nonce_of(gateway) == nonce
            assert [change.kind for change in changes] == [ChangeKind.LOST, ChangeKind.BACK]
            # By PCP the address is known with a mapping, which is made for it and deleted.
            assert maps(gateway) - asked == (3 if protocol == "pcp" else 1)
            await asyncio.sleep(100)
            assert [change.kind for change in changes] == [ChangeKind.LOST, ChangeKind.BACK]

    run(main(), debug=False)


@by_both
def test_a_restart_that_a_renewal_shows_brings_all_of_them_back(protocol: Name) -> None:
    async def main() -> None:
        async with (
            router(protocol, UNHEARD) as gateway,
            at(gateway) as mapper,
            mapper.lease(list(range(8080, 8090)), duration=7200, poll_interval=3600) as lease,
            mapper.lease(9000, duration=300, poll_interval=3600),
        ):
            await asyncio.sleep(100)
            await gateway.restart()
            await asyncio.sleep(100)
            assert len(gateway.mappings) == 11
            assert state_of(lease) is LeaseState.ACTIVE

    run(main(), debug=False)


@by_both
def test_one_that_was_made_as_the_router_began_is_asked_for_again_without_a_word(protocol: Name) -> None:
    """So soon an epoch cannot tell whether the router has begun anew since."""

    async def main() -> None:
        async with (
            router(protocol, age=0.0) as gateway,
            at(gateway) as mapper,
            mapper.lease(8080) as lease,
            noted(lease) as changes,
        ):
            await asyncio.sleep(0.1)
            await gateway.restart()
            await asyncio.sleep(5)
            assert [one.external_port for one in gateway.mappings] == [8080]
            assert changes == []

    run(main(), debug=False)


def announce(gateway: EmulatedGateway, protocol: Name, epoch: int, address: str = "11.22.33.44") -> None:
    """Announce something in the name of the gateway."""
    if protocol == "pcp":
        said = pcp.build_response(pcp.Response(pcp.Opcode.ANNOUNCE, 0, 0, epoch))
    else:
        said = nat_pmp.build_response(nat_pmp.AddressResponse(epoch, IPv4Address(address)))
    with emulated_network.spare_socket(gateway.address) as mouth:
        mouth.sendto(said, (emulated_network.announcement_group(gateway.address)[0], CLIENT_PORT))


@by_both
def test_a_flood_of_announcements_costs_few_looks_and_no_mapping(protocol: Name) -> None:
    async def main() -> None:
        async with (
            router(protocol) as gateway,
            at(gateway) as mapper,
            mapper.lease(8080, poll_interval=3600) as lease,
            noted(lease) as changes,
        ):
            await asyncio.sleep(100)
            before, mapped = len(gateway.requests), maps(gateway)
            for number in range(1000):
                announce(gateway, protocol, number * 7919 % 5000)
                await asyncio.sleep(0.01)
            # Ten seconds: by the throttle a look after 0, 1, 3 and 7, each with a search and a poll.
            assert len(gateway.requests) - before <= 5 * 6
            assert maps(gateway) == mapped
            assert changes == []

    run(main(), debug=False)


def test_a_flood_that_tells_of_other_addresses_makes_no_mapping() -> None:
    """By NAT-PMP, while PCP is used, which tells its address with mappings only: that of the lease is asked for."""

    async def main() -> None:
        async with (
            router("pcp") as gateway,
            at(gateway) as mapper,
            mapper.lease(8080, poll_interval=3600) as lease,
            noted(lease) as changes,
        ):
            await asyncio.sleep(100)
            before = len(gateway.requests)
            for number in range(1000):
                announce(gateway, "nat-pmp", number * 7919 % 5000, f"6.6.6.{number % 250}")
                await asyncio.sleep(0.01)
            asked = gateway.requests[before:]
            assert len(asked) <= 5 * 6
            assert {each.arguments["internal_port"] for each in asked if each.action == "MAP"} == {"8080"}
            assert str(lease.external_address) == "11.22.33.44"
            assert changes == []

    run(main(), debug=False)


@by_both
@pytest.mark.parametrize("age", [0.0, 1000.0])
def test_another_address_that_is_announced_is_looked_at_and_shown(protocol: Name, age: float) -> None:
    """Also where the router was started just now, so that no epoch can tell."""

    async def main() -> None:
        async with (
            router(protocol, age=age) as gateway,
            at(gateway) as mapper,
            mapper.lease(8080, poll_interval=3600) as lease,
            noted(lease) as changes,
        ):
            assert str(lease.external_address) == "11.22.33.44"
            await asyncio.sleep(age / 10)
            await gateway.set_external_address("5.6.7.8")
            await asyncio.sleep(5)
            assert str(lease.external_address) == "5.6.7.8"
            assert ChangeKind.NEW_ADDRESS in [change.kind for change in changes]

    run(main(), debug=False)


# Outages


@by_both
def test_a_silent_router_is_waited_for_as_long_as_it_takes(protocol: Name) -> None:
    async def main() -> None:
        async with (
            router(protocol) as gateway,
            at(gateway, timeout=4.0, discovery_timeout=2.0) as mapper,
            mapper.lease(8080, duration=600, poll_interval=60) as lease,
            noted(lease) as changes,
        ):
            gateway.hang()
            await asyncio.sleep(7200)
            assert state_of(lease) is LeaseState.LOST
            gateway.resume()
            await asyncio.sleep(130)
            assert state_of(lease) is LeaseState.ACTIVE
            assert [one.external_port for one in gateway.mappings] == [8080]
            assert [change.kind for change in changes] == [ChangeKind.LOST, ChangeKind.BACK]
        assert gateway.mappings == []

    run(main(), debug=False)


@by_both
def test_one_that_was_off_for_hours_has_the_mapping_again(protocol: Name) -> None:
    async def main() -> None:
        async with (
            router(protocol) as gateway,
            at(gateway, timeout=4.0, discovery_timeout=2.0) as mapper,
            mapper.lease(8080, duration=600, poll_interval=60) as lease,
        ):
            await gateway.stop()
            await asyncio.sleep(7200)
            assert state_of(lease) is LeaseState.LOST
            await gateway.start()
            await asyncio.sleep(130)
            assert state_of(lease) is LeaseState.ACTIVE
            assert [one.external_port for one in gateway.mappings] == [8080]

    run(main(), debug=False)


# Ports that the router chooses


VPN = (quirks.assigns_own_ports(), quirks.grants_lifetime(60))


@pytest.mark.parametrize("proto", ["TCP", ["TCP", "UDP"], ["UDP", "TCP"]], ids=str)
def test_behind_a_vpn_the_port_is_that_of_the_server_and_one_number_for_both(proto: Any) -> None:
    async def main() -> None:
        async with (
            router("nat-pmp", *VPN) as gateway,
            PortMapper(gateway=f"{gateway.address}:{gateway.pcp_port}", protocols=("pcp", "nat-pmp")) as mapper,
            mapper.lease(0, 9000, proto=proto) as lease,
            noted(lease) as changes,
        ):
            number = 1 if isinstance(proto, str) else len(proto)
            assert maps(gateway) <= 10
            port = lease.external_port
            for _ in range(60):
                await asyncio.sleep(10)
                assert [(one.external_port, one.internal_port) for one in gateway.mappings] == [(port, 9000)] * number
            assert {one.duration for one in lease.mappings} == {60}
            assert changes == []
            await gateway.restart()
            await asyncio.sleep(65)
            assert [one.external_port for one in gateway.mappings] == [lease.external_port] * number
            assert state_of(lease) is LeaseState.ACTIVE
        assert gateway.mappings == []

    run(main(), debug=False)


@by_both
@pytest.mark.parametrize("proto", ["TCP", ["TCP", "UDP"]], ids=str)
def test_another_port_is_the_one_that_the_router_gives(protocol: Name, proto: Any) -> None:
    async def main() -> None:
        async with router(protocol) as gateway, at(gateway) as mapper:
            gateway.add_mapping(8080, proto="TCP")
            with pytest.raises(ConflictError):
                async with mapper.lease(8080, proto=proto):
                    pass
            assert len(gateway.mappings) == 1
            before = maps(gateway)
            async with mapper.lease(8080, proto=proto, on_conflict="other_port") as lease:
                assert lease.external_port not in (0, 8080)
                assert {one.external_port for one in lease.mappings} == {lease.external_port}
                assert {one.internal_port for one in lease.mappings} == {8080}
                assert maps(gateway) - before <= 8
            assert len(gateway.mappings) == 1

    run(main(), debug=False)


@by_both
def test_a_range_and_a_list_are_had_port_by_port(protocol: Name) -> None:
    async def main() -> None:
        async with router(protocol) as gateway, at(gateway) as mapper:
            gateway.add_mapping(7000, proto="UDP")
            async with mapper.lease(range(7000, 7003)) as lease, mapper.lease([7010, 7011]) as two:
                assert lease.external_port in (7001, 7002)
                assert [one.external_port for one in two.mappings] == [7010, 7011]
            assert len(gateway.mappings) == 1

    run(main(), debug=False)


@by_both
def test_a_port_that_is_taken_over_a_restart_is_left_for_the_one_that_the_router_gives(protocol: Name) -> None:
    async def main() -> None:
        async with (
            router(protocol) as gateway,
            at(gateway) as mapper,
            mapper.lease(8080, proto=["TCP", "UDP"], on_conflict="other_port") as lease,
            noted(lease) as changes,
        ):
            await asyncio.sleep(100)
            await gateway.stop()
            await gateway.start()
            for one in gateway.mappings:
                gateway.remove_mapping(one.external_port, one.proto)
            await gateway.restart()
            gateway.add_mapping(8080, proto="TCP")
            gateway.add_mapping(8080, proto="UDP")
            await asyncio.sleep(300)
            assert state_of(lease) is LeaseState.ACTIVE
            assert lease.external_port != 8080
            ours = [one for one in gateway.mappings if one.internal_client == gateway.address]
            assert {(one.external_port, one.proto) for one in ours} == {
                (lease.external_port, "TCP"),
                (lease.external_port, "UDP"),
            }
            assert ChangeKind.NEW_PORT in [change.kind for change in changes]
        assert len(gateway.mappings) == 2

    run(main(), debug=False)


# Several programs


def test_two_programs_share_a_mapping_and_the_last_one_deletes_it() -> None:
    async def main() -> None:
        async with router("pcp") as gateway, at(gateway) as one, at(gateway) as other:
            first = await one.lease(8080)
            nonce = nonce_of(gateway)
            second = await other.lease(8080)
            assert nonce_of(gateway) == nonce
            await first.release()
            assert len(gateway.mappings) == 1
            await second.release()
            assert gateway.mappings == []

    run(main(), debug=False)


@by_both
def test_two_leases_share_a_mapping_and_the_one_that_stays_has_its_own_lifetime_again(protocol: Name) -> None:
    async def main() -> None:
        async with (
            router(protocol) as gateway,
            at(gateway) as mapper,
            mapper.lease(8080, duration=7200, poll_interval=3600) as lease,
        ):
            async with mapper.lease(8080, duration=120):
                await asyncio.sleep(10)
            assert len(gateway.mappings) == 1
            for _ in range(720):
                await asyncio.sleep(10)
                assert len(gateway.mappings) == 1
            assert state_of(lease) is LeaseState.ACTIVE
        assert gateway.mappings == []

    run(main(), debug=False)
