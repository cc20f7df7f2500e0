"""Which gateway does a call run on, shared with whom, behind whom; and again on another if that has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, TypeVar

from async_timeout import timeout_at

from ..errors import (
    ConflictError,
    DeadlineError,
    DiscoveryError,
    IGDError,
    InvalidResponseError,
    NoRouteError,
    NotFoundError,
    RefusedError,
    TransportError,
    UnsupportedError,
    is_gone,
)
from ..models import MappingKey, MappingRequest, Pinhole, PinholeRequest, PortMapping
from ..results import UPnPResult
from .backend import NEVER, Backend, Trial
from .calls import CallQueue, Operation
from .gateway_cache import GatewayCache
from .limiter import Limiter

__all__ = ["Dispatcher"]

T = TypeVar("T")

FinalErrors = tuple[type[IGDError], ...]

_ANY: Final[FinalErrors] = (IGDError,)
_CONFLICT: Final[FinalErrors] = (ConflictError,)
_PRESUMED_HEAD_START: Final = 0.002
"""Seconds for a gateway that is presumed to be there, until which no other one is searched for: many answer by then."""
_LOOPBACK: Final = "127."
"""How IPv4 addresses begin that lead no further than to this machine (RFC 1122 section 3.2.1.3)."""


class Dispatcher:
    """Turns what is asked for into calls, each of them with ``timeout`` seconds for its own work.

    They run on the gateway of the ``cache``, and once more on another if that one has gone; what it refuses by one
    protocol it is asked for by the others that it speaks. With a ``fixed`` gateway they run on that one and no other.
    Identical calls share one; different ones for a port and protocol keep their order, across all dispatchers of a
    queue.
    """

    def __init__(self, queue: CallQueue, cache: GatewayCache, timeout: float, fixed: Backend | None = None) -> None:
        self._queue = queue
        self._cache = cache
        self._timeout = timeout
        self._fixed = fixed
        self._search: partial[Coroutine[Any, Any, bool]] | None = None
        """Looks for the gateway of the cache, if that may have moved: one for all calls that wait for it."""
        self.seconds_needed = 0.0
        """The longest that the gateway of the cache was seen to need for a request."""

    @property
    def fixed(self) -> Backend | None:
        """The only gateway on which its calls run, None for the one of the cache."""
        return self._fixed

    @property
    def holds_since(self) -> float:
        """Since when the gateway holds mappings, as any of its protocols tells; see :attr:`Backend.holds_since`."""
        backends = self._cache.router.all if self._fixed is None else (self._fixed,)
        return max((backend.holds_since for backend in backends), default=NEVER)

    def fixed_to(self, backend: Backend) -> Dispatcher:
        """Return a dispatcher of the same queue whose calls run on this gateway and no other."""
        return Dispatcher(self._queue, self._cache, self._timeout, fixed=backend)

    # Plain functions that return awaitables: identical callers come by the ten thousand, and each costs two partials, a
    # look-up and a future. A thousand different ones may wait for their turn, and what each holds until then is looked
    # at by the garbage collector: so no closures.

    def add(self, request: MappingRequest, *, overwrite: bool, verify: bool = False) -> Awaitable[PortMapping]:
        """Make a mapping; with ``overwrite`` in the place of another."""
        return self._queue.submit(
            request.key[:2],
            (self, request, overwrite, verify),
            partial(self._run, partial(_add, request, overwrite, verify), request.key, () if overwrite else _CONFLICT),
            self._timeout,
            self._limiter_for(request.key),
        ).wait()

    def try_port(self, request: MappingRequest, trial: Trial) -> Awaitable[PortMapping]:
        """Make a mapping on one of many ports, not in the place of another."""
        return self.do(
            lambda backend, op: backend.add(
                op, _reachable(request, backend), overwrite=False, verify=False, trial=trial
            ),
            request.key[:2],
            (self, request, trial),
            what=request.key,
            final=_CONFLICT,
        )

    def add_any(self, request: MappingRequest, *, by_others: bool = True) -> Awaitable[PortMapping]:
        """Make a mapping on the port that was asked for, or on any other.

        ``by_others``: where the gateway cannot choose a port, ask it by another protocol.
        """
        return self.do(
            lambda backend, op: backend.add_any(op, _reachable(request, backend)),
            (self, "any port", request),
            what=request.key,
            final=() if by_others else (UnsupportedError,),
        )

    def delete(self, key: MappingKey, *, verify: bool = False) -> Awaitable[None]:
        """Delete a mapping; with ``verify`` look whether it is gone."""
        return self.do(
            lambda backend, op: self._delete(backend, op, key, verify),
            key[:2],
            (self, "delete", key, verify),
            what=key,
        )

    def find(self, key: MappingKey) -> Awaitable[PortMapping | None]:
        """Return the mapping that the gateway holds for a key, None where it says that there is none."""
        return self.do(lambda backend, op: backend.find(op, key), key[:2], (self, "find", key), what=key)

    def external_address(self) -> Awaitable[IPv4Address | IPv6Address]:
        """Return the gateway's address on the internet."""
        key = (self, "external address")
        return self.do(lambda backend, op: backend.external_address(op), key, key, final=())

    def poll(self) -> Awaitable[IPv4Address | IPv6Address]:
        """Return the same, and ask the gateway in any case whether it is there, by each protocol that is in use."""
        key = (self, "poll")
        return self.do(lambda backend, op: self._poll(backend, op), key, key, final=())

    def list_page(self, cursor: Any) -> Awaitable[tuple[Sequence[PortMapping], Any]]:
        """Return some of the gateway's mappings, and the cursor of the next page (None behind the last)."""
        return self.do(lambda backend, op: backend.list_page(op, cursor))

    def add_pinhole(self, request: PinholeRequest) -> Awaitable[Pinhole]:
        """Open a pinhole, or prolong the one that is open for the same packets."""
        return self.do(
            lambda backend, op: backend.add_pinhole(op, request), _order_of(request), (self, request), final=()
        )

    def delete_pinhole(self, pinhole: Pinhole) -> Awaitable[None]:
        """Close a pinhole."""
        return self.do(
            lambda backend, op: backend.delete_pinhole(op, pinhole), _order_of(pinhole), (self, pinhole), what=pinhole
        )

    def query(self, what: Hashable, question: Callable[[Backend, Operation], Awaitable[T]]) -> Awaitable[T]:
        """Ask the gateway something; callers who ask for the same (``what``) while it is asked share the answer."""
        key = (self, what)
        return self.do(question, key, key)

    def do(
        self,
        operation: Callable[[Backend, Operation], Awaitable[T]],
        order_key: Hashable = None,
        share_key: Hashable = None,
        *,
        what: MappingKey | Pinhole | None = None,
        final: FinalErrors = _ANY,
    ) -> Awaitable[T]:
        """Do anything on the gateway; the keys are those of :meth:`~aioigd.core.calls.CallQueue.submit`.

        ``what``: what it is about; who has made that is asked first. ``final``: the refusals after which the router is
        not asked by another protocol.
        """
        work = partial(self._run, operation, what, final)
        return self._queue.submit(order_key, share_key, work, self._timeout, self._limiter_for(what)).wait()

    async def _run(
        self,
        operation: Callable[[Backend, Operation], Awaitable[T]],
        what: MappingKey | Pinhole | None,
        final: FinalErrors,
        op: Operation,
    ) -> T:
        if self._fixed is not None:
            return await self._by_each(operation, self._fixed, what, _ANY, op)
        backend = self._cache.cached()
        if backend is None:
            op.start()  # the search is part of the call's own work
            op.leave_turn()
            presumed = self._cache.presume()
            if presumed is not None:
                return await self._beside_search(operation, presumed, what, final, op)
            return await self._by_each(operation, await self._cache.find(), what, final, op)
        op.rediscover_on_timeout = True
        if self._search is None or self._search.args[0] is not backend:
            self._search = partial(self._is_elsewhere, backend)
        op.search = self._search
        router = self._cache.router
        asked = router.backend_for(what, backend) if what is not None and router.others else backend
        try:
            result = await operation(asked, op)
            if op.seconds_needed > self.seconds_needed:
                self.seconds_needed = op.seconds_needed
            return result
        except IGDError as error:
            error.protocol = error.protocol or asked.protocol
            may_have_moved = isinstance(error, DeadlineError) and op.rediscover_on_timeout
            if op.expired or not (is_gone(error) or may_have_moved):
                return await self._by_others(operation, asked, error, what, final, op)
            op.rediscover_on_timeout = False
            op.leave_turn()
            try:
                async with timeout_at(op.deadline):
                    backend = await self._cache.find(instead_of=backend)
            except (IGDError, TimeoutError):
                raise error from error.__cause__  # nobody there at all: what happened first says more
        if backend.protocol != asked.protocol:
            self._cache.router.note_maker(backend, what)
        return await self._by_each(operation, backend, what, final, op)

    def _limiter_for(self, what: MappingKey | Pinhole | None) -> Limiter | None:
        """Return what lets a call begin; None where the gateway is not known, and all wait for one search."""
        backend = self._fixed or self._cache.last
        router = self._cache.router
        if backend is not self._fixed and backend is not None and what is not None and router.others:
            backend = router.backend_for(what, backend)
        return None if backend is None else backend.limiter

    async def _delete(self, backend: Backend, op: Operation, key: MappingKey, verify: bool) -> None:
        """Delete a mapping by this protocol, and what others have made of it before they were given up."""
        failure: IGDError | None = None
        try:
            await (backend.delete(op, key, verify=True) if verify else backend.delete(op, key))
        except IGDError as error:
            failure = error
        for other in self._cache.router.all if self._fixed is None else ():
            if other is not backend and other.address == backend.address and other.has_made(key):
                with suppress(IGDError):
                    await other.delete(op, key)
                    if isinstance(failure, NotFoundError):
                        failure = None  # it was this one that still had it
        if failure is not None:
            raise failure

    async def _poll(self, backend: Backend, op: Operation) -> IPv4Address | IPv6Address:
        address = await backend.poll(op)
        serving = self._cache.router.serving
        if serving is not None and serving is not backend:
            with suppress(IGDError):
                await serving.poll(op)
        return address

    async def _by_each(
        self,
        operation: Callable[[Backend, Operation], Awaitable[T]],
        backend: Backend,
        what: MappingKey | Pinhole | None,
        final: FinalErrors,
        op: Operation,
    ) -> T:
        """Do it on a gateway by this protocol, and if that is refused by the others that it speaks."""
        try:
            return await operation(backend, op)
        except IGDError as error:
            return await self._by_others(operation, backend, error, what, final, op)

    async def _by_others(
        self,
        operation: Callable[[Backend, Operation], Awaitable[T]],
        refusing: Backend,
        error: IGDError,
        what: MappingKey | Pinhole | None,
        final: FinalErrors,
        op: Operation,
    ) -> T:
        """Do it by the other protocols of a router, after one has refused it; raises the error where none does it.

        What the refusing protocol has made before is deleted by it: the others take it for somebody else's.
        """
        error.protocol = error.protocol or refusing.protocol
        if op.expired or not _may_go_on(error, final, op):
            raise error
        is_conflict = isinstance(error, ConflictError)
        # A port that is taken, or an action that is missing, says nothing of what else is refused.
        is_general = not isinstance(error, (ConflictError, UnsupportedError))
        # Where no request was made, the protocol knows no such thing, as most cannot choose a port. There are other
        # ways then, and silence at the port of another protocol must hardly delay them.
        for backend in await self._cache.others(refusing, op.deadline, is_urgent=not op.attempts):
            await op.undo_and_begin_anew()
            if isinstance(what, MappingKey) and refusing.has_made(what):
                with suppress(IGDError):
                    await refusing.delete(op, what)
                op.begin_anew()
            try:
                result = await operation(backend, op)
            except IGDError as another:
                another.protocol = another.protocol or backend.protocol
                if isinstance(another, ConflictError) and not is_conflict:
                    error, is_conflict = another, True  # says more than that the first one maps nothing
                if op.expired or not _may_go_on(another, final, op):
                    break
                refusing = backend
            else:
                self._cache.router.note_maker(backend, what)
                if isinstance(what, MappingKey) and is_general and not is_conflict:
                    self._cache.router.note_serving(backend)
                return result
        raise error

    async def _beside_search(
        self,
        operation: Callable[[Backend, Operation], Awaitable[T]],
        presumed: Backend,
        what: MappingKey | Pinhole | None,
        final: FinalErrors,
        op: Operation,
    ) -> T:
        """Do it on a gateway that is presumed to be there, while it is searched for: one round trip instead of two."""
        loop = asyncio.get_running_loop()
        asking = loop.create_task(_awaited(operation(presumed, op)))
        search = loop.create_task(self._find_after(asking))
        used: Backend | None = None
        try:
            await asyncio.wait((asking, search), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done() and _is_same(search.result(), presumed):
                await asyncio.wait((asking,))
            if asking.done() and asking.exception() is None:
                used = presumed
                return asking.result()
            backend = await search
        except DiscoveryError as error:
            said = asking.exception() if asking.done() else None
            if isinstance(said, RefusedError) and not isinstance(said, UnsupportedError):
                said.protocol = said.protocol or presumed.protocol
                raise said from None  # who refuses is there, whatever it says to the question of the search
            raise error from said
        finally:
            self._cache.presumed(used)
            asking.cancel()
            search.cancel()
            failure = (await asyncio.gather(asking, search, return_exceptions=True))[0]
        if isinstance(failure, IGDError):
            if _is_same(backend, presumed):
                return await self._by_others(operation, backend, failure, what, final, op)
        elif isinstance(failure, Exception):
            raise failure
        undo = op.begin_anew()
        if undo is not None:  # the request may yet arrive: behind this call, which may ask the same router for the same
            self._queue.undo_in_order(what[:2] if isinstance(what, MappingKey) else None, undo)
        return await self._by_each(operation, backend, what, final, op)

    async def _find_after(self, asking: asyncio.Task[Any]) -> Backend:
        """Search for a gateway, unless one that is asked already answers in a moment."""
        await asyncio.wait((asking,), timeout=_PRESUMED_HEAD_START)
        return await self._cache.find()

    async def _is_elsewhere(self, backend: Backend) -> bool:
        """Search for a gateway that is silent, and return whether it, or another one, is elsewhere by now."""
        return (await self._cache.find(instead_of=backend)).location != backend.location


def _add(
    request: MappingRequest, overwrite: bool, verify: bool, backend: Backend, op: Operation
) -> Awaitable[PortMapping]:
    return backend.add(op, _reachable(request, backend), overwrite=overwrite, verify=verify)


async def _awaited(work: Awaitable[T]) -> T:
    return await work


def _is_same(one: Backend, other: Backend) -> bool:
    return (one.protocol, one.location) == (other.protocol, other.location)


def _may_go_on(error: IGDError, final: FinalErrors, op: Operation) -> bool:
    """Return whether another protocol may succeed after an error: a refusal, what is no answer, a cut connection.

    Not where nothing was sent, as no gateway can grant the request, it contradicts a mapping that this program has (and
    that another protocol might move), or nothing can be sent from here.
    """
    if isinstance(error, (*final, NoRouteError)):
        return False
    if isinstance(error, ConflictError):
        return any(attempt.protocol == error.protocol for attempt in op.attempts)
    if isinstance(error, RefusedError):
        return error.result is not UPnPResult.INVALID_ARGS or error.error_code is not None
    return isinstance(error, (InvalidResponseError, TransportError))


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
