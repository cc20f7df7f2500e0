"""From a command line to an event loop and back: signals, failures and the exit code they become."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from enum import IntEnum
from typing import Any, Final, NoReturn, TypeVar

import click

from .. import DiscoveryError, IGDError, UsageError
from .output import Output

__all__ = ["EXPLAINED", "Exit", "exit_for", "outcome", "run", "show_logs"]


T = TypeVar("T")


class Exit(IntEnum):
    """How the command can end."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_GATEWAY = 3
    FINDINGS = 4
    INTERRUPTED = 130
    TERMINATED = 143


EXPLAINED: Final = {
    Exit.OK: "done",
    Exit.FAILED: "it failed: the gateway refused, was silent, or gave only a part",
    Exit.USAGE: "wrong usage, or the extra is not installed",
    Exit.NO_GATEWAY: "no gateway was found",
    Exit.FINDINGS: "doctor has found something wrong",
    Exit.INTERRUPTED: "ended by Ctrl-C (0 where that is the end: add --keep, watch)",
    Exit.TERMINATED: "ended by SIGTERM (0 for these two)",
}


def exit_for(error: IGDError) -> Exit:
    """Return the exit code for a failure."""
    if isinstance(error, UsageError):
        return Exit.USAGE
    return Exit.NO_GATEWAY if isinstance(error, DiscoveryError) else Exit.FAILED


async def outcome(call: Awaitable[T]) -> T | IGDError:
    """Return the result of a call, or the error that it raised, so that others can go on; usage errors are raised."""
    try:
        return await call
    except UsageError:
        raise
    except IGDError as error:
        return error


_HINT = "`aioigd doctor` looks into it."


def run(
    work: Callable[[], Coroutine[Any, Any, Exit | None]], output: Output, *, ends_by_signal: bool = False
) -> NoReturn:
    """Run a command to its end, and leave with its exit code.

    Ctrl-C and SIGTERM cancel it, and it cleans up; a second one does not wait for that. With ``ends_by_signal``
    this is the end that was meant.
    """
    received: list[signal.Signals] = []

    async def supervised() -> Exit | None:
        _on_signals(received)
        return await work()

    try:
        code = asyncio.run(supervised()) or Exit.OK
    except (asyncio.CancelledError, KeyboardInterrupt):
        code = Exit.OK if ends_by_signal else _exit_of(received)
    except BaseExceptionGroup as group:
        code = _fail(_first(group), output)
    except (UsageError, IGDError, OSError) as error:
        code = _fail(error, output)
    sys.exit(int(code))


def _fail(error: BaseException, output: Output) -> Exit:
    if isinstance(error, BrokenPipeError):
        raise error  # whoever read our output has gone: click knows what to do
    if isinstance(error, UsageError):
        raise click.UsageError(f"{error.message}.") from error
    if isinstance(error, IGDError):
        code = exit_for(error)
        output.fail(error, _HINT if code is Exit.NO_GATEWAY else "")
        return code
    if isinstance(error, OSError):
        output.fail(error)
        return Exit.FAILED
    raise error


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what went wrong first where several things did: a defect rather than a condition of the network."""
    flat: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
        else:
            flat.append(error)
    return min(flat, key=lambda error: isinstance(error, (IGDError, OSError)))


def _on_signals(received: list[signal.Signals]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop(number: signal.Signals) -> None:
        received.append(number)
        for each in numbers:
            loop.remove_signal_handler(each)  # the next one ends us at once
        if task is not None:
            task.cancel()

    for number in numbers:
        # Windows has no such handlers (Ctrl-C arrives as KeyboardInterrupt there), other threads get no signals.
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop, number)


def _exit_of(received: list[signal.Signals]) -> Exit:
    return Exit.TERMINATED if signal.SIGTERM in received else Exit.INTERRUPTED


def show_logs(verbosity: int) -> None:
    """Write the library's log to standard error: what it does from 1 on, every message on the wire from 2 on."""
    if verbosity:
        handler = _ToStandardError()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
        logger = logging.getLogger("aioigd")
        logger.handlers = [handler]
        logger.setLevel(logging.INFO if verbosity == 1 else logging.DEBUG)


class _ToStandardError(logging.Handler):
    """Writes to whatever standard error is at the time: a live screen borrows it."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(self.format(record) + "\n")
