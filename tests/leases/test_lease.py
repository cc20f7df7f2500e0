"""A lease as its holder sees it, told by hand what the keeper would tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from aioigd import Change, ChangeKind, Lease, LeaseState, Pinhole, PortMapping, TransportError

from .model import US

HTTP = PortMapping(80, 80, US, "TCP")
HTTPS = PortMapping(443, 443, US, "TCP")
K = ChangeKind


def lease_of(*mappings: PortMapping) -> Lease:
    lease = Lease()
    for number, mapping in enumerate(mappings):
        lease.confirm(number, mapping)
    return lease


async def told(what: Callable[[Lease], object], *mappings: PortMapping) -> list[ChangeKind]:
    """Tell a lease something, and return what its reader reads."""
    lease = lease_of(*mappings)
    changes = lease.changes()
    what(lease)
    lease.end()
    return [change.kind async for change in changes]


def test_it_begins_as_lost_and_of_nothing() -> None:
    lease = Lease()
    assert (lease.state, lease.external_port, lease.mappings, lease.last_confirmed) == (LeaseState.LOST, 0, (), None)
    assert (lease.external_address, lease.pinholes, lease.pinhole_error) == (None, (), None)
    assert repr(lease) == "<Lease of nothing yet, lost, at None>"


@pytest.mark.parametrize(
    ("tell", "state"),
    [
        (lambda lease: None, LeaseState.ACTIVE),
        (lambda lease: lease.renewing(0), LeaseState.RENEWING),
        (lambda lease: lease.lose(1), LeaseState.LOST),
        (lambda lease: (lease.renewing(1), lease.lose(0)), LeaseState.LOST),
        (lambda lease: (lease.lose(0), lease.confirm(0, HTTP)), LeaseState.ACTIVE),
        (lambda lease: (lease.renewing(0), lease.lose(0), lease.confirm(0, HTTP)), LeaseState.ACTIVE),
        (lambda lease: lease.let_in((), TransportError("no IPv6", may_have_arrived=False)), LeaseState.ACTIVE),
    ],
)
def test_its_state_is_that_of_the_mapping_that_is_worst_off(tell: Callable[[Lease], object], state: LeaseState) -> None:
    lease = lease_of(HTTP, HTTPS)
    tell(lease)
    assert lease.state is state


@pytest.mark.parametrize(
    ("tell", "kinds"),
    [
        (lambda lease: lease.confirm(0, HTTP), []),
        (lambda lease: lease.renewing(0), []),
        (lambda lease: (lease.lose(0), lease.lose(1)), [K.LOST]),
        (lambda lease: (lease.lose(0), lease.lose(1), lease.confirm(0, HTTP)), [K.LOST]),
        (lambda lease: (lease.lose(0), lease.confirm(0, HTTP)), [K.LOST, K.BACK]),
        (lambda lease: lease.confirm(0, HTTPS), [K.NEW_PORT]),
        (lambda lease: lease.replaced(), [K.GATEWAY_REPLACED]),
        (lambda lease: (lease.move(ip_address("1.2.3.4")), lease.move(ip_address("1.2.3.4"))), [K.NEW_ADDRESS]),
        (lambda lease: lease.move(ip_address("1.2.3.4"), silently=True), []),
        (lambda lease: (lease.move(ip_address("1.2.3.4")), lease.move(None)), [K.NEW_ADDRESS, K.NEW_ADDRESS]),
    ],
)
async def test_changes(tell: Callable[[Lease], object], kinds: list[ChangeKind]) -> None:
    assert await told(tell, HTTP, HTTPS) == kinds


async def test_a_change_says_how_it_stood() -> None:
    lease = lease_of(HTTP)
    changes = lease.changes()
    lease.move(ip_address("1.2.3.4"), silently=True)
    lease.lose(0)
    change = await anext(changes)
    assert change == Change(K.LOST, ip_address("1.2.3.4"), 80, change.at, HTTP)


async def test_who_does_not_read_keeps_only_the_latest() -> None:
    def much(lease: Lease) -> None:
        for _ in range(1000):
            lease.replaced()

    assert len(await told(much)) == 256


async def test_a_reader_that_waits_is_woken_and_stops_in_the_end() -> None:
    lease = lease_of(HTTP)
    changes = lease.changes()
    waiting = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    lease.lose(0)
    assert (await waiting).kind is K.LOST
    waiting = asyncio.ensure_future(anext(changes, None))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    lease.end()
    assert await waiting is None
    assert [change async for change in lease.changes()] == []
    assert "ended" in repr(lease)


def test_pinholes_are_shown() -> None:
    lease = lease_of(HTTP)
    pinhole = Pinhole(1, "2a01:77::2", 80, "TCP")
    lease.let_in((pinhole,), None)
    assert (lease.pinholes, lease.pinhole_error) == ((pinhole,), None)
