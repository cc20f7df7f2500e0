"""What others may see of a message of PCP or NAT-PMP, and what it says in words.

The layout decides: what is not on the list of fields that are kept or replaced becomes zeros. So a message keeps its
length, and what is broken in it stays broken.
"""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address
from typing import Final

from ..pcp.wire import nat_pmp, pcp
from ..pcp.wire.common import PROTO_OF, pack_address, unpack_address
from .stand_ins import StandIns

__all__ = ["described", "scrubbed"]

_RESPONSE: Final = 0x80
_HEADER: Final = 24
_MAP_END: Final = 60
_PEER_END: Final = 80
_MOST_CHARACTERS: Final = 300


def scrubbed(payload: bytes, stand_ins: StandIns) -> bytes:
    """Return a message whose addresses and nonces are stand-ins; ports, lifetimes, results and epochs stay."""
    copy = _Copy(payload, stand_ins)
    copy.keep(0, 2)  # version and opcode
    version, opcode = payload[:1], payload[1] if len(payload) > 1 else 0
    if version == bytes((pcp.VERSION,)):
        _copy_pcp(copy, opcode)
    elif version == bytes((nat_pmp.VERSION,)):
        _copy_nat_pmp(copy, opcode)
    elif opcode & _RESPONSE:
        copy.keep(3, 4)  # the result: of another version of PCP no more is known
    return bytes(copy.made)


def described(payload: bytes) -> str:
    """Return what a message says, for people."""
    return _words(payload)[:_MOST_CHARACTERS]


class _Copy:
    """A message of zeros, into which is put what may be seen."""

    def __init__(self, payload: bytes, stand_ins: StandIns) -> None:
        self.payload = payload
        self.made = bytearray(len(payload))
        self._stand_ins = stand_ins

    def keep(self, start: int, end: int) -> None:
        """Copy a field."""
        self.made[start:end] = self.payload[start:end]

    def nonce(self, start: int) -> None:
        """Put another nonce in the place of one; a part of one is left out, as are parts of addresses."""
        field = self.payload[start : start + pcp.NONCE_SIZE]
        if len(field) == pcp.NONCE_SIZE:
            self.made[start : start + pcp.NONCE_SIZE] = self._stand_ins.nonce(field)

    def address(self, start: int) -> None:
        """Put another address in the place of one."""
        field = self.payload[start : start + 16]
        if len(field) == 16:
            address = unpack_address(field)
            known = self._stand_ins
            text = known.v4(address) if isinstance(address, IPv4Address) else known.v6(address)
            self.made[start : start + 16] = pack_address(ip_address(text))

    def address_v4(self, start: int) -> None:
        """Put another address in the place of one of NAT-PMP."""
        field = self.payload[start : start + 4]
        self.made[start : start + 4] = IPv4Address(self._stand_ins.v4(IPv4Address(field))).packed


def _copy_pcp(copy: _Copy, opcode: int) -> None:
    copy.keep(4, 8)
    if opcode & _RESPONSE:
        copy.keep(3, 4)
        copy.keep(8, 12)
    else:
        copy.address(8)
    end = _HEADER
    if opcode & ~_RESPONSE in (pcp.Opcode.MAP, pcp.Opcode.PEER):
        copy.nonce(24)
        copy.keep(36, 37)
        copy.keep(40, 44)
        copy.address(44)
        end = _MAP_END
    if opcode & ~_RESPONSE == pcp.Opcode.PEER:
        copy.keep(60, 62)
        copy.address(64)
        end = _PEER_END
    while end + 4 <= len(copy.payload):
        code, size = copy.payload[end], int.from_bytes(copy.payload[end + 2 : end + 4], "big")
        copy.keep(end, end + 1)
        copy.keep(end + 2, end + 4)
        if (code, size) == (pcp.OptionCode.THIRD_PARTY, 16):
            copy.address(end + 4)
        elif (code, size) == (pcp.OptionCode.FILTER, 20):
            copy.keep(end + 5, end + 8)
            copy.address(end + 8)
        end += 4 + size + -size % 4


def _copy_nat_pmp(copy: _Copy, opcode: int) -> None:
    size = len(copy.payload)
    if not opcode & _RESPONSE:
        if opcode in (nat_pmp.Opcode.MAP_UDP, nat_pmp.Opcode.MAP_TCP):
            copy.keep(4, 12)
        return
    copy.keep(2, 8)
    if copy.payload[2:4] == bytes((0, nat_pmp.ResultCode.UNSUPPORTED_VERSION)):
        return  # what follows may be a part of a request of PCP
    if opcode == _RESPONSE | nat_pmp.Opcode.ADDRESS and size == 12:
        copy.address_v4(8)
    elif opcode ^ _RESPONSE in (nat_pmp.Opcode.MAP_UDP, nat_pmp.Opcode.MAP_TCP) and size == 16:
        copy.keep(8, 16)


def _words(payload: bytes) -> str:
    is_nat_pmp = payload[:1] == bytes((nat_pmp.VERSION,))
    asked = nat_pmp.parse_request(payload) if is_nat_pmp else pcp.parse_request(payload)
    match asked:
        case nat_pmp.AddressRequest():
            return "NAT-PMP request: external address"
        case nat_pmp.MapRequest(proto, internal, external, lifetime):
            return f"NAT-PMP request: {proto} port {internal}, external port {external}, {lifetime} s"
        case pcp.Request(opcode, client, lifetime, mapping, options):
            said = f"PCP request: {_name(pcp.Opcode, opcode)} from {client}"
            return said + ("" if mapping is None else f", {_mapping(mapping)}, {lifetime} s{_options(options)}")
    match nat_pmp.parse_response(payload) or pcp.parse_response(payload):
        case nat_pmp.AddressResponse(epoch, address):
            return f"NAT-PMP reply: external address {address}; epoch {epoch}"
        case nat_pmp.MapResponse(epoch, proto, internal, external, lifetime):
            return f"NAT-PMP reply: {proto} port {internal}, external port {external}, {lifetime} s; epoch {epoch}"
        case nat_pmp.Refusal(opcode, result, epoch):
            return (
                f"NAT-PMP reply: {_name(nat_pmp.ResultCode, result)} to {_name(nat_pmp.Opcode, opcode)}; epoch {epoch}"
            )
        case pcp.Response(opcode, result, lifetime, epoch, mapping, options, version):
            said = f"PCP reply: {_name(pcp.ResultCode, result)} to {_name(pcp.Opcode, opcode)}"
            said += f" by version {version}" if version != pcp.VERSION else ""
            said += "" if mapping is None else f", {_mapping(mapping)}{_options(options)}"
            return f"{said}, {lifetime} s; epoch {epoch}"
    return "no message of PCP or NAT-PMP"


def _mapping(mapping: pcp.MapData) -> str:
    proto = PROTO_OF.get(mapping.protocol, f"protocol {mapping.protocol}")
    external = f"external port {mapping.external_port} of {mapping.external_address}"
    return f"{proto} port {mapping.internal_port}, {external}, nonce {mapping.nonce.hex()}"


def _options(options: tuple[pcp.Option, ...]) -> str:
    said = ""
    for option in options:
        match option:
            case pcp.ThirdParty(address):
                said += f", for {address}"
            case pcp.PreferFailure():
                said += ", this port or none"
            case pcp.Filter(length, port, address):
                said += f", only from {address} with {length} bits, port {port}"
            case pcp.OtherOption(code):
                said += f", option {code}"
    return said


def _name(codes: type[pcp.Opcode | pcp.ResultCode | nat_pmp.Opcode | nat_pmp.ResultCode], code: int) -> str:
    return codes(code).name if code in set(codes) else f"code {code}"
