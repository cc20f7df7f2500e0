"""The exceptions of the package.

::

    IGDError                       every failure: .result, .error_code, .attempts
    ├── UsageError                 the caller's mistake, raised before any I/O (also a ValueError)
    ├── DiscoveryError             nobody answered, or no gateway among those who did
    ├── TransportError             the gateway could not be reached, or cut the connection
    ├── DeadlineError              it did not answer in time (also a TimeoutError)
    ├── InvalidResponseError       it answered with something that is no answer
    └── RefusedError               it said no; .error_code is its UPnP error code

Programs catch :class:`IGDError` and look at ``result``; the subclasses say the same for those who prefer
``except`` clauses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Self, TypeVar

from .results import UPnPResult, result_of_error_code

__all__ = [
    "Attempt",
    "DeadlineError",
    "DiscoveryError",
    "Fate",
    "IGDError",
    "InvalidResponseError",
    "RefusedError",
    "TransportError",
    "UsageError",
]


_Error = TypeVar("_Error", bound="IGDError")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that was sent to a gateway, and what came of it.

    ``action`` is the name of the UPnP action, ``arguments`` what was sent with it (by the names of the
    standard), ``error_code`` the gateway's UPnP error code or None where it gave none, ``result`` the outcome.
    """

    action: str
    arguments: Mapping[str, str] = field(hash=False)
    error_code: int | None
    result: UPnPResult


class IGDError(Exception):
    """A call failed. The base of every exception that this package raises.

    ``result`` says how, in one of 29 values; ``error_code`` is the UPnP error code that the gateway gave, or
    None; ``attempts`` are the requests that were made for this call, in their order.
    """

    def __init__(
        self,
        message: str,
        result: UPnPResult = UPnPResult.UNKNOWN_ERROR,
        *,
        error_code: int | None = None,
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.result = result
        self.error_code = error_code
        self.attempts = attempts

    def __str__(self) -> str:
        tried = f", after {len(self.attempts)} attempts" if len(self.attempts) > 1 else ""
        code = f", UPnP error {self.error_code}" if self.error_code is not None else ""
        return f"{self.message} [{self.result.name}{code}{tried}]"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), dict(self.__dict__))

    def copy(self) -> Self:
        """Return an equal error of its own, for one more waiter.

        An exception that is raised in several tasks would collect all their tracebacks.
        """
        twin = _rebuild(type(self), dict(self.__dict__))
        twin.__cause__, twin.__suppress_context__ = self.__cause__, self.__suppress_context__
        return twin

    def with_attempts(self, attempts: tuple[Attempt, ...]) -> Self:
        """Note the requests that were made before this failure, and return the error itself."""
        self.attempts = attempts
        return self


def _rebuild(kind: type[_Error], state: dict[str, object]) -> _Error:
    # Not by calling the class: each kind has arguments of its own.
    error = kind.__new__(kind, state["message"])
    error.args = (state["message"],)  # OSError, the base of TimeoutError, leaves that to its __init__
    error.__dict__.update(state)
    return error


class UsageError(IGDError, ValueError):
    """The call itself is wrong: a port, protocol, duration or other argument that cannot be meant."""

    def __init__(self, message: str, result: UPnPResult = UPnPResult.INVALID_ARGS) -> None:
        super().__init__(message, result)


class DiscoveryError(IGDError):
    """No gateway was found: NO_DEVICES where nobody answered, NO_GATEWAY where only others did."""


class Fate(Enum):
    """How far a request that failed in transport may have come."""

    UNREACHED = "unreached"  #: no connection came about, so nothing was done
    CUT = "cut"  #: the connection broke; the gateway may have done what was asked


class TransportError(IGDError):
    """The gateway refused the connection, or broke it before it had answered."""

    def __init__(self, message: str, fate: Fate) -> None:
        super().__init__(message, UPnPResult.SOCKET_ERROR)
        self.fate = fate


class DeadlineError(IGDError, TimeoutError):
    """The gateway took longer than the call may take."""

    def __init__(self, message: str) -> None:
        super().__init__(message, UPnPResult.HTTP_ERROR)


class InvalidResponseError(IGDError):
    """What the gateway sent is not an answer to what it was asked.

    ``status`` is the HTTP status of the reply, None where it is not HTTP's matter.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message, UPnPResult.INVALID_RESPONSE)
        self.status = status


class RefusedError(IGDError):
    """The gateway understood, and refused with a UPnP error code."""

    def __init__(self, message: str, error_code: int | None) -> None:
        super().__init__(message, result_of_error_code(error_code), error_code=error_code)
