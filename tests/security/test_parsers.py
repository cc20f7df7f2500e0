"""Each parser takes little for the worst that fits into its cap, compared with a loop of Python in the same process."""

from __future__ import annotations

import pytest

from ..upnp.wire.hostile import FAMILIES
from .cost import MOST_LOOPS, in_loops
from .parsers import PARSERS, WORST

NOISE = 1.5
"""A busy machine is that much slower now and then, for one of the two that are compared."""
_DEAR = {"empty elements", "new names", "elements with texts", "nesting", "good character references", "relative URLs"}
"""Of the documents that hurt, those that take longest; the long session measures all."""


def _is_long(parser: str, name: str) -> bool:
    return name in FAMILIES and name not in _DEAR


@pytest.mark.parametrize(
    ("parser", "name"),
    [pytest.param(*key, marks=pytest.mark.long if _is_long(*key) else ()) for key in WORST],
)
def test_a_parser_takes_little_at_its_cap(parser: str, name: str) -> None:
    document = WORST[parser, name]
    assert in_loops(lambda: PARSERS[parser](document), rounds=3, enough=MOST_LOOPS) < NOISE * MOST_LOOPS
