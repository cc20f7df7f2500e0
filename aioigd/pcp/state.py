"""What is known of a router beyond one request to it? It stays when the router is found again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple
from weakref import WeakValueDictionary

from ..core.backend import NEVER
from ..core.limiter import Limiter
from ..models import MappingKey, Proto
from .epoch import Epoch

__all__ = ["Held", "Owner", "RouterState"]


class Owner(NamedTuple):
    """To what a mapping belongs: one port of one host (RFC 6887 section 11.1)."""

    client: str
    proto: Proto
    internal_port: int

    def __str__(self) -> str:
        return f"{self.proto} port {self.internal_port} of {self.client}"


@dataclass(frozen=True, slots=True)
class Held:
    """A mapping that this program has made; ``expires`` is a time of the loop's clock."""

    key: MappingKey
    expires: float


class RouterState:
    """The mappings that this program has at a router, its epoch and limiter, and the address that it told last."""

    def __init__(self, epoch: Epoch) -> None:
        self.external_address: IPv4Address | IPv6Address | None = None
        self.limiter = Limiter()
        self.on_restart: Callable[[], None] | None = None
        """Called when a reply shows that the router has lost its mappings."""
        self.holds_since = NEVER
        """When the epoch began in which the router is, on the loop's clock, as the first reply of it told."""
        self._epoch = epoch
        self._held: dict[Owner, Held] = {}
        self._owners: dict[MappingKey, Owner] = {}
        self._turns: WeakValueDictionary[Owner, asyncio.Lock] = WeakValueDictionary()

    def turn(self, owner: Owner) -> asyncio.Lock:
        """Return what is held while a mapping of an owner is made or deleted: one request for it at a time.

        The core keeps the order of calls for an external port; this is for two of them to one internal port.
        """
        return self._turns.setdefault(owner, asyncio.Lock())

    def note_epoch(self, epoch: int, now: float) -> None:
        """Note the epoch of a reply that was received at ``now``."""
        has_lost_state = self._epoch.lost_state(epoch, now)
        if has_lost_state or self.holds_since == NEVER:
            self.holds_since = now - epoch
        if has_lost_state:
            self._held.clear()
            self._owners.clear()
            self.external_address = None
            if self.on_restart is not None:
                self.on_restart()

    def held(self, owner: Owner, now: float) -> Held | None:
        """Return the mapping of an owner, None where this program has none."""
        held = self._held.get(owner)
        return held if held is not None and held.expires > now else None

    def owner_of(self, key: MappingKey) -> Owner | None:
        """Return whose mapping has a key, None where this program has made none."""
        return self._owners.get(key)

    def granted(self, owner: Owner, key: MappingKey, expires: float) -> None:
        """Note a mapping."""
        self.gone(owner)
        self._held[owner] = Held(key, expires)
        self._owners[key] = owner

    def gone(self, owner: Owner) -> None:
        """Forget a mapping."""
        held = self._held.pop(owner, None)
        if held is not None and self._owners.get(held.key) == owner:
            del self._owners[held.key]
