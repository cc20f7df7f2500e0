"""One search under way: rounds of M-SEARCH go out, and every reply is followed up the moment it arrives.

Each device is examined in a task of its own, so that one which hangs or lies never holds up the others. What may
be spent on a network full of liars is capped here.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from ipaddress import IPv6Address, ip_address
from typing import Final

from async_timeout import timeout_at

from ..errors import DeadlineError, DiscoveryError, IGDError, InvalidResponseError, TransportError
from ..net.interfaces import default_next_hops, interfaces, source_address_for
from ..results import IGDStatus, UPnPResult
from .net.http import HttpClient
from .net.ssdp_search import SearchReply, SsdpSearch
from .probe import Examined, examine
from .wire import ssdp
from .wire.url import HttpUrl, parse_location, parse_url, same_address

__all__ = ["MAX_DEVICES", "Found", "Rank", "Search", "SearchOptions"]

log = logging.getLogger("aioigd.discovery")

MAX_DEVICES: Final = 32
"""Descriptions that one search reads; a home has a handful of UPnP devices. The next hop is always read."""
_MAX_PER_SENDER: Final = 4
_MAX_READS: Final = 3
"""How often one description is read, if reading it failed: weak routers reset or refuse what comes at a bad moment."""
_MAX_REREADS: Final = 8
"""The same for one search in all."""
_READ_TIME: Final = 3.5
"""Seconds for one description; some routers take three."""
_REREAD_PAUSE: Final = 0.15
"""Seconds before a description is read again that could not be read; doubles each time."""
_LAST_CALL: Final = 0.05
"""The part of a search, at its end, in which no description is read any more: what hangs is reported, too."""
_TWIN_TIME: Final = 1.0
"""Seconds for the description of a router that was found over IPv6 at its IPv4 address."""
_SECOND_BURST: Final = 0.1
"""Seconds after which the rarer targets are searched for: asked at once, routers answer all of them late."""
_LEAST_GAP: Final = 0.2
"""Seconds between two rounds at least: a router that is flooded with searches answers none of them in time."""
_ROUNDS: Final = (0.0, 0.06, 0.12, 0.2, 0.32, 0.46, 0.62, 0.8)
"""When to search, as parts of the time for it. One round finds a gateway through 30 % loss each way in half of
all tries, eight in 99 of 100."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How to search: see :class:`~aioigd.PortMapper` for what each means."""

    source_address: str | None = None
    location: str | None = None
    ttl: int = 2
    local_port: int = 0
    ipv6: bool = False
    host: str | None = None
    """The only address to search at; None for the multicast group, and the router of the default route."""


class Rank(IntEnum):
    """How good a gateway a device would be; the lower the better."""

    CERTAIN = 0  #: usable, and the next hop of the default route, or in a network that has nothing else
    LIKELY = 1  #: usable
    LAST_RESORT = 2  #: says that it is not connected
    USELESS = 3  #: no gateway


@dataclass(frozen=True, slots=True)
class Found:
    """A device that has been examined."""

    examined: Examined
    rank: Rank


class Search:
    """One search under way. Owns its sockets and tasks until :meth:`stop`."""

    def __init__(self, http: HttpClient, options: SearchOptions, until: float, ttl: int) -> None:
        self._http = http
        self._options = options
        self._until = until
        self._ttl = ttl
        self._loop = asyncio.get_running_loop()
        self._next_hops: Collection[str] = ()
        self._any_is_certain = False
        self._alone: tuple[str, ...] = ()
        """On loopback, our own address: nobody else can be at home there."""
        self._found: asyncio.Queue[Found | None] = asyncio.Queue()
        self._reads: dict[HttpUrl, int] = {}
        self._senders: Counter[str] = Counter()
        self._reading: dict[HttpUrl, asyncio.Task[None]] = {}
        self._seen: set[HttpUrl] = set()
        self._sender: asyncio.Task[None] | None = None
        self._ssdp: SsdpSearch | None = None
        self._answers = 0
        self._failures: list[Examined] = []
        self.started = self._loop.time()
        self._last_call = until - _LAST_CALL * (until - self.started)

    @property
    def next_hop_pending(self) -> bool:
        """Whether the router of the default route has answered and is being examined."""
        return any(self._is_next_hop(url.host) for url in self._reading)

    @property
    def next_hop_silent(self) -> bool:
        """Whether there is a router of the default route, and it has not answered yet."""
        return bool(self._next_hops) and not any(self._is_next_hop(url.host) for url in self._reads)

    async def start(self) -> None:
        """Open the sockets and send the first round, or begin to read the given description."""
        options = self._options
        if options.location is not None:
            await self._follow_location(options.location)
            return
        places = interfaces(ipv6=options.ipv6, source_address=options.source_address)
        self._any_is_certain = options.source_address is not None and all(place.is_loopback for place in places)
        if self._any_is_certain:
            self._alone = tuple(place.address for place in places)
        else:
            self._next_hops = default_next_hops(ipv6=places[0].is_ipv6)
        self._ssdp = SsdpSearch(places, self._on_reply, ttl=self._ttl, local_port=options.local_port)
        await self._ssdp.__aenter__()
        self.started = self._loop.time()
        self._sender = self._loop.create_task(self._send_rounds(self._ssdp))

    async def stop(self) -> None:
        """Close everything, also when cancelled meanwhile."""
        if self._ssdp is not None:
            self._ssdp.close()
        tasks = [*self._reading.values(), *([self._sender] if self._sender else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def next(self, until: float) -> Found | None:
        """Return the next device that has been examined; None at the time ``until``, or when no more can come."""
        if not self._found.empty():
            return self._found.get_nowait()
        if self._ssdp is None and not self._reading:
            return None
        try:
            async with timeout_at(min(until, self._until)):
                return await self._found.get()
        except TimeoutError:
            return None

    def failure(self) -> IGDError:
        """Return why no gateway was found."""
        if self._options.location is not None and self._failures and self._failures[0].failure is not None:
            return self._failures[0].failure
        if not self._answers:
            return DiscoveryError("no device answered the search for a gateway", UPnPResult.NO_DEVICES)
        devices = ", ".join(
            f"{one.device.friendly_name or one.device.description_url}: {one.device.igd_status.name}"
            for one in self._failures[:5]
        )
        return DiscoveryError(f"no gateway among the devices that answered ({devices})", UPnPResult.NO_GATEWAY)

    async def _send_rounds(self, search: SsdpSearch) -> None:
        span = self._until - self.started
        at = self.started - _LEAST_GAP
        for number, part in enumerate(_ROUNDS):
            at = max(at + _LEAST_GAP, self.started + part * span)
            await asyncio.sleep(at - self._loop.time())
            # Not in the first round: a burst of more than four delays the answer to all of them (miniupnpd: 20 ms).
            unicast: tuple[str, ...] = (*self._next_hops, *self._alone) if number % 2 else ()
            multicast = True
            host = self._options.host
            if host is not None:
                multicast = ip_address(host).is_multicast
                unicast = () if multicast else (host,)
            search.send(ssdp.LIKELY_TARGETS, unicast, multicast=multicast)
            await asyncio.sleep(min(_SECOND_BURST, span / 5))
            rare = (*ssdp.RARE_TARGETS, ssdp.ALL_TARGET) if number else ssdp.RARE_TARGETS
            search.send(rare, unicast if host is not None else (), multicast=multicast)

    async def _follow_location(self, location: str) -> None:
        url = parse_url(location)
        try:
            async with timeout_at(self._until):
                addresses = await self._loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise DeadlineError(f"{url.host} was not resolved in time") from error
        except (OSError, UnicodeError) as error:  # the latter for what cannot be put into IDNA
            raise TransportError(f"{url.host} cannot be resolved: {error}", may_have_arrived=False) from error
        address: Sequence[object] = addresses[0][4]
        zone = f"%{address[3]}" if len(address) > 3 and address[3] else ""
        url = url.with_host(f"{address[0]}{zone}")
        self._answers += 1
        self._any_is_certain = True  # the caller has said so
        our_address = self._options.source_address or source_address_for(url.host)
        self._read(url, our_address, url.host, "", "")

    def _on_reply(self, reply: SearchReply) -> None:
        self._answers += 1
        said = reply.announcement
        try:
            url = parse_location(said.location)
        except ValueError as error:
            log.debug("ignoring %s: %s", reply.sender, error)
            return
        our_address = reply.our_address
        # Only the host that answered is asked, or the router of the default route if that is what was named.
        if not self._is_next_hop(url.host) or _is_link_local(url.host):
            url = url.with_host(reply.sender)
        elif _is_link_local(our_address):
            try:
                our_address = source_address_for(url.host)
            except TransportError:
                url = url.with_host(reply.sender)
        self._read(url, our_address, reply.sender, said.target, said.server)

    def _read(self, url: HttpUrl, our_address: str, sender: str, target: str, server: str) -> None:
        if url in self._reading or url in self._seen or self._reads.get(url, 0) >= _MAX_READS:
            return
        if url not in self._reads:
            if not self._has_room(sender):
                return
            self._senders[sender] += 1
        self._reads[url] = self._reads.get(url, 0) + 1
        self._reading[url] = self._loop.create_task(self._examine(url, our_address, target, server))

    def _has_room(self, sender: str) -> bool:
        """Tell whether one more description may be read: who sends many replies uses up its own share only."""
        from_it = self._senders[sender]
        # On loopback everything that is emulated may live on the one address that is searched from.
        at_home = self._any_is_certain and sender == self._options.source_address
        if from_it >= _MAX_PER_SENDER and not at_home:
            return False
        return len(self._reads) < MAX_DEVICES or self._is_next_hop(sender)

    async def _examine(self, url: HttpUrl, our_address: str, target: str, server: str) -> None:
        pause = _REREAD_PAUSE
        try:
            while True:
                examined = await self._examine_once(url, our_address, target, server)
                self._report(url, examined)
                if not _may_get_better(examined) or not self._may_read_again(url, pause):
                    return
                self._reads[url] += 1  # before the pause, so that others know that the room is taken
                await asyncio.sleep(pause)
                pause *= 2
        finally:
            self._reading.pop(url, None)
            if self._ssdp is None and not self._reading:
                self._found.put_nowait(None)  # nothing more can come: whoever waits need not

    def _may_read_again(self, url: HttpUrl, pause: float) -> bool:
        again = sum(self._reads.values()) - len(self._reads)
        in_time = self._loop.time() + pause < self._last_call
        return in_time and self._reads[url] < _MAX_READS and (again < _MAX_REREADS or self._is_next_hop(url.host))

    async def _examine_once(self, url: HttpUrl, our_address: str, target: str, server: str) -> Examined:
        deadline = min(self._last_call, self._loop.time() + _READ_TIME)
        examined = await examine(
            self._http, url, our_address=our_address, deadline=deadline, search_target=target, server=server
        )
        if examined.is_usable and ":" in url.host and self._is_next_hop(url.host):
            return await self._over_ipv4(examined, url, deadline)
        return examined

    def _report(self, url: HttpUrl, examined: Examined) -> None:
        if not _may_get_better(examined):
            self._seen.add(url)
        elif self._reads[url] > 1:
            return  # said once already
        rank = self._rank(examined, url)
        if rank == Rank.USELESS:
            self._failures.append(examined)
            log.debug("no gateway: %s (%s)", examined.device, examined.failure)
        self._found.put_nowait(Found(examined, rank))

    async def _over_ipv4(self, examined: Examined, url: HttpUrl, deadline: float) -> Examined:
        """Return a router that was found over IPv6 with its controls at its IPv4 address, if it has them there.

        Routers in secure mode map only for the address that asks, and a mapping is a matter of IPv4: asked over IPv6
        they refuse all of them (718).
        """
        deadline = min(deadline, self._loop.time() + _TWIN_TIME)
        for hop in default_next_hops():
            with suppress(TransportError):
                our_address = source_address_for(hop)
                twin = (
                    await examine(self._http, url.with_host(hop), our_address=our_address, deadline=deadline)
                ).device
                if twin.is_valid_gateway() and twin.udn and twin.udn == examined.device.udn:
                    controls = replace(
                        examined.device,
                        igd_control_url=twin.igd_control_url,
                        alternative_control_urls=twin.alternative_control_urls,
                        event_urls=twin.event_urls,
                        igd_our_addr=twin.igd_our_addr,
                    )
                    return replace(examined, device=controls)
        return examined

    def _rank(self, examined: Examined, url: HttpUrl) -> Rank:
        if not examined.is_usable:
            return Rank.USELESS
        if not examined.device.is_valid_gateway():
            return Rank.LAST_RESORT
        return Rank.CERTAIN if self._any_is_certain or self._is_next_hop(url.host) else Rank.LIKELY

    def _is_next_hop(self, host: str) -> bool:
        return any(same_address(host, hop) for hop in self._next_hops)


def _may_get_better(examined: Examined) -> bool:
    """Tell whether a description may be had later that could not be had now: the device was busy, not wrong."""
    if isinstance(examined.failure, InvalidResponseError):
        status = examined.failure.status or 0
        return status >= 500 or (examined.device.igd_status is IGDStatus.HTTP_EMPTY and status < 300)
    return examined.failure is not None


def _is_link_local(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return isinstance(address, IPv6Address) and address.is_link_local
