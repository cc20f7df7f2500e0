"""What attacks cost aioigd: time, the longest stall of the event loop, memory, requests.

Run it from the root of the project::

    python -m benchmarks.attacks [gateways] [floods] [canaries] [documents]

- ``gateways``: gateways that attack who uses them. Each is a process of its own, so that only the victim's memory
  counts; each attacks once to warm up and then ``--rounds`` times, and the worst of these is printed.
- ``floods``: somebody who answers a search without end.
- ``canaries``: hosts that every URL of a gateway leads to, and that no request may reach.
- ``documents``: the parsers of ``aioigd.upnp.wire`` on documents made to hurt, of the full size and generated ones.

The exit status is 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aioigd import IGDError, PortMapper
from aioigd.testing import EmulatedGateway, loopback_address, quirks
from aioigd.upnp.wire import ssdp
from aioigd.upnp.wire.description import parse_description
from aioigd.upnp.wire.soap import parse_reply
from aioigd.upnp.wire.url import parse_url
from aioigd.upnp.wire.xml import MAX_DOCUMENT, has_root_end_tag
from tests.security.attacks import ATTACKS, DISCOVERY_TIMEOUT, TIMEOUT, Attack, victim
from tests.security.canaries import Canaries
from tests.security.cost import Cost
from tests.security.flood import FLOODS, Flood
from tests.upnp.wire.hostile import FAMILIES, random_document

from .gateway_server import gateway_process

MOST_STALL: Final = 0.030
"""Seconds that the event loop may stall, or that a document may take."""
MOST_MEMORY: Final = 12.0
"""MiB that one response or document may take."""
MOST_OVERTIME: Final = 0.5
"""Seconds that a call may take beyond its deadline."""
MOST_GROWTH: Final = 4.0
"""MiB that all attacks together may leave behind."""

ON_PEERS: Final[Mapping[str, Callable[[], Any]]] = {
    "endless body": quirks.endless_body,
    "gzip bomb, 512 MiB": lambda: quirks.gzip_bomb(megabytes=512),
    "a million elements": quirks.million_elements,
    "100,000 attributes": quirks.many_attributes,
    "entity bomb": quirks.entity_bomb,
    "5,000 services": quirks.thousands_of_services,
    "a byte a second": quirks.drips,
    "silence": quirks.silent,
}
"""Descriptions that ``benchmarks.compare`` gives to every peer, as quirks."""

_URL: Final = parse_url("http://192.0.2.1:5000/rootDesc.xml")
_PARSERS: Final[tuple[Callable[[bytes], object], ...]] = (
    lambda document: parse_description(document, _URL),
    lambda document: parse_reply(document, "AddPortMapping"),
    has_root_end_tag,
    ssdp.parse_datagram,
)


@dataclass
class Worst:
    """The worst of several rounds of one attack: seconds in all and beyond the deadline, the stall, and MiB."""

    name: str
    seconds: float = 0.0
    overtime: float = 0.0
    stall: float = 0.0
    memory: float = 0.0

    def add(self, seconds: float, overtime: float, stall: float, memory: float) -> None:
        """Count one round."""
        self.seconds, self.overtime = max(self.seconds, seconds), max(self.overtime, overtime)
        self.stall, self.memory = max(self.stall, stall), max(self.memory, memory)

    def reaches_goals(self) -> bool:
        """Print a line of the table, and return whether all goals are reached."""
        missed = [
            what
            for what, value, most in (
                ("overtime", self.overtime, MOST_OVERTIME),
                ("stall", self.stall, MOST_STALL),
                ("memory", self.memory, MOST_MEMORY),
            )
            if value > most
        ]
        print(
            f"{self.name:<44} {self.seconds:>7.2f} s {self.overtime:>8.2f} s {self.stall * 1e3:>8.1f} ms"
            f" {self.memory:>8.1f} MiB  {'MISSED: ' + ', '.join(missed) if missed else 'reached'}",
            flush=True,
        )
        return not missed


def resident(field: str = "VmRSS") -> float:
    """Return a figure of /proc/self/status in MiB: VmRSS is what the process holds, VmHWM the most since the reset."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


class Peak:
    """The MiB by which the process grew at most, since it was made."""

    def __init__(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5", "ascii")  # the kernel forgets the most that it has held
        self._before = resident()

    def growth(self) -> float:
        """Return it."""
        return resident("VmHWM") - self._before


def grown_since(before: float, what: str) -> bool:
    """Print what has stayed in memory, and return whether the goal is reached."""
    gc.collect()
    growth = resident() - before
    reached = growth <= MOST_GROWTH
    print(
        f"memory that {what} left behind: {growth:.2f} MiB, goal {MOST_GROWTH:g}: {'reached' if reached else 'MISSED'}"
    )
    return reached


def parse(document: bytes) -> float:
    """Return the seconds that the slowest parser takes for a document; nothing but IGDError may be raised."""
    worst = 0.0
    for parser in _PARSERS:
        started = time.perf_counter()
        with suppress(IGDError):
            parser(document)
        worst = max(worst, time.perf_counter() - started)
    return worst


def documents(options: argparse.Namespace) -> Iterator[bool]:
    """Parse the worst documents of each family at the full size that is read, and many that are generated."""
    full = {f"{name} ({MAX_DOCUMENT // 1024} KiB)": family(MAX_DOCUMENT) for name, family in FAMILIES.items()}
    peak = Peak()
    worst = [Worst(name, stall=min(parse(document) for _ in range(3))) for name, document in full.items()]
    together = Worst("all of them, the trees of libxml2 included", memory=peak.growth())
    for taken in worst:
        tracemalloc.start()
        parse(full[taken.name])
        taken.memory = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    for taken in sorted(worst, key=lambda one: max(one.stall / MOST_STALL, one.memory / MOST_MEMORY))[-8:]:
        yield taken.reaches_goals()
    yield together.reaches_goals()
    rng = random.Random(options.seed)
    for _ in range(options.count // 10):
        parse(random_document(rng))
    gc.collect()
    before = resident()
    slowest = max(parse(random_document(rng)) for _ in range(options.count))
    yield Worst(f"{options.count} generated, seed {options.seed}", stall=slowest).reaches_goals()
    yield grown_since(before, "generated documents")
    for number in range(200):
        if number == 20:
            before = resident()
        parse(b"<root>" + b"".join(b"<a%x/>" % rng.getrandbits(80) for _ in range(5000)) + b"</root>")
    yield grown_since(before, "180 documents of 5,000 new names each")


def gateways(options: argparse.Namespace) -> Iterator[bool]:
    """Suffer each attack a few times."""
    before = 0.0
    for name in ATTACKS:
        worst = Worst(name)
        with gateway_process("--enemy", name, module="benchmarks.attacks") as enemy:
            for number in range(options.rounds + 1):
                cost, memory = asyncio.run(_suffer(ATTACKS[name], enemy.address))
                if number:
                    worst.add(cost.seconds, cost.seconds - ATTACKS[name].deadline, cost.stall, memory)
        yield worst.reaches_goals()
        before = before or resident()
    yield grown_since(before, "all attacks")


def floods(_: argparse.Namespace) -> Iterator[bool]:
    """Look for a gateway that is not there while somebody answers without end."""
    for name in FLOODS:
        asyncio.run(_flood(name))  # warms up
        worst = asyncio.run(_flood(name))
        yield worst.reaches_goals()


def canaries(options: argparse.Namespace) -> Iterator[bool]:
    """Count what reaches hosts that every URL of a gateway leads to."""
    heard = asyncio.run(_heard_by_canaries(options.rounds))
    print(f"requests that reached a canary: {heard}, goal 0: {'MISSED' if heard else 'reached'}")
    yield not heard


# What documents leave in the allocator would hide what the others take.
KINDS: Final[Mapping[str, Callable[[argparse.Namespace], Iterator[bool]]]] = {
    function.__name__: function for function in (gateways, floods, canaries, documents)
}


async def _suffer(attack: Attack, address: str) -> tuple[Cost, float]:
    async with PortMapper(source_address=address, timeout=TIMEOUT, discovery_timeout=DISCOVERY_TIMEOUT) as mapper:
        await attack.prepare(mapper)
        peak = Peak()
        async with Cost() as cost:
            await attack.suffer(mapper)
        return cost, peak.growth()


async def _flood(name: str) -> Worst:
    with loopback_address() as address, Canaries(4) as senders:
        with Flood(address, senders.addresses, FLOODS[name](), most=20_000) as flood:
            async with PortMapper(source_address=address, discovery_timeout=1.0) as mapper:
                peak = Peak()
                async with Cost() as cost:
                    await mapper.discover(1.0)
        worst = Worst(f"flood: {name} ({flood.sent} datagrams)")
        worst.add(cost.seconds, cost.seconds - 1.0, cost.stall, peak.growth())
    return worst


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


async def enemy(name: str) -> None:
    """Be the gateway of an attack until standard input ends; print where it is."""
    quirk = ON_PEERS[name]() if name in ON_PEERS else ATTACKS[name].quirk
    async with EmulatedGateway(quirk, address=None) as gateway:
        print(json.dumps({"address": gateway.address, "location": gateway.location}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description="What attacks cost aioigd.")
    parser.add_argument("kinds", nargs="*", metavar="kind", help=f"of {', '.join(KINDS)}; else all")
    parser.add_argument("--rounds", type=int, default=2, help="of each gateway and canary (default: %(default)s)")
    parser.add_argument("--count", type=int, default=10_000, help="generated documents (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the generated documents")
    parser.add_argument("--enemy", help="be the gateway of this attack")
    options = parser.parse_args()
    if options.enemy:
        asyncio.run(enemy(options.enemy))
        return 0
    if set(options.kinds) - set(KINDS):
        parser.error(f"the kinds are {', '.join(KINDS)}")
    print(f"{'':<44} {'in all':>9} {'late by':>10} {'stall':>11} {'memory':>12}")
    goals = f"{MOST_OVERTIME:.2f} s {MOST_STALL * 1000:>8.1f} ms {MOST_MEMORY:>8.1f} MiB"
    print(f"{'goal, at most':<44} {'':>9} {goals:>35}")
    verdicts = [reached for kind in options.kinds or KINDS for reached in KINDS[kind](options)]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
