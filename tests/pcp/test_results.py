"""Which error stands for which result code."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from aioigd import ConflictError, RefusedError, UnsupportedError, UPnPResult
from aioigd.pcp.results import refused_by_nat_pmp, refused_by_pcp
from aioigd.pcp.wire import nat_pmp, pcp

HOST = IPv4Address("192.0.2.1")
PCP = {
    1: (UnsupportedError, UPnPResult.INVALID_GATEWAY),
    2: (RefusedError, UPnPResult.NOT_AUTHORIZED),
    3: (RefusedError, UPnPResult.INVALID_ARGS),
    4: (UnsupportedError, UPnPResult.INVALID_GATEWAY),
    5: (RefusedError, UPnPResult.INVALID_ARGS),
    6: (RefusedError, UPnPResult.INVALID_ARGS),
    7: (RefusedError, UPnPResult.ACTION_FAILED),
    8: (RefusedError, UPnPResult.NO_PORT_MAPS_AVAILABLE),
    9: (RefusedError, UPnPResult.INVALID_PROTOCOL),
    10: (RefusedError, UPnPResult.NO_PORT_MAPS_AVAILABLE),
    11: (ConflictError, UPnPResult.CONFLICT_WITH_OTHER_MAPPING),
    12: (RefusedError, UPnPResult.CONFLICT_WITH_OTHER_MECHANISM),
    13: (RefusedError, UPnPResult.NO_PORT_MAPS_AVAILABLE),
    200: (RefusedError, UPnPResult.ACTION_FAILED),
}
NAT_PMP = {
    1: (UnsupportedError, UPnPResult.INVALID_GATEWAY),
    2: (RefusedError, UPnPResult.NOT_AUTHORIZED),
    3: (RefusedError, UPnPResult.ACTION_FAILED),
    4: (RefusedError, UPnPResult.NO_PORT_MAPS_AVAILABLE),
    5: (UnsupportedError, UPnPResult.INVALID_GATEWAY),
    4711: (RefusedError, UPnPResult.ACTION_FAILED),
}


DOCUMENTED = Path(__file__).parents[2] / "docs" / "fallback.md"


def test_the_table_of_the_documentation_says_the_same() -> None:
    rows = []
    for title, codes, refused in (
        ("PCP", pcp.ResultCode, refused_by_pcp),
        ("NAT-PMP", nat_pmp.ResultCode, refused_by_nat_pmp),
    ):
        for code in codes:
            if code:
                error = refused(code, "MAP")
                rows.append(f"| {title} {code} {code.name} | `{error.result.name}` | `{type(error).__name__}` |")
    said = DOCUMENTED.read_text("utf-8")
    assert [line for line in said.splitlines() if line.startswith(("| PCP ", "| NAT-PMP "))] == rows


def test_every_code_of_the_standards_has_a_line() -> None:
    assert set(PCP) >= {*pcp.ResultCode} - {pcp.ResultCode.SUCCESS}
    assert set(NAT_PMP) >= {*nat_pmp.ResultCode} - {nat_pmp.ResultCode.SUCCESS}


@pytest.mark.parametrize("code", PCP)
def test_pcp(code: int) -> None:
    error = refused_by_pcp(code, "MAP")
    assert (type(error), error.result, error.error_code) == (*PCP[code], code)
    assert error.message.startswith("MAP was refused by PCP: ")


@pytest.mark.parametrize("code", NAT_PMP)
def test_nat_pmp(code: int) -> None:
    error = refused_by_nat_pmp(code, "MAP")
    assert (type(error), error.result, error.error_code) == (*NAT_PMP[code], code)


@pytest.mark.parametrize(
    ("option", "result"),
    [
        (pcp.Filter(128, 0, HOST), UPnPResult.REMOTE_HOST_MUST_BE_WILDCARD),
        (pcp.ThirdParty(HOST), UPnPResult.NOT_AUTHORIZED),
        (pcp.PreferFailure(), UPnPResult.INVALID_ARGS),
    ],
)
def test_an_option_that_is_not_supported_says_what_cannot_be_had(option: pcp.Option, result: UPnPResult) -> None:
    assert refused_by_pcp(5, "MAP", (option,)).result is result
