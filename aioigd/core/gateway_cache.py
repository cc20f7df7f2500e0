"""Which gateway is in use: the cached one, until it has gone or the program changes the list of devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

from ..errors import UnsupportedError
from ..models import Device
from .backend import Backend, Driver, Hint, Listener
from .calls import CallQueue, Operation
from .finder import Finder

__all__ = ["GatewayCache"]


class GatewayCache:
    """Holds the gateway in use, and finds it when there is none, or another in its place.

    ``discovery_timeout`` (seconds) is for a search. ``devices`` are those of the last search, a plain list: what a
    program changes in it counts from the next call on.
    """

    def __init__(
        self, drivers: Sequence[Driver], finder: Finder, queue: CallQueue, *, discovery_timeout: float
    ) -> None:
        self.devices: list[Device] = []
        self._drivers = drivers
        self._finder = finder
        self._queue = queue
        self._discovery_timeout = discovery_timeout
        self._backend: Backend | None = None
        self._chosen_from: list[Device] = []

    @property
    def last(self) -> Backend | None:
        """The gateway of the last call, whatever the program has done to the list of devices since."""
        return self._backend

    def cached(self) -> Backend | None:
        """Return the gateway in use, or the one that takes its place by what the program has done to the devices.

        Raises UnsupportedError for a device that cannot be asked.
        """
        if self._backend is not None and self.devices == self._chosen_from:
            return self._backend
        device = next((device for device in self.devices if device.is_valid_gateway()), None)
        if device is None:
            self._backend = None
            return None
        return self._use(device)

    async def find(self, *, instead_of: Backend | None = None) -> Backend:
        """Return the cached gateway, unless it is the one to be replaced, or the one that a search finds.

        Everybody who asks while a search is under way shares it. Raises what :meth:`Finder.find_gateway` raises.
        """
        backend = self.cached()
        if backend is not None and backend is not instead_of:
            return backend
        return await self._queue.submit("discovery", "discovery", self._discover, self._discovery_timeout).wait()

    async def listen(self, on_hint: Callable[[Hint], None]) -> Listener:
        """Begin to listen for announcements by all protocols; the caller closes what is returned."""
        listeners: list[Listener] = []
        try:
            for driver in self._drivers:
                listeners.append(await driver.listen(on_hint))
        except BaseException:
            for listener in listeners:
                await listener.close()
            raise
        return _Listeners(listeners)

    async def _discover(self, _: Operation) -> Backend:
        device, self.devices = await self._finder.find_gateway(self._discovery_timeout)
        return self._use(device)

    def _use(self, device: Device) -> Backend:
        if self._backend is None or self._backend.device != device:
            backend = next(filter(None, (driver.connect(device) for driver in self._drivers)), None)
            if backend is None:
                raise UnsupportedError(f"no protocol for {device.description_url or device}")
            self._backend = backend
        self._chosen_from = list(self.devices)
        return self._backend


class _Listeners(Listener):
    """The listeners of all protocols as one."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def follow(self, backend: Backend | None, *, resubscribe: bool) -> None:
        for listener in self._listeners:
            listener.follow(backend, resubscribe=resubscribe)

    def note_address(self, address: IPv4Address | IPv6Address | None) -> None:
        for listener in self._listeners:
            listener.note_address(address)

    def refresh(self) -> None:
        for listener in self._listeners:
            listener.refresh()

    async def close(self) -> None:
        for listener in self._listeners:
            await listener.close()
