"""What does a search send, and when? Pure: no I/O, no clock.

A router may need 27 ms for each M-SEARCH and is deaf meanwhile, several programs may search at once, and a good part of
all datagrams may get lost. So there is a budget, for each network (a prefix on one interface), multicast and unicast
together: in 5 s at most 40 datagrams where a default route leads, or which the program has named, and at most 9
elsewhere. Each of the seven targets is the only one that some router answers; through 30 % loss each way one datagram
in two is answered (0.49), so it takes five of a target to find such a router in 96 of 100 searches (1 - 0.51 ** 5),
and seven of all targets that a router answers for 99 of 100 (1 - 0.51 ** 7). Each target is in five datagrams or six.

No more than four go out at once: a longer burst delays the answer to all of them (miniupnpd: 20 ms).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from enum import Enum
from typing import Final, NamedTuple

from .wire.ssdp import ALL_TARGET, LIKELY_TARGETS, RARE_TARGETS

__all__ = ["SINGLE_TARGETS", "Budget", "Burst", "Way", "schedule"]

_IGD_1, _IGD_2, _ROOT = LIKELY_TARGETS

SINGLE_TARGETS: Final = (_IGD_1, _ROOT, ALL_TARGET)
"""What a search by one datagram asks for, one target each time: some routers do not answer all of these."""


_WINDOW: Final = 5.0
"""Seconds for which a budget is."""
_FULL: Final = 40
"""Datagrams in that time to a network in which a default route leads, or which the program has named."""
_SMALL: Final = 9
"""The same for any other network."""


class Budget:
    """What all searches of a driver together have sent to each network lately. The clock is passed in.

    One search keeps to the budget by its schedule. Of searches that run at once, or one after another, only the first
    burst of each is sent in any case.
    """

    def __init__(self) -> None:
        self._sent: dict[Hashable, deque[tuple[float, int]]] = {}
        self._forget_at = 0.0

    def take(self, network: Hashable, number: int, now: float, *, is_full: bool = True, is_first: bool = False) -> bool:
        """Return whether so many datagrams may be sent to a network now, and count them if so."""
        if now >= self._forget_at:  # not each time: there may be hundreds of networks
            self._forget_at = now + _WINDOW
            self._sent = {known: sent for known, sent in self._sent.items() if sent[-1][0] > now - _WINDOW}
        sent = self._sent.get(network, deque())
        while sent and sent[0][0] <= now - _WINDOW:
            sent.popleft()
        if not is_first and sum(count for _, count in sent) + number > (_FULL if is_full else _SMALL):
            return False
        sent.append((now, number))
        self._sent[network] = sent
        return True


class Way(Enum):
    """Where to a burst is sent."""

    EVERY_GROUP = "the group, in each network"
    GROUP = "the group, in networks with the full budget"
    SITE_GROUP = "the same, where IPv6 has a group that reaches beyond the link, to that one"
    HOST = "the router of the default route; the group of networks with the full budget that have none"


class Burst(NamedTuple):
    """Datagrams that go out at once, one for each target, ``at`` so many seconds from the start."""

    at: float
    targets: tuple[str, ...]
    way: Way


_ROUNDS: Final = (
    # As quick as can be, and all that a router sees of a search that goes well.
    Burst(0.0, LIKELY_TARGETS, Way.EVERY_GROUP),
    Burst(0.1, RARE_TARGETS, Way.EVERY_GROUP),
    # Some routers, switches and access points drop multicast.
    Burst(0.3, LIKELY_TARGETS, Way.HOST),
    Burst(0.4, (*RARE_TARGETS, ALL_TARGET), Way.HOST),
    Burst(0.7, (_IGD_1, _ROOT, ALL_TARGET), Way.EVERY_GROUP),
    Burst(0.8, (_IGD_2, *RARE_TARGETS), Way.GROUP),
    Burst(1.4, LIKELY_TARGETS, Way.GROUP),
    Burst(1.5, (*RARE_TARGETS, ALL_TARGET), Way.GROUP),
    Burst(2.3, LIKELY_TARGETS, Way.GROUP),
    Burst(2.4, (*RARE_TARGETS, ALL_TARGET), Way.GROUP),
    Burst(3.3, (_IGD_1, _ROOT, *RARE_TARGETS[:1]), Way.SITE_GROUP),
    Burst(3.4, (*RARE_TARGETS[1:], ALL_TARGET), Way.GROUP),
)
_PERIOD: Final = 6.0
"""Seconds between two rounds of a search that goes on after these: whoever is switched on meanwhile is found, too."""
_LATER: Final = (
    Burst(0.0, LIKELY_TARGETS, Way.EVERY_GROUP),
    Burst(0.1, (*RARE_TARGETS, ALL_TARGET), Way.GROUP),
    Burst(3.0, LIKELY_TARGETS, Way.HOST),
    Burst(3.1, (*RARE_TARGETS, ALL_TARGET), Way.HOST),
)
_LAST_PART: Final = 0.9
"""The part of a search after which nothing is sent any more: there would be no time for the answer."""
_SHORT: Final = 1.0
"""Seconds: a shorter search sends faster, at most twice as fast."""


def schedule(span: float) -> Iterator[Burst]:
    """Yield the bursts of a search of ``span`` seconds, in the order in which they go out."""
    pace = min(1.0, max(span / _SHORT, 0.5))
    last = span * _LAST_PART
    for burst in _ROUNDS:
        if burst.at and burst.at * pace >= last:
            return
        yield burst._replace(at=burst.at * pace)
    start = _PERIOD
    while True:
        for burst in _LATER:
            if start + burst.at >= last:
                return
            yield burst._replace(at=start + burst.at)
        start += _PERIOD
