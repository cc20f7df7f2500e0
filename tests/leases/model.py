"""A router of which only the behaviour is left, behind the real core: what leases see of a gateway, without a network.

:class:`ModelRouter` is the router, :class:`ModelDriver` and :class:`ModelBackend` a protocol to speak to it, and
:class:`ModelManager` puts the real dispatcher, call queue, finder and cache below a lease manager.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType

from aioigd import (
    DiscoveryError,
    IGDError,
    IGDStatus,
    Lease,
    LeaseState,
    Pinhole,
    PortMapping,
    TransportError,
    UPnPResult,
)
from aioigd.core.backend import NEVER, Backend, Candidate, Driver, Hint, Listener, Rank, Search, SearchScope, Trial
from aioigd.core.calls import CallQueue, Operation
from aioigd.core.dispatcher import Dispatcher
from aioigd.core.finder import Finder
from aioigd.core.gateway_cache import GatewayCache
from aioigd.errors import NoRouteError
from aioigd.leases.manager import LeaseManager
from aioigd.leases.request import LeaseRequest, check_lease_request
from aioigd.models import Device, MappingKey, MappingRequest, PinholeRequest
from aioigd.upnp.wire.error_codes import refused

US = "192.168.1.2"
US6 = "2a01:77::2"
THEM = "192.168.1.77"


@dataclass
class Row:
    """What the router holds for one port."""

    client: str
    internal_port: int
    expires: float | None
    duration: int
    desc: str = ""
    enabled: bool = True
    shown_from: float = 0.0


@dataclass
class ModelRouter:
    """A router with a table, and with ways to go wrong that tests turn on and off."""

    table: dict[MappingKey, Row] = field(default_factory=dict)
    pinholes: dict[int, tuple[Pinhole, float]] = field(default_factory=dict)
    pinhole_refusal: IGDError | None = None
    us6: str = US6
    address: str | None = "11.22.33.44"
    us: str = US
    name: str = "router"
    host: str = "router"
    place: int = 1
    query: str = ""
    search_takes: float = 0.01
    is_mute: bool = False
    is_away: bool = False
    can_tell: bool = True
    can_choose: bool = False
    grants: Callable[[int], int] = lambda duration: duration
    really_lasts: Callable[[int], float] = float
    reports: Callable[[int], int] = lambda duration: duration
    prolongs: bool = True
    refuses_renewals: bool = False
    switches_off: bool = False
    refusal: Callable[[MappingKey], IGDError | None] = lambda _: None
    late: float = 0.0
    shown_port: int | None = None
    shown_client: str | None = None
    lazy_deletions: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    log: list[tuple[float, str, object]] = field(default_factory=list)
    on_hint: Callable[[Hint], None] | None = None
    before_answer: Callable[[str], Awaitable[None]] | None = None
    defect: Exception | None = None
    resubscribed: list[bool] = field(default_factory=list)
    noted_addresses: list[str | None] = field(default_factory=list)
    listeners: int = 0
    refreshed: int = 0

    # What tests do

    def hold(self, port: int, client: str = THEM, proto: str = "TCP", internal_port: int = 0) -> MappingKey:
        key = MappingKey(port, "TCP" if proto == "TCP" else "UDP")
        self.table[key] = Row(client, internal_port or port, None, 0)
        return key

    def restart(self, *, new_place: bool = True) -> None:
        self.table.clear()
        self.pinholes.clear()
        self.place += new_place

    def owner(self, port: int, proto: str = "TCP") -> str | None:
        row = self.live(MappingKey(port, "TCP" if proto == "TCP" else "UDP"))
        return None if row is None else row.client

    def open_ports(self) -> list[tuple[str, int, str]]:
        """Where packets come in over IPv6 now."""
        live = [one for one, expires in self.pinholes.values() if expires > _now()]
        return [(one.internal_client, one.internal_port, one.proto) for one in live]

    # What happens inside

    def device(self) -> Device:
        """What a search finds now."""
        return Device(
            description_url=f"http://{self.host}/{self.place}{self.query}",
            igd_control_url=f"http://{self.host}/{self.place}/control",
            igd_our_addr=self.us,
            igd_status=IGDStatus.OK,
            udn=self.name,
        )

    def note(self, what: str, subject: object = None) -> None:
        self.asked[what] += 1
        self.log.append((_now(), what, subject))

    def live(self, key: MappingKey) -> Row | None:
        row = self.table.get(key)
        if row is not None and row.expires is not None and row.expires <= _now():
            del self.table[key]
            return None
        return row

    def put(self, request: MappingRequest, client: str) -> PortMapping:
        granted = self.grants(request.terms.duration)
        expires = _now() + self.really_lasts(granted) if self.really_lasts(granted) else None
        held = self.live(request.key)
        if not self.prolongs and held is not None and held.client == client:
            expires = held.expires
        shown_from = _now() + self.late if held is None else held.shown_from
        self.table[request.key] = Row(
            client, request.internal_port, expires, granted, request.terms.desc, not self.switches_off, shown_from
        )
        return PortMapping(
            request.key.external_port, request.internal_port, client, request.key.proto, request.terms.desc, granted
        )


class ModelBackend(Backend):
    """The router where a search has found it. What changes it knows how to undo itself, as a real protocol does."""

    protocol = "upnp"

    def __init__(self, router: ModelRouter, device: Device, home: ModelRouter) -> None:
        self.device = device
        self._router = router
        self._home = home

    @property
    def internal_client(self) -> str:
        return self._router.us

    @property
    def internal_client_v6(self) -> str:
        if not self._router.us6:
            raise NoRouteError("no IPv6")
        return self._router.us6

    @property
    def gateway_id(self) -> str:
        return self.device.udn

    @property
    def address(self) -> str:
        return "192.168.1.1" if self._router is self._home else "192.168.1.99"

    @property
    def location(self) -> tuple[str, str]:
        return self.device.igd_control_url, self.device.igd_our_addr

    def home_hosts(self) -> tuple[str, ...]:
        return () if self._router is self._home else (self._home.host,)

    def local_address_changed(self) -> bool:
        if self._router.defect is not None:
            raise self._router.defect
        return self._router.us != self.device.igd_our_addr

    async def add(
        self, op: Operation, request: MappingRequest, *, overwrite: bool, verify: bool, trial: Trial | None = None
    ) -> PortMapping:
        router = self._router
        assert not verify
        undo = self._undo_of(request.key)
        op.sent(undo)
        await self._asked("add", (request, overwrite))
        client = request.internal_client or router.us
        held = router.live(request.key)
        if held is not None and (held.client, held.internal_port) != (client, request.internal_port) and not overwrite:
            op.rejected()
            raise refused("it is taken", 718)
        refusal = router.refusal(request.key)
        if refusal is not None:
            op.rejected()
            raise refusal.copy()
        if held is not None and router.refuses_renewals:
            op.rejected()
            raise refused("it is there", 501)
        mapping = router.put(request, client)
        op.settled(undo)
        return mapping

    async def add_any(self, op: Operation, request: MappingRequest) -> PortMapping:
        router = self._router
        await self._asked("add_any", request)
        if not router.can_choose:
            return await super().add_any(op, request)
        port = request.key.external_port
        while router.live(request.key._replace(external_port=port)) is not None:
            port += 1
        key = request.key._replace(external_port=port)
        undo = self._undo_of(key)
        mapping = router.put(request._replace(key=key), router.us)
        op.settled(undo)
        return mapping

    async def find(self, op: Operation, key: MappingKey) -> PortMapping | None:
        router = self._router
        await self._asked("find", key)
        if not router.can_tell:
            return await super().find(op, key)
        row = router.live(key)
        if row is None or _now() < row.shown_from:
            return None
        remaining = 0 if row.expires is None else int(row.expires - _now())
        return PortMapping(
            key.external_port,
            row.internal_port if router.shown_port is None else router.shown_port,
            router.shown_client or row.client,
            key.proto,
            row.desc,
            router.reports(remaining),
            key.remote_host,
            row.enabled,
        )

    async def delete(self, op: Operation, key: MappingKey, *, verify: bool = False) -> None:
        await self._asked("delete", key)
        if self._router.lazy_deletions:
            self._router.lazy_deletions -= 1
            return
        if self._router.table.pop(key, None) is None:
            raise refused("there is none", 714)

    async def external_address(self, op: Operation) -> IPv4Address:
        await self._asked("address")
        if self._router.address is None:
            raise refused("the line is down", 501)
        return IPv4Address(self._router.address)

    async def add_pinhole(self, op: Operation, request: PinholeRequest) -> Pinhole:
        router = self._router
        endpoint = (router.us6, request.internal_port, request.proto)
        known = (
            number for number, (one, end) in router.pinholes.items() if _endpoint(one) == endpoint and end > _now()
        )
        before = next(known, None)

        async def undo(_: Operation) -> None:
            for number in [number for number, (one, _) in router.pinholes.items() if _endpoint(one) == endpoint]:
                if number != before:
                    del router.pinholes[number]

        op.sent(undo)
        await self._asked("open", request)
        if router.pinhole_refusal is not None:
            op.rejected()
            raise router.pinhole_refusal.copy()
        number = before or max(router.pinholes, default=0) + 1
        pinhole = Pinhole(number, *endpoint, duration=router.grants(request.duration))
        router.pinholes[number] = pinhole, _now() + pinhole.duration
        op.settled(undo)
        return pinhole

    async def delete_pinhole(self, op: Operation, pinhole: Pinhole) -> None:
        await self._asked("close", pinhole.unique_id)
        if self._router.pinholes.pop(pinhole.unique_id, None) is None:
            raise refused("there is none", 704)

    async def _asked(self, what: str, subject: object = None) -> None:
        router = self._router
        await asyncio.sleep(0.001)
        if router.is_away:
            router.note(what, subject)
        elif self.device.igd_control_url == router.device().igd_control_url:
            router.note(what, subject)
            if router.before_answer is not None:
                await router.before_answer(what)
            if not router.is_away:
                return
        raise TransportError("nobody there", may_have_arrived=False)

    def _undo_of(self, key: MappingKey) -> Callable[[Operation], Awaitable[None]]:
        router = self._router
        before = router.live(key)

        async def undo(_: Operation) -> None:
            if before is None:
                router.table.pop(key, None)

        return undo


class ModelSearch(Search):
    """Finds the router where it is now, if it is there, and the stopgap unless only the router is searched for."""

    def __init__(self, driver: ModelDriver, scope: SearchScope, report: Callable[[Candidate | None], None]) -> None:
        self._driver = driver
        self._scope = scope
        self._report = report

    async def __aenter__(self) -> ModelSearch:
        router = self._driver.router
        router.note("look" if self._scope.single is None else "look for home")
        await asyncio.sleep(router.search_takes)
        if not (router.is_away or router.is_mute):
            self._report(Candidate(router.device(), Rank.CERTAIN))
        stopgap = self._driver.stopgap
        if stopgap is not None and not stopgap.is_away and self._scope.single is None:
            self._report(Candidate(stopgap.device(), Rank.LIKELY))
        self._report(None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def may_report_until(self, rank: Rank) -> float:
        return NEVER

    def failure(self) -> IGDError:
        return DiscoveryError("nobody answers", UPnPResult.NO_DEVICES)


class ModelListener(Listener):
    """Hears what a test says in the router's name."""

    def __init__(self, router: ModelRouter, on_hint: Callable[[Hint], None]) -> None:
        self._router = router
        router.on_hint = on_hint
        router.listeners += 1

    def follow(self, backend: Backend | None, *, resubscribe: bool) -> None:
        self._router.resubscribed.append(resubscribe)

    def refresh(self) -> None:
        self._router.refreshed += 1

    def note_address(self, address: IPv4Address | IPv6Address | None) -> None:
        self._router.noted_addresses.append(None if address is None else str(address))

    async def close(self) -> None:
        self._router.listeners -= 1
        self._router.on_hint = None


class ModelDriver(Driver):
    """The protocol of the model. ``stopgap`` is another gateway in the LAN than the router of the default route."""

    protocol = "upnp"

    def __init__(self, router: ModelRouter, stopgap: ModelRouter | None = None) -> None:
        self.router = router
        self.stopgap = stopgap

    def search(self, scope: SearchScope, until: float, report: Callable[[Candidate | None], None]) -> ModelSearch:
        return ModelSearch(self, scope, report)

    def connect(self, device: Device) -> ModelBackend | None:
        is_stopgap = self.stopgap is not None and device.udn == self.stopgap.name
        router = self.stopgap if is_stopgap and self.stopgap is not None else self.router
        return ModelBackend(router, device, self.router) if device.description_url else None

    async def listen(self, on_hint: Callable[[Hint], None]) -> ModelListener:
        return ModelListener(self.router, on_hint)

    async def close(self) -> None:
        pass


class ModelManager(LeaseManager):
    """A lease manager and the core below it, which closing it closes, too."""

    def __init__(
        self,
        router: ModelRouter,
        wall_clock: Callable[[], float] = lambda: 0.0,
        *,
        stopgap: ModelRouter | None = None,
    ) -> None:
        self.queue = CallQueue()
        drivers = [ModelDriver(router, stopgap)]
        self.cache = GatewayCache(drivers, Finder(drivers, SearchScope()), self.queue, discovery_timeout=5.0)
        self.cache.devices.append(router.device())
        self.dispatcher = Dispatcher(self.queue, self.cache, timeout=10.0)
        super().__init__(self.dispatcher, self.cache, wall_clock=wall_clock)

    async def close(self) -> None:
        await super().close()
        await self.queue.drain()


def lease_request(port: object = 8080, **changes: object) -> LeaseRequest:
    """What :meth:`PortMapper.lease` makes of its arguments."""
    said = {"internal_port": 0, "desc": "", "proto": "TCP", "duration": 3600, "on_conflict": "fail", **changes}
    return check_lease_request(port, **said)  # type: ignore[arg-type]


def state_of(lease: Lease) -> LeaseState:
    """The state of a lease now; of the attribute itself mypy believes that it stays as it was."""
    return lease.state


def failure_of(lease: Lease) -> IGDError | None:
    """The error of a lease now, for the same reason."""
    return lease.error


def _endpoint(pinhole: Pinhole) -> tuple[str, int, str]:
    return pinhole.internal_client, pinhole.internal_port, pinhole.proto


def _now() -> float:
    return asyncio.get_running_loop().time()
