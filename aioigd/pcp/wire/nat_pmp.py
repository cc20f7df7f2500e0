"""What does a message say? NAT-PMP (RFC 6886): bytes to models and back.

Requests are parsed, too, for the emulated gateway.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Final

from ...models import Proto

__all__ = [
    "VERSION",
    "AddressRequest",
    "AddressResponse",
    "MapRequest",
    "MapResponse",
    "Opcode",
    "Refusal",
    "Request",
    "Response",
    "ResultCode",
    "build_request",
    "build_response",
    "parse_request",
    "parse_response",
]

VERSION: Final = 0
"""The first byte of every message."""

_RESPONSE: Final = 0x80
_REFUSAL_SIZES: Final = range(8, 1101)
"""Bytes of a refusal: its header at least, and what a PCP server may send at most (RFC 6887 section 7)."""
_HEADER: Final = struct.Struct("!BBHI")
_ADDRESS: Final = struct.Struct("!BBHI4s")
_MAP_REQUEST: Final = struct.Struct("!BBHHHI")
_MAP_RESPONSE: Final = struct.Struct("!BBHIHHI")


class Opcode(IntEnum):
    """What is asked for (sections 3.2 and 3.3); a response has 128 more."""

    ADDRESS = 0
    MAP_UDP = 1
    MAP_TCP = 2


_PROTO_OF: Final[dict[int, Proto]] = {Opcode.MAP_UDP: "UDP", Opcode.MAP_TCP: "TCP"}
_OPCODE_OF: Final[dict[Proto, Opcode]] = {"UDP": Opcode.MAP_UDP, "TCP": Opcode.MAP_TCP}


class ResultCode(IntEnum):
    """What became of a request (section 3.5)."""

    SUCCESS = 0
    UNSUPPORTED_VERSION = 1
    NOT_AUTHORIZED = 2
    NETWORK_FAILURE = 3
    OUT_OF_RESOURCES = 4
    UNSUPPORTED_OPCODE = 5


@dataclass(frozen=True, slots=True)
class AddressRequest:
    """Asks for the external address (section 3.2)."""

    @property
    def opcode(self) -> int:
        """The number of the request."""
        return Opcode.ADDRESS


@dataclass(frozen=True, slots=True)
class MapRequest:
    """Asks for a mapping, or with a ``lifetime`` of 0 for its end (sections 3.3 and 3.4).

    ``external_port`` is a suggestion, 0 for none; ``lifetime`` is in seconds. An ``internal_port`` of 0 stands for all
    mappings of the host and protocol, which can be deleted only.
    """

    proto: Proto
    internal_port: int
    external_port: int
    lifetime: int

    @property
    def opcode(self) -> int:
        """The number of the request."""
        return _OPCODE_OF[self.proto]


@dataclass(frozen=True, slots=True)
class AddressResponse:
    """The external address. Unasked, and to the multicast group, it is an announcement (section 3.2.1).

    ``epoch`` is the age of the router's state in seconds, in all responses.
    """

    epoch: int
    address: IPv4Address

    @property
    def opcode(self) -> int:
        """The number of the request that it answers."""
        return Opcode.ADDRESS


@dataclass(frozen=True, slots=True)
class MapResponse:
    """A mapping as it was granted for ``lifetime`` seconds; after a deletion external port and lifetime are 0."""

    epoch: int
    proto: Proto
    internal_port: int
    external_port: int
    lifetime: int

    @property
    def opcode(self) -> int:
        """The number of the request that it answers."""
        return _OPCODE_OF[self.proto]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A response with another result than SUCCESS: whatever follows its header means nothing (section 3.5).

    ``result`` is a :class:`ResultCode` or a number that the standard does not know. To a message of PCP a router that
    speaks NAT-PMP only answers with UNSUPPORTED_VERSION (RFC 6887 section 9).
    """

    opcode: int
    result: int
    epoch: int


Request = AddressRequest | MapRequest
Response = AddressResponse | MapResponse | Refusal


def build_request(request: Request) -> bytes:
    """Return the bytes of a request."""
    if isinstance(request, AddressRequest):
        return bytes((VERSION, Opcode.ADDRESS))
    return _MAP_REQUEST.pack(VERSION, request.opcode, 0, request.internal_port, request.external_port, request.lifetime)


def build_response(response: Response) -> bytes:
    """Return the bytes of a response."""
    opcode = _RESPONSE | response.opcode
    if isinstance(response, AddressResponse):
        return _ADDRESS.pack(VERSION, opcode, 0, response.epoch, response.address.packed)
    if isinstance(response, MapResponse):
        return _MAP_RESPONSE.pack(
            VERSION,
            opcode,
            0,
            response.epoch,
            response.internal_port,
            response.external_port,
            response.lifetime,
        )
    return _HEADER.pack(VERSION, opcode, response.result, response.epoch)


def parse_request(datagram: bytes) -> Request | ResultCode | None:
    """Return the request in a datagram.

    A ResultCode is that with which a router refuses the datagram, None that it says nothing: to a response, or to
    something of the wrong length.
    """
    if len(datagram) < 2 or datagram[1] & _RESPONSE:
        return None
    version, opcode = datagram[0], datagram[1]
    if version != VERSION:
        return ResultCode.UNSUPPORTED_VERSION
    if opcode == Opcode.ADDRESS:
        return AddressRequest() if len(datagram) == 2 else None
    if opcode not in _PROTO_OF:
        return ResultCode.UNSUPPORTED_OPCODE
    if len(datagram) != _MAP_REQUEST.size:
        return None
    return MapRequest(_PROTO_OF[opcode], *_MAP_REQUEST.unpack(datagram)[3:])


def parse_response(datagram: bytes) -> Response | None:
    """Return the response in a datagram, None where there is no valid one.

    A success has exactly its length. A refusal may be longer than its header: some routers send a part of the request
    back, with ports and a lifetime that mean nothing.
    """
    size = len(datagram)
    if size not in _REFUSAL_SIZES or datagram[0] != VERSION or not datagram[1] & _RESPONSE:
        return None
    _, opcode, result, epoch = _HEADER.unpack_from(datagram)
    opcode ^= _RESPONSE
    if result:
        return Refusal(opcode, result, epoch)
    if opcode == Opcode.ADDRESS and size == _ADDRESS.size:
        return AddressResponse(epoch, IPv4Address(datagram[8:]))
    if opcode in _PROTO_OF and size == _MAP_RESPONSE.size:
        return MapResponse(epoch, _PROTO_OF[opcode], *_MAP_RESPONSE.unpack(datagram)[4:])
    return None
