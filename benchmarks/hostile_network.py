"""What attacks from the network cost, beside the goals: time, the longest stall of the event loop, memory, requests.

Run it from the root of the project::

    python -m benchmarks.hostile_network

The enemy is a process of its own, so that only the victim's memory counts. Each attack is made once to warm up and
then ``--rounds`` times; the worst of these is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aioigd import PortMapper
from aioigd.testing import EmulatedGateway, loopback_address, quirks
from tests.security.attacks import ATTACKS, DISCOVERY_TIMEOUT, TIMEOUT, Attack, victim
from tests.security.canaries import Canaries
from tests.security.cost import Cost
from tests.security.flood import FLOODS, Flood

MOST_STALL: Final = 0.030
MOST_MEMORY: Final = 12.0
MOST_OVERTIME: Final = 0.5
MOST_GROWTH: Final = 4.0
"""The goals: seconds of the event loop, MiB for one response, seconds after the deadline, MiB that stay."""


@dataclass
class Figures:
    """The worst of several rounds."""

    name: str
    overtime: float = 0.0
    stall: float = 0.0
    memory: float = 0.0
    seconds: float = 0.0

    def add(self, cost: Cost, deadline: float, memory: float) -> None:
        """Count one round."""
        self.seconds = max(self.seconds, cost.seconds)
        self.overtime = max(self.overtime, cost.seconds - deadline)
        self.stall = max(self.stall, cost.stall)
        self.memory = max(self.memory, memory)

    @property
    def missed(self) -> list[str]:
        """The goals that were not reached."""
        verdicts = {
            "overtime": self.overtime > MOST_OVERTIME,
            "stall": self.stall > MOST_STALL,
            "memory": self.memory > MOST_MEMORY,
        }
        return [what for what, missed in verdicts.items() if missed]

    def row(self) -> str:
        """Return a line of the table."""
        verdict = f"MISSED: {', '.join(self.missed)}" if self.missed else "reached"
        return (
            f"{self.name:<44} {self.seconds:>7.2f} s {max(0.0, self.overtime):>8.2f} s"
            f" {self.stall * 1000:>8.1f} ms {self.memory:>8.1f} MiB  {verdict}"
        )


def resident(field: str) -> float:
    """Return a figure of /proc/self/status in MiB: VmRSS is what the process holds, VmHWM the most since the reset."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


def reset_peak() -> None:
    """Let the kernel forget the most that the process has held."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")


async def attack(name: str, rounds: int) -> Figures:
    """Suffer an attack a few times."""
    figures = Figures(name)
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs meanwhile
        [sys.executable, "-m", __spec__.name, "--enemy", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as enemy:
        assert enemy.stdout is not None
        assert enemy.stdin is not None
        address = enemy.stdout.readline().strip()
        for number in range(rounds + 1):
            cost, memory = await _suffer(ATTACKS[name], address)
            if number:
                figures.add(cost, ATTACKS[name].deadline, memory)
        enemy.stdin.close()
    return figures


async def _suffer(one: Attack, address: str) -> tuple[Cost, float]:
    mapper = PortMapper(source_address=address, timeout=TIMEOUT, discovery_timeout=DISCOVERY_TIMEOUT)
    async with mapper:
        await one.prepare(mapper)
        gc.collect()
        reset_peak()
        before = resident("VmRSS")
        async with Cost() as cost:
            await one.suffer(mapper)
        return cost, resident("VmHWM") - before


async def flood(name: str) -> Figures:
    """Look for a gateway that is not there while somebody answers without end."""
    figures = Figures(f"flood: {name}")
    with loopback_address() as address, Canaries(4) as senders:
        for number in range(2):
            with Flood(address, senders.addresses, FLOODS[name](), most=20_000) as flooding:
                async with PortMapper(source_address=address, discovery_timeout=1.0) as mapper:
                    gc.collect()
                    reset_peak()
                    before = resident("VmRSS")
                    async with Cost() as cost:
                        await mapper.discover(1.0)
            if number:
                figures.add(cost, 1.0, resident("VmHWM") - before)
                figures.name += f" ({flooding.sent} datagrams)"
    return figures


async def enemy(name: str) -> None:
    """Be the gateway of an attack until standard input ends."""
    async with EmulatedGateway(ATTACKS[name].quirk, address=None) as gateway:
        print(gateway.address, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def canaries_heard(rounds: int) -> int:
    """Return how much has reached canaries that every URL of a gateway leads to."""
    heard = 0
    with Canaries() as canaries:
        base = canaries.url.removesuffix("/canary")
        for quirk in (
            quirks.foreign_control_url(base),
            quirks.foreign_location(canaries.url),
            quirks.redirects("description", canaries.url),
        ):
            for _ in range(rounds):
                async with EmulatedGateway(quirk, address=None) as gateway, victim(gateway) as mapper:
                    await Attack(quirk).suffer(mapper)
        heard += len(canaries.heard)
    return heard


def main() -> int:
    """Measure, and print."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--enemy", help="be the enemy of this name")
    options = arguments.parse_args()
    if options.enemy:
        asyncio.run(enemy(options.enemy))
        return 0
    print(f"{'attack':<44} {'in all':>9} {'late by':>10} {'stall':>11} {'memory':>12}")
    goals = f"{MOST_OVERTIME:.2f} s {MOST_STALL * 1000:>8.1f} ms {MOST_MEMORY:>8.1f} MiB"
    print(f"{'goal, at most':<44} {'':>9} {goals:>35}")
    rows = []
    before = 0.0
    for name in ATTACKS:
        rows.append(asyncio.run(attack(name, options.rounds)))
        print(rows[-1].row(), flush=True)
        before = before or resident("VmRSS")
    gc.collect()
    growth = resident("VmRSS") - before
    for name in FLOODS:
        rows.append(asyncio.run(flood(name)))
        print(rows[-1].row(), flush=True)
    heard = asyncio.run(canaries_heard(options.rounds))
    kept = growth <= MOST_GROWTH
    verdict = "reached" if kept else "MISSED"
    print(f"memory that all attacks left behind: {growth:.1f} MiB, goal {MOST_GROWTH:.1f}: {verdict}")
    print(f"requests that reached a canary: {heard}, goal 0: {'MISSED' if heard else 'reached'}")
    return 1 if heard or not kept or any(row.missed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
