"""How are PCP and NAT-PMP joined to the core? A driver for each of them, with the same search and listener."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, Literal

from ..core.backend import Backend, Candidate, Driver, Hint, Search, SearchScope
from ..errors import IGDError
from ..models import Device
from ..net.interfaces import source_address_for
from .announcements import AnnouncementListener
from .datagram_backend import join_address
from .epoch import NatPmpEpoch, PcpEpoch
from .nat_pmp_backend import NatPmpBackend
from .nonce import default_secret
from .pcp_backend import PcpBackend
from .search import PcpSearch, device_at, hosts_of
from .state import RouterState
from .wire.common import SERVER_PORT

__all__ = ["PcpDriver"]

_MAX_ROUTERS: Final = 32
"""Routers of which something is remembered, the latest."""


class PcpDriver(Driver):
    """One of the two protocols.

    ``scope`` says where announcements are listened to, ``port`` where routers are asked, and from ``secret`` the nonces
    of PCP are derived: by default from what is the same for each program of this user.
    """

    def __init__(
        self,
        protocol: Literal["pcp", "nat-pmp"],
        scope: SearchScope,
        *,
        port: int = SERVER_PORT,
        secret: bytes | None = None,
    ) -> None:
        self.protocol: Literal["pcp", "nat-pmp"] = protocol
        self._scope = scope
        self._port = port
        self._secret = secret
        self._states: dict[str, RouterState] = {}
        self._on_hint: Callable[[Hint], None] | None = None

    def search(self, scope: SearchScope, until: float, report: Callable[[Candidate | None], None]) -> Search:
        """Return a search that asks the next hop, or the host that the scope names."""
        return PcpSearch(self.protocol, scope, self._port_of(scope), until, report)

    def presume(self) -> Device | None:
        """Return the router of the default route, or the one that the program has named.

        None where it is not known, or there are several.
        """
        hosts = hosts_of(self._scope)
        if len(hosts) != 1 or (self.protocol == "nat-pmp" and ":" in hosts[0]):
            return None
        try:
            ours = self._scope.source_address or source_address_for(hosts[0])
        except IGDError:
            return None
        return device_at(self.protocol, join_address(hosts[0], self._port_of(self._scope)), ours)

    def connect(self, device: Device) -> Backend | None:
        """Return the backend for a device that was found by this protocol."""
        if device.protocol != self.protocol:
            return None
        state = self._state_of(device.address)
        if self.protocol == "pcp":
            return PcpBackend(device, state, self._scope, default_secret() if self._secret is None else self._secret)
        return NatPmpBackend(device, state, self._scope)

    async def listen(self, on_hint: Callable[[Hint], None]) -> AnnouncementListener:
        """Begin to listen for announcements; a reply that shows a restart or another address is a hint, too."""
        self._on_hint = on_hint
        return AnnouncementListener(self.protocol, on_hint, self._scope, on_other_address=self._doubt_addresses)

    async def close(self) -> None:
        """Do nothing: each request has a socket of its own, which is closed with it."""

    def _port_of(self, scope: SearchScope) -> int:
        """Return the UDP port at which routers are asked."""
        return scope.port or self._port

    def _state_of(self, address: str) -> RouterState:
        """Return what is known of a router."""
        state = self._states.pop(address, None)
        if state is None:
            state = RouterState(PcpEpoch() if self.protocol == "pcp" else NatPmpEpoch())
            state.on_restart = partial(self._give, Hint.RESTARTED)
            state.on_new_address = partial(self._give, Hint.CHANGED)
        self._states[address] = state
        if len(self._states) > _MAX_ROUTERS:
            del self._states[next(iter(self._states))]
        return state

    def _doubt_addresses(self) -> None:
        for state in self._states.values():
            state.external_address = None  # of PCP, which tells it with the next mapping

    def _give(self, hint: Hint) -> None:
        if self._on_hint is not None:
            self._on_hint(hint)
