"""The pinholes of leases, with a model of a router and in virtual time."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest

from aioigd import IGDError, Lease, LeaseState, NoRouteError, TransportError, UPnPResult
from aioigd.core.backend import Hint
from aioigd.errors import DeadlineError, DiscoveryError
from aioigd.leases.release import RELEASE_STALL
from aioigd.upnp.wire.error_codes import refused

from .model import US, US6, ModelManager, ModelRouter, lease_request, state_of
from .test_manager import HOUR, POLL, leased
from .virtual import run

NO_IPV6 = (
    TransportError("no IPv6", may_have_arrived=True),
    DiscoveryError("nobody answers", UPnPResult.NO_DEVICES),
    DiscoveryError("only others do", UPnPResult.NO_GATEWAY),
    IGDError("no such service", UPnPResult.INVALID_GATEWAY),
    refused("the firewall is off", 702),
)


def number_open(lease: Lease) -> int:
    return len(lease.pinholes)


def error_of(lease: Lease) -> IGDError | None:
    """The error now; of the attribute itself mypy believes that it stays as it was."""
    return lease.pinhole_error


def test_one_lease_opens_both_renews_both_at_half_and_closes_both() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, 8081, internal_port=8080, duration=3600, ipv6=True) as lease:
            assert router.open_ports() == [(US6, 8080, "TCP")]
            assert [one.internal_port for one in lease.pinholes] == [8080]
            assert lease.pinhole_error is None
            number = lease.pinholes[0].unique_id
            for half_hours in range(2, 20):
                await asyncio.sleep(HOUR / 2 + 1)
                assert router.asked["open"] == half_hours
                assert router.open_ports() == [(US6, 8080, "TCP")]
            assert lease.pinholes[0].unique_id == number
        assert router.pinholes == {}
        assert router.table == {}

    run(main())


def test_one_that_was_granted_for_less_is_renewed_sooner() -> None:
    """By PCP the router chooses the lifetime."""

    async def main() -> None:
        router = ModelRouter(grants=lambda _: 120)
        async with leased(router, duration=3600, ipv6=True) as lease:
            for _ in range(100):
                await asyncio.sleep(10)
                assert router.open_ports() == [(US6, 8080, "TCP")]
            assert lease.pinholes[0].duration == 120
            assert router.asked["open"] == 17

    run(main())


def test_a_server_on_port_0_has_a_port_of_its_own_for_ipv6() -> None:
    async def main() -> None:
        router = ModelRouter()
        server = await asyncio.start_server(lambda *_: None, None, 0)
        ports = {sock.family: sock.getsockname()[1] for sock in server.sockets}
        async with server, leased(router, server, ipv6=True) as lease:
            assert lease.mappings[0].internal_port == ports[socket.AF_INET]
            assert router.open_ports() == [(US6, ports[socket.AF_INET6], "TCP")]
        await server.wait_closed()

    run(main())


def test_who_does_not_ask_for_ipv6_gets_none() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router) as lease:
            await asyncio.sleep(HOUR)
            assert (lease.pinholes, lease.pinhole_error) == ((), None)
        assert not router.asked["open"] + router.asked["close"]

    run(main())


@pytest.mark.parametrize("duration", [0, 86_400, 604_800])
def test_a_pinhole_lasts_a_day_at_most(duration: int) -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, duration=duration, poll_interval=3600.0, ipv6=True) as lease:
            assert lease.pinholes[0].duration == 86_400
            for _ in range(50):
                await asyncio.sleep(2 * HOUR)
                assert len(router.open_ports()) == 1
            assert router.asked["open"] == 1 + 100 // 12

    run(main())


def test_many_ports_and_both_protocols_are_all_opened() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, list(range(1000, 1030)), proto=["TCP", "UDP"], ipv6=True) as lease:
            assert len(router.open_ports()) == len(lease.pinholes) == 60
        assert router.pinholes == {}

    run(main())


@pytest.mark.parametrize("announced", [True, False])
def test_after_a_restart_it_is_opened_again(announced: bool) -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, ipv6=True) as lease:
            await asyncio.sleep(100.0)
            router.restart()
            if announced and router.on_hint is not None:
                router.on_hint(Hint.RESTARTED)
            await asyncio.sleep(1.0 if announced else POLL + 1)
            assert router.open_ports() == [(US6, 8080, "TCP")]
            assert lease.pinholes[0].unique_id in router.pinholes
        assert router.pinholes == {}

    run(main())


@pytest.mark.parametrize("error", NO_IPV6, ids=str)
def test_without_ipv6_the_lease_goes_on_and_it_is_tried_again_now_and_then(error: IGDError) -> None:
    async def main() -> None:
        router = ModelRouter(pinhole_refusal=error)
        async with leased(router, list(range(1000, 1020)), poll_interval=600.0, ipv6=True) as lease:
            assert (lease.state, lease.pinholes) == (LeaseState.ACTIVE, ())
            assert lease.pinhole_error is not None
            assert lease.pinhole_error.result is error.result
            assert router.asked["open"] <= 8
            await asyncio.sleep(6 * HOUR)
            assert router.asked["open"] <= 8 * 20
            router.pinhole_refusal = None
            await asyncio.sleep(HOUR)
            assert len(router.open_ports()) == len(lease.pinholes) == 20
            assert lease.pinhole_error is None

    run(main(), debug=False)


def test_without_an_ipv6_address_nobody_is_asked_or_searched_for() -> None:
    async def main() -> None:
        router = ModelRouter(us6="")
        async with leased(router, ipv6=True) as lease:
            assert (lease.state, lease.pinholes) == (LeaseState.ACTIVE, ())
            assert isinstance(lease.pinhole_error, NoRouteError)
            await asyncio.sleep(HOUR)
            assert not router.asked["open"] + router.asked["look"]
            router.us6 = US6
            await asyncio.sleep(HOUR)
            assert router.open_ports() == [(US6, 8080, "TCP")]
            assert error_of(lease) is None

    run(main())


def test_what_one_lease_has_learned_the_next_ones_need_not_ask() -> None:
    async def main() -> None:
        router = ModelRouter(pinhole_refusal=NO_IPV6[1])
        manager = ModelManager(router)
        leases = [await manager.hold(lease_request(port, ipv6=True)) for port in range(1000, 1050)]
        assert router.asked["open"] == 1
        assert all(lease.pinhole_error is not None for lease in leases)
        await manager.close()

    run(main())


@pytest.mark.parametrize("error", [refused("no", 606), DeadlineError("too late")], ids=str)
def test_a_refusal_is_the_callers_error_unless_the_lease_is_not_required(error: IGDError) -> None:
    async def main() -> None:
        router = ModelRouter(pinhole_refusal=error)
        with pytest.raises(IGDError) as caught:
            async with leased(router, ipv6=True):
                pass
        assert caught.value.result is error.result
        assert router.table == {}
        async with leased(router, ipv6=True, required=False) as lease:
            await lease.wait_active(1.0)
            assert state_of(lease) is LeaseState.ACTIVE
            assert lease.pinhole_error is not None
            router.pinhole_refusal = None
            await asyncio.sleep(POLL)
            assert (len(lease.pinholes), error_of(lease)) == (1, None)

    run(main())


def test_a_renewal_that_fails_is_tried_again_while_it_is_open_and_then_it_is_told() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, duration=600, ipv6=True) as lease:
            router.pinhole_refusal = NO_IPV6[0]
            await asyncio.sleep(400.0)
            assert number_open(lease) == 1
            assert lease.pinhole_error is not None
            router.pinhole_refusal = None
            await asyncio.sleep(130.0)
            assert error_of(lease) is None
            router.is_away = True
            await asyncio.sleep(HOUR)
            assert not number_open(lease)
            router.is_away = False
            await asyncio.sleep(POLL + 5)
            assert number_open(lease) == len(router.open_ports()) == 1

    run(main())


def test_when_this_machine_gets_another_ipv6_address_the_pinhole_follows() -> None:
    async def main() -> None:
        router = ModelRouter()
        async with leased(router, ipv6=True) as lease:
            router.us6 = "2a01:99::2"
            await asyncio.sleep(POLL + 1)
            assert ("2a01:99::2", 8080, "TCP") in router.open_ports()
            assert [one.internal_client for one in lease.pinholes] == ["2a01:99::2"]
            assert router.owner(8080) == US

    run(main())


def test_two_leases_on_one_port_share_the_pinhole_and_the_last_one_closes_it() -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        one = await manager.hold(lease_request(8080, ipv6=True))
        other = await manager.hold(lease_request(8081, internal_port=8080, duration=60, ipv6=True))
        await other.release()
        for _ in range(60):
            await asyncio.sleep(50.0)
            assert len(router.open_ports()) == 1
        await one.release()
        assert router.pinholes == {}

    run(main())


@pytest.mark.parametrize("after", range(16))
def test_a_lease_that_is_cancelled_while_it_begins_leaves_nothing_open(after: int) -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        task = asyncio.ensure_future(manager.hold(lease_request([8080, 8081], ipv6=True)))
        await asyncio.sleep(after * 0.0005)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await (await task).release()
        await manager.close()
        assert router.pinholes == {}

    run(main())


def test_a_lease_that_ends_while_its_pinhole_is_prolonged_leaves_nothing_open() -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        other = await manager.hold(lease_request(9000))  # so that the keeping goes on
        lease = await manager.hold(lease_request(duration=100, ipv6=True))
        await asyncio.sleep(49.0)
        while router.asked["open"] == 1:  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.0005)
        await lease.release()
        await asyncio.sleep(1.0)
        assert router.pinholes == {}
        await other.release()

    run(main())


def test_the_end_is_bounded_when_the_router_hangs() -> None:
    async def main() -> None:
        router = ModelRouter()
        loop = asyncio.get_running_loop()
        async with leased(router, list(range(1000, 1100)), ipv6=True):
            router.before_answer = lambda _: asyncio.sleep(10_000.0)
            started = loop.time()
        assert loop.time() - started <= RELEASE_STALL + 0.1

    run(main())
