"""Event loops without readers (proactor, Windows): everything works, and nothing is left."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from aioigd import LeaseState, PortMapper
from aioigd.testing import EmulatedGateway

from .pcp.loops import has_no_readers, tells_of_icmp_errors

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.mark.parametrize("protocol", ["upnp", "pcp", "nat-pmp"])
async def test_every_verb_works(monkeypatch: pytest.MonkeyPatch, protocol: Literal["upnp", "pcp", "nat-pmp"]) -> None:
    has_no_readers(monkeypatch)
    if protocol == "upnp":  # the others would take it for their own: a closed port
        tells_of_icmp_errors(monkeypatch)
    async with (
        EmulatedGateway(address=None, protocols=(protocol,)) as gateway,
        PortMapper(source_address=gateway.address, protocols=(protocol,), timeout=30, discovery_timeout=30) as mapper,
    ):
        assert (await mapper.add_port_mapping(5000)).protocol == protocol
        assert str(await mapper.query_external_address()) == gateway.external_address
        await asyncio.gather(*(mapper.add_port_mapping(port) for port in range(6000, 6010)))
        async with mapper.lease(7000) as lease:
            assert lease.state is LeaseState.ACTIVE
        for port in (5000, *range(6000, 6010)):
            await mapper.delete_port_mapping(port)
        assert not gateway.mappings
        assert gateway.problems == []


async def test_the_emulated_gateway_takes_no_icmp_error_for_a_datagram(monkeypatch: pytest.MonkeyPatch) -> None:
    tells_of_icmp_errors(monkeypatch)
    async with EmulatedGateway(address=None, protocols=("upnp", "pcp")) as gateway:
        await asyncio.sleep(0)
        assert gateway.requests == []
