"""What a lease is to hold, from what the caller said: ports, a range, "any", or a server that listens already."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import gcd
from typing import Final, Literal

from ..arguments import check_address, check_desc, check_duration, check_port, check_proto
from ..errors import UsageError
from ..models import MAX_PINHOLE_DURATION, MappingKey, MappingRequest, PinholeRequest, Proto, Terms
from ..results import UPnPResult

__all__ = ["Claim", "OnConflict", "PortLike", "check_claim"]

OnConflict = Literal["fail", "take_over", "other_port"]
PortLike = int | range | Sequence[int] | asyncio.AbstractServer | socket.socket | TransportSocket

_HIGH_PORTS: Final = range(49152, 65536)
"""The dynamic ports (RFC 6335 section 6): where a port that may be any is looked for."""
_MOST_TRIES: Final = 8
"""Ports that are tried where any will do, and of a range that the caller has given:"""
_MOST_OF_RANGE: Final = 64
_MOST_PORTS: Final = 1024


@dataclass(frozen=True, slots=True)
class Claim:
    """What one lease is to hold.

    ``ports`` are external ports that are all wanted, ``choices`` those of which one is wanted (one of the two is
    empty); ``internal_port`` 0 means the same as the external one; ``internal_client`` "" means this machine.
    ``poll`` is how often to look at the gateway, in seconds; ``required`` whether it has to be had at first,
    ``ipv6`` whether pinholes belong to it.
    """

    ports: tuple[int, ...]
    choices: tuple[int, ...]
    internal_port: int
    internal_client: str
    protos: tuple[Proto, ...]
    terms: Terms
    on_conflict: OnConflict
    poll: float
    required: bool
    ipv6: bool = False

    def requests(self, port: int) -> tuple[MappingRequest, ...]:
        """Return the mappings that this claim wants for one external port."""
        return tuple(self.request(MappingKey(port, proto)) for proto in self.protos)

    def request(self, key: MappingKey) -> MappingRequest:
        """Return the mapping that this claim wants on one external port."""
        return MappingRequest(key, self.internal_port or key.external_port, self.internal_client, self.terms)

    def pinholes(self, mappings: Iterable[MappingRequest]) -> tuple[PinholeRequest, ...]:
        """Return the pinholes that go with mappings: over IPv6 packets come straight to the internal port."""
        if not self.ipv6:
            return ()
        seconds = min(self.terms.duration or MAX_PINHOLE_DURATION, MAX_PINHOLE_DURATION)
        places = dict.fromkeys((one.internal_port, one.key.proto) for one in mappings)
        return tuple(PinholeRequest("", port, proto, "", 0, seconds) for port, proto in places)

    def alternatives(self, taken: MappingRequest) -> Iterator[MappingRequest]:
        """Yield what may be had in the place of a mapping whose port is taken, the same in every run."""
        port = taken.key.external_port
        others: Sequence[int] = self.choices
        if not others and self.on_conflict == "other_port":
            others = _stable_choice(_HIGH_PORTS, self.terms.desc, port)
        for other in others:
            if other != port:
                yield taken._replace(key=taken.key._replace(external_port=other))


def check_claim(
    port: object,
    internal_port: object,
    desc: object,
    proto: object,
    duration: object,
    on_conflict: object,
    *,
    poll: float = 60.0,
    required: bool = True,
    ipv6: bool = False,
) -> Claim:
    """Return a claim from what a caller said, or raise UsageError."""
    if on_conflict not in ("fail", "take_over", "other_port"):
        raise UsageError(f'on_conflict must be "fail", "take_over" or "other_port", not {on_conflict!r}')
    terms = Terms(check_desc(desc), check_duration(duration))
    inner = check_port(internal_port, "internal_port", lowest=0)
    client = ""
    protos = _protos(proto)
    ports: tuple[int, ...] = ()
    choices: Sequence[int] = ()
    if hasattr(port, "sockets") or hasattr(port, "getsockname"):
        listening, client, protos = _listening(port)
        if inner not in (0, listening):
            raise UsageError(f"internal_port is {inner}, and what is given listens on {listening}")
        ports, inner = (listening,), listening
    elif isinstance(port, range):
        choices = _stable_choice(_checked_range(port), terms.desc, inner, _MOST_OF_RANGE)
    elif isinstance(port, Iterable) and not isinstance(port, (str, bytes)):
        ports = _checked_ports(port)
        if inner and len(ports) > 1:
            raise UsageError("internal_port must be 0 for several ports: each is forwarded to the same number")
    else:
        number = check_port(port, lowest=0)
        if number:
            ports = (number,)
        else:
            choices = _stable_choice(_HIGH_PORTS, terms.desc, inner)
    return Claim(ports, tuple(choices), inner, client, protos, terms, on_conflict, poll, required, ipv6)


def _checked_range(ports: range) -> range:
    if not ports:
        raise UsageError(f"an empty range of ports: {ports!r}", UPnPResult.INVALID_PORT)
    check_port(ports[0])
    check_port(ports[-1])
    return ports


def _checked_ports(given: Iterable[object]) -> tuple[int, ...]:
    ports = tuple(dict.fromkeys(check_port(one) for one in islice(given, 65536)))
    if not 0 < len(ports) <= _MOST_PORTS:
        raise UsageError(f"a lease holds 1 to {_MOST_PORTS} ports, not {len(ports)}", UPnPResult.INVALID_PORT)
    return ports


def _protos(proto: object) -> tuple[Proto, ...]:
    if isinstance(proto, Iterable) and not isinstance(proto, str):
        protos = tuple(dict.fromkeys(check_proto(one) for one in proto))
        if not protos:
            raise UsageError("no protocol is given", UPnPResult.INVALID_PROTOCOL)
        return protos
    return (check_proto(proto),)


def _stable_choice(ports: Sequence[int], desc: str, salt: int, most: int = _MOST_TRIES) -> Sequence[int]:
    """Return some of the ports, in an order that is the same in every run of a program on this host."""
    seed = hashlib.sha256(f"{desc}\0{salt}\0{socket.gethostname()}".encode("utf-8", "replace")).digest()
    start = int.from_bytes(seed[:4], "big")
    step = int.from_bytes(seed[4:8], "big")
    while gcd(step, len(ports)) != 1:  # so that no port comes twice
        step += 1
    return [ports[(start + number * step) % len(ports)] for number in range(min(most, len(ports)))]


def _listening(given: object) -> tuple[int, str, tuple[Proto, ...]]:
    """Return port, internal client and protocol of something that listens over IPv4."""
    sockets = getattr(given, "sockets", (given,))
    for sock in sorted(sockets, key=lambda one: one.family != socket.AF_INET):
        if sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            address, port = sock.getsockname()[:2]
            address = address.removeprefix("::ffff:") if address != "::" else "0.0.0.0"  # noqa: S104 - nobody binds to it
        elif sock.family == socket.AF_INET:
            address, port = sock.getsockname()
        else:
            continue
        if port and ":" not in address:
            client = "" if address == "0.0.0.0" else check_address(address, "the address it listens on")  # noqa: S104
            return port, client, ("UDP" if sock.type == socket.SOCK_DGRAM else "TCP",)
    raise UsageError(f"{given!r} does not listen on any IPv4 port")
