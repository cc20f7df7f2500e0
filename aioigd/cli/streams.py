"""The standard streams as they are: an encoding that lacks characters, a reader that goes away. Needs no extra."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Final

__all__ = ["BROKEN_PIPE_CODE", "flush", "is_broken_pipe", "replace_unencodable"]

BROKEN_PIPE_CODE: Final = 141
"""The exit code of a command whose reader has gone, as after ``| head -1``: that of SIGPIPE in a shell."""
_SAFE_HANDLERS: Final = ("replace", "backslashreplace", "xmlcharrefreplace", "namereplace", "ignore")


def replace_unencodable() -> None:
    """Have characters replaced that the standard streams cannot encode, as ✓ in ASCII: what was done is done."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors not in _SAFE_HANDLERS:
            stream.reconfigure(errors="replace")


def is_broken_pipe(error: BaseException) -> bool:
    """Return whether an error says that the reader of the output has gone."""
    is_windows = sys.platform == "win32"
    return isinstance(error, BrokenPipeError) or (
        is_windows and isinstance(error, OSError) and error.errno == errno.EINVAL
    )


def flush() -> bool:
    """Write what is left in the standard streams, and return whether there was somebody to read it.

    Where that fails, nothing more is written to the stream: Python would complain when the process ends.
    """
    was_read = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError) as error:
            was_read = was_read and not is_broken_pipe(error)
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
    return was_read
