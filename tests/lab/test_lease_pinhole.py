"""One call opens a port for IPv4 and IPv6, and packets from the internet come in over both, as long as it is held."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from aioigd import LeaseState, UPnPResult

from .network import EXTERNAL_ADDRESS, LAN_ADDRESS6, Lab, Protocol, UpnpMapper
from .router import Router


@pytest.fixture
def router6(lab6: Lab) -> Router:
    return lab6.start_router(ipv6=True)


def arrives(lab: Lab, proto: Protocol, host: str, port: int) -> bool:
    send = lab.send_tcp if proto == "TCP" else lab.send_udp
    with suppress(OSError):
        return send("wan", host, port, b"hello", 0.3) == b"lan: hello"
    return False


@pytest.mark.parametrize("proto", ["TCP", "UDP"])
async def test_one_call_opens_both_and_closes_both(
    lab6: Lab, router6: Router, inside_lan6: None, proto: Protocol
) -> None:
    def ways_in() -> tuple[bool, bool]:
        return arrives(lab6, proto, EXTERNAL_ADDRESS, 8081), arrives(lab6, proto, LAN_ADDRESS6, 8080)

    with lab6.listen("lan", proto, 8080):
        async with UpnpMapper() as mapper:
            assert ways_in() == (False, False)
            async with mapper.lease(8081, 8080, proto=proto, ipv6=True) as lease:
                assert ways_in() == (True, True)
                (pinhole,) = lease.pinholes
                assert (pinhole.internal_client, pinhole.internal_port) == (LAN_ADDRESS6, 8080)
                assert (lease.state, lease.pinhole_error) == (LeaseState.ACTIVE, None)
            assert ways_in() == (False, False)
    assert router6.pinholes() == []
    assert router6.mappings() == []


async def test_it_is_not_opened_for_who_did_not_ask(lab6: Lab, router6: Router, inside_lan6: None) -> None:
    with lab6.listen("lan", "TCP", 8080):
        async with UpnpMapper() as mapper, mapper.lease(8080, proto="TCP") as lease:
            assert arrives(lab6, "TCP", EXTERNAL_ADDRESS, 8080)
            assert not arrives(lab6, "TCP", LAN_ADDRESS6, 8080)
            assert lease.pinholes == ()


async def test_after_a_restart_it_is_open_again(lab6: Lab, router6: Router, inside_lan6: None) -> None:
    with lab6.listen("lan", "TCP", 8080):
        async with UpnpMapper() as mapper, mapper.lease(8080, proto="TCP", poll_interval=2.0, ipv6=True):
            router6.stop()
            router6.forget_mappings()
            lab6.run("router", ["ip6tables-legacy", "-F", "MINIUPNPD"])
            assert not arrives(lab6, "TCP", LAN_ADDRESS6, 8080)
            await asyncio.to_thread(router6.start)
            async with asyncio.timeout(20.0):
                while not (router6.pinholes() and router6.mappings()):  # noqa: ASYNC110 - the packet filter tells nobody
                    await asyncio.sleep(0.1)
            assert arrives(lab6, "TCP", LAN_ADDRESS6, 8080)
    assert router6.pinholes() == []


async def test_where_the_router_has_no_firewall_service_the_lease_goes_on(lab6: Lab, inside_lan6: None) -> None:
    router = lab6.start_router(ipv6=True, igd_v1=True)
    async with UpnpMapper() as mapper, mapper.lease(8080, proto="TCP", ipv6=True) as lease:
        assert len(router.mappings()) == 1
        assert lease.pinholes == ()
        assert lease.pinhole_error is not None
        assert lease.pinhole_error.result is UPnPResult.INVALID_GATEWAY


async def test_without_ipv6_the_lease_goes_on(router: Router, inside_lan: None) -> None:
    async with UpnpMapper() as mapper, mapper.lease(8080, proto="TCP", ipv6=True) as lease:
        assert len(router.mappings()) == 1
        assert lease.state is LeaseState.ACTIVE
        assert lease.pinhole_error is not None
        assert lease.pinhole_error.result is UPnPResult.SOCKET_ERROR
