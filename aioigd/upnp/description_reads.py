"""What became of the replies to a search: reads the descriptions, and says which gateway each host is.

Each description is read in a task, so that a device which hangs or lies never holds up the others. What may be read is
decided in :mod:`.reading_plan`; which gateway is *certain*, and so ends a search, in :func:`rank`.

A host may have several descriptions of a gateway: versions 1 and 2 under one UDN, or a twin for TR-064 that wants a
password. The best of them counts, whichever answers first:

- What is read is certain at once, unless a reply has announced another description of the same device, or of another
  gateway at that host. Then the other one gets twice the time that the first took, and a little more.
- One that refuses to talk is the last resort: others of its host get two seconds to be announced, and are then read,
  however long that takes.
- On this machine's loopback address several gateways may be emulated at once: then none of them is certain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from typing import Final

from ..core.backend import NEVER, Candidate, Rank, SearchScope
from ..errors import DeadlineError, IGDError, InvalidResponseError, NoRouteError, TransportError
from ..models import Device
from ..net.interfaces import Interface, default_next_hops
from ..results import IGDStatus
from ..text import get_logger
from .net.http import HttpClient
from .net.ssdp_search import SearchReply
from .probe import Allowance, ProbeResult, probe
from .reading_plan import KnownPaths, ReadingPlan, Standing, names_gateway
from .wire.description import udn_key
from .wire.url import HttpUrl, parse_location, same_address

__all__ = ["DescriptionReads", "rank"]

log = get_logger("aioigd.discovery")

_AT_ONCE: Final = 4
"""Confirmed descriptions of one host that are read at the same time; those that name a gateway come first."""
_READ_TIME: Final = 3.5
"""Seconds for one description; some routers take three."""
_REREAD_PAUSE: Final = 0.15
"""Seconds before a description is read again that could not be read; doubles each time."""
_LAST_CALL: Final = 0.05
"""The part of a search, at its end, in which no description is read any more: what hangs is reported, too."""
_TWIN_TIME: Final = 1.0
"""Seconds for the description of a router that was found over IPv6 at its IPv4 address."""
SILENT_GRACE: Final = 0.9
"""Seconds from the start of a search in which the router of the default route may still answer: MX allows it 1."""
_LATE: Final = 0.75
"""Seconds from the start after which no room is kept for replies that name a gateway in the router's name."""
_PENDING_GRACE: Final = 1.5
"""Seconds from the start while the router of the default route has answered and its description is being read."""
_REFUSED_GRACE: Final = 2.0
"""Seconds from the start in which a host that refuses to talk may announce another description."""
_BETTER_GRACE: Final = 0.3
"""Seconds that an announced description gets to turn out better than one of its host, beside the time that one took."""
_CLOCK_SLACK: Final = 0.05
"""Seconds that a search waits for what is due at the end of such a time."""
_MAX_LATE: Final = 4
"""Replies in the router's name that wait until no others have to be expected."""
_MAX_HOSTS: Final = 256
"""Senders of which is noted at which of our addresses their replies arrived."""
_NEWEST: Final = 2
"""The version of WANIPConnection of which there is no newer one."""


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
    """One description URL: who has announced it, and how far reading it has come."""

    def __init__(self, url: HttpUrl, our_address: str, standing: Standing) -> None:
        self.url = url
        self.our_address = our_address
        self.standing = standing
        self.target = ""
        self.server = ""
        self.is_named = False
        self.udns: set[str] = set()
        """What replies and description say of which device it is."""
        self.task: asyncio.Task[None] | None = None
        self.is_waiting = False
        self.is_done = False
        self.was_reported = False
        self.was_too_long = False
        """Whether it was had, and not parsed for want of room."""
        self.began = 0.0
        self.hold_until = NEVER
        """Until when a better one of the same host may come, on the loop's clock."""
        self.probed: ProbeResult | None = None

    @property
    def is_pending(self) -> bool:
        """Whether it is being read, or will be."""
        return self.task is not None or self.is_waiting

    @property
    def gateway(self) -> ProbeResult | None:
        """What was read, if ports can be mapped there, if only as a last resort."""
        return self.probed if self.probed is not None and self.probed.is_usable else None


class _Spending(Allowance):
    """What reading a description may cost, by the plan of the search."""

    def __init__(self, plan: ReadingPlan, description: _Description) -> None:
        self._plan = plan
        self._description = description

    def take(self, size: int) -> bool:
        has_room = self._plan.take(size, self._description.standing)
        self._description.was_too_long = not has_room
        return has_room

    def may_ask(self) -> bool:
        return self._plan.may_ask(self._description.standing)


class DescriptionReads:
    """The descriptions that one search reads. Owns their tasks.

    ``report`` takes each device that was read, again where more becomes known of it, and None once no more can come.
    ``known``: paths that have led to gateways before. ``source_address_for`` returns the address of this machine from
    which the system would send to a host, or raises TransportError.
    """

    def __init__(
        self,
        http: HttpClient,
        scope: SearchScope,
        until: float,
        report: Callable[[Candidate | None], None],
        known: KnownPaths,
        source_address_for: Callable[[str], str],
    ) -> None:
        self._source_address_for = source_address_for
        self._http = http
        self._scope = scope
        self._until = until
        self._report_candidate = report
        self._known = known
        self._loop = asyncio.get_running_loop()
        self._next_hops: Collection[str] = ()
        self._any_is_trusted = False
        self._places: dict[str, Interface] = {}
        self._descriptions: dict[HttpUrl, _Description] = {}
        self._late: dict[HttpUrl, SearchReply] = {}
        self._timers: list[asyncio.TimerHandle] = []
        self._is_stopped = False
        self._seen_at: dict[str, set[str]] = {}
        self._reported: dict[str, tuple[HttpUrl, Rank, str]] = {}
        self._plan = ReadingPlan(self._is_own)
        self.failures: list[ProbeResult] = []
        self.start(())

    def start(
        self, places: Iterable[Interface], next_hops: Collection[str] = (), *, any_is_trusted: bool = False
    ) -> None:
        """Begin now to count the time.

        ``places``: where is searched from. ``next_hops``: the routers of the best default route. ``any_is_trusted``:
        whoever answers is one of whom the caller wants to hear.
        """
        self._places = {place.address: place for place in places}
        self._next_hops = next_hops
        self._any_is_trusted = any_is_trusted
        self._started = self._loop.time()
        self._last_call = self._until - _LAST_CALL * (self._until - self._started)

    def stop(self) -> list[asyncio.Task[None]]:
        """Cancel all tasks and return them."""
        self._is_stopped = True
        for timer in self._timers:
            timer.cancel()
        tasks = [one.task for one in self._descriptions.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        return tasks

    def may_report_until(self) -> float:
        """Return until when a gateway that is certain may still be reported, on the loop's clock."""
        at_router = [one for one in self._descriptions.values() if self._is_next_hop(one.url.host)]
        until = NEVER
        if any(one.is_pending for one in at_router):
            until = self._until if self._scope.single is not None else self._started + _PENDING_GRACE
        elif self._next_hops and not any(one.standing is Standing.CONFIRMED for one in at_router):
            until = self._started + SILENT_GRACE
        usable = [one for one in self._descriptions.values() if one.gateway is not None]
        hopeful = [one for one in usable if not self._next_hops or one in at_router]
        if hopeful and all(map(_refuses, hopeful)):
            hosts = {one.url.host for one in hopeful}
            is_reading = any(one.is_pending and one.url.host in hosts for one in self._descriptions.values())
            until = max(until, self._until if is_reading else self._started + _REFUSED_GRACE)
        return max([until, *(one.hold_until + _CLOCK_SLACK for one in usable if self._may_be_bettered(one))])

    # Replies

    def on_reply(self, reply: SearchReply) -> None:
        """Read what a reply announces, if that is to be read."""
        try:
            url = self._at_sender(parse_location(reply.announcement.location), reply)
        except ValueError as error:
            log.debug("ignoring %s: %s", reply.sender, error)
            return
        if reply.sender in self._seen_at or len(self._seen_at) < _MAX_HOSTS or self._is_next_hop(reply.sender):
            self._seen_at.setdefault(reply.sender, set()).add(reply.our_address)
        self._follow(url, reply)

    def _at_sender(self, url: HttpUrl, reply: SearchReply) -> HttpUrl:
        """Return a URL at the host that has sent it, whatever host it names.

        Over IPv6 a router may answer from its link-local address, and name the one that is the next hop. That is not
        confirmed either, as little as a sender is.
        """
        if _is_link_local(reply.sender) and self._is_next_hop(url.host) and not _is_link_local(url.host):
            with suppress(TransportError):
                self._source_address_for(url.host)
                return url
        return url.with_host(reply.sender)

    def read_named(self, urls: Sequence[HttpUrl]) -> None:
        """Read the description that the caller has named, at the first of these places where it is."""
        self._any_is_trusted = True
        places = []
        failure: TransportError | None = None
        source = self._scope.source_address
        same_family = [url for url in urls if source is None or (":" in url.host) == (":" in source)]
        if urls and not same_family:
            raise NoRouteError(f"{urls[0].host} cannot be reached from {source}: one is IPv4, the other is IPv6")
        for url in same_family:
            try:
                our_address = source or self._source_address_for(url.host)
            except TransportError as error:
                failure = failure or error
                continue
            places.append(_Description(url, our_address, Standing.CONFIRMED))
        if not places and failure is not None:
            raise failure
        for one in places:
            self._descriptions[one.url] = one
        places[0].task = self._loop.create_task(self._read_first_of(places))

    def _follow(self, url: HttpUrl, reply: SearchReply, *, is_late: bool = False) -> None:
        announcement = reply.announcement
        is_named = names_gateway(announcement.target, announcement.usn) or url in self._known
        standing = self._standing(url, reply, is_named)
        one = self._descriptions.get(url)
        if one is None:
            if not self._plan.admit(url, standing, is_named=is_named, is_late=is_late):
                if standing is Standing.ROUTER and len(self._late) < _MAX_LATE and not is_late:
                    self._wait_until_late(url, reply)
                return
            self._late.pop(url, None)
            one = self._descriptions[url] = _Description(url, self._source_for(url.host, reply.our_address), standing)
            one.target, one.server = announcement.target, announcement.server
            one.is_waiting = True
        elif not one.is_pending:
            is_first_room = one.was_too_long and standing is Standing.CONFIRMED and standing < one.standing
            if (is_first_room or not one.is_done) and self._plan.read_again(url, one.standing):
                one.is_waiting = True
        one.standing = min(one.standing, standing)
        one.is_named = one.is_named or is_named
        one.udns |= {udn_key(announcement.usn)} - {""}
        self._start_waiting(url.host)

    def _standing(self, url: HttpUrl, reply: SearchReply, is_named: bool) -> Standing:
        if self._is_next_hop(url.host) or (self._scope.host is not None and same_address(url.host, self._scope.host)):
            is_confirmed = reply.is_confirmed and url.host == reply.sender
            return Standing.CONFIRMED if is_confirmed or url in self._known else Standing.ROUTER
        return Standing.GATEWAY if is_named else Standing.OTHER

    def _wait_until_late(self, url: HttpUrl, reply: SearchReply) -> None:
        if not self._late:
            self._timers.append(self._loop.call_at(self._started + _LATE, self._follow_late))
        self._late[url] = reply

    def _follow_late(self) -> None:
        for url, reply in list(self._late.items()):
            self._follow(url, reply, is_late=True)
        self._late.clear()

    def _start_waiting(self, host: str) -> None:
        """Begin to read what waits at a host, as far as it may be read at the same time."""
        if self._is_stopped:
            return
        here = [one for one in self._descriptions.values() if one.url.host == host]
        confirmed = sum(one.task is not None for one in here if one.standing is Standing.CONFIRMED)
        for one in sorted((one for one in here if one.is_waiting), key=lambda one: (one.standing, not one.is_named)):
            if one.standing is Standing.CONFIRMED:
                if confirmed >= _AT_ONCE:
                    continue
                confirmed += 1
            one.is_waiting = False
            one.task = self._loop.create_task(self._read(one))

    # The address to ask from

    def _source_for(self, host: str, ours: str) -> str:
        """Return the address of this machine from which a host is asked whose reply came to the address ``ours``.

        The system's choice, so that it is the same each time: several of our addresses may have been answered, and
        which reply comes first is chance.
        """
        is_out_of_scope = _is_link_local(ours) and not _is_link_local(host)
        if self._scope.source_address is not None and not is_out_of_scope:
            return ours
        try:
            usual = self._source_address_for(host)
        except TransportError:
            return ours
        return usual if is_out_of_scope or self._leads_to(host, usual, ours) else ours

    def _leads_to(self, host: str, usual: str, ours: str) -> bool:
        """Return whether a host whose reply came to the address ``ours`` is in the network of the address ``usual``."""
        if usual == host.partition("%")[0]:
            return False  # it is this machine itself
        place = self._places.get(ours)
        return usual in self._seen_at.get(host, ()) or (place is not None and place.is_on_link(usual))

    # Reading

    async def _read(self, one: _Description) -> None:
        pause = _REREAD_PAUSE
        one.began = self._loop.time()
        try:
            while True:
                self._note(one, await self._probe(one, self._loop.time() + _READ_TIME))
                in_time = self._loop.time() + pause < self._last_call
                if one.is_done or not in_time or not self._plan.read_again(one.url, one.standing):
                    return
                await asyncio.sleep(pause)
                pause *= 2
        finally:
            one.task = None
            self._start_waiting(one.url.host)
            self._settle(one.url.host)

    async def _read_first_of(self, places: Sequence[_Description]) -> None:
        """Read the description that was named at each of its places until it is had, and again where it may be."""
        pause = _REREAD_PAUSE
        result: tuple[_Description, ProbeResult] | None = None
        try:
            left = list(places)
            while left:
                for number, one in enumerate(left):
                    now = self._loop.time()
                    one.began = now
                    fair_share = now + max(0.0, self._last_call - now) / (len(left) - number)
                    probed = await self._probe(one, min(fair_share, now + _READ_TIME))
                    one.is_done = not _may_get_better(probed)
                    # Of failures the first is told, or the first answer.
                    is_answer = not isinstance(probed.failure, (TransportError, DeadlineError))
                    if result is None or (is_answer and isinstance(result[1].failure, (TransportError, DeadlineError))):
                        result = one, probed
                    if probed.failure is None:
                        result = one, probed
                        return
                left = [one for one in left if not one.is_done and self._plan.read_again(one.url, one.standing)]
                if self._loop.time() + pause >= self._last_call:
                    return
                await asyncio.sleep(pause)
                pause *= 2
        finally:
            places[0].task = None
            if result is not None:
                self._note(*result)
                self._settle(result[0].url.host)
            self._report_candidate(None)

    async def _probe(self, one: _Description, until: float) -> ProbeResult:
        deadline = min(self._last_call, until)
        probed = await probe(
            self._http,
            one.url,
            our_address=one.our_address,
            deadline=deadline,
            search_target=one.target,
            server=one.server,
            allowance=_Spending(self._plan, one),
        )
        if probed.is_usable and ":" in one.url.host and self._is_next_hop(one.url.host):
            return await self._over_ipv4(probed, one, deadline)
        return probed

    async def _over_ipv4(self, probed: ProbeResult, one: _Description, deadline: float) -> ProbeResult:
        """Return a router that was found over IPv6 with its controls at its IPv4 address, if it has them there.

        Routers in secure mode map only for the address that asks, and a mapping is a matter of IPv4: asked over IPv6
        they refuse all of them (718).
        """
        deadline = min(deadline, self._loop.time() + _TWIN_TIME)
        allowance = _Spending(self._plan, one)
        for hop in default_next_hops():
            with suppress(TransportError):
                source = self._source_address_for(hop)
                there = one.url.with_host(hop)
                twin = (
                    await probe(self._http, there, our_address=source, deadline=deadline, allowance=allowance)
                ).device
                if twin.is_valid_gateway() and _names_same_device(twin, probed.device):
                    controls = replace(
                        probed.device,
                        igd_control_url=twin.igd_control_url,
                        alternative_control_urls=twin.alternative_control_urls,
                        event_urls=twin.event_urls,
                        igd_our_addr=twin.igd_our_addr,
                    )
                    return probed._replace(device=controls)
        return probed

    def _note(self, one: _Description, probed: ProbeResult) -> None:
        """Note what was read, and report what is no gateway."""
        one.is_done = not _may_get_better(probed)
        one.probed = probed
        now = self._loop.time()
        if probed.is_usable:
            self._known.note(one.url, is_at_router=one.standing.is_at_router, is_guess=probed.is_guess)
            one.udns |= {udn_key(probed.device.udn)} - {""}
            one.hold_until = now + _BETTER_GRACE + 2 * (now - one.began)
            if self._may_be_bettered(one):
                self._timers.append(self._loop.call_at(one.hold_until, self._settle, one.url.host))
            return
        if one.is_done and isinstance(probed.failure, InvalidResponseError) and (probed.failure.status or 0) >= 300:
            self._plan.failed(one.url, one.standing)
        if one.was_reported and not one.is_done:
            return
        one.was_reported = True
        self.failures.append(probed)
        log.debug("no gateway: %s (%s)", probed.device, probed.failure)
        self._report_candidate(Candidate(probed.device, Rank.USELESS, _types(probed)))

    # Which gateway a host is

    def _settle(self, host: str) -> None:
        """Report each gateway of a host by its best description, the best gateway first."""
        if self._is_stopped:
            return
        here = [(one, one.gateway) for one in self._descriptions.values() if one.url.host == host]
        read = [(one, probed) for one, probed in here if probed is not None]
        read.sort(key=lambda each: _quality(*each))
        gateways = {_identity(*each): each for each in read}  # the best of each, as that comes last
        best_first = sorted(gateways.values(), key=lambda each: _quality(*each), reverse=True)
        for one, probed in best_first:
            its_rank = rank(probed, is_trusted=self._any_is_trusted or self._is_next_hop(host))
            rivals = [each for each, _ in best_first if each is not one and not _is_last_resort(each)]
            has_rivals = bool(rivals) if self._is_own(host) else one is not best_first[0][0]
            if its_rank is Rank.CERTAIN and (has_rivals or self._may_be_bettered(one)):
                its_rank = Rank.LIKELY
            device = self._from_usual_address(probed.device, host)
            told = one.url, its_rank, device.igd_our_addr
            identity = _identity(one, probed)
            if self._reported.get(identity) != told:
                self._reported[identity] = told
                self._report_candidate(Candidate(device, its_rank, _types(probed), identity))

    def _may_be_bettered(self, one: _Description) -> bool:
        """Return whether a better description of the same host was announced, and may still be read in time."""
        probed = one.gateway
        if probed is None or self._loop.time() >= one.hold_until or probed.quality[:3] >= (True, True, _NEWEST):
            return False
        is_good = probed.quality[:2] == (True, True)
        return any(
            other.is_pending
            and other is not one
            and other.url.host == one.url.host
            and (_are_one(one, other) or other.is_named or not (is_good or self._is_own(one.url.host)))
            for other in self._descriptions.values()
        )

    def _from_usual_address(self, device: Device, host: str) -> Device:
        """Return a gateway with the system's choice of our address, if a reply of it has come there meanwhile."""
        seen_at = self._seen_at.get(host, set())
        is_another = bool(seen_at - {device.igd_our_addr})
        if is_another and self._scope.source_address is None and ":" not in host:
            with suppress(IGDError):
                usual = self._source_address_for(host)
                if usual in seen_at:
                    return replace(device, igd_our_addr=usual)
        return device

    def _is_next_hop(self, host: str) -> bool:
        return any(same_address(host, hop) for hop in self._next_hops)

    def _is_own(self, host: str) -> bool:
        return self._any_is_trusted and host == self._scope.source_address


def _names_same_device(one: Device, other: Device) -> bool:
    udn = udn_key(one.udn)
    return bool(udn) and udn == udn_key(other.udn)


def _identity(one: _Description, probed: ProbeResult) -> str:
    """Return what the descriptions of one device have in common: its UDN, which by itself may be the same elsewhere."""
    udn = udn_key(probed.device.udn)
    return f"{udn} at {one.url.host}" if udn else str(one.url)


def _quality(one: _Description, probed: ProbeResult) -> tuple[bool, bool, int, int, bool, str, int]:
    """Return how good a gateway a description makes; the last parts only make the choice the same each time."""
    return *probed.quality, one.standing is Standing.CONFIRMED, one.url.target, one.url.port


def _are_one(one: _Description, other: _Description) -> bool:
    """Return whether two descriptions are of one device, as far as is known."""
    return not one.udns.isdisjoint(other.udns)


def _is_last_resort(one: _Description) -> bool:
    return one.probed is None or not one.probed.device.is_valid_gateway()


def _refuses(one: _Description) -> bool:
    return one.probed is not None and one.probed.device.igd_status is IGDStatus.INVALID_CONTROL


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


def _is_link_local(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return isinstance(address, IPv6Address) and address.is_link_local
