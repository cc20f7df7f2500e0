"""A lease as its holder sees it, while its record is told by hand what the manager would tell; and a pending one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from aioigd import (
    Change,
    ChangeKind,
    DeadlineError,
    Lease,
    LeasedPort,
    LeaseState,
    NotFoundError,
    Pinhole,
    PortMapping,
    TransportError,
    UsageError,
)
from aioigd.leases.lease import LeaseRecord, PendingLease
from aioigd.leases.leased_mapping import LeasedMapping
from aioigd.leases.request import LeaseRequest

from .model import US, ModelManager, ModelRouter, failure_of, lease_request
from .virtual import run

HTTP = PortMapping(80, 80, US, "TCP")
HTTPS = PortMapping(443, 443, US, "TCP")
K = ChangeKind


class Told:
    """A lease of two mappings, and what the manager may tell of them: a transition, and the change of its record."""

    def __init__(self, *granted: PortMapping) -> None:
        self.record = LeaseRecord(lease_request([80, 443]))
        self.mappings = [LeasedMapping(self.record, self.record.request.mapping_request(one.key)) for one in granted]
        self.record.mappings = self.mappings
        self.lease = Lease(self.record, self._release)
        for number, one in enumerate(granted):
            self.confirm(number, one)

    def confirm(self, number: int, mapping: PortMapping) -> None:
        before = self.mappings[number].granted_mapping
        self.mappings[number].granted(mapping, 0.0)
        self.record.confirmed(self.mappings[number], before=before)

    def renewing(self, number: int) -> None:
        self.mappings[number].renewing()
        self.record.mapping_changed(self.mappings[number])

    def lose(self, number: int) -> None:
        self.mappings[number].missing(1.0)
        self.record.mapping_changed(self.mappings[number])

    def _release(self, record: LeaseRecord, *, keep: bool = False) -> asyncio.Task[None]:
        record.end()
        return asyncio.get_running_loop().create_task(asyncio.sleep(0))


async def told(what: Callable[[Told], object], *mappings: PortMapping) -> list[ChangeKind]:
    """Tell a lease something, and return what its reader reads."""
    told = Told(*mappings)
    changes = told.lease.changes()
    what(told)
    await told.lease.release()
    return [change.kind async for change in changes]


def test_it_begins_as_lost_and_of_nothing() -> None:
    lease = Told().lease
    assert (lease.state, lease.external_port, lease.mappings, lease.last_confirmed) == (LeaseState.LOST, 0, (), None)
    assert (lease.external_address, lease.pinholes, lease.pinhole_error) == (None, (), None)
    assert repr(lease) == "<Lease of nothing yet, lost, at None>"


@pytest.mark.parametrize(
    ("tell", "state"),
    [
        (lambda told: None, LeaseState.ACTIVE),
        (lambda told: told.renewing(0), LeaseState.RENEWING),
        (lambda told: told.lose(1), LeaseState.LOST),
        (lambda told: (told.renewing(1), told.lose(0)), LeaseState.LOST),
        (lambda told: (told.lose(0), told.confirm(0, HTTP)), LeaseState.ACTIVE),
        (lambda told: (told.renewing(0), told.lose(0), told.confirm(0, HTTP)), LeaseState.ACTIVE),
        (
            lambda told: told.record.set_pinholes((), TransportError("no IPv6", may_have_arrived=False)),
            LeaseState.ACTIVE,
        ),
    ],
)
def test_its_state_is_that_of_the_mapping_that_is_worst_off(tell: Callable[[Told], object], state: LeaseState) -> None:
    told = Told(HTTP, HTTPS)
    tell(told)
    assert told.lease.state is state


@pytest.mark.parametrize(
    ("tell", "kinds"),
    [
        (lambda told: told.confirm(0, HTTP), []),
        (lambda told: told.renewing(0), []),
        (lambda told: (told.lose(0), told.lose(1)), [K.LOST]),
        (lambda told: (told.lose(0), told.lose(1), told.confirm(0, HTTP)), [K.LOST]),
        (lambda told: (told.lose(0), told.confirm(0, HTTP)), [K.LOST, K.BACK]),
        (lambda told: told.confirm(0, HTTPS), [K.NEW_PORT]),
        (lambda told: told.record.gateway_replaced(), [K.GATEWAY_REPLACED]),
        (
            lambda told: (
                told.record.set_external_address(ip_address("1.2.3.4")),
                told.record.set_external_address(ip_address("1.2.3.4")),
            ),
            [K.NEW_ADDRESS],
        ),
        (lambda told: told.record.set_external_address(ip_address("1.2.3.4"), silently=True), []),
        (
            lambda told: (
                told.record.set_external_address(ip_address("1.2.3.4")),
                told.record.set_external_address(None),
                told.record.set_external_address(ip_address("1.2.3.4")),
                told.record.set_external_address(ip_address("1.2.3.5")),
            ),
            [K.NEW_ADDRESS, K.NEW_ADDRESS],
        ),
        (lambda told: told.record.set_external_address(None), []),
    ],
)
async def test_changes(tell: Callable[[Told], object], kinds: list[ChangeKind]) -> None:
    assert await told(tell, HTTP, HTTPS) == kinds


async def test_a_change_says_how_it_stood() -> None:
    told = Told(HTTP)
    changes = told.lease.changes()
    told.record.set_external_address(ip_address("1.2.3.4"), silently=True)
    told.lose(0)
    change = await anext(changes)
    assert change == Change(K.LOST, ip_address("1.2.3.4"), 80, change.at, HTTP)


async def test_an_address_is_told_once_a_port_is_known_too() -> None:
    record = LeaseRecord(lease_request([80]))
    mapping = LeasedMapping(record, record.request.mapping_request(HTTP.key))
    record.mappings = [mapping]
    changes = record.changes()
    record.set_external_address(ip_address("1.2.3.4"))
    mapping.granted(HTTP, 0.0)
    record.confirmed(mapping, before=None)
    told = [await anext(changes) for _ in range(2)]
    assert [(one.kind, str(one.external_address), one.external_port) for one in told] == [
        (K.NEW_ADDRESS, "1.2.3.4", 80),
        (K.BACK, "1.2.3.4", 80),
    ]


async def test_each_port_says_how_it_stands_and_why(caplog: pytest.LogCaptureFixture) -> None:
    told = Told(HTTP, HTTPS)
    assert [(one.mapping, one.state, one.error) for one in told.lease.ports] == [
        (HTTP, LeaseState.ACTIVE, None),
        (HTTPS, LeaseState.ACTIVE, None),
    ]
    assert failure_of(told.lease) is None
    assert told.lease.ports[0].last_confirmed is not None
    gone = NotFoundError("it is gone")
    told.mappings[1].error = gone
    told.lose(1)
    assert told.lease.ports[1] == LeasedPort(HTTPS, LeaseState.LOST, gone, told.lease.ports[1].last_confirmed)
    assert told.lease.error is gone
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (
        "WARNING",
        "TCP port 443 is lost: it is gone [NO_SUCH_ENTRY_IN_ARRAY]",
    )
    shown = told.lease.ports
    await told.lease.release()
    assert told.lease.ports == shown, "what it shows stays when it has ended"


@pytest.mark.parametrize(
    ("asked", "ports"),
    [
        ({"port": [80, 443]}, [(80, 80, "TCP"), (443, 443, "TCP")]),
        ({"port": 0, "proto": ["TCP", "UDP"]}, [(0, 0, "TCP"), (0, 0, "UDP")]),
        ({"port": range(7000, 7010), "internal_port": 9}, [(0, 9, "TCP")]),
    ],
)
async def test_before_anything_was_granted_a_port_is_what_is_wanted(
    asked: dict[str, object], ports: list[tuple[int, int, str]]
) -> None:
    record = LeaseRecord(lease_request(**asked))
    lease = Lease(record, Told()._release)
    assert [(one.mapping.external_port, one.mapping.internal_port, one.mapping.proto) for one in lease.ports] == ports
    assert {(one.state, one.error, one.last_confirmed) for one in lease.ports} == {(LeaseState.LOST, None, None)}
    tried = record.request.choices[0] if record.request.choices else 80
    record.mappings = [LeasedMapping(record, one) for one in record.request.mapping_requests(tried)]
    assert lease.ports[0].mapping.external_port == ports[0][0]


async def test_wait_active() -> None:
    told = Told(HTTP, HTTPS)
    await told.lease.wait_active(0.01)
    told.lose(0)
    with pytest.raises(DeadlineError, match="still lost"):
        await told.lease.wait_active(0.01)
    told.mappings[0].error = NotFoundError("it is gone")
    with pytest.raises(NotFoundError) as caught:
        await told.lease.wait_active(0.01)
    assert caught.value is not told.mappings[0].error, "several may wait, and each gets its own"
    waiting = [asyncio.ensure_future(told.lease.wait_active(5.0)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    told.confirm(0, HTTP)
    await asyncio.gather(*waiting)
    told.lose(0)
    late = asyncio.ensure_future(told.lease.wait_active(5.0))
    await asyncio.sleep(0)
    await told.lease.release()
    with pytest.raises(UsageError, match="ended"):
        await late
    with pytest.raises(UsageError, match="timeout"):
        await told.lease.wait_active(-1)


async def test_who_does_not_read_keeps_only_the_latest() -> None:
    def much(told: Told) -> None:
        for _ in range(1000):
            told.record.gateway_replaced()

    assert len(await told(much)) == 256


async def test_a_reader_that_waits_is_woken_and_stops_in_the_end() -> None:
    told = Told(HTTP)
    changes = told.lease.changes()
    waiting = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    told.lose(0)
    assert (await waiting).kind is K.LOST
    waiting = asyncio.ensure_future(anext(changes, None))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    told.record.end()
    assert await waiting is None
    assert [change async for change in told.lease.changes()] == []
    assert "ended" in repr(told.lease)


async def test_what_it_shows_stays_when_it_has_ended() -> None:
    told = Told(HTTP, HTTPS)
    await told.lease.release()
    for mapping in told.mappings:
        mapping.ended()
    assert (told.lease.state, told.lease.mappings, told.lease.external_port) == (LeaseState.ACTIVE, (HTTP, HTTPS), 80)


def test_pinholes_are_shown() -> None:
    told = Told(HTTP)
    pinhole = Pinhole(1, "2a01:77::2", 80, "TCP")
    told.record.set_pinholes((pinhole,), None)
    assert (told.lease.pinholes, told.lease.pinhole_error) == ((pinhole,), None)


def test_it_is_only_read() -> None:
    lease = Told(HTTP).lease
    names = [name for name in dir(lease) if not name.startswith("_")]
    assert names == [
        "changes",
        "error",
        "external_address",
        "external_port",
        "last_confirmed",
        "mappings",
        "pinhole_error",
        "pinholes",
        "ports",
        "release",
        "state",
        "wait_active",
    ]
    for name in names:
        with pytest.raises(AttributeError):
            setattr(lease, name, None)


class TestPending:
    def test_a_block_begins_the_lease_and_releases_it(self) -> None:
        async def main() -> None:
            router = ModelRouter()
            manager = ModelManager(router)
            async with PendingLease(manager, lease_request()) as lease:
                assert (router.owner(8080), lease.state) == (US, LeaseState.ACTIVE)
            assert router.table == {}
            await manager.close()

        run(main())

    def test_who_awaits_it_releases_it_and_once_is_enough(self) -> None:
        async def main() -> None:
            router = ModelRouter()
            manager = ModelManager(router)
            other = await PendingLease(manager, lease_request(9000))
            lease = await PendingLease(manager, lease_request())
            await lease.release()
            assert router.owner(8080) is None
            asked = router.asked.total()
            await lease.release()
            assert router.asked.total() == asked
            assert (router.owner(9000), other.state) == (US, LeaseState.ACTIVE)
            await manager.close()

        run(main())

    def test_a_block_may_be_left_after_the_release(self) -> None:
        async def main() -> None:
            router = ModelRouter()
            manager = ModelManager(router)
            async with PendingLease(manager, lease_request()) as lease:
                await lease.release()
                assert router.table == {}
            await manager.close()

        run(main())

    def test_it_is_for_one_use(self) -> None:
        async def main() -> None:
            manager = ModelManager(ModelRouter())
            pending = PendingLease(manager, lease_request())
            async with pending:
                with pytest.raises(UsageError, match="begun before"):
                    await pending
                with pytest.raises(UsageError, match="begun before"):
                    async with pending:
                        pass
            await manager.close()
            with pytest.raises(UsageError, match="closed"):
                await PendingLease(manager, lease_request())

        run(main())

    def test_nothing_happens_before_it_is_begun(self) -> None:
        class Unused:
            async def hold(self, request: LeaseRequest) -> Lease:
                raise AssertionError(request)

        PendingLease(Unused(), lease_request())
