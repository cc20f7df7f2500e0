"""What the rows of a gateway's table mean, one after another, and where the table ends: a pure rule, no I/O.

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
"""

from __future__ import annotations

from typing import Final

from ..errors import IGDError, InvalidResponseError, RefusedError
from ..models import MappingKey, PortMapping

__all__ = ["Row", "Table"]

_NO_TABLE: Final = frozenset({401, 602, 606})
_MOST_BLANKS: Final = 32
"""Blank rows one after another that may be gaps; after more of them nothing will come."""
_MOST_KNOWN: Final = 4
"""Rows one after another that were seen before: a row or two move down where a mapping is made meanwhile."""
_GONE: Final = frozenset({404, 405, 410})

Row = PortMapping | IGDError
"""What came back for one row."""


class Table:
    """Reads a table; feed it row after row, from the first one on, until it has :attr:`ended`."""

    def __init__(self) -> None:
        self.ended = False
        self._seen: set[MappingKey] = set()
        self._last: MappingKey | None = None
        self._known = 0
        self._blanks = 0

    def read(self, row: Row) -> PortMapping | None:
        """Return the mapping in the next row, None where it has no new one; raise where no row can be read at all."""
        if isinstance(row, IGDError):
            self._take_failure(row)
            return None
        self._blanks = 0
        if row.key not in self._seen:
            self._seen.add(row.key)
            self._last = row.key
            self._known = 0
            return row
        self._known += 1
        self.ended = row.key == self._last or self._known >= _MOST_KNOWN
        self._last = row.key
        return None

    def _take_failure(self, row: IGDError) -> None:
        has_rows = bool(self._seen)
        if isinstance(row, InvalidResponseError) and row.status is None:
            self._blanks += 1
            self.ended = self._blanks > _MOST_BLANKS
            return
        if isinstance(row, RefusedError):
            self.ended = has_rows or row.error_code not in _NO_TABLE
        elif isinstance(row, InvalidResponseError) and row.status is not None:
            self.ended = has_rows and row.status >= 400 and row.status not in _GONE
        if not self.ended:
            raise row
