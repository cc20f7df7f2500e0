"""The exceptions of the package.

::

    IGDError                       every failure: .result, .error_code, .attempts
    ├── UsageError                 the caller's mistake, raised before any I/O (also a ValueError)
    ├── DiscoveryError             nobody answered, or no gateway among those who did
    ├── TransportError             the gateway could not be reached, or cut the connection
    │   └── NoRouteError           nothing can be sent from here: no such address, no network, no IPv6
    ├── DeadlineError              it did not answer in time (also a TimeoutError)
    ├── InvalidResponseError       it answered with something that is no answer
    ├── RefusedError               it said no; .error_code is its code in .protocol
    │   ├── ConflictError          the port belongs to another mapping
    │   ├── NotFoundError          there is no such mapping or pinhole
    │   └── UnsupportedError       the gateway cannot do that at all
    └── UnexpectedError            a defect of this package or of a library that it uses

Programs catch :class:`IGDError`, which is never raised itself, and look at ``result``; the subclasses say the same
for those who prefer ``except`` clauses. A result is fixed when an error is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar

from .results import PROTOCOL_NAMES, ProtocolName, UPnPResult
from .text import MESSAGE_LIMIT, printable, shown

__all__ = [
    "DENIED_STATUSES",
    "GONE_STATUSES",
    "Attempt",
    "ConflictError",
    "DeadlineError",
    "DiscoveryError",
    "IGDError",
    "InvalidResponseError",
    "NoRouteError",
    "NotFoundError",
    "RefusedError",
    "TransportError",
    "UnexpectedError",
    "UnsupportedError",
    "UsageError",
    "is_denied",
    "is_gone",
    "is_unreachable",
]

DENIED_STATUSES: Final = frozenset({401, 403})
"""HTTP statuses of a server that does what is asked for other clients only, or for none."""
GONE_STATUSES: Final = frozenset({404, 405, 410})
"""HTTP statuses of a server that is up, and has no such control URL (any more)."""


_Error = TypeVar("_Error", bound="IGDError")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that was sent to a gateway, and what came of it.

    ``action`` is the name of the UPnP action, or MAP or ADDRESS by PCP and NAT-PMP, ``arguments`` what was sent with it
    (by the names of the standard), ``error_code`` the gateway's own code in that protocol or None where it gave none,
    ``result`` the outcome, ``protocol`` the one that was spoken.
    """

    action: str
    arguments: Mapping[str, str] = field(hash=False)
    error_code: int | None
    result: UPnPResult
    protocol: ProtocolName = "upnp"


class IGDError(Exception):
    """A call failed. The base of every exception that this package raises.

    ``result`` says how, in one of 29 values; ``error_code`` is the code that the gateway gave, or None, and
    ``protocol`` the protocol whose code that is ("upnp", "pcp" or "nat-pmp"), None where the failure is none of a
    protocol; ``attempts`` are the requests that were made for this call, by all protocols, in their order;
    ``retry_after`` are the seconds for which the gateway wants to be left alone with this request, None where it does
    not say.
    ``message`` may quote a device, and can be shown as it is: it is one line without control characters, of at most
    2,000 characters, as is ``str(error)``.
    """

    def __init__(
        self,
        message: str,
        result: UPnPResult = UPnPResult.UNKNOWN_ERROR,
        *,
        error_code: int | None = None,
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        # By their types, as ``isinstance`` asks a value that is of another one for its ``__class__``.
        if not issubclass(type(result), UPnPResult):
            raise UsageError(f"result must be a UPnPResult, not {shown(result)}")
        if not (error_code is None or issubclass(type(error_code), int)):
            raise UsageError(f"error_code must be a whole number or None, not {shown(error_code)}")
        self.message = printable(message) if issubclass(type(message), str) else shown(message, MESSAGE_LIMIT)
        super().__init__(self.message)
        self.result = result
        self.error_code = error_code
        self.protocol: ProtocolName | None = None
        self.retry_after: float | None = None
        self.with_attempts(attempts)

    def __str__(self) -> str:
        tried = f", after {len(self.attempts)} attempts" if len(self.attempts) > 1 else ""
        name = "UPnP" if self.protocol is None else PROTOCOL_NAMES[self.protocol]
        code = f", {name} error {shown(self.error_code)}" if self.error_code is not None else ""
        outcome = f" [{self.result.name}{code}{tried}]"
        return printable(self.message, MESSAGE_LIMIT - len(outcome)) + outcome

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), dict(self.__dict__))

    def copy(self) -> Self:
        """Return an equal error of its own, for one more waiter.

        An exception that is raised in several tasks would collect all their tracebacks.
        """
        twin = _rebuild(type(self), dict(self.__dict__))
        twin.__cause__, twin.__suppress_context__ = self.__cause__, self.__suppress_context__
        return twin

    def append(self, text: str) -> None:
        """Say more in the message."""
        self.message = printable(self.message + text)
        self.args = (self.message,)

    def with_attempts(self, attempts: tuple[Attempt, ...]) -> Self:
        """Note the requests that were made before this failure, and return the error itself."""
        if not issubclass(type(attempts), tuple):
            raise UsageError(f"attempts must be a tuple, not {shown(attempts)}")
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


class TransportError(IGDError):
    """The gateway refused the connection, or broke it before it had answered.

    ``may_have_arrived``: the connection broke after it had come about, so the gateway may have done what was asked.
    """

    def __init__(self, message: str, *, may_have_arrived: bool) -> None:
        super().__init__(message, UPnPResult.SOCKET_ERROR)
        self.may_have_arrived = may_have_arrived


class NoRouteError(TransportError):
    """Nothing can be sent from here: this machine has no such address, no network, or no IPv6."""

    def __init__(self, message: str) -> None:
        super().__init__(message, may_have_arrived=False)


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
    """The gateway understood, and refused; ``error_code`` is its code, None where it gave none."""

    def __init__(self, message: str, result: UPnPResult, error_code: int | None = None) -> None:
        super().__init__(message, result, error_code=error_code)


class ConflictError(RefusedError):
    """The port belongs to another mapping: the gateway says so, or what it holds shows it."""

    def __init__(self, message: str, error_code: int | None = None) -> None:
        super().__init__(message, UPnPResult.CONFLICT_WITH_OTHER_MAPPING, error_code)


class NotFoundError(RefusedError):
    """The gateway holds no such mapping or pinhole: NO_SUCH_ENTRY_IN_ARRAY, or PORT_MAPPING_NOT_FOUND."""

    def __init__(
        self, message: str, result: UPnPResult = UPnPResult.NO_SUCH_ENTRY_IN_ARRAY, error_code: int | None = None
    ) -> None:
        super().__init__(message, result, error_code)


class UnsupportedError(RefusedError):
    """The gateway has no such service or action (INVALID_GATEWAY)."""

    def __init__(self, message: str, error_code: int | None = None) -> None:
        super().__init__(message, UPnPResult.INVALID_GATEWAY, error_code)


class UnexpectedError(IGDError):
    """A defect of this package or of a library that it uses; ``__cause__`` is the exception."""

    def __init__(self, message: str) -> None:
        super().__init__(message, UPnPResult.UNKNOWN_ERROR)


def is_gone(error: IGDError) -> bool:
    """Return whether an error means that the gateway is no longer where it was: it may be had at another address.

    That nothing can be sent from here says nothing about the gateway.
    """
    if isinstance(error, TransportError):
        return not error.may_have_arrived and not isinstance(error, NoRouteError)
    return isinstance(error, InvalidResponseError) and error.status in GONE_STATUSES


def is_denied(error: IGDError) -> bool:
    """Return whether an error means that the gateway talks to others only (HTTP 401 or 403), whatever it is asked for.

    A code of the protocol for the same concerns the one request, its port or its client.
    """
    return isinstance(error, RefusedError) and error.result is UPnPResult.NOT_AUTHORIZED and error.error_code is None


def is_unreachable(error: IGDError) -> bool:
    """Return whether an error means that no gateway answers, so that asking it for something else is no use."""
    if isinstance(error, TransportError):
        return not error.may_have_arrived
    return isinstance(error, (DeadlineError, DiscoveryError))
