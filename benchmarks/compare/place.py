"""Where it is measured: in the lab of tests/lab, which is joined to nothing, or (without root) on loopback.

In the lab the emulated gateway is where the router is and the peers are on the LAN, so that each can search as it
always does. On loopback only those take part that can be told from where to search.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Final

from tests.lab.network import LAN_ADDRESS, ROUTER_ADDRESS, Lab, Place

from ..gateway_server import GatewayProcess, gateway_process
from ..peers.registry import UPNP_CLIENT, available
from ..peers.worker import Worker, worker

_LOOPBACK: Final = "127.77.7.7"


class Site:
    """The place, and the processes of the peers that work there; each is started once, when it is first needed."""

    def __init__(self, lab: Lab | None, stack: ExitStack) -> None:
        self.lab = lab
        self.source = LAN_ADDRESS if lab else _LOOPBACK
        self.names = [name for name in available() if lab or name != UPNP_CLIENT]
        self._address = ROUTER_ADDRESS if lab else _LOOPBACK
        self._stack = stack
        self._workers: dict[str, Worker] = {}

    @contextmanager
    def gateway(self, *arguments: str) -> Iterator[GatewayProcess]:
        """Run an emulated gateway."""
        with ExitStack() as stack:
            with self.inside("router"):
                running = stack.enter_context(gateway_process("--address", self._address, *arguments))
            yield running

    def worker(self, name: str) -> Worker:
        """Return the process of a peer."""
        if name not in self._workers:
            with self.inside("lan"):
                self._workers[name] = self._stack.enter_context(worker(name, self.source))
        return self._workers[name]

    def forget(self, name: str) -> None:
        """Start another process for a peer the next time; the present one may be in any state."""
        self._workers.pop(name, None)

    def inside(self, place: Place) -> AbstractContextManager[None]:
        """Move the calling thread there, as `Lab.inside` does; on loopback everything is in one place."""
        return self.lab.inside(place) if self.lab else nullcontext()


@contextmanager
def site() -> Iterator[Site]:
    """Build the lab where that is possible."""
    with ExitStack() as stack:
        possible = os.geteuid() == 0 and all(map(shutil.which, ("ip", "iptables-legacy-restore", "miniupnpd")))
        lab = stack.enter_context(Lab()) if possible else None
        yield Site(lab, stack)
