"""The error codes of UPnP: their names, and the results and errors that stand for them.

UDA 1.1 section 3.2.2 has the common ones, WANIPConnection:2 section 2.5.23 those of port mappings. Gateways also send
codes that no standard has: a code is an ``int`` everywhere, and None where a fault has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from ...errors import ConflictError, NotFoundError, RefusedError
from ...results import UPnPResult

__all__ = ["RESULT_OF_ERROR_CODE", "UPnPErrorCode", "refused", "result_of_error_code"]


class UPnPErrorCode(IntEnum):
    """The codes that this package acts upon, by their names in the standards."""

    INVALID_ACTION = 401
    INVALID_ARGS = 402
    OUT_OF_SYNC = 403
    ACTION_FAILED = 501
    OPTIONAL_ACTION_NOT_IMPLEMENTED = 602
    ACTION_NOT_AUTHORIZED = 606
    SPECIFIED_ARRAY_INDEX_INVALID = 713
    NO_SUCH_ENTRY_IN_ARRAY = 714
    WILDCARD_NOT_PERMITTED_IN_SRC_IP = 715
    WILDCARD_NOT_PERMITTED_IN_EXT_PORT = 716
    CONFLICT_IN_MAPPING_ENTRY = 718
    SAME_PORT_VALUES_REQUIRED = 724
    ONLY_PERMANENT_LEASES_SUPPORTED = 725
    REMOTE_HOST_ONLY_SUPPORTS_WILDCARD = 726
    EXTERNAL_PORT_ONLY_SUPPORTS_WILDCARD = 727
    NO_PORT_MAPS_AVAILABLE = 728
    CONFLICT_WITH_OTHER_MECHANISMS = 729
    PORT_MAPPING_NOT_FOUND = 730
    WILDCARD_NOT_PERMITTED_IN_INT_PORT = 732
    INCONSISTENT_PARAMETERS = 733

    @staticmethod
    def is_absent(code: int | None) -> bool:
        """Return whether a code says that there is no such mapping."""
        return code in _ABSENT

    @staticmethod
    def is_end_of_list(code: int | None) -> bool:
        """Return whether a code says that there is no such mapping, or no such row of the table."""
        return code in _ABSENT or code == UPnPErrorCode.SPECIFIED_ARRAY_INDEX_INVALID

    @staticmethod
    def is_unsupported(code: int | None) -> bool:
        """Return whether a code says that there is no such action."""
        return code in _UNSUPPORTED


_ABSENT: Final = frozenset({UPnPErrorCode.NO_SUCH_ENTRY_IN_ARRAY, UPnPErrorCode.PORT_MAPPING_NOT_FOUND})
_UNSUPPORTED: Final = frozenset({UPnPErrorCode.INVALID_ACTION, UPnPErrorCode.OPTIONAL_ACTION_NOT_IMPLEMENTED})

RESULT_OF_ERROR_CODE: Final[Mapping[int, UPnPResult]] = MappingProxyType(
    {
        UPnPErrorCode.INVALID_ARGS: UPnPResult.INVALID_ARGS,
        UPnPErrorCode.OUT_OF_SYNC: UPnPResult.NOT_AUTHORIZED,
        UPnPErrorCode.ACTION_FAILED: UPnPResult.ACTION_FAILED,
        UPnPErrorCode.ACTION_NOT_AUTHORIZED: UPnPResult.NOT_AUTHORIZED,
        UPnPErrorCode.NO_SUCH_ENTRY_IN_ARRAY: UPnPResult.NO_SUCH_ENTRY_IN_ARRAY,
        UPnPErrorCode.WILDCARD_NOT_PERMITTED_IN_SRC_IP: UPnPResult.SRC_IP_WILDCARD_NOT_PERMITTED,
        UPnPErrorCode.WILDCARD_NOT_PERMITTED_IN_EXT_PORT: UPnPResult.EXT_PORT_WILDCARD_NOT_PERMITTED,
        UPnPErrorCode.CONFLICT_IN_MAPPING_ENTRY: UPnPResult.CONFLICT_WITH_OTHER_MAPPING,
        UPnPErrorCode.SAME_PORT_VALUES_REQUIRED: UPnPResult.SAME_PORT_VALUES_REQUIRED,
        UPnPErrorCode.ONLY_PERMANENT_LEASES_SUPPORTED: UPnPResult.ONLY_PERMANENT_LEASE_SUPPORTED,
        UPnPErrorCode.REMOTE_HOST_ONLY_SUPPORTS_WILDCARD: UPnPResult.REMOTE_HOST_MUST_BE_WILDCARD,
        UPnPErrorCode.EXTERNAL_PORT_ONLY_SUPPORTS_WILDCARD: UPnPResult.EXT_PORT_MUST_BE_WILDCARD,
        UPnPErrorCode.NO_PORT_MAPS_AVAILABLE: UPnPResult.NO_PORT_MAPS_AVAILABLE,
        UPnPErrorCode.CONFLICT_WITH_OTHER_MECHANISMS: UPnPResult.CONFLICT_WITH_OTHER_MECHANISM,
        UPnPErrorCode.PORT_MAPPING_NOT_FOUND: UPnPResult.PORT_MAPPING_NOT_FOUND,
        UPnPErrorCode.WILDCARD_NOT_PERMITTED_IN_INT_PORT: UPnPResult.INT_PORT_WILDCARD_NOT_PERMITTED,
        UPnPErrorCode.INCONSISTENT_PARAMETERS: UPnPResult.INCONSISTENT_PARAMETERS,
    }
)
"""The codes that have a result of their own."""


def result_of_error_code(code: int | None) -> UPnPResult:
    """Return the result that stands for a UPnP error code, UNKNOWN_ERROR for one that has none.

    None, a refusal without any code, is INVALID_RESPONSE.
    """
    return UPnPResult.INVALID_RESPONSE if code is None else _result(code, RESULT_OF_ERROR_CODE)


def refused(message: str, code: int | None, results: Mapping[int, UPnPResult] = RESULT_OF_ERROR_CODE) -> RefusedError:
    """Return the error for a refusal with a code, by the ``results`` of the service that refused."""
    result = UPnPResult.INVALID_RESPONSE if code is None else _result(code, results)
    if result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING:
        return ConflictError(message, code)
    if result in (UPnPResult.NO_SUCH_ENTRY_IN_ARRAY, UPnPResult.PORT_MAPPING_NOT_FOUND):
        return NotFoundError(message, result, code)
    return RefusedError(message, result, code)


def _result(code: int, results: Mapping[int, UPnPResult]) -> UPnPResult:
    return results.get(code, UPnPResult.UNKNOWN_ERROR)
