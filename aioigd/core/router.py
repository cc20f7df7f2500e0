"""Which protocol is a router asked by? It may speak several, and refuse by one what it grants by another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..models import MappingKey, Pinhole
from ..results import ProtocolName
from .backend import Backend

__all__ = ["RouterBackends"]

_MOST_MAKERS: Final = 131_072
"""Mappings of which it is known which protocol has made them last, where that is not the first: all ports, twice."""


class RouterBackends:
    """The backends of the router in use, one for each protocol by which it was found.

    It is asked by the one in use, which is the most preferred; by another for what that has made, and for new mappings
    once the one in use has refused what another has granted.
    """

    def __init__(self) -> None:
        self.others: tuple[Backend, ...] = ()
        """By which it was found beside the one in use, in the order of preference."""
        self.serving: Backend | None = None
        """By which it grants what it refuses by the one in use, None where there is none."""
        self._in_use: Backend | None = None
        self._all: tuple[Backend, ...] = ()
        self._made_by: dict[MappingKey | Pinhole, ProtocolName] = {}

    @property
    def all(self) -> Sequence[Backend]:
        """All by which it was ever heard to speak, the one in use first."""
        return self._all

    def use(self, backend: Backend, others: Sequence[Backend]) -> None:
        """Use a router from now on; ``others`` are gateways that were found by other protocols, one for each.

        Those of them count that are at the same address. What was known of the same router before stays known: it is
        for deleting what was made by that.
        """
        before = self._all
        self._in_use = backend
        self.serving = None
        self.others = tuple(one for one in others if one.address == backend.address)
        self._all = backend, *self.others
        if backend.address:
            spoken = {one.protocol for one in self._all}
            former = {one.protocol: one for one in before if one.address == backend.address}
            self._all += tuple(one for protocol, one in former.items() if protocol not in spoken)

    def beside(self, backend: Backend) -> Sequence[Backend]:
        """Return the router of a backend by the other protocols; empty where it is not the one in use."""
        if self._in_use is None or not backend.address or self._in_use.address != backend.address:
            return ()
        return [one for one in (self._in_use, *self.others) if one.protocol != backend.protocol]

    def backend_for(self, what: MappingKey | Pinhole, backend: Backend) -> Backend:
        """Return the backend by which something was made, or else the one of the same router that grants mappings.

        ``backend`` is the one in use.
        """
        if not self.others or backend is not self._in_use:
            return backend
        makers = [one for one in (backend, *self.others) if one.has_made(what)]
        if len(makers) > 1:  # one of them was given up, and could not be told so
            last = self._made_by.get(what)
            makers.sort(key=lambda maker: maker.protocol != last)
        return makers[0] if makers else self.serving or backend

    def note_serving(self, backend: Backend) -> None:
        """Note by which protocol the router grants mappings, where it has refused one by another."""
        self.serving = backend if backend in self.others else None

    def note_maker(self, backend: Backend, what: MappingKey | Pinhole | None) -> None:
        """Note by which protocol something is made from now on that another one had made."""
        if what is not None:
            self._made_by.pop(what, None)
            self._made_by[what] = backend.protocol
            if len(self._made_by) > _MOST_MAKERS:
                del self._made_by[next(iter(self._made_by))]
