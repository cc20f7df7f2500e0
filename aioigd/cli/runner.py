"""Runs a command: event loop, signals, logs, failures, and the exit code of each of them."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from enum import IntEnum
from typing import Any, Final, NoReturn, TypeVar

import click

from .. import DeadlineError, DiscoveryError, IGDError, UsageError
from .output import Output
from .streams import BROKEN_PIPE_CODE, flush, is_broken_pipe

__all__ = ["EXIT_CODE_HELP", "Exit", "Limit", "outcomes", "result_or_error", "result_or_none", "run", "show_logs"]

K = TypeVar("K")
T = TypeVar("T")


class Exit(IntEnum):
    """The exit codes of the command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_GATEWAY = 3
    FINDINGS = 4
    TIME_IS_UP = 124
    HUNG_UP = 129
    INTERRUPTED = 130
    QUIT = 131
    BROKEN_PIPE = BROKEN_PIPE_CODE
    TERMINATED = 143


EXIT_CODE_HELP: Final = {
    Exit.OK: "done",
    Exit.FAILED: "it failed: the gateway refused, was silent, or gave only a part",
    Exit.USAGE: "wrong usage, or the extra is not installed",
    Exit.NO_GATEWAY: "no gateway was found",
    Exit.FINDINGS: "doctor has found something wrong",
    Exit.TIME_IS_UP: "--timeout was over; what was done until then is shown",
    Exit.HUNG_UP: "ended by SIGHUP, as are the next four by their signals",
    Exit.INTERRUPTED: "Ctrl-C (0 where that is the end: watch, add --keep)",
    Exit.QUIT: "SIGQUIT (likewise)",
    Exit.BROKEN_PIPE: "SIGPIPE: nobody reads the output any more, as after | head -1",
    Exit.TERMINATED: "SIGTERM (likewise)",
}
"""What the help page says of each exit code."""

_NO_GATEWAY_HINT: Final = "`aioigd doctor` looks into it."


def run(
    work: Callable[[], Coroutine[Any, Any, Exit | None]], output: Output, *, ends_by_signal: bool = False
) -> NoReturn:
    """Run a command in an event loop, and leave the process with its exit code.

    Ctrl-C, SIGTERM, SIGHUP (a closed terminal; unless it is ignored, as under nohup) and SIGQUIT cancel the command,
    which then cleans up; the second signal ends it at once. With ``ends_by_signal`` a signal is the usual end of the
    command, and the exit code is 0.
    """
    received: list[signal.Signals] = []

    async def with_signals() -> Exit | None:
        _handle_signals(received)
        return await work()

    try:
        code = asyncio.run(with_signals()) or Exit.OK
    except (asyncio.CancelledError, KeyboardInterrupt):
        by_signal = Exit(128 + received[0]) if received else Exit.INTERRUPTED
        code = Exit.OK if ends_by_signal else by_signal
    except BaseExceptionGroup as group:
        code = _fail(_most_serious(group), output)
    except (IGDError, OSError) as error:
        code = _fail(error, output)
    if not flush():
        code = Exit.BROKEN_PIPE
    sys.exit(int(code))


class Limit:
    """The time that a run may take: ``seconds`` from its first step on, None for any.

    What it takes to close and to undo comes on top, and has limits of its own.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._deadline: float | None = None
        self.is_over = False
        """Whether it has cut something off."""

    @property
    def error(self) -> DeadlineError:
        """What is said of that which was cut off."""
        return _TimeIsUpError(f"the {self._seconds or 0:g} s of --timeout are over")

    @asynccontextmanager
    async def step(self) -> AsyncIterator[None]:
        """Do something for as long as there is time, then go on behind it with what there is."""
        if self._seconds is None:
            yield
            return
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._seconds
        try:
            async with asyncio.timeout_at(self._deadline) as scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            self.is_over = True

    @asynccontextmanager
    async def whole_step(self) -> AsyncIterator[None]:
        """Do something without which there is no going on: raises DeadlineError if there is no time for it."""
        done = False
        async with self.step():
            yield
            done = True
        if not done:
            raise self.error


class _TimeIsUpError(DeadlineError):
    """The time of a run is over."""


async def result_or_error(call: Awaitable[T]) -> T | IGDError:
    """Return the result of a call, or its error, so that other calls go on. Usage errors are raised: all have them."""
    try:
        return await call
    except UsageError:
        raise
    except IGDError as error:
        return error


async def outcomes(limit: Limit, call: Callable[[K], Awaitable[T]], arguments: Iterable[K]) -> dict[K, T | IGDError]:
    """Return what came of calls that are made at once: of those for which there was time."""
    wanted = list(arguments)
    found: dict[K, T | IGDError] = {}

    async def note(argument: K) -> None:
        found[argument] = await result_or_error(call(argument))

    async with limit.step():
        await asyncio.gather(*map(note, wanted))
    return {each: found[each] for each in wanted if each in found}


async def result_or_none(call: Awaitable[T]) -> T | None:
    """Return the result of a call, None where it fails."""
    try:
        return await call
    except IGDError:
        return None


def show_logs(verbosity: int) -> None:
    """Write the library's log to standard error: what it does from 1 on, every message on the wire from 2 on."""
    logger = logging.getLogger("aioigd")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())  # or Python writes warnings of what the screen shows across it
    if verbosity:
        handler = _StandardErrorHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
        logger.handlers = [handler]
        logger.setLevel(logging.INFO if verbosity == 1 else logging.DEBUG)


class _StandardErrorHandler(logging.Handler):
    """Writes to the current ``sys.stderr``, which a live screen replaces while it runs."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(self.format(record) + "\n")


def _fail(error: BaseException, output: Output) -> Exit:
    """Print an error and return its exit code; defects are raised."""
    if is_broken_pipe(error):
        return Exit.BROKEN_PIPE
    if isinstance(error, UsageError):
        raise click.UsageError(f"{error.message}.") from error
    if isinstance(error, DiscoveryError):
        output.fail(error, _NO_GATEWAY_HINT)
        return Exit.NO_GATEWAY
    if isinstance(error, (IGDError, OSError)):
        output.fail(error)
        return Exit.TIME_IS_UP if isinstance(error, _TimeIsUpError) else Exit.FAILED
    raise error


def _most_serious(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group, a defect before any error of the network."""
    flat: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
        else:
            flat.append(error)
    return min(flat, key=lambda error: isinstance(error, (IGDError, OSError)))


def _handle_signals(received: list[signal.Signals]) -> None:
    """Let the signals that tell a program to stop cancel the current task, and note in ``received`` which it was."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    known = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"))
    numbers = [number for number in known if number is not None and signal.getsignal(number) is not signal.SIG_IGN]

    def stop(number: signal.Signals) -> None:
        received.append(number)
        for each in numbers:
            loop.remove_signal_handler(each)  # the next one ends the process at once
        if task is not None:
            task.cancel()

    for number in numbers:
        # Windows has no such handlers (Ctrl-C is a KeyboardInterrupt there), and only the main thread gets signals.
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop, number)
