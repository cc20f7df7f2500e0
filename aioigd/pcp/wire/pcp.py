"""What does a message say? PCP (RFC 6887): bytes to models and back.

Requests are parsed, too, for the emulated gateway.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Final

from .common import Address, pack_address, unpack_address

__all__ = [
    "MAX_SIZE",
    "NONCE_SIZE",
    "VERSION",
    "Filter",
    "MapData",
    "Opcode",
    "Option",
    "OptionCode",
    "OtherOption",
    "PreferFailure",
    "RemotePeer",
    "Request",
    "Response",
    "ResultCode",
    "ThirdParty",
    "build_refusal",
    "build_request",
    "build_response",
    "parse_request",
    "parse_response",
]

VERSION: Final = 2
"""The first byte of a message (section 7.1)."""
MAX_SIZE: Final = 1100
"""Bytes of the longest message, which is a multiple of 4 (section 7)."""
NONCE_SIZE: Final = 12
"""Bytes of a mapping nonce (section 11.1)."""

_RESPONSE: Final = 0x80
_OPTIONAL: Final = 0x80
"""The bit of an option's code that says that a server may ignore the option (section 7.3)."""
_REQUEST: Final = struct.Struct("!BBxxI16s")
_RESPONSE_HEADER: Final = struct.Struct("!BBxBII12x")
_MAP: Final = struct.Struct("!12sB3xHH16s")
_PEER: Final = struct.Struct("!H2x16s")
_OPTION: Final = struct.Struct("!BxH")
_FILTER: Final = struct.Struct("!xBH16s")
_HEADER_SIZE: Final = 24


class Opcode(IntEnum):
    """What is asked for (section 19.2); a response has 128 more."""

    ANNOUNCE = 0
    MAP = 1
    PEER = 2


_OPCODES: Final = frozenset(map(int, Opcode))


class ResultCode(IntEnum):
    """What became of a request (section 7.4)."""

    SUCCESS = 0
    UNSUPP_VERSION = 1
    NOT_AUTHORIZED = 2
    MALFORMED_REQUEST = 3
    UNSUPP_OPCODE = 4
    UNSUPP_OPTION = 5
    MALFORMED_OPTION = 6
    NETWORK_FAILURE = 7
    NO_RESOURCES = 8
    UNSUPP_PROTOCOL = 9
    USER_EX_QUOTA = 10
    CANNOT_PROVIDE_EXTERNAL = 11
    ADDRESS_MISMATCH = 12
    EXCESSIVE_REMOTE_PEERS = 13


class OptionCode(IntEnum):
    """The options that are known here (section 19.4)."""

    THIRD_PARTY = 1
    PREFER_FAILURE = 2
    FILTER = 3


@dataclass(frozen=True, slots=True)
class ThirdParty:
    """The mapping is for another host (section 13.1)."""

    address: Address


@dataclass(frozen=True, slots=True)
class PreferFailure:
    """The suggested port or nothing (section 13.2)."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Only packets from these remote hosts may use the mapping (section 13.3).

    ``prefix_length`` is that of the 128 bits: an IPv4 network has 96 more than usual, and 0 means that all filters of
    the mapping end. ``port`` 0 is any port.
    """

    prefix_length: int
    port: int
    address: Address

    def lets_in(self, host: Address, port: int) -> bool:
        """Return whether packets of a remote host and port may use the mapping."""
        ignored = max(0, 128 - self.prefix_length)
        wanted, found = (int.from_bytes(pack_address(each)) >> ignored for each in (self.address, host))
        return wanted == found and self.port in (0, port)


@dataclass(frozen=True, slots=True)
class OtherOption:
    """An option that is not known here, or that has the wrong length."""

    code: int
    data: bytes

    @property
    def is_mandatory(self) -> bool:
        """Whether a server that does not know it has to refuse the request (section 7.3)."""
        return not self.code & _OPTIONAL


Option = ThirdParty | PreferFailure | Filter | OtherOption


@dataclass(frozen=True, slots=True)
class RemotePeer:
    """The remote end of a connection, for the PEER opcode (section 12.1)."""

    port: int
    address: Address


@dataclass(frozen=True, slots=True)
class MapData:
    """What MAP and PEER say of a mapping (section 11.1).

    ``protocol`` is an IANA number. In a request the external port and address are suggestions, in the response what
    was assigned. ``peer`` is None for MAP.
    """

    nonce: bytes
    protocol: int
    internal_port: int
    external_port: int
    external_address: Address
    peer: RemotePeer | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request; ``client`` is the address of the host that asks, ``lifetime`` in seconds (section 7.1)."""

    opcode: int
    client: Address
    lifetime: int = 0
    mapping: MapData | None = None
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class Response:
    """A response (section 7.2).

    ``lifetime`` is that of the mapping, and of an error the seconds for which asking again is of no use. ``epoch`` is
    the age of the router's state in seconds. ``mapping`` is None for ANNOUNCE, and in short refusals. ``version`` is
    another one only where ``result`` is UNSUPP_VERSION: the version that the router speaks (section 9).
    """

    opcode: int
    result: int
    lifetime: int
    epoch: int
    mapping: MapData | None = None
    options: tuple[Option, ...] = ()
    version: int = VERSION


def build_request(request: Request) -> bytes:
    """Return the bytes of a request."""
    head = _REQUEST.pack(VERSION, request.opcode, request.lifetime, pack_address(request.client))
    return head + _build_body(request.mapping, request.options)


def build_response(response: Response) -> bytes:
    """Return the bytes of a response."""
    head = _RESPONSE_HEADER.pack(
        response.version, _RESPONSE | response.opcode, response.result, response.lifetime, response.epoch
    )
    return head + _build_body(response.mapping, response.options)


def build_refusal(datagram: bytes, result: int, *, lifetime: int, epoch: int) -> bytes:
    """Return the response that refuses a request: its own bytes under the header of a response (section 8.2).

    ``lifetime`` is the seconds for which asking again is of no use.
    """
    head = _RESPONSE_HEADER.pack(VERSION, _RESPONSE | datagram[1], result, lifetime, epoch)
    copied = head + datagram[_HEADER_SIZE:MAX_SIZE]
    return copied + bytes(-len(copied) % 4)


def parse_request(datagram: bytes) -> Request | ResultCode | None:
    """Return the request in a datagram.

    A ResultCode is that with which a router refuses the datagram, None that it says nothing (section 8.2). Whether the
    sender may have what it asks for is not looked at.
    """
    if len(datagram) < 2 or datagram[1] & _RESPONSE:
        return None
    if datagram[0] != VERSION:
        return ResultCode.UNSUPP_VERSION
    if datagram[1] not in (Opcode.ANNOUNCE, Opcode.MAP):
        return ResultCode.UNSUPP_OPCODE
    if not _is_whole(datagram):
        return ResultCode.MALFORMED_REQUEST
    _, opcode, lifetime, client = _REQUEST.unpack_from(datagram)
    mapping, end = _parse_mapping(datagram, opcode)
    if mapping is None and opcode != Opcode.ANNOUNCE:
        return ResultCode.MALFORMED_REQUEST
    options = _parse_options(datagram, end)
    if options is None:
        return ResultCode.MALFORMED_OPTION
    return _problem_of(opcode, options) or Request(opcode, unpack_address(client), lifetime, mapping, options)


def parse_response(datagram: bytes) -> Response | None:
    """Return the response in a datagram, None where there is no valid one.

    Options that are not known are among its options as they are.
    """
    if not _is_whole(datagram) or not datagram[1] & _RESPONSE:
        return None
    version, opcode, result, lifetime, epoch = _RESPONSE_HEADER.unpack_from(datagram)
    opcode ^= _RESPONSE
    if version != VERSION:
        # Only its header is known to be the same in other versions of PCP; version 0 is NAT-PMP, which has another.
        refused = version != 0 and result == ResultCode.UNSUPP_VERSION
        return Response(opcode, result, lifetime, epoch, version=version) if refused else None
    if opcode not in _OPCODES:
        return None
    mapping, end = _parse_mapping(datagram, opcode)
    if result != ResultCode.SUCCESS:
        # The rest is what the client has sent itself.
        return Response(opcode, result, lifetime, epoch, mapping)
    if mapping is None and opcode != Opcode.ANNOUNCE:
        return None
    options = _parse_options(datagram, end) if end < len(datagram) else ()
    return None if options is None else Response(opcode, result, lifetime, epoch, mapping, options)


def _build_body(mapping: MapData | None, options: Iterable[Option]) -> bytes:
    body = b""
    if mapping is not None:
        body = _MAP.pack(
            mapping.nonce,
            mapping.protocol,
            mapping.internal_port,
            mapping.external_port,
            pack_address(mapping.external_address),
        )
        if mapping.peer is not None:
            body += _PEER.pack(mapping.peer.port, pack_address(mapping.peer.address))
    return body + b"".join(map(_build_option, options))


def _build_option(option: Option) -> bytes:
    code: int
    match option:
        case ThirdParty(address):
            code, data = OptionCode.THIRD_PARTY, pack_address(address)
        case PreferFailure():
            code, data = OptionCode.PREFER_FAILURE, b""
        case Filter(prefix_length, port, address):
            code, data = OptionCode.FILTER, _FILTER.pack(prefix_length, port, pack_address(address))
        case OtherOption(code, data):
            pass
    return _OPTION.pack(code, len(data)) + data + bytes(-len(data) % 4)


def _is_whole(datagram: bytes) -> bool:
    """Whether a message has one of the lengths that a message may have (section 7)."""
    return _HEADER_SIZE <= len(datagram) <= MAX_SIZE and len(datagram) % 4 == 0


def _parse_mapping(datagram: bytes, opcode: int) -> tuple[MapData | None, int]:
    """Return what follows the header, None where it is too short, and the index behind it."""
    end = _HEADER_SIZE
    if opcode == Opcode.ANNOUNCE:
        return None, end
    if len(datagram) < end + _MAP.size:
        return None, end
    nonce, protocol, internal_port, external_port, external = _MAP.unpack_from(datagram, end)
    end += _MAP.size
    peer = None
    if opcode == Opcode.PEER:
        if len(datagram) < end + _PEER.size:
            return None, end
        port, address = _PEER.unpack_from(datagram, end)
        peer = RemotePeer(port, unpack_address(address))
        end += _PEER.size
    return MapData(nonce, protocol, internal_port, external_port, unpack_address(external), peer), end


def _parse_options(datagram: bytes, index: int) -> tuple[Option, ...] | None:
    """Return the options from an index on, None where one of them is longer than the message (section 7.3)."""
    options = []
    while index < len(datagram):
        code, size = _OPTION.unpack_from(datagram, index)
        index += _OPTION.size
        if index + size > len(datagram):
            return None
        data = datagram[index : index + size]
        read = _OPTIONS.get((code, size))
        options.append(OtherOption(code, data) if read is None else read(data))
        index += size + -size % 4
    return tuple(options)


def _read_filter(data: bytes) -> Filter:
    prefix_length, port, address = _FILTER.unpack(data)
    return Filter(prefix_length, port, unpack_address(address))


_OPTIONS: Final[dict[tuple[int, int], Callable[[bytes], Option]]] = {
    (OptionCode.THIRD_PARTY, 16): lambda data: ThirdParty(unpack_address(data)),
    (OptionCode.PREFER_FAILURE, 0): lambda data: PreferFailure(),
    (OptionCode.FILTER, _FILTER.size): _read_filter,
}
"""Readers of options by code and length."""
_KNOWN: Final = frozenset(OptionCode)


def _problem_of(opcode: int, options: tuple[Option, ...]) -> ResultCode | None:
    """Return with which result options are refused, None where they are in order (sections 7.3 and 13)."""
    for option in options:
        if isinstance(option, OtherOption):
            if option.code in _KNOWN:
                return ResultCode.MALFORMED_OPTION
            if option.is_mandatory:
                return ResultCode.UNSUPP_OPTION
        elif opcode != Opcode.MAP or (isinstance(option, Filter) and not _is_prefix(option)):
            return ResultCode.MALFORMED_OPTION
    for once in (ThirdParty, PreferFailure):
        if sum(isinstance(option, once) for option in options) > 1:
            return ResultCode.MALFORMED_OPTION
    return None


def _is_prefix(option: Filter) -> bool:
    shortest = 96 if isinstance(option.address, IPv4Address) else 1
    return option.prefix_length == 0 or shortest <= option.prefix_length <= 128
