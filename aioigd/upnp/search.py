"""Who is there: sends rounds of M-SEARCH, and passes every reply on to who reads the descriptions.

What is read of a network full of liars, and which gateway is *certain*, and so ends a search, is decided in
:mod:`.reading_plan` and :mod:`.description_reads`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Self

from async_timeout import timeout_at

from ..core.backend import Candidate, Rank, Search, SearchScope
from ..core.background import may_await_at_exit
from ..errors import DeadlineError, DiscoveryError, IGDError, TransportError
from ..net.guard import check_destination
from ..net.interfaces import Interface, default_next_hops, interfaces, source_address_for
from ..net.names import addresses_of
from ..results import UPnPResult
from .description_reads import DescriptionReads, rank
from .net.http import HttpClient
from .net.ssdp_search import SearchReply, SsdpSearch
from .reading_plan import MAX_DEVICES, KnownPaths
from .wire import ssdp
from .wire.url import parse_url

__all__ = ["MAX_DEVICES", "DeviceSearch", "rank"]

_SECOND_BURST: Final = 0.1
"""Seconds after which the rarer targets are searched for: asked at once, routers answer all of them late."""
_LEAST_GAP: Final = 0.2
"""Seconds between two rounds at least: a router that is flooded with searches answers none of them in time."""
_ROUNDS: Final = (0.0, 0.06, 0.12, 0.2, 0.32, 0.46, 0.62, 0.8)
"""When to search, as parts of the time for it. One round finds a gateway through 30 % loss each way in half of
all tries, eight in 99 of 100."""
_SINGLE_TARGETS: Final = (ssdp.LIKELY_TARGETS[0], ssdp.LIKELY_TARGETS[-1], ssdp.ALL_TARGET)
"""What a search by one datagram asks for, one target each time: some routers do not answer all of these."""


class DeviceSearch(Search):
    """One search by SSDP, or the reading of a given description. Owns its sockets and tasks."""

    def __init__(
        self,
        http: HttpClient,
        scope: SearchScope,
        until: float,
        report: Callable[[Candidate | None], None],
        known: KnownPaths | None = None,
    ) -> None:
        self._scope = scope
        self._until = until
        self._reads = DescriptionReads(http, scope, until, report, KnownPaths() if known is None else known)
        self._loop = asyncio.get_running_loop()
        self._next_hops: Collection[str] = ()
        self._own_addresses: tuple[str, ...] = ()
        """On loopback, the addresses that are searched from: nobody else can have them."""
        self._sender: asyncio.Task[None] | None = None
        self._ssdp: SsdpSearch | None = None
        self._replies = 0
        self._started = self._loop.time()

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
        return self._reads.may_report_until()

    def failure(self) -> IGDError:
        """Return why no gateway was found."""
        failures = self._reads.failures
        if self._scope.location is not None and failures and failures[0].failure is not None:
            return failures[0].failure
        if not self._replies:
            return DiscoveryError("no device answered the search for a gateway", UPnPResult.NO_DEVICES)
        devices = ", ".join(
            f"{one.device.friendly_name or one.device.description_url}: {one.device.igd_status.name}"
            for one in failures[:5]
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
        any_is_trusted = scope.source_address is not None and all(place.is_loopback for place in places)
        if any_is_trusted:
            self._own_addresses = tuple(place.address for place in places)
        else:
            self._next_hops = default_next_hops(ipv6=places[0].is_ipv6)
        self._ssdp = SsdpSearch(places, self._on_reply, ttl=scope.ttl, local_port=scope.local_port)
        await self._ssdp.__aenter__()
        self._started = self._loop.time()
        self._reads.start(places, self._next_hops, any_is_trusted=any_is_trusted)
        if scope.single is not None:
            self._send(self._ssdp, (_SINGLE_TARGETS[scope.single % len(_SINGLE_TARGETS)],))
        else:
            self._sender = self._loop.create_task(self._send_rounds(self._ssdp))

    def _stop(self) -> list[asyncio.Task[None]]:
        """Close the sockets and cancel the tasks; returns them."""
        if self._ssdp is not None:
            self._ssdp.close()
        tasks = self._reads.stop()
        if self._sender is not None:
            self._sender.cancel()
            tasks.append(self._sender)
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
                addresses = await addresses_of(url.host, ipv6=self._scope.ipv6)
        except TimeoutError as error:
            raise DeadlineError(f"{url.host} was not resolved in time") from error
        self._replies += 1
        self._reads.read_named([url.with_host(address) for address in addresses])

    def _on_reply(self, reply: SearchReply) -> None:
        self._replies += 1
        self._reads.on_reply(reply)


def _leading_to(host: str, places: list[Interface]) -> list[Interface]:
    """Return the interface whose address packets to ``host`` would have.

    All where only the interface tells where the host is: for a link-local address without a zone.
    """
    try:
        address = source_address_for(host)
    except TransportError:
        return places
    return [place for place in places if place.address == address] or places[:1]
