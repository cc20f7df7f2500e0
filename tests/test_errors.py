"""Every failure is an IGDError that tells what happened, and stays itself when it is copied or sent elsewhere."""

from __future__ import annotations

import copy
import pickle
from contextlib import suppress
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from aioigd import errors
from aioigd.errors import (
    Attempt,
    DeadlineError,
    DiscoveryError,
    IGDError,
    InvalidResponseError,
    NoRouteError,
    NotFoundError,
    RefusedError,
    TransportError,
    UnexpectedError,
    UnsupportedError,
    UsageError,
    is_denied,
    is_gone,
    is_unreachable,
)
from aioigd.results import UPnPResult
from aioigd.upnp.wire.error_codes import refused

from .support import is_visible_line

ATTEMPTS = (
    Attempt("AddPortMapping", {"NewExternalPort": "80"}, 725, UPnPResult.ONLY_PERMANENT_LEASE_SUPPORTED),
    Attempt("AddPortMapping", {"NewExternalPort": "80"}, None, UPnPResult.HTTP_ERROR),
)
EXAMPLES = [
    IGDError("something"),
    IGDError("something", UPnPResult.NO_GATEWAY, error_code=7, attempts=ATTEMPTS),
    NoRouteError("no IPv6"),
    NotFoundError("none"),
    UnsupportedError("no such action", 401),
    UnexpectedError("KeyError"),
    UsageError("wrong"),
    UsageError("wrong port", UPnPResult.INVALID_PORT),
    DiscoveryError("nobody", UPnPResult.NO_DEVICES),
    TransportError("cut", may_have_arrived=True),
    DeadlineError("late"),
    InvalidResponseError("HTML", status=404),
    refused("no", 718),
    refused("no", None),
]


def seen(error: IGDError) -> tuple[object, ...]:
    """Return all that a program can see of an error."""
    return type(error), error.args, str(error), repr(error), vars(error)


def test_each_class_has_an_example() -> None:
    classes = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, IGDError)}
    assert classes == {type(error) for error in EXAMPLES}
    assert classes | {Attempt, errors.DENIED_STATUSES, errors.GONE_STATUSES, is_denied, is_gone, is_unreachable} == {
        getattr(errors, name) for name in errors.__all__
    }


class TestEveryError:
    @pytest.fixture(params=EXAMPLES, ids=repr)
    def error(self, request: pytest.FixtureRequest) -> IGDError:
        example: IGDError = request.param
        return example.copy().with_attempts(ATTEMPTS)

    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    def test_it_survives_a_pickle(self, error: IGDError, protocol: int) -> None:
        assert seen(pickle.loads(pickle.dumps(error, protocol))) == seen(error)

    def test_it_survives_a_copy(self, error: IGDError) -> None:
        for twin in (error.copy(), copy.copy(error), copy.deepcopy(error)):
            assert twin is not error
            assert seen(twin) == seen(error)

    def test_its_copy_has_its_cause_and_a_traceback_of_its_own(self, error: IGDError) -> None:
        try:
            raise error from OSError("refused")
        except IGDError:
            twin = error.copy()
        assert error.__traceback__ is not None
        assert twin.__traceback__ is None
        assert twin.__cause__ is error.__cause__
        assert twin.__suppress_context__

    def test_its_copy_has_attempts_of_its_own(self, error: IGDError) -> None:
        twin = error.copy().with_attempts(())
        assert twin.attempts == ()
        assert error.attempts == ATTEMPTS

    def test_it_can_be_raised_and_caught_as_the_base(self, error: IGDError) -> None:
        with pytest.raises(IGDError) as caught:
            raise error
        assert isinstance(caught.value.result, UPnPResult)

    def test_it_says_what_where_and_how_often(self, error: IGDError) -> None:
        assert str(error).startswith(f"{error.message} [{error.result.name}")
        assert str(error).endswith(", after 2 attempts]")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (IGDError("x"), "x [UNKNOWN_ERROR]"),
        (refused("no", 718), "no [CONFLICT_WITH_OTHER_MAPPING, UPnP error 718]"),
        (refused("no", -911), "no [UNKNOWN_ERROR, UPnP error -911]"),
        (refused("no", 0), "no [UNKNOWN_ERROR, UPnP error 0]"),
        (refused("no", None), "no [INVALID_RESPONSE]"),
        (DeadlineError("late").with_attempts(ATTEMPTS[:1]), "late [HTTP_ERROR]"),
    ],
)
def test_its_text_has_only_what_there_is(error: IGDError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    ("kind", "also"), [(UsageError, ValueError), (DeadlineError, TimeoutError), (IGDError, Exception)]
)
def test_some_are_errors_that_python_has_too(kind: type[IGDError], also: type[Exception]) -> None:
    assert issubclass(kind, also)


def test_no_other_is_a_value_error_or_a_timeout() -> None:
    assert all(isinstance(error, UsageError) for error in EXAMPLES if isinstance(error, ValueError))
    assert all(isinstance(error, DeadlineError) for error in EXAMPLES if isinstance(error, OSError))


def test_each_kind_has_its_result() -> None:
    assert UsageError("x").result is UPnPResult.INVALID_ARGS
    assert TransportError("x", may_have_arrived=False).result is UPnPResult.SOCKET_ERROR
    assert not TransportError("x", may_have_arrived=False).may_have_arrived
    assert DeadlineError("x").result is UPnPResult.HTTP_ERROR
    assert InvalidResponseError("x").result is UPnPResult.INVALID_RESPONSE
    assert InvalidResponseError("x").status is None
    assert refused("x", 725).error_code == 725


def test_an_attempt_is_frozen_hashable_and_comparable() -> None:
    first, second = ATTEMPTS
    with pytest.raises(FrozenInstanceError):
        first.action = "x"  # type: ignore[misc]
    assert len({first, second, copy.copy(first)}) == 2
    assert first != Attempt("AddPortMapping", {"NewExternalPort": "81"}, 725, first.result)


def test_what_a_device_said_is_shown_in_one_line() -> None:
    words = "no\n2026-01-01 CRITICAL root: forged\x9b2J\u2028\u202e" + "x" * 200_000
    error = RefusedError(words, UPnPResult.ACTION_FAILED, 501).with_attempts(ATTEMPTS)
    for text in (str(error), repr(error), error.message, *error.args, str(error.copy())):
        assert is_visible_line(text)
    assert len(error.message) == len(str(error)) == 2000
    assert str(error).startswith("no 2026-01-01 CRITICAL root: forged�2J �xxx")
    assert str(error).endswith("x… [ACTION_FAILED, UPnP error 501, after 2 attempts]")


@pytest.mark.parametrize("value", [10**5000, object(), b"\x00", None], ids=lambda value: type(value).__name__)
def test_whatever_an_error_is_made_of_can_be_shown(value: Any) -> None:
    assert is_visible_line(str(IGDError(value)))
    assert is_visible_line(repr(TransportError(value, may_have_arrived=value)))
    for arguments in ({"result": value}, {"error_code": value}, {"attempts": value}):
        with suppress(UsageError):
            assert is_visible_line(str(IGDError("failed", **arguments)))
