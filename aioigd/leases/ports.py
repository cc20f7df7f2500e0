"""What the leases of one mapper are on, so that none of them gets in the way of another."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from ..models import MappingKey

__all__ = ["InUse", "PortsInUse"]

K = TypeVar("K", bound=Hashable)


class InUse(Generic[K]):
    """Counts the leases on each thing. Two on the same share it; the last one deletes it."""

    def __init__(self) -> None:
        self._users: dict[K, int] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._users

    def enter(self, key: K) -> None:
        """Note one more lease on it."""
        self._users[key] = self._users.get(key, 0) + 1

    def leave(self, key: K) -> bool:
        """Note one less; tells whether it was the last."""
        users = self._users.pop(key) - 1
        if users:
            self._users[key] = users
        return not users


PortsInUse = InUse[MappingKey]
"""External ports with their protocols."""
