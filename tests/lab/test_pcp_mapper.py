"""A program that speaks PCP or NAT-PMP only, on a real router: restarts, crashes, loss, new addresses, other hosts."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from ipaddress import ip_address
from typing import Literal

import pytest

from aioigd import ConflictError, IGDError, LeaseState, NotFoundError, PortMapper, RefusedError, UPnPResult

from .network import (
    EXTERNAL_ADDRESS,
    LAN_ADDRESS,
    LAN_ADDRESS6,
    NEIGHBOUR_ADDRESS,
    ROUTER_ADDRESS,
    SECOND_EXTERNAL_ADDRESS,
    Lab,
)
from .router import Mapping, Router

Name = Literal["pcp", "nat-pmp"]
by_both = pytest.mark.parametrize("protocol", ["pcp", "nat-pmp"])
OURS = Mapping("TCP", 8080, LAN_ADDRESS, 80)


async def until_mapped(router: Router, expected: list[Mapping]) -> None:
    def are_there() -> bool:
        with suppress(ValueError):  # read while one is made
            return router.mappings() == expected
        return False

    async with asyncio.timeout(20):
        while not are_there():  # noqa: ASYNC110 - the packet filter tells nobody that it changes
            await asyncio.sleep(0.02)


@by_both
@pytest.mark.parametrize("crash", [False, True], ids=["restart", "crash"])
@pytest.mark.parametrize("lose_leases", [False, True], ids=["leases kept", "leases lost"])
async def test_a_lease_survives_a_restart(
    router: Router, inside_lan: None, protocol: Name, crash: bool, lose_leases: bool
) -> None:
    async with PortMapper(protocols=(protocol,)) as mapper, mapper.lease(8080, 80, proto="TCP") as lease:
        assert router.mappings() == [OURS]
        if crash:
            router.kill()
        else:
            router.stop()
        if lose_leases:
            router.forget_mappings()
        await asyncio.to_thread(router.start)
        await until_mapped(router, [OURS])
        async with asyncio.timeout(20):
            while lease.state is not LeaseState.ACTIVE:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert lease.external_port == 8080
    assert router.mappings() == []


@by_both
async def test_calls_go_on_after_a_crash(router: Router, inside_lan: None, protocol: Name) -> None:
    async with PortMapper(protocols=(protocol,), timeout=2.0) as mapper:
        await mapper.add_port_mapping(8080, 80, proto="TCP")
        router.kill()
        with pytest.raises(IGDError) as caught:
            await mapper.add_port_mapping(8081, 81, proto="TCP")
        assert caught.value.result is UPnPResult.SOCKET_ERROR
        router.forget_mappings()
        await asyncio.to_thread(router.start)
        await mapper.add_port_mapping(8080, 80, proto="TCP")
        await mapper.add_port_mapping(9090, 90, proto="TCP")
        assert router.mappings() == [OURS, Mapping("TCP", 9090, LAN_ADDRESS, 90)]


@by_both
async def test_a_new_external_address_is_noticed(lab: Lab, router: Router, inside_lan: None, protocol: Name) -> None:
    """By the announcements of it."""
    async with PortMapper(protocols=(protocol,)) as mapper, mapper.lease(8080, 80, proto="TCP") as lease:
        async with asyncio.timeout(20):
            while lease.external_address != ip_address(EXTERNAL_ADDRESS):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        lab.set_external_address(SECOND_EXTERNAL_ADDRESS)
        async with asyncio.timeout(20):
            while lease.external_address != ip_address(SECOND_EXTERNAL_ADDRESS):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await mapper.query_external_address() == ip_address(SECOND_EXTERNAL_ADDRESS)
        # With the address the epoch has begun anew, so that the mapping is made again.
        async with asyncio.timeout(20):
            while lease.state is not LeaseState.ACTIVE:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert router.mappings() == [OURS]


@by_both
async def test_what_is_another_hosts_is_neither_taken_nor_deleted(
    lab: Lab, router: Router, inside_lan: None, protocol: Name
) -> None:
    with lab.inside("neighbour"):
        theirs = PortMapper(protocols=(protocol,))
        await theirs.add_port_mapping(8080, 80, proto="TCP")
    held = [Mapping("TCP", 8080, NEIGHBOUR_ADDRESS, 80)]
    async with PortMapper(protocols=(protocol,)) as ours:
        for overwrite in (False, True):
            with pytest.raises(ConflictError):
                await ours.add_port_mapping(8080, 80, proto="TCP", overwrite=overwrite)
        assert router.mappings() == held
        with pytest.raises(RefusedError) as caught:
            await ours.delete_port_mapping(8080, proto="TCP")
        assert caught.value.result is UPnPResult.NOT_AUTHORIZED
        assert router.mappings() == held
        async with ours.lease(8080, 80, proto="TCP", on_conflict="other_port") as lease:
            assert lease.external_port != 8080
            assert len(router.mappings()) == 2
        assert router.mappings() == held
    await theirs.close()


@by_both
async def test_deleting_nothing_is_an_error_and_deleting_what_an_earlier_run_made_is_none(
    router: Router, inside_lan: None, protocol: Name
) -> None:
    async with PortMapper(protocols=(protocol,)) as mapper:
        await mapper.add_port_mapping(8080, proto="TCP")
    async with PortMapper(protocols=(protocol,)) as mapper:
        with pytest.raises(NotFoundError):
            await mapper.delete_port_mapping(9090, proto="TCP")
        assert router.mappings() == [Mapping("TCP", 8080, LAN_ADDRESS, 8080)]
        await mapper.delete_port_mapping(8080, proto="TCP")
        assert router.mappings() == []
        with pytest.raises(NotFoundError):
            await mapper.delete_port_mapping(8080, proto="TCP")


@by_both
async def test_where_two_external_ports_lead_to_one_the_other_stays(
    router: Router, inside_lan: None, protocol: Name
) -> None:
    """The router makes two mappings; a deletion by NAT-PMP takes both, and one by PCP the one or the other."""
    async with PortMapper(protocols=(protocol,)) as earlier:
        await earlier.add_port_mapping(8080, proto="TCP")
    async with PortMapper(protocols=(protocol,)) as mapper:
        await mapper.add_port_mapping(9090, 8080, proto="TCP")
        with pytest.raises(ConflictError):
            await mapper.add_port_mapping(7070, 8080, proto="TCP")
        await mapper.delete_port_mapping(8080, proto="TCP")
        assert router.mappings() == [Mapping("TCP", 9090, LAN_ADDRESS, 8080)]
        await mapper.delete_port_mapping(9090, proto="TCP")
        assert router.mappings() == []


@by_both
async def test_a_third_of_all_datagrams_may_be_lost(lab: Lab, router: Router, inside_lan: None, protocol: Name) -> None:
    async with PortMapper(protocols=(protocol,), timeout=30.0) as mapper:
        lab.drop_some_pcp()
        ports = range(10_000, 10_003)
        await asyncio.gather(*(mapper.add_port_mapping(port, proto="TCP") for port in ports))
        assert router.mappings() == [Mapping("TCP", port, LAN_ADDRESS, port) for port in ports]
        await asyncio.gather(*(mapper.delete_port_mapping(port, proto="TCP") for port in ports))
        assert router.mappings() == []


@by_both
@pytest.mark.long
async def test_two_hundred_at_once_and_nothing_stays(router: Router, inside_lan: None, protocol: Name) -> None:
    async with PortMapper(protocols=(protocol,), timeout=60.0) as mapper:
        ports = range(10_000, 10_200)
        await asyncio.gather(*(mapper.add_port_mapping(port, proto="UDP") for port in ports))
        assert router.mappings() == [Mapping("UDP", port, LAN_ADDRESS, port) for port in ports]
        await asyncio.gather(*(mapper.delete_port_mapping(port, proto="UDP") for port in ports))
        assert router.mappings() == []


@by_both
async def test_the_router_that_is_named_is_used_without_a_default_route(
    lab: Lab, router: Router, inside_lan: None, protocol: Name
) -> None:
    lab.set_default_route(None)
    with pytest.raises(IGDError) as caught:
        async with PortMapper(protocols=(protocol,), timeout=1.0) as mapper:
            await mapper.add_port_mapping(8080, 80, proto="TCP")
    assert caught.value.result is UPnPResult.NO_DEVICES
    async with PortMapper(protocols=(protocol,), gateway=ROUTER_ADDRESS) as mapper:
        await mapper.add_port_mapping(8080, 80, proto="TCP")
        assert router.mappings() == [OURS]


def arrives(lab: Lab, host: str, port: int) -> bool:
    with suppress(OSError):
        return lab.send_tcp("wan", host, port, b"hello", 0.3) == b"lan: hello"
    return False


@pytest.mark.parametrize("hop", ["global", "link-local"])
async def test_a_pinhole_beside_an_ipv4_router(lab6: Lab, inside_lan6: None, hop: str) -> None:
    router = lab6.start_router(ipv6=True)
    if hop == "link-local":
        lab6.set_default_route(lab6.link_local_address("router"), ipv6=True)
    with lab6.listen("lan", "TCP", 8080):
        async with PortMapper(protocols=("pcp",)) as mapper:
            assert not arrives(lab6, LAN_ADDRESS6, 8080)
            async with mapper.lease(8081, 8080, proto="TCP", ipv6=True) as lease:
                assert arrives(lab6, EXTERNAL_ADDRESS, 8081)
                assert arrives(lab6, LAN_ADDRESS6, 8080)
                (pinhole,) = lease.pinholes
                assert (pinhole.internal_client, pinhole.internal_port) == (LAN_ADDRESS6, 8080)
                assert lease.pinhole_error is None
            assert not arrives(lab6, LAN_ADDRESS6, 8080)
    assert router.pinholes() == []
    assert router.mappings() == []


async def test_without_an_ipv6_router_the_lease_goes_on(lab6: Lab, inside_lan6: None) -> None:
    router = lab6.start_router(ipv6=True)
    lab6.set_default_route(None, ipv6=True)
    async with PortMapper(protocols=("pcp",)) as mapper, mapper.lease(8080, proto="TCP", ipv6=True) as lease:
        assert len(router.mappings()) == 1
        assert lease.pinhole_error is not None
        assert lease.pinhole_error.result is UPnPResult.SOCKET_ERROR
