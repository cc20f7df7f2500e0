"""Leases by PCP and NAT-PMP on a real router that is restarted and killed, with packets from the WAN side."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from aioigd import ChangeKind, LeaseState, PortMapper

from .network import EXTERNAL_ADDRESS, LAN_ADDRESS, Lab, Protocol
from .router import Mapping, Router
from .test_leases import go_down, held, noted, until

Name = Literal["pcp", "nat-pmp"]
by_both = pytest.mark.parametrize("protocol", ["pcp", "nat-pmp"])


@by_both
@pytest.mark.parametrize("proto", ["TCP", "UDP"])
@pytest.mark.parametrize("crash", [False, True], ids=["restart", "kill"])
async def test_after_a_restart_the_port_is_open_again(
    lab: Lab, router: Router, inside_lan: None, protocol: Name, proto: Protocol, crash: bool
) -> None:
    send = lab.send_tcp if proto == "TCP" else lab.send_udp
    ours = [Mapping(proto, 8081, LAN_ADDRESS, 8080)]
    async with (
        PortMapper(protocols=(protocol,), timeout=2.0, discovery_timeout=1.0) as mapper,
        mapper.lease(8081, 8080, proto=proto, poll_interval=0.5) as lease,
        noted(lease) as notes,
    ):
        with lab.listen("lan", proto, 8080):
            assert send("wan", EXTERNAL_ADDRESS, 8081, b"hello") == b"lan: hello"
            await asyncio.to_thread(go_down, router, crash=crash)
            await until(lambda: lease.state is not LeaseState.ACTIVE)
            await asyncio.to_thread(router.start)
            await until(lambda: held(router) == ours)
            await until(lambda: lease.state is LeaseState.ACTIVE)
            assert send("wan", EXTERNAL_ADDRESS, 8081, b"again") == b"lan: again"
        assert set(notes.kinds) <= {ChangeKind.LOST, ChangeKind.BACK}
    assert held(router) == []


@by_both
async def test_any_port_is_one_number_for_both(router: Router, inside_lan: None, protocol: Name) -> None:
    async with PortMapper(protocols=(protocol,)) as mapper, mapper.lease(0, 7000, proto=["TCP", "UDP"]) as lease:
        port = lease.external_port
        assert sorted(held(router)) == [Mapping(proto, port, LAN_ADDRESS, 7000) for proto in ("TCP", "UDP")]
    assert held(router) == []
