"""One mapping of one lease: what was granted, and when it is to be looked after."""

from __future__ import annotations

from typing import Final

from ..models import MappingKey, MappingRequest, PortMapping
from . import schedule
from .lease import Lease
from .ports import PortsInUse
from .request import Claim

__all__ = ["Holding"]

_SHORTENED: Final = 0.9
"""What a gateway says it holds right after it was asked may be a little less than what was asked for, not this much."""


class Holding:
    """One mapping that is to stay, the ``number``-th of its lease. Times are those of the loop's clock.

    ``looked_at`` tells that the gateway was asked for it since it was made, ``proven`` that it has kept it for half
    its time once; ``suspect`` is one that it may have lost, ``taken`` one whose port belongs to somebody else now,
    ``ended`` one that is not kept any more. ``cap`` (seconds) is how long the gateway was seen to keep it, None as
    long as it keeps its word.
    """

    __slots__ = (
        "cap",
        "claim",
        "due",
        "ended",
        "expires_at",
        "failures",
        "lease",
        "looked_at",
        "losses",
        "made_at",
        "mapping",
        "number",
        "ports",
        "proven",
        "renew_at",
        "request",
        "suspect",
        "taken",
    )

    def __init__(self, lease: Lease, number: int, claim: Claim, request: MappingRequest, ports: PortsInUse) -> None:
        self.lease = lease
        self.number = number
        self.claim = claim
        self.request = request
        self.mapping: PortMapping | None = None
        self.made_at = 0.0
        self.renew_at = 0.0
        self.expires_at: float | None = None
        self.due = float("inf")
        self.failures = 0
        self.losses = 0
        self.cap: int | None = None
        self.looked_at = False
        self.proven = False
        self.suspect = False
        self.taken = False
        self.ended = False
        self.ports = ports
        ports.enter(request.key)

    @property
    def key(self) -> MappingKey:
        """What identifies the mapping on the gateway."""
        return self.request.key

    @property
    def is_held(self) -> bool:
        """Whether the gateway holds it, as far as is known."""
        return self.mapping is not None and not self.failures and not self.suspect

    @property
    def is_permanent(self) -> bool:
        """Whether it was granted without a limit."""
        return self.mapping is not None and self.expires_at is None

    @property
    def is_to_be_checked(self) -> bool:
        """Whether to ask for it before it is made again: it may be gone, or its time may not have come."""
        if self.mapping is None or self.failures:
            return False
        return self.suspect or self.is_permanent or not self.proven

    def move(self, request: MappingRequest) -> None:
        """Note that it is on another port from now on."""
        self.ports.enter(request.key)
        self.ports.leave(self.key)
        self.request = request

    def end(self) -> bool:
        """Note that it is not kept any more; tells whether the mapping is to be deleted, if it is still there."""
        if self.ended:
            return False
        self.ended = True
        is_last = self.ports.leave(self.key)
        return is_last and self.mapping is not None and not self.taken

    def made(self, mapping: PortMapping, now: float, *, held: int | None = None) -> None:
        """Note that it was granted at ``now``, and for how long the gateway says it holds it (None: not known)."""
        if held and (not mapping.duration or held < _SHORTENED * mapping.duration):
            self.cap = held
        duration = schedule.effective_duration(mapping.duration, self.cap)
        self.mapping = mapping
        self.made_at = now
        self.failures = 0
        self.looked_at = self.suspect = self.taken = False
        self.renew_at = now + schedule.renew_after(duration)
        self.expires_at = now + duration if duration else None

    @property
    def next_look(self) -> float:
        """When to look after it: to renew it, and once before the first time, to see whether it lasts."""
        if self.proven or self.looked_at:
            return self.renew_at
        return self.made_at + (self.renew_at - self.made_at) / 2

    def confirmed(self, held: PortMapping, now: float) -> None:
        """Note that the gateway still holds it, maybe for a shorter time than thought."""
        self.looked_at = True
        self.suspect = self.taken = False
        self.failures = 0
        if self.expires_at is None:
            self.renew_at = now + schedule.PERMANENT_CHECK
            return
        if now >= self.renew_at:
            self.proven = True
        elif held.duration:
            self.expires_at = min(self.expires_at, now + held.duration)
            self.renew_at = min(self.renew_at, now + schedule.renew_after(held.duration))

    def lost(self, now: float) -> None:
        """Note that the gateway does not hold it any more, before its time.

        Only what nobody had a reason to suspect counts against the gateway: a restart is no broken word.
        """
        self.losses += not self.suspect
        if self.losses > 1 and not self.suspect:
            self.cap = max(2, int(now - self.made_at))
            self.proven = False
        self.suspect = False

    def skip(self, seconds: float) -> None:
        """Note that time went by which the clock did not count."""
        self.made_at -= seconds
        self.renew_at -= seconds
        if self.expires_at is not None:
            self.expires_at -= seconds

    def is_same(self, held: PortMapping) -> bool:
        """Whether what a gateway holds is this mapping."""
        ours = self.mapping
        return ours is not None and (held.internal_client, held.internal_port) == (
            ours.internal_client,
            ours.internal_port,
        )

    def has_expired(self, now: float) -> bool:
        """Whether its time is over, as far as can be told."""
        return self.mapping is None or (self.expires_at is not None and self.expires_at <= now)
