"""The WAN connection of a gateway, its table of port mappings, and the actions on them.

No I/O and no event loop. Time comes from a clock; the outcome of an action is a dictionary of output arguments or an
:class:`~aioigd.testing.UPnPError`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from itertools import count, islice
from typing import Final, Literal, cast

from ..models import MappingKey, PortMapping, Proto
from ..pcp.wire.pcp import Filter
from ..upnp.wire.xml import escape
from .errors import UPnPError

__all__ = ["ActionCall", "Entry", "MappingTable", "Outputs", "ProtocolName", "WanConnection"]

ProtocolName = Literal["upnp", "pcp", "nat-pmp"]

Outputs = Mapping[str, str]
"""Output arguments of an action by name, in the order of the standard."""

LONGEST_LEASE_V2: Final = 604_800
"""Seconds, one week: the lease that WANIPConnection:2 grants for 0 (section 2.3.16)."""


@dataclass(frozen=True, slots=True)
class ActionCall:
    """A valid call of an action; ``sender`` is the address of the client."""

    service_type: str
    action: str
    arguments: Mapping[str, str] = field(hash=False)
    sender: str = ""

    @property
    def key(self) -> MappingKey:
        """The key of the mapping in the arguments; raises KeyError where they have none."""
        arguments = self.arguments
        return MappingKey(
            int(arguments["NewExternalPort"]),
            cast(Proto, arguments["NewProtocol"]),
            arguments["NewRemoteHost"],
        )

    @property
    def adds_mapping(self) -> bool:
        """Whether it is AddPortMapping or AddAnyPortMapping."""
        return self.action in ("AddPortMapping", "AddAnyPortMapping")


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the table: ``expires`` in seconds of the table's clock, None for a mapping without limit.

    ``protocol`` is that by which it was made. One of PCP has the ``nonce`` of its request, and ``filters`` for the
    remote hosts that may use it (all of them if there are none).
    """

    mapping: PortMapping
    expires: float | None = None
    protocol: ProtocolName = "upnp"
    nonce: bytes = b""
    filters: tuple[Filter, ...] = ()

    def lets_in(self, host: str, port: int) -> bool:
        """Return whether packets of a remote host and port may use the mapping."""
        if self.filters:
            return any(each.lets_in(ip_address(host), port) for each in self.filters)
        return self.mapping.remote_host in ("", host)


class MappingTable:
    """Mappings in the order in which they were added, without those whose lease has expired.

    ``clock`` returns seconds, ``size`` is the greatest number of mappings, None for no limit.
    """

    def __init__(self, clock: Callable[[], float], size: int | None = None) -> None:
        self.clock = clock
        self.size = size
        self._entries: dict[MappingKey, Entry] = {}
        self._keys: dict[tuple[int, Proto], dict[MappingKey, None]] = {}
        self._expiries: list[tuple[float, int, Entry]] = []
        self._serial = count()
        self.on_change: Callable[[], None] | None = None
        """Called when mappings were added or removed, but not when leases expire."""

    def __len__(self) -> int:
        return len(self.entries())

    def entries(self) -> Mapping[MappingKey, Entry]:
        """Return the live entries."""
        now = self.clock()
        while self._expiries and self._expiries[0][0] <= now:
            entry = heapq.heappop(self._expiries)[2]
            if self._entries.get(entry.mapping.key) is entry:
                self._drop(entry.mapping.key)
        return self._entries

    @property
    def is_full(self) -> bool:
        """Whether no mapping can be added."""
        return self.size is not None and len(self) >= self.size

    def put(
        self,
        mapping: PortMapping,
        protocol: ProtocolName = "upnp",
        nonce: bytes = b"",
        filters: tuple[Filter, ...] = (),
    ) -> None:
        """Add or replace a mapping; its lease begins now."""
        expires = self.clock() + mapping.duration if mapping.duration else None
        entry = Entry(mapping, expires, protocol, nonce, filters)
        key = MappingKey(mapping.external_port, mapping.proto, mapping.remote_host)
        self._entries[key] = entry
        self._keys.setdefault(key[:2], {})[key] = None
        if expires is not None:
            heapq.heappush(self._expiries, (expires, next(self._serial), entry))
        self._changed()

    def get(self, key: MappingKey) -> Entry | None:
        """Return the live entry of a key."""
        return self.entries().get(key)

    def on_port(self, port: int, proto: Proto) -> list[Entry]:
        """Return the live entries of an external port: there is one for each remote host."""
        live = self.entries()
        return [live[key] for key in self._keys.get((port, proto), ())]

    def at(self, index: int) -> Entry | None:
        """Return the live entry at an index of the table, from 0."""
        return next(islice(self.entries().values(), index, None), None)

    def remove(self, key: MappingKey) -> bool:
        """Drop a mapping; returns whether there was one."""
        self.entries()
        if key not in self._entries:
            return False
        self._drop(key)
        self._changed()
        return True

    def clear(self) -> None:
        """Drop all mappings, as a router does that restarts."""
        self._entries.clear()
        self._keys.clear()
        self._expiries.clear()
        self._changed()

    def _drop(self, key: MappingKey) -> None:
        del self._entries[key]
        port = (key.external_port, key.proto)
        del self._keys[port][key]
        if not self._keys[port]:
            del self._keys[port]

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()


class WanConnection:
    """One WAN connection of a gateway, which WANIPConnection and WANPPPConnection control.

    ``version`` is that of the service; in version 2 a lease of 0 means a week, and leases end after a week at the
    latest (PortMappingLeaseDuration; a longer one is shortened, as miniupnpd does). ``secure``: hosts map ports to
    themselves only (718 in version 1, which has no better code, 606 in version 2), and delete only their own.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        version: int = 1,
        external_address: str = "",
        connected: bool = True,
        table_size: int | None = None,
        secure: bool = False,
    ) -> None:
        self.version = version
        self.external_address = external_address
        self.connected = connected
        self.secure = secure
        self.table = MappingTable(clock, table_size)
        self._clock = clock
        self._since = clock()

    def restart(self) -> None:
        """Reset the uptime."""
        self._since = self._clock()

    def invoke(self, call: ActionCall) -> Outputs:
        """Perform an action; raises UPnPError where it is refused, 401 for an unknown one."""
        action = _ACTIONS.get(call.action)
        if action is None:
            raise UPnPError(401)
        return action(self, call)

    def _add(self, call: ActionCall) -> Outputs:
        """AddPortMapping (WANIPConnection:1 section 2.4.16)."""
        key = self._check_request(call)
        known = self.table.get(key)
        if known is not None and known.mapping.internal_client != call.arguments["NewInternalClient"]:
            raise UPnPError(718)
        self._put(call, key)
        return {}

    def _add_any(self, call: ActionCall) -> Outputs:
        """AddAnyPortMapping (WANIPConnection:2 section 2.5.17): another port where the requested one is taken."""
        wanted = self._check_request(call)
        client = call.arguments["NewInternalClient"]
        upwards = (*range(wanted.external_port, 65536), *range(1024, wanted.external_port))
        for port in upwards:
            key = wanted._replace(external_port=port)
            known = self.table.get(key)
            if known is None or known.mapping.internal_client == client:
                self._put(call, key)
                return {"NewReservedPort": str(port)}
        raise UPnPError(728)

    def _check_request(self, call: ActionCall) -> MappingKey:
        arguments = call.arguments
        key = call.key
        if key.remote_host and not _is_host(key.remote_host):
            raise UPnPError(402)
        if not key.external_port:
            raise UPnPError(716)
        if not int(arguments["NewInternalPort"]):
            raise UPnPError(732 if self.version > 1 else 402)
        if not _is_host(arguments["NewInternalClient"]):
            raise UPnPError(402)
        if self.secure and arguments["NewInternalClient"] != call.sender:
            raise UPnPError(606 if self.version > 1 else 718)
        return key

    def _put(self, call: ActionCall, key: MappingKey) -> None:
        if self.table.get(key) is None and self.table.is_full:
            raise UPnPError(728)
        arguments = call.arguments
        lease = int(arguments["NewLeaseDuration"])
        if self.version > 1:
            lease = min(lease or LONGEST_LEASE_V2, LONGEST_LEASE_V2)
        mapping = PortMapping(
            external_port=key.external_port,
            internal_port=int(arguments["NewInternalPort"]),
            internal_client=arguments["NewInternalClient"],
            proto=key.proto,
            desc=arguments["NewPortMappingDescription"],
            duration=lease,
            remote_host=key.remote_host,
            enabled=_is_true(arguments["NewEnabled"]),
        )
        self.table.put(mapping)

    def _delete(self, call: ActionCall) -> Outputs:
        """DeletePortMapping (WANIPConnection:1 section 2.4.17)."""
        known = self.table.get(call.key)
        if known is None:
            raise UPnPError(714)
        if self.secure and known.mapping.internal_client != call.sender:
            raise UPnPError(606)
        self.table.remove(call.key)
        return {}

    def _delete_range(self, call: ActionCall) -> Outputs:
        """DeletePortMappingRange (WANIPConnection:2 section 2.5.19)."""
        chosen = self._range(call)
        for entry in chosen:
            self.table.remove(entry.mapping.key)
        return {}

    def _list(self, call: ActionCall) -> Outputs:
        """GetListOfPortMappings (WANIPConnection:2 section 2.5.21): at most NewNumberOfPorts, all of them for 0."""
        most = int(call.arguments["NewNumberOfPorts"]) or None
        rows = "".join(
            "<p:PortMappingEntry>"
            + "".join(f"<p:{name}>{escape(value)}</p:{name}>" for name, value in self._listed(entry))
            + "</p:PortMappingEntry>"
            for entry in self._range(call)[:most]
        )
        return {
            "NewPortListing": '<p:PortMappingList xmlns:p="urn:schemas-upnp-org:gw:WANIPConnection"'
            ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
            ' xsi:schemaLocation="urn:schemas-upnp-org:gw:WANIPConnection'
            ' http://www.upnp.org/schemas/gw/WANIPConnection-v2.xsd">'
            f"{rows}</p:PortMappingList>"
        }

    def _range(self, call: ActionCall) -> list[Entry]:
        arguments = call.arguments
        first, last = int(arguments["NewStartPort"]), int(arguments["NewEndPort"])
        if first > last:
            raise UPnPError(733)
        everybody = _is_true(arguments["NewManage"]) and not self.secure
        chosen = [
            entry
            for key, entry in self.table.entries().items()
            if first <= key.external_port <= last
            and key.proto == arguments["NewProtocol"]
            and (everybody or entry.mapping.internal_client == call.sender)
        ]
        if not chosen:
            raise UPnPError(730)
        return chosen

    def _specific(self, call: ActionCall) -> Outputs:
        """GetSpecificPortMappingEntry (WANIPConnection:1 section 2.4.15)."""
        entry = self.table.get(call.key)
        if entry is None:
            raise UPnPError(714)
        return self._values(entry)

    def _generic(self, call: ActionCall) -> Outputs:
        """GetGenericPortMappingEntry (WANIPConnection:1 section 2.4.14)."""
        entry = self.table.at(int(call.arguments["NewPortMappingIndex"]))
        if entry is None:
            raise UPnPError(713)
        key = entry.mapping.key
        return {
            "NewRemoteHost": key.remote_host,
            "NewExternalPort": str(key.external_port),
            "NewProtocol": key.proto,
            **self._values(entry),
        }

    def _values(self, entry: Entry) -> dict[str, str]:
        return {
            "NewInternalPort": str(entry.mapping.internal_port),
            "NewInternalClient": entry.mapping.internal_client,
            "NewEnabled": str(int(entry.mapping.enabled)),
            "NewPortMappingDescription": entry.mapping.desc,
            "NewLeaseDuration": str(self._remaining(entry)),
        }

    def _listed(self, entry: Entry) -> list[tuple[str, str]]:
        # The rows of a PortListing name two things differently from the arguments (A_ARG_TYPE_PortListing).
        values = self._values(entry)
        return [
            ("NewRemoteHost", entry.mapping.remote_host),
            ("NewExternalPort", str(entry.mapping.external_port)),
            ("NewProtocol", entry.mapping.proto),
            ("NewInternalPort", values["NewInternalPort"]),
            ("NewInternalClient", values["NewInternalClient"]),
            ("NewEnabled", values["NewEnabled"]),
            ("NewDescription", values["NewPortMappingDescription"]),
            ("NewLeaseTime", values["NewLeaseDuration"]),
        ]

    def _remaining(self, entry: Entry) -> int:
        return 0 if entry.expires is None else math.ceil(entry.expires - self._clock())

    def _external_address(self, call: ActionCall) -> Outputs:
        return {"NewExternalIPAddress": self.external_address if self.connected else ""}

    def _status(self, call: ActionCall) -> Outputs:
        return {
            "NewConnectionStatus": "Connected" if self.connected else "Disconnected",
            "NewLastConnectionError": "ERROR_NONE",
            "NewUptime": str(int(self._clock() - self._since) if self.connected else 0),
        }

    def _type(self, call: ActionCall) -> Outputs:
        return {"NewConnectionType": "IP_Routed", "NewPossibleConnectionTypes": "IP_Routed"}

    def _set_type(self, call: ActionCall) -> Outputs:
        if call.arguments["NewConnectionType"] != "IP_Routed":
            raise UPnPError(710)
        return {}

    def _nat(self, call: ActionCall) -> Outputs:
        return {"NewRSIPAvailable": "0", "NewNATEnabled": "1"}

    def _connect(self, call: ActionCall) -> Outputs:
        self.connected = True
        return {}

    def _disconnect(self, call: ActionCall) -> Outputs:
        if not self.connected:
            raise UPnPError(711)
        self.connected = False
        return {}

    def _bit_rates(self, call: ActionCall) -> Outputs:
        return {"NewUpstreamMaxBitRate": "40000000", "NewDownstreamMaxBitRate": "100000000"}


_ACTIONS: Final[Mapping[str, Callable[[WanConnection, ActionCall], Outputs]]] = {
    "AddPortMapping": WanConnection._add,
    "AddAnyPortMapping": WanConnection._add_any,
    "DeletePortMapping": WanConnection._delete,
    "DeletePortMappingRange": WanConnection._delete_range,
    "GetListOfPortMappings": WanConnection._list,
    "GetSpecificPortMappingEntry": WanConnection._specific,
    "GetGenericPortMappingEntry": WanConnection._generic,
    "GetExternalIPAddress": WanConnection._external_address,
    "GetStatusInfo": WanConnection._status,
    "GetConnectionTypeInfo": WanConnection._type,
    "SetConnectionType": WanConnection._set_type,
    "GetNATRSIPStatus": WanConnection._nat,
    "RequestConnection": WanConnection._connect,
    "ForceTermination": WanConnection._disconnect,
    "GetLinkLayerMaxBitRates": WanConnection._bit_rates,
}


def _is_true(text: str) -> bool:
    return text in ("1", "true", "yes")


def _is_host(text: str) -> bool:
    try:
        return not IPv4Address(text).is_unspecified
    except ValueError:
        # WANIPConnection is for IPv4; but on ::1 the client has no other address.
        return text == "::1"
