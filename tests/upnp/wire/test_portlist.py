"""The list in one piece is read as forgivingly as every other document; half a list is no list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioigd.errors import InvalidResponseError
from aioigd.models import PortMapping
from aioigd.upnp.wire.portlist import read_port_listing
from aioigd.upnp.wire.soap import Answer, parse_reply

ROW = (
    "<p:PortMappingEntry><p:NewRemoteHost></p:NewRemoteHost><p:NewExternalPort>8080</p:NewExternalPort>"
    "<p:NewProtocol>TCP</p:NewProtocol><p:NewInternalPort>80</p:NewInternalPort>"
    "<p:NewInternalClient>192.0.2.5</p:NewInternalClient><p:NewEnabled>1</p:NewEnabled>"
    "<p:NewDescription>a &amp; b</p:NewDescription><p:NewLeaseTime>600</p:NewLeaseTime></p:PortMappingEntry>"
)
MAPPING = PortMapping(8080, 80, "192.0.2.5", "TCP", "a & b", 600)


def listing(rows: str) -> str:
    return f'<p:PortMappingList xmlns:p="urn:schemas-upnp-org:gw:WANIPConnection">{rows}</p:PortMappingList>'


def read(text: str) -> tuple[PortMapping, ...]:
    return read_port_listing({"newportlisting": text})


def test_rows_are_mappings() -> None:
    assert read(listing(ROW * 2)) == (MAPPING, MAPPING)
    assert read(listing("")) == ()


@pytest.mark.parametrize("escaped", [False, True], ids=["CDATA", "escaped"])
def test_it_comes_in_the_reply_as_text(escaped: bool) -> None:
    inner = listing(ROW)
    text = inner.replace("&", "&amp;").replace("<", "&lt;") if escaped else f"<![CDATA[{inner}]]>"
    reply = parse_reply(
        f"<Envelope><Body><GetListOfPortMappingsResponse><NewPortListing>{text}</NewPortListing>"
        "</GetListOfPortMappingsResponse></Body></Envelope>".encode(),
        "GetListOfPortMappings",
    )
    assert isinstance(reply, Answer)
    assert read_port_listing(reply.values) == (MAPPING,)


def test_a_row_may_use_the_names_of_the_arguments() -> None:
    row = ROW.replace("NewDescription", "NewPortMappingDescription").replace("NewLeaseTime", "NewLeaseDuration")
    assert read(listing(row)) == (MAPPING,)


def test_a_mapping_may_be_switched_off() -> None:
    (mapping,) = read(listing(ROW.replace("Enabled>1<", "Enabled>0<")))
    assert not mapping.enabled


def test_rows_that_tell_of_no_mapping_are_passed_over() -> None:
    blank = "<p:PortMappingEntry></p:PortMappingEntry>"
    assert read(listing(blank + ROW + ROW.replace("8080", "no port"))) == (MAPPING,)


@pytest.mark.parametrize(
    "text", ["", "none", "<html/>", listing(ROW)[:-20], '<!DOCTYPE x [<!ENTITY a "b">]>' + listing(ROW)]
)
def test_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(InvalidResponseError):
        read(text)


@given(st.text(alphabet="<>/p:NewPortMappingListEntry&;[]!0123", max_size=300))
def test_any_text_is_a_list_or_an_error(text: str) -> None:
    for attempt in (text, listing(text)):
        try:
            read(attempt)
        except InvalidResponseError:
            continue
