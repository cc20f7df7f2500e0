"""A router of which only the behaviour is left: what leases see of a gateway, without any network."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from aioigd import IGDError, Lease, LeaseState, Pinhole, PortMapping, TransportError
from aioigd.leases.request import Claim, check_claim
from aioigd.models import MappingKey, MappingRequest, PinholeRequest
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
    place: int = 1
    moved_to: int | None = None
    is_away: bool = False
    can_tell: bool = True
    can_choose: bool = False
    grants: Callable[[int], int] = lambda duration: duration
    really_lasts: Callable[[int], float] = float
    reports: Callable[[int], int] = lambda duration: duration
    found_us: str = US
    asked: Counter[str] = field(default_factory=Counter)
    on_restart: Callable[[], None] | None = None
    on_change: Callable[[], None] | None = None
    before_answer: Callable[[str], Awaitable[None]] | None = None
    follows: list[bool] = field(default_factory=list)
    listeners: int = 0

    # What tests do

    def hold(self, port: int, client: str = THEM, proto: str = "TCP", internal_port: int = 0) -> MappingKey:
        key = MappingKey(port, "TCP" if proto == "TCP" else "UDP")
        self.table[key] = Row(client, internal_port or port, None, 0)
        return key

    def restart(self, *, new_place: bool = True) -> None:
        self.table.clear()
        self.pinholes.clear()
        if new_place:
            self.moved_to = (self.moved_to or self.place) + 1

    def owner(self, port: int, proto: str = "TCP") -> str | None:
        row = self._live(MappingKey(port, "TCP" if proto == "TCP" else "UDP"))
        return None if row is None else row.client

    def open_ports(self) -> list[tuple[str, int, str]]:
        """Where packets come in over IPv6 now."""
        live = [one for one, expires in self.pinholes.values() if expires > self._now()]
        return [(one.internal_client, one.internal_port, one.proto) for one in live]

    # What leases do

    async def add(self, request: MappingRequest, *, overwrite: bool, verify: bool) -> PortMapping:
        await self._asked("add")
        client = request.internal_client or self.us
        held = self._live(request.key)
        if held is not None and (held.client, held.internal_port) != (client, request.internal_port) and not overwrite:
            raise refused("it is taken", 718)
        return self._put(request, client)

    async def add_any(self, request: MappingRequest) -> PortMapping | None:
        await self._asked("add_any")
        if not self.can_choose:
            return None
        port = request.key.external_port
        while self._live(request.key._replace(external_port=port)) is not None:
            port += 1
        return self._put(request._replace(key=request.key._replace(external_port=port)), self.us)

    async def find(self, key: MappingKey) -> PortMapping | None:
        await self._asked("find")
        if not self.can_tell:
            raise refused("no such action", 401)
        row = self._live(key)
        if row is None:
            return None
        remaining = 0 if row.expires is None else int(row.expires - self._now())
        return PortMapping(
            key.external_port, row.internal_port, row.client, key.proto, "", self.reports(remaining), key.remote_host
        )

    async def delete(self, key: MappingKey) -> None:
        await self._asked("delete")
        if self.table.pop(key, None) is None:
            raise refused("there is none", 714)

    async def open_pinhole(self, request: PinholeRequest) -> Pinhole:
        await self._asked("open")
        if self.pinhole_refusal is not None:
            raise self.pinhole_refusal.copy()
        place = (self.us6, request.internal_port, request.proto)
        known = (
            number
            for number, (one, expires) in self.pinholes.items()
            if (one.internal_client, one.internal_port, one.proto) == place and expires > self._now()
        )
        number = next(known, max(self.pinholes, default=0) + 1)
        pinhole = Pinhole(number, *place, duration=request.duration)
        self.pinholes[number] = pinhole, self._now() + request.duration
        return pinhole

    async def close_pinhole(self, pinhole: Pinhole) -> None:
        await self._asked("close")
        if self.pinholes.pop(pinhole.unique_id, None) is None:
            raise refused("there is none", 704)

    async def query_external_address(self) -> IPv4Address:
        await self._asked("address")
        if self.address is None:
            raise refused("the line is down", 501)
        return IPv4Address(self.address)

    async def look_again(self) -> None:
        self.asked["look"] += 1
        await asyncio.sleep(0.01)
        if self.is_away:
            raise TransportError("nobody there", may_have_arrived=False)
        self.place = self.moved_to or self.place
        self.moved_to = None
        self.found_us = self.us

    async def listen(self, on_restart: Callable[[], None], on_change: Callable[[], None]) -> ModelRouter:
        self.on_restart, self.on_change = on_restart, on_change
        self.listeners += 1
        return self

    def follow(self, *, anew: bool) -> None:
        self.follows.append(anew)

    async def close(self) -> None:
        self.listeners -= 1
        self.on_restart = self.on_change = None

    def our_address_moved(self) -> bool:
        return self.us != self.found_us

    @property
    def internal_client(self) -> str:
        return self.us

    @property
    def our_ipv6_address(self) -> str:
        return self.us6

    @property
    def who(self) -> str:
        return self.name

    @property
    def where(self) -> tuple[int, str]:
        return self.place, self.found_us

    # What happens inside

    async def _asked(self, what: str) -> None:
        self.asked[what] += 1
        await asyncio.sleep(0.001)
        if self.before_answer is not None:
            await self.before_answer(what)
        if self.is_away:
            raise TransportError("nobody there", may_have_arrived=False)
        if self.moved_to is not None:  # as the mapper does: refused, found again, asked again
            await self.look_again()

    def _live(self, key: MappingKey) -> Row | None:
        row = self.table.get(key)
        if row is not None and row.expires is not None and row.expires <= self._now():
            del self.table[key]
            return None
        return row

    def _put(self, request: MappingRequest, client: str) -> PortMapping:
        granted = self.grants(request.terms.duration)
        expires = self._now() + self.really_lasts(granted) if self.really_lasts(granted) else None
        self.table[request.key] = Row(client, request.internal_port, expires, granted)
        return PortMapping(
            request.key.external_port, request.internal_port, client, request.key.proto, request.terms.desc, granted
        )

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def claim(port: object = 8080, **changes: object) -> Claim:
    """A claim as :meth:`PortMapper.lease` makes it."""
    said = {"internal_port": 0, "desc": "", "proto": "TCP", "duration": 3600, "on_conflict": "fail", **changes}
    return check_claim(port, **said)  # type: ignore[arg-type]


def state_of(lease: Lease) -> LeaseState:
    """The state of a lease now; of the attribute itself mypy believes that it stays as it was."""
    return lease.state
