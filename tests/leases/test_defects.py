"""How often work is tried again that fails unexpectedly, and what the log has of it."""

from __future__ import annotations

import logging

import pytest

from aioigd.leases.defects import Defects


class Thing:
    """Something that is worked on."""


def failure(text: str = "") -> Exception:
    try:
        raise ZeroDivisionError(text)
    except ZeroDivisionError as error:
        return error


def another_failure() -> Exception:
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        return error


def test_pauses_grow_for_each_thing_up_to_a_minute_and_begin_anew_after_a_long_time_without() -> None:
    defects, thing, other = Defects(), Thing(), Thing()
    now = 0.0
    pauses = []
    for _ in range(10):
        pauses.append(defects.pause(thing, now))
        now += pauses[-1]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert defects.pause(other, now) == 0.5
    assert defects.pause(thing, now + 601.0) == 0.5


def test_each_kind_is_a_warning_once_and_again_after_a_long_time_without(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aioigd")
    defects = Defects()
    for now, error in enumerate([failure("a"), failure("b"), another_failure(), ZeroDivisionError(), failure()]):
        defects.report("no", error, now)
    defects.report("no", failure(), 1000.0)
    levels = [one.levelname for one in caplog.records]
    assert levels == ["WARNING", "DEBUG", "WARNING", "WARNING", "DEBUG", "WARNING"]
    assert all(one.exc_info for one in caplog.records)


def test_few_kinds_are_remembered() -> None:
    defects = Defects()
    for number in range(1000):
        defects.report("no", type(f"Failure{number}", (Exception,), {})(), 0.0)
    assert len(defects._last) <= 64
