"""Datagrams of NAT-PMP and PCP as the emulated gateway sees them, and what its quirks can change about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..pcp.wire import nat_pmp, pcp

__all__ = ["PcpDatagram", "PcpQuery", "PcpReply", "PcpRules", "SecondPort"]

PcpReply = pcp.Response | nat_pmp.Response
"""A reply before it is bytes. The rest of a refusal of PCP is made of the request."""


@dataclass(frozen=True, slots=True)
class PcpQuery:
    """A datagram from a client of NAT-PMP or PCP.

    ``protocol`` is the one that answers it, by its version and by what the gateway speaks. ``request`` is a
    ResultCode where it is refused as it stands, None where it is nothing that is answered. ``problem`` is how it
    violates the standards.
    """

    protocol: Literal["pcp", "nat-pmp"]
    request: pcp.Request | nat_pmp.Request | pcp.ResultCode | nat_pmp.ResultCode | None
    sender: tuple[str, int]
    raw: bytes = field(repr=False)
    problem: str = ""

    @property
    def maps(self) -> bool:
        """Whether it asks for a mapping, or for the end of one."""
        request = self.request
        return isinstance(request, nat_pmp.MapRequest) or (
            isinstance(request, pcp.Request) and request.mapping is not None
        )


@dataclass(frozen=True, slots=True)
class PcpDatagram:
    """A datagram to be sent: after ``delay`` seconds, from the gateway's own port and address, or from others."""

    payload: bytes
    delay: float = 0.0
    other_port: bool = False
    other_address: bool = False


SecondPort = Literal["keeps", "moves", "adds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PcpRules:
    """What routers decide for themselves; the defaults are what the standards say or recommend.

    ========================  =======================================================================================
    ``shortest``              seconds, the shortest lifetime that PCP grants (RFC 6887 section 15)
    ``longest``               seconds, the longest lifetime that PCP grants
    ``nat_pmp_shortest``      the same for NAT-PMP, which grants what is asked for
    ``nat_pmp_longest``
    ``ports``                 the external port of a mapping: the ``"suggested"`` one if it is free, only the number
                              of the ``"internal"`` port, or the router's ``"own"`` choice, one for TCP and UDP
    ``second_port``           what PCP does with a request for another external port of a port that is mapped: it
                              ``"keeps"`` the first one (RFC 6887 section 11.3), ``"moves"`` the mapping, or ``"adds"``
                              another one
    ``nat_pmp_second_port``   the same for NAT-PMP
    ``nonces_renewed``        whether a request with another nonce takes over the mapping of the same two ports, where
                              it should be NOT_AUTHORIZED
    ``third_party``           whether a host may map ports to another one
    ``filters``               whether FILTER is heeded; it is accepted in any case
    ``private_address``       whether a private external address is told by NAT-PMP
    ``strict_deletion``       whether PCP refuses deletions with an external port or address
    ``long_error``            seconds, the lifetime of errors that stay (RFC 6887 section 8.2)
    ``short_error``           seconds, the lifetime of those that may be over soon
    ``epoch_rate``            how fast its clock is
    ``address_resets_epoch``  whether another external address begins a new epoch
    ========================  =======================================================================================
    """

    shortest: int = 120
    longest: int = 86_400
    nat_pmp_shortest: int = 1
    nat_pmp_longest: int = 0xFFFFFFFF
    ports: Literal["suggested", "internal", "own"] = "suggested"
    second_port: SecondPort = "keeps"
    nat_pmp_second_port: SecondPort = "moves"
    nonces_renewed: bool = False
    third_party: bool = True
    filters: bool = True
    private_address: bool = True
    strict_deletion: bool = False
    long_error: int = 1800
    short_error: int = 30
    epoch_rate: float = 1.0
    address_resets_epoch: bool = True
