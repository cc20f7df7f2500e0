"""What is wanted of a lease, from what the caller said: ports, a range, "any", or a server that listens already."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import gcd
from typing import Any, Final, Literal, NamedTuple

from ..arguments import check_address, check_desc, check_duration, check_port, check_proto, usage_errors_only
from ..errors import UsageError
from ..models import MAX_PINHOLE_DURATION, MappingKey, MappingRequest, PinholeRequest, PortMapping, Proto, Terms
from ..results import UPnPResult
from ..text import shown

__all__ = ["LeaseRequest", "OnConflict", "PortLike", "check_lease_request"]

OnConflict = Literal["fail", "take_over", "other_port"]
PortLike = (
    int
    | range
    | Sequence[int]
    | asyncio.AbstractServer
    | asyncio.BaseTransport
    | asyncio.StreamWriter
    | socket.socket
    | TransportSocket
)

_HIGH_PORTS: Final = range(49152, 65536)
"""The dynamic ports (RFC 6335 section 6): where a port that may be any is looked for."""
_MOST_TRIES: Final = 8
"""Ports that are tried where any will do."""
_MOST_TRIES_IN_RANGE: Final = 64
"""Ports that are tried of a range that the caller has given."""
_MOST_PORTS: Final = 1024
"""Ports of one lease."""


class LeaseRequest(NamedTuple):
    """One lease as it was asked for, checked.

    ``ports`` are external ports that are all wanted, ``choices`` those of which one is wanted (one of the two is
    empty); ``internal_port`` 0 means the same as the external one; ``internal_client`` "" means this machine.
    ``poll_interval`` is how often to poll the gateway, in seconds; ``required`` whether the lease has to be had at
    first, ``ipv6`` whether pinholes belong to it. ``ports_v6`` are the ports that listen over IPv6, where they are
    known apart; empty means the internal ports.
    """

    ports: tuple[int, ...]
    choices: tuple[int, ...]
    internal_port: int
    internal_client: str
    protos: tuple[Proto, ...]
    terms: Terms
    on_conflict: OnConflict
    poll_interval: float
    required: bool
    ipv6: bool = False
    ports_v6: tuple[int, ...] = ()

    def mapping_requests(self, port: int) -> tuple[MappingRequest, ...]:
        """Return the mappings that are wanted for one external port."""
        return tuple(self.mapping_request(MappingKey(port, proto)) for proto in self.protos)

    def mapping_request(self, key: MappingKey) -> MappingRequest:
        """Return the mapping that is wanted on one external port."""
        return MappingRequest(key, self.internal_port or key.external_port, self.internal_client, self.terms)

    def wanted_mapping(self, wanted: MappingRequest) -> PortMapping:
        """Return what is wanted as a mapping that was not granted yet.

        Its external port is 0 where any of several will do, its internal port 0 where it is to be the same, its
        internal client "" for this machine.
        """
        key, terms = wanted.key, wanted.terms
        external, internal = (0, self.internal_port) if self.choices else (key.external_port, wanted.internal_port)
        return PortMapping(
            external, internal, wanted.internal_client, key.proto, terms.desc, terms.duration, key.remote_host
        )

    def wanted_mappings(self) -> tuple[PortMapping, ...]:
        """Return all that is wanted, before anything was tried."""
        return tuple(self.wanted_mapping(one) for port in self.ports or (0,) for one in self.mapping_requests(port))

    def pinhole_requests(self, mappings: Iterable[MappingRequest]) -> tuple[PinholeRequest, ...]:
        """Return the pinholes that go with mappings: over IPv6 packets come straight to the port that listens."""
        if not self.ipv6:
            return ()
        seconds = min(self.terms.duration or MAX_PINHOLE_DURATION, MAX_PINHOLE_DURATION)
        endpoints = dict.fromkeys(
            (port, one.key.proto) for one in mappings for port in self.ports_v6 or (one.internal_port,)
        )
        return tuple(PinholeRequest("", port, proto, "", 0, seconds) for port, proto in endpoints)

    def alternatives(self, taken: MappingRequest) -> Iterator[MappingRequest]:
        """Yield what may be had in the place of a mapping whose port is taken, the same in every run."""
        port = taken.key.external_port
        others: Sequence[int] = self.choices
        if not others and self.on_conflict == "other_port":
            others = _stable_choice(_HIGH_PORTS, self.terms.desc, port)
        for other in others:
            if other != port:
                yield taken._replace(key=taken.key._replace(external_port=other))


@usage_errors_only
def check_lease_request(
    port: object,
    internal_port: object,
    desc: object,
    proto: object,
    duration: object,
    on_conflict: object,
    *,
    internal_client: object = None,
    poll_interval: float = 60.0,
    required: bool = True,
    ipv6: bool = False,
) -> LeaseRequest:
    """Return the lease that a caller asks for, or raise UsageError."""
    on_taken = _on_conflict(on_conflict)
    terms = Terms(check_desc(desc), check_duration(duration))
    inner = check_port(internal_port, "internal_port", lowest=0)
    client = check_address(internal_client, "internal_client")
    if client and ipv6:
        raise UsageError("ipv6 opens ports of this machine only, and internal_client may be another")
    protos = _protos(proto)
    ports: tuple[int, ...] = ()
    choices: Sequence[int] = ()
    ports_v6: tuple[int, ...] = ()
    if any(hasattr(port, name) for name in ("sockets", "getsockname", "get_extra_info")):
        sockets = _sockets_of(port)
        listening, address, protos = _listening(port, sockets)
        client, ports_v6 = client or address, _ports_v6(sockets)
        if inner not in (0, listening):
            raise UsageError(f"internal_port is {inner}, and what is given listens on {listening}")
        ports, inner = (listening,), listening
    elif isinstance(port, range):
        choices = _stable_choice(_checked_range(port), terms.desc, inner, _MOST_TRIES_IN_RANGE)
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
    return LeaseRequest(
        ports, tuple(choices), inner, client, protos, terms, on_taken, poll_interval, required, ipv6, ports_v6
    )


def _on_conflict(value: object) -> OnConflict:
    match str.__str__(value) if isinstance(value, str) else None:
        case "fail":
            return "fail"
        case "take_over":
            return "take_over"
        case "other_port":
            return "other_port"
    raise UsageError(f'on_conflict must be "fail", "take_over" or "other_port", not {shown(value)}')


def _checked_range(ports: range) -> range:
    if not ports:
        raise UsageError(f"an empty range of ports: {shown(ports)}", UPnPResult.INVALID_PORT)
    check_port(ports[0])
    check_port(ports[-1])
    return ports


def _checked_ports(given: Iterable[object]) -> tuple[int, ...]:
    ports = tuple(dict.fromkeys(check_port(one) for one in islice(given, 65536)))
    if not 0 < len(ports) <= _MOST_PORTS:
        raise UsageError(f"a lease holds 1 to {_MOST_PORTS} ports, not {len(ports)}", UPnPResult.INVALID_PORT)
    return ports


_MOST_PROTOS: Final = 16
"""Protocols that are looked at: an iterable may have no end."""


def _protos(proto: object) -> tuple[Proto, ...]:
    if isinstance(proto, Iterable) and not isinstance(proto, str):
        protos = tuple(dict.fromkeys(check_proto(one) for one in islice(proto, _MOST_PROTOS)))
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


def _sockets_of(given: Any) -> Sequence[socket.socket | TransportSocket]:
    """Return the sockets of a server, a transport, anything else with ``get_extra_info``, or a socket."""
    if hasattr(given, "sockets"):
        return tuple(given.sockets)
    if hasattr(given, "getsockname"):
        return (given,)
    sock = given.get_extra_info("socket")
    if sock is None:
        raise UsageError(f"{shown(given)} has no socket")
    return (sock,)


def _listening(given: object, sockets: Iterable[Any]) -> tuple[int, str, tuple[Proto, ...]]:
    """Return port, internal client and protocol of something that listens over IPv4."""
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
    raise UsageError(f"{shown(given)} does not listen on any IPv4 port")


def _ports_v6(sockets: Iterable[Any]) -> tuple[int, ...]:
    """Return the ports on which something listens over IPv6: a server on port 0 may have another than over IPv4."""
    bound = [sock.getsockname() for sock in sockets if sock.family == socket.AF_INET6]
    return tuple(dict.fromkeys(port for host, port, *_ in bound if port and not _is_ours_alone(host)))


def _is_ours_alone(host: str) -> bool:
    """Return whether an IPv6 socket bound to an address is not reached over IPv6 from outside."""
    return host == "::1" or host.startswith("::ffff:")
