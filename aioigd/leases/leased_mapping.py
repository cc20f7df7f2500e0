"""In which state is a mapping of a lease? A state machine without I/O; the clock is passed in.

==================  ================================  ========================================  ========
state               what is due                       becomes                                   shows
==================  ================================  ========================================  ========
WANTED: is not      add, with backoff; check first    granted → HELD; taken → TAKEN             LOST
there               what has expired unseen
HELD: NEW, CHECKED  NEW: check at a quarter; half:    missing or disabled → WANTED; suspected   ACTIVE
or PROVEN           check unless PROVEN, then renew   → SUSPECT; renewing → RENEWING; expired →
                                                      WANTED
SUSPECT: may be     check when the gateway is there;  confirmed → HELD; missing → WANTED;       RENEWING
gone                no answer: again in 5 s           cannot tell: renewing → RENEWING;
                                                      expired → WANTED
RENEWING: add is    add, with backoff, but not        granted → HELD; taken → TAKEN; removed    RENEWING
out, or has failed  beyond its end                    → RENEWING, its time over; refused or
                                                      expired, its time over → WANTED
TAKEN: belongs to   add, with backoff                 granted → HELD; refused for any other     LOST
another                                               reason → WANTED
ENDED               nothing                           nothing                                   LOST
==================  ================================  ========================================  ========

Everything else leaves the state as it is; any state becomes ENDED with the lease. What the table means:

- A lease must not lose its port because a gateway keeps a mapping for a shorter time than it said. So a NEW mapping is
  checked at a quarter of its time; if it is missing there, or at half, for the second time, the time that it was seen
  to last (``observed_lifetime``) counts from then on. A mapping that was once there at half its time is PROVEN, and
  from then on renewed without a check. Granted again it stays PROVEN, unless it was missing too early since.
- Where a renewal does not prolong (:mod:`~aioigd.leases.prolongation`), a mapping ends at its ``old_end``. Just before
  that it is checked, removed and added again, so the gap is one round trip. If the add then fails, it is LOST.
- Some gateways refuse to add again what they hold. So the last of the tries comes when the old mapping has just
  expired, however long the pause would be.
- A mapping that the gateway holds switched off (``disabled``) lets nothing through: it is missing. The next add is read
  back, as is the one after a first add that the gateway said yes to without effect.
- Only a HELD mapping that is missing counts against the gateway: one that was SUSPECT was lost in a restart.
- SUSPECT is what nobody has looked at since something may have happened: a restart, a suspension of this machine, or a
  time in which the gateway did not answer. What was HELD is checked then; what had failed anyway is tried at once.
- An add that is out does not change what a WANTED or TAKEN mapping shows: it is not there.
- A mapping that expires while the gateway is away is WANTED, but may be there all the same, because many gateways
  keep mappings longer: as long as no add has failed since, it is checked first.
- What was ever accepted is deleted in the end, also where it was missing; what is TAKEN is not, nor what another
  lease of this mapper is on.

Permanent mappings are HELD, too: never renewed, but checked, at half and then every PERMANENT_CHECK_INTERVAL.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from enum import Enum, auto
from random import random
from typing import Final

from ..core.backend import LATE_TABLE
from ..core.dispatcher import Dispatcher
from ..errors import IGDError
from ..models import MappingKey, MappingRequest, PortMapping
from . import prolongation, schedule
from .lease import LeasedPort, LeaseRecord, LeaseState
from .prolongation import Prolongation

__all__ = ["LeasedMapping", "MappingState", "Trust"]

_CUT_SHORT: Final = 0.9
"""Part of the granted time: a gateway that reports less than that right after it granted it keeps it shorter."""

_ROUNDING: Final = 1.0
"""Seconds by which the rest that a gateway reports may be less than what is left."""


class MappingState(Enum):
    """What is known of a mapping; see the table above."""

    WANTED = auto()
    HELD = auto()
    SUSPECT = auto()
    RENEWING = auto()
    TAKEN = auto()
    ENDED = auto()


class Trust(Enum):
    """How far the gateway has proved that it keeps a mapping as long as it says."""

    NEW = auto()  #: nobody has checked since it was granted
    CHECKED = auto()  #: it was there when it was checked
    PROVEN = auto()  #: it was there at half its time


_SHOWS: Final = {
    MappingState.WANTED: LeaseState.LOST,
    MappingState.HELD: LeaseState.ACTIVE,
    MappingState.SUSPECT: LeaseState.RENEWING,
    MappingState.RENEWING: LeaseState.RENEWING,
    MappingState.TAKEN: LeaseState.LOST,
    MappingState.ENDED: LeaseState.LOST,
}


class LeasedMapping:
    """One mapping of a lease. Times are in seconds, points in time those of the clock that is passed in.

    ``record`` is that of its lease, ``request`` what is wanted, ``mapping`` what the gateway accepted last, confirmed
    or not. ``failures`` counts the adds that failed since it was there, ``early_losses`` how often it was missing
    before its time. ``observed_lifetime`` is how long the gateway was seen to keep it, None as long as it keeps its
    word. ``shown_desc`` is the description that the gateway showed for it, None unless that is the one it was given.
    ``dispatcher`` is where its requests go while it is at another gateway than the one in use, and else None.
    ``due`` is for the :class:`~aioigd.leases.schedule.DueQueue`.

    ``error`` is why it is not held, ``last_confirmed`` when the gateway last said that it holds it.
    ``is_kept``: it stays although its lease has ended. ``is_to_be_read_back``: a yes of the gateway is not enough any
    more. ``is_unreadable``: the gateway has no way to tell what it holds, as by PCP and NAT-PMP. ``old_end`` is when it
    ends if renewals do not prolong it, None where that is not in question; ``look_at`` when to find out,
    ``reported_end`` when it ends by what the gateway said before the renewal. ``keeps_end``: it is known that it cannot
    be prolonged.
    """

    __slots__ = (
        "__weakref__",
        "dispatcher",
        "due",
        "early_losses",
        "error",
        "expires_at",
        "failures",
        "granted_at",
        "is_kept",
        "is_to_be_read_back",
        "is_unreadable",
        "keeps_end",
        "last_confirmed",
        "last_reading",
        "look_at",
        "mapping",
        "observed_lifetime",
        "old_end",
        "record",
        "renew_at",
        "reported_end",
        "request",
        "shown_desc",
        "state",
        "trust",
    )

    def __init__(self, record: LeaseRecord, request: MappingRequest) -> None:
        self.record = record
        self.request = request
        self.state = MappingState.WANTED
        self.trust = Trust.NEW
        self.mapping: PortMapping | None = None
        self.granted_at: float | None = None
        self.renew_at = 0.0
        self.expires_at: float | None = None
        self.dispatcher: Dispatcher | None = None
        self.due = schedule.NEVER
        self.failures = 0
        self.early_losses = 0
        self.observed_lifetime: int | None = None
        self.shown_desc: str | None = None
        self.error: IGDError | None = None
        self.last_confirmed: datetime | None = None
        self.is_to_be_read_back = False
        self.is_kept = False
        self.is_unreadable = False
        self.keeps_end = False
        self.old_end: float | None = None
        self.look_at: float | None = None
        self.last_reading = 0
        self.reported_end: float | None = None

    def __repr__(self) -> str:
        trust = f" {self.trust.name}" if self.state is MappingState.HELD else ""
        return f"<LeasedMapping {self.key}, {self.state.name}{trust}>"

    # Questions

    @property
    def key(self) -> MappingKey:
        """What identifies the mapping on the gateway."""
        return self.request.key

    @property
    def shows(self) -> LeaseState:
        """What it contributes to the state of its lease."""
        return _SHOWS[self.state]

    @property
    def granted_mapping(self) -> PortMapping | None:
        """What was granted last, None as long as nothing was that the gateway then held."""
        return None if self.granted_at is None else self.mapping

    @property
    def port(self) -> LeasedPort:
        """What its lease shows of it."""
        mapping = self.granted_mapping or self.record.request.wanted_mapping(self.request)
        error = None if self.shows is LeaseState.ACTIVE else self.error
        return LeasedPort(mapping, self.shows, error, self.last_confirmed)

    @property
    def is_held(self) -> bool:
        """Whether the gateway holds it, as far as is known."""
        return self.state is MappingState.HELD

    @property
    def is_permanent(self) -> bool:
        """Whether it was granted without a limit."""
        return self.mapping is not None and self.expires_at is None

    @property
    def has_ended(self) -> bool:
        """Whether its lease has ended."""
        return self.state is MappingState.ENDED

    @property
    def is_to_be_checked(self) -> bool:
        """Whether to check it before it is added again: it may be gone, or its time may not have come."""
        match self.state:
            case MappingState.SUSPECT:
                return True
            case MappingState.HELD:
                return self.is_permanent or self.trust is not Trust.PROVEN or self.keeps_end or self.look_at is not None
            case MappingState.WANTED:
                return self.mapping is not None and not self.failures
        return False

    @property
    def may_be_in_its_own_way(self) -> bool:
        """Whether an add may be refused because of what this lease had added itself, for an old address of ours."""
        return self.mapping is not None and self.state is not MappingState.TAKEN

    @property
    def next_due(self) -> float:
        """When to check or to renew it, if it is HELD."""
        due = self.renew_at
        if self.trust is Trust.NEW and self.granted_at is not None:
            due = self.granted_at + (self.renew_at - self.granted_at) / 2
        if self.look_at is None or self.old_end is None:
            return due
        return self.look_at if due >= self.old_end else min(due, self.look_at)

    @property
    def settled_at(self) -> float:
        """From when on the gateway can be expected to show it."""
        return LATE_TABLE + (0.0 if self.granted_at is None else self.granted_at)

    def was_granted_before(self, time: float) -> bool:
        """Whether it was granted for the last time before this time."""
        return self.granted_at is not None and self.granted_at < time

    def may_be_late(self, now: float) -> bool:
        """Whether it was added so short a time ago that the gateway may not show it yet."""
        return self.granted_at is not None and self.is_held and now < self.settled_at

    def may_be_hidden(self, now: float) -> bool:
        """Whether the gateway may hold it and not show it: it has never shown it, or cannot be expected to yet."""
        return self.granted_at is None or now < self.settled_at

    @property
    def lifetime(self) -> int:
        """How long it lasts when it is added anew, in seconds; 0 for no limit."""
        granted = 0 if self.mapping is None else self.mapping.duration
        return schedule.effective_duration(granted, self.observed_lifetime)

    def is_to_be_removed(self, now: float) -> bool:
        """Whether to delete it before it is added, because an add would not prolong it."""
        is_there = self.state is MappingState.RENEWING and self.expires_at is not None and now < self.expires_at
        return is_there and self.keeps_end

    def is_same(self, held: PortMapping) -> bool:
        """Whether what a gateway holds is this mapping, as far as it can tell: only another host's is certainly not."""
        ours = self.mapping
        return ours is not None and held.leads_to(ours.internal_client, ours.internal_port) is not False

    def has_other_desc(self, held: PortMapping) -> bool:
        """Whether what a gateway holds shows another description than ours, on a gateway that has shown ours."""
        ours = self.mapping
        return ours is not None and self.shown_desc == ours.desc != held.desc

    def judge(self, held: PortMapping | None, now: float) -> Prolongation | None:
        """Return what a check shows of the gateway's renewals, None where it shows nothing of them."""
        if not self.is_held or self.mapping is None:
            return None
        if held is not None and not (self.is_same(held) and held.enabled):
            return None  # that somebody else has the port, or it was switched off, has other reasons
        if self.old_end is None or self.expires_at is None:
            is_early = self.keeps_end and held is None and self.expires_at is not None and now < self.expires_at
            return Prolongation.UNKNOWN if is_early else None
        if now >= self.old_end:
            return Prolongation.KEEPS_END if held is None else Prolongation.PROLONGS
        if held is None or self.look_at is None or now < self.look_at:
            return None
        return prolongation.judge_reading(
            held.duration,
            (self.mapping.duration, self.last_reading),
            now + held.duration,
            self.old_end if self.reported_end is None else self.reported_end,
            self.expires_at - self.old_end,
        )

    # Transitions

    def accepted(self, mapping: PortMapping) -> None:
        """The gateway said yes to a first add, which nobody has checked: WANTED still, but to be deleted in the end."""
        self.mapping = mapping

    def taken_back(self) -> None:
        """What was just made for the first time was deleted again: it is WANTED, as if it had never been made."""
        if not self.has_ended:
            self.state = MappingState.WANTED
        self.mapping = self.granted_at = self.expires_at = None

    def described(self, held: PortMapping) -> None:
        """The gateway was asked what it holds: from now on its description counts, if it is the one that was given."""
        if self.mapping is not None and held.desc == self.mapping.desc:
            self.shown_desc = held.desc

    def granted(self, mapping: PortMapping, now: float, *, held_for: int | None = None) -> None:
        """The gateway holds it. ``held_for``: how long it says so, None where it was not asked or does not tell."""
        if self.has_ended:
            return
        if held_for and (not mapping.duration or held_for < _CUT_SHORT * mapping.duration):
            self.observed_lifetime = held_for
        if self.observed_lifetime and not (mapping.duration and self.request.terms.duration):
            mapping = replace(mapping, duration=self.observed_lifetime)  # a limit that the gateway has set by itself
        is_renewal = (
            self.state is MappingState.RENEWING
            and self.mapping is not None
            and mapping.key == self.mapping.key
            and self.is_same(mapping)
            and mapping.duration > 0
            and self.expires_at is not None
            and now < self.expires_at
        )
        if not is_renewal:
            self.old_end = self.look_at = self.reported_end = None
            self._read(held_for or 0, now)
        elif self.old_end is None:
            self.old_end = self.expires_at
            if self.reported_end is None and self.granted_at is not None and self.mapping is not None:
                # Nothing but the time that it was granted for says when it ends; it may have been seen to last less.
                self.old_end = self.granted_at + self.mapping.duration
        duration = schedule.effective_duration(mapping.duration, self.observed_lifetime)
        self.state = MappingState.HELD
        self.error = None
        self.is_to_be_read_back = False
        if self.trust is Trust.CHECKED:
            self.trust = Trust.NEW
        self.mapping = mapping
        self.failures = 0
        self.granted_at = now
        spread = random() if self.is_unreadable else 0.0  # noqa: S311 (it has to differ, not to be secret)
        self.renew_at = now + schedule.renew_after(duration, spread)
        self.expires_at = now + duration if duration else None

    def confirmed(self, held: PortMapping, now: float) -> None:
        """A check has found it there, maybe for a shorter time than thought."""
        if self.has_ended:
            return
        self.state = MappingState.HELD
        self.error = None
        self.failures = 0
        if self.old_end is None:
            self._read(held.duration, now)
        if self.trust is Trust.NEW:
            self.trust = Trust.CHECKED
        if self.expires_at is None:
            self.renew_at = now + schedule.PERMANENT_CHECK_INTERVAL
        elif now >= self.renew_at:
            self.trust = Trust.PROVEN
        elif held.duration and now + held.duration < self.expires_at - _ROUNDING:
            self.expires_at = min(self.expires_at, now + held.duration)
            self.renew_at = min(self.renew_at, now + schedule.renew_after(held.duration))

    def unreadable(self) -> None:
        """The gateway has no way to tell what it holds, so that the description that it has shown counts no more."""
        self.is_unreadable = True
        self.shown_desc = None

    def readable(self) -> None:
        """The gateway tells what it holds: where it did not before, nothing is proved yet."""
        if self.is_unreadable:
            self.is_unreadable = False
            self.trust = Trust.NEW

    def believed(self, now: float) -> None:
        """The gateway cannot say whether it holds it: what it has granted counts."""
        if self.state is MappingState.HELD:
            self.trust = Trust.PROVEN if self.expires_at is not None and now >= self.renew_at else Trust.CHECKED
            if self.expires_at is None:
                self.renew_at = now + schedule.PERMANENT_CHECK_INTERVAL

    def missing(self, now: float) -> None:
        """A check has shown that the gateway does not hold it."""
        if self.has_ended:
            return
        has_had_its_time = any(end is not None and end <= now for end in (self.old_end, self.expires_at))
        if self.state is MappingState.HELD and self.granted_at is not None and not has_had_its_time:
            self.early_losses += 1
            if self.early_losses > 1:
                self.observed_lifetime = max(2, int(now - self.granted_at))
                self.trust = Trust.NEW
        self.state = MappingState.WANTED

    def disabled(self) -> None:
        """A check has shown that the gateway holds it switched off."""
        if self.has_ended:
            return
        self.is_to_be_read_back = True
        self.state = MappingState.WANTED

    def suspected(self) -> None:
        """Something has happened after which the gateway may not hold it any more."""
        if self.state is MappingState.HELD:
            self.state = MappingState.SUSPECT

    def renewing(self) -> None:
        """An add goes out."""
        if self.state in (MappingState.HELD, MappingState.SUSPECT):
            self.state = MappingState.RENEWING

    def removed(self, now: float) -> None:
        """It has been deleted, so that it can be added again."""
        self.expires_at = now
        self.old_end = self.look_at = None

    def refused(self, now: float) -> None:
        """An add has failed, for whatever reason but that the port is another's."""
        if self.has_ended:
            return
        self.failures += 1
        is_there = self.shows is not LeaseState.LOST
        self.state = MappingState.RENEWING if is_there else MappingState.WANTED
        self.expired(now)

    def taken(self) -> None:
        """An add has failed because the port belongs to another."""
        if self.has_ended:
            return
        self.failures += 1
        self.state = MappingState.TAKEN

    def expired(self, now: float) -> None:
        """Its time may be over; nothing happens if it is not."""
        if self.shows is not LeaseState.LOST and self.expires_at is not None and self.expires_at <= now:
            self.state = MappingState.WANTED

    def follow(self, known: Prolongation, now: float) -> None:
        """Plan what is due by what is known of the gateway's renewals."""
        if self.expires_at is None:
            self.old_end = self.look_at = None
            self.keeps_end = False
            return
        if known is Prolongation.KEEPS_END:
            if self.old_end is not None:
                self.expires_at = min(self.expires_at, self.old_end)
            if not self.keeps_end:
                self.observed_lifetime = None  # what looked like a short lease may have been the rest of an older one
            lasts = self.expires_at - (self.granted_at or 0.0)
            self.renew_at = prolongation.remake_at(self.expires_at, max(lasts, 0.0))
        self.keeps_end = known is Prolongation.KEEPS_END
        if known in (Prolongation.KEEPS_END, Prolongation.PROLONGS):
            self.old_end = None
        if self.old_end is None:
            self.look_at = None
            return
        look = prolongation.look_after_end(self.old_end, self.lifetime)
        if self.look_at is None:
            self.look_at = look if known is Prolongation.BLIND else min(now + prolongation.READING_DELAY, look)
        elif known is Prolongation.BLIND and self.look_at < self.old_end:
            self.look_at = look

    def renew_now(self, now: float) -> None:
        """It may end sooner than it was granted for, by what another lease has asked for."""
        self.renew_at = min(self.renew_at, now)

    def moved_to(self, request: MappingRequest) -> None:
        """Another port was granted instead."""
        self.request = request

    def ended(self) -> bool:
        """The lease ends; returns whether the mapping is to be deleted, if it is still there."""
        was, self.state = self.state, MappingState.ENDED
        return self.mapping is not None and was not in (MappingState.TAKEN, MappingState.ENDED)

    def shift_clock(self, seconds: float) -> None:
        """Time went by that the clock did not count: the machine was suspended."""
        if self.granted_at is not None:
            self.granted_at -= seconds
        self.renew_at -= seconds
        if self.expires_at is not None:
            self.expires_at -= seconds
        if self.old_end is not None:
            self.old_end -= seconds
        if self.look_at is not None:
            self.look_at -= seconds
        if self.reported_end is not None:
            self.reported_end -= seconds

    def _read(self, rest: int, now: float) -> None:
        """Note how long the gateway said that it lasts, 0 where it does not tell."""
        if rest:
            self.last_reading = rest
            self.reported_end = now + rest
