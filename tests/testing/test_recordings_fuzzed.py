"""Recordings that nobody would have thought of: generated, planted with secrets, and broken."""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioigd.net.trace import HttpExchange, tracer
from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.testing import RecordingError, ReplayedGateway, Search, record
from aioigd.testing.conversation import Conversation, read
from aioigd.testing.http import HttpRequest
from aioigd.testing.pcp_replay import MAX_REPLIES as MAX_PCP_REPLIES
from aioigd.testing.replay import MAX_REPLIES

from .secrets_in_messages import PLACES, SECRETS, WRITINGS, leaks_of
from .test_conversation import GOOD

SNIPPETS = (
    *(
        "<",
        ">",
        "</",
        "/>",
        "<a",
        "<serialNumber>",
        "<serialNumber ",
        "</serialNumber>",
        "<friendlyName>",
        "<!--",
        "-->",
    ),
    *(
        "<NewExternalPort>",
        "<NewInternalClient>",
        "&",
        "&amp;",
        "&#",
        "&#x",
        ";",
        "%",
        "%25",
        "//",
        "@",
        ":",
        "::",
        ".",
    ),
    *(
        "-",
        "_",
        "=",
        '"',
        "'",
        " ",
        "\r\n",
        "\n\n",
        "\0",
        "\x1b",
        "uuid:",
        "http://",
        "192.0.2.",
        "10.",
        "fe80::",
        "0x",
    ),
    *("a1b2", "00", "ff", "1", "12", "123456", "root", "Server: ", "Set-Cookie: ", "LOCATION: ", "ä", "安", "\u2028"),
    *("<modelName>", "</modelName>", "0\r\n", "5\r\n", "ssdp:all", "HTTP/1.1 200 OK\r\n", "serial-1", "ggg", "gggg"),
)
texts = st.lists(st.one_of(st.sampled_from(SNIPPETS), st.text(max_size=8)), max_size=40).map("".join)
contents = st.one_of(
    texts.map(str.encode),
    texts.map(lambda text: text.encode("utf-16")),
    texts.map(lambda text: text.encode("utf-16-le")),
    texts.map(lambda text: text.encode("latin-1", "replace")),
    st.binary(max_size=80),
)
headers = st.dictionaries(texts.map(lambda text: text[:60]), texts, max_size=4)
secrets = st.sampled_from(sorted(SECRETS))
planted = st.builds(
    lambda secret, writing, place: (secret, PLACES[place](WRITINGS[writing](SECRETS[secret]))),
    secrets,
    st.sampled_from(sorted(WRITINGS)),
    st.sampled_from(sorted(PLACES)),
)


def recording_of(messages: list[tuple[str, str, bytes]], path: Path) -> None:
    """Record messages as if they had come."""

    async def work() -> None:
        async with record(path, overwrite=True):
            receiver = tracer.get()
            assert receiver is not None
            for kind, name, content in messages:
                if kind == "datagram":
                    receiver.datagram("in", content, "44.17.83.9")
                else:
                    reply_headers = {name: content.decode("latin-1")} if kind == "header" else {}
                    body = content if kind == "content" else b""
                    url = "http://44.17.83.9:5000/annas/rootDesc.xml?sid=20713884519"
                    receiver.exchange(HttpExchange("POST", url, {}, body, 0, 0, 200, reply_headers, body))

    asyncio.run(work())


@pytest.mark.long
@given(
    st.lists(planted, min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from(["datagram", "content", "header"]), texts, contents), max_size=4),
)
def test_no_planted_secret_is_left_and_the_loader_reads_what_was_written(
    secret_ones: list[tuple[str, tuple[str, str, bytes]]], others: list[tuple[str, str, bytes]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "router.json"
        recording_of([*others, *(message for _, message in secret_ones), *others], path)
        conversation = Conversation.load(path)
        ReplayedGateway(path)
    said = [read(event.payload) for event in conversation.datagrams]
    for event in conversation.exchanges:
        said += [
            read(event.reply),
            read(event.body),
            event.url.encode(),
            json.dumps(dict(event.reply_headers)).encode(),
        ]
    for secret, _ in secret_ones:
        assert leaks_of(SECRETS[secret], b"\n".join(said)) == []
    assert b"44.17.83.9" not in b"\n".join(said)


@pytest.mark.long
@given(st.lists(st.tuples(st.sampled_from(["datagram", "content"]), st.just(""), contents), min_size=1, max_size=5))
def test_what_is_replaced_again_stays(messages: list[tuple[str, str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "router.json"
        recording_of(messages, path)
        once = Conversation.load(path)
        again = [("datagram", "", read(event.payload)) for event in once.datagrams]
        again += [("content", "", read(event.reply)) for event in once.exchanges]
        recording_of(again, path)
        twice = Conversation.load(path)
    assert [event.payload for event in twice.datagrams] == [event.payload for event in once.datagrams]
    assert [event.reply for event in twice.exchanges] == [event.reply for event in once.exchanges]


HERE = ip_address("127.0.0.1")
PCP_REQUESTS = (
    nat_pmp.build_request(nat_pmp.AddressRequest()),
    nat_pmp.build_request(nat_pmp.MapRequest("TCP", 80, 8080, 60)),
    pcp.build_request(pcp.Request(pcp.Opcode.ANNOUNCE, HERE)),
    pcp.build_request(pcp.Request(pcp.Opcode.MAP, HERE, 60, pcp.MapData(bytes(12), 6, 80, 8080, HERE))),
    b"",
    b"\x02\x81",
)


values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(
            ["base64:", "base64:////", "\ud800", "http://a:1/", "http://[::1]:1/", "in", "out", "GET", 10**30]
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


def places_in(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(place for step, inner in steps for place in places_in(inner, (*path, step)))][
        1 if not path else 0 :
    ]


PLACES_IN_FILE = places_in(GOOD)


@st.composite
def broken_files(draw: st.DrawFn) -> bytes:
    """A recording in which some values are others, some bytes are gone, and some are there twice."""
    content = json.loads(json.dumps(GOOD))
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from(PLACES_IN_FILE))
        with suppress(KeyError, IndexError, TypeError):
            place = content
            for step in way:
                place = place[step]
            place[last] = draw(values)
    text = json.dumps(content).encode("utf-8", "surrogatepass")
    if draw(st.booleans()):
        start = draw(st.integers(0, len(text)))
        text = text[:start] + draw(st.binary(max_size=6)) + text[start + draw(st.integers(0, 6)) :]
    return text


async def use(gateway: ReplayedGateway) -> None:
    """Ask what there is to be asked, without a network: the answers have to be bytes, and few."""
    gateway._address = "127.0.0.1"
    for target in ("ssdp:all", "", "upnp:rootdevice"):
        answers = list(gateway._hear(Search(target, 1, ("127.0.0.1", 1900), unicast=True, raw=b""))())
        assert len(answers) <= MAX_REPLIES
        assert all(0 <= answer.delay <= 10 for answer in answers)
    for asked in PCP_REQUESTS:
        datagrams = list(gateway._hear_pcp(asked, ("127.0.0.1", 5350))())
        assert len(datagrams) <= MAX_PCP_REPLIES
        assert all(0 <= each.delay <= 10 and len(each.payload) < 1200 for each in datagrams)
    for origin in gateway._replies:
        for event in gateway._conversation.exchanges:
            target = "/" + event.url.partition("//")[2].partition("/")[2]
            request = HttpRequest(event.method, target, "HTTP/1.1", tuple(event.headers.items()), b"<a>1</a>", b"")
            transmission = gateway._receive(origin, request)()
            sent = b"".join(step for step in transmission.steps if isinstance(step, bytes))
            names = [line.partition(b":")[0].lower() for line in sent.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
            known = {name.lower().encode() for each in gateway._conversation.exchanges for name in each.reply_headers}
            assert set(names) <= known | {b"content-length", b"connection"}
            assert len(sent) < 4096


@pytest.mark.long
@given(broken_files())
def test_a_broken_file_is_read_or_is_the_one_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "router.json"
        path.write_bytes(content)
        try:
            gateway = ReplayedGateway(path)
        except RecordingError as error:
            problem = str(error)
        else:
            problem = ""
            asyncio.run(use(gateway))
    assert problem.isprintable()
