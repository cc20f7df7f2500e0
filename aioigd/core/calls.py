"""What may happen to a call now, and how much time it and each request have: sharing, queue, cancellation, undo.

A call is one task from its begin on (:class:`SharedCall`), with a future for each caller who waits for it; the layers
below see it as an :class:`Operation`. In which phase it is, only this module assigns:

====================  =============================  =================  =======================================
phase                 last caller leaves, or drain   another joins      the work goes on
====================  =============================  =================  =======================================
UNSENT (or queued)    cancelled; those behind it     joins              ``sent()`` → SENT
                      wait for its predecessor
SENT: the outcome     UNWANTED, with a timer of      joins              ``rejected()`` → UNSENT;
is not known          ROLLBACK_TIMEOUT                                  ``settled()`` → SETTLED
UNWANTED: nobody      -                              SENT, timer off    at a checkpoint, the outcome, or the
waits any more                                                          timer → ROLLING_BACK
SETTLED: done         result not taken: its undo is  a new call         each caller gets the result
                      queued in the same order
failed                -                              -                  each caller gets a copy of the error;
                                                                        SENT or UNWANTED → ROLLING_BACK
ROLLING_BACK          goes on                        a new call behind  ends within Operation.undo_limit
====================  =============================  =================  =======================================

Why so: a request that is out may change the gateway, whether or not somebody still waits for the reply. So a call is
only cancelled while nothing is out; otherwise it gets a moment to hear what became of its request, and another to undo
it. How to undo is known to those who sent the request: they say so with ``sent()`` and ``settled()``, and the undo
belongs to the operation from then on. It is run in one place, whatever was sent, and takes no notice of further
cancellations. A call that fails is undone as well, behind the error: what the gateway has done by then, or may yet do,
is nothing that a caller knows of. Joining, leaving and cancelling cost a caller O(1), whatever the number of the
others: each waits for a future of its own, and none for the task (removing a callback from a task with many is linear).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from enum import Enum, auto
from functools import partial
from typing import Any, Final, Generic, TypeVar
from weakref import ref

from ..errors import Attempt, IGDError, UnexpectedError, UsageError
from .background import BackgroundTask, carry_through
from .limiter import Limiter

__all__ = ["LONGEST_ROLLBACK", "ROLLBACK_TIMEOUT", "CallQueue", "Operation", "Phase", "SharedCall", "Undo"]

T = TypeVar("T")

ROLLBACK_TIMEOUT: Final = 2.0
"""Seconds that a call nobody waits for has to hear what became of its request, and again to undo it at least."""
LONGEST_ROLLBACK: Final = 20.0
"""Seconds that an undo takes at most, on gateways that need long for a request."""

_SLACK: Final = 1.5
"""How many times as long as it was seen to need at most a gateway gets for a request."""
_SHORT_SHARE: Final = 0.3
"""Part of a call for a request without which it can go on."""


class Phase(Enum):
    """How far a call has come, and so what may happen to it; see the table above."""

    UNSENT = auto()
    SENT = auto()
    UNWANTED = auto()
    SETTLED = auto()
    ROLLING_BACK = auto()


class Operation:
    """A call as the layers below see it: its deadline, its attempts, its phase, and how to undo what was sent.

    ``timeout`` (seconds) bounds the call's own work. The clock starts with its first request, or with :meth:`start`,
    and stands still while the call waits behind other requests of this program.
    """

    # What is seldom anything else belongs to the class: there is one of these for each call.
    _share = 0.5
    _deadline: float | None = None
    _requests_out = 0
    _undo: Undo | None = None
    last_sent = 0.0
    """When a request that may change the gateway last went out, on the loop's clock."""
    phase = Phase.UNSENT
    goes_first = False
    """Whether its requests go before what has not begun: it has its turn, or the clock runs."""
    reply_lost = False
    """No reply came to a request that may have arrived: it may have been carried out."""
    was_alone = False
    """No other request was out with the last one that was lost: the gateway did not have too many at once."""
    rediscover_on_timeout = False
    """A gateway that is silent may have moved: looking for it comes before asking again."""
    search: Callable[[], Awaitable[bool]] | None = None
    """Searches for the gateway, and returns whether it is elsewhere by now; for one that may have moved."""
    gives_up_early = False
    """A request that is silent is not sent again; see :meth:`short_attempts`."""
    may_go_beside = True
    """While a request is silent, another one may be sent beside it."""
    seconds_needed = 0.0
    """The longest that this gateway was seen to need for a request."""
    seconds_on_rows = 0.0
    """How long the call has read a table row by row, which is a last resort."""

    def __init__(self, timeout: float, limiter: Limiter | None = None) -> None:
        self.timeout = timeout
        """Seconds that the call's own work may take."""
        self._limiter = limiter
        if limiter is not None:
            self.goes_first = True
        self._loop = asyncio.get_running_loop()
        self._idle_since = self._loop.time()
        self._attempts: list[Attempt] = []
        self._notes: list[Callable[[], Attempt]] = []

    # Attempts

    @property
    def attempts(self) -> list[Attempt]:
        """The requests that were made, each with what came of it."""
        if self._notes:
            self._attempts += [make() for make in self._notes]
            self._notes.clear()
        return self._attempts

    def note(self, make: Callable[[], Attempt]) -> None:
        """Note an attempt, which is made when somebody asks for it: nobody does of a call that succeeds."""
        self._notes.append(make)

    # Time

    def start(self) -> None:
        """Start the clock, unless it runs already."""
        if self._deadline is None:
            self._deadline = self._loop.time() + self.timeout
            self.goes_first = True

    @property
    def deadline(self) -> float:
        """When the call has to be over, on the loop's clock."""
        if self._deadline is None:
            self.start()
            assert self._deadline is not None  # noqa: S101 - start() has just set it
        return self._deadline

    @property
    def attempt_deadline(self) -> float:
        """When a request that is sent now has to be answered: at most half the call, so that a second is possible.

        A gateway that was seen to need longer for a request gets half as much again as it needs.
        """
        latest = self._loop.time() + max(self._share * self.timeout, _SLACK * self.seconds_needed)
        return latest if self._deadline is None else min(self._deadline, latest)

    @contextmanager
    def short_attempts(self) -> Iterator[None]:
        """Give requests only a part of the time that they have otherwise, so that what follows has the rest.

        One that is silent for so long is given up, and not sent again.
        """
        before = self._share, self.gives_up_early
        self._share, self.gives_up_early = _SHORT_SHARE, True
        try:
            yield
        finally:
            self._share, self.gives_up_early = before

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self._deadline is not None and self._loop.time() >= self._deadline

    def request_started(self, waiting_since: float) -> float:
        """Note that a request may go now, for which the call has waited since then, and return the time.

        The clock stood still for that time, as far as no other request of this call was out in it.
        """
        now = self._loop.time()
        if self._limiter is not None:
            self._limiter.end_turn()
            self._limiter = None
        if self._deadline is None:
            self._deadline = now + self.timeout
            self.goes_first = True
        elif not self._requests_out:
            self._deadline += max(0.0, now - max(waiting_since, self._idle_since))
        self._requests_out += 1
        return now

    def request_finished(self) -> None:
        """Note that a request is over, however it ended."""
        self._requests_out -= 1
        self._idle_since = self._loop.time()

    def leave_turn(self) -> None:
        """Note that the turn in which the call began is over: it has a permit by now, or none is needed."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.end_turn()

    # Phases

    def sent(self, undo: Undo) -> None:
        """Note that a request goes out which may change the gateway; ``undo`` takes back what it may have done."""
        self._undo = undo
        self.last_sent = self._loop.time()
        if self.phase is Phase.UNSENT:
            self.phase = Phase.SENT

    def rejected(self) -> None:
        """Note that the gateway has refused: there is nothing to undo."""
        self._undo = None
        self.checkpoint()
        if self.phase is Phase.SENT:
            self.phase = Phase.UNSENT

    def settled(self, undo: Undo | None) -> None:
        """Note that the outcome is known; ``undo`` is for the case that nobody takes the result.

        Raises CancelledError if nobody waits any more.
        """
        self._undo = undo
        if self.phase is Phase.UNWANTED:
            raise asyncio.CancelledError
        if self.phase is not Phase.ROLLING_BACK:
            self.phase = Phase.SETTLED

    def checkpoint(self) -> None:
        """Raise CancelledError if nobody waits any more."""
        if self.phase is Phase.UNWANTED:
            raise asyncio.CancelledError

    def begin_anew(self) -> Undo | None:
        """Note that something else is tried instead of what was sent, and return how to undo that, if it is to be.

        Raises CancelledError if nobody waits any more.
        """
        self.checkpoint()
        undo, self._undo = self._undo if self.is_to_be_undone else None, None
        self.phase = Phase.UNSENT
        return undo

    async def undo_and_begin_anew(self) -> None:
        """Undo what was sent, and note that something else is tried instead.

        Raises CancelledError if nobody waits any more, and no IGDError.
        """
        self.checkpoint()
        if self._undo is not None and self.is_to_be_undone:
            await _run_undo(self._undo, _UndoOperation(self))  # if that is cancelled, it is undone all the same
        self.begin_anew()

    @property
    def is_to_be_undone(self) -> bool:
        """Whether the gateway has done something, or may yet do it, that is not settled."""
        return self._undo is not None and self.phase in (Phase.SENT, Phase.UNWANTED)

    @property
    def undo_limit(self) -> float:
        """Seconds for an undo: what the gateway was seen to need, twice, as it takes a look and a deletion."""
        return max(ROLLBACK_TIMEOUT, min(LONGEST_ROLLBACK, 2 * self.seconds_needed))

    async def roll_back(self) -> None:
        """Undo what was sent, within :attr:`undo_limit`. Raises no IGDError, and takes no notice of cancellation."""
        undo, self._undo = self._undo, None
        if self.phase is not Phase.ROLLING_BACK:
            self.phase = Phase.ROLLING_BACK
            if undo is not None:
                await _carry_undo_through(undo, self)

    def take_undo(self) -> Undo | None:
        """Return how to undo what the call has done, if it is done, and forget it."""
        undo, self._undo = self._undo, None
        return undo if self.phase is Phase.SETTLED else None

    def unwanted(self) -> None:
        """Note that nobody waits any more for a request that is out."""
        if self.phase is Phase.SENT:
            self.phase = Phase.UNWANTED

    def wanted(self) -> None:
        """Note that somebody waits again."""
        if self.phase is Phase.UNWANTED:
            self.phase = Phase.SENT


Undo = Callable[[Operation], Awaitable[None]]
"""Takes back what a request may have done, as an operation that has a deadline of its own."""


class _UndoOperation(Operation):
    """An undo as the layers below see it: its time grows with what the gateway is seen to need for it."""

    def __init__(self, op: Operation) -> None:
        super().__init__(op.undo_limit)
        self.seconds_needed = op.seconds_needed
        self.may_go_beside = False
        self._began = self._loop.time()

    @property
    def deadline(self) -> float:
        """When the undo has to be over, on the loop's clock."""
        return self._began + self.undo_limit

    @property
    def attempt_deadline(self) -> float:
        """When a request that is sent now has to be answered: a slow gateway is not asked twice."""
        if self.undo_limit > ROLLBACK_TIMEOUT:
            return self.deadline
        return min(self.deadline, self._loop.time() + self.undo_limit / 2)

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self._loop.time() >= self.deadline


async def _carry_undo_through(undo: Undo, op: Operation) -> None:
    undoing = _UndoOperation(op)
    await carry_through(partial(_run_undo, undo, undoing), lambda: undoing.undo_limit)


async def _run_undo(undo: Undo, op: Operation) -> None:
    with suppress(IGDError):
        await undo(op)


class SharedCall(Generic[T]):
    """One piece of work, and the callers who wait for its result.

    It is a task from its begin on: once the call before it (``predecessor``) has ended, and the ``limiter`` of the
    gateway lets it. ``op``: that of an undo, which waits for no turn and cannot be cancelled.
    """

    __slots__ = ("_context", "_delivered", "_ended", "_follower", "_limiter", "_loop", "_op", "_queue", "_settled",
                 "_task", "_timeout", "_timer", "_waiters", "_work", "order_key", "predecessor",
                 "share_key")  # fmt: skip

    def __init__(
        self,
        queue: CallQueue,
        order_key: Hashable,
        share_key: Hashable,
        work: Callable[[Operation], Awaitable[T]],
        timeout: float,
        predecessor: SharedCall[Any] | None,
        limiter: Limiter | None = None,
        op: Operation | None = None,
    ) -> None:
        self.order_key = order_key
        self.share_key = share_key
        self.predecessor = predecessor
        """The call that this one waits for."""
        self._follower: SharedCall[Any] | None = None
        """The one that waits for this one."""
        self._queue = queue
        self._work = work
        self._timeout = timeout
        self._limiter = limiter
        self._op = op
        self._delivered = False
        self._ended = False
        self._waiters: set[asyncio.Future[T]] = set()
        self._settled: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._context: Context | None = None
        """That of the caller, for a call that does not begin at once."""

    def begin(self) -> None:
        """Make a task of it, as it is its turn."""
        if self._op is not None:
            self._task = BackgroundTask(self._run(self._op), loop=self._loop, context=self._context)
        else:
            op = self._op = Operation(self._timeout, self._limiter)
            make = self._loop.create_task
            self._task = make(self._run(op)) if self._context is None else self._context.run(make, self._run(op))
        self._task.add_done_callback(self._end, context=self._queue.no_context)

    def wait_in_line(self) -> None:
        """Wait for the end of the call before it, and then until it is its turn."""
        if self.predecessor is not None:
            self.predecessor._follower = self
        self._context = copy_context()

    @property
    def phase(self) -> Phase:
        """How far it has come."""
        return Phase.UNSENT if self._op is None else self._op.phase

    @property
    def joinable(self) -> bool:
        """Whether one more caller may still wait for this result."""
        if self._task is not None and self._task.cancelling():
            return False
        return not self._ended and self.phase is not Phase.ROLLING_BACK

    async def wait(self) -> T:
        """Wait for the result. Cancelling this leaves the call, and disturbs nobody else who waits for it."""
        waiter: asyncio.Future[T] = self._loop.create_future()
        self._waiters.add(waiter)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if self._op is not None:
                self._op.wanted()
        try:
            result = await waiter
        except BaseException as error:
            self._leave(waiter)
            del waiter  # it has the error, which has this frame in its traceback
            if type(error) is asyncio.CancelledError:
                error.__traceback__ = None  # with it, this frame would stay as long as the caller's task
            raise
        self._delivered = True
        return result

    async def ended(self) -> None:
        """Wait until the work has ended, however it did. Several may wait; cancelling one disturbs nobody."""
        if not self._ended:
            if self._settled is None:
                self._settled = self._loop.create_future()
            await asyncio.shield(self._settled)

    def abandon(self) -> None:
        """End the work: at once, or when the outcome of what it has sent is known."""
        op, task = self._op, self._task
        if self.phase is Phase.ROLLING_BACK:
            return
        if op is None or task is None:
            self._give_up()
        elif op.phase is Phase.SENT or op.phase is Phase.UNWANTED:
            op.unwanted()
            if self._timer is None:
                self._timer = self._loop.call_later(ROLLBACK_TIMEOUT, task.cancel)
        else:
            task.cancel()

    def take_undo(self) -> Undo | None:
        """Return how to undo what it has done, if it is done, and forget it."""
        return None if self._op is None else self._op.take_undo()

    def _leave(self, waiter: asyncio.Future[T]) -> None:
        """Go without a result: it failed, or whoever waited for it was cancelled."""
        self._waiters.discard(waiter)
        if waiter.done() and not waiter.cancelled():
            waiter.exception()  # a caller that was cancelled at the last moment has seen it, too
        if not self._waiters:
            if not self._ended:
                self.abandon()
            elif not self._delivered:
                self._queue.undo(self)

    async def _run(self, op: Operation) -> None:
        try:
            if self._task is None:  # tasks of this loop are eager: whoever wants the result waits for it first
                await asyncio.sleep(0)
            result = await self._work(op)
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(result)
        except asyncio.CancelledError:
            await op.roll_back()
            raise
        except IGDError as error:
            await self._fail(error.with_attempts(tuple(op.attempts) or error.attempts), op)
        except Exception as defect:
            await self._fail(_wrapped(defect), op)
        self._end()

    async def _fail(self, error: IGDError, op: Operation) -> None:
        """Give the error out, and undo what was sent behind it."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error.copy())
        if op.is_to_be_undone:
            await op.roll_back()

    def _end(self, task: asyncio.Task[None] | None = None) -> None:
        """Let those go on who wait for the end.

        It is the last thing that the task does, which saves an iteration of the loop; or it is called back where the
        task has ended otherwise (``task``): cancelled, maybe before its first step, or by what ends the program. One
        that has not begun has those behind it wait for its predecessor.
        """
        if self._timer is not None:
            self._timer.cancel()
        if task is not None:
            failure = None if task.cancelled() else task.exception()
            for waiter in self._waiters:
                if failure is None:
                    waiter.cancel()
                elif not waiter.done():
                    waiter.set_exception(_wrapped(failure))
        elif self._task is not None:
            self._task.remove_done_callback(self._end)
        if self._op is not None:
            self._op.leave_turn()
        self._ended = True
        self._queue.leave(self)
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)
        before, behind = self.predecessor, self._follower
        if before is not None:
            before._follower = behind
        if behind is not None:
            behind.predecessor = before
            if before is None:
                behind._line_up()

    def _give_up(self) -> None:
        """End before it has begun."""
        for waiter in self._waiters:
            waiter.cancel()
        if self._limiter is not None:
            self._limiter.leave(self)
        self._end()

    def _line_up(self) -> None:
        """Begin once it is its turn, as nobody is before it any more."""
        if self._limiter is None or self._limiter.enter(self):
            self.begin()


class CallQueue:
    """Keeps order: calls with the same ``order_key`` run one after another, as they were submitted.

    A call whose ``share_key`` equals that of the last in its order joins it instead of following it, as long as that is
    under way. A queue belongs to the event loop in which it is first used, and refuses calls once it is closed.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, SharedCall[Any]] = {}
        self._calls: set[SharedCall[Any]] = set()
        self._loop: ref[asyncio.AbstractEventLoop] | None = None
        self.is_closed = False
        self.no_context: Final = Context()
        """For callbacks that need none: each would have a copy otherwise. Two threads cannot be in one at a time."""

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def is_undoing(self) -> bool:
        """Whether a call is being undone."""
        return any(call.phase is Phase.ROLLING_BACK for call in self._calls)

    def check_open(self) -> None:
        """Raise UsageError where the queue is closed, or belongs to another event loop."""
        if self.is_closed:
            raise UsageError("this PortMapper is closed")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError("aioigd needs a running asyncio event loop, and there is none") from None
        if self._loop is None:
            self._loop = ref(loop)
        elif self._loop() is not loop:
            raise UsageError("this PortMapper belongs to another event loop; make one for each loop")

    @property
    def has_dead_loop(self) -> bool:
        """Whether the event loop that the queue belongs to is closed, or gone altogether."""
        loop = None if self._loop is None else self._loop()
        return self._loop is not None and (loop is None or loop.is_closed())

    def submit(
        self,
        order_key: Hashable,
        share_key: Hashable,
        work: Callable[[Operation], Awaitable[T]],
        timeout: float,
        limiter: Limiter | None = None,
    ) -> SharedCall[T]:
        """Return the call to wait for: the last in the order if it can be shared, or a new one behind it.

        ``order_key`` None: behind nobody. ``share_key`` None: shared with nobody. ``timeout`` (seconds) is for a call's
        own work. ``limiter``: lets it begin; without, it begins at once. Raises UsageError as :meth:`check_open` does.
        """
        # A plain function, and nothing made only to be thrown away: callers come by the ten thousand.
        if self.is_closed or self._loop is None or self._loop() is not asyncio._get_running_loop():
            self.check_open()
        last = self._last.get(order_key)
        if last is not None and share_key is not None and last.share_key == share_key and last.joinable:
            return last
        call = SharedCall(self, order_key, share_key, work, timeout, last, limiter)
        self._calls.add(call)
        if order_key is not None:
            self._last[order_key] = call
        if last is None and (limiter is None or limiter.enter(call)):
            call.begin()
        else:
            call.wait_in_line()
        return call

    def abandon_all(self) -> tuple[SharedCall[Any], ...]:
        """Abandon everything that is under way, and return it.

        It ends within ROLLBACK_TIMEOUT and the time for an undo, LONGEST_ROLLBACK at most.
        """
        calls = tuple(self._calls)
        for call in calls:
            call.abandon()
        return calls

    async def drain(self) -> None:
        """Abandon everything that is under way, and wait until it has ended."""
        await self.wait_for(self.abandon_all())

    async def wait_for(self, calls: Iterable[SharedCall[Any]]) -> None:
        """Wait until some calls have ended, and what is undone because nobody took their results."""
        for call in calls:
            await call.ended()
        while undoing := next((call for call in self._calls if call.phase is Phase.ROLLING_BACK), None):
            await undoing.ended()

    def leave(self, call: SharedCall[Any]) -> None:
        """Take a call out that has ended."""
        self._calls.discard(call)
        if self._last.get(call.order_key) is call:
            before = call.predecessor
            if before in self._calls:
                self._last[call.order_key] = before
            else:
                del self._last[call.order_key]

    def undo(self, call: SharedCall[Any]) -> None:
        """Undo, in the background but in its order, a call whose callers were cancelled before they had its result."""
        undo = call.take_undo()
        if undo is not None:
            self.undo_in_order(call.order_key, undo)

    def undo_in_order(self, order_key: Hashable, undo: Undo) -> None:
        """Run an undo in the background, behind the calls with this ``order_key``."""
        op = Operation(ROLLBACK_TIMEOUT)
        op.phase = Phase.ROLLING_BACK
        work = partial(_carry_undo_through, undo)
        undoing = SharedCall(self, order_key, None, work, ROLLBACK_TIMEOUT, self._last.get(order_key), op=op)
        self._calls.add(undoing)
        if undoing.predecessor is None:
            undoing.begin()
        else:
            undoing.wait_in_line()
        if order_key is not None:
            self._last[order_key] = undoing


def _wrapped(failure: BaseException) -> IGDError:
    # A defect of ours or of a library's: still an IGDError for the caller, who is promised nothing else.
    error = UnexpectedError(f"unexpected {type(failure).__name__}: {failure}")
    error.__cause__ = failure
    return error
