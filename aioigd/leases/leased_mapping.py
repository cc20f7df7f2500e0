"""In which state is a mapping of a lease? A state machine without I/O; the clock is passed in.

==================  ================================  ========================================  ========
state               what is due                       becomes                                   shows
==================  ================================  ========================================  ========
WANTED: is not      add, with backoff; check first    granted → HELD; taken → TAKEN             LOST
there               what has expired unseen
HELD: NEW, CHECKED  NEW: check at a quarter; half:    missing → WANTED; suspected → SUSPECT;    ACTIVE
or PROVEN           check unless PROVEN, then renew   renewing → RENEWING; expired → WANTED
SUSPECT: may be     check when the gateway is there;  confirmed → HELD; missing → WANTED;       RENEWING
gone                no answer: again in 5 s           cannot tell: renewing → RENEWING;
                                                      expired → WANTED
RENEWING: add is    add, with backoff                 granted → HELD; taken → TAKEN;            RENEWING
out, or has failed                                    refused or expired, its time over →
                                                      WANTED
TAKEN: belongs to   add, with backoff                 granted → HELD; refused for any other     LOST
another                                               reason → WANTED
ENDED               nothing                           nothing                                   LOST
==================  ================================  ========================================  ========

Everything else leaves the state as it is; any state becomes ENDED with the lease. What the table means:

- A lease must not lose its port because a gateway keeps a mapping for a shorter time than it said. So a NEW mapping is
  checked at a quarter of its time; if it is missing there, or at half, for the second time, the time that it was seen
  to last (``observed_lifetime``) counts from then on. A mapping that was once there at half its time is PROVEN, and
  from then on renewed without a check. Granted again it stays PROVEN, unless it was missing too early since.
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

from enum import Enum, auto
from typing import Final

from ..core.dispatcher import Dispatcher
from ..models import MappingKey, MappingRequest, PortMapping
from . import schedule
from .lease import LeaseRecord, LeaseState

__all__ = ["LeasedMapping", "MappingState", "Trust"]

_CUT_SHORT: Final = 0.9
"""Part of the granted time: a gateway that reports less than that right after it granted it keeps it shorter."""


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
    word. ``dispatcher`` is where its requests go while it is at another gateway than the one in use, and else None.
    ``due`` is for the :class:`~aioigd.leases.schedule.DueQueue`.
    """

    __slots__ = (
        "dispatcher",
        "due",
        "early_losses",
        "expires_at",
        "failures",
        "granted_at",
        "mapping",
        "observed_lifetime",
        "record",
        "renew_at",
        "request",
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
                return self.is_permanent or self.trust is not Trust.PROVEN
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
        if self.trust is Trust.NEW and self.granted_at is not None:
            return self.granted_at + (self.renew_at - self.granted_at) / 2
        return self.renew_at

    def is_same(self, held: PortMapping) -> bool:
        """Whether what a gateway holds is this mapping."""
        ours = self.mapping
        return ours is not None and held.leads_to(ours.internal_client, ours.internal_port)

    # Transitions

    def accepted(self, mapping: PortMapping) -> None:
        """The gateway said yes to a first add, which nobody has checked: WANTED still, but to be deleted in the end."""
        self.mapping = mapping

    def granted(self, mapping: PortMapping, now: float, *, held_for: int | None = None) -> None:
        """The gateway holds it. ``held_for``: how long it says so, None where it was not asked or does not tell."""
        if self.has_ended:
            return
        if held_for and (not mapping.duration or held_for < _CUT_SHORT * mapping.duration):
            self.observed_lifetime = held_for
        duration = schedule.effective_duration(mapping.duration, self.observed_lifetime)
        self.state = MappingState.HELD
        if self.trust is Trust.CHECKED:
            self.trust = Trust.NEW
        self.mapping = mapping
        self.failures = 0
        self.granted_at = now
        self.renew_at = now + schedule.renew_after(duration)
        self.expires_at = now + duration if duration else None

    def confirmed(self, held: PortMapping, now: float) -> None:
        """A check has found it there, maybe for a shorter time than thought."""
        if self.has_ended:
            return
        self.state = MappingState.HELD
        self.failures = 0
        if self.trust is Trust.NEW:
            self.trust = Trust.CHECKED
        if self.expires_at is None:
            self.renew_at = now + schedule.PERMANENT_CHECK_INTERVAL
        elif now >= self.renew_at:
            self.trust = Trust.PROVEN
        elif held.duration:
            self.expires_at = min(self.expires_at, now + held.duration)
            self.renew_at = min(self.renew_at, now + schedule.renew_after(held.duration))

    def missing(self, now: float) -> None:
        """A check has shown that the gateway does not hold it."""
        if self.has_ended:
            return
        if self.state is MappingState.HELD and self.granted_at is not None:
            self.early_losses += 1
            if self.early_losses > 1:
                self.observed_lifetime = max(2, int(now - self.granted_at))
                self.trust = Trust.NEW
        self.state = MappingState.WANTED

    def suspected(self) -> None:
        """Something has happened after which the gateway may not hold it any more."""
        if self.state is MappingState.HELD:
            self.state = MappingState.SUSPECT

    def renewing(self) -> None:
        """An add goes out."""
        if self.state in (MappingState.HELD, MappingState.SUSPECT):
            self.state = MappingState.RENEWING

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
