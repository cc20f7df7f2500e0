"""A SOAP request has failed: what next? Pure: no I/O and no clock.

*Alone* means that no other request was out with it; otherwise the gateway may only have had too many at once. Once the
deadline of the call has passed, the failure is always raised.

==============================  ==========================================  ================================
failure                         alone                                       in company
==============================  ==========================================  ================================
not connected                   an untried control URL at once, uncounted;  the window halves, again
                                else 2 tries, then raised (the gateway
                                may have moved)
cut; the action may be          6 tries, pauses of 20 ms x 4^n up to 0.5 s  the window halves, again
repeated
silent for half the call; the   raised if the gateway may have moved,       the same, and the window halves
action may be repeated          else again after the pause
cut or silent; the action may   raised: whoever sent it reads back before   the same
not be repeated                 it is sent again
==============================  ==========================================  ================================

Before a deletion that was cut alone is sent again the gateway is asked whether it still holds the mapping: it may be
another host's by then.

Where a gateway refuses without words, by cutting or by silence, what it is asked for on other terms gets two tries if
it is cut (``tries_cut``), as the gateway has shown that it answers other requests.

A request that is silent is not given up at once (``soap_client``): beside it the gateway is searched for where it may
have moved, or asked what has become of the request, or that is sent a second time where it does no harm. What is said
here of silence holds when that has led to nothing.

A request that was cut on a connection that was used before is none of these: it has been sent again by then, on a new
one (``net/kept_connections``).

A reply that breaks a cap is raised at once. 404, 405 and 410 without SOAP lead to an untried control URL, if there is
one; any other reply is returned, and proves the control URL.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from ..errors import DeadlineError, TransportError

__all__ = ["TRIES_CUT", "Step", "next_step", "pause_after"]

_TRIES_UNCONNECTED: Final = 2
"""Requests to an address that refuses connections. Refused mostly means moved."""
TRIES_CUT: Final = 6
"""Requests that are cut. Cut mostly means busy, so there are more of them."""
_FIRST_PAUSE: Final = 0.02
"""Seconds; four times as long after each failure."""
_LONGEST_PAUSE: Final = 0.5
"""Seconds."""


class Step(Enum):
    """What to do after a failure."""

    RAISE = auto()
    NEXT_URL = auto()  #: send it to the next control URL
    AGAIN = auto()  #: send it again as soon as the limiter allows
    AGAIN_AFTER_PAUSE = auto()


def next_step(
    error: TransportError | DeadlineError,
    *,
    alone: bool,
    failures_alone: int,
    repeatable: bool,
    may_have_moved: bool,
    has_next_url: bool,
    expired: bool,
    tries_cut: int = TRIES_CUT,
) -> Step:
    """Return what to do after a failure.

    ``failures_alone``: how often the request has failed alone, this time included. ``repeatable``: carried out twice,
    the action does no harm. ``may_have_moved``: a silent gateway is to be searched for before it is asked again.
    ``tries_cut``: requests alone that may be cut, fewer where the gateway has shown that it answers others.
    """
    again = Step.AGAIN_AFTER_PAUSE if alone else Step.AGAIN
    if isinstance(error, DeadlineError):
        return Step.RAISE if expired or may_have_moved or not repeatable else again
    if error.may_have_arrived:
        return Step.RAISE if expired or failures_alone >= tries_cut or not repeatable else again
    if alone and has_next_url:
        return Step.NEXT_URL
    return Step.RAISE if expired or failures_alone >= _TRIES_UNCONNECTED else again


def pause_after(failures_alone: int) -> float:
    """Return the pause in seconds after a number of failures alone."""
    return min(_FIRST_PAUSE * 4.0**failures_alone, _LONGEST_PAUSE)
