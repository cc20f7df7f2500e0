"""Work that is carried through whatever is cancelled: what was made is taken back before a program ends.

Who waits for such work may be cancelled once, at each await (an anyio scope does that), or together with every task of
the loop (``asyncio.run()`` and its like do that in the end, and then wait for these tasks). None of this may leave a
port open. So the work is done in a task that takes no notice of cancellation, and takes the work up again where that
was cancelled itself; who waits for it may leave at once, and it goes on. Its time is limited.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from typing import Any, Final, TypeVar

__all__ = ["BackgroundTask", "carry_through", "join", "may_await_at_exit", "start"]

_LAST_WORDS: Final = 1.0
"""Seconds that work has to end by itself once its time is over."""

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, None]]
"""Does the work, or what is left of it."""


async def carry_through(work: Work, limit: float | Callable[[], float]) -> None:
    """Do work in a child of this task, at most for ``limit`` seconds, and take no notice of cancellation.

    ``limit`` may be a function, if it changes as the work goes on. Work that is cancelled itself is taken up again: it
    has to know what is left of it. What it raises is raised here.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    began = loop.time()

    def left_over() -> float:
        return began + (limit() if callable(limit) else limit) - loop.time()

    while True:
        child = loop.create_task(work())
        while not child.done():
            left = left_over()
            if left <= -_LAST_WORDS:
                return
            if left <= 0:
                child.cancel()
            try:
                await asyncio.wait([child], timeout=left if left > 0 else _LAST_WORDS)
            except asyncio.CancelledError:
                if task is not None:
                    task.uncancel()
        if not child.cancelled():
            child.result()
            return
        if left_over() <= 0:
            return


class BackgroundTask(asyncio.Task[T]):
    """A task that cannot be cancelled: not even before its first step, where its coroutine has no say in it."""

    def cancel(self, msg: Any = None) -> bool:
        """Do nothing."""
        return False


def start(work: Work, limit: float) -> asyncio.Task[None]:
    """Begin to carry work through in the background, and return the task that does."""
    return BackgroundTask(carry_through(work, limit), loop=asyncio.get_running_loop())


async def join(task: asyncio.Task[None]) -> None:
    """Wait for work in the background. Cancelled, this ends at once, and the work goes on."""
    await asyncio.shield(task)


def may_await_at_exit(kind: type[BaseException] | None) -> bool:
    """Return whether the caller, an ``__aexit__``, may await something.

    A coroutine that is closed while it waits (GeneratorExit) may not; an asynchronous generator that is closed may.
    """
    if kind is None or not issubclass(kind, GeneratorExit):
        return True
    frame = sys._getframe(2) if hasattr(sys, "_getframe") else None
    while frame is not None and frame.f_code.co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR):
        if frame.f_code.co_flags & CO_ASYNC_GENERATOR:
            return True
        frame = frame.f_back
    return False
