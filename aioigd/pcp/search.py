"""Does the router speak PCP or NAT-PMP? Asked by a question that changes nothing: ANNOUNCE, or for the address.

Only the next hop of the best default route is asked, or the host that the program has named; with a loopback address to
search from it is that address. Silence is the usual answer, and must delay no other protocol: neither by waiting for
it, nor by what it costs, as each search asks. So a question is one socket, a reader and a timer, and no task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from ..core.backend import NEVER, Candidate, Rank, Search, SearchScope
from ..errors import DeadlineError, DiscoveryError, IGDError, NoRouteError
from ..models import Device
from ..net.interfaces import default_next_hops, ipv6_next_hops, source_address_for
from ..results import PROTOCOL_NAMES, IGDStatus, UPnPResult
from .client import FIRST_PAUSE, MAX_SENT, Doubtful, Exchange, connected_socket
from .datagram_backend import join_address, split_address
from .wire import nat_pmp, pcp

__all__ = ["PATIENCE", "PcpSearch", "device_at", "hosts_of"]

PATIENCE: Final = 0.9
"""Seconds in which a router that is there has answered, three datagrams; others wait no longer for it."""
_SHORTEST_PATIENCE: Final = 0.03
"""Seconds for which a router is still waited for that has answered by another protocol."""
_IGD: Final = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
"""What a filter of devices looks for: a gateway is one, whatever it speaks."""


def hosts_of(scope: SearchScope) -> Sequence[str]:
    """Return the addresses to ask at: none where a description or multicast group was named, or no hop is known."""
    if scope.location is not None:
        return ()
    if scope.host is not None:
        return () if ip_address(scope.host).is_multicast else (scope.host,)
    source = scope.source_address
    if source is not None and ip_address(source).is_loopback:
        return (source,)
    if scope.ipv6 or (source is not None and ":" in source):
        return ipv6_next_hops(beside=source or "")
    hops = sorted(default_next_hops(ipv6=False))
    return hops if source is None else [hop for hop in hops if _leads_from(source, hop)]


def device_at(protocol: Literal["pcp", "nat-pmp"], address: str, ours: str) -> Device:
    """Return the device that speaks a protocol at an address; ``ours`` is the address of this machine towards it."""
    return Device(
        service_type=_IGD,
        igd_our_addr=ours,
        igd_status=IGDStatus.OK,
        friendly_name=f"{PROTOCOL_NAMES[protocol]} router at {address}",
        protocol=protocol,
        address=address,
    )


class PcpSearch(Search):
    """A question to each host, until it is answered or the time is over."""

    def __init__(
        self,
        protocol: Literal["pcp", "nat-pmp"],
        scope: SearchScope,
        port: int,
        until: float,
        report: Callable[[Candidate | None], None],
    ) -> None:
        self._protocol = protocol
        self._scope = scope
        self._port = port
        self._until = until
        self._report = report
        self._began = 0.0
        self._probes: dict[str, _Probe] = {}
        self._failures: list[IGDError] = []
        self._refusal: pcp.ResultCode | None = None

    async def __aenter__(self) -> Self:
        """Begin to ask."""
        self._began = asyncio.get_running_loop().time()
        for host in hosts_of(self._scope):
            if self._protocol == "pcp" or ":" not in host:  # NAT-PMP is spoken over IPv4 only
                self._ask(host)
        if not self._probes:
            self._report(None)
        for probe in list(self._probes.values()):
            probe.exchange.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop asking."""
        for probe in self._probes.values():
            probe.exchange.close()
        self._probes.clear()

    def may_report_until(self, rank: Rank) -> float:
        """Return until when a router may still answer, as a rule: most have none of this, and are silent."""
        return max((probe.patient_until for probe in self._probes.values()), default=NEVER)

    def note_candidate(self, candidate: Candidate) -> None:
        """Note what any protocol has found by now.

        A router that has answered by another one would have answered by this one as well, were there not a loss: it is
        waited for only as long again, while the question goes on. UPnP says nothing of how quick that is, but there is
        no need to wait for more than one datagram.
        """
        if candidate.device.protocol == self._protocol:
            return
        now = asyncio.get_running_loop().time()
        found = _host_of(candidate.device)
        patience = max(_SHORTEST_PATIENCE, 2 * (now - self._began))
        if candidate.device.protocol == "upnp":
            patience = max(patience, self._began + FIRST_PAUSE - now)
        for host, probe in self._probes.items():
            if _without_zone(host) == found:
                self._probes[host] = probe._replace(patient_until=min(probe.patient_until, now + patience))

    def failure(self) -> IGDError:
        """Return that there is none, or why none could be asked."""
        unsent = next((error for error in self._failures if isinstance(error, NoRouteError)), None)
        if unsent is not None:
            return unsent
        if self._refusal is not None:
            message = f"the router refuses to talk by PCP: {self._refusal.name} ({self._refusal})"
            error = DiscoveryError(message, UPnPResult.NO_GATEWAY, error_code=int(self._refusal))
            error.protocol = "pcp"
            return error
        where = f" at {self._scope.host}" if self._scope.host else ""
        message = f"no router answers by {PROTOCOL_NAMES[self._protocol]}{where}"
        if self._scope.location is None and not hosts_of(self._scope):
            message += ": no default route is known here, so its address has to be given as gateway"
        error = DiscoveryError(message, UPnPResult.NO_DEVICES)
        error.__cause__ = next(iter(self._failures), None)  # that its port is closed
        return error

    def _ask(self, host: str) -> None:
        try:
            opened = connected_socket(host, self._port, self._scope.source_address)
        except IGDError as error:
            self._failures.append(error)
            return
        ours = str(opened.getsockname()[0]).partition("%")[0]
        is_pcp = self._protocol == "pcp"
        exchange: Exchange[Rank] = Exchange(
            opened,
            host,
            pcp.build_request(pcp.Request(pcp.Opcode.ANNOUNCE, ip_address(ours))) if is_pcp else _ADDRESS,
            self._read_pcp if is_pcp else _rank_by_nat_pmp,
            self._until,
            lambda answer: self._ended(host, ours, answer),
            most=MAX_SENT if self._scope.single is None else 1,
        )
        self._probes[host] = _Probe(exchange, min(self._began + PATIENCE, self._until))

    def _read_pcp(self, datagram: bytes) -> Rank | Doubtful[Rank] | None:
        rank = _rank_by_pcp(datagram)
        if isinstance(rank, Doubtful):
            self._refusal = _refusal_in(datagram)
        return rank

    def _ended(self, host: str, ours: str, answer: Rank | Exception) -> None:
        del self._probes[host]
        if isinstance(answer, IGDError):
            if not isinstance(answer, DeadlineError):
                self._failures.append(answer)
        elif isinstance(answer, Exception):
            raise answer
        elif answer is not Rank.USELESS:
            device = device_at(self._protocol, join_address(host, self._port), ours)
            self._report(Candidate(device, answer, (_IGD,), f"{self._protocol} {device.address}"))
        if not self._probes:
            self._report(None)


class _Probe(NamedTuple):
    """A question that is out; ``patient_until`` is a time of the loop's clock."""

    exchange: Exchange[Rank]
    patient_until: float


_ADDRESS: Final = nat_pmp.build_request(nat_pmp.AddressRequest())


def _rank_by_pcp(datagram: bytes) -> Rank | Doubtful[Rank] | None:
    """Return how good the router is that has sent a datagram, None where that is no answer.

    One that knows no ANNOUNCE is a PCP server all the same.
    """
    response = pcp.parse_response(datagram)
    if response is not None and response.opcode == pcp.Opcode.ANNOUNCE:
        if response.result in (pcp.ResultCode.SUCCESS, pcp.ResultCode.UNSUPP_OPCODE):
            return Rank.CERTAIN
        return Doubtful(Rank.USELESS)
    other = nat_pmp.parse_response(datagram)
    is_other = isinstance(other, nat_pmp.Refusal) and other.result == nat_pmp.ResultCode.UNSUPPORTED_VERSION
    return Doubtful(Rank.USELESS) if is_other else None


def _refusal_in(datagram: bytes) -> pcp.ResultCode | None:
    """Return with which result a PCP server refuses to talk; None for one that speaks another version only."""
    response = pcp.parse_response(datagram)
    if response is None or response.result == pcp.ResultCode.UNSUPP_VERSION:
        return None
    with suppress(ValueError):
        return pcp.ResultCode(response.result)
    return None


def _rank_by_nat_pmp(datagram: bytes) -> Rank | Doubtful[Rank] | None:
    """Return the same for NAT-PMP. One that has no address yet, or a private one, may map ports all the same."""
    match nat_pmp.parse_response(datagram):
        case nat_pmp.AddressResponse():
            return Rank.CERTAIN
        case nat_pmp.Refusal(opcode=nat_pmp.Opcode.ADDRESS, result=nat_pmp.ResultCode.NETWORK_FAILURE):
            return Doubtful(Rank.LAST_RESORT)
        case nat_pmp.Refusal(opcode=nat_pmp.Opcode.ADDRESS):
            return Doubtful(Rank.USELESS)
    response = pcp.parse_response(datagram)
    is_other = response is not None and response.result == pcp.ResultCode.UNSUPP_VERSION
    return Doubtful(Rank.USELESS) if is_other else None


def _leads_from(source: str, host: str) -> bool:
    try:
        return ip_address(source_address_for(host)) == ip_address(source)
    except IGDError:
        return False


def _host_of(device: Device) -> str:
    """Return the address of a device that was found by any protocol, "" where it is not known."""
    if device.address:
        return _without_zone(split_address(device.address)[0])
    try:
        return _without_zone(urlsplit(device.description_url).hostname or "")
    except ValueError:
        return ""


def _without_zone(host: str) -> str:
    return host.partition("%")[0]
