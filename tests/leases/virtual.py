"""An event loop whose clock jumps to the next timer when there is nothing else to do: weeks pass at once."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["VirtualLoop", "run"]

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Real sockets, virtual time. ``most_timers`` is how many timers were pending at once at most."""

    def __init__(self) -> None:
        self._now = 0.0
        self.most_timers = 0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds
        # asyncio leaves cancelled ones in its heap for a while.
        pending = sum(not timer.cancelled() for timer in self._scheduled)  # type: ignore[attr-defined]
        self.most_timers = max(self.most_timers, pending)


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0 if timeout is None or timeout > 0 else timeout)
        if not ready and timeout is None:
            return super().select(None)  # nothing to jump to: something real has to happen
        if not ready and timeout is not None and timeout > 0:
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
