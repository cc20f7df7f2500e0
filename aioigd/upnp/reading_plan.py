"""Which descriptions may a search read? The shares of senders, and what a search may cost in all; pure.

Anybody in the network can send a reply in anybody's name, so a reply may cause a bounded look, and no more. What it
buys depends on whom it leads to, and on what it says that it is:

============  ==========================================  ==========================================================
standing      a reply                                     buys
============  ==========================================  ==========================================================
CONFIRMED     of the router, at a port that nobody else   whatever the search may spend at the router: 24 requests
              knows; or its path has led to a gateway
              before
ROUTER        in the router's name                        4 descriptions, 3 of them for those that name a gateway;
                                                          none with a query in its URL
GATEWAY       of others that names a gateway (ST, USN)    4 of each sender, and 8 in all that nobody else gets
OTHER         of others                                   4 of each sender, 32 in all
============  ==========================================  ==========================================================

The router is the next hop of the best default route, or the host that the user has named. What turned out to be no
description (404) gives its sender's share back, at most four times, but never its request. Bytes of long
documents are counted, too, for each standing: what liars send, or lead to, leaves enough for honest descriptions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from .wire.url import HttpUrl

__all__ = ["MAX_DEVICES", "KnownPaths", "ReadingPlan", "Standing", "names_gateway"]

MAX_DEVICES: Final = 32
"""Descriptions of other devices that one search reads; a home has a handful of UPnP devices."""
GATEWAY_RESERVE: Final = 8
"""Descriptions read beyond that, of those who name a gateway."""
ROUTER_REQUESTS: Final = 24
"""Descriptions requested of the router in one search. A FRITZ!Box has nine."""
PER_SENDER: Final = 4
"""Descriptions read for the replies of one sender: as many for those who name a gateway."""
MAX_BYTES: Final = 512 * 1024
"""Bytes of long documents that are parsed for each standing: forged replies may lead to any file of the router, and
those are long. A description has 2 to 20 KiB."""
SHORT: Final = 32 * 1024
"""Bytes of a document that is parsed in any case, so that no long ones keep an honest one from being parsed: how many
are read is bounded."""
MAX_READS: Final = 3
"""How often one description is read, if reading it failed: weak routers reset or refuse what comes at a bad moment."""
MAX_REREADS: Final = 8
"""The same for all but the router in one search."""
MAX_QUESTIONS: Final = 16
"""Services elsewhere than at the router that are asked whether they are connected."""
MAX_KNOWN: Final = 32
"""Paths that have led to a gateway, the latest."""

_GATEWAY: Final = re.compile(r":(?:device|service):(?:InternetGatewayDevice|WAN\w+|Layer3Forwarding)\b", re.IGNORECASE)


def names_gateway(*texts: str) -> bool:
    """Return whether one of the texts (ST, USN) names a gateway, or a part of one."""
    return any(_GATEWAY.search(text) for text in texts)


class Standing(IntEnum):
    """Whom a reply leads to, and what it says that it is; the lower the better."""

    CONFIRMED = 0
    ROUTER = 1
    GATEWAY = 2
    OTHER = 3

    @property
    def is_at_router(self) -> bool:
        """Whether it leads to the router."""
        return self <= Standing.ROUTER


class KnownPaths:
    """Paths of hosts that have led to a gateway: they are confirmed wherever they come from. The port may change."""

    def __init__(self) -> None:
        self._paths: dict[tuple[str, str], bool] = {}
        self._guesses: set[tuple[str, str]] = set()

    def is_guess(self, url: HttpUrl) -> bool:
        """Return whether a gateway did not say in time which of its connections is up, when it was last read."""
        return (url.host, url.target) in self._guesses

    def note(self, url: HttpUrl, *, is_at_router: bool = False, is_guess: bool = False) -> None:
        """Note that a gateway described itself there. No number of others displaces those at the router.

        ``is_guess``: it has several connections, and did not say in time which of them is up.
        """
        self._paths.pop((url.host, url.target), None)
        self._paths[url.host, url.target] = is_at_router
        self._guesses.discard((url.host, url.target))
        if is_guess:
            self._guesses.add((url.host, url.target))
        if len(self._paths) > MAX_KNOWN:
            oldest = next(iter(self._paths))
            dropped = next((path for path, at_router in self._paths.items() if not at_router), oldest)
            del self._paths[dropped]
            self._guesses.discard(dropped)

    def __contains__(self, url: HttpUrl) -> bool:
        return (url.host, url.target) in self._paths


class ReadingPlan:
    """What one search has read so far, and may still read.

    ``is_own``: whether a host is this machine's loopback address that is searched from: whatever is emulated there has
    the one address, so there is no share for each sender.
    """

    def __init__(self, is_own: Callable[[str], bool] = lambda _: False) -> None:
        self._is_own = is_own
        self._requests: Counter[Standing] = Counter()
        self._shares: Counter[tuple[str, Standing]] = Counter()
        self._returned: Counter[tuple[str, Standing]] = Counter()
        self._unnamed: Counter[str] = Counter()
        self._reads: Counter[HttpUrl] = Counter()
        self._bytes: Counter[Standing] = Counter()
        self._rereads = 0
        self._questions = 0

    def admit(self, url: HttpUrl, standing: Standing, *, is_named: bool = False, is_late: bool = False) -> bool:
        """Return whether a description may be read for a reply, and count it if so.

        ``is_named``: whether the reply names a gateway. ``is_late``: no more replies have to be expected, so that what
        is kept for those that do is free.
        """
        share = url.host, standing
        has_share = self._shares[share] < PER_SENDER or self._is_own(url.host)
        is_early_guess = standing is Standing.ROUTER and not is_named
        if standing is Standing.CONFIRMED:
            has_room = self._has_request(standing)
        elif standing is Standing.ROUTER:
            has_room = has_share and "?" not in url.target and not (is_early_guess and self._is_guessed(url, is_late))
        else:
            has_room = has_share and self._has_request(standing)
        if has_room:
            self._shares[share] += 1
            self._unnamed[url.host] += is_early_guess
            self._request(url, standing)
        return has_room

    def read_again(self, url: HttpUrl, standing: Standing) -> bool:
        """Return whether a description may be read again that could not be read, and count it if so."""
        has_room = standing.is_at_router or self._rereads < MAX_REREADS
        if self._reads[url] >= MAX_READS or not has_room:
            return False
        self._rereads += not standing.is_at_router
        self._reads[url] += 1
        return True

    def failed(self, url: HttpUrl, standing: Standing) -> None:
        """Give the sender's share of what was no description back."""
        share = url.host, standing
        if standing >= Standing.GATEWAY and self._returned[share] < PER_SENDER:
            self._returned[share] += 1
            self._shares[share] -= 1

    def take(self, size: int, standing: Standing) -> bool:
        """Return whether a document of so many bytes may be parsed, and count them if so."""
        if size <= SHORT:
            return True
        if self._bytes[standing] + size > MAX_BYTES:
            return False
        self._bytes[standing] += size
        return True

    def may_ask(self, standing: Standing) -> bool:
        """Return whether one more service may be asked whether it is connected, and count it if so."""
        if standing.is_at_router:
            return True
        self._questions += 1
        return self._questions <= MAX_QUESTIONS

    def _request(self, url: HttpUrl, standing: Standing) -> None:
        self._requests[standing] += 1
        self._reads[url] += 1

    def _has_request(self, standing: Standing) -> bool:
        if standing is Standing.CONFIRMED:
            return self._requests[standing] < ROUTER_REQUESTS
        elsewhere = self._requests[Standing.GATEWAY] + self._requests[Standing.OTHER]
        if standing is Standing.GATEWAY:
            return elsewhere < MAX_DEVICES + GATEWAY_RESERVE
        return self._requests[Standing.OTHER] < MAX_DEVICES and elsewhere < MAX_DEVICES + GATEWAY_RESERVE

    def _is_guessed(self, url: HttpUrl, is_late: bool) -> bool:
        """Return whether what may be read at the router for replies that name no gateway has been read."""
        return self._unnamed[url.host] > 0 and not is_late
