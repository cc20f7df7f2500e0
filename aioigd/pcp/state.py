"""What is known of a router beyond one request to it? It stays when the router is found again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from ..core.backend import NEVER
from ..core.limiter import Limiter
from ..errors import RefusedError
from ..models import MappingKey, Proto
from .epoch import Epoch

__all__ = ["Held", "Owner", "Remote", "RouterState"]

_FREE_REPETITIONS: Final = 2
"""How often a request may be refused before it has to wait: what was in the way may be gone at once."""
_UNTOLD_LIFETIME: Final = 30
"""Seconds for which a refusal counts that says nothing of it (RFC 6887 section 7.4: errors that may be over soon)."""
_LONGEST_LIFETIME: Final = 1800
"""Seconds for which a refusal counts at most (section 7.4: errors that stay), whatever it says: it can be a lie."""
_MAX_REFUSALS: Final = 256
"""Requests of which it is known that they were refused, the latest."""

Remote = tuple[str, int]
"""From where packets may come through a pinhole: host ("" for any) and port (0 for any)."""


class Owner(NamedTuple):
    """To what a mapping belongs: one port of one host (RFC 6887 section 11.1)."""

    client: str
    proto: Proto
    internal_port: int

    def __str__(self) -> str:
        return f"{self.proto} port {self.internal_port} of {self.client}"


class Held(NamedTuple):
    """A mapping that this program has made.

    ``expires`` is a time of the loop's clock, ``lifetime`` what it was granted for, in seconds. ``era`` is that in
    which it was seen last; in a later one it may be gone.
    """

    key: MappingKey
    expires: float
    lifetime: int
    era: int


class _Refusal(NamedTuple):
    """A request that was refused: how often in a row, how, and until when it is not sent again."""

    times: int
    error: RefusedError
    until: float


class RouterState:
    """The mappings that this program has at a router, its epoch and limiter, and the address that it told last."""

    def __init__(self, epoch: Epoch) -> None:
        self.external_address: IPv4Address | IPv6Address | None = None
        self.limiter = Limiter()
        self.on_restart: Callable[[], None] | None = None
        """Called when a reply shows that the router has lost its mappings."""
        self.on_new_address: Callable[[], None] | None = None
        """Called when a mapping shows another external address than the one before."""
        self.has_told_of_refusals = False
        """Whether it was logged that the router maps no ports for this machine."""
        self.beside: dict[str, RouterState] = {}
        """The states of the routers next to this one that open pinholes in its stead."""
        self.holds_since = NEVER
        """When the epoch began in which the router is, on the loop's clock, as the first reply of it told."""
        self._epoch = epoch
        self._era = 0
        self._held: dict[Owner, Held] = {}
        self._owners: dict[MappingKey, Owner] = {}
        self._pinholes: dict[Owner, dict[Remote, float]] = {}
        self._turns: dict[Owner, deque[asyncio.Future[None]]] = {}
        self._refusals: dict[Hashable, _Refusal] = {}

    def turn(self, owner: Owner) -> _Turn:
        """Return what is entered while a mapping of an owner is made or deleted: one request for it at a time.

        The core keeps the order of calls for an external port; this is for two of them to one internal port.
        """
        return _Turn(self._turns, owner)

    # Restarts

    def note_epoch(self, epoch: int, now: float) -> None:
        """Note the epoch of a reply that was received at ``now``. Whoever is told of a restart bounds what it costs."""
        has_lost_state = self._epoch.lost_state(epoch, now)
        if has_lost_state or self.holds_since == NEVER:
            self.holds_since = now - epoch
        if has_lost_state:
            self._era += 1
            self.external_address = None
            if self.on_restart is not None:
                self.on_restart()

    def note_address(self, address: IPv4Address | IPv6Address | None) -> None:
        """Note the external address that came with a mapping, None where it can be nobody's."""
        known, self.external_address = self.external_address, address
        if known is not None and address is not None and address != known and self.on_new_address is not None:
            self.on_new_address()

    # Mappings

    def held(self, owner: Owner, now: float) -> Held | None:
        """Return the mapping of an owner, None where this program has none, or the router may have lost it."""
        held = self._held.get(owner)
        return held if held is not None and held.expires > now and held.era == self._era else None

    def owner_of(self, key: MappingKey, now: float) -> Owner | None:
        """Return whose mapping has a key, None where this program has made none that lasts until ``now``.

        The router may have lost it meanwhile.
        """
        owner = self._owners.get(key)
        if owner is not None and self._held[owner].expires <= now:
            self.gone(owner)
            return None
        return owner

    def last_owner(self, client: str, now: float) -> Owner | None:
        """Return the port of a host whose mapping was granted last of those that :meth:`held` returns, if any."""
        return next((one for one in reversed(self._held) if one.client == client and self.held(one, now)), None)

    def granted(self, owner: Owner, key: MappingKey, lifetime: int, now: float) -> None:
        """Note a mapping that was granted for so many seconds."""
        self.gone(owner)
        before = self._owners.get(key)
        if before is not None:
            self.gone(before)
        self._held[owner] = Held(key, now + lifetime, lifetime, self._era)
        self._owners[key] = owner

    def doubted(self, owner: Owner) -> None:
        """Note that a mapping may be gone."""
        held = self._held.get(owner)
        if held is not None:
            self._held[owner] = held._replace(era=self._era - 1)

    def gone(self, owner: Owner) -> None:
        """Forget a mapping."""
        held = self._held.pop(owner, None)
        if held is not None and self._owners.get(held.key) == owner:
            del self._owners[held.key]

    # Pinholes

    def pinholes(self, owner: Owner, now: float) -> dict[Remote, float]:
        """Return from where packets may come to a port, and until when, as far as this program has asked for it."""
        return {remote: expires for remote, expires in self._pinholes.get(owner, {}).items() if expires > now}

    def opened(self, owner: Owner, remotes: dict[Remote, float]) -> None:
        """Note the pinholes to a port."""
        if remotes:
            self._pinholes[owner] = remotes
        else:
            self._pinholes.pop(owner, None)

    # Refusals

    def refusal(self, request: Hashable, now: float) -> RefusedError | None:
        """Return the error with which a request was refused, if it is too early to send it again."""
        refused = self._refusals.get(request) if self._refusals else None
        return refused.error.copy() if refused is not None and now < refused.until else None

    def note_refusal(self, request: Hashable, error: RefusedError, lifetime: int, now: float) -> None:
        """Note that a request was refused; ``lifetime``: the seconds for which the router says so, 0 for untold.

        The first repetitions are free, and then the pauses between them double up to that time: so a program that
        asks all the time does not flood the router, and one whose user has changed something there need not wait.
        """
        before = self._refusals.pop(request, None)
        times = 1 if before is None else before.times + 1
        longest = min(lifetime or _UNTOLD_LIFETIME, _LONGEST_LIFETIME)
        pause = 0.0 if times <= _FREE_REPETITIONS else min(longest, 2.0 ** min(times - _FREE_REPETITIONS - 1, 16))
        self._refusals[request] = _Refusal(times, error.copy(), now + pause)
        if len(self._refusals) > _MAX_REFUSALS:
            del self._refusals[next(iter(self._refusals))]

    def accepted(self, request: Hashable) -> None:
        """Note that a request was not refused."""
        if self._refusals:
            self._refusals.pop(request, None)


class _Turn:
    """An asynchronous context manager that only one at a time has for an owner, first come first served.

    Cheaper than a lock for each owner, as there are many and they hardly ever meet.
    """

    __slots__ = ("_owner", "_turns")

    def __init__(self, turns: dict[Owner, deque[asyncio.Future[None]]], owner: Owner) -> None:
        self._turns = turns
        self._owner = owner

    async def __aenter__(self) -> None:
        waiting = self._turns.get(self._owner)
        if waiting is None:
            self._turns[self._owner] = deque()
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # it had come already
            raise

    async def __aexit__(self, *_: object) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        waiting = self._turns[self._owner]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._turns[self._owner]
