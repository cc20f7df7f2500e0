"""A reply is taken apart as far as it makes sense, whatever its head says."""

from __future__ import annotations

import pytest

from aioigd.errors import InvalidResponseError, TransportError
from aioigd.upnp.wire.http_reply import MAX_HEAD, HttpReply, dechunked, parse_http_reply
from aioigd.upnp.wire.xml import MAX_DOCUMENT


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b"", b""),
        (b"<a/>", b"<a/>"),
        (b"4\r\n<a/>\r\n0\r\n\r\n", b"<a/>"),
        (b"2\r\n<a\r\n2;ext=1\r\n/>\r\n0\r\n\r\n", b"<a/>"),
        (b"4\n<a/>\n0\n\n", b"<a/>"),
        (b"4\r\n<a/>", b"<a/>"),
        (b"ff\r\n<a/>", b"<a/>"),
        (b"0\r\n\r\n", b""),
    ],
)
def test_chunks_are_joined_as_far_as_they_make_sense(document: bytes, expected: bytes) -> None:
    assert dechunked(document) == expected


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n<a/>", HttpReply(200, b"<a/>")),
        (b"\nHTTP/1.1 500\n\n<a/>", HttpReply(500, b"<a/>")),
        (b"HTTP/1.0 200 OK\r\n\r\n4\r\n<a/>\r\n0\r\n\r\n", HttpReply(200, b"<a/>")),
        (b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n", HttpReply(404, b"")),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n<a/>", HttpReply(200, b"<a/>")),
        (b"HTTP/1.0 200 OK\r\nhalf a he", HttpReply(200, b"")),
        (b"<a/>", HttpReply(0, b"<a/>")),
        (b"4\r\n<a/>", HttpReply(0, b"4\r\n<a/>")),
        (b"", HttpReply(0, b"")),
    ],
)
def test_a_reply_is_read_as_far_as_it_goes(received: bytes, expected: HttpReply) -> None:
    assert parse_http_reply(received)[:2] == expected[:2]


def test_a_body_that_is_promised_and_missing_is_a_cut_connection() -> None:
    with pytest.raises(TransportError) as caught:
        parse_http_reply(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
    assert caught.value.may_have_arrived


@pytest.mark.parametrize(
    "received",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n<a/>",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b",
    ],
    ids=["a head that is too long", "an encoding"],
)
def test_a_head_that_breaks_a_rule_is_an_error(received: bytes) -> None:
    with pytest.raises(InvalidResponseError):
        parse_http_reply(received)


def test_a_long_body_is_cut_at_the_cap() -> None:
    assert parse_http_reply(b"HTTP/1.1 200 OK\r\n\r\n" + b"<" * (MAX_DOCUMENT + 1)).body == b"<" * MAX_DOCUMENT


@pytest.mark.parametrize("body", [b"<a/>", b" <a/>", b"no document", b"4\r\n<a/>\r\n0\r\n\r\n"])
def test_the_look_at_the_first_byte_changes_no_body(body: bytes) -> None:
    assert parse_http_reply(b"HTTP/1.1 200 OK\r\n\r\n" + body).body == dechunked(body)
