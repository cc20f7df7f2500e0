"""What hostile gateways do to each peer: how long, how much memory, and how long the loop was stalled.

A peer gets a new process for each attempt, a time limit and a limit of memory. Who reaches a limit is not tried again.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

from ..attacks import ON_PEERS
from ..bench import WORKER, Bench
from ..gateway_server import gateway_process
from ..peers import ASYNC_UPNP, MINI, OURS, UPNP_CLIENT
from ..process import OutOfTimeError, ProcessError, run_process

ATTACKED: Final = (OURS, ASYNC_UPNP, MINI, UPNP_CLIENT)
ADDRESS_SPACE: Final = 3 << 30
_WAITING: Final = ("a byte a second", "silence")
"""Attacks on the time of those who wait, not on the machine: all peers suffer them at the same time."""
_MEBIBYTE: Final = 1 << 20


def measure(bench: Bench) -> None:
    """Attack each peer in turn."""
    for attack in ON_PEERS:
        left = [name for name in ATTACKED if name in bench.names]
        with ExitStack() as stack:
            with bench.inside("lan"):
                gateway = stack.enter_context(gateway_process("--enemy", attack, module="benchmarks.attacks"))
            pool = stack.enter_context(ThreadPoolExecutor(len(left) if attack in _WAITING else 1))
            for _ in range(bench.plan.runs):
                attempts = [(name, pool.submit(_attack, bench, name, attack, gateway.location)) for name in left]
                left = [name for name, attempt in attempts if not attempt.result()]
        bench.say(f"  {attack}")


def _attack(bench: Bench, name: str, attack: str, location: str) -> bool:
    """Return whether the peer reached a limit, or came near that of memory."""
    limit = bench.plan.hostile_limit
    note, stall = "", None
    with bench.inside("lan"), run_process(WORKER, name, "127.0.0.1", memory=ADDRESS_SPACE, quiet=True) as running:
        before = running.most_memory()
        try:
            done = running.ask(do="swallow", limit=limit, location=location)
            seconds, stall = done["seconds"], done["stall"]
        except OutOfTimeError:
            seconds, note = limit, "stopped by the time limit"
        except ProcessError as error:
            print(f"  {attack}: {error}", file=sys.stderr)
            seconds, note = limit, "ended by an error of its own"
        growth = (running.most_memory() - before) / _MEBIBYTE
    if growth * _MEBIBYTE > ADDRESS_SPACE / 2 and not note:
        note = "took over half of the memory it may have"
    bench.record.add("hostile: time", name, "s", seconds, note=note, attack=attack)
    bench.record.add("hostile: memory", name, "MiB", growth, note=note, attack=attack)
    if stall is not None:
        bench.record.add("hostile: stall", name, "ms", stall * 1e3, note=note, attack=attack)
    return bool(note)
