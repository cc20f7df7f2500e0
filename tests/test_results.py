"""The outcomes have the names and numbers of Godot's enums, and each code of the standard has its outcome."""

from __future__ import annotations

import pytest

from aioigd.results import IGDStatus, UPnPResult
from aioigd.upnp.wire.error_codes import RESULT_OF_ERROR_CODE, result_of_error_code

RESULTS = """
SUCCESS 0, NOT_AUTHORIZED 1, PORT_MAPPING_NOT_FOUND 2, INCONSISTENT_PARAMETERS 3, NO_SUCH_ENTRY_IN_ARRAY 4,
ACTION_FAILED 5, SRC_IP_WILDCARD_NOT_PERMITTED 6, EXT_PORT_WILDCARD_NOT_PERMITTED 7,
INT_PORT_WILDCARD_NOT_PERMITTED 8, REMOTE_HOST_MUST_BE_WILDCARD 9, EXT_PORT_MUST_BE_WILDCARD 10,
NO_PORT_MAPS_AVAILABLE 11, CONFLICT_WITH_OTHER_MECHANISM 12, CONFLICT_WITH_OTHER_MAPPING 13,
SAME_PORT_VALUES_REQUIRED 14, ONLY_PERMANENT_LEASE_SUPPORTED 15, INVALID_GATEWAY 16, INVALID_PORT 17,
INVALID_PROTOCOL 18, INVALID_DURATION 19, INVALID_ARGS 20, INVALID_RESPONSE 21, INVALID_PARAM 22, HTTP_ERROR 23,
SOCKET_ERROR 24, MEM_ALLOC_ERROR 25, NO_GATEWAY 26, NO_DEVICES 27, UNKNOWN_ERROR 28
"""
STATUSES = """
OK 0, HTTP_ERROR 1, HTTP_EMPTY 2, NO_URLS 3, NO_IGD 4, DISCONNECTED 5, UNKNOWN_DEVICE 6, INVALID_CONTROL 7,
MALLOC_ERROR 8, UNKNOWN_ERROR 9
"""


def table(text: str) -> dict[str, int]:
    return {name: int(number) for name, number in (line.split() for line in text.split(","))}


def test_there_are_the_29_results_of_godot() -> None:
    assert {result.name: int(result) for result in UPnPResult} == table(RESULTS)
    assert len(UPnPResult) == 29


def test_there_are_the_ten_device_statuses_of_godot() -> None:
    assert {status.name: int(status) for status in IGDStatus} == table(STATUSES)
    assert len(IGDStatus) == 10


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (402, UPnPResult.INVALID_ARGS),
        (403, UPnPResult.NOT_AUTHORIZED),
        (501, UPnPResult.ACTION_FAILED),
        (606, UPnPResult.NOT_AUTHORIZED),
        (714, UPnPResult.NO_SUCH_ENTRY_IN_ARRAY),
        (715, UPnPResult.SRC_IP_WILDCARD_NOT_PERMITTED),
        (716, UPnPResult.EXT_PORT_WILDCARD_NOT_PERMITTED),
        (718, UPnPResult.CONFLICT_WITH_OTHER_MAPPING),
        (724, UPnPResult.SAME_PORT_VALUES_REQUIRED),
        (725, UPnPResult.ONLY_PERMANENT_LEASE_SUPPORTED),
        (726, UPnPResult.REMOTE_HOST_MUST_BE_WILDCARD),
        (727, UPnPResult.EXT_PORT_MUST_BE_WILDCARD),
        (728, UPnPResult.NO_PORT_MAPS_AVAILABLE),
        (729, UPnPResult.CONFLICT_WITH_OTHER_MECHANISM),
        (730, UPnPResult.PORT_MAPPING_NOT_FOUND),
        (732, UPnPResult.INT_PORT_WILDCARD_NOT_PERMITTED),
        (733, UPnPResult.INCONSISTENT_PARAMETERS),
    ],
)
def test_each_code_of_the_standard_has_its_result(code: int, result: UPnPResult) -> None:
    assert result_of_error_code(code) is result
    assert code in RESULT_OF_ERROR_CODE


@pytest.mark.parametrize("code", [0, -911, 401, 713, 999_999])
def test_any_other_code_is_an_unknown_error(code: int) -> None:
    assert result_of_error_code(code) is UPnPResult.UNKNOWN_ERROR


def test_a_refusal_without_a_code_is_an_invalid_response() -> None:
    assert result_of_error_code(None) is UPnPResult.INVALID_RESPONSE


def test_nobody_can_change_the_table() -> None:
    with pytest.raises(TypeError):
        RESULT_OF_ERROR_CODE[402] = UPnPResult.SUCCESS  # type: ignore[index]
