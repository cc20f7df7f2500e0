"""The IPv6 firewall of a gateway: its pinholes, and the actions of WANIPv6FirewallControl.

No I/O and no event loop. It forwards nothing, as there is no IPv6 network behind an emulated gateway; a test sets the
number of packets that came through a pinhole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from itertools import count
from typing import Final

from ..models import Pinhole, Proto
from .errors import UPnPError
from .wan_connection import ActionCall, Outputs

__all__ = ["Firewall"]

_PROTOCOLS: Final[Mapping[str, Proto]] = {"6": "TCP", "17": "UDP"}
"""Protocols by their IANA numbers."""
_ANY_PROTOCOL: Final = "65535"
_MAX_DURATION: Final = 86_400
"""Seconds, the longest LeaseTime (WANIPv6FirewallControl:1 section 2.4.8)."""


@dataclass(frozen=True, slots=True)
class _Hole:
    pinhole: Pinhole
    expires: float
    packets: int = 0


class Firewall:
    """The firewall of one gateway.

    ``clock`` returns seconds, by which pinholes expire. ``enabled``, ``pinholes_allowed`` and ``size``, the greatest
    number of pinholes, can be changed at any time.
    """

    def __init__(self, clock: Callable[[], float], *, size: int | None = None) -> None:
        self.enabled = True
        self.pinholes_allowed = True
        self.size = size
        self._clock = clock
        self._holes: dict[int, _Hole] = {}
        self._numbers = count(1)

    @property
    def pinholes(self) -> list[Pinhole]:
        """The pinholes that are open, oldest first; ``duration`` is what was granted last."""
        return [hole.pinhole for hole in self._open()]

    def let_through(self, unique_id: int, packets: int = 1) -> None:
        """Count packets that came through a pinhole; raises KeyError where there is no such pinhole."""
        self._holes[unique_id] = replace(self._holes[unique_id], packets=self._holes[unique_id].packets + packets)

    def clear(self) -> None:
        """Drop all pinholes, as a router does that restarts."""
        self._holes.clear()

    def open(self, wanted: Pinhole) -> Pinhole | None:
        """Open a pinhole, or renew the same one; None where there is no room."""
        number = next((hole.pinhole.unique_id for hole in self._open() if _same(hole.pinhole, wanted)), 0)
        if not number:
            if self.size is not None and len(self._holes) >= self.size:
                return None
            number = next(self._numbers)
        known = self._holes.get(number)
        pinhole = replace(wanted, unique_id=number)
        packets = known.packets if known is not None else 0
        self._holes[number] = _Hole(pinhole, self._clock() + wanted.duration, packets)
        return pinhole

    def close(self, client: str, proto: Proto, port: int, *, but: Collection[tuple[str, int]] = ()) -> None:
        """Close the pinholes to a port of a host, ``but`` those for some remote hosts and ports."""
        for number, hole in list(self._holes.items()):
            pinhole = hole.pinhole
            is_there = (pinhole.internal_client, pinhole.internal_port, pinhole.proto) == (client, port, proto)
            if is_there and (pinhole.remote_host, pinhole.remote_port) not in but:
                del self._holes[number]

    def invoke(self, call: ActionCall) -> Outputs:
        """Perform an action; raises UPnPError where it is refused, 401 for an unknown one."""
        action = _ACTIONS.get(call.action)
        if action is None:
            raise UPnPError(401)
        return action(self, call)

    def _status(self, call: ActionCall) -> Outputs:
        """GetFirewallStatus (section 2.6.1)."""
        return {"FirewallEnabled": str(int(self.enabled)), "InboundPinholeAllowed": str(int(self.pinholes_allowed))}

    def _outbound_timeout(self, call: ActionCall) -> Outputs:
        """GetOutboundPinholeTimeout (section 2.6.2)."""
        if not self.enabled:
            raise UPnPError(702)
        proto = _proto(call)
        return {"OutboundPinholeTimeout": "7200" if proto == "TCP" else "180"}

    def _add(self, call: ActionCall) -> Outputs:
        """AddPinhole (section 2.6.3): a pinhole that is open already is renewed, and keeps its identifier."""
        arguments = call.arguments
        if not self.enabled:
            raise UPnPError(702)
        if not self.pinholes_allowed:
            raise UPnPError(703)
        wanted = Pinhole(
            unique_id=0,
            internal_client=_host(arguments["InternalClient"], 708),
            internal_port=int(arguments["InternalPort"]),
            proto=_proto(call),
            remote_host=_host(arguments["RemoteHost"], 402) if arguments["RemoteHost"] else "",
            remote_port=int(arguments["RemotePort"]),
        )
        if not wanted.internal_port:
            raise UPnPError(706)
        if wanted.internal_client != call.sender:
            raise UPnPError(606)
        opened = self.open(replace(wanted, duration=_duration(arguments["LeaseTime"])))
        if opened is None:
            raise UPnPError(701)
        return {"UniqueID": str(opened.unique_id)}

    def _update(self, call: ActionCall) -> Outputs:
        """UpdatePinhole (section 2.6.4)."""
        hole = self._hole(call)
        duration = _duration(call.arguments["NewLeaseTime"])
        pinhole = replace(hole.pinhole, duration=duration)
        self._holes[pinhole.unique_id] = replace(hole, pinhole=pinhole, expires=self._clock() + duration)
        return {}

    def _delete(self, call: ActionCall) -> Outputs:
        """DeletePinhole (section 2.6.5)."""
        del self._holes[self._hole(call).pinhole.unique_id]
        return {}

    def _packets(self, call: ActionCall) -> Outputs:
        """GetPinholePackets (section 2.6.6)."""
        return {"PinholePackets": str(self._hole(call).packets)}

    def _working(self, call: ActionCall) -> Outputs:
        """CheckPinholeWorking (section 2.6.7)."""
        if not self._hole(call).packets:
            raise UPnPError(709)
        return {"IsWorking": "1"}

    def _hole(self, call: ActionCall) -> _Hole:
        number = int(call.arguments["UniqueID"])
        hole = next((hole for hole in self._open() if hole.pinhole.unique_id == number), None)
        if hole is None:
            raise UPnPError(704)
        if hole.pinhole.internal_client != call.sender:
            raise UPnPError(606)
        return hole

    def _open(self) -> Iterator[_Hole]:
        now = self._clock()
        for number, hole in list(self._holes.items()):
            if hole.expires <= now:
                del self._holes[number]
        return iter(self._holes.values())


_ACTIONS: Final[Mapping[str, Callable[[Firewall, ActionCall], Outputs]]] = {
    "GetFirewallStatus": Firewall._status,
    "GetOutboundPinholeTimeout": Firewall._outbound_timeout,
    "AddPinhole": Firewall._add,
    "UpdatePinhole": Firewall._update,
    "DeletePinhole": Firewall._delete,
    "GetPinholePackets": Firewall._packets,
    "CheckPinholeWorking": Firewall._working,
}


def _proto(call: ActionCall) -> Proto:
    number = call.arguments["Protocol"]
    if number == _ANY_PROTOCOL:
        raise UPnPError(707)
    if number not in _PROTOCOLS:
        raise UPnPError(705)
    return _PROTOCOLS[number]


def _duration(text: str) -> int:
    if not 1 <= int(text) <= _MAX_DURATION:
        raise UPnPError(402)
    return int(text)


def _host(text: str, code: int) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError:
        raise UPnPError(code) from None


def _same(one: Pinhole, other: Pinhole) -> bool:
    return replace(one, unique_id=0, duration=0) == replace(other, unique_id=0, duration=0)
