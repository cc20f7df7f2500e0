"""GENA: subscriptions and event messages."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioigd import InvalidResponseError
from aioigd.upnp.wire import gena

HEAD = (
    b"NOTIFY /path HTTP/1.1\r\nHOST: 127.0.0.1:5000\r\nContent-Length: 12\r\nNT: upnp:event\r\n"
    b"NTS: upnp:propchange\r\nSID: uuid:1\r\nSEQ: 0\r\n\r\n"
)


def test_the_head_of_an_event_is_read() -> None:
    assert gena.parse_head(HEAD) == gena.EventHead("/path", "uuid:1", 12, seq=0)


@pytest.mark.parametrize(
    ("said", "seq"),
    [(b"0", 0), (b"4294967295", 2**32 - 1), (b"", None), (b"-1", None), (b"x", None), (b"9" * 11, None)],
)
def test_a_seq_is_a_number_or_none(said: bytes, seq: int | None) -> None:
    assert gena.parse_head(HEAD.replace(b"SEQ: 0", b"SEQ: " + said)).seq == seq


@pytest.mark.parametrize(("seq", "after"), [(0, 1), (1, 2), (2**32 - 2, 2**32 - 1), (2**32 - 1, 1)])
def test_a_seq_wraps_to_1(seq: int, after: int) -> None:
    assert gena.next_seq(seq) == after


@pytest.mark.parametrize(
    "head",
    [
        b"",
        HEAD.replace(b"NOTIFY", b"POST"),
        HEAD.replace(b"upnp:event", b"upnp:rootdevice"),
        HEAD.replace(b"upnp:propchange", b"ssdp:alive"),
        HEAD.replace(b": 12", b": -1"),
        HEAD.replace(b": 12", b": 99999999"),
        HEAD.replace(b"Content-Length", b"X"),
    ],
)
def test_anything_else_is_none(head: bytes) -> None:
    with pytest.raises(InvalidResponseError):
        gena.parse_head(head)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(junk: bytes) -> None:
    for parse in (gena.parse_head, gena.parse_event):
        for document in (junk, HEAD + junk):
            with contextlib.suppress(InvalidResponseError):
                parse(document)


def test_the_values_of_an_event_are_read() -> None:
    body = (
        b'<e:propertyset xmlns:e="urn:schemas-upnp-org:event-1-0"><e:property><ExternalIPAddress> 1.2.3.4 '
        b"</ExternalIPAddress></e:property><e:property><Uptime>1</Uptime></e:property></e:propertyset>"
    )
    assert gena.parse_event(body) == {"externalipaddress": "1.2.3.4", "uptime": "1"}


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("Second-1800", 1800), ("second-300", 300), ("Second-infinite", 1800), ("", 1800), ("Second-1", 60)],
)
def test_a_grant_is_read(timeout: str, seconds: float) -> None:
    assert gena.read_grant({"Sid": " uuid:1 ", "TIMEOUT": timeout}) == ("uuid:1", seconds)


@pytest.mark.parametrize("sid", ["", "a b", "x" * 200])
def test_a_grant_without_an_identifier_is_none(sid: str) -> None:
    with pytest.raises(InvalidResponseError):
        gena.read_grant({"SID": sid})
