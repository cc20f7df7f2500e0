"""Proofs: for each quirk a function of the same name that shows on a running gateway that it does what it says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any

from aioigd.testing import EmulatedGateway, Quirk
from aioigd.testing.quirks import CATALOGUE

Proof = Callable[[EmulatedGateway], Awaitable[None]]


class Proofs(Collection[str]):
    """The proofs of one family, as a collection of their names.

    It makes decorators: ``@proof()`` for a gateway with the quirk that the function is named after, and
    ``@proof(quirks…)`` for one with these instead.
    """

    def __init__(self) -> None:
        self._proofs: dict[str, tuple[Proof, tuple[Quirk[...], ...]]] = {}

    def __len__(self) -> int:
        return len(self._proofs)

    def __contains__(self, name: object) -> bool:
        return name in self._proofs

    def __iter__(self) -> Iterator[str]:
        return iter(self._proofs)

    def __call__(self, *quirks: Quirk[...]) -> Callable[[Proof], Proof]:
        def note(proof: Proof) -> Proof:
            name = str(getattr(proof, "__name__", ""))
            self._proofs[name] = (proof, quirks or (CATALOGUE[name],))
            return proof

        return note

    async def check(self, name: str, **options: Any) -> None:
        """Start the gateway of a proof, and run it."""
        proof, quirks = self._proofs[name]
        async with EmulatedGateway(*quirks, address=None, **options) as gateway:
            await proof(gateway)
