"""Changes the text in the bytes of a message, whatever its encoding, and in chunks or not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

__all__ = ["decoded", "with_text"]

_CHUNK: Final = re.compile(rb"([0-9a-fA-F]{1,8})([ \t]*(?:;[^\n]{0,200})?\r?\n)")


def with_text(body: bytes, change: Callable[[str], str]) -> bytes:
    """Return a body with its text changed, in the same encoding, and in chunks of the same sizes where it has any."""
    chunks = _chunked(body)
    if chunks is not None:
        return _in_chunks(with_text(b"".join(chunks[1]), change), *chunks)
    text, encoded = decoded(body)
    return encoded(change(text))


def decoded(content: bytes) -> tuple[str, Callable[[str], bytes]]:
    """Return bytes as text, and the function that makes bytes of text again.

    What is neither UTF-8 nor looks like UTF-16 or UTF-32 is taken for Latin-1, in which every byte is a character.
    """
    for encoding in (*_guesses(content), "utf-8"):
        try:
            return content.decode(encoding), partial(str.encode, encoding=encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1"), partial(str.encode, encoding="latin-1")


def _guesses(content: bytes) -> Iterable[str]:
    """Return the encodings that the beginning of a document looks like, with a byte order mark or without."""
    start = content[:4]
    if start in (b"\xff\xfe\0\0", b"<\0\0\0"):
        return ("utf-32-le",)
    if start in (b"\0\0\xfe\xff", b"\0\0\0<"):
        return ("utf-32-be",)
    if start[:2] in (b"\xff\xfe", b"<\0"):
        return ("utf-16-le",)
    if start[:2] in (b"\xfe\xff", b"\0<"):
        return ("utf-16-be",)
    return ()


def _chunked(body: bytes) -> tuple[list[bytes], list[bytes]] | None:
    """Return the line ends and the contents of the chunks that a body consists of; None where it does not."""
    ends: list[bytes] = []
    pieces: list[bytes] = []
    position = 0
    while size := _CHUNK.match(body, position):
        line_end = b"\r\n" if size[2].endswith(b"\r\n") else b"\n"
        length = int(size[1], 16)
        if length == 0:
            return ([*ends, line_end], pieces) if pieces and not body[size.end() :].strip() else None
        position = size.end() + length
        pieces.append(body[size.end() : position])
        ends.append(line_end)
        if not body.startswith(line_end, position):
            return None
        position += len(line_end)
    return None


def _in_chunks(body: bytes, ends: list[bytes], pieces: list[bytes]) -> bytes:
    """Return a body in chunks of the sizes that it had, but for the last one."""
    parts: list[bytes] = []
    for number, (piece, end) in enumerate(zip(pieces, ends, strict=False), start=1):
        size = len(body) if number == len(pieces) else min(len(piece), len(body))
        if size:
            parts.append(b"%x%s%s%s" % (size, end, body[:size], end))
        body = body[size:]
    return b"".join([*parts, b"0", ends[-1], ends[-1]])
