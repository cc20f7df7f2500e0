"""The list of mappings that an IGD:2 gives in one piece: a document in the reply (WANIPConnection:2 section 2.3.26).

It is read by the rules of every other document of a gateway; a row that tells of no mapping is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final

from lxml import etree

from ...errors import InvalidResponseError
from ...models import PortMapping
from . import xml
from .wan_ip_connection import read_generic_entry

__all__ = ["read_port_listing"]

_MAX_VALUES: Final = 32
"""Values looked at in one row; the standard has eight."""
_NAMES: Final = {"newdescription": "newportmappingdescription", "newleasetime": "newleaseduration"}
"""What the rows call otherwise than the arguments of the actions."""


def read_port_listing(values: Mapping[str, str]) -> tuple[PortMapping, ...]:
    """Return the mappings that GetListOfPortMappings tells of.

    Raises InvalidResponseError for what is no list, or only a part of one.
    """
    root = xml.parse(values.get("newportlisting", "").encode())
    listing = next(xml.iter_named(root, "portmappinglist"), None)
    if listing is None:
        raise InvalidResponseError("what should be a list of mappings is not")
    if not xml.is_finished(listing):
        raise InvalidResponseError("a list of mappings that was cut off")
    rows = (_row(element) for element in xml.iter_named(listing, "portmappingentry"))
    return tuple(row for row in rows if row is not None)


def _row(element: etree._Element) -> PortMapping | None:
    values: dict[str, str] = {}
    for value in islice(element, _MAX_VALUES):
        name = xml.local_name(value)
        values.setdefault(_NAMES.get(name, name), xml.text_of(value))
    try:
        return read_generic_entry(values)
    except InvalidResponseError:
        return None
