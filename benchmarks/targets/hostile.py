"""What hostile gateways do to each peer: how long, how much memory, and how long the loop was stalled.

A peer gets a new process for each attempt, a time limit and a limit of memory. Who reaches a limit is not tried again.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

from aioigd.testing import quirks

from ..bench import Bench
from ..gateway_server import emulated_process
from ..peers import ASYNC_UPNP, MINI, OURS, UPNP_CLIENT
from ..process import OutOfTimeError, ProcessError, run_process

ATTACKS: Final = {
    "endless body": quirks.endless_body,
    "gzip bomb, 512 MiB": quirks.gzip_bomb(megabytes=512),
    "a million elements": quirks.million_elements,
    "100,000 attributes": quirks.many_attributes,
    "entity bomb": quirks.entity_bomb,
    "5,000 services": quirks.thousands_of_services,
    "a byte a second": quirks.drips,
    "silence": quirks.silent,
}
WAITING: Final = ("a byte a second", "silence")
"""Attacks on the time of those who wait, not on the machine: all peers suffer them at the same time."""
MEMORY: Final = 3072
"""MiB of address space."""


def measure(bench: Bench) -> None:
    """Attack each peer in turn."""
    for attack, quirk in ATTACKS.items():
        left = list(bench.turns(OURS, ASYNC_UPNP, MINI, UPNP_CLIENT, runs=1))
        with ExitStack() as stack:
            with bench.inside("lan"):
                gateway = stack.enter_context(emulated_process(quirk))
            pool = stack.enter_context(ThreadPoolExecutor(len(left) if attack in WAITING else 1))
            for _ in range(bench.plan.runs):
                attempts = [(name, pool.submit(_attack, bench, name, attack, gateway.location)) for name in left]
                left = [name for name, attempt in attempts if not attempt.result()]
        bench.say(f"  {attack}")


def _attack(bench: Bench, name: str, attack: str, location: str) -> bool:
    """Return whether the peer reached a limit, or came near that of memory."""
    seconds, stall, note = bench.plan.hostile_limit, None, ""
    inside = bench.inside("lan")
    with inside, run_process("benchmarks.peers", name, "127.0.0.1", memory=MEMORY << 20, quiet=True) as running:
        before = running.most_memory()
        try:
            done = running.ask(do="swallow", limit=bench.plan.hostile_limit, location=location)
            seconds, stall = done["seconds"], done["stall"]
        except OutOfTimeError:
            note = "stopped by the time limit"
        except ProcessError as error:
            print(f"  {attack}: {error}", file=sys.stderr)
            note = "ended by an error of its own"
        growth = running.most_memory() - before
    if growth > MEMORY / 2 and not note:
        note = "took over half of the memory it may have"
    bench.add("hostile: time", name, "s", seconds, note=note, attack=attack)
    bench.add("hostile: memory", name, "MiB", growth, note=note, attack=attack)
    if stall is not None:
        bench.add("hostile: stall", name, "ms", stall * 1e3, note=note, attack=attack)
    return bool(note)
