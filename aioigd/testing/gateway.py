"""The emulated gateway: what tests use, made of the other modules of this package.

The protocols themselves are in modules without I/O. A search or request goes from the socket through the hooks of the
quirks to those modules, and the reply the same way back.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, get_args

from ..models import MappingKey, PortMapping, Proto
from . import network
from .device_tree import MAIN, Service, Site, gateway_device
from .eventing import Eventing, Subscription
from .firewall import Firewall
from .forwarding import Forwarder
from .hooks import Pipeline, Quirk
from .http import HttpServer, Tally
from .pcp_endpoint import PcpEndpoint
from .pcp_messages import PcpDatagram
from .pcp_server import PcpServer
from .request_log import Request, pcp_request
from .ssdp import Identity, SsdpServer
from .upnp_server import Frontend
from .wan_connection import Entry, ProtocolName, WanConnection
from .wan_line import Line

__all__ = ["EmulatedGateway", "GatewayFactory"]

_ANOTHER_HOST: Final = "192.168.1.77"
"""The internal client of mappings that a test adds."""


class EmulatedGateway:
    """An Internet Gateway Device on loopback, for tests: real SSDP, HTTP and SOAP, no privileges needed.

    If it is told to, it speaks PCP (RFC 6887) and NAT-PMP (RFC 6886) besides, or instead.

    ::

        async with EmulatedGateway(quirks.refuses_leases) as gateway:
            async with PortMapper(source_address=gateway.address) as mapper:
                mapping = await mapper.add_port_mapping(8080, proto="TCP", duration=3600)
            assert gateway.mappings == [mapping]

    Without quirks it follows the standard, and is strict about requests. Each loopback address is a separate network:
    a gateway receives the searches that are multicast from its ``address``, and no others, so gateways on different
    addresses (``127.0.0.0/8`` on Linux) do not see each other's clients, and several on one address are several
    gateways in one network. A search that is sent to the address itself reaches one of these; on ``::1``, where Linux
    has no multicast, only such searches arrive.

    PCP and NAT-PMP have the same mappings as UPnP, and are spoken at :attr:`pcp_port`: 5351 on an address of its own,
    another one on ``127.0.0.1`` and ``::1``, which all programs share. They announce a start, a restart and a change of
    the external address to 224.0.0.1, port 5350, on loopback. Over IPv6, a mapping of PCP is a pinhole of
    :attr:`firewall`.

    ====================  ================================================================================
    ``quirks``            how it differs from the standard: see :mod:`aioigd.testing.quirks`; quirks, or their
                          names in the catalogue
    ``address``           its loopback address, ``"::1"`` also; None for one that no other gateway uses,
                          in any process (see :func:`~aioigd.testing.loopback_address`)
    ``protocols``         what it speaks, of ``"upnp"``, ``"pcp"`` and ``"nat-pmp"``
    ``version``           1 or 2, of the InternetGatewayDevice and its WANIPConnection
    ``external_address``  the reply to GetExternalIPAddress; may be empty
    ``table_size``        the greatest number of mappings, None for no limit
    ``secure_mode``       whether a host may map ports to itself only, as on most routers
    ``clock``             a function that returns seconds, by which leases expire; the event loop's clock if None
    ``friendly_name``     its name in the description
    ``forward``           whether it forwards connections and datagrams: a mapped port is then open at
                          :attr:`internet_side`, and forwarded to its host and port, if that is on loopback
    ====================  ================================================================================
    """

    def __init__(
        self,
        *quirks: Quirk[...] | str,
        address: str | None = "127.0.0.1",
        protocols: Sequence[ProtocolName] = ("upnp",),
        version: Literal[1, 2] = 1,
        external_address: str = "11.22.33.44",
        table_size: int | None = None,
        secure_mode: bool = False,
        clock: Callable[[], float] | None = None,
        friendly_name: str = "Emulated gateway",
        forward: bool = False,
    ) -> None:
        if version not in (1, 2):
            raise ValueError(f"an InternetGatewayDevice has version 1 or 2, not {version!r}")
        self.protocols = _check_protocols(protocols)
        self.version = version
        self.friendly_name = friendly_name
        self.quirks = tuple(_quirk(each) for each in quirks)
        self.requests: list[Request] = []
        """All searches, HTTP requests, and datagrams of PCP and NAT-PMP that were received, in order."""
        self._address = None if address is None else network.check_loopback(address)
        self._clock = clock
        self._connections = {
            MAIN: WanConnection(
                self._now,
                version=version,
                external_address=external_address,
                table_size=table_size,
                secure=secure_mode,
            )
        }
        self.line = Line()
        """Its line, with the traffic counters; see :class:`aioigd.testing.wan_line.Line`."""
        self.firewall = Firewall(self._now)
        """Its IPv6 firewall, which an IGD:2 has; see :class:`aioigd.testing.firewall.Firewall`."""
        self._pipeline = Pipeline(self.quirks)
        self._identity = Identity(boot_id=int(time.time()), config_id=1)
        self._reservation = ExitStack()
        self._port = 0
        self._pcp_port = 0
        self._running = False
        self._hanging = False
        self._frontend: Frontend | None = None
        self._ssdp: SsdpServer | None = None
        self._pcp: PcpEndpoint | None = None
        on_ipv6 = address is not None and ":" in address
        spoken = [each for each in self.protocols if each != "nat-pmp" or not on_ipv6]
        if not spoken:
            raise ValueError("NAT-PMP is spoken over IPv4 only")
        self._pcp_server = PcpServer(self._pipeline, spoken, self._main, self.firewall, self._now)
        self._http: HttpServer | None = None
        self._eventing: Eventing | None = None
        self._past = Tally()
        self._forward = forward
        self._forwarder: Forwarder | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        state = "stopped" if not self._running else "hanging" if self._hanging else "running"
        quirks = "".join(f" {quirk!r}" for quirk in self.quirks)
        speaks_upnp = "upnp" in self.protocols
        spoken = "" if self.protocols == ("upnp",) else f" by {', '.join(self.protocols)}"
        where = f"at {self.location}" if self._running and speaks_upnp else f"on {self._address}"
        holds = f"{len(self.mappings)} mappings, {len(self.requests)} requests"
        return f"<EmulatedGateway {where}{spoken} {state}, {holds}{quirks}>"

    # Its addresses and its state

    @property
    def address(self) -> str:
        """Its loopback address. If None was passed, it is known once the gateway has been started."""
        if self._address is None:
            raise RuntimeError("a gateway without a fixed address has none before it is started")
        return self._address

    @property
    def internet_side(self) -> str:
        """The loopback address on which mapped ports are open, in place of the internet; with ``forward`` only.

        It differs from :attr:`address`, except on systems that have one loopback address.
        """
        if self._forwarder is None:
            raise RuntimeError("only a running gateway that was made with forward=True has an internet side")
        return self._forwarder.address

    @property
    def port(self) -> int:
        """The TCP port of its description and of its control URLs; another one after most restarts."""
        return self._port

    @property
    def pcp_port(self) -> int:
        """The UDP port at which it speaks PCP and NAT-PMP, the same one after a restart; 0 if it speaks neither.

        It is known once the gateway has been started.
        """
        return self._pcp_port

    @property
    def location(self) -> str:
        """The URL of its description, for programs that do not search; only a gateway that speaks UPnP has one."""
        if "upnp" not in self.protocols:
            raise RuntimeError(f"a gateway that speaks {' and '.join(self.protocols)} only has no description")
        return Site(self.address, self._port).location

    @property
    def external_address(self) -> str:
        """Its address on the internet, as GetExternalIPAddress returns it; can be set at any time."""
        return self._main.external_address

    @external_address.setter
    def external_address(self, address: str) -> None:
        self._main.external_address = address

    @property
    def connected(self) -> bool:
        """Whether its WAN connection is up; can be set at any time."""
        return self._main.connected

    @connected.setter
    def connected(self, connected: bool) -> None:
        self._main.connected = connected

    @property
    def mappings(self) -> list[PortMapping]:
        """The mappings in its table, oldest first, without those whose lease has expired.

        ``duration`` is the lease that was granted, not what remains of it.
        """
        return [entry.mapping for entry in self._main.table.entries().values()]

    def entry(self, port: int, proto: Proto = "UDP", remote_host: str = "") -> Entry | None:
        """Return a mapping with the time at which it expires, by the gateway's clock; None if there is none."""
        return self._main.table.get(MappingKey(port, proto, remote_host))

    # Requests that it has received

    def count(self, what: str) -> int:
        """Return how many requests there were of a kind or action; see :class:`Request` for the names."""
        return sum(what in (request.kind, request.action) for request in self.requests)

    @property
    def subscriptions(self) -> list[Subscription]:
        """The subscriptions to its events."""
        return self._eventing.subscriptions if self._eventing else []

    @property
    def search_rounds(self) -> int:
        """How many times the most frequent target was searched for: a round asks for each of several once."""
        return max(Counter(each.target for each in self.requests if each.kind == "M-SEARCH").values(), default=0)

    @property
    def problems(self) -> list[str]:
        """The violations of the standards in the requests that were received; a good client causes none."""
        bad = (each for each in self.requests if each.problem)
        return [f"{f'{each.kind} {each.action or each.target}'.strip()}: {each.problem}" for each in bad]

    @property
    def open_connections(self) -> int:
        """How many TCP connections there are at present."""
        return len(self._http.connections) if self._http else 0

    @property
    def tally(self) -> Tally:
        """Counts of its TCP connections since the first start."""
        return self._past.plus(self._http.tally) if self._http else self._past

    # Changing it

    def add_mapping(
        self,
        external_port: int,
        internal_port: int = 0,
        proto: Proto = "UDP",
        *,
        internal_client: str = _ANOTHER_HOST,
        desc: str = "another host's",
        duration: int = 0,
        remote_host: str = "",
        enabled: bool = True,
    ) -> PortMapping:
        """Add a mapping, as if another host of the LAN had requested it; replaces an existing one."""
        mapping = PortMapping(
            external_port, internal_port or external_port, internal_client, proto, desc, duration, remote_host, enabled
        )
        self._main.table.put(mapping)
        return mapping

    def remove_mapping(self, external_port: int, proto: Proto = "UDP", remote_host: str = "") -> bool:
        """Drop a mapping, as routers sometimes do; returns whether there was one."""
        return self._main.table.remove(MappingKey(external_port, proto, remote_host))

    async def set_external_address(self, address: str) -> None:
        """Change the external address, as a provider does over night; send events and announcements of it."""
        self._main.external_address = address
        if self._eventing is not None:
            self._eventing.publish()
        if self._pcp is not None:
            self._pcp.announce(self._pcp_server.announcements)
        await asyncio.sleep(0)

    def hang(self) -> None:
        """Stop replying, without closing anything, like a process that is stopped by SIGSTOP.

        Connections are still accepted, and searches queued; :meth:`resume` answers them all.
        """
        self._hanging = True
        if self._http and self._ssdp:
            self._http.running.clear()
            self._ssdp.pause()
        if self._pcp:
            self._pcp.pause()

    def resume(self) -> None:
        """Continue after :meth:`hang`."""
        self._hanging = False
        if self._http and self._ssdp:
            self._http.running.set()
            self._ssdp.resume()
        if self._pcp:
            self._pcp.resume()

    async def start(self) -> None:
        """Listen, and announce the gateway; called by ``async with``."""
        if self._running:
            raise RuntimeError("the gateway runs already")
        if self._address is None:
            self._address = self._reservation.enter_context(network.loopback_address())
        self._clock = self._clock or asyncio.get_running_loop().time
        try:
            await _to_the_end(self._start())
        except BaseException:
            await self.stop(polite=False)
            raise

    async def stop(self, *, polite: bool = True) -> None:
        """Close every socket, connection and task; called by ``async with``.

        ``polite``: send ssdp:byebye first. A router that lost its power does not.
        """
        try:
            await _to_the_end(self._stop(polite))
        finally:
            self._reservation.close()

    async def restart(self, *, polite: bool = True, new_port: bool = True, keep_mappings: bool = False) -> None:
        """Stop and start again, as after an update or a power cut.

        It has a new BOOTID then, and announces itself; ``new_port`` gives it another HTTP port, and ``keep_mappings``
        keeps the table, as a few routers do that store it, and with it the epoch of PCP and NAT-PMP.
        """
        try:
            await _to_the_end(self._restart(polite, new_port, keep_mappings))
        except BaseException:
            await self.stop(polite=False)
            raise

    async def _start(self, avoided_port: int = 0) -> None:
        if "upnp" in self.protocols:
            await self._start_upnp(avoided_port)
        if self.protocols != ("upnp",):
            self._pcp_server.start()
            self._pcp = PcpEndpoint(self.address, self._pcp_port, self._receive_pcp)
            self._pcp_port = self._pcp.port
            await self._pcp.start()
        self._running = True
        if self._forward:
            self._start_forwarding()
        if self._hanging:
            self.hang()
        if self._ssdp is not None and self._frontend is not None:
            self._ssdp.multicast(self._frontend.announcements("ssdp:alive"))
        if self._pcp is not None:
            self._pcp.announce(self._pcp_server.announcements)

    async def _start_upnp(self, avoided_port: int) -> None:
        listener = network.http_socket(self.address, self._port)
        if listener.getsockname()[1] == avoided_port:
            with listener:  # held meanwhile, so that the system has to choose another one
                listener = network.http_socket(self.address, self._port)
        try:
            self._port = listener.getsockname()[1]
            frontend = self._frontend = self._make_frontend()
        except BaseException:
            listener.close()
            raise
        self._http = HttpServer(frontend.receive, self._pipeline.admit)
        self._ssdp = SsdpServer(self.address, frontend.hear)
        self._http.start(listener)
        await self._ssdp.start()

    def _receive_pcp(self, datagram: bytes, sender: tuple[str, int]) -> Callable[[], Iterable[PcpDatagram]]:
        query = self._pcp_server.understand(datagram, sender)
        self.requests.append(pcp_request(query, self._now()))
        return lambda: self._pcp_server.answer(query)

    def _start_forwarding(self) -> None:
        if self._forwarder is None:
            outside = "::1" if ":" in self.address else self._reservation.enter_context(network.loopback_address())
            self._forwarder = Forwarder(
                outside,
                lambda: self._main.table.entries().values(),
                lambda sent, received: self.line.count(sent=sent, received=received),
            )
            self._main.table.on_change = self._forwarder.follow
        self._forwarder.start()

    async def _stop(self, polite: bool) -> None:
        if self._forwarder is not None:
            await self._forwarder.close()
        discovery, server = self._ssdp, self._http
        if self._pcp is not None:
            self._pcp.close()
            await self._pcp.wait_closed()
        if discovery is not None:
            if polite and self._running and self._frontend is not None:
                discovery.multicast(self._frontend.announcements("ssdp:byebye"))
            discovery.close()
            await discovery.wait_closed()
        if self._eventing is not None:
            self._eventing.close()
            await self._eventing.wait_closed()
        if server is not None:
            server.close()
            await server.wait_closed()
            self._past = self._past.plus(server.tally)
        self._ssdp = self._http = self._pcp = None
        self._running = False

    async def _restart(self, polite: bool, new_port: bool, keep_mappings: bool) -> None:
        await self._stop(polite)
        avoided_port = self._port if new_port else 0
        if new_port:
            self._port = 0
        if not keep_mappings:
            self._main.table.clear()
            self.firewall.clear()
            self._pcp_server.restart()
        self._main.restart()
        self.line.restart()
        self._identity = replace(self._identity, boot_id=self._identity.boot_id + 1)
        await self._start(avoided_port)

    def _make_frontend(self) -> Frontend:
        site = Site(self.address, self._port)
        self._eventing = Eventing(self.address, self._evented, self._now)
        frontend = Frontend(
            self._pipeline,
            gateway_device(self.version, f"{self.friendly_name}/{self.address}/{id(self)}", self.friendly_name),
            site,
            self._identity,
            self._connections,
            {"WANCommonInterfaceConfig": self.line.invoke, "WANIPv6FirewallControl": self.firewall.invoke},
            self.requests.append,
            self._now,
            self._eventing,
        )
        for service in frontend.device.all_services():
            # Every connection but the main one is down.
            self._connections.setdefault(service.connection, WanConnection(self._now, connected=False))
        return frontend

    def _evented(self, service: Service) -> dict[str, str]:
        """Return the evented state variables of a service."""
        if not service.is_wan_connection:
            return {}
        connection = self._connections[service.connection]
        return {
            "ConnectionStatus": "Connected" if connection.connected else "Disconnected",
            "ExternalIPAddress": connection.external_address if connection.connected else "",
            "PortMappingNumberOfEntries": str(len(connection.table)),
        }

    @property
    def _main(self) -> WanConnection:
        return self._connections[MAIN]

    def _now(self) -> float:
        return time.monotonic() if self._clock is None else self._clock()


class GatewayFactory(Protocol):
    """The type of the fixture ``igd_gateway_factory``: starts a gateway that is stopped after the test."""

    def __call__(self, *quirks: Quirk[...] | str, **options: Any) -> Awaitable[EmulatedGateway]:
        """Return a running gateway; the arguments are those of EmulatedGateway, but each has its own address."""


async def _to_the_end(work: Coroutine[None, None, None]) -> None:
    """Complete a short task that must not be interrupted; a cancellation is raised when it is done."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not warn; the cancellation is raised
        raise cancelled
    task.result()


def _check_protocols(protocols: Sequence[ProtocolName]) -> tuple[ProtocolName, ...]:
    known = get_args(ProtocolName)
    if isinstance(protocols, str) or not protocols or any(each not in known for each in protocols):
        raise ValueError(f"the protocols of a gateway are some of {', '.join(known)}, not {protocols!r}")
    return tuple(dict.fromkeys(protocols))


def _quirk(quirk: Quirk[...] | str) -> Quirk[...]:
    if isinstance(quirk, Quirk):
        return quirk
    from .quirks import CATALOGUE  # imported only where a quirk is named: it is large

    try:
        return CATALOGUE[quirk]
    except KeyError:
        raise ValueError(f"there is no quirk named {quirk!r} in aioigd.testing.quirks.CATALOGUE") from None
