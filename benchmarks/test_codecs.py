"""Microbenchmarks of the pure steps; with ``--benchmark-disable`` each runs once, as a smoke test."""

from __future__ import annotations

from typing import Any

import pytest

from .codecs import STEPS

pytest.importorskip("pytest_benchmark")


@pytest.mark.parametrize("step", STEPS)
def test_step(benchmark: Any, step: str) -> None:
    """Time one step, and look at its result."""
    call, shown = STEPS[step]
    assert shown in repr(benchmark(call))
