"""The state machine of a mapping: every state and every event of its table, and what is due in each."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aioigd import DeadlineError, LeaseState, PortMapping
from aioigd.leases import schedule
from aioigd.leases.lease import LeaseRecord
from aioigd.leases.leased_mapping import LeasedMapping, MappingState, Trust
from aioigd.leases.prolongation import Prolongation
from aioigd.models import MappingKey

from .model import THEM, US, lease_request

WANTED, HELD, SUSPECT, RENEWING, TAKEN, ENDED = MappingState
NEW, CHECKED, PROVEN = Trust
HOUR = 3600
GRANTED = PortMapping(8080, 80, US, "TCP", "", HOUR)
PERMANENT = PortMapping(8080, 80, US, "TCP", "", 0)


def wanted() -> LeasedMapping:
    record = LeaseRecord(lease_request(8080, internal_port=80))
    return LeasedMapping(record, record.request.mapping_request(MappingKey(8080, "TCP")))


def held(trust: Trust = NEW, mapping: PortMapping = GRANTED) -> LeasedMapping:
    """A mapping that was granted at time 0."""
    leased = wanted()
    leased.granted(mapping, 0.0)
    leased.trust = trust
    return leased


def suspect() -> LeasedMapping:
    leased = held()
    leased.suspected()
    return leased


def renewing() -> LeasedMapping:
    leased = held()
    leased.renewing()
    return leased


def taken() -> LeasedMapping:
    leased = held()
    leased.taken()
    return leased


def ended() -> LeasedMapping:
    leased = held()
    leased.ended()
    return leased


STATES: dict[MappingState, Callable[[], LeasedMapping]] = {
    WANTED: wanted,
    HELD: held,
    SUSPECT: suspect,
    RENEWING: renewing,
    TAKEN: taken,
    ENDED: ended,
}


def refuse_after_removal(leased: LeasedMapping) -> None:
    leased.removed(10.0)
    leased.refused(10.1)


EVENTS: dict[str, Callable[[LeasedMapping], object]] = {
    "accepted": lambda leased: leased.accepted(GRANTED),
    "granted": lambda leased: leased.granted(GRANTED, 10.0),
    "confirmed": lambda leased: leased.confirmed(GRANTED, 10.0),
    "missing": lambda leased: leased.missing(10.0),
    "disabled": lambda leased: leased.disabled(),
    "suspected": lambda leased: leased.suspected(),
    "renewing": lambda leased: leased.renewing(),
    "removed": lambda leased: leased.removed(10.0),
    "refused": lambda leased: leased.refused(10.0),
    "refused after it was removed": refuse_after_removal,
    "refused, its time over": lambda leased: leased.refused(HOUR),
    "taken": lambda leased: leased.taken(),
    "not expired": lambda leased: leased.expired(10.0),
    "expired": lambda leased: leased.expired(HOUR),
    "prolongs": lambda leased: leased.follow(Prolongation.PROLONGS, 10.0),
    "keeps its end": lambda leased: leased.follow(Prolongation.KEEPS_END, 10.0),
    "moved": lambda leased: leased.moved_to(leased.request),
    "suspended": lambda leased: leased.shift_clock(10.0),
    "ended": lambda leased: leased.ended(),
}
TABLE = {
    # event:                  from WANTED, HELD, SUSPECT, RENEWING, TAKEN, ENDED
    "accepted": (WANTED, HELD, SUSPECT, RENEWING, TAKEN, ENDED),
    "granted": (HELD, HELD, HELD, HELD, HELD, ENDED),
    "confirmed": (HELD, HELD, HELD, HELD, HELD, ENDED),
    "missing": (WANTED, WANTED, WANTED, WANTED, WANTED, ENDED),
    "disabled": (WANTED, WANTED, WANTED, WANTED, WANTED, ENDED),
    "suspected": (WANTED, SUSPECT, SUSPECT, RENEWING, TAKEN, ENDED),
    "renewing": (WANTED, RENEWING, RENEWING, RENEWING, TAKEN, ENDED),
    "removed": (WANTED, HELD, SUSPECT, RENEWING, TAKEN, ENDED),
    "refused after it was removed": (WANTED, WANTED, WANTED, WANTED, WANTED, ENDED),
    "refused": (WANTED, RENEWING, RENEWING, RENEWING, WANTED, ENDED),
    "refused, its time over": (WANTED, WANTED, WANTED, WANTED, WANTED, ENDED),
    "taken": (TAKEN, TAKEN, TAKEN, TAKEN, TAKEN, ENDED),
    "not expired": (WANTED, HELD, SUSPECT, RENEWING, TAKEN, ENDED),
    "expired": (WANTED, WANTED, WANTED, WANTED, TAKEN, ENDED),
    "prolongs": (WANTED, HELD, SUSPECT, RENEWING, TAKEN, ENDED),
    "keeps its end": (WANTED, HELD, SUSPECT, RENEWING, TAKEN, ENDED),
    "moved": (WANTED, HELD, SUSPECT, RENEWING, TAKEN, ENDED),
    "suspended": (WANTED, HELD, SUSPECT, RENEWING, TAKEN, ENDED),
    "ended": (ENDED, ENDED, ENDED, ENDED, ENDED, ENDED),
}


def test_the_table_is_complete() -> None:
    assert TABLE.keys() == EVENTS.keys()
    assert all(len(row) == len(MappingState) for row in TABLE.values())


@pytest.mark.parametrize(
    ("event", "before", "after"),
    [(event, *pair) for event, row in TABLE.items() for pair in zip(MappingState, row, strict=True)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_every_event_in_every_state(event: str, before: MappingState, after: MappingState) -> None:
    leased = STATES[before]()
    assert leased.state is before
    EVENTS[event](leased)
    assert leased.state is after


@pytest.mark.parametrize(
    ("state", "shows"),
    [
        (WANTED, LeaseState.LOST),
        (HELD, LeaseState.ACTIVE),
        (SUSPECT, LeaseState.RENEWING),
        (RENEWING, LeaseState.RENEWING),
        (TAKEN, LeaseState.LOST),
        (ENDED, LeaseState.LOST),
    ],
    ids=lambda value: value.name,
)
def test_what_it_shows(state: MappingState, shows: LeaseState) -> None:
    leased = STATES[state]()
    assert leased.shows is shows
    assert leased.is_held is (state is HELD)
    assert state.name in repr(leased)


def expired_unseen() -> LeasedMapping:
    leased = suspect()
    leased.expired(HOUR)
    return leased


def failed_and_expired() -> LeasedMapping:
    leased = renewing()
    leased.refused(HOUR)
    return leased


def missing_at_first() -> LeasedMapping:
    leased = wanted()
    leased.accepted(GRANTED)
    leased.refused(0.0)
    return leased


@pytest.mark.parametrize(
    ("make", "checked"),
    [
        (wanted, False),
        (held, True),
        (lambda: held(CHECKED), True),
        (lambda: held(PROVEN), False),
        (lambda: held(PROVEN, PERMANENT), True),
        (suspect, True),
        (renewing, False),
        (taken, False),
        (ended, False),
        (expired_unseen, True),
        (failed_and_expired, False),
        (missing_at_first, False),
    ],
)
def test_when_it_is_checked_before_it_is_added(make: Callable[[], LeasedMapping], checked: bool) -> None:
    assert make().is_to_be_checked is checked


@pytest.mark.parametrize(
    ("make", "deleted"),
    [
        (wanted, False),
        (held, True),
        (suspect, True),
        (renewing, True),
        (taken, False),
        (ended, False),
        (expired_unseen, True),
        (missing_at_first, True),
    ],
)
def test_what_is_deleted_in_the_end(make: Callable[[], LeasedMapping], deleted: bool) -> None:
    leased = make()
    assert leased.ended() is deleted
    assert leased.ended() is False
    assert leased.has_ended


# Trust, and when what is due


@pytest.mark.parametrize(("duration", "quarter"), [(3600, 900.0), (3, 0.75), (2, 0.5), (1, 0.5), (0, 600.0)])
def test_a_new_one_is_checked_at_a_quarter_and_renewed_at_half(duration: int, quarter: float) -> None:
    leased = wanted()
    leased.granted(PortMapping(8080, 80, US, "TCP", "", duration), 100.0)
    assert (leased.trust, leased.next_due, leased.renew_at) == (NEW, 100.0 + quarter, 100.0 + 2 * quarter)
    assert leased.is_permanent is (duration == 0)
    assert leased.expires_at == (100.0 + duration if duration else None)


@pytest.mark.parametrize(
    ("trust", "now", "after"),
    [
        (NEW, 900.0, CHECKED),
        (CHECKED, 900.0, CHECKED),
        (NEW, 1800.0, PROVEN),
        (CHECKED, 1800.0, PROVEN),
        (PROVEN, 900.0, PROVEN),
    ],
)
def test_what_is_there_is_trusted_the_more(trust: Trust, now: float, after: Trust) -> None:
    leased = held(trust)
    leased.confirmed(GRANTED, now)
    assert (leased.trust, leased.next_due) == (after, 1800.0)


@pytest.mark.parametrize(("trust", "after"), [(NEW, NEW), (CHECKED, NEW), (PROVEN, PROVEN)])
def test_granted_again_only_what_is_proven_stays_so(trust: Trust, after: Trust) -> None:
    leased = held(trust)
    leased.renewing()
    leased.granted(GRANTED, 1800.0)
    assert (leased.trust, leased.renew_at) == (after, 3600.0)


def test_a_permanent_one_is_checked_every_20_minutes_and_never_proven() -> None:
    leased = held(NEW, PERMANENT)
    assert leased.next_due == 600.0
    for now in (600.0, 1800.0, 3000.0):
        leased.confirmed(PERMANENT, now)
        assert (leased.trust, leased.next_due) == (CHECKED, now + schedule.PERMANENT_CHECK_INTERVAL)
    leased.expired(1e9)
    assert leased.state is HELD


def test_a_check_that_shows_a_shorter_rest_makes_it_due_sooner() -> None:
    leased = held()
    leased.confirmed(PortMapping(8080, 80, US, "TCP", "", 600), 900.0)
    assert (leased.expires_at, leased.renew_at) == (1500.0, 1200.0)
    leased.confirmed(PortMapping(8080, 80, US, "TCP", "", 0), 1000.0)
    assert (leased.expires_at, leased.renew_at) == (1500.0, 1200.0), "0 is what some report for any"


@pytest.mark.parametrize(
    ("granted", "held_for", "observed", "expires"),
    [(3600, 3599, None, 3600.0), (3600, 600, 600, 600.0), (0, 86_400, 86_400, 86_400.0), (3600, 0, None, 3600.0)],
)
def test_a_gateway_that_says_that_it_keeps_it_shorter_is_believed(
    granted: int, held_for: int, observed: int | None, expires: float
) -> None:
    leased = wanted()
    leased.granted(PortMapping(8080, 80, US, "TCP", "", granted), 0.0, held_for=held_for)
    assert (leased.observed_lifetime, leased.expires_at) == (observed, expires)


def test_the_second_early_loss_counts_for_as_long_as_it_was_there() -> None:
    leased = held(PROVEN)
    leased.missing(900.0)
    assert (leased.observed_lifetime, leased.trust) == (None, PROVEN)
    leased.granted(GRANTED, 1000.0)
    leased.missing(1900.0)
    assert (leased.observed_lifetime, leased.trust) == (900, NEW)
    leased.granted(GRANTED, 2000.0)
    assert (leased.renew_at, leased.expires_at) == (2450.0, 2900.0)


def test_what_was_suspect_or_expired_unseen_is_no_early_loss() -> None:
    leased = held()
    for time in range(5):
        leased.suspected()
        if time % 2:
            leased.expired(1e9)
        leased.missing(10.0)
        leased.granted(GRANTED, 0.0)
    assert (leased.early_losses, leased.observed_lifetime) == (0, None)


# Renewals that may not prolong


def renewed(*, held_for: int | None = None, checked: int = HOUR // 2) -> LeasedMapping:
    """A mapping that was granted at 0, checked at half its time, and then renewed."""
    leased = wanted()
    leased.granted(GRANTED, 0.0, held_for=held_for)
    leased.confirmed(PortMapping(8080, 80, US, "TCP", "", checked), 1800.0)
    leased.renewing()
    leased.granted(GRANTED, 1800.0)
    return leased


def rest(seconds: int) -> PortMapping:
    return PortMapping(8080, 80, US, "TCP", "", seconds)


@pytest.mark.parametrize(
    ("held", "now", "shown"),
    [
        (rest(3598), 1802.0, Prolongation.PROLONGS),
        (rest(3597), 1802.0, Prolongation.PROLONGS),
        (rest(1798), 1802.0, Prolongation.KEEPS_END),
        (rest(1799), 1802.0, Prolongation.KEEPS_END),
        (rest(0), 1802.0, Prolongation.BLIND),
        (rest(3600), 1802.0, Prolongation.BLIND),
        (None, 1802.0, None),
        (rest(3600), 1801.0, None),
        (PortMapping(8080, 80, THEM, "TCP", "", 3598), 1802.0, None),
        (PortMapping(8080, 80, THEM, "TCP", "", 3598), 3602.0, None),
        (PortMapping(8080, 80, US, "TCP", "", 3598, enabled=False), 3602.0, None),
        (rest(0), 3602.0, Prolongation.PROLONGS),
        (None, 3602.0, Prolongation.KEEPS_END),
    ],
)
def test_what_a_check_after_a_renewal_shows(held: PortMapping | None, now: float, shown: Prolongation | None) -> None:
    leased = renewed()
    leased.follow(Prolongation.UNKNOWN, 1800.0)
    assert (leased.old_end, leased.next_due, leased.is_to_be_checked) == (3600.0, 1802.0, True)
    assert leased.judge(held, now) is shown


def test_a_gateway_that_keeps_longer_than_it_was_asked_to_is_judged_by_what_it_says() -> None:
    leased = renewed(held_for=86_400, checked=84_600)
    leased.follow(Prolongation.UNKNOWN, 1800.0)
    assert leased.judge(rest(86_398), 1802.0) is Prolongation.PROLONGS
    assert leased.judge(rest(84_598), 1802.0) is Prolongation.KEEPS_END


def test_one_that_is_added_on_another_port_is_not_renewed() -> None:
    leased = renewing()
    leased.granted(PortMapping(8081, 80, US, "TCP", "", HOUR), 1800.0)
    assert leased.old_end is None


def test_why_it_failed_is_shown_while_it_is_not_active() -> None:
    leased = renewing()
    leased.error = DeadlineError("no answer")
    assert leased.port.error is leased.error
    leased.confirmed(GRANTED, 10.0)
    assert leased.port.error is None


def test_without_a_renewal_a_check_shows_nothing_of_renewals() -> None:
    leased = held()
    leased.follow(Prolongation.UNKNOWN, 0.0)
    assert (leased.judge(rest(1800), 1800.0), leased.look_at) == (None, None)
    assert (suspect().judge(rest(1800), 1800.0), wanted().judge(None, 0.0)) == (None, None)


def test_what_is_known_of_renewals_says_what_is_due() -> None:
    leased = renewed()
    leased.follow(Prolongation.UNKNOWN, 1800.0)
    leased.follow(Prolongation.UNKNOWN, 1801.0)
    assert leased.next_due == 1802.0
    leased.follow(Prolongation.BLIND, 1802.0)
    assert (leased.next_due, leased.expires_at) == (3602.0, 5400.0)
    leased.follow(Prolongation.PROLONGS, 3602.0)
    assert (leased.next_due, leased.old_end, leased.look_at) == (3600.0, None, None)
    leased = renewed()
    leased.follow(Prolongation.KEEPS_END, 1802.0)
    assert (leased.next_due, leased.expires_at, leased.is_to_be_checked) == (3595.0, 3600.0, True)
    leased.renewing()
    assert leased.is_to_be_removed(3595.0)
    leased.removed(3595.0)
    assert not leased.is_to_be_removed(3595.0)
    leased.granted(GRANTED, 3596.0)
    assert (leased.old_end, leased.expires_at) == (None, 7196.0)
    leased.follow(Prolongation.KEEPS_END, 3596.0)
    assert leased.next_due == 7191.0
    assert leased.judge(None, 4000.0) is Prolongation.UNKNOWN, "missing before its time"


def test_what_a_renewal_found_missing_at_its_end_is_no_early_loss() -> None:
    leased = renewed()
    leased.missing(3600.0)
    assert leased.early_losses == 0


def test_one_without_an_end_needs_no_renewal() -> None:
    leased = held(NEW, PERMANENT)
    leased.renewing()
    leased.granted(PERMANENT, 1800.0)
    leased.follow(Prolongation.KEEPS_END, 1800.0)
    assert (leased.old_end, leased.keeps_end, leased.is_to_be_removed(1800.0)) == (None, False, False)


def test_one_that_was_switched_off_is_read_back_until_it_is_on() -> None:
    leased = held()
    leased.disabled()
    assert (leased.is_to_be_read_back, leased.early_losses) == (True, 0)
    leased.refused(1.0)
    assert leased.is_to_be_read_back
    leased.granted(GRANTED, 2.0)
    assert not leased.is_to_be_read_back


def test_failures_are_counted_until_it_is_there() -> None:
    leased = renewing()
    leased.refused(1.0)
    leased.taken()
    assert leased.failures == 2
    leased.granted(GRANTED, 2.0)
    assert leased.failures == 0


def test_the_clock_is_shifted_by_a_suspension() -> None:
    leased = held()
    leased.shift_clock(1000.0)
    assert (leased.granted_at, leased.renew_at, leased.expires_at) == (-1000.0, 800.0, 2600.0)
    never = wanted()
    never.shift_clock(1000.0)
    assert (never.granted_at, never.expires_at) == (None, None)


# What it is


def test_what_was_only_accepted_is_not_shown_but_known() -> None:
    leased = wanted()
    assert (leased.granted_mapping, leased.is_same(GRANTED)) == (None, False)
    leased.accepted(GRANTED)
    assert (leased.granted_mapping, leased.is_same(GRANTED)) == (None, True)
    leased.granted(GRANTED, 0.0)
    assert leased.granted_mapping == GRANTED


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (GRANTED, True),
        (PortMapping(8080, 80, US, "TCP", "other desc", 1), True),
        (PortMapping(8080, 80, THEM, "TCP"), False),
        (PortMapping(8080, 81, US, "TCP"), False),
    ],
)
def test_it_is_the_same_where_it_leads_to_the_same(other: PortMapping, same: bool) -> None:
    assert held().is_same(other) is same


@pytest.mark.parametrize(("make", "may_be"), [(wanted, False), (held, True), (renewing, True), (taken, False)])
def test_what_may_be_in_its_own_way(make: Callable[[], LeasedMapping], may_be: bool) -> None:
    assert make().may_be_in_its_own_way is may_be


def test_it_may_move_to_another_port() -> None:
    leased = held()
    key = MappingKey(8081, "TCP")
    leased.moved_to(leased.request._replace(key=key))
    assert leased.key == key
