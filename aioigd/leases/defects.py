"""What follows from exceptions that nobody has expected? A pause that grows, and one warning for each kind of them.

A defect of this package, or of a library, may come back with each try. The tries go on, ever more rarely, and the log
is not filled: it has the first of each kind as a warning with its traceback, and the others for whoever debugs.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Final
from weakref import WeakKeyDictionary

from ..text import get_logger
from .schedule import backoff

__all__ = ["Defects"]

log = get_logger("aioigd.lease")

_FORGOTTEN_AFTER: Final = 600.0
"""Seconds without one after which a defect is a new one. Work that succeeds in between is no proof: it may be other."""
_MOST_KINDS: Final = 64
"""Kinds that are remembered."""


class Defects:
    """Counts unexpected exceptions, in all and for each thing that was worked on. The clock is passed in."""

    def __init__(self) -> None:
        self._counts: WeakKeyDictionary[object, tuple[int, float]] = WeakKeyDictionary()
        self._last: dict[Hashable, float] = {}

    def pause(self, thing: object, now: float) -> float:
        """Note that work on a thing has failed once more, and return how long to wait before the next try."""
        count, last = self._counts.get(thing, (0, now))
        count = 1 if now > last + _FORGOTTEN_AFTER else count + 1
        self._counts[thing] = count, now
        return backoff(count)

    def report(self, message: str, error: BaseException, now: float) -> None:
        """Say in the log what has failed: as a warning if it is the first of its kind for a while."""
        kind = _kind(error)
        is_new = now > self._last.pop(kind, float("-inf")) + _FORGOTTEN_AFTER
        self._last[kind] = now
        while len(self._last) > _MOST_KINDS:
            del self._last[next(iter(self._last))]
        log.log(logging.WARNING if is_new else logging.DEBUG, "%s", message, exc_info=error)


def _kind(error: BaseException) -> Hashable:
    """Return what is the same for exceptions of one origin: their class, and where they were raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return type(error), None if trace is None else (trace.tb_frame.f_code, trace.tb_lineno)
