"""Whatever arrives, nothing but an IGDError comes of it, it costs little, and both readers of HTTP agree on it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from aioigd import IGDError
from aioigd.testing import loopback_address
from aioigd.testing.http import End, Transmission
from aioigd.upnp.net.http import HttpClient
from aioigd.upnp.net.lenient_http import ask
from aioigd.upnp.wire import gena, soap, xml
from aioigd.upnp.wire.http_reply import HttpReply, ReplyReader, parse_http_reply

from ..upnp.net.server import Server
from .cost import MOST_LOOPS, in_loops
from .parsers import PARSERS, WORST
from .test_parsers import NOISE

MANY = settings(
    max_examples=1_500,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.target],
)

NAMES = st.sampled_from(
    [
        *("root", "device", "service", "serviceType", "controlURL", "URLBase", "Fault", "errorCode", "NewPortListing"),
        *("PortMappingList", "PortMappingEntry", "NewExternalPort", "NewProtocol", "NewInternalClient", "property"),
        *("a:b", "x"),
    ]
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["&#0;", "&#32;", "&#x110000;", "&amp;", "&AMP;", "&nbsp;", "]]>", "<!--", "<![CDATA[", "<?x", "<!"]
    ),
    st.sampled_from([" \t\n", "http://192.0.2.9:99999/../x", "urn:schemas-upnp-org:service:WANIPConnection:1", "725"]),
    st.integers(0, 99_999).map(str),
)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """A document of elements that mostly match, with what is allowed in texts and what is not."""

    def element(depth: int) -> str:
        name = draw(NAMES)
        inner = draw(TEXTS)
        if depth:
            inner += "".join(element(depth - 1) for _ in range(draw(st.integers(0, 3))))
        end = draw(st.sampled_from([f"</{name}>", f"</{name}>", f"</{name}>", "</x>", "", f"</{name}"]))
        return f"<{name}{draw(st.sampled_from(['', '', ' a=b', '/', chr(10)]))}>{inner}{end}"

    text = draw(st.sampled_from(["", '<?xml version="1.0"?>', "\r\n", '<?xml encoding="gbk"?>'])) + element(3)
    codec = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "latin-1"]))
    return text.encode(codec, "replace") * draw(st.sampled_from([1, 1, 1, 50]))


@pytest.mark.long
@MANY
@given(st.one_of(documents(), st.binary(max_size=2000)))
def test_no_parser_raises_anything_else_for_generated_documents(document: bytes) -> None:
    for parser in PARSERS.values():
        with suppress(IGDError):
            parser(document)


@pytest.mark.long
@settings(MANY, max_examples=8)
@given(st.data())
def test_no_generated_document_of_full_size_costs_more(data: st.DataObject) -> None:
    """A unit that is generated, as often as it fits, in what a parser begins with."""
    unit = data.draw(st.one_of(documents().map(lambda one: one[:200]), st.binary(min_size=1, max_size=40)))
    size = xml.MAX_DOCUMENT - 200
    most = min(size // len(unit), (xml.MAX_MARKUP - 50) // max(1, unit.count(b"<") + unit.count(b"&")))
    for head in (b"<root>", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"):
        document = head + unit * most
        for parser in PARSERS.values():
            assert in_loops(lambda: parser(document), rounds=2) < NOISE * MOST_LOOPS  # noqa: B023 - called at once


TOKENS = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,15}", fullmatch=True)
VALUES = st.from_regex(r"[!-~]{1,10}( [!-~]{1,10})?", fullmatch=True)
FRAMING = frozenset(
    {"content-length", "transfer-encoding", "content-encoding", "connection", "upgrade", "trailer", "te", "expect"}
)
BODIES = st.one_of(st.just(b""), st.binary(max_size=300).map(lambda inner: b"<a>" + inner.hex().encode() + b"</a>"))


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """A reply that keeps to HTTP/1.1, in one of the many ways to do so."""
    status = draw(st.sampled_from([200, 200, 404, 412, 500]))
    body = draw(BODIES)
    head = [f"HTTP/1.1 {status}{draw(st.sampled_from([' OK', ' ', ' Internal Server Error']))}".encode()]
    for name, value in draw(st.dictionaries(TOKENS.filter(lambda name: name.lower() not in FRAMING), VALUES)).items():
        head.append(f"{name}:{draw(st.sampled_from(['', ' ', '  ']))}{value}".encode())
    framing = draw(st.sampled_from(["length", "close", "chunked"]))
    if framing == "length":
        head.append(b"Content-Length: %d" % len(body))
    if framing == "chunked":
        head.append(b"Transfer-Encoding: chunked")
        pieces = []
        while body:
            size = draw(st.integers(1, len(body)))
            extension = draw(st.sampled_from([b"", b";a=b"]))
            pieces.append(b"%x%s\r\n%s\r\n" % (size, extension, body[:size]))
            body = body[size:]
        body = b"".join(pieces) + b"0\r\n\r\n"
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" * draw(st.sampled_from([0, 0, 0, 1, 3]))
    return interim + b"\r\n".join([*head, b"", b""]) + body


def fed(pieces: list[bytes]) -> HttpReply | str:
    """Return what a reader makes of a reply that comes in pieces, or how it failed."""
    reader = ReplyReader()
    try:
        for piece in pieces:
            reader.feed(piece)
        return reader.finish()
    except IGDError as error:
        return str(error)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A reply in which some bytes were replaced, left out or doubled."""
    reply = bytearray(draw(replies()))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, max(0, len(reply) - 1)))
        reply[place : place + draw(st.integers(0, 3))] = draw(
            st.sampled_from([b"", b"\r", b"\n", b" ", b"\0", b":", b"0"])
        )
    return bytes(reply)


@settings(deadline=None)
@example(b"HTTP/1.1 200 OK\r\n\r\n3\r\n<a>\r\n4\r\n</a>\r\n0\r\n\r\n", list(range(60)))
@given(st.one_of(replies(), broken(), st.binary(max_size=300)), st.lists(st.integers(0, 400), max_size=8))
def test_it_does_not_matter_in_which_pieces_a_reply_comes(received: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(received)) for cut in cuts), len(received)]
    pieces = [received[one:other] for one, other in itertools.pairwise(places)]
    assert fed(pieces) == fed([received])


@pytest.mark.long
@MANY
@given(st.one_of(replies(), broken(), st.binary(max_size=500)))
def test_no_bytes_of_a_reply_raise_anything_else(received: bytes) -> None:
    assert fed([received]) == fed([bytes([byte]) for byte in received])
    with suppress(IGDError):
        gena.read_grant(parse_http_reply(received).headers)
    with suppress(IGDError):
        gena.parse_head(received)


@pytest.fixture(scope="module")
def both() -> Iterator[Any]:
    """Return a function that has a reply read by aiohttp and by the lenient reader, over sockets."""
    with loopback_address() as address, asyncio.Runner() as runner:
        server = Server(address)
        http = HttpClient()
        runner.run(server.__aenter__())

        async def read(received: bytes) -> tuple[HttpReply | None, HttpReply | str]:
            server._replies = [Transmission([received], End.CLOSE)]
            strict: HttpReply | None = None
            with suppress(IGDError):
                deadline = asyncio.get_running_loop().time() + 5.0
                strict = await http.request("GET", server.url, deadline=deadline, repeatable=False)
            http._lenient.clear()
            try:
                return strict, await ask("GET", server.url, address, {}, None)
            except IGDError as error:
                return strict, str(error)

        yield lambda received: runner.run(read(received))
        runner.run(http.close())
        runner.run(server.__aexit__())


def check_agreement(both: Any, received: bytes) -> None:
    strict, lenient = both(received)
    assert strict is not None
    assert strict.status
    assert not isinstance(lenient, str)
    assert (lenient.status, lenient.body) == (strict.status, strict.body)
    assert {name.lower(): value for name, value in lenient.headers.items()} == {
        name.lower(): value.strip() for name, value in reversed(list(strict.headers.items()))
    }


@settings(deadline=None, max_examples=25)
@given(received=replies())
def test_both_readers_agree_where_both_read(both: Any, received: bytes) -> None:
    check_agreement(both, received)


@pytest.mark.long
@MANY
@given(received=replies())
def test_both_readers_agree_on_many_replies(both: Any, received: bytes) -> None:
    check_agreement(both, received)


@pytest.mark.long
@MANY
@given(received=broken())
def test_a_broken_reply_is_read_the_same_by_both_or_not_at_all(both: Any, received: bytes) -> None:
    """Where the document is whole, its end counts, whatever the head says."""
    strict, lenient = both(received)
    if strict is not None and strict.status and xml.has_root_end_tag(strict.body) and not isinstance(lenient, str):
        assert lenient.status == strict.status
        assert soap.parse_reply(lenient.body, "GetX") == soap.parse_reply(strict.body, "GetX")


def test_the_worst_is_what_it_says() -> None:
    assert {parser for parser, _ in WORST} <= PARSERS.keys()
    assert max(map(len, WORST.values())) > xml.MAX_DOCUMENT
