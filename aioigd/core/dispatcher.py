"""What can be asked for, set on its way: the part that the mapper and a single gateway share.

A verb joins or starts a flight. Which gateway the flight talks to, and what happens when that one has gone, is
the business of its :class:`Line`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol, TypeVar

from ..errors import IGDError
from ..models import MappingKey, MappingRequest, Pinhole, PinholeRequest, PortMapping
from ..upnp import add_any_mapping, add_mapping, pinholes
from ..upnp.find_mapping import find_entry
from ..upnp.soap_client import Channel
from ..upnp.wire import wan_ip_connection
from .call_queue import SETTLE_TIME, Lanes
from .calls import Call

__all__ = ["Line", "Verbs"]

T = TypeVar("T")


class Line(Protocol):
    """Where a verb finds its gateway."""

    async def run(self, operation: Callable[[Channel], Awaitable[T]], call: Call) -> T:
        """Carry out an operation on the gateway."""

    def check_open(self) -> None:
        """Raise UsageError where the owner is closed, or belongs to another event loop."""


class Verbs:
    """What can be done with mappings, over a line; identical calls that are under way at once share one."""

    def __init__(self, line: Line, lanes: Lanes, timeout: float) -> None:
        self._line = line
        self._lanes = lanes
        self._timeout = timeout

    def add(self, request: MappingRequest, *, overwrite: bool, verify: bool) -> Awaitable[PortMapping]:
        """Make a mapping; with ``overwrite`` in the place of whatever is there."""
        # No coroutine of its own, and nothing made only to be thrown away: callers come by the ten thousand.
        self._line.check_open()
        lane = request.key[:2]
        key = (self, request, overwrite, verify)
        flight = self._lanes.find(lane, key)
        if flight is not None:
            return flight.join()
        flight = self._lanes.enter(
            lane,
            key,
            Call(self._timeout),
            lambda call: self._run(
                lambda channel: add_mapping.add(channel, request, call, overwrite=overwrite, verify=verify), call
            ),
            orphaned=self._take_back,
        )
        return flight.join()

    async def add_any(self, request: MappingRequest) -> PortMapping:
        """Make a mapping on the port asked for or any other."""
        return await self.do(
            lambda channel, call: add_any_mapping.add_any(channel, request, call),
            (self, "any port", request),
            object(),
            orphaned=self._take_back,
        )

    async def delete(self, key: MappingKey) -> None:
        """Delete a mapping."""
        self._line.check_open()
        flight = self._lanes.enter(
            key[:2],
            (self, key),
            Call(self._timeout),
            lambda call: self._run(lambda channel: add_mapping.delete(channel, key, call), call),
        )
        await flight.join()

    async def find(self, key: MappingKey) -> PortMapping | None:
        """Ask for a mapping; None where the gateway says that it holds none."""
        self._line.check_open()
        flight = self._lanes.enter(
            key[:2],
            (self, "find", key),
            Call(self._timeout),
            lambda call: self._run(lambda channel: find_entry(channel, key, call), call),
        )
        return await flight.join()

    async def query_external_address(self) -> IPv4Address | IPv6Address:
        """Ask for the external address."""
        return await self.do(_external_address, (self, "external address"))

    async def add_pinhole(self, request: PinholeRequest) -> Pinhole:
        """Open a pinhole, or prolong the one that is open for the same packets."""
        return await self.do(
            lambda channel, call: pinholes.add(channel, request, call),
            _lane_of(request),
            (self, request),
            orphaned=self._close_again,
        )

    async def delete_pinhole(self, pinhole: Pinhole) -> None:
        """Close a pinhole."""
        await self.do(
            lambda channel, call: pinholes.delete(channel, pinhole, call), _lane_of(pinhole), (self, "delete", pinhole)
        )

    async def once(self, operation: Callable[[Channel, Call], Awaitable[T]]) -> T:
        """Do something that nobody shares and that waits for nobody."""
        return await self.do(operation, object())

    async def do(
        self,
        operation: Callable[[Channel, Call], Awaitable[T]],
        lane: Hashable,
        key: Hashable = None,
        *,
        orphaned: Callable[[Call], None] | None = None,
    ) -> T:
        """Do something on the gateway, behind what is under way in its lane; calls with an equal key share it."""
        self._line.check_open()
        flight = self._lanes.enter(
            lane,
            key,
            Call(self._timeout),
            lambda call: self._run(lambda channel: operation(channel, call), call),
            orphaned=orphaned,
        )
        return await flight.join()

    async def _run(self, operation: Callable[[Channel], Awaitable[T]], call: Call) -> T:
        try:
            return await self._line.run(operation, call)
        except IGDError as error:
            raise error.with_attempts(tuple(call.attempts)) from error.__cause__

    def _take_back(self, call: Call) -> None:
        """Undo, in the background but within its lane, an addition whose callers were cancelled at the last moment."""
        mapping = call.made
        if mapping is None:
            return
        undoing = Call(SETTLE_TIME)
        undoing.committed = True
        self._lanes.enter(
            mapping.key[:2],
            object(),
            undoing,
            lambda call: self._run(lambda channel: add_mapping.undo(channel, mapping, call), call),
        )

    def _close_again(self, call: Call) -> None:
        """The same for a pinhole."""
        pinhole = call.opened
        if pinhole is None:
            return
        undoing = Call(SETTLE_TIME)
        undoing.committed = True
        self._lanes.enter(
            _lane_of(pinhole),
            object(),
            undoing,
            lambda call: self._run(lambda channel: pinholes.undo(channel, pinhole, call), call),
        )


def _lane_of(place: Pinhole | PinholeRequest) -> Hashable:
    """Return what keeps requests for pinholes of one port in their order."""
    return "pinhole", place.proto, place.internal_port


async def _external_address(channel: Channel, call: Call) -> IPv4Address | IPv6Address:
    return wan_ip_connection.read_external_address(await channel.ask(wan_ip_connection.GET_EXTERNAL_IP_ADDRESS, call))
