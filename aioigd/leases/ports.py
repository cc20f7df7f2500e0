"""Which mappings the leases of one mapper are on, so that none of them gets in the way of another."""

from __future__ import annotations

from ..models import MappingKey

__all__ = ["PortsInUse"]


class PortsInUse:
    """Counts the leases on each port and protocol. Two on the same share the mapping; the last one deletes it."""

    def __init__(self) -> None:
        self._users: dict[MappingKey, int] = {}

    def __contains__(self, key: MappingKey) -> bool:
        return key in self._users

    def enter(self, key: MappingKey) -> None:
        """Note one more lease on a port."""
        self._users[key] = self._users.get(key, 0) + 1

    def leave(self, key: MappingKey) -> bool:
        """Note one less; tells whether it was the last."""
        users = self._users.pop(key) - 1
        if users:
            self._users[key] = users
        return not users
