"""An event loop whose clock jumps to the next timer when there is nothing else to do: weeks pass at once."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

__all__ = ["VirtualLoop", "run"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_ON_ITS_WAY = 0.001
"""Real seconds within which the kernel of a busy machine hands over what was sent on loopback."""

_MOST_ROUNDS = 1000
"""Rounds of the loop in which time stands still at most."""
_A_LITTLE = 1e-6
"""Seconds."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Real sockets, virtual time. ``most_timers`` is how many timers were pending at once at most.

    While a thread works for the loop, the clock runs as a real one does.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._at_work = 0
        self._rounds = 0
        self.most_timers = 0
        super().__init__(_Jumping(self))

    @property
    def waits_for_others(self) -> bool:
        """Whether threads work for this loop."""
        return self._at_work > 0

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._at_work += 1
        future.add_done_callback(self._one_is_done)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        self._at_work += 1  # from Python 3.12 on there is a time limit, to which the clock would jump
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._at_work -= 1

    def _one_is_done(self, _: object) -> None:
        self._at_work -= 1

    def time(self) -> float:
        return self._now

    def no_jump(self) -> None:
        """Let time go on a little, as it does, where the loop has been busy for long.

        Timers may fire a billionth of a second early: two that wait for such a moment in turns would wait for ever.
        """
        self._rounds += 1
        if self._rounds > _MOST_ROUNDS:
            self._rounds = 0
            self._now += _A_LITTLE

    def jump(self, seconds: float) -> None:
        self._rounds = 0
        self._now += seconds
        # asyncio leaves cancelled ones in its heap for a while.
        pending = sum(not timer.cancelled() for timer in self._scheduled)  # type: ignore[attr-defined]
        self.most_timers = max(self.most_timers, pending)


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            self._loop.no_jump()
            return ready
        if timeout is None:
            return super().select(None)  # nothing to jump to: something real has to happen
        if self._loop.waits_for_others:
            ready = super().select(timeout)
        elif len(self.get_map()) > 1:  # with one there is nothing but that by which the loop wakes itself
            ready = super().select(_ON_ITS_WAY)
        if not ready:
            self._loop.jump(timeout)
        return ready


def run(main: Coroutine[Any, Any, T], *, debug: bool = True) -> T:
    """Run a coroutine in virtual time; that nothing is left is checked on the way out."""
    unseen: list[Any] = []
    with asyncio.Runner(loop_factory=VirtualLoop, debug=debug) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: unseen.append(context))
        result = runner.run(main)
    assert not unseen
    return result
