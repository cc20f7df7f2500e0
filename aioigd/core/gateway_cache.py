"""Which gateway is in use: the cached one, until it has gone or the program changes the list of devices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from async_timeout import timeout_at

from ..arguments import check_devices
from ..errors import IGDError, UnsupportedError, UsageError
from ..models import Device
from ..results import ProtocolName
from ..text import get_logger
from .backend import Backend, Driver, Hint, Listener
from .calls import CallQueue, Operation
from .finder import Finder
from .router import RouterBackends

__all__ = ["GatewayCache"]

log = get_logger("aioigd.discovery")

_STOPGAP_KEPT: Final = 60.0
"""Seconds for which calls use a stopgap without another search, while there are no leases."""
_URGENT_LOOK: Final = 0.1
"""Seconds in which a router has answered by another protocol, where there are other ways than to ask it by that."""
_ROUTES_KEPT: Final = 1.0
"""Seconds for which the routes are not read again: a thousand leases may end at once."""
_HOME_TIMEOUT: Final = 3.0
"""Seconds in which the router of the best default route has to describe itself, once it has answered."""


class GatewayCache:
    """Holds the gateway in use, and finds it when there is none, or another in its place.

    ``discovery_timeout`` (seconds) is for a search. ``devices`` are those of the last search, a plain list: what a
    program changes in it counts from the next call on.

    A gateway that a search has found, and that is not the router of the best default route where that is known, is a
    stopgap (:meth:`Backend.home_hosts`): it is dropped 60 s after it was found, so that the next call searches again.
    Who has leases keeps it (:meth:`keep_stopgap`), and looks for the router (:meth:`find_home`) to go home to it.
    A last resort, which is not connected or refuses to talk, is dropped after that time whoever has it.

    :attr:`router` has the backends of the one in use, by all protocols that it was found to speak.
    """

    def __init__(
        self, drivers: Sequence[Driver], finder: Finder, queue: CallQueue, *, discovery_timeout: float
    ) -> None:
        self.devices: list[Device] = []
        self.router = RouterBackends()
        self._drivers = drivers
        self._finder = finder
        self._queue = queue
        self._discovery_timeout = discovery_timeout
        self.last: Backend | None = None
        """The gateway of the last call, whatever the program has done to the list of devices since; only read."""
        self._looked_for_others = 0.0  # seconds that the longest look has had
        self._is_presuming = False
        self._chosen_from: list[Device] = []
        self._searched: list[Device] = []
        self._home_hosts: tuple[Backend | None, float, Sequence[str]] = None, 0.0, ()
        self._is_kept = False
        self._drop_at = float("inf")

    def cached(self) -> Backend | None:
        """Return the gateway in use, or the one that takes its place by what the program has done to the devices.

        Raises UnsupportedError for a device that cannot be asked, and UsageError for what is no device.
        """
        if self.last is not None and self._is_unchanged():
            if self._drop_at > asyncio.get_running_loop().time():
                return self.last
            log.info("dropping %s, to look for a better one", self.last)
            self.devices = []
        self._drop_at = float("inf")
        device = next((device for device in check_devices(self.devices) if device.is_valid_gateway()), None)
        if device is None:
            self.last = None
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

    def found(self, devices: list[Device]) -> list[Device]:
        """Hold the devices that a search has found, and return them. What the program makes of them is its choice."""
        self._searched = list(devices)
        self.devices = devices
        return devices

    # A router that speaks several protocols

    async def others(self, backend: Backend, until: float, *, is_urgent: bool = False) -> Sequence[Backend]:
        """Return the same router by all other protocols that it speaks, in the order of preference.

        A search ends with the first answer that is certain, so those that were not heard of by then are looked for,
        once for each router. ``until``: the time of the loop's clock until which that may take. ``is_urgent``: it is to
        take no more than 0.1 s, as there are other ways; who answers later is found where there are none.
        """
        current = self.last
        if current is None or not backend.address or current.address != backend.address:
            return ()
        known = {one.protocol for one in (current, *self.router.others)}
        unknown = [driver.protocol for driver in self._drivers if driver.protocol not in known]
        seconds = _URGENT_LOOK if is_urgent else self._discovery_timeout
        if unknown and self._looked_for_others < seconds and self.devices == self._searched:
            with suppress(IGDError, TimeoutError):
                async with timeout_at(until):
                    look = partial(self._look_for_others, current, unknown, seconds)
                    share_key = "others", current, seconds
                    await self._queue.submit("discovery", share_key, look, self._discovery_timeout).wait()
        return self.router.beside(backend)

    def presume(self) -> Backend | None:
        """Return a gateway that may be asked while it is searched for, None where only a search tells which it is.

        For one call at a time, which says in the end with :meth:`presumed` what came of it.
        """
        may_ask = not self._is_presuming and not self._finder.is_switched_off
        device = self._drivers[0].presume() if may_ask else None
        if device is None:
            return None
        backend = self._connect(device)
        self._is_presuming = True
        return backend

    def presumed(self, backend: Backend | None) -> None:
        """Use the gateway that was presumed, if it is one; None: it did not answer."""
        self._is_presuming = False
        if backend is not None and self.cached() is None:
            self.found([backend.device])
            self.last = backend
            self._use(backend.device)

    async def _look_for_others(
        self, current: Backend, protocols: Collection[ProtocolName], seconds: float, _: Operation
    ) -> None:
        def is_there(device: Device) -> bool:
            with suppress(UnsupportedError):
                return self._connect(device).address == current.address
            return False

        found = await self._finder.find_also(protocols, is_there, seconds)
        if self.last is current and self._is_unchanged():
            self.devices.extend(device for device in found if device not in self.devices)
            self._searched = list(self.devices)
            self._use(current.device)
            self._looked_for_others = seconds

    # Stopgaps

    def home_hosts(self) -> Sequence[str]:
        """Return where to look for the router of the best default route, empty where the gateway in use is no stopgap.

        What the program has chosen by itself is none.
        """
        with suppress(UnsupportedError, UsageError):  # the program has put something into the list that cannot be asked
            backend = self.cached()
            if backend is not None and self.devices == self._searched:
                now = asyncio.get_running_loop().time()
                if self._home_hosts[0] is not backend or self._home_hosts[1] <= now:
                    self._home_hosts = backend, now + _ROUTES_KEPT, backend.home_hosts()
                return self._home_hosts[2]
        return ()

    def keep_stopgap(self, keep: bool) -> None:
        """Use a stopgap for as long as it is there, or, from now on, for 60 s at most."""
        self._is_kept = keep
        self._limit_stopgap()

    async def find_home(self, host: str, number: int) -> tuple[Backend | None, bool]:
        """Look for the router of the best default route, and return it and whether anybody answered.

        It is not used before :meth:`go_home`. ``host`` and ``number`` are those of :meth:`Finder.find_home`.
        Raises IGDError where nothing can be sent.
        """

        async def look(_: Operation) -> tuple[Backend | None, bool]:
            device, has_answered = await self._finder.find_home(host, number, _HOME_TIMEOUT)
            return None if device is None else self._connect(device), has_answered

        return await self._queue.submit(None, None, look, _HOME_TIMEOUT).wait()

    def go_home(self, home: Backend) -> None:
        """Use this gateway from now on."""
        self.found([home.device, *(device for device in self.devices if device != home.device)])
        self._chosen_from = list(self.devices)
        self.last = home
        self._note_others(home)
        self._limit_stopgap()

    async def listen(self, on_hint: Callable[[Hint], None]) -> Listener:
        """Begin to listen for announcements by all protocols; the caller closes what is returned."""
        listeners = _Listeners()
        try:
            for driver in self._drivers:
                listeners.append(await driver.listen(on_hint))
        except BaseException:
            await listeners.close()
            raise
        return listeners

    async def _discover(self, _: Operation) -> Backend:
        device, devices = await self._finder.find_gateway(self._discovery_timeout)
        self.found(devices)
        return self._use(device)

    def _is_unchanged(self) -> bool:
        """Return whether the program has left the devices alone since a gateway was chosen from them."""
        try:
            return self.devices == self._chosen_from
        except Exception:  # whatever else is in the list now, it may refuse to be compared
            return False

    def _use(self, device: Device) -> Backend:
        if self.last is None or self.last.device != device:
            self.last = self._connect(device)
        self._note_others(self.last)
        self._chosen_from = list(self.devices)
        self._limit_stopgap()
        return self.last

    def _note_others(self, backend: Backend) -> None:
        """Keep the backends of the other protocols by which the router of this one was found, beside it."""
        self._looked_for_others = 0.0
        found: dict[ProtocolName, Backend] = {}
        for device in self.devices:
            if device.is_valid_gateway() and device.protocol != backend.protocol and device.protocol not in found:
                with suppress(UnsupportedError):
                    other = self._connect(device)
                    if other.address == backend.address:
                        found[device.protocol] = other
        in_order = (found.get(driver.protocol) for driver in self._drivers) if found else ()
        self.router.use(backend, [one for one in in_order if one is not None])

    def _connect(self, device: Device) -> Backend:
        backend = next(filter(None, (driver.connect(device) for driver in self._drivers)), None)
        if backend is None:
            raise UnsupportedError(f"no protocol for {device.description_url or device}")
        return backend

    def _limit_stopgap(self) -> None:
        """Note until when the gateway in use may be used."""
        backend = self.last
        was_found = backend is not None and self.devices == self._searched
        is_last_resort = backend is not None and not backend.device.is_valid_gateway()
        if was_found and (is_last_resort or (not self._is_kept and backend is not None and backend.home_hosts())):
            self._drop_at = asyncio.get_running_loop().time() + _STOPGAP_KEPT
        else:
            self._drop_at = float("inf")


class _Listeners(Listener):
    """The listeners of all protocols as one."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def append(self, listener: Listener) -> None:
        """Add the listener of one protocol."""
        self._listeners.append(listener)

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
        """Close all, whatever becomes of one of them."""
        async with AsyncExitStack() as stack:
            for listener in self._listeners:
                stack.push_async_callback(listener.close)
