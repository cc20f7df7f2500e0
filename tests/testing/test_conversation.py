"""A recording from anybody is read within bounds, or refused by an error that says what is wrong, and where."""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioigd.testing import RecordingError, ReplayedGateway
from aioigd.testing.conversation import MAX_EVENTS, MAX_HEADERS, Conversation

DATAGRAM = {"kind": "datagram", "time": 0.1, "direction": "out", "peer": "239.255.255.250", "payload": "M-SEARCH"}
REQUEST = {
    "kind": "http",
    "time": 0.2,
    "seconds": 0.01,
    "method": "GET",
    "url": "http://192.0.2.1:5000/rootDesc.xml",
    "headers": {"Host": "192.0.2.1:5000"},
    "body": "",
    "status": 200,
    "reply_headers": {"Content-Type": "text/xml"},
    "reply": "base64:/w==",
    "failure": "",
}
PCP = {
    "kind": "pcp",
    "time": 0.3,
    "direction": "in",
    "peer": "192.0.2.1",
    "payload": "00800000 00000007 c6336401",
    "says": "NAT-PMP reply: external address 198.51.100.1; epoch 7",
    "failure": "",
}
GOOD: Any = {"format": 1, "about": {"aioigd": "0.1.0"}, "events": [DATAGRAM, REQUEST, PCP]}


def changed(*path: str | int, to: Any) -> Any:
    content = copy.deepcopy(GOOD)
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return content


def without(*path: str | int) -> Any:
    content = copy.deepcopy(GOOD)
    place = content
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    return content


def load(tmp_path: Path, content: Any) -> Conversation:
    path = tmp_path / "router.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return Conversation.load(path)


def test_what_is_right_is_read(tmp_path: Path) -> None:
    conversation = load(tmp_path, GOOD)
    assert [event.payload for event in conversation.datagrams] == ["M-SEARCH"]
    assert [event.url for event in conversation.exchanges] == [REQUEST["url"]]
    assert [event.datagram for event in conversation.pcp_datagrams] == [
        b"\x00\x80" + bytes(5) + b"\x07\xc6\x33\x64\x01"
    ]
    assert load(tmp_path, b"\xef\xbb\xbf" + json.dumps(GOOD).encode()) == conversation  # as an editor may leave it
    conversation.save(tmp_path / "again.json")
    assert Conversation.load(tmp_path / "again.json") == conversation


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "the document: .* is not an object"),
        (changed("format", to=2), "format 2; 1 is what"),
        (changed("format", to=True), "format True"),
        (changed("format", to="1"), "format '1'"),
        (without("about"), "the document: there is no 'about'"),
        (changed("about", to=[]), "about: .* is not an object"),
        (changed("about", "aioigd", to=1), "about.*: 1 is not a string"),
        (changed("more", to=1), "the document: nothing is known of 'more'"),
        (changed("events", to={}), "events: .* is not a list"),
        (changed("events", to=[DATAGRAM] * (MAX_EVENTS + 1)), "events: 10001 of them; 10000 are the most"),
        (changed("events", 1, to=3), r"events\[1\]: 3 is not an object with a kind"),
        (changed("events", 1, "kind", to="tcp"), r"events\[1\]\.kind: 'tcp' is not"),
        (changed("events", 1, "kind", to=[]), r"events\[1\]\.kind"),
        (without("events", 0, "time"), r"events\[0\]: there is no 'time'"),
        (changed("events", 0, "other", to=1), r"events\[0\]: nothing is known of 'other'"),
        (changed("events", 0, "time", to=-1), r"events\[0\]\.time: -1 is not a number of seconds"),
        (changed("events", 0, "time", to=1e8), r"events\[0\]\.time"),
        (changed("events", 0, "time", to=True), r"events\[0\]\.time"),
        (changed("events", 0, "time", to="0"), r"events\[0\]\.time"),
        (changed("events", 0, "direction", to="up"), r"events\[0\]\.direction"),
        (changed("events", 0, "direction", to=["in"]), r"events\[0\]\.direction"),
        (changed("events", 0, "peer", to="\x1b[2J"), r"events\[0\]\.peer"),
        (changed("events", 0, "payload", to=None), r"events\[0\]\.payload: None is not a string"),
        (changed("events", 0, "payload", to="base64:a"), r"events\[0\]\.payload: this is not base64"),
        (changed("events", 0, "payload", to="base64:ä"), r"events\[0\]\.payload: this is not base64"),
        (changed("events", 0, "payload", to="x" * 3_000_000), r"events\[0\]\.payload: 3000000 characters"),
        (changed("events", 0, "payload", to="\ud800"), r"events\[0\]\.payload: half a character"),
        (changed("events", 1, "seconds", to=None), r"events\[1\]\.seconds"),
        (changed("events", 1, "method", to="GET / HTTP/1.1\r\nX:"), r"events\[1\]\.method"),
        (changed("events", 1, "url", to=""), r"events\[1\]\.url: '' is not an http URL"),
        (changed("events", 1, "url", to="http:///x"), r"events\[1\]\.url"),
        (changed("events", 1, "url", to="http://:80/x"), r"events\[1\]\.url"),
        (changed("events", 1, "url", to="http://a:99999/"), r"events\[1\]\.url"),
        (changed("events", 1, "url", to="http://[::1/"), r"events\[1\]\.url"),
        (changed("events", 1, "url", to="http://[x]/"), r"events\[1\]\.url"),
        (changed("events", 1, "url", to="http://a b/"), r"events\[1\]\.url"),
        (changed("events", 1, "url", to="http://a/\x1b]0;title\x07"), r"events\[1\]\.url"),
        (changed("events", 1, "url", to="http://u:p@a/"), r"events\[1\]\.url"),
        (changed("events", 1, "url", to="file:///etc/passwd"), r"events\[1\]\.url"),
        (changed("events", 2, "payload", to="0"), r"events\[2\]\.payload: '0' is not a datagram"),
        (changed("events", 2, "payload", to="00  80"), r"events\[2\]\.payload"),
        (changed("events", 2, "payload", to="\u0660\u0660"), r"events\[2\]\.payload"),
        (changed("events", 2, "payload", to="00" * 1102), r"events\[2\]\.payload"),
        (changed("events", 2, "payload", to="00 " * 1102), r"events\[2\]\.payload: 3306 characters"),
        (changed("events", 2, "says", to=3), r"events\[2\]\.says: 3 is not a string"),
        (changed("events", 2, "says", to="x" * 401), r"events\[2\]\.says: 401 characters"),
        (changed("events", 2, "failure", to="no\n"), r"events\[2\]\.failure"),
        (changed("events", 2, "direction", to="closed"), r"events\[2\]\.direction"),
        (changed("events", 2, "peer", to="router"), r"events\[2\]\.peer"),
        (without("events", 2, "says"), r"events\[2\]: there is no 'says'"),
        (changed("events", 1, "status", to=1000), r"events\[1\]\.status"),
        (changed("events", 1, "status", to="200"), r"events\[1\]\.status"),
        (changed("events", 1, "status", to=200.0), r"events\[1\]\.status"),
        (changed("events", 1, "reply_headers", to=[["a", "b"]]), r"events\[1\]\.reply_headers: .* is not an object"),
        (changed("events", 1, "reply_headers", to={"X": "a\r\nSet-Cookie: x"}), r"events\[1\]\.reply_headers"),
        (changed("events", 1, "reply_headers", to={"X\r\nY": "a"}), r"events\[1\]\.reply_headers"),
        (changed("events", 1, "reply_headers", to={"": "a"}), r"events\[1\]\.reply_headers"),
        (changed("events", 1, "reply_headers", to={"X": "安"}), r"events\[1\]\.reply_headers"),
        (changed("events", 1, "headers", to={"X": 1}), r"events\[1\]\.headers\['X'\]: 1 is not a string"),
        (
            changed("events", 1, "headers", to={f"X{number}": "" for number in range(MAX_HEADERS + 1)}),
            r"events\[1\]\.headers: 65 entries",
        ),
        (changed("events", 1, "failure", to="a b"), r"events\[1\]\.failure"),
        (
            changed("events", to=[REQUEST | {"url": f"http://192.0.2.{number}/"} for number in range(65)]),
            "requests to 65 servers; 64 are the most",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(content: Any, problem: str, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=problem) as caught:
        load(tmp_path, content)
    message = str(caught.value)
    assert "router.json is no recorded conversation" in message
    assert message.isprintable()
    assert len(message) < 900


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "it is no JSON"),
        (b"\0", "it is no JSON"),
        (b"\xff\xfe{\0", "it is not UTF-8 from byte 0 on"),
        (b'{"format": 1, "format": 1}', "'format' is there twice"),
        (b'{"format": NaN}', "NaN is no number"),
        (b'{"format": -Infinity}', "-Infinity is no number"),
        (b'{"format": 1' + b"0" * 5000 + b"}", "a number of 5001 digits"),
        (b"[" * 100_000, "over 8 arrays and objects in each other"),
        (b'{"a":' * 9, "over 8 arrays and objects in each other"),
        (b"[" + b"[]," * 400_000, "over 300000 values"),
        (b'{"about": "' + b"x" * 33 * 1024 * 1024, "it has over 33554432 bytes"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_json_of_ours_costs_little(text: bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=problem):
        load(tmp_path, text)


def test_a_number_beyond_all_numbers_is_none(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"events\[0\]\.time"):
        load(tmp_path, json.dumps(GOOD).replace("0.1,", "1e999,").encode())


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
@pytest.mark.parametrize("make", [os.mkfifo if hasattr(os, "mkfifo") else None, os.mkdir])
def test_what_is_no_file_is_not_waited_for(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "x.json")
    with pytest.raises(RecordingError, match="no file with contents"):
        ReplayedGateway(tmp_path / "x.json")
    with pytest.raises(RecordingError, match="no file with contents"):
        ReplayedGateway("/dev/zero")


def test_a_file_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ReplayedGateway(tmp_path / "x.json")
