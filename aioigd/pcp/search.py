"""Does the router speak PCP or NAT-PMP? Asked by a question that changes nothing: ANNOUNCE, or for the address.

Only the next hop of the best default route is asked, or the host that the program has named; with a loopback address to
search from it is that address. Silence is the usual answer, and must delay no other protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Literal, Self

from ..core.backend import NEVER, Candidate, Rank, Search, SearchScope
from ..errors import DeadlineError, DiscoveryError, IGDError, NoRouteError
from ..models import Device
from ..net.interfaces import default_next_hops, source_address_for
from ..results import IGDStatus, UPnPResult
from .backend import join_address
from .client import PcpClient
from .wire import nat_pmp, pcp

__all__ = ["PATIENCE", "PcpSearch", "device_at", "hosts_of"]

PATIENCE: Final = 0.9
"""Seconds in which a router that is there has answered, three datagrams; others wait no longer for it."""
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
    hops = sorted(default_next_hops(ipv6=scope.ipv6))
    return hops if source is None else [hop for hop in hops if _leads_from(source, hop)]


def device_at(protocol: Literal["pcp", "nat-pmp"], address: str, ours: str) -> Device:
    """Return the device that speaks a protocol at an address; ``ours`` is the address of this machine towards it."""
    return Device(
        service_type=_IGD,
        igd_our_addr=ours,
        igd_status=IGDStatus.OK,
        friendly_name=f"{protocol.upper()} router at {address}",
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
        self._patient_until = NEVER
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[IGDError] = []
        self._refusal: pcp.ResultCode | None = None

    async def __aenter__(self) -> Self:
        """Begin to ask."""
        loop = asyncio.get_running_loop()
        for host in hosts_of(self._scope):
            if self._protocol == "nat-pmp" and ":" in host:
                continue  # it is spoken over IPv4 only
            self._patient_until = min(loop.time() + PATIENCE, self._until)
            task = loop.create_task(self._ask(host))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        if not self._tasks:
            self._report(None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop asking."""
        tasks = list(self._tasks)
        for task in tasks:
            task.remove_done_callback(self._ended)
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    def may_report_until(self, rank: Rank) -> float:
        """Return until when a router may still answer, as a rule: most have none of this, and are silent."""
        return self._patient_until if self._tasks else NEVER

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
        error = DiscoveryError(f"no router answers by {self._protocol}", UPnPResult.NO_DEVICES)
        error.__cause__ = next(iter(self._failures), None)  # that its port is closed
        return error

    async def _ask(self, host: str) -> None:
        try:
            source = self._scope.source_address
            ours = source or source_address_for(host)
            client = PcpClient(host, self._port, source)
            if self._protocol == "pcp":
                request = pcp.build_request(pcp.Request(pcp.Opcode.ANNOUNCE, ip_address(ours)))
                rank = await client.request(request, self._rank_by_pcp, lambda: self._until)
            else:
                request = nat_pmp.build_request(nat_pmp.AddressRequest())
                rank = await client.request(request, _rank_by_nat_pmp, lambda: self._until)
        except IGDError as error:
            if not isinstance(error, DeadlineError):
                self._failures.append(error)
            return
        if rank is not Rank.USELESS:
            address = join_address(host, self._port)
            device = device_at(self._protocol, address, ours)
            self._report(Candidate(device, rank, (_IGD,), f"{self._protocol} {address}"))

    def _rank_by_pcp(self, datagram: bytes) -> Rank | None:
        rank = _rank_by_pcp(datagram)
        if rank is Rank.USELESS:
            self._refusal = _refusal_in(datagram)
        return rank

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()
        if not self._tasks:
            self._report(None)


def _rank_by_pcp(datagram: bytes) -> Rank | None:
    """Return how good the router is that has sent a datagram, None where that is no answer."""
    response = pcp.parse_response(datagram)
    if response is not None and response.opcode == pcp.Opcode.ANNOUNCE:
        return Rank.CERTAIN if response.result == pcp.ResultCode.SUCCESS else Rank.USELESS
    other = nat_pmp.parse_response(datagram)
    is_other = isinstance(other, nat_pmp.Refusal) and other.result == nat_pmp.ResultCode.UNSUPPORTED_VERSION
    return Rank.USELESS if is_other else None


def _refusal_in(datagram: bytes) -> pcp.ResultCode | None:
    """Return with which result a PCP server refuses to talk; None for one that speaks another version only."""
    response = pcp.parse_response(datagram)
    if response is None or response.result == pcp.ResultCode.UNSUPP_VERSION:
        return None
    with suppress(ValueError):
        return pcp.ResultCode(response.result)
    return None


def _rank_by_nat_pmp(datagram: bytes) -> Rank | None:
    """Return the same for NAT-PMP. One that has no address yet, or a private one, may map ports all the same."""
    match nat_pmp.parse_response(datagram):
        case nat_pmp.AddressResponse():
            return Rank.CERTAIN
        case nat_pmp.Refusal(opcode=nat_pmp.Opcode.ADDRESS, result=nat_pmp.ResultCode.NETWORK_FAILURE):
            return Rank.LAST_RESORT
        case nat_pmp.Refusal(opcode=nat_pmp.Opcode.ADDRESS):
            return Rank.USELESS
    response = pcp.parse_response(datagram)
    is_other = response is not None and response.result == pcp.ResultCode.UNSUPP_VERSION
    return Rank.USELESS if is_other else None


def _leads_from(source: str, host: str) -> bool:
    try:
        return ip_address(source_address_for(host)) == ip_address(source)
    except IGDError:
        return False
