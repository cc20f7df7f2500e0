"""The requests that an emulated gateway has received, by any of its protocols."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..pcp.wire import nat_pmp, pcp
from ..pcp.wire.common import PROTO_OF
from .pcp_messages import PcpQuery

__all__ = ["Request", "pcp_request"]


@dataclass(frozen=True, slots=True)
class Request:
    """One search or HTTP request, or one datagram of PCP or NAT-PMP.

    ==============  =================================================================================
    ``kind``        the method: ``"M-SEARCH"``, ``"GET"``, ``"POST"``, or any other that was sent; or the protocol,
                    ``"PCP"`` or ``"NAT-PMP"``
    ``target``      the search target of an M-SEARCH, path and query of an HTTP request
    ``action``      the UPnP action of a POST by its SOAPAction; ``"ANNOUNCE"`` or ``"MAP"`` of PCP, ``"ADDRESS"`` or
                    ``"MAP"`` of NAT-PMP; empty for anything else
    ``arguments``   the arguments of the action by name, in the order in which they were sent; of a MAP ``proto``,
                    ``internal_port``, ``external_port`` and ``lifetime``, and of PCP ``nonce``, ``client`` and the
                    names of its options, too
    ``sender``      address and port of the client
    ``raw``         all of its bytes
    ``time``        seconds, by the gateway's clock, when it was complete
    ``problem``     how it violates the standards, empty where it does not
    ``connection``  the serial number of its TCP connection, from 1; 0 for a datagram
    ==============  =================================================================================
    """

    kind: str
    target: str
    action: str
    arguments: Mapping[str, str] = field(hash=False)
    sender: tuple[str, int]
    raw: bytes = field(repr=False)
    time: float
    problem: str = ""
    connection: int = 0


def pcp_request(query: PcpQuery, time: float) -> Request:
    """Return the record of a datagram of PCP or NAT-PMP."""
    action, arguments = "", NO_ARGUMENTS
    match query.request:
        case nat_pmp.AddressRequest():
            action = "ADDRESS"
        case nat_pmp.MapRequest(proto, internal_port, external_port, lifetime):
            action = "MAP"
            arguments = _map_arguments(proto, internal_port, external_port, lifetime)
        case pcp.Request(client=client, lifetime=lifetime, mapping=mapping, options=options):
            action = "ANNOUNCE"
            arguments = {"client": str(client)}
            if mapping is not None:
                action = "MAP"
                transport = PROTO_OF.get(mapping.protocol) or str(mapping.protocol)
                arguments |= _map_arguments(transport, mapping.internal_port, mapping.external_port, lifetime)
                arguments["nonce"] = mapping.nonce.hex()
            arguments |= {type(option).__name__: str(option) for option in options}
    return Request(
        kind=query.protocol.upper(),
        target="",
        action=action,
        arguments=arguments,
        sender=query.sender,
        raw=query.raw,
        time=time,
        problem=query.problem,
    )


def _map_arguments(proto: str, internal_port: int, external_port: int, lifetime: int) -> dict[str, str]:
    return {
        "proto": proto,
        "internal_port": str(internal_port),
        "external_port": str(external_port),
        "lifetime": str(lifetime),
    }


NO_ARGUMENTS: Mapping[str, str] = MappingProxyType({})
"""The arguments of a request that is no action."""
