"""Leases on a real router that restarts, hangs, moves and loses what it held."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address

import pytest

from aioigd import Change, ChangeKind, Lease, LeaseState, PortMapper

from .network import EXTERNAL_ADDRESS, LAN_ADDRESS, Lab, UpnpMapper
from .peers import upnpc
from .router import Mapping, Router

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds: what must happen happens sooner, unless the machine is very busy."""
BACK_WITHIN = 5.0
MARGIN = 5.0
"""Seconds from the NOTIFY of a router that is back to the last mapping, and what a busy machine may add to that."""
NEVER = 3600.0
"""A poll interval that plays no part in a test."""

NEW_EXTERNAL_ADDRESS = "44.0.0.9"
NEW_LAN_ADDRESS = "192.168.77.20"


@asynccontextmanager
async def quick() -> AsyncIterator[PortMapper]:
    """A mapper that soon gives up a call to a router that is not there."""
    async with UpnpMapper(timeout=2.0, discovery_timeout=1.0) as mapper:
        yield mapper


def held(router: Router) -> list[Mapping]:
    """What the packet filter holds, also while it changes: its two tables are read one after the other."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return router.mappings()
        except (ValueError, RuntimeError):
            if time.monotonic() > deadline:
                raise


async def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for something without holding up the loop."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.02)


class Notes:
    """All changes of some leases, in the order in which they came."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    @property
    def kinds(self) -> list[ChangeKind]:
        return [change.kind for change in self.changes]

    async def take(self, lease: Lease) -> None:
        async for change in lease.changes():
            self.changes.append(change)


@asynccontextmanager
async def noted(*leases: Lease) -> AsyncIterator[Notes]:
    notes = Notes()
    tasks = [asyncio.create_task(notes.take(lease)) for lease in leases]
    await asyncio.sleep(0)
    try:
        yield notes
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@contextmanager
def dropping(lab: Lab, rule: str) -> Iterator[None]:
    """The LAN host does not get the packets that this nftables expression describes."""
    lab.run("lan", ["nft", "add", "table", "ip", "deaf"])
    try:
        lab.run("lan", ["nft", "add", "chain", "ip", "deaf", "in", "{ type filter hook prerouting priority 0; }"])
        lab.run("lan", ["nft", "add", "rule", "ip", "deaf", "in", *rule.split(), "drop"])
        yield
    finally:
        lab.run("lan", ["nft", "delete", "table", "ip", "deaf"])


def go_down(router: Router, *, crash: bool) -> None:
    """All is lost, as in a reboot."""
    if crash:
        router.kill()
    else:
        router.stop()
    router.forget_mappings()


async def survive_restarts(
    router: Router, times: int, *, poll: float, within: float, pauses: tuple[float, ...] = (0.2,)
) -> list[float]:
    """Restart the router under leases; return how many seconds after each start everything was there again."""
    took: list[float] = []
    control_ports = {router.port}
    async with (
        UpnpMapper() as mapper,
        mapper.lease(8080, 80, "one", "TCP", poll_interval=poll) as one,
        mapper.lease([9000, 9001, 9002], desc="some", proto=["TCP", "UDP"], poll_interval=poll) as some,
        mapper.lease(0, 7000, "any", "UDP", poll_interval=poll) as any_port,
    ):
        wanted = held(router)
        assert len(wanted) == 8
        leases = (one, some, any_port)
        async with noted(*leases) as notes:
            for number in range(times):
                await asyncio.to_thread(go_down, router, crash=number % 2 == 1)
                await asyncio.sleep(pauses[number // 2 % len(pauses)])
                before = time.monotonic()  # a little earlier than the NOTIFY
                await asyncio.to_thread(router.start)
                control_ports.add(router.port)

                def is_back() -> bool:
                    now = held(router)
                    assert set(now) <= set(wanted)
                    return now == wanted

                await until(is_back, within)
                took.append(time.monotonic() - before)
                await until(lambda: all(lease.state is LeaseState.ACTIVE for lease in leases))
            assert set(notes.kinds) <= {ChangeKind.LOST, ChangeKind.BACK}
        assert len(control_ports) > times / 2
    assert held(router) == []
    log.info("%d restarts, back after %.2f s, at worst %.2f s", times, sorted(took)[times // 2], max(took))
    return took


class TestRestarts:
    async def test_after_two_restarts_all_are_back_soon_and_where_they_were(
        self, router: Router, inside_lan: None
    ) -> None:
        await survive_restarts(router, 2, poll=NEVER, within=BACK_WITHIN + MARGIN)

    @pytest.mark.long
    async def test_after_each_of_a_hundred_restarts_all_are_back(self, router: Router, inside_lan: None) -> None:
        took = await survive_restarts(router, 100, poll=NEVER, within=BACK_WITHIN + MARGIN, pauses=(0.0, 0.2, 1.0, 3.0))
        assert sum(seconds < BACK_WITHIN for seconds in took) >= 95

    async def test_where_the_notify_is_not_heard_the_poll_finds_it(
        self, lab: Lab, router: Router, inside_lan: None
    ) -> None:
        with dropping(lab, "ip daddr 239.255.255.250"):
            await survive_restarts(router, 2, poll=0.5, within=PATIENCE)

    async def test_a_third_of_all_datagrams_may_get_lost(self, lab: Lab, router: Router, inside_lan: None) -> None:
        lab.drop_some_ssdp()
        with dropping(lab, "udp dport 1900 numgen inc mod 13 { 0, 3, 4, 9 }"):
            await survive_restarts(router, 2, poll=1.0, within=PATIENCE)

    @pytest.mark.long
    async def test_any_third_of_all_datagrams_may_get_lost(self, lab: Lab, router: Router, inside_lan: None) -> None:
        lab.drop_ssdp(30)
        with dropping(lab, "udp dport 1900 numgen random mod 100 < 30"):
            await survive_restarts(router, 4, poll=1.0, within=PATIENCE)

    async def test_mappings_that_the_router_has_kept_are_not_touched(self, router: Router, inside_lan: None) -> None:
        async with quick() as mapper, mapper.lease([8080, 8081], proto="TCP", poll_interval=0.5) as lease:
            before = held(router)
            async with noted(lease) as notes:
                for crash in (False, True):
                    confirmed = lease.last_confirmed
                    await asyncio.to_thread(router.kill if crash else router.stop)
                    await asyncio.to_thread(router.start)
                    await until(lambda last=confirmed: lease.last_confirmed != last)  # type: ignore[misc]
                    await until(lambda: lease.state is LeaseState.ACTIVE)
                    assert held(router) == before
                    assert router.asked("AddPortMapping") == 0
                assert notes.changes == []
        assert held(router) == []

    async def test_a_port_that_a_neighbour_took_meanwhile_is_left_to_it(
        self, lab: Lab, router: Router, inside_lan: None
    ) -> None:
        async with quick() as mapper, mapper.lease(8080, proto="TCP", poll_interval=0.5) as lease:
            ours = held(router)
            async with noted(lease) as notes:
                with dropping(lab, "ip saddr 192.168.77.1"):
                    await asyncio.to_thread(go_down, router, crash=True)
                    await asyncio.to_thread(router_starts_unseen, lab, router)
                    await asyncio.to_thread(upnpc, lab, router, "-r", "8080", "TCP", place="neighbour")
                theirs = held(router)
                assert theirs not in ([], ours)
                await until(lambda: lease.state is LeaseState.LOST)
                assert held(router) == theirs
                await asyncio.to_thread(upnpc, lab, router, "-d", "8080", "TCP", place="neighbour")
                await until(lambda: lease.state is LeaseState.ACTIVE)
                assert held(router) == ours
                assert notes.kinds == [ChangeKind.LOST, ChangeKind.BACK]
        assert held(router) == []


def router_starts_unseen(lab: Lab, router: Router) -> None:
    """The harness asks from the LAN host, which hears nothing of the router; so ask from the neighbour."""
    asker, router._asker = router._asker, lab.namespace("neighbour")
    try:
        router.start()
    finally:
        router._asker = asker


class TestExternalAddress:
    async def test_events_tell_that_it_is_gone_and_another_one_there(
        self, lab: Lab, router: Router, inside_lan: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "aioigd.traffic.event")
        async with quick() as mapper, mapper.lease(8080, proto="TCP", poll_interval=NEVER) as lease:
            # What the router tells a new subscriber; only from then on it tells of changes.
            await until(lambda: "aioigd.traffic.event" in [record.name for record in caplog.records])
            assert str(lease.external_address) == EXTERNAL_ADDRESS
            async with noted(lease) as notes:
                lab.set_external_address(None)
                await until(lambda: lease.external_address is None)
                lab.set_external_address(NEW_EXTERNAL_ADDRESS)
                await until(lambda: str(lease.external_address) == NEW_EXTERNAL_ADDRESS)
                addresses = [change.external_address for change in notes.changes]
                assert addresses == [ip_address(NEW_EXTERNAL_ADDRESS)]
                assert set(notes.kinds) == {ChangeKind.NEW_ADDRESS}
            with lab.listen("lan", "TCP", 8080):
                assert lab.send_tcp("wan", NEW_EXTERNAL_ADDRESS, 8080, b"hello") == b"lan: hello"

    async def test_without_events_the_poll_tells_that_it_is_gone_and_another_one_there(
        self, lab: Lab, router: Router, inside_lan: None
    ) -> None:
        with dropping(lab, "ip saddr 192.168.77.1 tcp flags & (syn|ack) == syn"):
            async with quick() as mapper, mapper.lease(8080, proto="TCP", poll_interval=0.3) as lease:
                before = held(router)
                async with noted(lease) as notes:
                    lab.set_external_address(None)
                    await until(lambda: lease.external_address is None)
                    lab.set_external_address(NEW_EXTERNAL_ADDRESS)
                    await until(lambda: str(lease.external_address) == NEW_EXTERNAL_ADDRESS)
                    await until(lambda: lease.state is LeaseState.ACTIVE)
                    addresses = [change.external_address for change in notes.changes]
                    assert addresses == [ip_address(NEW_EXTERNAL_ADDRESS)]
                    assert set(notes.kinds) == {ChangeKind.NEW_ADDRESS}
                assert held(router) == before
        assert held(router) == []


class TestHanging:
    async def test_a_router_that_hangs_makes_leases_doubtful_then_lost_and_they_come_back(
        self, router: Router, inside_lan: None
    ) -> None:
        async with (
            quick() as mapper,
            mapper.lease(8080, proto="TCP", duration=3600, poll_interval=0.5) as long,
            mapper.lease(8081, proto="TCP", duration=4, poll_interval=0.5) as short,
        ):
            wanted = held(router)
            async with noted(long) as of_long, noted(short) as of_short:
                router.pause()
                try:
                    await until(lambda: long.state is LeaseState.RENEWING)
                    await until(lambda: short.state is LeaseState.LOST)
                    assert long.state is LeaseState.RENEWING
                finally:
                    router.resume()
                await until(lambda: long.state is short.state is LeaseState.ACTIVE)
                assert held(router) == wanted
                assert of_long.changes == []
                assert of_short.kinds == [ChangeKind.LOST, ChangeKind.BACK]
        assert held(router) == []

    async def test_a_lease_that_ends_while_the_router_hangs_is_no_hang(self, router: Router, inside_lan: None) -> None:
        async with quick() as mapper:
            async with mapper.lease(8080, proto="TCP"):
                router.pause()
                before = time.monotonic()
            assert time.monotonic() - before < 5.0 + MARGIN
        router.resume()


class TestAnotherGateway:
    @pytest.mark.parametrize("poll", [1.0, NEVER], ids=["poll", "NOTIFY"])
    async def test_a_router_that_was_away_for_twelve_seconds_gets_its_leases_back(
        self, lab: Lab, router: Router, inside_lan: None, poll: float
    ) -> None:
        other = lab.start_second_router()
        async with (
            quick() as mapper,
            mapper.lease(8080, proto="TCP", poll_interval=poll) as one,
            mapper.lease([9000, 9001], proto=["TCP", "UDP"], duration=4, poll_interval=poll) as some,
        ):
            wanted = held(router)
            assert (len(wanted), held(other)) == (5, [])
            await asyncio.to_thread(go_down, router, crash=False)
            before = time.monotonic()
            await until(lambda: held(other) == wanted)
            await until(lambda: one.state is some.state is LeaseState.ACTIVE)
            await asyncio.sleep(before + 12.0 - time.monotonic())
            assert held(other) == wanted
            async with noted(one, some) as notes:
                with contextlib.ExitStack() as stack:
                    if poll != NEVER:
                        stack.enter_context(dropping(lab, "ip daddr 239.255.255.250"))
                    await asyncio.to_thread(router.start)
                    await until(lambda: held(router) == wanted)
                await until(lambda: held(other) == [])
                assert notes.kinds.count(ChangeKind.GATEWAY_REPLACED) == 2
                assert set(notes.kinds) <= {ChangeKind.GATEWAY_REPLACED, ChangeKind.NEW_ADDRESS}
                assert one.state is some.state is LeaseState.ACTIVE
                assert (await mapper.get_gateway()).device.description_url == router.location
        assert held(router) == held(other) == []

    async def test_a_router_that_hung_gets_its_leases_back_and_nothing_is_left_elsewhere(
        self, lab: Lab, router: Router, inside_lan: None
    ) -> None:
        other = lab.start_second_router()
        async with quick() as mapper, mapper.lease([8080, 8081], proto="TCP", poll_interval=1.0) as lease:
            wanted = held(router)
            router.pause()
            try:
                await until(lambda: held(other) == wanted)
                await until(lambda: lease.state is LeaseState.ACTIVE)
                async with noted(lease) as notes:
                    router.resume()
                    await until(lambda: ChangeKind.GATEWAY_REPLACED in notes.kinds)
                    await until(lambda: held(other) == [])
                    assert set(notes.kinds) <= {ChangeKind.GATEWAY_REPLACED, ChangeKind.NEW_ADDRESS}
                    assert lease.state is LeaseState.ACTIVE
            finally:
                router.resume()
            assert held(router) == wanted
        assert held(router) == held(other) == []

    async def test_a_port_that_is_taken_meanwhile_stays_open_elsewhere_until_it_is_free(
        self, lab: Lab, router: Router, inside_lan: None
    ) -> None:
        other = lab.start_second_router()
        async with (
            quick() as mapper,
            mapper.lease(8080, proto="TCP", poll_interval=1.0) as taken,
            mapper.lease(8081, proto="TCP", poll_interval=1.0) as free,
        ):
            wanted = held(router)
            await asyncio.to_thread(go_down, router, crash=True)
            await until(lambda: held(other) == wanted)
            await until(lambda: taken.state is free.state is LeaseState.ACTIVE)
            with dropping(lab, "ip saddr 192.168.77.1"):
                await asyncio.to_thread(router_starts_unseen, lab, router)
                await asyncio.to_thread(upnpc, lab, router, "-r", "8080", "TCP", place="neighbour")
            async with noted(taken, free) as notes:
                await until(lambda: wanted[1] in held(router) and held(other) == wanted[:1])
                await asyncio.sleep(2.5)
                assert taken.state is free.state is LeaseState.ACTIVE
                await asyncio.to_thread(upnpc, lab, router, "-d", "8080", "TCP", place="neighbour")
                await until(lambda: held(router) == wanted)
                await until(lambda: held(other) == [])
                assert set(notes.kinds) <= {ChangeKind.GATEWAY_REPLACED, ChangeKind.NEW_ADDRESS}
        assert held(router) == held(other) == []


class TestThisHost:
    @pytest.mark.parametrize("secure", [True, False], ids=["secure", "not secure"])
    async def test_after_a_new_address_the_port_leads_there(self, lab: Lab, inside_lan: None, secure: bool) -> None:
        router = lab.start_router(secure=secure)
        async with quick() as mapper, mapper.lease(8080, proto="TCP", duration=4, poll_interval=0.5) as lease:
            assert held(router) == [Mapping("TCP", 8080, LAN_ADDRESS, 8080)]
            async with noted(lease) as notes:
                lab.set_lan_address(NEW_LAN_ADDRESS)
                await until(lambda: held(router) == [Mapping("TCP", 8080, NEW_LAN_ADDRESS, 8080)])
                await until(lambda: lease.state is LeaseState.ACTIVE)
                assert set(notes.kinds) <= {ChangeKind.LOST, ChangeKind.BACK}
            assert lease.mappings[0].internal_client == NEW_LAN_ADDRESS
            with lab.listen("lan", "TCP", 8080):
                assert lab.send_tcp("wan", EXTERNAL_ADDRESS, 8080, b"hello") == b"lan: hello"
        assert held(router) == []


class TestRenewal:
    async def test_a_short_lease_outlives_its_time_again_and_again(self, router: Router, inside_lan: None) -> None:
        # The router counts whole seconds, so one of 2 s may have ended after one, when it is just being renewed.
        async with quick() as mapper, mapper.lease(8080, proto="TCP", duration=4, poll_interval=NEVER) as lease:
            async with noted(lease) as notes:
                await router.until_asked("AddPortMapping", 3)
                assert notes.changes == []
            assert held(router) == [Mapping("TCP", 8080, LAN_ADDRESS, 8080)]
        assert held(router) == []


class TestMany:
    @pytest.mark.long
    async def test_two_hundred_mappings_of_one_lease_are_all_gone_in_the_end(
        self, router: Router, inside_lan: None
    ) -> None:
        # Longer than a gateway that lets go of nothing is waited for: 22 ms a request.
        async with UpnpMapper() as mapper, mapper.lease(list(range(20000, 20100)), proto=["TCP", "UDP"]):
            assert len(held(router)) == 200
        assert held(router) == []
