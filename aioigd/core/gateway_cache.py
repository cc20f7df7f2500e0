"""Which gateway calls go to: the one in mind, until it has gone or the program says otherwise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from async_timeout import timeout_at

from ..errors import DeadlineError, IGDError, InvalidResponseError, TransportError, UnsupportedError
from ..gateway import Gateway
from ..models import Device
from ..upnp.net.http import HttpClient
from ..upnp.soap_client import NOT_THERE, Channel, Memory
from .call_queue import Lanes
from .calls import Call
from .finder import Finder

__all__ = ["CurrentGateway"]

T = TypeVar("T")


class CurrentGateway:
    """Keeps the gateway in mind, finds it when there is none, and once again when it has gone.

    ``timeout`` (seconds) is for calls on the gateway, ``discovery_timeout`` for a search; ``check_open`` raises
    where the owner is closed.
    """

    def __init__(
        self,
        http: HttpClient,
        finder: Finder,
        lanes: Lanes,
        *,
        timeout: float,
        discovery_timeout: float,
        check_open: Callable[[], None],
    ) -> None:
        self.check_open = check_open
        self.devices: list[Device] = []
        self._chosen_from: list[Device] = []
        self._gateway: Gateway | None = None
        self._http = http
        self._finder = finder
        self._lanes = lanes
        self._timeout = timeout
        self._discovery_timeout = min(discovery_timeout, timeout)

    async def run(self, operation: Callable[[Channel], Awaitable[T]], call: Call) -> T:
        """Carry out an operation on the gateway; once more on a newly found one if the one in mind has gone."""
        gateway = self.cached
        if gateway is None:
            call.start()  # the search is part of the call's own work
            gateway = await self.find()
            return await operation(gateway.channel)
        call.may_move = True
        try:
            return await operation(gateway.channel)
        except IGDError as error:
            if call.expired or not _may_have_moved(error):
                raise
            call.may_move = False
            try:
                async with timeout_at(call.deadline):
                    gateway = await self.find(instead_of=gateway)
            except (IGDError, TimeoutError):
                raise error from error.__cause__  # nothing there at all: what happened first says more
        return await operation(gateway.channel)

    async def find(self, instead_of: Gateway | None = None) -> Gateway:
        """Return the gateway in mind, unless it is the one to be replaced, or the one that a search finds."""
        gateway = self.cached
        if gateway is not None and gateway is not instead_of:
            return gateway
        return await self._lanes.enter("discovery", None, Call(self._discovery_timeout), self._discover).join()

    @property
    def in_mind(self) -> Gateway | None:
        """The gateway of the last call, whatever the program has done to the list of devices since."""
        return self._gateway

    @property
    def cached(self) -> Gateway | None:
        """The gateway in mind, or what takes its place by what the program has done to the list of devices."""
        if self._gateway is not None and self.devices == self._chosen_from:
            return self._gateway
        device = next((device for device in self.devices if device.is_valid_gateway()), None)
        self._gateway = None if device is None else self._adopt(device)
        return self._gateway

    async def _discover(self, _: Call) -> Gateway:
        device, self.devices = await self._finder.find_gateway(self._discovery_timeout)
        return self._adopt(device)

    def _adopt(self, device: Device) -> Gateway:
        """Take a device for the gateway. What is known of the one before counts on if it is the same router."""
        before = self._gateway
        if before is None or before.device != device:
            is_same_router = before is not None and before.device.udn and before.device.udn == device.udn
            memory = before.channel.memory if before is not None and is_same_router else Memory()
            try:
                channel = Channel(self._http, device, memory)
            except ValueError as error:
                raise UnsupportedError(f"no control URL: {error}") from error
            before = Gateway(channel, self._lanes, self._timeout, self.check_open)
        self._gateway = before
        self._chosen_from = list(self.devices)
        return before


def _may_have_moved(error: IGDError) -> bool:
    if isinstance(error, TransportError):
        return not error.may_have_arrived
    return isinstance(error, DeadlineError) or (isinstance(error, InvalidResponseError) and error.status in NOT_THERE)
