"""Who is there, and which gateway is certain: sends rounds of M-SEARCH, follows every reply up, and ranks devices.

Each description is read in a task, so that a device which hangs or lies never holds up the others. What may be spent
on a network full of liars is capped here. Which gateway is *certain*, and so ends a search, is decided in
:func:`rank`; the order of trust is that of :class:`~aioigd.core.backend.Rank`.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from types import TracebackType
from typing import Final, Self

from async_timeout import timeout_at

from ..core.backend import NEVER, Candidate, Rank, Search, SearchScope
from ..core.background import may_await_at_exit
from ..errors import DeadlineError, DiscoveryError, IGDError, InvalidResponseError, NoRouteError, TransportError
from ..net.guard import check_destination
from ..net.interfaces import Interface, default_next_hops, interfaces, source_address_for
from ..results import IGDStatus, UPnPResult
from ..text import get_logger
from .net.http import HttpClient
from .net.ssdp_search import SearchReply, SsdpSearch
from .probe import ProbeResult, probe
from .wire import ssdp
from .wire.url import HttpUrl, parse_location, parse_url, same_address

__all__ = ["MAX_DEVICES", "DeviceSearch", "rank"]

log = get_logger("aioigd.discovery")

MAX_DEVICES: Final = 32
"""Descriptions that one search reads; a home has a handful of UPnP devices. The next hop is always read."""
_MAX_PER_SENDER: Final = 4
"""Descriptions read for the replies of one sender."""
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
_SINGLE_TARGETS: Final = (ssdp.LIKELY_TARGETS[0], ssdp.LIKELY_TARGETS[-1], ssdp.ALL_TARGET)
"""What a search by one datagram asks for, one target each time: some routers do not answer all of these."""
_SILENT_GRACE: Final = 0.9
"""Seconds from the start of a search in which the router of the default route may still answer: MX allows it 1."""
_PENDING_GRACE: Final = 1.5
"""The same, while the router of the default route has answered and its description is being read."""


def rank(probed: ProbeResult, *, is_trusted: bool) -> Rank:
    """Return how good a gateway a device would be.

    ``is_trusted``: its description came from the next hop of the default route, or from a network in which nobody else
    can be: the URL that the caller has named, or this machine's loopback address.
    """
    if not probed.is_usable:
        return Rank.USELESS
    if not probed.device.is_valid_gateway():
        return Rank.LAST_RESORT
    return Rank.CERTAIN if is_trusted else Rank.LIKELY


class _Description:
    """One description URL: how often it was read, whether that is over, and the task that reads it."""

    __slots__ = ("is_done", "reads", "task")

    def __init__(self) -> None:
        self.reads = 0
        self.is_done = False
        self.task: asyncio.Task[None] | None = None


class DeviceSearch(Search):
    """One search by SSDP, or the reading of a given description. Owns its sockets and tasks."""

    def __init__(
        self,
        http: HttpClient,
        scope: SearchScope,
        until: float,
        report: Callable[[Candidate | None], None],
    ) -> None:
        self._http = http
        self._scope = scope
        self._until = until
        self._report_candidate = report
        self._loop = asyncio.get_running_loop()
        self._next_hops: Collection[str] = ()
        self._any_is_trusted = False
        self._own_addresses: tuple[str, ...] = ()
        """On loopback, the addresses that are searched from: nobody else can have them."""
        self._descriptions: dict[HttpUrl, _Description] = {}
        self._senders: Counter[str] = Counter()
        self._sender: asyncio.Task[None] | None = None
        self._ssdp: SsdpSearch | None = None
        self._replies = 0
        self._failures: list[ProbeResult] = []
        self._started = self._loop.time()
        self._last_call = until - _LAST_CALL * (until - self._started)

    async def __aenter__(self) -> Self:
        """Open the sockets and send the first round, or begin to read the given description."""
        try:
            if self._scope.location is not None:
                await self._follow_location(self._scope.location)
            else:
                await self._open()
        except GeneratorExit:
            self._stop()
            raise
        except BaseException:
            await asyncio.gather(*self._stop(), return_exceptions=True)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close everything, also when cancelled meanwhile."""
        tasks = self._stop()
        if tasks and may_await_at_exit(kind):
            await asyncio.gather(*tasks, return_exceptions=True)

    def may_report_until(self, rank: Rank) -> float:
        """Return until when the next hop may still be reported, while it is silent or its description is being read."""
        if any(self._is_next_hop(url.host) for url, one in self._descriptions.items() if one.task is not None):
            return self._until if self._scope.single is not None else self._started + _PENDING_GRACE
        if self._next_hops and not any(self._is_next_hop(url.host) for url in self._descriptions):
            return self._started + _SILENT_GRACE
        return NEVER

    def failure(self) -> IGDError:
        """Return why no gateway was found."""
        if self._scope.location is not None and self._failures and self._failures[0].failure is not None:
            return self._failures[0].failure
        if not self._replies:
            return DiscoveryError("no device answered the search for a gateway", UPnPResult.NO_DEVICES)
        devices = ", ".join(
            f"{one.device.friendly_name or one.device.description_url}: {one.device.igd_status.name}"
            for one in self._failures[:5]
        )
        return DiscoveryError(f"no gateway among the devices that answered ({devices})", UPnPResult.NO_GATEWAY)

    # Sending

    async def _open(self) -> None:
        scope = self._scope
        if scope.host is not None:
            check_destination(scope.host, scope.source_address or "")
        places = interfaces(ipv6=scope.ipv6, source_address=scope.source_address)
        if scope.host is not None and scope.single is not None:
            places = _leading_to(scope.host, places)
        self._any_is_trusted = scope.source_address is not None and all(place.is_loopback for place in places)
        if self._any_is_trusted:
            self._own_addresses = tuple(place.address for place in places)
        else:
            self._next_hops = default_next_hops(ipv6=places[0].is_ipv6)
        self._ssdp = SsdpSearch(places, self._on_reply, ttl=scope.ttl, local_port=scope.local_port)
        await self._ssdp.__aenter__()
        self._started = self._loop.time()
        if scope.single is not None:
            self._send(self._ssdp, (_SINGLE_TARGETS[scope.single % len(_SINGLE_TARGETS)],))
        else:
            self._sender = self._loop.create_task(self._send_rounds(self._ssdp))

    def _stop(self) -> list[asyncio.Task[None]]:
        """Close the sockets and cancel the tasks; returns them."""
        if self._ssdp is not None:
            self._ssdp.close()
        tasks = [one.task for one in self._descriptions.values() if one.task is not None]
        if self._sender is not None:
            tasks.append(self._sender)
        for task in tasks:
            task.cancel()
        return tasks

    async def _send_rounds(self, search: SsdpSearch) -> None:
        span = self._until - self._started
        at = self._started - _LEAST_GAP
        for number, part in enumerate(_ROUNDS):
            at = max(at + _LEAST_GAP, self._started + part * span)
            await asyncio.sleep(at - self._loop.time())
            self._send(search, ssdp.LIKELY_TARGETS, is_unicast_round=number % 2 == 1)
            await asyncio.sleep(min(_SECOND_BURST, span / 5))
            self._send(search, (*ssdp.RARE_TARGETS, ssdp.ALL_TARGET) if number else ssdp.RARE_TARGETS)

    def _send(self, search: SsdpSearch, targets: Sequence[str], *, is_unicast_round: bool = False) -> None:
        host = self._scope.host
        if host is not None:
            to_group = ip_address(host).is_multicast
            search.send(targets, () if to_group else (host,), multicast=to_group)
        else:
            # Not in the first round: a burst of more than four delays the answer to all of them (miniupnpd: 20 ms).
            search.send(targets, (*self._next_hops, *self._own_addresses) if is_unicast_round else ())

    # Following up

    async def _follow_location(self, location: str) -> None:
        url = parse_url(location)
        check_destination(url.host)  # before its name is looked up
        try:
            async with timeout_at(self._until):
                addresses = await self._loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise DeadlineError(f"{url.host} was not resolved in time") from error
        except (OSError, UnicodeError) as error:  # the latter for what cannot be put into IDNA
            raise NoRouteError(f"{url.host} cannot be resolved: {error}") from error
        address: Sequence[object] = addresses[0][4]
        zone = f"%{address[3]}" if len(address) > 3 and address[3] else ""
        url = url.with_host(f"{address[0]}{zone}")
        self._replies += 1
        self._any_is_trusted = True  # the caller has named it
        local_address = self._scope.source_address or source_address_for(url.host)
        self._follow(url, local_address, url.host, "", "")

    def _on_reply(self, reply: SearchReply) -> None:
        self._replies += 1
        announcement = reply.announcement
        try:
            url = parse_location(announcement.location)
        except ValueError as error:
            log.debug("ignoring %s: %s", reply.sender, error)
            return
        local_address = reply.our_address
        # Only the host that answered is asked, or the router of the default route if that is what was named.
        if not self._is_next_hop(url.host) or _is_link_local(url.host):
            url = url.with_host(reply.sender)
        elif _is_link_local(local_address):
            try:
                local_address = source_address_for(url.host)
            except TransportError:
                url = url.with_host(reply.sender)
        self._follow(url, local_address, reply.sender, announcement.target, announcement.server)

    def _follow(self, url: HttpUrl, local_address: str, sender: str, target: str, server: str) -> None:
        """Read a description, unless it is being read, was read, or has failed often enough."""
        description = self._descriptions.get(url)
        if description is None:
            if not self._has_room(sender):
                return
            self._senders[sender] += 1
            description = self._descriptions[url] = _Description()
        if description.task is None and not description.is_done and description.reads < _MAX_READS:
            description.reads += 1
            description.task = self._loop.create_task(self._read(description, url, local_address, target, server))

    def _has_room(self, sender: str) -> bool:
        """Return whether one more description may be read: a sender of many replies uses up its own share only."""
        # On loopback everything that is emulated may live on the one address that is searched from.
        is_own = self._any_is_trusted and sender == self._scope.source_address
        if self._senders[sender] >= _MAX_PER_SENDER and not is_own:
            return False
        return len(self._descriptions) < MAX_DEVICES or self._is_next_hop(sender)

    async def _read(
        self, description: _Description, url: HttpUrl, local_address: str, target: str, server: str
    ) -> None:
        pause = _REREAD_PAUSE
        try:
            while True:
                probed = await self._probe(url, local_address, target, server)
                self._report(description, url, probed)
                if description.is_done or not self._may_read_again(description, url, pause):
                    return
                description.reads += 1  # before the pause, so that others know that the room is taken
                await asyncio.sleep(pause)
                pause *= 2
        finally:
            description.task = None
            if self._ssdp is None:
                self._report_candidate(None)  # the one that was named: nothing more can come

    def _may_read_again(self, description: _Description, url: HttpUrl, pause: float) -> bool:
        rereads = sum(one.reads for one in self._descriptions.values()) - len(self._descriptions)
        in_time = self._loop.time() + pause < self._last_call
        has_room = rereads < _MAX_REREADS or self._is_next_hop(url.host)
        return in_time and description.reads < _MAX_READS and has_room

    async def _probe(self, url: HttpUrl, local_address: str, target: str, server: str) -> ProbeResult:
        deadline = min(self._last_call, self._loop.time() + _READ_TIME)
        probed = await probe(
            self._http, url, our_address=local_address, deadline=deadline, search_target=target, server=server
        )
        if probed.is_usable and ":" in url.host and self._is_next_hop(url.host):
            return await self._over_ipv4(probed, url, deadline)
        return probed

    def _report(self, description: _Description, url: HttpUrl, probed: ProbeResult) -> None:
        description.is_done = not _may_get_better(probed)
        if not description.is_done and description.reads > 1:
            return  # it was reported after the first time
        its_rank = rank(probed, is_trusted=self._any_is_trusted or self._is_next_hop(url.host))
        if its_rank is Rank.USELESS:
            self._failures.append(probed)
            log.debug("no gateway: %s (%s)", probed.device, probed.failure)
        self._report_candidate(Candidate(probed.device, its_rank, _types(probed)))

    async def _over_ipv4(self, probed: ProbeResult, url: HttpUrl, deadline: float) -> ProbeResult:
        """Return a router that was found over IPv6 with its controls at its IPv4 address, if it has them there.

        Routers in secure mode map only for the address that asks, and a mapping is a matter of IPv4: asked over IPv6
        they refuse all of them (718).
        """
        deadline = min(deadline, self._loop.time() + _TWIN_TIME)
        for hop in default_next_hops():
            with suppress(TransportError):
                local_address = source_address_for(hop)
                twin = (
                    await probe(self._http, url.with_host(hop), our_address=local_address, deadline=deadline)
                ).device
                if twin.is_valid_gateway() and twin.udn and twin.udn == probed.device.udn:
                    controls = replace(
                        probed.device,
                        igd_control_url=twin.igd_control_url,
                        alternative_control_urls=twin.alternative_control_urls,
                        event_urls=twin.event_urls,
                        igd_our_addr=twin.igd_our_addr,
                    )
                    return probed._replace(device=controls)
        return probed

    def _is_next_hop(self, host: str) -> bool:
        return any(same_address(host, hop) for hop in self._next_hops)


def _types(probed: ProbeResult) -> tuple[str, ...]:
    if probed.description is None:
        return ()
    return probed.description.device_type, *(service.service_type for service in probed.description.services)


def _may_get_better(probed: ProbeResult) -> bool:
    """Return whether a description may be had later that could not be had now: the device was busy, not wrong."""
    if isinstance(probed.failure, InvalidResponseError):
        status = probed.failure.status or 0
        return status >= 500 or (probed.device.igd_status is IGDStatus.HTTP_EMPTY and status < 300)
    return probed.failure is not None


def _leading_to(host: str, places: list[Interface]) -> list[Interface]:
    """Return the interface whose address packets to ``host`` would have.

    All where only the interface tells where the host is: for a link-local address without a zone.
    """
    try:
        address = source_address_for(host)
    except TransportError:
        return places
    return [place for place in places if place.address == address] or places[:1]


def _is_link_local(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return isinstance(address, IPv6Address) and address.is_link_local
