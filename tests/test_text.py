"""Text that is shown: one visible line, whatever it was."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aioigd
from aioigd.text import MESSAGE_LIMIT, get_logger, printable, shown, system_message

from .support import is_visible_line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, €, 日本語, 🏠", "plain text, €, 日本語, 🏠"),
        ("up\n2026-01-01 CRITICAL root: forged", "up 2026-01-01 CRITICAL root: forged"),
        ("a\r\nb\tc\x0bd\x0ce", "a  b c d e"),
        ("a\x85b\u2028c\u2029d\xa0e\u3000f", "a b c d e f"),
        ("a\x1b[2Jb\x9b31mc\x07\x00\x7f", "a�[2Jb�31mc���"),
        ("a\u202eb\u2066c\u200bd\u200fe\ufefff\xadg", "a�b�c�d�e�f�g"),
        ("a\ud800b\udfff", "a�b�"),
        ("a\ue000b\U000e0041", "a�b�"),
        ("a\u3164b\u115fc\u2800d", "a�b�c�d"),
        ("e\u0301 and \u0e01\u0e34\u0e48", "e\u0301 and \u0e01\u0e34\u0e48"),
        ("\u0301a" + "\u0300" * 1000 + "b", "a" + "\u0300" * 4 + "b"),
        ("", ""),
    ],
)
def test_what_is_shown(text: str, expected: str) -> None:
    assert printable(text) == expected


@pytest.mark.parametrize("limit", [1, 2, 80, MESSAGE_LIMIT])
@pytest.mark.parametrize("letter", ["x", "é", "\n", "\u0300", "\U0001f3e0"])
def test_nothing_is_longer_than_its_limit(letter: str, limit: int) -> None:
    assert len(printable(letter * 200_000, limit)) <= limit
    assert printable("x" * limit, limit) == "x" * limit
    assert printable("x" * (limit + 1), limit) == "x" * (limit - 1) + "…"


@given(st.text(st.characters(), max_size=60))
def test_every_text_becomes_a_visible_line(text: str) -> None:
    line = printable(text)
    assert is_visible_line(line)
    assert printable(line) == line


def test_no_character_of_unicode_gets_through_that_is_not_seen() -> None:
    hidden = [each for each in map(chr, range(sys.maxunicode + 1)) if not is_visible_line(f"a{each}a")]
    assert len(hidden) > 100_000
    for begin in range(0, len(hidden), 1000):
        assert is_visible_line(printable("a".join(hidden[begin : begin + 1000])))
    kept = [each for each in ("ä", "ß", "あ", "字", "न", "🏠", "→", "✓", "\\", '"') if printable(each) == each]
    assert len(kept) == 10
    assert unicodedata.category("\u0301") == "Mn"


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Word(str):
    def __getitem__(self, key: Any) -> str:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        return Word("odd\n")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (8080, "8080"),
        ("a\nb", r"'a\\nb'"),
        (10**5000, "an int of 16610 bits"),
        (-(10**5000), "an int of 16610 bits"),
        ([10**5000], r"<list object at .*>"),
        (Hostile(), r"<tests\.test_text\.Hostile object at .*>"),
        (Word("x"), r"<tests\.test_text\.Word object at .*>"),
        (float("nan"), "nan"),
        (None, "None"),
        ("x" * 100_000, r"'x{78}…"),
        (b"\x00" * 100_000, r"b'(\\x00)+.*…"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_can_be_named_in_a_message(value: object, expected: str) -> None:
    text = shown(value)
    assert re.fullmatch(expected, text)
    assert is_visible_line(text)
    assert len(text) <= 80


class TestLogs:
    def test_a_message_is_one_line_whatever_is_in_it(self, caplog: pytest.LogCaptureFixture) -> None:
        logger = get_logger("aioigd.test")
        with caplog.at_level(logging.DEBUG, "aioigd.test"):
            logger.info("from %s: %s", "192.0.2.1", "x\nCRITICAL root: forged \u202e" + "y" * 200_000)
        (record,) = caplog.records
        assert record.getMessage().startswith("from 192.0.2.1: x CRITICAL root: forged �yyy")
        assert is_visible_line(record.getMessage())
        assert len(record.getMessage()) == MESSAGE_LIMIT

    def test_a_per_cent_sign_is_no_format(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG, "aioigd.test"):
            get_logger("aioigd.test").info("from %s", "a\n%d %s")
        assert caplog.messages == ["from a %d %s"]

    def test_what_may_be_shown_keeps_its_arguments(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG, "aioigd.test"):
            get_logger("aioigd.test").info("from %s", "192.0.2.1")
        assert (caplog.records[0].msg, caplog.records[0].args) == ("from %s", ("192.0.2.1",))

    def test_a_logger_is_guarded_once(self) -> None:
        assert get_logger("aioigd.test") is get_logger("aioigd.test")
        assert len(get_logger("aioigd.test").filters) == 1

    def test_no_module_has_a_logger_without_it(self) -> None:
        def modules() -> Iterator[Path]:
            package = Path(aioigd.__file__).parent
            yield from (each for each in package.rglob("*.py") if each != package / "text.py")

        ours = [each for each in modules() if each.parent.name != "cli" and "testing" not in each.parts]
        assert len(ours) > 50
        assert not [each for each in ours if "getLogger(" in each.read_text("utf-8")]


class OfWindows(OSError):
    """An error as Windows makes it: its own number, and that of C, where there is none, EINVAL."""

    winerror = 1225


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ECONNREFUSED, "Connect call failed ('192.0.2.1', 80)"), os.strerror(errno.ECONNREFUSED)),
        (OfWindows(errno.EINVAL, "The remote computer refused"), "The remote computer refused"),
        (OSError(10061, "Connect call failed"), "[Errno 10061] Connect call failed"),
        (OSError("no number"), "no number"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_the_system_says_what_is_wrong(error: OSError, message: str) -> None:
    assert system_message(error) == message
