"""Event loops whose clock jumps to the next timer when there is nothing else to do: weeks pass at once."""

from __future__ import annotations

import asyncio
import math
import selectors
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from time import monotonic
from typing import Any, TypeVar, TypeVarTuple, Unpack

__all__ = ["Clock", "VirtualLoop", "run"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_CHAIN = 4
"""How many packets may follow from one that is sent, each from the one before: those of a handshake, and one more."""
_A_MOMENT = 0.001
"""Real seconds after which a loop looks whether another one of its clock has moved it."""

_MOST_ROUNDS = 1000
"""Rounds of the loop in which time stands still at most."""
_A_LITTLE = 1e-6
"""Seconds."""


class Clock:
    """The time of one loop, or of several in threads of their own: it jumps when none of them has anything to do.

    While a thread works for one of them that has no loop of this clock itself, the clock runs as a real one does.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.at_work = 0
        """Threads that loops of this clock wait for, and that have none themselves."""
        self.loops = 0
        self._waiting: dict[_Jumping, float] = {}
        self._lock = threading.Lock()
        self._probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._probe.bind(("127.0.0.1", 0))
        self._probe.connect(self._probe.getsockname())
        self._probe.settimeout(1.0)

    def run(self, main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
        """Run a coroutine in this thread, in the time of another one's loop: ``asyncio.run()`` of a program."""
        with asyncio.Runner(loop_factory=lambda: VirtualLoop(self), debug=debug) as runner:
            return runner.run(main)

    def join(self) -> None:
        """Count one loop more: the first one, or that of a thread which another one waits for."""
        self.at_work -= self.loops > 0
        self.loops += 1

    def leave(self) -> None:
        """Count one loop less."""
        self.loops -= 1
        self.at_work += self.loops > 0
        if not self.loops:
            self._probe.close()

    def wait_for_delivery(self) -> None:
        """Let the kernel hand over what was sent on loopback: it does so in order, however busy the machine is."""
        for _ in range(_CHAIN):
            self._probe.send(b"")
            self._probe.recv(1)

    def wait(self, until: float, selector: _Jumping) -> list[Any]:
        """Return what is ready for a loop beside other threads, or nothing when its next timer is due."""
        self._waiting[selector] = until
        try:
            while True:
                since = monotonic()
                ready = selector.poll(_A_MOMENT)
                if ready:
                    return ready
                with self._lock:
                    if self.now < until == min(self._waiting.values()):
                        if self.at_work:
                            self.now = min(until, self.now + monotonic() - since)
                        elif len(self._waiting) == self.loops:
                            self.wait_for_delivery()
                            if not any(each.poll(0) for each in self._waiting):
                                self.now = until
                    if self.now >= until:
                        return []
        finally:
            del self._waiting[selector]


class VirtualLoop(asyncio.SelectorEventLoop):
    """Real sockets, virtual time. ``most_timers`` is how many timers were pending at once at most."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._rounds = 0
        self.most_timers = 0
        super().__init__(_Jumping(self))
        self.clock.join()

    def close(self) -> None:
        if not self.is_closed():
            self.clock.leave()
        super().close()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self.clock.at_work += 1
        future.add_done_callback(self._one_is_done)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        self.clock.at_work += 1  # from Python 3.12 on there is a time limit, to which the clock would jump
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self.clock.at_work -= 1

    def _one_is_done(self, _: object) -> None:
        self.clock.at_work -= 1

    def time(self) -> float:
        return self.clock.now

    def no_jump(self) -> None:
        """Let time go on a little, as it does, where the loop has been busy for long.

        Timers may fire a billionth of a second early: two that wait for such a moment in turns would wait for ever.
        """
        self._rounds += 1
        if self._rounds > _MOST_ROUNDS:
            self._rounds = 0
            self.clock.now += _A_LITTLE

    def jumped(self) -> None:
        """Note that the next timer is due."""
        self._rounds = 0
        timers = self._scheduled  # type: ignore[attr-defined]
        if len(timers) > self.most_timers:  # asyncio leaves cancelled ones in its heap for a while
            self.most_timers = max(self.most_timers, sum(not timer.cancelled() for timer in timers))


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def poll(self, timeout: float | None) -> list[Any]:
        """Return what is ready, after so many real seconds at most."""
        return super().select(timeout)

    def select(self, timeout: float | None = None) -> Any:
        ready = self.poll(0)
        if ready or (timeout is not None and timeout <= 0):
            self._loop.no_jump()
            return ready
        clock = self._loop.clock
        if clock.loops > 1 or clock.at_work:
            ready = clock.wait(math.inf if timeout is None else clock.now + timeout, self)
        elif timeout is None:
            return self.poll(None)  # nothing to jump to: something real has to happen
        else:
            if len(self.get_map()) > 1:  # with one there is nothing but that by which the loop wakes itself
                clock.wait_for_delivery()
                ready = self.poll(0)
            if not ready:
                clock.now += timeout
        if not ready:
            self._loop.jumped()
        return ready


def run(main: Coroutine[Any, Any, T], *, debug: bool = True) -> T:
    """Run a coroutine in virtual time; that nothing is left is checked on the way out."""
    unseen: list[Any] = []
    with asyncio.Runner(loop_factory=VirtualLoop, debug=debug) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: unseen.append(context))
        result = runner.run(main)
    assert not unseen
    return result
