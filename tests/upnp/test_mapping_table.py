"""Every way in which the tables of real gateways end, or seem to."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from aioigd import IGDError, InvalidResponseError, PortMapping, RefusedError, TransportError
from aioigd.upnp.list_mappings import MappingTable, Row
from aioigd.upnp.wire.error_codes import refused


def mapping(port: int) -> PortMapping:
    return PortMapping(port, port, "192.0.2.5", "TCP")


def read(rows: Iterable[Row]) -> tuple[list[int], int]:
    """Return the ports that a table has, and after how many rows it had ended."""
    table = MappingTable()
    ports: list[int] = []
    for number, row in enumerate(rows, 1):
        found = table.read(row)
        if table.ended:
            return ports, number
        if found is not None:
            ports.append(found.external_port)
    return ports, 0


BLANK = InvalidResponseError("blank")


@pytest.mark.parametrize("code", [713, 714, 402, 501, None, 401, 602, 606, 999])
def test_it_ends_with_any_code(code: int | None) -> None:
    assert read([mapping(1), mapping(2), refused("end", code)]) == ([1, 2], 3)


@pytest.mark.parametrize("code", [713, 714, 402, 501, None])
def test_it_may_be_empty(code: int | None) -> None:
    assert read([refused("end", code)]) == ([], 1)


@pytest.mark.parametrize("code", [401, 602, 606])
def test_a_gateway_that_has_none_or_shows_it_to_nobody_says_so(code: int) -> None:
    with pytest.raises(RefusedError):
        read([refused("no", code)])


def test_a_last_row_that_is_repeated_for_ever_is_the_last() -> None:
    assert read([mapping(1), mapping(2), mapping(2), mapping(2)]) == ([1, 2], 3)


def test_rows_that_move_down_meanwhile_are_passed_over() -> None:
    rows: list[Row] = [mapping(1), mapping(2), mapping(1), mapping(3), refused("end", 713)]
    assert read(rows) == ([1, 2, 3], 5)


def test_a_table_that_begins_again_has_ended() -> None:
    assert read([mapping(number % 5 + 1) for number in range(100)])[0] == [1, 2, 3, 4, 5]


def test_blank_rows_are_gaps_until_there_are_too_many() -> None:
    gaps: list[Row] = [BLANK] * 30
    rows: list[Row] = [BLANK, mapping(1), *gaps, mapping(2), refused("end", 713)]
    assert read(rows)[0] == [1, 2]
    assert read([mapping(1), *gaps, *gaps]) == ([1], 34)


def test_an_http_error_ends_a_table_that_has_rows() -> None:
    broken = InvalidResponseError("no fault", status=500)
    assert read([mapping(1), broken]) == ([1], 2)
    with pytest.raises(InvalidResponseError):
        read([broken])


@pytest.mark.parametrize(
    "error", [InvalidResponseError("a page", status=200), InvalidResponseError("moved", status=404)], ids=str
)
def test_what_is_no_answer_at_all_is_an_error(error: IGDError) -> None:
    with pytest.raises(InvalidResponseError):
        read([mapping(1), error])


def test_a_lost_row_is_an_error() -> None:
    with pytest.raises(TransportError):
        read([mapping(1), TransportError("cut", may_have_arrived=True)])
