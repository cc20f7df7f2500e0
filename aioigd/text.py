"""How a text that came from outside may be shown: in an error, in a log, on a terminal.

Devices, recordings and callers are free to say anything: line breaks that forge lines of a log, escapes that clear a
terminal, marks that turn a line around, letters under a thousand accents, 200 KB. Data is kept as it came; whatever
is shown of it goes through :func:`printable`.
"""

from __future__ import annotations

import logging
import os
import traceback
from itertools import chain
from typing import Final
from unicodedata import category

__all__ = ["MESSAGE_LIMIT", "get_logger", "printable", "shown", "system_message"]

MESSAGE_LIMIT: Final = 2000
"""Characters of a message."""
_VALUE_LIMIT: Final = 80
"""Characters of a value in the message that refuses it."""
_MOST_MARKS: Final = 4
"""Combining characters on one letter. No writing needs more; a hundred of them cover the lines above."""
_WINSOCK: Final = 10_000
"""The first error number of Winsock, which the C library of Windows knows nothing about."""
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_ELLIPSIS: Final = "…"

# Python takes them for printable; Unicode has them among those that show nothing (Default_Ignorable_Code_Point).
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | frozenset(
    map(chr, chain(range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0)))
)


def printable(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Return a text as it may be shown: one line, every character of it visible, at most ``limit`` characters.

    White space of any kind becomes a space. Controls (also of the direction of writing), characters without width and
    lone surrogates become U+FFFD. Takes time for the ``limit`` only, however long the text is.
    """
    text = str.__getitem__(text, slice(limit + 1))  # a plain str, whatever a subclass makes of its methods
    if not (text.isascii() and text.isprintable()):
        text = "".join(_visible(text))
    return text if len(text) <= limit else text[: limit - 1] + _ELLIPSIS


def shown(value: object, limit: int = _VALUE_LIMIT) -> str:
    """Return what a message may say of a value that was refused: its beginning, whatever its ``repr()`` does."""
    try:
        # Not the whole of what is long, and not what Python does not write (an int of over 4,300 digits).
        if isinstance(value, (str, bytes)):
            value = value[:limit]
        elif isinstance(value, int) and value.bit_length() > 4 * limit:
            return f"an int of {value.bit_length()} bits"
        return printable(repr(value), limit)
    except Exception:
        return printable(object.__repr__(value), limit)


def get_logger(name: str) -> logging.Logger:
    """Return a logger each of whose messages is printable, whatever is in its arguments."""
    logger = logging.getLogger(name)
    if _make_printable not in logger.filters:
        logger.addFilter(_make_printable)
    return logger


def _make_printable(record: logging.LogRecord) -> bool:
    """Replace the message of a record that may not be shown as it is, and have its exception shown likewise."""
    message = record.getMessage()
    safe = printable(message)
    if safe != message:
        record.msg, record.args = safe, ()
    if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
        record.exc_text = _shown_traceback(record.exc_info[1])  # which a Formatter takes for its own
    return True


def _shown_traceback(error: BaseException) -> str:
    """Return a traceback each of whose lines is printable; the message of an exception is one of them."""
    lines: list[str] = []
    for part in traceback.format_exception(error):
        # A part has a frame and its source, which are ours, or the message of an exception, which may quote a device.
        is_frame = part.startswith(("  ", "Traceback ", "\n"))
        lines += map(printable, part.rstrip("\n").split("\n") if is_frame else [part.rstrip("\n")])
    return "\n".join(lines)


def _visible(text: str) -> list[str]:
    characters = []
    marks = _MOST_MARKS  # a mark at the beginning would stand on what is written before the text
    for character in text:
        if category(character).startswith("M"):
            marks += 1
            if marks > _MOST_MARKS:
                continue
        else:
            marks = 0
        if character.isprintable() and character not in _INVISIBLE:
            characters.append(character)
        else:
            characters.append(" " if character.isspace() else _REPLACEMENT)
    return characters


def system_message(error: BaseException) -> str:
    """Return what the system says of an error, in place of which asyncio puts a message with the address in it."""
    if getattr(error, "winerror", None):
        return str(getattr(error, "strerror", None) or error)  # its errno is EINVAL for all that has no other number
    number = getattr(error, "errno", None) or 0
    return os.strerror(number) if 0 < number < _WINSOCK else str(error) or type(error).__name__
