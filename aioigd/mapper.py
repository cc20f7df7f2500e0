"""What a program can ask for: the façade, which owns everything below it and closes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import cached_property, partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

# First, as it loads aiohttp: see __init__.py.
from .upnp.driver import UpnpDriver, check_location

# isort: split
from .arguments import (
    check_device_filter,
    check_flag,
    check_gateway,
    check_host,
    check_key,
    check_port,
    check_protocols,
    check_request,
    check_seconds,
    check_secret,
    check_source_address,
    check_ttl,
)
from .core import background
from .core.backend import Backend, Candidate, Driver, Hint, Listener, Search, SearchScope
from .core.background import BackgroundTask, carry_through, join, may_await_at_exit
from .core.calls import CallQueue, SharedCall
from .core.dispatcher import Dispatcher
from .core.finder import Finder
from .core.gateway_cache import GatewayCache
from .errors import UsageError
from .gateway import Gateway
from .models import Device, PortMapping, Proto
from .net.interfaces import source_address_for
from .results import ProtocolName
from .text import printable, shown

if TYPE_CHECKING:
    from .leases.lease import PendingLease
    from .leases.manager import LeaseManager
    from .leases.request import OnConflict, PortLike

__all__ = ["PortMapper"]

_SETTLE_LIMIT: Final = 24.0
"""Seconds for the calls that are under way, for their undo, and for closing sockets."""
CLOSE_LIMIT: Final = 34.0 + _SETTLE_LIMIT
"""Seconds for closing: those of the leases, and those of the calls that are under way."""


class PortMapper:
    """Maps ports on the router in front of this machine; the asyncio counterpart of Godot's ``UPNP``.

    ``source_address``: the local IP address to search from, and so the interface; all of them if None. ``location``:
    the URL of a device description (http), which is read instead of searching; of a name in it all addresses are
    tried, those of IPv4 first unless ``ipv6``. ``timeout``: seconds for one call's own work, ``discovery_timeout``:
    seconds for the search within it, each more than 0 and at most 3600. ``ttl``: hops that the search may travel, 0
    to 255. ``local_port``: the local UDP port to search from, 0 for any; all searches of a mapper share it, and where
    another program or mapper has it, a search raises NoRouteError. ``ipv6``: search over IPv6 instead of IPv4 (UDA
    1.1 annex A).

    ``protocols``: those by which ports may be mapped, in the order of preference. All are looked for in one search,
    those behind UPnP 50 ms later; a preferred one that is silent is waited for 0.9 s at most. What a gateway refuses by
    one it is asked for by the next that it speaks. ``("pcp", "nat-pmp", "upnp")`` is the fast order: the first mapping
    after one round trip; ``("pcp", "nat-pmp")`` speaks no HTTP and reads no XML. ``gateway``: the IP address of the
    only router to use, for instance behind a VPN without a next hop; with a port (``"10.2.0.1:5351"``,
    ``"[fe80::1%eth0]:5351"``) that is where PCP and NAT-PMP are asked; UPnP is asked at port 1900 by a search by
    unicast. At an IPv6 address there are pinholes only. Not with ``location``, which is UPnP only. ``pcp_secret``: from
    which the nonces of PCP are derived (RFC 6887 section 11.2), so that a program which is started again has its own
    mappings again; by default from the machine's id and the user, and where there is no machine id at random for each
    process. Anything else raises IGDError, which is also a ValueError.

    Use it with ``async with``, or call :meth:`close` in the end. It belongs to the event loop in which it is first
    used; any number of tasks may use it at once. Closing it deletes no mapping.
    """

    def __init__(
        self,
        *,
        source_address: str | None = None,
        location: str | None = None,
        timeout: float = 10.0,
        discovery_timeout: float = 5.0,
        ttl: int = 2,
        local_port: int = 0,
        ipv6: bool = False,
        protocols: Sequence[ProtocolName] = ("upnp", "pcp", "nat-pmp"),
        gateway: str | IPv4Address | IPv6Address | None = None,
        pcp_secret: bytes | None = None,
    ) -> None:
        host, port = check_gateway(gateway)
        scope = SearchScope(
            source_address=check_source_address(source_address),
            location=check_location(location),
            ttl=check_ttl(ttl),
            local_port=check_port(local_port, "local_port", lowest=0),
            ipv6=check_flag(ipv6, "ipv6"),
            host=host,
            port=port,
        )
        names = check_protocols(protocols)
        secret = check_secret(pcp_secret)
        if host is not None:
            scope = _scope_of_host(scope, host)
        if scope.location is not None:
            if "upnp" not in names:
                raise UsageError(f"a location is read by UPnP, which is not in protocols: {shown(protocols)}")
            names = ("upnp",)
        seconds = check_seconds(timeout, "timeout")
        search_seconds = min(check_seconds(discovery_timeout, "discovery_timeout"), seconds)
        self._timeout = seconds
        self._drivers: Sequence[Driver] = [
            UpnpDriver(scope) if name == "upnp" else _PcpDriverWhenNeeded(name, scope, secret) for name in names
        ]
        if isinstance(self._drivers[0], _PcpDriverWhenNeeded):
            self._drivers[0].load()  # the first call needs it, and is not to wait for that
        self._queue = CallQueue()
        self._finder = Finder(self._drivers, scope)
        self._cache = GatewayCache(self._drivers, self._finder, self._queue, discovery_timeout=search_seconds)
        self._dispatcher = Dispatcher(self._queue, self._cache, seconds)
        self._leases: LeaseManager | None = None
        self._gateway: tuple[Backend, Gateway] | None = None
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "closed" if self._queue.is_closed else f"{len(self._queue)} calls under way"
        return printable(f"<PortMapper {state}, gateway {self._cache.last!r}>")

    @property
    def devices(self) -> list[Device]:
        """The devices found by the last search, a plain list.

        What a program appends to it or removes from it counts from the next call on; assigning a list replaces it.
        """
        return self._cache.devices

    @devices.setter
    def devices(self, devices: list[Device]) -> None:
        self._cache.devices = devices

    async def __aenter__(self) -> Self:
        self._queue.check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        closing = self._start_closing()
        if closing is not None and may_await_at_exit(kind):
            await join(closing)

    async def close(self) -> None:
        """Close everything that is open: leases end, calls under way are cancelled, and what they had sent is settled.

        Mappings that no lease holds stay: who wants them gone deletes them. May be called more than once. Cancelled,
        this ends at once, and closing goes on in the background: what leases hold is deleted within 30 seconds, and a
        gateway that has deleted nothing for 5 is given up. Once the event loop of the mapper is closed, this frees what
        is left, and deletes nothing.
        """
        closing = self._start_closing()
        if closing is not None:
            await join(closing)

    async def discover(
        self, timeout: float = 2.0, ttl: int = 2, device_filter: str = "InternetGatewayDevice"
    ) -> list[Device]:
        """Search for devices for the whole of ``timeout``, and return all that answered.

        ``timeout``: seconds, more than 0 and at most 3600. ``ttl``: hops that the search may travel, 0 to 255.
        ``device_filter``: only devices with this text in one of their device or service types; all if empty. The
        list, empty where nobody answers, becomes :attr:`devices`; likely gateways come first.

        Raises IGDError: INVALID_ARGS for other arguments, SOCKET_ERROR where nothing can be sent.
        """
        self._queue.check_open()
        seconds = check_seconds(timeout, "timeout")
        hops = check_ttl(ttl)
        wanted = check_device_filter(device_filter)
        found = await self._queue.submit(
            "discover",
            (seconds, hops, wanted),
            lambda _: self._finder.discover(seconds, hops, wanted),
            seconds,
        ).wait()
        return self._cache.found(found)

    async def iter_devices(
        self,
        timeout: float = 2.0,
        ttl: int = 2,
        device_filter: str = "InternetGatewayDevice",
        *,
        host: str | None = None,
    ) -> AsyncGenerator[Device, None]:
        """Yield devices as they answer a search: ``async for device in mapper.iter_devices():``.

        ``timeout``, ``ttl`` and ``device_filter`` are those of :meth:`discover`. ``host``: the only IP address to
        search at, for instance the router's (by unicast, UDA 1.1 section 1.3.2), or 239.255.255.250 for the multicast
        group alone; by default the group and the router of the default route. A device whose description could not be
        read at first may come twice; the later one counts. :attr:`devices` stays as it is. The search ends when the
        iteration does; who leaves it early should close it (:func:`contextlib.aclosing`).

        Raises IGDError: INVALID_ARGS for other arguments, SOCKET_ERROR where nothing can be sent.
        """
        self._queue.check_open()
        seconds = check_seconds(timeout, "timeout")
        hops = check_ttl(ttl)
        search = self._finder.iter_devices(seconds, hops, check_device_filter(device_filter), check_host(host))
        async with aclosing(search):
            async for device in search:
                yield device

    async def get_gateway(self) -> Gateway:
        """Return the gateway: the one in mind, else the first valid of :attr:`devices`, else the first one found.

        Calls that come while a search is under way share it. A search ends as soon as a gateway is certain.

        Raises IGDError: NO_DEVICES where nobody answers within ``discovery_timeout``, NO_GATEWAY where nobody who
        does can map ports, SOCKET_ERROR where nothing can be sent.
        """
        self._queue.check_open()
        backend = await self._cache.find()
        if self._gateway is None or self._gateway[0] is not backend:
            dispatcher = Dispatcher(self._queue, self._cache, self._timeout, fixed=backend)
            self._gateway = backend, Gateway(backend, dispatcher)
        return self._gateway[1]

    async def add_port_mapping(
        self,
        port: int,
        internal_port: int = 0,
        desc: str = "",
        proto: Proto = "UDP",
        duration: int = 0,
        *,
        internal_client: str | IPv4Address | None = None,
        remote_host: str | IPv4Address = "",
        verify: bool = False,
        overwrite: bool = True,
    ) -> PortMapping:
        """Forward an external port of the gateway to this machine (AddPortMapping, WANIPConnection:2 section 2.5.16).

        ``port``: the external port, 1 to 65535. ``internal_port``: the port here, 0 for the same number. ``desc``:
        what the router's pages show for it, at most 1024 characters, no control characters. ``proto``: ``"TCP"``
        or ``"UDP"``, in any case. ``duration``: the lease in seconds, 0 (no limit) to 4294967295.
        ``internal_client``: the IPv4 address to forward to, if not this machine's. ``remote_host``: the only IPv4
        address on the internet whose packets are forwarded, "" for all. ``verify``: read the mapping back; see below.
        ``overwrite``: replace a mapping that exists for this port and protocol; if false, do as
        :meth:`Gateway.add_port_mapping` does.

        Where the gateway refuses a lease or a description the call tries again without, and returns what was granted.
        With ``verify`` it returns what the gateway holds, and fails where the gateway says for two seconds that it
        holds nothing, or the mapping of another host, or says that it holds this one switched off. Where it cannot
        tell, or not in time, what was granted is granted. What was deleted to make room is put back where that was in
        vain; if the gateway refuses to, the error names it. Identical calls that are made while one is under way share
        it; different ones for the same port and protocol run in the order of the calls.

        By PCP (MAP, RFC 6887 section 11) and NAT-PMP (RFC 6886 section 3.3) it is exactly this port, too, or
        CONFLICT_WITH_OTHER_MAPPING: another host's mapping is never replaced, and a port of this machine that this
        program has mapped to one external port is not moved to another. ``duration`` 0 becomes the longest that is
        granted, which the result says, and only a lease keeps it; there is no ``desc``. ``verify`` is fulfilled by the
        reply. By PCP ``internal_client`` is THIRD_PARTY (section 13.1) and ``remote_host`` FILTER (section 13.3), by
        NAT-PMP there is neither (NOT_AUTHORIZED, REMOTE_HOST_MUST_BE_WILDCARD): what is refused is an error, never a
        mapping that lets in more. What a gateway refuses by one protocol it is asked for by the next that it speaks;
        not a conflict without ``overwrite``.

        Raises IGDError with one of the results of :class:`UPnPResult`, and all requests made in ``attempts``. A wrong
        argument is also a ValueError, raised before anything is sent; a deadline is also a TimeoutError. What a
        call that fails has done, or may have done, is taken back in the background, within 20 seconds at most;
        :meth:`close` waits for it.
        """
        request = check_request(port, internal_port, desc, proto, duration, internal_client, remote_host)
        return await self._dispatcher.add(
            request, overwrite=check_flag(overwrite, "overwrite"), verify=check_flag(verify, "verify")
        )

    async def delete_port_mapping(
        self, port: int, proto: Proto = "UDP", *, remote_host: str | IPv4Address = "", verify: bool = False
    ) -> None:
        """Delete a mapping of the gateway (DeletePortMapping, WANIPConnection:2 section 2.5.18).

        ``port``, ``proto`` and ``remote_host`` are those with which it was made, or those that the gateway lists.
        ``verify``: ask the gateway whether it is gone, for two seconds at most: some say yes and do nothing. Raises
        IGDError: where there is no such mapping NO_SUCH_ENTRY_IN_ARRAY or PORT_MAPPING_NOT_FOUND, as the gateway's code
        says (some gateways say nothing); with ``verify`` ACTION_FAILED where it is still there; otherwise as
        :meth:`add_port_mapping`.

        By PCP (RFC 6887 section 15.1) and NAT-PMP (RFC 6886 section 3.4) what this mapper made is deleted, else what
        leads to the same port of this machine; their reply is all that there is to ``verify``. It says yes to all, so
        for what this mapper has not made the port is asked for before and after: NO_SUCH_ENTRY_IN_ARRAY where it was
        free, NOT_AUTHORIZED where it is another host's, whose mappings cannot be deleted by these protocols.
        """
        await self._dispatcher.delete(check_key(port, proto, remote_host), verify=check_flag(verify, "verify"))

    async def query_external_address(self) -> IPv4Address | IPv6Address:
        """Return the gateway's address on the internet (GetExternalIPAddress, WANIPConnection:2 section 2.5.20).

        NAT-PMP has a request of its own for it (RFC 6886 section 3.2). PCP tells it with each mapping: the last one's
        is returned, and without one a UDP mapping is made for it and deleted at once (RFC 6887 section 11.6). Private
        addresses and those of 100.64.0.0/10 are returned as they are: they tell of double NAT and of carrier-grade NAT.
        Raises IGDError: INVALID_RESPONSE for what cannot be anybody's address; otherwise as :meth:`add_port_mapping`.
        """
        return await self._dispatcher.external_address()

    def lease(
        self,
        port: PortLike,
        internal_port: int = 0,
        desc: str = "",
        proto: Proto | Sequence[Proto] = "UDP",
        duration: int = 3600,
        *,
        internal_client: str | IPv4Address | None = None,
        on_conflict: OnConflict = "fail",
        required: bool = True,
        poll_interval: float = 60.0,
        ipv6: bool = False,
    ) -> PendingLease:
        """Keep ports open for as long as the block runs: ``async with mapper.lease(8080, proto="TCP") as lease:``.

        ``port``: the external port; 0 for any, a ``range`` for any of it, :class:`OneOf` for one of some in their
        order, a list of ports for all of them; or an :class:`asyncio.Server`, transport or socket that listens, which
        gives port, protocol and address. Where there is a choice, whatever refusal names no other cause than the port
        leads to the next one: at most 256 ports, 512 requests and a minute. ``proto``: ``"TCP"``, ``"UDP"``, or both
        in a list: they keep one number, and who wants two takes two leases. ``internal_port``, ``desc``, ``duration``
        (seconds, 0 for no limit) and ``internal_client`` are those of :meth:`add_port_mapping`. ``on_conflict``: what
        to do where the port belongs to another mapping: ``"fail"``, ``"take_over"`` it, or take an ``"other_port"``
        (there, and where it is refused without another cause). ``required``: raise if the port cannot be had at
        first; if false, the lease is there at once, LOST, and is had in the background (:meth:`Lease.wait_active`).
        ``poll_interval``: seconds between two looks at the gateway (by PCP and NAT-PMP one datagram), more than 0 and
        at most 3600. ``ipv6``: let packets to the internal ports of this machine in over IPv6, too, through pinholes of
        the gateway's firewall (:attr:`Lease.pinholes`), not with an ``internal_client``; where there is no IPv6 the
        lease does without (:attr:`Lease.pinhole_error`).

        Mappings are renewed at half their granted time or a little later (where that prolongs nothing, deleted
        and added just before they end), by the protocol that has made them while that serves, made again when
        the gateway has restarted, moved or lost them, and deleted in the end, also on errors and cancellation;
        a gateway that has let go of nothing for five seconds is given up. By PCP and NAT-PMP port 0 takes the port
        that the router assigns, and a pinhole is a MAP over IPv6 (RFC 6887 section 11). Raises IGDError as
        :meth:`add_port_mapping` does, CONFLICT_WITH_OTHER_MAPPING where the port is taken, INVALID_ARGS where
        what listens does so on 127.0.0.1 and the gateway is elsewhere.
        """
        # Not before it is needed: it is a quarter of the package, and most programs never lease.
        from .leases.lease import PendingLease
        from .leases.manager import LeaseManager
        from .leases.request import check_lease_request

        self._queue.check_open()
        poll = check_seconds(poll_interval, "poll_interval")
        request = check_lease_request(
            port,
            internal_port,
            desc,
            proto,
            duration,
            on_conflict,
            internal_client=internal_client,
            poll_interval=poll,
            required=check_flag(required, "required"),
            ipv6=check_flag(ipv6, "ipv6"),
        )
        if self._leases is None:
            if self._closing is not None:
                raise UsageError("this PortMapper is closed")
            self._leases = LeaseManager(self._dispatcher, self._cache)
        return PendingLease(self._leases, request)

    async def _release_sockets(self) -> None:
        """Wait for what :meth:`_start_releasing_sockets` begins."""
        await join(self._start_releasing_sockets())

    def _start_releasing_sockets(self) -> asyncio.Task[None]:
        """End what is under way and close every socket, but keep the gateway cached: a later call opens new ones."""
        # Abandoned at once: what is begun from now on is none of this.
        return background.start(partial(self._settle_and_close_drivers, self._queue.abandon_all()), _SETTLE_LIMIT)

    async def _settle_and_close_drivers(self, calls: Iterable[SharedCall[Any]]) -> None:
        await self._queue.wait_for(calls)
        if not len(self._queue):
            await self._close_drivers()

    def _start_closing(self) -> asyncio.Task[None] | None:
        """Begin to close in the background, unless that was begun before; None where the event loop is closed."""
        if self._queue.has_dead_loop:
            self._queue.is_closed = True
            for driver in self._drivers:
                driver.abandon()
            if self._leases is not None:
                self._leases.abandon()
            return None
        if self._closing is None:
            self._queue.check_open()
            self._closing = BackgroundTask(self._close(), loop=asyncio.get_running_loop())
        return self._closing

    async def _close(self) -> None:
        await carry_through(self._settle_all, CLOSE_LIMIT)
        await carry_through(self._close_drivers, _SETTLE_LIMIT)

    async def _settle_all(self) -> None:
        if self._leases is not None:
            await self._leases.close()
        self._queue.is_closed = True
        await self._queue.drain()

    async def _close_drivers(self) -> None:
        for driver in self._drivers:
            await driver.close()


class _PcpDriverWhenNeeded(Driver):
    """PCP or NAT-PMP, loaded when it is searched for or listened to: where UPnP serves at once, that is never."""

    def __init__(self, protocol: Literal["pcp", "nat-pmp"], scope: SearchScope, secret: bytes | None) -> None:
        self.protocol = self._name = protocol
        self._scope = scope
        self._secret = secret

    def load(self) -> None:
        """Load what speaks it now, and not when it is first needed."""
        _ = self._driver

    @cached_property
    def _driver(self) -> Driver:
        from .pcp.driver import PcpDriver

        return PcpDriver(self._name, self._scope, secret=self._secret)

    def search(self, scope: SearchScope, until: float, report: Callable[[Candidate | None], None]) -> Search:
        return self._driver.search(scope, until, report)

    def connect(self, device: Device) -> Backend | None:
        return self._driver.connect(device) if device.protocol == self.protocol else None

    def presume(self) -> Device | None:
        return self._driver.presume()

    async def listen(self, on_hint: Callable[[Hint], None]) -> Listener:
        return await self._driver.listen(on_hint)

    async def close(self) -> None:
        if "_driver" in self.__dict__:
            await self._driver.close()

    def abandon(self) -> None:
        if "_driver" in self.__dict__:
            self._driver.abandon()


def _scope_of_host(scope: SearchScope, host: str) -> SearchScope:
    """Return the scope of the only router to use. Raises UsageError for what contradicts it."""
    if scope.location is not None:
        raise UsageError("gateway and location each name the only router to use: give one of them")
    is_ipv6 = ":" in host
    if scope.ipv6 and not is_ipv6:
        raise UsageError(f"ipv6 is for gateways at an IPv6 address, not at {host}")
    source = scope.source_address
    if source is not None and (":" in source) != is_ipv6:
        raise UsageError(f"source_address must be of the family of the gateway {host}, not {source}")
    if source is None and ip_address(host).is_loopback:
        source = source_address_for(host)  # interfaces that are no loopback do not lead there
    return scope._replace(ipv6=is_ipv6, source_address=source)
