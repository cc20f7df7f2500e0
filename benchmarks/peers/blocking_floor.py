"""The floor of a cold start and of blocking code: benchmarks/floor.py."""

from __future__ import annotations

from ..floor import _add, _describe, first_mapping
from .blocking import Add, BlockingPeer


class Floor(BlockingPeer):
    """Blocking sockets, one attempt each, nothing checked."""

    def cold_start(self, port: int) -> None:
        """Search, read, map."""
        first_mapping(self.source, port)

    def open(self, location: str) -> Add:
        """Read the description."""
        service, control_url = _describe(self.source, location)
        return lambda port: _add(self.source, control_url, service, port)
