"""Pinholes are asked for over IPv6, from the address that they are for, and none is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aioigd import FirewallStatus, Gateway, IGDError, Pinhole, PortMapper, UPnPResult, UsageError
from aioigd.testing import EmulatedGateway, Quirk
from aioigd.testing.hooks import Exchange
from aioigd.testing.http import End, Transmission

from ..support import odd, once, refuses

pytestmark = pytest.mark.usefixtures("nothing_is_left")

ADD, DELETE = "AddPinhole", "DeletePinhole"
OPEN = Pinhole(1, "::1", 8080, "TCP", duration=3600)


@pytest.fixture
async def gateway() -> AsyncIterator[EmulatedGateway]:
    async with EmulatedGateway(address="::1", version=2) as gateway:
        yield gateway
        assert gateway.problems == []


@pytest.fixture
async def router(gateway: EmulatedGateway) -> AsyncIterator[Gateway]:
    async with PortMapper(location=gateway.location) as mapper:
        yield await mapper.get_gateway()


async def test_a_pinhole_lives_until_it_is_closed(gateway: EmulatedGateway, router: Gateway) -> None:
    pinhole = await router.add_pinhole(None, 8080, "tcp")  # type: ignore[arg-type]
    assert pinhole == OPEN
    assert gateway.firewall.pinholes == [OPEN]
    assert await router.query_pinhole_packets(pinhole) == 0
    gateway.firewall.let_through(1, 5)
    assert await router.query_pinhole_packets(pinhole) == 5
    assert await router.query_pinhole_working(pinhole)
    await router.delete_pinhole(pinhole)
    assert gateway.firewall.pinholes == []


async def test_the_same_again_is_prolonged(gateway: EmulatedGateway, router: Gateway) -> None:
    first = await router.add_pinhole("::1", 8080, "TCP", duration=60)
    second = await router.add_pinhole("::1", 8080, "TCP", duration=600)
    assert (first.unique_id, second.unique_id) == (1, 1)
    assert await router.update_pinhole(second, 1200) == gateway.firewall.pinholes[0]
    assert gateway.firewall.pinholes[0].duration == 1200


async def test_the_firewall_tells_what_it_does(gateway: EmulatedGateway, router: Gateway) -> None:
    gateway.firewall.pinholes_allowed = False
    assert await router.query_firewall_status() == FirewallStatus(enabled=True, pinholes_allowed=False)
    assert await router.query_outbound_pinhole_timeout(None, 8080, "UDP") == 180


async def test_where_the_firewall_is_is_asked_once(gateway: EmulatedGateway, router: Gateway) -> None:
    before = gateway.count("GET")
    for port in range(8080, 8090):
        await router.add_pinhole(None, port)
    assert gateway.count("GET") == before + 1


async def test_a_firewall_that_has_moved_is_found_where_the_description_says(
    gateway: EmulatedGateway, router: Gateway
) -> None:
    await router.add_pinhole(None, 8080)
    await gateway.restart(new_port=False)
    assert (await router.add_pinhole(None, 8080)).internal_port == 8080


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (606, UPnPResult.NOT_AUTHORIZED),
        (701, UPnPResult.NO_PORT_MAPS_AVAILABLE),
        (702, UPnPResult.UNKNOWN_ERROR),
        (703, UPnPResult.NOT_AUTHORIZED),
        (705, UPnPResult.INVALID_PROTOCOL),
        (706, UPnPResult.INT_PORT_WILDCARD_NOT_PERMITTED),
        (707, UPnPResult.UNKNOWN_ERROR),
        (708, UPnPResult.SRC_IP_WILDCARD_NOT_PERMITTED),
        (401, UPnPResult.INVALID_GATEWAY),
        (602, UPnPResult.INVALID_GATEWAY),
        (501, UPnPResult.ACTION_FAILED),
    ],
)
async def test_a_refusal_has_the_gateways_code(code: int, result: UPnPResult) -> None:
    async with (
        EmulatedGateway(refuses(ADD, code), address="::1", version=2) as gateway,
        PortMapper(location=gateway.location) as mapper,
    ):
        with pytest.raises(IGDError) as caught:
            await (await mapper.get_gateway()).add_pinhole(None, 8080)
    assert (caught.value.result, caught.value.error_code) == (result, code)
    assert caught.value.attempts[-1].action == ADD


async def test_nobody_knows_whether_it_works_before_a_packet_came(router: Gateway) -> None:
    pinhole = await router.add_pinhole(None, 8080)
    with pytest.raises(IGDError) as caught:
        await router.query_pinhole_working(pinhole)
    assert (caught.value.result, caught.value.error_code) == (UPnPResult.UNKNOWN_ERROR, 709)


async def test_what_is_gone_is_no_such_entry(router: Gateway) -> None:
    with pytest.raises(IGDError) as caught:
        await router.delete_pinhole(OPEN)
    assert (caught.value.result, caught.value.error_code) == (UPnPResult.NO_SUCH_ENTRY_IN_ARRAY, 704)


async def test_a_gateway_of_version_1_has_no_firewall() -> None:
    async with EmulatedGateway(address="::1") as gateway, PortMapper(location=gateway.location) as mapper:
        with pytest.raises(IGDError) as caught:
            await (await mapper.get_gateway()).add_pinhole(None, 8080)
    assert (caught.value.result, caught.value.error_code) == (UPnPResult.INVALID_GATEWAY, None)


async def test_a_gateway_without_a_firewall_is_not_searched_for_over_ipv6() -> None:
    async with EmulatedGateway(address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        router = await mapper.get_gateway()
        loop = asyncio.get_running_loop()
        before = loop.time()
        with pytest.raises(IGDError) as caught:
            await router.add_pinhole(None, 8080)
        assert loop.time() - before < 0.5
    assert caught.value.result is UPnPResult.INVALID_GATEWAY


@pytest.mark.waits
async def test_a_gateway_that_is_not_found_over_ipv6_is_no_gateway_for_pinholes() -> None:
    async with (
        EmulatedGateway(address=None, version=2) as gateway,
        PortMapper(source_address=gateway.address, timeout=1.0) as mapper,
    ):
        router = await mapper.get_gateway()
        with pytest.raises(IGDError) as caught:
            await router.add_pinhole(None, 8080)
    assert caught.value.result in (UPnPResult.NO_DEVICES, UPnPResult.NO_GATEWAY, UPnPResult.SOCKET_ERROR)


class TestUsage:
    @pytest.mark.parametrize("client", ["192.0.2.1", "fe80::1", "ff02::1", "::", "::ffff:192.0.2.1", "host", 7])
    async def test_a_client_is_an_ipv6_address_on_the_internet(self, router: Gateway, client: str) -> None:
        with pytest.raises(UsageError) as caught:
            await router.add_pinhole(client, 8080)
        assert caught.value.result is UPnPResult.INVALID_ARGS

    @pytest.mark.parametrize("duration", [0, 86_401, -1, True, "60"])
    async def test_a_pinhole_lasts_a_second_to_a_day(self, router: Gateway, duration: int) -> None:
        with pytest.raises(UsageError) as caught:
            await router.add_pinhole(None, 8080, duration=duration)
        assert caught.value.result is UPnPResult.INVALID_DURATION

    async def test_a_number_is_no_pinhole(self, router: Gateway) -> None:
        with pytest.raises(UsageError):
            await router.delete_pinhole(7)  # type: ignore[arg-type]


def loses_reply(action: str) -> Quirk[[]]:
    """Carries an action out, and cuts the connection before the reply, the first time."""
    first = once()

    def transmission(exchange: Exchange, normal: Transmission) -> Transmission:
        if exchange.action == action and first(exchange):
            return Transmission((), End.RESET)
        return normal

    return odd(transmission=transmission)


async def test_a_lost_reply_does_not_make_a_second_pinhole() -> None:
    async with EmulatedGateway(loses_reply(ADD), address="::1", version=2) as gateway:
        async with PortMapper(location=gateway.location) as mapper:
            assert await (await mapper.get_gateway()).add_pinhole(None, 8080, "TCP") == OPEN
        assert gateway.firewall.pinholes == [OPEN]
        assert gateway.count(ADD) == 2


async def test_a_pinhole_that_was_closed_before_its_reply_was_lost_is_closed() -> None:
    async with EmulatedGateway(loses_reply(DELETE), address="::1", version=2) as gateway:
        async with PortMapper(location=gateway.location) as mapper:
            router = await mapper.get_gateway()
            await router.delete_pinhole(await router.add_pinhole(None, 8080))
        assert gateway.firewall.pinholes == []


async def test_a_cancelled_pinhole_is_closed_again(gateway: EmulatedGateway) -> None:
    for turns in range(0, 60, 3):
        async with PortMapper(location=gateway.location) as mapper:
            router = await mapper.get_gateway()
            task = asyncio.ensure_future(router.add_pinhole(None, 8080))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
            else:
                await router.delete_pinhole(task.result())
        assert gateway.firewall.pinholes == []


async def test_cancelling_a_renewal_leaves_the_pinhole_open(gateway: EmulatedGateway, router: Gateway) -> None:
    pinhole = await router.add_pinhole(None, 8080)
    for turns in range(0, 40, 5):
        task = asyncio.ensure_future(router.add_pinhole(None, 8080))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert gateway.firewall.pinholes == [pinhole]
