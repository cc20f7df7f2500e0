"""Which gateway does a call run on, shared with whom, behind whom; and again on another if that has gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, TypeVar

from async_timeout import timeout_at

from ..errors import DeadlineError, IGDError, RefusedError, is_gone
from ..models import MappingKey, MappingRequest, Pinhole, PinholeRequest, PortMapping
from ..results import UPnPResult
from .backend import Backend, Trial
from .calls import CallQueue, Operation
from .gateway_cache import GatewayCache

__all__ = ["Dispatcher"]

T = TypeVar("T")

_LOOPBACK: Final = "127."
"""How IPv4 addresses begin that lead no further than to this machine (RFC 1122 section 3.2.1.3)."""


class Dispatcher:
    """Turns what is asked for into calls, each of them with ``timeout`` seconds for its own work.

    They run on the gateway of the ``cache``, and once more on another if that one has gone; with a ``fixed`` gateway on
    that one and no other. Identical calls share one; different ones for a port and protocol keep their order, across
    all dispatchers of a queue.
    """

    def __init__(self, queue: CallQueue, cache: GatewayCache, timeout: float, fixed: Backend | None = None) -> None:
        self._queue = queue
        self._cache = cache
        self._timeout = timeout
        self._fixed = fixed
        self.seconds_needed = 0.0
        """The longest that the gateway of the cache was seen to need for a request."""

    @property
    def fixed(self) -> Backend | None:
        """The only gateway on which its calls run, None for the one of the cache."""
        return self._fixed

    def fixed_to(self, backend: Backend) -> Dispatcher:
        """Return a dispatcher of the same queue whose calls run on this gateway and no other."""
        return Dispatcher(self._queue, self._cache, self._timeout, fixed=backend)

    # Plain functions that return awaitables: identical callers come by the ten thousand, and each costs a lambda, a
    # look-up and a future.

    def add(self, request: MappingRequest, *, overwrite: bool, verify: bool = False) -> Awaitable[PortMapping]:
        """Make a mapping; with ``overwrite`` in the place of another."""
        return self._queue.submit(
            request.key[:2],
            (self, request, overwrite, verify),
            partial(
                self._run,
                lambda backend, op: backend.add(op, _reachable(request, backend), overwrite=overwrite, verify=verify),
            ),
            self._timeout,
        ).wait()

    def try_port(self, request: MappingRequest, trial: Trial) -> Awaitable[PortMapping]:
        """Make a mapping on one of many ports, not in the place of another."""
        return self.do(
            lambda backend, op: backend.add(
                op, _reachable(request, backend), overwrite=False, verify=False, trial=trial
            ),
            request.key[:2],
            (self, request, trial),
        )

    def add_any(self, request: MappingRequest) -> Awaitable[PortMapping]:
        """Make a mapping on the port that was asked for, or on any other."""
        return self.do(
            lambda backend, op: backend.add_any(op, _reachable(request, backend)), (self, "any port", request)
        )

    def delete(self, key: MappingKey, *, verify: bool = False) -> Awaitable[None]:
        """Delete a mapping; with ``verify`` look whether it is gone."""
        return self.do(
            lambda backend, op: backend.delete(op, key, verify=True) if verify else backend.delete(op, key),
            key[:2],
            (self, "delete", key, verify),
        )

    def find(self, key: MappingKey) -> Awaitable[PortMapping | None]:
        """Return the mapping that the gateway holds for a key, None where it says that there is none."""
        return self.do(lambda backend, op: backend.find(op, key), key[:2], (self, "find", key))

    def external_address(self) -> Awaitable[IPv4Address | IPv6Address]:
        """Return the gateway's address on the internet."""
        return self.query("external address", lambda backend, op: backend.external_address(op))

    def list_page(self, cursor: Any) -> Awaitable[tuple[Sequence[PortMapping], Any]]:
        """Return some of the gateway's mappings, and the cursor of the next page (None behind the last)."""
        return self.do(lambda backend, op: backend.list_page(op, cursor))

    def add_pinhole(self, request: PinholeRequest) -> Awaitable[Pinhole]:
        """Open a pinhole, or prolong the one that is open for the same packets."""
        return self.do(lambda backend, op: backend.add_pinhole(op, request), _order_of(request), (self, request))

    def delete_pinhole(self, pinhole: Pinhole) -> Awaitable[None]:
        """Close a pinhole."""
        return self.do(lambda backend, op: backend.delete_pinhole(op, pinhole), _order_of(pinhole), (self, pinhole))

    def query(self, what: Hashable, question: Callable[[Backend, Operation], Awaitable[T]]) -> Awaitable[T]:
        """Ask the gateway something; callers who ask for the same (``what``) while it is asked share the answer."""
        key = (self, what)
        return self.do(question, key, key)

    def do(
        self,
        operation: Callable[[Backend, Operation], Awaitable[T]],
        order_key: Hashable = None,
        share_key: Hashable = None,
    ) -> Awaitable[T]:
        """Do anything on the gateway; the keys are those of :meth:`~aioigd.core.calls.CallQueue.submit`."""
        return self._queue.submit(order_key, share_key, partial(self._run, operation), self._timeout).wait()

    async def _run(self, operation: Callable[[Backend, Operation], Awaitable[T]], op: Operation) -> T:
        if self._fixed is not None:
            return await operation(self._fixed, op)
        backend = self._cache.cached()
        if backend is None:
            op.start()  # the search is part of the call's own work
            return await operation(await self._cache.find(), op)
        op.rediscover_on_timeout = True
        op.search = partial(self._is_elsewhere, backend)
        try:
            result = await operation(backend, op)
            if op.seconds_needed > self.seconds_needed:
                self.seconds_needed = op.seconds_needed
            return result
        except IGDError as error:
            may_have_moved = isinstance(error, DeadlineError) and op.rediscover_on_timeout
            if op.expired or not (is_gone(error) or may_have_moved):
                raise
            op.rediscover_on_timeout = False
            try:
                async with timeout_at(op.deadline):
                    backend = await self._cache.find(instead_of=backend)
            except (IGDError, TimeoutError):
                raise error from error.__cause__  # nobody there at all: what happened first says more
        return await operation(backend, op)

    async def _is_elsewhere(self, backend: Backend) -> bool:
        """Search for a gateway that is silent, and return whether it, or another one, is elsewhere by now."""
        return (await self._cache.find(instead_of=backend)).location != backend.location


def _reachable(request: MappingRequest, backend: Backend) -> MappingRequest:
    """Return a request, or raise RefusedError (INVALID_ARGS) where it leads to loopback, and the gateway is elsewhere.

    Nothing is sent then: the gateway would say yes, and forward to itself.
    """
    client = request.internal_client
    if client.startswith(_LOOPBACK):
        ours = backend.internal_client
        if not ours.startswith(_LOOPBACK):
            raise RefusedError(
                f"nobody outside this machine reaches {client}: let the server listen on {ours} or 0.0.0.0",
                UPnPResult.INVALID_ARGS,
            )
    return request


def _order_of(pinhole: Pinhole | PinholeRequest) -> Hashable:
    return "pinhole", pinhole.proto, pinhole.internal_port
