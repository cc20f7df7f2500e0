"""What hostile documents cost: time on the event loop, memory of one, memory that stays.

Run it from the root of the project::

    python -m benchmarks.hostile_documents

The goals: nothing but IGDError escapes, no document takes over 30 ms or 12 MiB, and 10,000 of them leave less than
4 MiB behind.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from aioigd.errors import IGDError
from aioigd.upnp.wire import ssdp
from aioigd.upnp.wire.description import parse_description
from aioigd.upnp.wire.soap import parse_reply
from aioigd.upnp.wire.url import parse_url
from aioigd.upnp.wire.xml import MAX_DOCUMENT, has_root_end_tag
from tests.upnp.wire.hostile import FAMILIES, random_document

URL = parse_url("http://192.0.2.1:5000/rootDesc.xml")
MEBIBYTE = 1024 * 1024

PARSERS: dict[str, Callable[[bytes], object]] = {
    "description": lambda document: parse_description(document, URL),
    "reply": lambda document: parse_reply(document, "AddPortMapping"),
    "has_root_end_tag": has_root_end_tag,
    "datagram": ssdp.parse_datagram,
}


def parse_all(document: bytes) -> float:
    """Return the seconds that the slowest parser takes for a document."""
    worst = 0.0
    for parse in PARSERS.values():
        start = time.perf_counter()
        with suppress(IGDError):
            parse(document)
        worst = max(worst, time.perf_counter() - start)
    return worst


def resident() -> int:
    """Return the bytes of memory that the process holds now (Linux), or held at most (elsewhere)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return peak()


def peak() -> int:
    """Return the most bytes of memory that the process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def full_documents(rounds: int) -> None:
    """Print what the worst document of each family costs, at the full size that is read."""
    documents = {name: family(MAX_DOCUMENT) for name, family in FAMILIES.items()}
    before = peak()
    times = {name: min(parse_all(document) for _ in range(rounds)) for name, document in documents.items()}
    for name in sorted(times, key=lambda name: times[name])[-8:]:
        print(f"  {times[name] * 1000:7.1f} ms  {len(documents[name]) // 1024:4} KiB  {name}")
    python = {}
    for name, document in documents.items():
        tracemalloc.start()
        parse_all(document)
        python[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    greedy = max(python, key=lambda name: python[name])
    print(f"  memory: process {(peak() - before) / MEBIBYTE:.1f} MiB above the start (libxml2's trees included),")
    print(f"          Python objects at most {python[greedy] / MEBIBYTE:.1f} MiB ({greedy})")


def random_documents(count: int, seed: int) -> None:
    """Print what a lot of generated documents costs, and what they leave behind."""
    rng = random.Random(seed)
    for _ in range(count // 10):
        parse_all(random_document(rng))
    gc.collect()
    before, worst, slowest = resident(), 0.0, b""
    for _ in range(count):
        document = random_document(rng)
        took = parse_all(document)
        if took > worst:
            worst, slowest = took, document
    gc.collect()
    growth = (resident() - before) / MEBIBYTE
    print(f"  {count} documents: no foreign exception, worst {worst * 1000:.1f} ms, growth {growth:.2f} MiB")
    print(f"  the slowest began with {slowest[:60]!r}")


def new_names(count: int) -> None:
    """Print what documents full of names that were never seen before leave behind."""
    rng = random.Random(1)
    before = 0
    for number in range(count):
        if number == count // 10:
            before = resident()
        parse_all(b"<root>" + b"".join(b"<a%x/>" % rng.getrandbits(80) for _ in range(5000)) + b"</root>")
    gc.collect()
    print(f"  {count} documents of 5000 new names each: growth {(resident() - before) / MEBIBYTE:.2f} MiB")


def main() -> None:
    """Measure, and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    arguments.add_argument("--count", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    options = arguments.parse_args()
    print(f"Documents of the full size ({MAX_DOCUMENT // 1024} KiB), the slowest families:")
    full_documents(options.rounds)
    print(f"Generated documents (seed {options.seed}):")
    random_documents(options.count, options.seed)
    new_names(200)


if __name__ == "__main__":
    main()
