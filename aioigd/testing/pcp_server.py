"""NAT-PMP and PCP on the side of a router: datagrams are parsed, mappings made, replies and announcements returned.

No I/O and no event loop. A datagram goes through the hooks of the quirks, as a search or an HTTP request does, and the
mappings are in the same table as those of UPnP.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain
from typing import Final, Literal
from zlib import crc32

from ..models import MappingKey, Pinhole, PortMapping, Proto
from ..pcp.wire import nat_pmp, pcp
from ..pcp.wire.common import PROTO_OF, Address, unspecified_like
from .firewall import Firewall
from .hooks import Pipeline
from .pcp_messages import PcpDatagram, PcpQuery, PcpReply, PcpRules, SecondPort
from .wan_connection import Entry, ProtocolName, WanConnection

__all__ = ["PcpServer"]

_SHORT: Final = frozenset(
    {
        pcp.ResultCode.NETWORK_FAILURE,
        pcp.ResultCode.NO_RESOURCES,
        pcp.ResultCode.USER_EX_QUOTA,
        pcp.ResultCode.CANNOT_PROVIDE_EXTERNAL,
    }
)
"""Errors that may be over soon (RFC 6887 section 7.4)."""
_FIRST_PORT: Final = 1024
"""The first of the ports that are given where none was suggested, or the suggested one is taken."""
_LAST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class _Wish:
    """A mapping as it was asked for, by either protocol."""

    protocol: Literal["pcp", "nat-pmp"]
    client: str
    proto: Proto
    internal_port: int
    external_port: int
    lifetime: int
    exactly: bool = False
    nonce: bytes = b""
    filters: tuple[pcp.Filter, ...] = ()

    @property
    def owner(self) -> _Owner:
        return self.client, self.proto, self.internal_port


_Owner = tuple[str, Proto, int]
"""Host, protocol and internal port, to which a mapping belongs (RFC 6887 section 11.1)."""


class _Refused(Exception):
    """The request is refused, with this result by each of the protocols."""

    def __init__(self, result: pcp.ResultCode, nat_pmp_result: nat_pmp.ResultCode) -> None:
        super().__init__(result)
        self.result = result
        self.nat_pmp_result = nat_pmp_result


_NO_ADDRESS: Final = (pcp.ResultCode.NETWORK_FAILURE, nat_pmp.ResultCode.NETWORK_FAILURE)
_NO_ROOM: Final = (pcp.ResultCode.NO_RESOURCES, nat_pmp.ResultCode.OUT_OF_RESOURCES)
_NOT_YOURS: Final = (pcp.ResultCode.NOT_AUTHORIZED, nat_pmp.ResultCode.NOT_AUTHORIZED)
_NOT_THIS_PORT: Final = (pcp.ResultCode.CANNOT_PROVIDE_EXTERNAL, nat_pmp.ResultCode.OUT_OF_RESOURCES)


class PcpServer:
    """The server of one gateway for both protocols, or for one of them.

    ``protocols`` are those that it speaks, ``connection`` has the external address and the table, ``firewall`` the
    pinholes, which is what a mapping over IPv6 is, ``now`` returns seconds.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        protocols: Collection[ProtocolName],
        connection: WanConnection,
        firewall: Firewall,
        now: Callable[[], float],
    ) -> None:
        self._pipeline = pipeline
        self._protocols = protocols
        self._connection = connection
        self._firewall = firewall
        self._now = now
        self._rules = pipeline.pcp_rules(PcpRules(third_party=not connection.secure))
        self._owned: dict[_Owner, list[MappingKey]] = {}
        self._pinhole_nonces: dict[_Owner, bytes] = {}
        self._pinhole_filters: dict[_Owner, tuple[pcp.Filter, ...]] = {}
        self._since: float | None = None
        self._known_address = connection.external_address

    def start(self) -> None:
        """Begin the first epoch; it goes on through stops and starts."""
        if self._since is None:
            self.restart()

    def restart(self) -> None:
        """Begin a new epoch."""
        self._since = self._now()

    @property
    def epoch(self) -> int:
        """The age of its state in seconds; a changed external address begins a new one (RFC 6887 section 8.5)."""
        if self._connection.external_address != self._known_address:
            self._known_address = self._connection.external_address
            if self._rules.address_resets_epoch:
                self.restart()
        since = self._now() if self._since is None else self._since
        return max(0, math.floor((self._now() - since) * self._rules.epoch_rate))

    def understand(self, datagram: bytes, sender: tuple[str, int]) -> PcpQuery:
        """Return a datagram as it is understood."""
        is_nat_pmp = datagram[:1] == bytes((nat_pmp.VERSION,))
        if "pcp" not in self._protocols or (is_nat_pmp and "nat-pmp" in self._protocols):
            asked = nat_pmp.parse_request(datagram)
            return PcpQuery("nat-pmp", asked, sender, datagram, _nat_pmp_problem(asked))
        request = pcp.parse_request(datagram)
        return PcpQuery("pcp", request, sender, datagram, _pcp_problem(request, sender[0]))

    def answer(self, query: PcpQuery) -> list[PcpDatagram]:
        """Return what is sent back."""
        if not self._pipeline.pcp_hears(query):
            return []
        reply = self._pipeline.pcp_action(query, self._perform)
        sent = [] if reply is None else [PcpDatagram(_encode(query, reply))]
        return self._pipeline.pcp_datagrams(query, sent)

    def announcements(self) -> list[PcpDatagram]:
        """Return what is multicast after a start or a change of address (RFC 6886 section 3.2.1, RFC 6887 14.1)."""
        payloads = []
        epoch = self.epoch
        if "pcp" in self._protocols:
            payloads.append(pcp.build_response(pcp.Response(pcp.Opcode.ANNOUNCE, 0, 0, epoch)))
        if "nat-pmp" in self._protocols and (address := self._external_address) is not None:
            payloads.append(nat_pmp.build_response(nat_pmp.AddressResponse(epoch, address)))
        return self._pipeline.pcp_notices([PcpDatagram(payload) for payload in payloads])

    def _perform(self, query: PcpQuery) -> PcpReply | None:
        request = query.request
        match request:
            case None:
                return None
            case pcp.ResultCode():
                return self._refusal(query.raw[1], request)
            case nat_pmp.ResultCode():
                return nat_pmp.Refusal(query.raw[1], request, self.epoch)
            case pcp.Request():
                return self._perform_pcp(request, ip_address(query.sender[0].partition("%")[0]))
            case nat_pmp.AddressRequest() | nat_pmp.MapRequest():
                return self._perform_nat_pmp(request, query.sender[0])

    # NAT-PMP

    def _perform_nat_pmp(self, request: nat_pmp.Request, client: str) -> nat_pmp.Response:
        try:
            if isinstance(request, nat_pmp.AddressRequest):
                address = self._external_address
                if address is None or (address.is_private and not self._rules.private_address):
                    raise _Refused(*_NO_ADDRESS)
                return nat_pmp.AddressResponse(self.epoch, address)
            wish = _Wish(
                "nat-pmp", client, request.proto, request.internal_port, request.external_port, request.lifetime
            )
            if not request.lifetime:
                self._delete_nat_pmp(wish)
                return nat_pmp.MapResponse(self.epoch, wish.proto, wish.internal_port, 0, 0)
            if not request.internal_port:
                raise _Refused(*_NOT_YOURS)
            lifetime = min(max(wish.lifetime, self._rules.nat_pmp_shortest), self._rules.nat_pmp_longest)
            port = self._map(replace(wish, lifetime=lifetime), self._rules.nat_pmp_second_port)
            return nat_pmp.MapResponse(self.epoch, wish.proto, wish.internal_port, port, lifetime)
        except _Refused as refused:
            return nat_pmp.Refusal(request.opcode, refused.nat_pmp_result, self.epoch)

    def _delete_nat_pmp(self, wish: _Wish) -> None:
        """Delete one mapping or all of a host (RFC 6886 section 3.4); what is not there counts as deleted."""
        if wish.internal_port:
            held = self._held(wish.owner)
            if any(entry.protocol == "pcp" for entry in held):
                raise _Refused(*_NOT_YOURS)
        else:
            owners = [owner for owner in self._owned if owner[:2] == (wish.client, wish.proto)]
            held = [entry for owner in owners for entry in self._held(owner) if entry.protocol == "nat-pmp"]
        for entry in held:
            self._connection.table.remove(entry.mapping.key)

    # PCP

    def _perform_pcp(self, request: pcp.Request, sender: Address) -> pcp.Response:
        try:
            if request.client != sender:
                raise _Refused(pcp.ResultCode.ADDRESS_MISMATCH, nat_pmp.ResultCode.NOT_AUTHORIZED)
            if request.mapping is None:
                return pcp.Response(request.opcode, 0, 0, self.epoch)
            return self._map_pcp(request, request.mapping)
        except _Refused as refused:
            return self._refusal(request.opcode, refused.result)

    def _refusal(self, opcode: int, result: pcp.ResultCode) -> pcp.Response:
        lifetime = self._rules.short_error if result in _SHORT else self._rules.long_error
        return pcp.Response(opcode, result, lifetime, self.epoch)

    def _map_pcp(self, request: pcp.Request, asked: pcp.MapData) -> pcp.Response:
        host = self._host_of(request)
        proto = PROTO_OF.get(asked.protocol)
        if proto is None or not asked.internal_port:
            impossible = not asked.protocol and asked.internal_port
            refused = pcp.ResultCode.MALFORMED_REQUEST if impossible else pcp.ResultCode.UNSUPP_PROTOCOL
            raise _Refused(refused, nat_pmp.ResultCode.NOT_AUTHORIZED)
        exactly = any(isinstance(option, pcp.PreferFailure) for option in request.options)
        suggests_address = asked.external_address != unspecified_like(asked.external_address)
        filters = tuple(option for option in request.options if isinstance(option, pcp.Filter))
        wish = _Wish(
            "pcp",
            str(host),
            proto,
            asked.internal_port,
            asked.external_port,
            min(max(request.lifetime, self._rules.shortest), self._rules.longest) if request.lifetime else 0,
            exactly,
            asked.nonce,
            filters,
        )
        if not wish.lifetime:
            if self._rules.strict_deletion and (asked.external_port or suggests_address):
                raise _Refused(pcp.ResultCode.MALFORMED_REQUEST, nat_pmp.ResultCode.NOT_AUTHORIZED)
            self._delete_pcp(wish, host)
            return pcp.Response(request.opcode, 0, 0, self.epoch, asked, request.options)
        if exactly and not asked.external_port and not suggests_address:
            raise _Refused(pcp.ResultCode.MALFORMED_OPTION, nat_pmp.ResultCode.NOT_AUTHORIZED)
        address: Address | None = host if isinstance(host, IPv6Address) else self._external_address
        if exactly and suggests_address and asked.external_address != address:
            raise _Refused(*_NOT_THIS_PORT)
        port = self._open(wish) if isinstance(host, IPv6Address) else self._map(wish, self._rules.second_port)
        assert address is not None  # noqa: S101 (without one _map has refused)
        granted = replace(asked, external_port=port, external_address=address)
        return pcp.Response(request.opcode, 0, wish.lifetime, self.epoch, granted, request.options)

    def _host_of(self, request: pcp.Request) -> Address:
        """Return the host to which the mapping leads (section 13.1)."""
        third = next((option.address for option in request.options if isinstance(option, pcp.ThirdParty)), None)
        if third is None:
            return request.client
        if not self._rules.third_party:
            raise _Refused(pcp.ResultCode.UNSUPP_OPTION, nat_pmp.ResultCode.NOT_AUTHORIZED)
        if third == request.client or third.version != request.client.version:
            raise _Refused(pcp.ResultCode.MALFORMED_REQUEST, nat_pmp.ResultCode.NOT_AUTHORIZED)
        return third

    def _delete_pcp(self, wish: _Wish, host: Address) -> None:
        """Delete a mapping (section 15.1); what is not there counts as deleted."""
        if isinstance(host, IPv6Address):
            self._check_pinhole(wish, may_renew=False)
            self._firewall.close(*wish.owner)
            return
        held = self._held(wish.owner)
        mine = [entry for entry in held if entry.nonce == wish.nonce]
        if held and not mine:
            raise _Refused(*_NOT_YOURS)
        for entry in mine[:1]:
            self._connection.table.remove(entry.mapping.key)

    def _open(self, wish: _Wish) -> int:
        """Open the IPv6 firewall; there is no translation, so the external port is the internal one."""
        if wish.exactly and wish.external_port not in (0, wish.internal_port):
            raise _Refused(*_NOT_THIS_PORT)
        if not (self._firewall.enabled and self._firewall.pinholes_allowed):
            raise _Refused(*_NOT_YOURS)
        self._check_pinhole(wish, may_renew=self._rules.nonces_renewed)
        is_open = wish.owner in self._pinhole_nonces
        filters = _joined(self._pinhole_filters.get(wish.owner, ()) if is_open else (), wish.filters)
        remotes = _remotes(filters)
        self._firewall.close(*wish.owner, but=remotes)
        for host, port in remotes:
            pinhole = Pinhole(0, wish.client, wish.internal_port, wish.proto, host, port, wish.lifetime)
            if self._firewall.open(pinhole) is None:
                raise _Refused(*_NO_ROOM)
        self._pinhole_nonces[wish.owner] = wish.nonce
        self._pinhole_filters[wish.owner] = filters
        return wish.internal_port

    def _check_pinhole(self, wish: _Wish, *, may_renew: bool) -> None:
        """Refuse a request that has another nonce than that with which the pinhole was opened."""
        owners = {(one.internal_client, one.proto, one.internal_port) for one in self._firewall.pinholes}
        self._pinhole_nonces = {owner: nonce for owner, nonce in self._pinhole_nonces.items() if owner in owners}
        if self._pinhole_nonces.get(wish.owner, wish.nonce) != wish.nonce and not may_renew:
            raise _Refused(*_NOT_YOURS)

    # Both

    @property
    def _external_address(self) -> IPv4Address | None:
        """The external address, None where there is none."""
        try:
            address = IPv4Address(self._connection.external_address)
        except ValueError:
            return None
        return address if self._connection.connected else None

    def _held(self, owner: _Owner) -> list[Entry]:
        """Return the mappings of an owner that PCP or NAT-PMP made, as far as they are in the table."""
        live = self._connection.table.entries()
        found = [live[key] for key in self._owned.get(owner, ()) if key in live]
        held = [
            entry
            for entry in found
            if entry.protocol != "upnp"
            and entry.mapping.leads_to(owner[0], owner[2])
            and entry.mapping.proto == owner[1]
        ]
        if held:
            self._owned[owner] = [entry.mapping.key for entry in held]
        else:
            self._owned.pop(owner, None)
        return held

    def _map(self, wish: _Wish, second_port: SecondPort) -> int:
        """Make or renew a mapping, and return its external port."""
        if self._external_address is None:
            raise _Refused(*_NO_ADDRESS)
        held = self._held(wish.owner)
        known = self._renewed(wish, held, second_port)
        keeps = second_port == "keeps" or self._rules.ports == "own"
        if known is not None and (keeps or wish.external_port in (0, known.mapping.external_port)):
            port = known.mapping.external_port
            if wish.exactly and wish.external_port not in (0, port):
                raise _Refused(*_NOT_THIS_PORT)
        else:
            port = self._assign(wish)
        table = self._connection.table
        filters = _joined(known.filters if known else (), wish.filters) if self._rules.filters else ()
        remote = _only_remote(filters)
        key = MappingKey(port, wish.proto, remote[0] if remote is not None and not remote[1] else "")
        if known is not None and known.mapping.key != key and second_port != "adds":
            table.remove(known.mapping.key)
        if table.get(key) is None and table.is_full:
            raise _Refused(*_NO_ROOM)
        mapping = PortMapping(
            key.external_port,
            wish.internal_port,
            wish.client,
            wish.proto,
            _described(wish, port),
            wish.lifetime,
            key.remote_host,
        )
        table.put(mapping, wish.protocol, wish.nonce, filters)
        keys = self._owned.setdefault(wish.owner, [])
        if key not in keys:
            keys.append(key)
        return port

    def _renewed(self, wish: _Wish, held: list[Entry], second_port: SecondPort) -> Entry | None:
        """Return the mapping that a request is about, None where it is about a new one."""
        if second_port == "adds":
            held = [entry for entry in held if wish.external_port in (0, entry.mapping.external_port)]
        for entry in held:
            if entry.protocol == "pcp" and entry.nonce != wish.nonce and not self._rules.nonces_renewed:
                raise _Refused(*_NOT_YOURS)
        return held[0] if held else None

    def _assign(self, wish: _Wish) -> int:
        """Return the external port for a new mapping."""
        suggested = wish.external_port or wish.internal_port
        match self._rules.ports:
            case "suggested":
                first = suggested
            case "internal":
                if not self._is_free(wish.internal_port, wish):
                    raise _Refused(*_NOT_THIS_PORT)
                first = wish.internal_port
            case "own":
                # The same for both protocols, and not the one that was suggested.
                first = 30_000 + crc32(f"{wish.client} {wish.internal_port}".encode()) % 30_000
                first += first == suggested and not self._is_used_by(first, wish)
        if wish.exactly and wish.external_port and (first != wish.external_port or not self._is_free(first, wish)):
            raise _Refused(*_NOT_THIS_PORT)
        rest = chain(range(max(first + 1, _FIRST_PORT), _LAST_PORT + 1), range(_FIRST_PORT, first))
        port = next((port for port in chain((first,), rest) if self._is_free(port, wish)), None)
        if port is None:
            raise _Refused(*_NO_ROOM)
        return port

    def _is_used_by(self, port: int, wish: _Wish) -> bool:
        """Whether an external port leads to the same host and port by any protocol."""
        return any(
            entry.mapping.leads_to(wish.client, wish.internal_port)
            for proto in PROTO_OF.values()
            for entry in self._connection.table.on_port(port, proto)
        )

    def _is_free(self, port: int, wish: _Wish) -> bool:
        """Whether an external port can lead to where it should; that of the same host and port is used on."""
        return all(
            entry.mapping.leads_to(wish.client, wish.internal_port)
            for entry in self._connection.table.on_port(port, wish.proto)
        )


def _encode(query: PcpQuery, reply: PcpReply) -> bytes:
    if not isinstance(reply, pcp.Response):
        return nat_pmp.build_response(reply)
    if reply.result == pcp.ResultCode.SUCCESS:
        return pcp.build_response(reply)
    return pcp.build_refusal(query.raw, reply.result, lifetime=reply.lifetime, epoch=reply.epoch)


def _described(wish: _Wish, port: int) -> str:
    """Return what the list of UPnP shows, in the words of miniupnpd."""
    return f"PCP MAP {wish.nonce.hex()}" if wish.protocol == "pcp" else f"NAT-PMP {port} {wish.proto.lower()}"


def _joined(known: Iterable[pcp.Filter], added: Iterable[pcp.Filter]) -> tuple[pcp.Filter, ...]:
    """Return the filters of a mapping after a request: those of a renewal are added (RFC 6887 section 13.3)."""
    filters = list(known)
    for each in added:
        if not each.prefix_length:
            filters.clear()
        elif each not in filters:
            filters.append(each)
    return tuple(filters)


def _only_remote(filters: tuple[pcp.Filter, ...]) -> tuple[str, int] | None:
    """Return the one remote host and port that filters let in, None where there is not one."""
    if len(filters) != 1 or filters[0].prefix_length != 128:
        return None
    return str(filters[0].address), filters[0].port


def _remotes(filters: tuple[pcp.Filter, ...]) -> list[tuple[str, int]]:
    """Return for which remote hosts and ports a pinhole is open: for any where the filters are of no one host."""
    if not filters or any(each.prefix_length != 128 for each in filters):
        return [("", 0)]
    return [(str(each.address), each.port) for each in filters]


def _nat_pmp_problem(request: nat_pmp.Request | nat_pmp.ResultCode | None) -> str:
    match request:
        case None:
            return "it is no request, or has the wrong length"
        case nat_pmp.ResultCode():
            return "" if request == nat_pmp.ResultCode.UNSUPPORTED_VERSION else f"it is refused: {request.name}"
        case nat_pmp.MapRequest(lifetime=0, external_port=port) if port:
            return "a deletion has an external port"
        case nat_pmp.MapRequest(internal_port=0, lifetime=lifetime) if lifetime:
            return "there is no internal port"
    return ""


def _pcp_problem(request: pcp.Request | pcp.ResultCode | None, sender: str) -> str:
    match request:
        case None:
            return "it is no request"
        case pcp.ResultCode():
            return "" if request == pcp.ResultCode.UNSUPP_VERSION else f"it is refused: {request.name}"
        case pcp.Request():
            if str(request.client) != sender.partition("%")[0]:
                return "the client address is not that of the sender"
            asked = request.mapping
            if asked is not None and not request.lifetime:
                if asked.external_port or asked.external_address != unspecified_like(asked.external_address):
                    return "a deletion has an external port or address"
                if asked.external_address.version != request.client.version:
                    return "the external address is of another family than the client's"
            return ""
