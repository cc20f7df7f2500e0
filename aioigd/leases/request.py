"""What is wanted of a lease, from what the caller said: ports, a range, "any", or a server that listens already."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import gcd
from typing import Any, Final, Literal, NamedTuple

from ..arguments import (
    OneOf,
    check_address,
    check_desc,
    check_duration,
    check_port,
    check_proto,
    usage_errors_only,
)
from ..errors import UsageError
from ..models import MAX_PINHOLE_DURATION, MappingKey, MappingRequest, PinholeRequest, PortMapping, Proto, Terms
from ..results import UPnPResult
from ..text import shown

__all__ = ["MOST_TRIES", "LeaseRequest", "OnConflict", "PortLike", "check_lease_request"]

OnConflict = Literal["fail", "take_over", "other_port"]
PortLike = (
    int
    | range
    | OneOf
    | Sequence[int]
    | asyncio.AbstractServer
    | asyncio.BaseTransport
    | asyncio.StreamWriter
    | socket.socket
    | TransportSocket
)

_HIGH_PORTS: Final = range(49152, 65536)
"""The dynamic ports (RFC 6335 section 6): where a port that may be any is looked for."""
MOST_TRIES: Final = 256
"""Ports that are tried where one of several will do."""
_WINDOW: Final = 4096
"""Ports of which, in steps of _STRIDE, one is in a block of every customer of a MAP-E line (RFC 7597 section 5.1)."""
_STRIDE: Final = 16
"""Ports in a row that one customer of such a line has: 240 in all, 16 in each 4,096 but the first."""
_MOST_PORTS: Final = 1024
"""Ports of one lease."""


class LeaseRequest(NamedTuple):
    """One lease as it was asked for, checked.

    ``ports`` are external ports that are all wanted, ``choices`` those of which one is wanted (one of the two is
    empty), ``any_port`` whether any other would do as well, ``given_range`` the range that the caller gave;
    ``internal_port`` 0 means the same as the external one; ``internal_client`` "" means this machine.
    ``poll_interval`` is how often to poll the gateway, in seconds; ``required`` whether the lease has to be had at
    first, ``ipv6`` whether pinholes belong to it. ``ports_v6`` are the ports that listen over IPv6, where they are
    known apart; empty means the internal ports.
    """

    ports: tuple[int, ...]
    choices: Sequence[int]
    internal_port: int
    internal_client: str
    protos: tuple[Proto, ...]
    terms: Terms
    on_conflict: OnConflict
    poll_interval: float
    required: bool
    ipv6: bool = False
    ports_v6: tuple[int, ...] = ()
    any_port: bool = False
    given_range: range | None = None

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

    @property
    def takes_any_port(self) -> bool:
        """Whether any other external port will do where the one that was asked for cannot be had."""
        return self.any_port or (self.on_conflict == "other_port" and not self.choices)

    @property
    def may_move(self) -> bool:
        """Whether another external port will do where one cannot be had."""
        return bool(self.choices) or self.on_conflict == "other_port"

    def other_ports(self, port: int) -> Sequence[int]:
        """Return the ports that may be tried in the place of one that cannot be had, the same in every run."""
        if self.choices:
            return [other for other in self.choices if other != port]
        if self.on_conflict != "other_port":
            return ()
        block = port % _WINDOW // _STRIDE if port >= _WINDOW else -1  # the one that was refused, at another customer's
        others = (other for other in _any_port(self.terms.desc, port) if other % _WINDOW // _STRIDE != block)
        return tuple(islice(others, MOST_TRIES - 1))

    def near(self, port: int) -> Sequence[int]:
        """Return the ports that will do and that go to the same customer as one that was granted (MAP-E)."""
        first = port - port % _STRIDE
        block = range(first, first + _STRIDE)
        if self.given_range is not None:
            return [one for one in block if one in self.given_range]
        return block if self.takes_any_port and first else ()

    def moved(self, wanted: MappingRequest, port: int, *, was_had: bool = False) -> MappingRequest:
        """Return a mapping that is wanted on another external port.

        The internal port follows where the caller left both open, unless the lease ``was_had`` already.
        """
        key = wanted.key._replace(external_port=port)
        return wanted._replace(key=key) if was_had or not self.choices else self.mapping_request(key)


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
    any_port = False
    given_range: range | None = None
    if any(hasattr(port, name) for name in ("sockets", "getsockname", "get_extra_info")):
        sockets = _sockets_of(port)
        listening, address, protos = _listening(port, sockets)
        client, ports_v6 = client or address, _ports_v6(sockets)
        if inner not in (0, listening):
            raise UsageError(f"internal_port is {inner}, and what is given listens on {listening}")
        ports, inner = (listening,), listening
    elif isinstance(port, range):
        choices, given_range = _some_of(_checked_range(port), terms.desc, inner), port
    elif isinstance(port, OneOf):
        choices = port.ports[:MOST_TRIES]
    elif isinstance(port, Iterable) and not isinstance(port, (str, bytes)):
        ports = _checked_ports(port)
        if inner and len(ports) > 1:
            raise UsageError("internal_port must be 0 for several ports: each is forwarded to the same number")
    else:
        number = check_port(port, lowest=0)
        if number:
            ports = (number,)
        else:
            choices, any_port = _any_port(terms.desc, inner), True
    return LeaseRequest(
        ports,
        choices,
        inner,
        client,
        protos,
        terms,
        on_taken,
        poll_interval,
        required,
        ipv6,
        ports_v6,
        any_port,
        given_range,
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


@dataclass(frozen=True, slots=True)
class _Walk(Sequence[int]):
    """At most MOST_TRIES of some ports, each once, in an order of its own; not a list, as there may be many leases."""

    ports: range
    start: int
    step: int

    def __len__(self) -> int:
        return min(len(self.ports), MOST_TRIES)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        return self.ports[(self.start + range(len(self))[index] * self.step) % len(self.ports)]


def _any_port(desc: str, salt: int) -> Sequence[int]:
    """Return dynamic ports to be tried, one of them in a block of each customer of a MAP-E line."""
    start, step = _seed(desc, salt)
    first = _HIGH_PORTS[start % (len(_HIGH_PORTS) // _WINDOW) * _WINDOW + step % _STRIDE]
    return _walk(range(first, first + _WINDOW - step % _STRIDE, _STRIDE), start, step)


def _some_of(ports: range, desc: str, salt: int) -> Sequence[int]:
    """Return ports of a range to be tried, spread in the same way where there are more than can be tried."""
    start, step = _seed(desc, salt)
    if len(ports) <= MOST_TRIES or abs(ports.step) >= _STRIDE:
        return _walk(ports, start, step)
    lowest, highest = min(ports[0], ports[-1]), max(ports[0], ports[-1])
    last_window = highest - _WINDOW + 1
    if last_window > lowest:
        lowest = max(lowest, min(_WINDOW, last_window))  # customers have none below 4,096
        lowest += start % (last_window - lowest + 1)
        lowest -= lowest % _STRIDE if lowest % _STRIDE <= lowest - min(ports[0], ports[-1]) else 0
    rows: dict[int, list[int]] = {}
    for port in ports:
        if lowest <= port < lowest + _WINDOW:
            rows.setdefault(port // _STRIDE, []).append(port)
    order = [rows[row] for row in _shuffled(list(rows), start, step)]
    tried = (row[(start + number) % len(row)] for number in range(_STRIDE) for row in order if number < len(row))
    return tuple(islice(tried, MOST_TRIES))


def _walk(ports: range, start: int, step: int) -> _Walk:
    while gcd(step, len(ports)) != 1:  # so that no port comes twice
        step += 1
    return _Walk(ports, start % len(ports), step % len(ports) or 1)


def _shuffled(rows: Sequence[int], start: int, step: int) -> list[int]:
    while gcd(step, len(rows)) != 1:
        step += 1
    return [rows[(start + number * step) % len(rows)] for number in range(len(rows))]


def _seed(desc: str, salt: int) -> tuple[int, int]:
    """Return two numbers that are the same in every run of a program on this host."""
    seed = hashlib.sha256(f"{desc}\0{salt}\0{socket.gethostname()}".encode("utf-8", "replace")).digest()
    return int.from_bytes(seed[:4], "big"), int.from_bytes(seed[4:8], "big")


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
