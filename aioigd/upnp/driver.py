"""How UPnP is joined to the core: its driver searches, connects to gateways and listens to them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

# First, as it loads aiohttp and lxml: see __init__.py of the package.
from .net.http import HttpClient

# isort: split
from ..arguments import usage_errors_only
from ..core.backend import Backend, Candidate, Driver, Hint, Listener, Search, SearchScope
from ..errors import UnsupportedError, UsageError
from ..models import Device
from ..text import printable, shown
from .backend import UpnpBackend, gateway_id
from .net.ssdp_search import SearchSockets
from .reading_plan import KnownPaths
from .search import DeviceSearch
from .search_schedule import Budget
from .soap_client import GatewayState
from .wire.url import parse_url

__all__ = ["UpnpDriver", "check_location"]

_MAX_GATEWAYS: Final = 32
"""Gateways of which something is remembered, the latest."""


class UpnpDriver(Driver):
    """UPnP IGD: SSDP, SOAP over HTTP, and GENA. ``scope`` says where gateways are listened to."""

    protocol = "upnp"
    head_start = 0.05  # most routers are found by then, and are asked by nothing else

    def __init__(self, scope: SearchScope, http: HttpClient | None = None) -> None:
        self._scope = scope
        self._http = http or HttpClient()
        self._states: dict[str, GatewayState] = {}
        self._known = KnownPaths()
        self._sockets = SearchSockets()
        self._budget = Budget()

    def search(self, scope: SearchScope, until: float, report: Callable[[Candidate | None], None]) -> Search:
        """Return a search by M-SEARCH, or the reading of the description that the scope names."""
        return DeviceSearch(
            self._http, scope, until, report, sockets=self._sockets, budget=self._budget, known=self._known
        )

    def connect(self, device: Device) -> Backend | None:
        """Return the backend for a device that was found by UPnP."""
        if device.protocol != self.protocol:
            return None
        is_guess = False
        if not device.is_valid_gateway():
            with suppress(ValueError):  # a program may have made it, without a description
                is_guess = self._known.is_guess(parse_url(device.description_url))
        try:
            return UpnpBackend(self._http, device, self._state_of(device), self._scope, is_guess=is_guess)
        except ValueError as error:
            raise UnsupportedError(f"no control URL: {error}") from error

    async def listen(self, on_hint: Callable[[Hint], None]) -> Listener:
        """Begin to listen for NOTIFYs and events."""
        from .reboot import UpnpListener  # not before it is needed: only who leases listens

        listener = UpnpListener(self._http, on_hint)
        await listener.open(self._scope)
        return listener

    async def close(self) -> None:
        """Close the HTTP session; a later request opens another."""
        await self._http.close()

    def abandon(self) -> None:
        """Forget the HTTP session, whose connections went with the event loop, and the sockets of searches."""
        self._http.abandon()
        self._sockets = SearchSockets()

    def _state_of(self, device: Device) -> GatewayState:
        """Return what is known of a gateway, wherever it was found before."""
        key = gateway_id(device)
        state = self._states.pop(key, None) or GatewayState()
        self._states[key] = state
        if len(self._states) > _MAX_GATEWAYS:
            del self._states[next(iter(self._states))]
        return state


@usage_errors_only
def check_location(value: object) -> str | None:
    """Return the URL of a device description, None for None, or raise UsageError (INVALID_ARGS)."""
    if value is None:
        return None
    try:
        if not isinstance(value, str):
            raise ValueError("not a str")
        location = str.__str__(value)
        parse_url(location)
    except ValueError as error:
        raise UsageError(
            f"location must be the http URL of a device description, not {shown(value)} ({printable(str(error), 200)})"
        ) from None
    return location
