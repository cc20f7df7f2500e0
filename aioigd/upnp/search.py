"""Who is there: sends rounds of M-SEARCH, and passes every reply on to who reads the descriptions.

What is read of a network full of liars, and which gateway is *certain*, and so ends a search, is decided in
:mod:`.reading_plan` and :mod:`.description_reads`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from async_timeout import timeout_at

from ..core.backend import Candidate, Rank, Search, SearchScope
from ..core.background import may_await_at_exit
from ..errors import DeadlineError, DiscoveryError, IGDError, NoRouteError
from ..net.guard import check_destination
from ..net.interfaces import (
    Interface,
    default_next_hops,
    interfaces,
    leading_to,
    source_address_for,
    with_default_route,
)
from ..net.names import addresses_of
from ..results import UPnPResult
from .description_reads import SILENT_GRACE, DescriptionReads, rank
from .net.http import HttpClient
from .net.ssdp_search import Ask, SearchReply, SearchSockets, SsdpSearch
from .reading_plan import MAX_DEVICES, KnownPaths
from .search_schedule import SINGLE_TARGETS, Budget, Burst, Way, schedule
from .wire.url import parse_url, same_address

__all__ = ["MAX_DEVICES", "DeviceSearch", "rank"]


class DeviceSearch(Search):
    """One search by SSDP, or the reading of a given description. Owns its sockets and tasks."""

    def __init__(
        self,
        http: HttpClient,
        scope: SearchScope,
        until: float,
        report: Callable[[Candidate | None], None],
        *,
        sockets: SearchSockets | None = None,
        budget: Budget | None = None,
        known: KnownPaths | None = None,
    ) -> None:
        self._sockets = sockets
        self._budget = budget or Budget()
        self._scope = scope
        self._until = until
        self._reads = DescriptionReads(
            http, scope, until, report, KnownPaths() if known is None else known, source_address_for
        )
        self._loop = asyncio.get_running_loop()
        self._next_hops: Collection[str] = ()
        self._only_host: str | None = None
        """The router that the program has named: nobody else counts."""
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

    def awaited_until(self) -> float:
        """Return until when a gateway that answers at all has answered, or its description has been read."""
        return max(self.may_report_until(Rank.CERTAIN), self._started + SILENT_GRACE)

    def failure(self) -> IGDError:
        """Return why no gateway was found."""
        failures = self._reads.failures
        if self._scope.location is not None and failures and failures[0].failure is not None:
            return failures[0].failure
        if self._ssdp is not None and self._ssdp.port_problem:
            return NoRouteError(f"no gateway was found, and not all networks were searched: {self._ssdp.port_problem}")
        if not self._replies:
            where = f" at {self._scope.host}" if self._scope.host else ""
            return DiscoveryError(f"no device answered the search for a gateway{where}", UPnPResult.NO_DEVICES)
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
        all_places = places
        any_is_trusted = scope.source_address is not None and all(place.is_loopback for place in places)
        if any_is_trusted:
            self._own_addresses = tuple(place.address for place in places)
        else:
            self._next_hops = default_next_hops(ipv6=places[0].is_ipv6)
        if scope.host is None:
            asks = [Ask(place.address, place) for place in places] if any_is_trusted else self._hop_asks(places)
        elif ip_address(scope.host.partition("%")[0]).is_multicast:
            asks = []
        else:
            asks = [Ask(scope.host, place) for place in leading_to(scope.host, places)]
            places = []
            self._only_host = scope.host
            self._next_hops = (scope.host,)
        self._ssdp = SsdpSearch(
            places,
            self._on_reply,
            ttl=scope.ttl,
            local_port=scope.local_port,
            asks=asks,
            trusted=self._next_hops,
            sockets=self._sockets,
        )
        await self._ssdp.__aenter__()
        self._started = self._loop.time()
        self._reads.start(all_places, self._next_hops, any_is_trusted=any_is_trusted)
        if scope.single is not None:
            for ask in asks:
                self._budget.take(ask.interface, 1, self._started, is_first=True)
                self._ssdp.ask((SINGLE_TARGETS[scope.single % len(SINGLE_TARGETS)],), ask)
        else:
            self._sender = self._loop.create_task(self._send_bursts(self._ssdp, places, asks))

    def _hop_asks(self, places: Sequence[Interface]) -> list[Ask]:
        """Return the next hops with the interface that leads there, if the search goes out there."""
        found = [Ask(hop, place) for hop in sorted(self._next_hops) for place in leading_to(hop, places)]
        if self._scope.source_address is None:
            return found
        return [ask for ask in found if ask.interface.is_on_link(ask.host) or ask.interface.is_single_address]

    def _stop(self) -> list[asyncio.Task[None]]:
        """Close the sockets and cancel the tasks; returns them."""
        if self._ssdp is not None:
            self._ssdp.close()
        tasks = self._reads.stop()
        if self._sender is not None:
            self._sender.cancel()
            tasks.append(self._sender)
        return tasks

    async def _send_bursts(self, search: SsdpSearch, places: Sequence[Interface], asks: Sequence[Ask]) -> None:
        full_budget: frozenset[Interface] | None = None
        for burst in schedule(self._until - self._started):
            await asyncio.sleep(self._started + burst.at - self._loop.time())
            if burst.at and full_budget is None:  # not before the first one: it takes a while to find out
                full_budget = self._with_full_budget(places, asks)
            for place in places or [ask.interface for ask in asks]:
                is_full = full_budget is not None and place in full_budget
                if (is_full or burst.way is Way.EVERY_GROUP) and self._may_send(burst, place, is_full=is_full):
                    self._send_burst(search, burst, place, [ask for ask in asks if ask.interface == place])

    def _with_full_budget(self, places: Sequence[Interface], asks: Sequence[Ask]) -> frozenset[Interface]:
        named = places if self._scope.source_address is not None else with_default_route(places)
        return frozenset(named) | {ask.interface for ask in asks}

    def _may_send(self, burst: Burst, place: Interface, *, is_full: bool) -> bool:
        return self._budget.take(
            place, len(burst.targets), self._loop.time(), is_full=is_full, is_first=burst.at == 0.0
        )

    def _send_burst(self, search: SsdpSearch, burst: Burst, place: Interface, asks: Sequence[Ask]) -> None:
        """Send a burst in one network: to its group, or to the hosts that are asked there, which share it."""
        if asks and (burst.way is Way.HOST or place not in search.interfaces):
            for number, target in enumerate(burst.targets):
                search.ask((target,), asks[number % len(asks)])
        else:
            search.send(burst.targets, place, site_scope=burst.way is Way.SITE_GROUP)

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
        if self._only_host is not None and not same_address(reply.sender, self._only_host):
            return
        self._replies += 1
        self._reads.on_reply(reply)
