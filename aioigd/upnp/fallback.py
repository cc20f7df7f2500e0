"""What to ask a gateway next, after it has refused: pure functions, no I/O.

A gateway may refuse the lease, the description, or both, and most say so with a code that means many things.
So the terms of a request are varied in a fixed order, from the least to the largest sacrifice, until the gateway
agrees or the code says that no other terms could help. What it agreed to is remembered as its :class:`TermsPolicy`.

========================================  ==================================================================
the gateway says                          what is tried next
========================================  ==================================================================
725 OnlyPermanentLeasesSupported          no lease; with it, where refused again, the other descriptions
402, 501, 401 to 899 without a meaning    no lease, or a finite one of a week where none was asked for; a plain
here, codes outside, a fault without a    ASCII description, none (or a plain one where none was asked for); a lease
code, an HTTP error without a fault       of an hour; then both
718, once overwriting has not helped      once, a description that names port and protocol: some compare only that
HTTP 400 without a fault                  once, no lease and no description: it may not have the action at all
724, 716, 729, 726, 727, 728, 732, 606,   nothing: reported as it is
401, 602, 403, 713, 714, 715, 730, 733,
HTTP 401 or 403 without a code
nothing, or cuts the connection each      no lease; a plain ASCII description, none; both: it may be how it
time, although it answers other requests  refuses; once it has refused something in words, also what has more in it
                                          than was asked for, without what it said nothing to
========================================  ==================================================================

Of many ports only the first gets all of this, be it that one of them is wanted or all. After a refusal of another there
is one more request, on the plainest terms (after 725 and 718 on the next of the table), so that the way through many
ports that are refused, whatever the terms, stays short.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import cache
from typing import Final, NamedTuple

from ..models import MappingRequest, Terms
from .wire.error_codes import UPnPErrorCode

__all__ = [
    "AS_ASKED",
    "FEW_TERMS",
    "FINAL_CODES",
    "DescriptionPolicy",
    "Failure",
    "LeasePolicy",
    "TermsPolicy",
    "candidate_terms",
    "learn",
    "next_terms",
]

WEEK: Final = 604_800
"""Seconds. The longest finite lease of IGD:2 (WANIPConnection:2 section 2.3.16), and what lease-only routers take."""
HOUR: Final = 3600
"""Seconds. Some take a day at most, some an hour."""
MAX_PLAIN: Final = 31
"""Characters that every router takes in a description."""
FEW_TERMS: Final = 2
"""Terms on which a port is asked for after another was refused on all of them."""
_DEFAULT_DESC: Final = "aioigd"

FINAL_CODES: Final = frozenset(
    {
        UPnPErrorCode.INVALID_ACTION,
        UPnPErrorCode.OPTIONAL_ACTION_NOT_IMPLEMENTED,
        UPnPErrorCode.OUT_OF_SYNC,
        UPnPErrorCode.ACTION_NOT_AUTHORIZED,
        UPnPErrorCode.SPECIFIED_ARRAY_INDEX_INVALID,
        UPnPErrorCode.NO_SUCH_ENTRY_IN_ARRAY,
        UPnPErrorCode.WILDCARD_NOT_PERMITTED_IN_SRC_IP,
        UPnPErrorCode.WILDCARD_NOT_PERMITTED_IN_EXT_PORT,
        UPnPErrorCode.SAME_PORT_VALUES_REQUIRED,
        UPnPErrorCode.REMOTE_HOST_ONLY_SUPPORTS_WILDCARD,
        UPnPErrorCode.EXTERNAL_PORT_ONLY_SUPPORTS_WILDCARD,
        UPnPErrorCode.NO_PORT_MAPS_AVAILABLE,
        UPnPErrorCode.CONFLICT_WITH_OTHER_MECHANISMS,
        UPnPErrorCode.PORT_MAPPING_NOT_FOUND,
        UPnPErrorCode.WILDCARD_NOT_PERMITTED_IN_INT_PORT,
        UPnPErrorCode.INCONSISTENT_PARAMETERS,
    }
)
"""Codes after which other terms cannot help: wrong port, wrong host, no right, no room, no such action."""
_MENDABLE_CODES: Final = frozenset(
    {UPnPErrorCode.ONLY_PERMANENT_LEASES_SUPPORTED, UPnPErrorCode.CONFLICT_IN_MAPPING_ENTRY}
)
"""Codes that say which terms could help."""


class LeasePolicy(Enum):
    """What becomes of the duration that was asked for."""

    ASKED = "as asked"
    NONE = "none"
    WEEK = "at most a week"
    HOUR = "at most an hour"


class DescriptionPolicy(Enum):
    """What becomes of the description that was asked for."""

    ASKED = "as asked"
    PLAIN = "plain ASCII"
    UNIQUE = "with port and protocol"
    NONE = "none"


class TermsPolicy(NamedTuple):
    """What a gateway is known to insist on. Applied to each new request for it."""

    lease: LeasePolicy = LeasePolicy.ASKED
    desc: DescriptionPolicy = DescriptionPolicy.ASKED


AS_ASKED: Final = TermsPolicy()
"""What is not known to insist on anything."""


class Failure(NamedTuple):
    """A request that the gateway did not grant: its terms, and the UPnP error code or None.

    ``is_bad_request``: HTTP 400 and no fault. ``is_wordless``: it cut the connection each time, or said nothing,
    although it answers other requests.
    """

    terms: Terms
    error_code: int | None
    is_bad_request: bool = False
    is_wordless: bool = False


_ORDER: Final = (
    TermsPolicy(LeasePolicy.ASKED, DescriptionPolicy.ASKED),
    TermsPolicy(LeasePolicy.NONE, DescriptionPolicy.ASKED),
    TermsPolicy(LeasePolicy.WEEK, DescriptionPolicy.ASKED),
    TermsPolicy(LeasePolicy.ASKED, DescriptionPolicy.PLAIN),
    TermsPolicy(LeasePolicy.ASKED, DescriptionPolicy.NONE),
    TermsPolicy(LeasePolicy.NONE, DescriptionPolicy.PLAIN),
    TermsPolicy(LeasePolicy.NONE, DescriptionPolicy.NONE),
    TermsPolicy(LeasePolicy.WEEK, DescriptionPolicy.PLAIN),
    TermsPolicy(LeasePolicy.WEEK, DescriptionPolicy.NONE),
    TermsPolicy(LeasePolicy.HOUR, DescriptionPolicy.ASKED),
    TermsPolicy(LeasePolicy.HOUR, DescriptionPolicy.PLAIN),
    TermsPolicy(LeasePolicy.HOUR, DescriptionPolicy.NONE),
    TermsPolicy(LeasePolicy.ASKED, DescriptionPolicy.UNIQUE),
    TermsPolicy(LeasePolicy.NONE, DescriptionPolicy.UNIQUE),
    TermsPolicy(LeasePolicy.WEEK, DescriptionPolicy.UNIQUE),
    TermsPolicy(LeasePolicy.HOUR, DescriptionPolicy.UNIQUE),
)
"""What can be varied, from the least to the largest sacrifice."""
_PLAINEST: Final = TermsPolicy(LeasePolicy.NONE, DescriptionPolicy.NONE)
"""What most routers take that take anything."""


@cache
def _order(known: TermsPolicy) -> tuple[TermsPolicy, ...]:
    """Return what a gateway is known to insist on, then what gives up one part of it, then the rest."""
    # A policy may have been learned from a coincidence.
    return tuple(sorted(_ORDER, key=lambda policy: (policy.lease is not known.lease) + (policy.desc is not known.desc)))


def candidate_terms(request: MappingRequest, policy: TermsPolicy = AS_ASKED) -> Iterator[tuple[TermsPolicy, Terms]]:
    """Yield the terms in which a request can be made, best first, each with the policy that calls for them.

    Those that the gateway is known to insist on come first.
    """
    seen: set[Terms] = set()
    for candidate in _order(policy):
        terms = Terms(_desc(request, candidate.desc), _duration(request, candidate.lease))
        if terms not in seen:
            seen.add(terms)
            yield candidate, terms


def next_terms(
    request: MappingRequest, failures: Sequence[Failure], policy: TermsPolicy, *, most: int | None = None
) -> tuple[TermsPolicy, Terms] | None:
    """Return the terms for the next try, or None where nothing more can be done.

    The first call, with no failures, gives the terms to begin with. As no terms are tried twice, there are at most
    as many tries as :func:`candidate_terms`: 12, or 16 for a gateway that is known to compare descriptions. Or
    ``most``, where the port is one of many.
    """
    code = failures[-1].error_code if failures else None
    has_bad_request = bool(failures) and failures[-1].is_bad_request
    if code in FINAL_CODES or (most is not None and len(failures) >= most):
        return None
    if has_bad_request and sum(failure.is_bad_request for failure in failures) > 1:
        return None
    is_plainest_next = has_bad_request or (most is not None and bool(failures) and code not in _MENDABLE_CODES)
    is_wordless = bool(failures) and failures[-1].is_wordless
    tried = {failure.terms for failure in failures}
    disliked = [failure.terms for failure in failures if failure.is_wordless]
    may_add = len(disliked) < len(failures)  # what was refused in words may have lacked something
    for candidate, terms in candidate_terms(request, policy):
        if terms in tried or (is_plainest_next and candidate != _PLAINEST):
            continue
        if is_wordless and not (may_add or _adds_nothing(request, terms)):
            continue
        if is_wordless and not all(_lacks_part(terms, each) for each in disliked):
            continue
        if (
            any(failure.error_code == UPnPErrorCode.ONLY_PERMANENT_LEASES_SUPPORTED for failure in failures)
            and terms.duration != 0
        ):
            continue
        if code == UPnPErrorCode.CONFLICT_IN_MAPPING_ENTRY and (
            candidate.desc is not DescriptionPolicy.UNIQUE or terms.duration != failures[-1].terms.duration
        ):
            continue
        if (
            code != UPnPErrorCode.CONFLICT_IN_MAPPING_ENTRY
            and candidate.desc is DescriptionPolicy.UNIQUE
            and failures
            and policy.desc is not DescriptionPolicy.UNIQUE
        ):
            continue
        return candidate, terms
    return None


def _adds_nothing(request: MappingRequest, terms: Terms) -> bool:
    """Return whether terms have less in them than was asked for, and nothing that was not."""
    asked = request.terms
    has_no_more = terms.duration in (0, asked.duration) and (terms.desc == asked.desc or bool(asked.desc))
    return has_no_more and terms != asked


def _lacks_part(terms: Terms, disliked: Terms) -> bool:
    """Return whether terms lack the lease or the description of others, one of which a gateway seems to dislike."""
    return terms.duration < disliked.duration or (disliked.desc != "" and terms.desc != disliked.desc)


def learn(policy: TermsPolicy, granted: TermsPolicy, request: MappingRequest) -> TermsPolicy:
    """Return what is known of a gateway after it granted a request on the terms of ``granted``.

    A habit that would have led to the same terms is kept; a new one is taken on only if it made a difference.
    """
    if granted == policy:
        return policy
    lease, desc = policy.lease, policy.desc
    if _duration(request, lease) != _duration(request, granted.lease):
        lease = granted.lease if _duration(request, granted.lease) != request.terms.duration else LeasePolicy.ASKED
    if _desc(request, desc) != _desc(request, granted.desc):
        desc = granted.desc if _desc(request, granted.desc) != request.terms.desc else DescriptionPolicy.ASKED
    return TermsPolicy(lease, desc)


def to_plain_ascii(text: str) -> str:
    """Return a description that every router takes: ASCII letters, digits and blanks, at most MAX_PLAIN."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    words = re.sub(r"[^A-Za-z0-9]+", " ", ascii_text).split()
    return " ".join(words)[:MAX_PLAIN].strip() or _DEFAULT_DESC


def _duration(request: MappingRequest, lease: LeasePolicy) -> int:
    asked = request.terms.duration
    if lease is LeasePolicy.NONE:
        return 0
    if lease is LeasePolicy.WEEK:
        return min(asked, WEEK) or WEEK
    if lease is LeasePolicy.HOUR:
        return min(asked, HOUR) or HOUR
    return asked


def _desc(request: MappingRequest, desc: DescriptionPolicy) -> str:
    asked = request.terms.desc
    if desc is DescriptionPolicy.PLAIN:
        return to_plain_ascii(asked)
    if desc is DescriptionPolicy.NONE:
        return ""
    if desc is DescriptionPolicy.UNIQUE:
        suffix = f" {request.key.proto} {request.key.external_port}"
        return to_plain_ascii(asked)[: MAX_PLAIN - len(suffix)].rstrip() + suffix
    return asked
