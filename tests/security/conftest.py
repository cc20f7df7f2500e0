"""Canaries for each test of this folder that asks for them; they must not have heard anything in the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .canaries import Canaries


@pytest.fixture
def canaries() -> Iterator[Canaries]:
    """Listeners on two addresses; the test fails if anything reaches them."""
    with Canaries() as canaries:
        yield canaries
        assert canaries.heard == []
