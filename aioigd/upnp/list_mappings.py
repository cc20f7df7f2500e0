"""What a gateway holds: one mapping, or all of them page by page, by whatever way the gateway has.

An IGD:2 gives a list of its mappings for each protocol; where it does not, or says that there are none, its table is
read row by row, some rows at a time. What the rows mean, and where the table ends, is a pure rule
(:class:`MappingTable`):

==============================================  ============================================================
the gateway answers for a row                   what it means
==============================================  ============================================================
713, 714, 402, 501, any other code              the table has ended
401, 602, 606 or no fault, in the first row     it has no table to show: raised as it is
the same, further down; HTTP 400 and up         the table has ended
a mapping that the row before was               the table has ended, and its last row is repeated for ever
a mapping from before that                      passed over; after a few of them the table has ended
a blank row                                     a gap; after many of them the table has ended
==============================================  ============================================================

For one mapping rows are only read where the gateway cannot be asked for it, as a last resort with a budget: MAX_ROWS
requests and MAX_ROW_SECONDS of a call. What was not found by then is not known to be there, nor to be missing; and a
table that was too long is not read again for one mapping within TABLE_REST.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, get_args

from async_timeout import timeout

from ..core.calls import Operation
from ..errors import GONE_STATUSES, IGDError, InvalidResponseError, RefusedError, is_denied
from ..models import MappingKey, PortMapping, Proto
from .soap_client import SoapClient
from .wire import wan_ip_connection
from .wire.error_codes import UPnPErrorCode
from .wire.wan_ip_connection import read_port_listing

__all__ = ["ListCursor", "MappingTable", "Row", "find_mapping", "iter_mappings", "list_page"]

MAX_LISTED: Final = 4096
"""Mappings listed at most; home routers have room for 32 to 128, and a list need not have an end."""
MAX_ROWS: Final = 64
"""Rows that a call reads at most where the gateway cannot be asked for one mapping. Most tables have fewer."""
MAX_ROW_SECONDS: Final = 1.0
"""Seconds of a call for reading such rows. Routers of good health need some 10 ms for each."""
TABLE_REST: Final = 1200.0
"""Seconds for which a table that was too long, or too slow, is not read again for one mapping."""
_ROWS_AT_ONCE: Final = 4
"""Rows that are read together: as many as a gateway that is not known yet gets requests at once."""
_MAX_BLANK_ROWS: Final = 32
"""Blank rows one after another that may be gaps; after more of them nothing will come."""
_MAX_KNOWN_ROWS: Final = 4
"""Rows one after another that were read before: a row or two move down where a mapping is made meanwhile."""
_NO_TABLE: Final = frozenset(
    {
        UPnPErrorCode.INVALID_ACTION,
        UPnPErrorCode.OPTIONAL_ACTION_NOT_IMPLEMENTED,
        UPnPErrorCode.ACTION_NOT_AUTHORIZED,
    }
)

Row = PortMapping | IGDError
"""What came back for one row."""


class MappingTable:
    """Reads a table: fed row after row, from the first one on, until it has :attr:`ended`."""

    def __init__(self) -> None:
        self.ended = False
        self._seen: set[MappingKey] = set()
        self._last: MappingKey | None = None
        self._known_rows = 0
        self._blank_rows = 0

    def read(self, row: Row) -> PortMapping | None:
        """Return the mapping in the next row, None where it has no new one; raise where no row can be read at all."""
        if isinstance(row, IGDError):
            self._read_failure(row)
            return None
        self._blank_rows = 0
        if row.key not in self._seen:
            self._seen.add(row.key)
            self._last = row.key
            self._known_rows = 0
            return row
        self._known_rows += 1
        self.ended = row.key == self._last or self._known_rows >= _MAX_KNOWN_ROWS
        self._last = row.key
        return None

    def _read_failure(self, row: IGDError) -> None:
        has_rows = bool(self._seen)
        if isinstance(row, InvalidResponseError) and row.status is None:
            self._blank_rows += 1
            self.ended = self._blank_rows > _MAX_BLANK_ROWS
            return
        if isinstance(row, RefusedError):
            self.ended = has_rows or (row.error_code not in _NO_TABLE and not is_denied(row))
        elif isinstance(row, InvalidResponseError) and row.status is not None:
            self.ended = has_rows and row.status >= 400 and row.status not in GONE_STATUSES
        if not self.ended:
            raise row


class ListCursor:
    """How far a list has been read."""

    def __init__(self) -> None:
        self.seen: set[MappingKey] = set()
        self.protos: list[Proto] = list(get_args(Proto))
        """Protocols whose lists were not asked for yet; then comes the table."""
        self.table = MappingTable()
        self.next_row = 0
        self.rows_at_once = 1
        """The first row alone: most tables are short."""
        self.failure: IGDError | None = None
        """What to raise behind the mappings that came before it."""


async def find_mapping(client: SoapClient, key: MappingKey, op: Operation) -> PortMapping | None:
    """Return the mapping that the gateway holds for a key, None where it says that there is none.

    Of routers that cannot answer for one mapping some rows of the table are read. Raises RefusedError or
    InvalidResponseError where the gateway cannot be made to tell.
    """
    try:
        values = await client.call(wan_ip_connection.get_specific_entry(key), op)
        return wan_ip_connection.read_entry(key, values, lenient=True)
    except RefusedError as error:
        if UPnPErrorCode.is_end_of_list(error.error_code):
            return None
        if is_denied(error):
            raise
    except InvalidResponseError:
        pass  # a blank entry is how some say "none"; the table tells
    return await _find_in_table(client, key.normalised(), op)


async def _find_in_table(client: SoapClient, key: MappingKey, op: Operation) -> PortMapping | None:
    """Read rows as far as the budget of the call goes, and return the mapping of a key, None where there is none."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    table = MappingTable()
    left = MAX_ROWS - sum(attempt.action == wan_ip_connection.GET_GENERIC_ENTRY for attempt in op.attempts)
    if began < client.state.table_rests_until or left <= 0:
        raise InvalidResponseError("the gateway cannot be asked for one mapping, and its table is long")
    try:
        async with timeout(max(0.0, MAX_ROW_SECONDS - op.seconds_on_rows)):
            for index in range(left):
                mapping = table.read(await _read_row(client, index, op))
                if table.ended:
                    return None
                if mapping is not None and mapping.key.normalised() == key:
                    return mapping
    except TimeoutError as error:
        if isinstance(error, IGDError):
            raise
    finally:
        op.seconds_on_rows += loop.time() - began
    client.state.table_rests_until = loop.time() + TABLE_REST
    raise InvalidResponseError(
        f"the gateway lists more than {MAX_ROWS} mappings, or takes over {MAX_ROW_SECONDS:.0f} s for them"
    )


async def list_page(
    client: SoapClient, op: Operation, cursor: ListCursor | None
) -> tuple[Sequence[PortMapping], ListCursor | None]:
    """Return the next mappings, each of them once, and the cursor for those behind them, None where there are none.

    Raises InvalidResponseError for a list that has more than MAX_LISTED.
    """
    if cursor is None:
        cursor = ListCursor()
    if cursor.failure is not None:
        raise cursor.failure
    if cursor.protos:
        found = await _read_list(client, cursor.protos[0], op)
        if found is None:
            cursor.protos.clear()  # it has no lists
            return (), cursor
        del cursor.protos[0]
        page = _unseen(found, cursor)
        # "None" is said by some that have the action, but nothing behind it.
        is_last = not cursor.protos and bool(cursor.seen) and cursor.failure is None
        return page, None if is_last else cursor
    rows = range(cursor.next_row, cursor.next_row + cursor.rows_at_once)
    if rows.start >= 2 * MAX_LISTED:
        raise _too_many()
    mappings: list[PortMapping] = []
    for row in await _read_rows(client, rows, op):
        try:
            mapping = cursor.table.read(row)
        except IGDError as error:
            if not mappings:
                raise
            cursor.failure = error.with_attempts(tuple(op.attempts))
            break
        if cursor.table.ended:
            page = _unseen(mappings, cursor)
            return page, None if cursor.failure is None else cursor
        if mapping is not None:
            mappings.append(mapping)
    cursor.next_row, cursor.rows_at_once = rows.stop, _ROWS_AT_ONCE
    return _unseen(mappings, cursor), cursor


async def iter_mappings(client: SoapClient, op: Operation) -> AsyncIterator[PortMapping]:
    """Yield all mappings of a gateway, as parts of one call."""
    cursor: ListCursor | None = None
    while True:
        page, cursor = await list_page(client, op, cursor)
        for mapping in page:
            yield mapping
        if cursor is None:
            return


def _unseen(mappings: Sequence[PortMapping], cursor: ListCursor) -> list[PortMapping]:
    new = []
    for mapping in mappings:
        if len(cursor.seen) == MAX_LISTED and mapping.key not in cursor.seen:
            cursor.failure = _too_many()
            break
        if mapping.key not in cursor.seen:
            cursor.seen.add(mapping.key)
            new.append(mapping)
    return new


async def _read_list(client: SoapClient, proto: Proto, op: Operation) -> Sequence[PortMapping] | None:
    """Return the list of an IGD:2, None where it gives none (606 included: the table may tell more)."""
    if client.service_version < 2:
        return None
    try:
        return read_port_listing(await client.call(wan_ip_connection.get_list(proto), op))
    except RefusedError as error:
        return () if UPnPErrorCode.is_end_of_list(error.error_code) else None
    except InvalidResponseError:
        return None


async def _read_row(client: SoapClient, index: int, op: Operation) -> Row:
    """Return what the gateway says of one row of its table; a refusal and a blank row are results, too."""
    try:
        return wan_ip_connection.read_generic_entry(await client.call(wan_ip_connection.get_generic_entry(index), op))
    except (RefusedError, InvalidResponseError) as error:
        return error


async def _read_rows(client: SoapClient, rows: range, op: Operation) -> list[Row]:
    """Return what comes back for some rows, failures included: those behind the end of the table do not count."""
    found: list[Row] = []
    outcomes = await asyncio.gather(*(_read_row(client, index, op) for index in rows), return_exceptions=True)
    for outcome in outcomes:
        if not isinstance(outcome, (PortMapping, IGDError)):
            raise outcome
        found.append(outcome)
    return found


def _too_many() -> InvalidResponseError:
    return InvalidResponseError(f"the gateway lists more than {MAX_LISTED} mappings")
