"""No document takes the parsers off their feet: neither by an exception nor by more than linear time or memory."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from aioigd.errors import IGDError
from aioigd.upnp.wire import soap, ssdp, xml
from aioigd.upnp.wire.description import parse_description
from aioigd.upnp.wire.url import parse_url

from .hostile import FAMILIES, random_document

URL = parse_url("http://192.0.2.1:5000/rootDesc.xml")


def parse_all(document: bytes) -> None:
    with suppress(IGDError):
        parse_description(document, URL)
    soap.parse_reply(document, "AddPortMapping")
    ssdp.parse_datagram(document)
    xml.has_root_end_tag(document)


def seconds(document: bytes) -> float:
    """Return the least of three times: what the machine does besides only adds to it."""
    times = []
    for _ in range(3):
        start = time.thread_time()
        parse_all(document)
        times.append(time.thread_time() - start)
    return min(times)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_time_grows_with_the_size_and_not_with_its_square(family: str) -> None:
    small, large = (FAMILIES[family](size) for size in (16 * 1024, 64 * 1024))
    growth = len(large) / len(small)
    gc.disable()
    try:
        for _ in range(3):  # whatever disturbed a measurement does not do so three times
            # What is under a quarter of a millisecond is noise; a square would be far above it.
            if seconds(large) < 2 * growth * max(seconds(small), 0.00025):
                return
    finally:
        gc.enable()
    pytest.fail(f"four times as much of {family!r} takes over eight times as long")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [256, 3_333, xml.MAX_DOCUMENT])
def test_no_exception_but_ours_comes_out_at_any_size(family: str, size: int) -> None:
    parse_all(FAMILIES[family](size))


def test_no_exception_but_ours_comes_out_of_generated_documents() -> None:
    rng = random.Random(20)
    for _ in range(1_500):
        parse_all(random_document(rng))


HOARDERS = {
    "new names": b"<a%x/>",
    "new names of attributes": b"<a b%x='1'/>",
    "new prefixes": b"<p%x:a p%x:b='1' xmlns:p%x='u%x'/>",
    "new texts": b"<a>%x</a>",
    "new texts beside elements": b"<a/>%x<b/>",
    "new blanks": b"<a>%b</a>",
    "blanks behind a reference to nothing": b"<a>&#0;%b</a>",
    "blanks behind a surrogate": b"<a>&#xD800;%b</a>",
    "blanks that are references": b"<a>&#32;&#x9;%b</a>",
    "blanks behind a noncharacter": b"<a>\xef\xbf\xbf%b</a>",
    "blanks behind a control character": b"<a>\x01%b</a>",
    "blanks in a CDATA section": b"<a><![CDATA[%b]]></a>",
    "blanks beside an empty CDATA section": b"<a><![CDATA[]]>%b<![CDATA[%b]]></a>",
    "blanks beside a comment": b"<a>%b<!--%x-->%b</a>",
    "blanks in and behind processing instructions": b"<a><?%x %b?>%b</a>",
    "blanks beside elements": b"<a/>%b<b></b>%b",
    "blanks in a tag": b"<a%b></a%b>",
    "blanks behind half a tag": b"<a<b%b<c>%b",
    "blanks behind tags that do not match": b"<a>%b</b>%b</c>",
    "new references": b"<a>&n%x;</a>",
    "new processing instructions": b"<?n%x?>",
    "short texts": b"<a>%h</a>",
}
"""Units of documents in which ``%x`` is new each time, ``%h`` a new short text, and ``%b`` a new run of blanks."""


def growth(documents: int) -> int:
    """Return how many bytes a process has grown by after so many documents of each kind, once it was warm."""
    pytest.importorskip("resource")
    script = f"""
import random, re, resource
from contextlib import suppress
from aioigd import IGDError
from aioigd.upnp.wire import gena, soap
from aioigd.upnp.wire.description import parse_description
from aioigd.upnp.wire.url import parse_url
from tests.upnp.wire.test_hostile_documents import HOARDERS
NEW = {{
    b"x": lambda: b"%x" % random.getrandbits(300),
    b"h": lambda: b"%x" % random.getrandbits(12),
    b"b": lambda: bytes(random.choices(b" \\t\\n", k=random.randrange(12, 58))),
}}
url = parse_url("http://192.0.2.1/")
parsers = (lambda one: soap.parse_reply(one, "GetX"), lambda one: parse_description(one, url), gena.parse_event)
peaks = []
for count in (4, {documents}):
    for unit in HOARDERS.values():
        for number in range(count):
            once = b"<root>" + unit * 1500 + b"</root>"
            with suppress(IGDError):
                parsers[number % 3](re.sub(b"%([xhb])", lambda match: NEW[match[1]](), once))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""
    # In a process of its own: this one's peak of memory is that of other tests.
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=900)
    return int(run.stdout) * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize("documents", [20, pytest.param(150, marks=pytest.mark.long)])
def test_what_never_comes_again_does_not_stay_in_memory(documents: int) -> None:
    """libxml2 keeps element names and runs of blanks until the process ends, so none may reach it."""
    assert growth(documents) < 4 * 1024 * 1024
