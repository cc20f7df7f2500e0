"""What attacks cost aioigd: time, the longest stall of the event loop, memory, requests.

Run it from the root of the project::

    python -m benchmarks.attacks [KIND ...]

- ``gateways``: gateways that attack who uses them. Each is a process of its own, so that only the victim's memory
  counts; each attacks once to warm up and then ``--rounds`` times, and the worst of these is printed.
- ``descriptions``: devices whose descriptions are as long as one may be, all of them read in one search.
- ``floods``: somebody who answers a search without end.
- ``searches``: the datagrams of a search that nobody answers.
- ``beyond``: replies forged in the name of a host beyond the link; needs root, as it takes namespaces (tests/lab).
- ``canaries``: hosts that every URL of a gateway leads to, and that no request may reach.
- ``recordings``: what is private, and how long it takes to remove it.
- ``documents``: the parsers of ``aioigd.upnp.wire`` on documents made to hurt, of the full size and generated ones.
- ``parsers``: every parser on the worst that fits into its cap, in loops of pure Python that take some 10 ms, and in
  milliseconds of a machine where they take just that; ``before`` is what it took at f6f2548.

The exit status is 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import os
import random
import socket
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

from aioigd import IGDError, PortMapper
from aioigd.testing import EmulatedGateway, loopback_address, quirks
from aioigd.testing.network import search_socket, server_socket
from aioigd.testing.scrubbing import Scrubber
from aioigd.upnp.wire import ssdp
from aioigd.upnp.wire.description import parse_description
from aioigd.upnp.wire.soap import parse_reply
from aioigd.upnp.wire.url import parse_url
from aioigd.upnp.wire.xml import MAX_DOCUMENT, has_root_end_tag
from tests.lab.decoy import Decoy
from tests.lab.network import NEIGHBOUR_ADDRESS, WAN_ADDRESS, Lab
from tests.security.attacks import ATTACKS, DISCOVERY_TIMEOUT, TIMEOUT, Attack, victim
from tests.security.canaries import Canaries
from tests.security.cost import MOST_LOOPS, Cost, in_loops
from tests.security.flood import FLOODS, Flood
from tests.security.parsers import PARSERS as PARSERS_OF_ALL
from tests.security.parsers import WORST
from tests.testing.secrets_in_messages import ENDLESS, PLACES, SECRETS, WRITINGS, leaks_of, scrub
from tests.upnp.wire.hostile import FAMILIES, random_document

from .gateway_server import emulated_process

Row = tuple[str, Mapping[str, float]]
"""What was attacked, and its figures."""

GOALS: Final = {
    "late by": (0.5, "s"),
    "stall": (30, "ms"),
    "memory": (12, "MiB"),
    "left": (4, "MiB"),
    "heard": (0, ""),
    "left in": (0, ""),
    "cpu": (0.7, "s"),
    "searches": (40, ""),
    "loops": (MOST_LOOPS, ""),
    "before": (math.inf, "ms"),
}
"""The most that a figure may be: seconds beyond a deadline, and what all attacks together may leave behind."""
_SPAN: Final = 5.0
"""Seconds of the searches that are counted."""
LOOP: Final = 10.0
"""Milliseconds of a loop, see :func:`tests.security.cost.in_loops`."""
PARSERS: Final[tuple[Callable[[bytes], object], ...]] = (
    partial(parse_description, url=parse_url("http://192.0.2.1:5000/rootDesc.xml")),
    partial(parse_reply, action="AddPortMapping"),
    has_root_end_tag,
    ssdp.parse_datagram,
)


BEFORE: Final[Mapping[tuple[str, str], float]] = MappingProxyType(
    {
        ("HTTP reply in pieces", "header lines"): 44.2,
        ("HTTP reply in pieces", "lines that are no headers"): 50.5,
        ("HTTP reply in pieces", "folded lines"): 45.1,
        ("HTTP reply in pieces", "encodings of nothing"): 35.9,
        ("HTTP reply in pieces", "small chunks"): 203.4,
        ("HTTP reply in pieces", "as many chunks as are read"): 38.2,
        ("description", "a URLBase that is a host of many names"): 403.1,
        ("description", "a URLBase that is one word"): 591.3,
        ("description", "URLs of letters beyond ASCII"): 88.5,
        ("description", "URLs to be quoted here and there"): 54.7,
        ("list of mappings", "rows with nothing in them"): 39.1,
        ("list of mappings", "empty rows"): 55.2,
        ("reply to a question", "one long namespace for all"): 35.0,
        ("reply to a question", "empty elements"): 35.1,
        ("reply to a question", "short elements with tails"): 32.5,
        ("reply to a question", "new names"): 34.8,
        ("description", "relative URLs"): 37.3,
    }
)
"""Milliseconds that parsers took at f6f2548, where these were over 30, on the machine of docs/benchmarks.md."""


def resident(field: str = "VmRSS") -> float:
    """Return a figure of /proc/self/status in MiB: VmRSS is what the process holds, VmHWM the most since the reset."""
    gc.collect()
    return int(Path("/proc/self/status").read_text("ascii").partition(f"{field}:")[2].split()[0]) / 1024


def forget_peak() -> float:
    """Have the kernel forget the most that was held, and return what is held."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    return resident()


def parse(document: bytes) -> float:
    """Return the milliseconds that the slowest parser takes for a document; nothing but IGDError may be raised."""
    worst = 0.0
    for parser in PARSERS:
        started = time.perf_counter()
        with suppress(IGDError):
            parser(document)
        worst = max(worst, time.perf_counter() - started)
    return worst * 1e3


def documents(options: argparse.Namespace) -> Iterator[Row]:
    """Parse the worst documents of each family at the full size that is read, and many that are generated."""
    full = {f"{name} ({MAX_DOCUMENT // 1024} KiB)": family(MAX_DOCUMENT) for name, family in FAMILIES.items()}
    before = forget_peak()
    stalls = {name: min(parse(document) for _ in range(3)) for name, document in full.items()}
    yield "all documents, the trees of libxml2 included", {"memory": resident("VmHWM") - before}
    for name, stall in stalls.items():
        tracemalloc.start()
        parse(full[name])
        yield name, {"stall": stall, "memory": tracemalloc.get_traced_memory()[1] / 2**20}
        tracemalloc.stop()
    rng = random.Random(options.seed)
    for _ in range(options.count // 10):
        parse(random_document(rng))
    before = resident()
    slowest = max(parse(random_document(rng)) for _ in range(options.count))
    yield f"{options.count} generated, seed {options.seed}", {"stall": slowest, "left": resident() - before}
    for number in range(200):
        before = resident() if number == 20 else before
        parse(b"<root>" + b"".join(b"<a%x/>" % rng.getrandbits(80) for _ in range(5000)) + b"</root>")
    yield "180 documents of 5,000 new names each", {"left": resident() - before}
    for number in range(200):
        before = resident() if number == 20 else before
        runs = (b"<a>&#0;%s</a>" % bytes(rng.choices(b" \t\n", k=50)) for _ in range(3000))
        parse(b"<root>" + b"".join(runs) + b"</root>")
    yield "180 documents of 3,000 new runs of blanks each", {"left": resident() - before}


def parsers(_: argparse.Namespace) -> Iterator[Row]:
    """Give each parser the worst that fits into its cap, and compare that with a loop of Python."""
    worst: dict[str, float] = dict.fromkeys(PARSERS_OF_ALL, 0.0)
    for (parser, name), document in WORST.items():
        loops = in_loops(partial(PARSERS_OF_ALL[parser], document), rounds=6)
        worst[parser] = max(worst[parser], loops)
        if name not in FAMILIES or (parser, name) in BEFORE:
            known = {"before": BEFORE[parser, name]} if (parser, name) in BEFORE else {}
            yield f"{parser}: {name}", {"stall": loops * LOOP, "loops": loops, **known}
    for parser, loops in worst.items():
        yield f"{parser}: the worst of all", {"stall": loops * LOOP, "loops": loops}


def gateways(options: argparse.Namespace) -> Iterator[Row]:
    """Suffer each attack a few times."""
    before = 0.0
    for name, attack in ATTACKS.items():
        with emulated_process(attack.quirk) as enemy:
            rounds = [asyncio.run(_suffer(attack, enemy.address)) for _ in range(options.rounds + 1)]
        yield name, {figure: max(one[figure] for one in rounds[1:]) for figure in rounds[0]}
        before = before or resident()
    yield "all gateways", {"left": resident() - before}


def descriptions(_: argparse.Namespace) -> Iterator[Row]:
    """Survey a network in which 40 descriptions of 256 KiB are announced."""
    with emulated_process(quirks.long_descriptions) as enemy:
        asyncio.run(_survey(enemy.address))  # warms up
        yield "40 descriptions of 256 KiB", asyncio.run(_survey(enemy.address))


def floods(_: argparse.Namespace) -> Iterator[Row]:
    """Look for a gateway that is not there while somebody answers without end."""
    for name in FLOODS:
        asyncio.run(_flood(name))  # warms up
        yield f"flood: {name}", asyncio.run(_flood(name))


def searches(_: argparse.Namespace) -> Iterator[Row]:
    """Count the datagrams of a search that nobody answers, in a network that was named by its address."""
    yield f"an unanswered search of {_SPAN:.0f} s", {"searches": asyncio.run(_unanswered())}


def beyond(_: argparse.Namespace) -> Iterator[Row]:
    """Count the connections to a host on the internet, in whose name a neighbour answers searches."""
    if sys.platform != "linux" or os.geteuid() != 0:
        print("beyond: not measured, as only root can make network namespaces")
        return
    with Lab() as lab:
        lab.run("neighbour", ["ip", "address", "add", f"{WAN_ADDRESS}/32", "dev", "lo"])
        decoy = Decoy(lab, "neighbour", NEIGHBOUR_ADDRESS, reply_from=WAN_ADDRESS)
        with decoy, lab.watch_tcp("wan", decoy.port) as callers, lab.inside("lan"):
            found = asyncio.run(_discover(_SPAN))
            yield "replies from beyond the link", {"heard": len(callers) + len(decoy.requests) + found}


def canaries(options: argparse.Namespace) -> Iterator[Row]:
    """Count what reaches hosts that every URL of a gateway leads to."""
    yield "canaries", {"heard": asyncio.run(_heard_by_canaries(options.rounds))}


def recordings(_: argparse.Namespace) -> Iterator[Row]:
    """Remove what is private from messages made to hurt, and from all in which a secret was planted."""
    for name, make in ENDLESS.items():
        text = make(178 * 1024)
        began = time.process_time()
        Scrubber().text(text)
        yield f"recording: 178 KiB of {name}", {"seconds": time.process_time() - began}
    planted = [
        (secret, place(write(secret)))
        for secret in SECRETS.values()
        for write in WRITINGS.values()
        for place in PLACES.values()
    ]
    left_in = sum(bool(leaks_of(secret, scrub(Scrubber(), message))) for secret, message in planted)
    yield f"recording: {len(planted)} planted secrets", {"left in": left_in}


# What documents leave in the allocator would hide what the others take.
KINDS: Final = {
    function.__name__: function
    for function in (gateways, descriptions, floods, searches, canaries, beyond, recordings, documents, parsers)
}


async def _suffer(attack: Attack, address: str) -> dict[str, float]:
    async with PortMapper(source_address=address, timeout=TIMEOUT, discovery_timeout=DISCOVERY_TIMEOUT) as mapper:
        await attack.prepare(mapper)
        before = forget_peak()
        async with Cost() as cost:
            await attack.suffer(mapper)
        return _figures(cost, attack.deadline, before)


async def _survey(address: str) -> dict[str, float]:
    async with PortMapper(source_address=address) as mapper:
        began = time.process_time()
        await mapper.discover(1.5, device_filter="")
        return {"cpu": time.process_time() - began}


async def _flood(name: str) -> dict[str, float]:
    with (
        loopback_address() as address,
        Canaries(4) as senders,
        Flood(address, senders.addresses, FLOODS[name](), most=20_000) as flood,
    ):
        async with PortMapper(source_address=address, discovery_timeout=1.0) as mapper:
            before = forget_peak()
            async with Cost() as cost:
                await mapper.discover(1.0)
    return {**_figures(cost, 1.0, before), "datagrams": flood.sent}


async def _discover(seconds: float, source: str | None = None) -> int:
    async with PortMapper(source_address=source) as mapper:
        return len(await mapper.discover(seconds))


async def _unanswered() -> int:
    heard = 0

    def hear(ear: socket.socket) -> None:
        nonlocal heard
        with suppress(BlockingIOError):
            while True:  # other programs search on loopback, too
                heard += ear.recvfrom(65_536)[1][0] == address

    loop = asyncio.get_running_loop()
    with loopback_address() as address, search_socket(address) as group, server_socket(address) as own:
        for ear in (group, own):
            loop.add_reader(ear, hear, ear)
        await _discover(_SPAN, address)
        for ear in (group, own):
            loop.remove_reader(ear)
    return heard


def _figures(cost: Cost, deadline: float, before: float) -> dict[str, float]:
    late, memory = cost.seconds - deadline, resident("VmHWM") - before
    return {"seconds": cost.seconds, "late by": max(late, 0.0), "stall": cost.stall * 1e3, "memory": memory}


async def _heard_by_canaries(rounds: int) -> int:
    with Canaries() as listening:
        leading_there = (
            quirks.foreign_control_url(listening.url.removesuffix("/canary")),
            quirks.foreign_location(listening.url),
            quirks.redirects("description", listening.url),
        )
        for quirk in leading_there * rounds:
            async with EmulatedGateway(quirk, address=None) as gateway, victim(gateway) as mapper:
                await Attack(quirk).suffer(mapper)
        return len(listening.heard)


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description="What attacks cost aioigd.")
    parser.add_argument("kinds", nargs="*", metavar="kind", help=f"of {', '.join(KINDS)}; else all")
    parser.add_argument("--rounds", type=int, default=2, help="of each gateway and canary (default: %(default)s)")
    parser.add_argument("--count", type=int, default=10_000, help="generated documents (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the generated documents")
    options = parser.parse_args()
    if set(options.kinds) - set(KINDS):
        parser.error(f"the kinds are {', '.join(KINDS)}")
    goals = {name: goal for name, goal in GOALS.items() if goal[0] < math.inf}
    print("goals, at most:", ", ".join(f"{name} {most} {unit}".strip() for name, (most, unit) in goals.items()))
    failed = False
    for name, figures in (row for kind in options.kinds or KINDS for row in KINDS[kind](options)):
        missed = [figure for figure, value in figures.items() if figure in GOALS and value > GOALS[figure][0]]
        shown = ", ".join(f"{key} {value:.4g} {GOALS.get(key, (0, ''))[1]}".strip() for key, value in figures.items())
        print(f"{name:<46} {shown:<70} {'MISSED: ' + ', '.join(missed) if missed else 'reached'}", flush=True)
        failed |= bool(missed)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
