"""How many requests may be out at a gateway? As many as it answers sooner together than one after another.

Routers differ: some work on many requests in parallel, most on one after another, and some serve one connection at a
time and reset the rest. None of them says so, but their replies do. For each request that is answered while others wait
for their turn, it is known how many were out with it, and how long it took. The *elasticity* of these times says by how
many per cent they grow when one per cent more are out: 0 where the gateway works in parallel, 1 where it works on one
after another. By Little's law (requests out = rate * time) twice as many out are ``2 ** (1 - elasticity)`` times as
fast. Below a half the window grows, above it shrinks, and in between it waits for more samples.

The window doubles with each round until it has met its limit for the first time. After that it never rests for long: it
tries some more, and goes back where that gained nothing, so that there is always something to compare, and a gateway
that has become slower or faster is noticed. Where too few sizes were seen to compare, and replies take much longer than
before, it goes back to the size before it last grew; if it has not grown since it met its limit, the gateway is slower.

Requests that get lost halve the window (at most once for those that were out together); what failed is tried again ever
more rarely.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from math import exp, log, sqrt
from time import perf_counter
from typing import Final, NamedTuple, Protocol

try:
    from time import thread_time
except ImportError:  # not every Unix has this clock

    def thread_time() -> float:
        """Count no computing at all."""
        return 0.0


__all__ = [
    "AT_A_TIME",
    "FIRST_WINDOW",
    "LARGEST_WINDOW",
    "Elasticity",
    "Limiter",
    "Outcome",
    "Permit",
    "Sample",
    "Waiting",
    "Window",
]

FIRST_WINDOW: Final = 3
"""Enough to tell whether a gateway works in parallel, and not too many for one that does not."""
LARGEST_WINDOW: Final = 128
"""Each request has a socket, and macOS gives a program 256 files."""
_LEAST_BY_TIME: Final = 2
"""While one request is worked on the next one is on its way; only losses make it one."""
_ENOUGH: Final = 0.5
"""The elasticity from which fewer are enough: twice as many out would be no more than 1.4 times as fast."""
_THRASHING: Final = 1.3
"""The elasticity from which more out get less done, which is as bad as a loss."""
_DOUBT: Final = 0.5
"""How many standard errors the elasticity has to be away from ``_ENOUGH``, while there are not many samples."""
_SLOWER: Final = 1.5
"""How many times as long replies take when, with as many out, the gateway counts as another one."""
_CUT: Final = 0.75
_CUT_AGAIN: Final = 0.5
_MANY: Final = 32
"""Above that, and where the last cut lost nothing, it is cut by more: a round of that many takes long."""
_FIRST_STEP: Final = 0.25
"""The part of itself by which the window grows when it tries more; half as much again each time that it pays."""
_FEWEST_SAMPLES: Final = 3
_FIRST_PATIENCE: Final = 32
"""Answers before more are tried than have failed; doubles each time that they fail again."""
_MEMORY: Final = 30.0
"""Seconds without a request after which the gateway may be another one, or in another state."""
_LEAST_SECONDS: Final = 0.004
"""What is quicker counts as this: it is mostly this program's own time."""
AT_A_TIME: Final = 4
"""How many requests go on in one iteration of the event loop."""
_LEAST_SPREAD: Final = 0.003
"""Variance of the logarithms of the numbers out; below it they differ too little to show an effect."""


class Outcome(Enum):
    """What became of a request, as far as it concerns the limit."""

    ANSWERED = "answered"
    LOST = "lost"  #: the gateway may not have coped
    UNKNOWN = "unknown"  #: it was cancelled, or never sent


@dataclass(slots=True, eq=False)
class Permit:
    """The right to have one request out.

    ``round``: that of the window in which it was given. ``number``: how many were out then, this one among them.
    ``had_company``: there was another one out with it at some time. ``since``: when it was given.
    """

    round: int
    number: int
    had_company: bool
    since: float


class Sample(NamedTuple):
    """One answer: its kind, and the logarithms of how many were out with it and of the seconds that it took."""

    kind: Hashable
    out: float
    time: float


class Elasticity(NamedTuple):
    """By how many per cent times grow when one per cent more are out, and the standard error of that."""

    slope: float
    error: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Elasticity | None:
        """Find it by least squares, each sample beside those of its kind; None where the numbers hardly differ."""
        sums: dict[Hashable, list[float]] = {}
        for kind, out, time in samples:  # in one pass, as it is done for every few answers
            if kind not in sums:
                sums[kind] = [0.0] * 6
            of = sums[kind]
            of[0] += 1
            of[1] += out
            of[2] += time
            of[3] += out * time
            of[4] += out * out
            of[5] += time * time
        both = spread = scatter = 0.0
        freedom = -1
        for number, out, time, out_time, out_out, time_time in sums.values():
            both += out_time - out * time / number
            spread += out_out - out * out / number
            scatter += time_time - time * time / number
            freedom += int(number) - 1
        if freedom < 1 or spread / len(samples) < _LEAST_SPREAD:
            return None
        slope = both / spread
        return cls(slope, sqrt(max(0.0, scatter - slope * both) / freedom / spread))


class Window:
    """The rule, without tasks or clocks: fed with what became of requests, it says how many may be out (``size``)."""

    def __init__(self) -> None:
        self.size = FIRST_WINDOW
        self.round = 0
        """Counts the changes of the size; but the first growth is one round."""
        self._is_growing = True
        """It has not met its limit yet."""
        self._step = _FIRST_STEP
        self._samples: deque[Sample] = deque(maxlen=3 * LARGEST_WINDOW)
        self._new_samples = self._old_samples = 0
        """How many of them are of this round, and of the one before."""
        self._answers = 0
        """To requests of this round that have not been counted for a change yet."""
        self._needed = _FEWEST_SAMPLES
        """So many of those are needed to think about a change."""
        self._smaller_since = 0
        """The round in which it became smaller; what was sent before waited behind more than are out now."""
        self._before = LARGEST_WINDOW
        """The size before it grew the last time, since it has met its limit."""
        self._lost_since = 0
        self._ceiling = LARGEST_WINDOW
        self._patience = _FIRST_PATIENCE
        self._successes = 0
        """Answers at the ceiling."""

    def answered(self, permit: Permit, out: int, kind: Hashable, seconds: float) -> None:
        """Learn from an answer that came while others waited; ``out``: how many were out when it came, with it."""
        if permit.round < self._smaller_since:
            return
        self._samples.append(Sample(kind, log(permit.number * out) / 2, log(max(seconds, _LEAST_SECONDS))))
        self._new_samples += 1
        if permit.round == self.round:
            self._answers += 1
            if self._answers >= self._needed:
                self._adapt()

    def lost(self, permit: Permit) -> None:
        """Learn from a request that was lost."""
        self._successes = 0
        if permit.round >= self._lost_since and permit.had_company:  # alone it is not a matter of how many are out
            self._fail(self.size - 1, self.size // 2)
            self._lost_since = self.round

    def forget(self) -> None:
        """Begin anew, but for what has failed."""
        self.size = min(self.size, FIRST_WINDOW)
        self._before = LARGEST_WINDOW
        self._is_growing = True
        self._samples.clear()
        self._next_round()
        self._needed = _FEWEST_SAMPLES

    def _adapt(self) -> None:
        number = max(2 * _FEWEST_SAMPLES, self.size) if self._is_growing else self._new_samples + self._old_samples
        samples = list(islice(reversed(self._samples), number))
        elasticity = Elasticity.of(samples)
        if elasticity is None:
            slower = _slowdown(samples)
            if slower >= _SLOWER and self._before < self.size:
                self._fail(self._before, self._before)
            elif slower >= _SLOWER:
                self._shrink(max(FIRST_WINDOW, int(self.size / slower)), forgets=True)
            else:
                self._grow(does_pay=False)
            return
        slope, error = elasticity
        doubt = _DOUBT * error if len(samples) < 24 + 6 * self.size else 0.0
        if slope - doubt < _ENOUGH <= slope + doubt:
            self._needed = self._answers + max(1, self.size // (4 if self._is_growing else 2))
        elif slope < _ENOUGH:
            self._grow(does_pay=True)
        elif slope - 2 * error > _THRASHING and len(samples) >= 4 * _FEWEST_SAMPLES:
            self._fail(max(FIRST_WINDOW, int(self.size * _CUT)), max(_LEAST_BY_TIME, self.size // 2))
        else:
            is_again = self.round == self._smaller_since and self.size > _MANY
            self._shrink(max(_LEAST_BY_TIME, int(self.size * (_CUT_AGAIN if is_again else _CUT))))

    def _grow(self, *, does_pay: bool) -> None:
        """Let more out, up to the ceiling, which rises with success."""
        answers, self._answers = self._answers, 0
        if self.size >= self._ceiling and self._ceiling < LARGEST_WINDOW:
            self._successes += answers
            if self._successes >= self._patience:
                self._successes = 0
                self._ceiling = min(LARGEST_WINDOW, self._ceiling + max(1, self._ceiling // 4))
        if self._is_growing and (
            does_pay or self.size >= self._ceiling
        ):  # with each answer, so that they do not go out in bursts
            self.size = min(self._ceiling, self.size + answers)
            self._needed = max(1, self.size // 5) if self.size < self._ceiling else self.size
            return
        self._is_growing = False
        size = min(self._ceiling, self.size + max(1, int(self.size * self._step)))
        if size > self.size:
            self._before, self.size = self.size, size
        if does_pay:
            self._step = min(1.0, 1.5 * self._step)
        self._next_round()

    def _fail(self, ceiling: int, size: int) -> None:
        """Let fewer out, and no more than ``ceiling`` until many have been answered."""
        if self._ceiling < LARGEST_WINDOW:
            self._patience *= 2
        self._ceiling = max(1, min(self._ceiling, ceiling))
        self._successes = 0
        self._shrink(max(1, size), forgets=True)

    def _shrink(self, size: int, *, forgets: bool = False) -> None:
        """Let fewer out. ``forgets``: what was seen before does not compare with what comes now."""
        self._before = self.size = min(self.size, size)
        self._is_growing = False
        self._step = _FIRST_STEP
        self._next_round()
        self._smaller_since = self.round
        if forgets:
            self._old_samples = 0

    def _next_round(self) -> None:
        self.round += 1
        self._old_samples, self._new_samples = self._new_samples, 0
        self._answers = 0
        self._needed = max(2 * _FEWEST_SAMPLES, self.size)


class Waiting(Protocol):
    """A call that has not begun."""

    def begin(self) -> None:
        """Begin, as a request would get a permit."""


class Limiter:
    """Lets so many requests out as the window says, first come first served, and calls begin when it is their turn.

    A call that has begun is a task, with a coroutine for each function down to the request; one that waits in line is
    next to nothing. What goes on is paced: all that is ready is worked on in one iteration of the event loop, so where
    a hundred replies came together, a hundred requests would go out together, and their replies come together. The
    gateway and this program would work by turns, and everything else wait.

    ``clock`` returns the time in seconds. By default it is the best one there is (the clocks of Windows' and uvloop's
    event loops are coarser than the times of some gateways), and stands still while this thread computes: what a
    program needs for its own part says nothing of the gateway, however many are out.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._window = Window()
        self._clock = clock
        self._out: set[Permit] = set()
        self._lone: Permit | None = None
        """The only one that is out, if it has been all the time."""
        self._last = 0.0
        """When the last permit was given."""
        self._queue: deque[asyncio.Future[Permit]] = deque()
        """Requests that wait, of calls that have begun."""
        self._line: OrderedDict[Waiting | asyncio.Future[Permit], None] = OrderedDict()
        """Calls that wait, and requests that wait behind them; a mapping from which each can be taken out at once."""
        self._is_silent = False
        """The last that was heard of a request is that it was lost."""
        self._beginning = 0
        """Calls that have begun, and have not got a permit yet."""
        self._left = AT_A_TIME
        """How many may go on before the loop has its turn."""

    def __repr__(self) -> str:
        return f"<Limiter window={self.window} out={len(self._out)} waiting={self.waiting}>"

    @property
    def window(self) -> int:
        """How many may be out."""
        return self._window.size

    @property
    def waiting(self) -> int:
        """How many requests and calls wait."""
        return len(self._queue) + len(self._line)

    # Calls

    def enter(self, call: Waiting) -> bool:
        """Return whether a call may begin at once; otherwise it stands in line until it is told to, or is taken out."""
        if self.waiting or not self._left or len(self._out) + self._beginning >= self._window.size:
            self._line[call] = None
            return False
        self._beginning += 1
        self._count()
        return True

    def leave(self, call: Waiting) -> None:
        """Take a call out of the line."""
        self._line.pop(call, None)

    def end_turn(self) -> None:
        """Note that a call that began in its turn has a permit by now, or needs none."""
        self._beginning -= 1
        if self._line:
            self._go_on()

    # Requests

    async def acquire(self, *, first: bool = False) -> Permit:
        """Wait for a permit. With ``first``, for a call that has begun already, before all that has not.

        Without, it is an undo mostly. It goes before what has not begun, too, while the gateway answers; where that is
        silent, each undo would take the time of a call in vain.
        """
        if self._clock is None:
            self._clock = _clock_of(asyncio.get_running_loop())
        is_behind = not first and bool(self._queue or (self._is_silent and self._line))
        if len(self._out) < self._window.size and not is_behind:
            return self._grant(self._clock())
        turn: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        if first:
            self._queue.appendleft(turn)
        elif self._is_silent:
            self._line[turn] = None
        else:
            self._queue.append(turn)
        try:
            permit = await turn
        except asyncio.CancelledError:
            self._line.pop(turn, None)
            if turn.done() and not turn.cancelled():
                self.release(turn.result(), Outcome.UNKNOWN)  # it had been granted already
            raise
        permit.since = self._clock()  # what this program did in between is not the gateway's time
        return permit

    def release(self, permit: Permit, outcome: Outcome = Outcome.ANSWERED, kind: Hashable = None) -> None:
        """Give a permit back; nothing happens if it has been given back already.

        ``kind``: what requests have in common that take about the same time, so that they can be compared.
        """
        if permit not in self._out:
            return
        if outcome is not Outcome.UNKNOWN:
            self._is_silent = outcome is Outcome.LOST
        if outcome is Outcome.LOST:
            self._window.lost(permit)
        elif outcome is Outcome.ANSWERED and (self._queue or self._line) and self._clock is not None:
            self._window.answered(permit, len(self._out), kind, self._clock() - permit.since)
        self._out.remove(permit)
        if permit is self._lone:
            self._lone = None
        if self._queue or self._line:
            self._go_on()

    def _grant(self, now: float) -> Permit:
        if not self._out and now - self._last > _MEMORY:
            self._window.forget()
        permit = Permit(self._window.round, len(self._out) + 1, bool(self._out), now)
        if not self._out:
            self._lone = permit
        elif self._lone is not None:
            self._lone.had_company = True
            self._lone = None
        self._last = now
        self._out.add(permit)
        return permit

    def _go_on(self) -> None:
        """Let as many go on as may be out, those first that have begun."""
        while self._queue and self._left and len(self._out) < self._window.size:
            self._let_out(self._queue.popleft())
        if self._queue:
            return
        while self._line and self._left and len(self._out) + self._beginning < self._window.size:
            one, _ = self._line.popitem(last=False)
            if isinstance(one, asyncio.Future):
                self._let_out(one)
            else:
                self._beginning += 1
                self._count()
                one.begin()

    def _let_out(self, turn: asyncio.Future[Permit]) -> None:
        if not turn.done():
            assert self._clock is not None  # noqa: S101 - who waits has asked
            turn.set_result(self._grant(self._clock()))
            self._count()

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            asyncio.get_running_loop().call_soon(self._refill)

    def _refill(self) -> None:
        self._left = AT_A_TIME
        self._go_on()


def _slowdown(samples: Sequence[Sample]) -> float:
    """Return how many times as long the newer half took, which comes first, as the older one; 1 for few samples."""
    middle = len(samples) // 2
    newer, older = _by_kind(samples[:middle]), _by_kind(samples[middle:])
    longer = weight = 0.0
    for kind in newer.keys() & older.keys():
        times = [sum(sample.time for sample in some) / len(some) for some in (newer[kind], older[kind])]
        some = min(len(newer[kind]), len(older[kind]))
        longer += some * (times[0] - times[1])
        weight += some
    return exp(longer / weight) if weight and len(samples) >= 5 * _FEWEST_SAMPLES else 1.0


def _by_kind(samples: Sequence[Sample]) -> dict[Hashable, list[Sample]]:
    kinds: dict[Hashable, list[Sample]] = {}
    for sample in samples:
        kinds.setdefault(sample.kind, []).append(sample)
    return kinds


def _clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return a fine clock; that of the loop if it has one of its own, as loops for tests have."""
    own = isinstance(loop, asyncio.BaseEventLoop) and loop.time != asyncio.BaseEventLoop.time.__get__(loop)
    if own:
        return loop.time
    return perf_counter if sys.platform == "win32" else _idle_time  # Windows counts computing in steps of 16 ms


def _idle_time() -> float:
    return perf_counter() - thread_time()
