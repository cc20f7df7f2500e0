"""A router that refuses, loses or regains one of its protocols while there are leases: they go on by another one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from aioigd import ChangeKind, LeaseState, PortMapper
from aioigd.results import ProtocolName
from aioigd.testing import EmulatedGateway, Quirk
from aioigd.testing.hooks import Exchange
from aioigd.testing.http import Response

from ..support import noted, odd, refuses
from .model import state_of

pytestmark = [pytest.mark.usefixtures("nothing_is_left"), pytest.mark.waits]

PATIENCE = 8.0
"""Seconds: what must happen happens sooner, unless the machine is very busy."""
ALL: tuple[ProtocolName, ...] = ("upnp", "pcp", "nat-pmp")


class Switch:
    """UPnP that is switched off and on: its port answers with nothing that is UPnP."""

    def __init__(self) -> None:
        self.is_off = False
        self.quirk: Quirk[[]] = odd(intercept=self._intercept, hears=lambda _: not self.is_off)

    def _intercept(self, exchange: Exchange) -> Response | None:
        return Response(404) if self.is_off else None


def page_of_html(exchange: Exchange) -> Response | None:
    is_call = b"AddPortMapping" in exchange.request.body
    return Response(200, (("Content-Type", "text/html"),), b"<html>no</html>") if is_call else None


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.01)


def protocol_of(gateway: EmulatedGateway, port: int) -> str:
    entry = gateway.entry(port)
    assert entry is not None
    return entry.protocol


@pytest.mark.parametrize("others", [("pcp",), ("nat-pmp",)], ids=str)
@pytest.mark.parametrize(
    "quirk",
    [refuses("AddPortMapping", 501), refuses("AddPortMapping", 606), odd(intercept=page_of_html)],
    ids=["501", "606", "html"],
)
async def test_what_upnp_refuses_is_leased_by_the_next_protocol_and_stays_with_it(
    quirk: Quirk[...], others: tuple[ProtocolName, ...]
) -> None:
    async with (
        EmulatedGateway(quirk, address=None, protocols=("upnp", *others)) as gateway,
        PortMapper(source_address=gateway.address, discovery_timeout=2.0) as mapper,
    ):
        async with mapper.lease(8080, poll_interval=0.2) as lease, noted(lease) as changes:
            assert protocol_of(gateway, 8080) == others[0]
            await asyncio.sleep(0.7)
            assert state_of(lease) is LeaseState.ACTIVE
            assert changes == []
        assert gateway.mappings == []


@pytest.mark.parametrize("other", ["pcp", "nat-pmp"])
async def test_a_lease_goes_on_when_upnp_dies_and_stays_when_it_is_back(other: ProtocolName) -> None:
    switch = Switch()
    async with (
        EmulatedGateway(switch.quirk, address=None, protocols=("upnp", other)) as gateway,
        PortMapper(source_address=gateway.address, timeout=4.0, discovery_timeout=1.5) as mapper,
    ):
        async with mapper.lease(8080, poll_interval=0.2) as lease, noted(lease) as changes:
            assert protocol_of(gateway, 8080) == "upnp"
            switch.is_off = True
            await until(lambda: protocol_of(gateway, 8080) == other)
            await until(lambda: state_of(lease) is LeaseState.ACTIVE)
            assert (await mapper.get_gateway()).protocol == other
            switch.is_off = False
            mapper.devices = []  # look again
            await asyncio.sleep(1.0)
            assert (await mapper.get_gateway()).protocol == "upnp"
            await until(lambda: state_of(lease) is LeaseState.ACTIVE)
            assert [one.external_port for one in gateway.mappings] == [8080]
            assert {change.kind for change in changes} <= {ChangeKind.NEW_ADDRESS}
        assert gateway.mappings == []


async def test_any_port_is_asked_for_by_the_next_protocol_before_ports_are_tried() -> None:
    async with (
        EmulatedGateway(refuses("AddPortMapping", 718), address=None, protocols=ALL) as gateway,
        PortMapper(source_address=gateway.address, discovery_timeout=2.0) as mapper,
    ):
        async with mapper.lease(0, 9000) as any_port, mapper.lease(8080, on_conflict="other_port") as other:
            assert protocol_of(gateway, any_port.external_port) == "pcp"
            assert protocol_of(gateway, other.external_port) == "pcp"
            assert gateway.count("AddPortMapping") == 2
        assert gateway.mappings == []
