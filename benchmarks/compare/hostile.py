"""What hostile gateways do to each peer: how long, how much memory, and how long the loop was stalled.

A peer gets a new process for each attempt, a time limit and a limit of memory. Who reaches a limit is not tried again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from ..peers.registry import ASYNC_UPNP, MINI, OURS, UPNP_CLIENT
from ..peers.worker import OutOfTime, PeerError, worker
from .bench import Bench
from .hostile_gateway import ATTACKS, WAITING

ADDRESS_SPACE: Final = 3 << 30
_ATTACKED: Final = (OURS, ASYNC_UPNP, MINI, UPNP_CLIENT)
_MEBIBYTE: Final = 1 << 20


def measure(bench: Bench) -> None:
    """Attack each peer in turn; those attacks that only make them wait hit all at the same time."""
    names = [name for name in _ATTACKED if name in bench.site.names]
    for attack in ATTACKS:
        at_limit: set[str] = set()
        with _gateway(bench, attack) as location:
            for _ in range(bench.plan.runs):
                left = [name for name in names if name not in at_limit]
                with ThreadPoolExecutor(len(names) if attack in WAITING else 1) as pool:
                    reached = pool.map(lambda name: _attack(bench, name, attack, location), left)  # noqa: B023
                    at_limit |= {name for name, stuck in zip(left, reached, strict=True) if stuck}
        bench.say(f"  {attack}")


def _attack(bench: Bench, name: str, attack: str, location: str) -> bool:
    """Return whether the peer reached a limit, or came near that of memory."""
    limit = bench.plan.hostile_limit
    note, stall = "", None
    with bench.site.inside("lan"), worker(name, "127.0.0.1", memory=ADDRESS_SPACE) as running:
        before = running.peak_memory()
        try:
            done = running.ask("swallow", limit=limit, location=location)
            seconds, stall = done["seconds"], done["stall"]
        except OutOfTime:
            seconds, note = limit, "stopped by the time limit"
        except PeerError as error:
            print(f"  {attack}: {error}", file=sys.stderr)
            seconds, note = limit, "ended by an error of its own"
        growth = (running.peak_memory() - before) / _MEBIBYTE
    if growth * _MEBIBYTE > ADDRESS_SPACE / 2 and not note:
        note = "took over half of the memory it may have"
    bench.record.add("hostile: time", name, "s", seconds, note=note, attack=attack)
    bench.record.add("hostile: memory", name, "MiB", growth, note=note, attack=attack)
    if stall is not None:
        bench.record.add("hostile: stall", name, "ms", stall * 1e3, note=note, attack=attack)
    return bool(note)


@contextmanager
def _gateway(bench: Bench, attack: str) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.compare.hostile_gateway", attack]
    with bench.site.inside("lan"):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["location"]
        finally:
            process.kill()
