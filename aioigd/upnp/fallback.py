"""What to ask a gateway next, after it has refused: pure functions, no I/O.

A gateway may refuse the lease, the description, or both, and most say so with a code that means many things.
So the terms of a request are varied in a fixed order, from the least to the largest sacrifice, until the gateway
agrees or the code says that no other terms could help. What it agreed to is remembered as its :class:`Habits`.

========================================  ==================================================================
the gateway says                          what is tried next
========================================  ==================================================================
725 OnlyPermanentLeasesSupported          no lease; with it, where refused again, the other descriptions
402, 501, 401 to 899 without a meaning    no lease, or a finite one of a week where none was asked for; a plain
here, codes outside, a fault without a    ASCII description, none (or a plain one where none was asked for); a lease
code, an HTTP error without a fault       of an hour; then both
718, once overwriting has not helped      once, a description that names port and protocol: some compare only that
724, 716, 729, 726, 727, 728, 732, 606,   nothing: reported as it is
401, 403, 713, 714, 715, 730, 733
========================================  ==================================================================
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Final

from ..models import MappingRequest, Terms

__all__ = ["HOPELESS", "Desc", "Failure", "Habits", "Lease", "next_terms", "remember", "variants"]

WEEK: Final = 604_800
"""Seconds. The longest finite lease of IGD:2 (WANIPConnection:2 section 2.3.16), and what lease-only routers take."""
HOUR: Final = 3600
"""Seconds. Some take a day at most, some an hour."""
MAX_PLAIN: Final = 31
"""Characters that every router takes in a description."""
_DEFAULT_DESC: Final = "aioigd"

HOPELESS: Final = frozenset({401, 403, 606, 713, 714, 715, 716, 724, 726, 727, 728, 729, 730, 732, 733})
"""Codes after which other terms cannot help: wrong port, wrong host, no right, no room, no such action."""


class Lease(Enum):
    """What becomes of the duration that was asked for."""

    ASKED = "as asked"
    NONE = "none"
    WEEK = "at most a week"
    HOUR = "at most an hour"


class Desc(Enum):
    """What becomes of the description that was asked for."""

    ASKED = "as asked"
    PLAIN = "plain ASCII"
    UNIQUE = "with port and protocol"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Habits:
    """What a gateway is known to insist on. Applied to each new request for it."""

    lease: Lease = Lease.ASKED
    desc: Desc = Desc.ASKED


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that the gateway did not grant: its terms, and the UPnP error code or None."""

    terms: Terms
    error_code: int | None


_ORDER: Final = (
    Habits(Lease.ASKED, Desc.ASKED),
    Habits(Lease.NONE, Desc.ASKED),
    Habits(Lease.WEEK, Desc.ASKED),
    Habits(Lease.ASKED, Desc.PLAIN),
    Habits(Lease.ASKED, Desc.NONE),
    Habits(Lease.NONE, Desc.PLAIN),
    Habits(Lease.NONE, Desc.NONE),
    Habits(Lease.WEEK, Desc.PLAIN),
    Habits(Lease.WEEK, Desc.NONE),
    Habits(Lease.HOUR, Desc.ASKED),
    Habits(Lease.HOUR, Desc.PLAIN),
    Habits(Lease.HOUR, Desc.NONE),
    Habits(Lease.ASKED, Desc.UNIQUE),
    Habits(Lease.NONE, Desc.UNIQUE),
    Habits(Lease.WEEK, Desc.UNIQUE),
    Habits(Lease.HOUR, Desc.UNIQUE),
)
"""What can be varied, from the least to the largest sacrifice."""


@cache
def _order(known: Habits) -> tuple[Habits, ...]:
    """Return what a gateway is known to insist on, then what gives up one habit, then the rest."""
    # A habit may have been learned from a coincidence.
    return tuple(sorted(_ORDER, key=lambda habits: (habits.lease is not known.lease) + (habits.desc is not known.desc)))


def variants(request: MappingRequest, habits: Habits = Habits()) -> Iterator[tuple[Habits, Terms]]:
    """Yield the terms in which a request can be made, best first, each with the habits that call for them.

    Those that the gateway is known to insist on come first.
    """
    seen: set[Terms] = set()
    for candidate in _order(habits):
        terms = Terms(_desc(request, candidate.desc), _duration(request, candidate.lease))
        if terms not in seen:
            seen.add(terms)
            yield candidate, terms


def next_terms(request: MappingRequest, failures: Sequence[Failure], habits: Habits) -> tuple[Habits, Terms] | None:
    """Return the terms for the next try, or None where nothing more can be done.

    The first call, with no failures, gives the terms to begin with. As no terms are tried twice, there are at most
    as many tries as :func:`variants`: 9, or 12 for a gateway that is known to compare descriptions.
    """
    code = failures[-1].error_code if failures else None
    if code in HOPELESS:
        return None
    tried = {failure.terms for failure in failures}
    for candidate, terms in variants(request, habits):
        if terms in tried:
            continue
        if any(failure.error_code == 725 for failure in failures) and terms.duration != 0:
            continue
        if code == 718 and (candidate.desc is not Desc.UNIQUE or terms.duration != failures[-1].terms.duration):
            continue
        if code != 718 and candidate.desc is Desc.UNIQUE and failures and habits.desc is not Desc.UNIQUE:
            continue
        return candidate, terms
    return None


def remember(habits: Habits, granted: Habits, request: MappingRequest) -> Habits:
    """Return what is known of a gateway after it granted a request on the terms of ``granted``.

    A habit that would have led to the same terms is kept; a new one is taken on only if it made a difference.
    """
    if granted == habits:
        return habits
    lease, desc = habits.lease, habits.desc
    if _duration(request, lease) != _duration(request, granted.lease):
        lease = granted.lease if _duration(request, granted.lease) != request.terms.duration else Lease.ASKED
    if _desc(request, desc) != _desc(request, granted.desc):
        desc = granted.desc if _desc(request, granted.desc) != request.terms.desc else Desc.ASKED
    return Habits(lease, desc)


def plain(text: str) -> str:
    """Return a description that every router takes: ASCII letters, digits and blanks, at most MAX_PLAIN."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    words = re.sub(r"[^A-Za-z0-9]+", " ", ascii_text).split()
    return " ".join(words)[:MAX_PLAIN].strip() or _DEFAULT_DESC


def _duration(request: MappingRequest, lease: Lease) -> int:
    asked = request.terms.duration
    if lease is Lease.NONE:
        return 0
    if lease is Lease.WEEK:
        return min(asked, WEEK) or WEEK
    if lease is Lease.HOUR:
        return min(asked, HOUR) or HOUR
    return asked


def _desc(request: MappingRequest, desc: Desc) -> str:
    asked = request.terms.desc
    if desc is Desc.PLAIN:
        return plain(asked)
    if desc is Desc.NONE:
        return ""
    if desc is Desc.UNIQUE:
        suffix = f" {request.key.proto} {request.key.external_port}"
        return plain(asked)[: MAX_PLAIN - len(suffix)].rstrip() + suffix
    return asked
