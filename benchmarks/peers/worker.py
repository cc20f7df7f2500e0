"""The process of a peer: ``python -m benchmarks.peers.worker NAME SOURCE``. What it can be asked for is in COMMANDS."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from . import load
from .base import ONE_BY_ONE, PORTS, Peer


def first(peer: Peer, port: int) -> dict[str, Any]:
    """Measure a cold start."""
    started = time.perf_counter()
    peer.cold_start(port)
    return {"seconds": peer.took or time.perf_counter() - started}


def search(peer: Peer) -> dict[str, Any]:
    """Measure a search."""
    started = time.perf_counter()
    found = peer.search()
    return {"seconds": peer.took or time.perf_counter() - started, "found": found}


def batch(peer: Peer, location: str, count: int, way: str, watch: bool) -> dict[str, Any]:
    """Measure a batch."""
    return asdict(peer.batch(location, PORTS[:count], way, watch=watch))


def memory(peer: Peer, location: str, count: int) -> dict[str, Any]:
    """Measure Python's memory at the highest point of so many mappings, made one after another."""
    peer.batch(location, PORTS[:20], ONE_BY_ONE, watch=False)
    peaks = []
    for number in (1, count):
        tracemalloc.start()
        peer.batch(location, PORTS[:number], ONE_BY_ONE, watch=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return {"peak": peaks[0], "growth": (peaks[1] - peaks[0]) / (count - 1)}


def allocations(peer: Peer, location: str, count: int) -> dict[str, Any]:
    """Measure Python's memory for one mapping and for a batch, once the gateway is known."""
    return asyncio.run(peer.allocations(location, count))


def swallow(peer: Peer, location: str) -> dict[str, Any]:
    """Measure what a hostile gateway does to a peer."""
    seconds, stall = peer.swallow(location)
    return {"seconds": seconds, "stall": stall}


COMMANDS: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    function.__name__: function for function in (first, search, batch, memory, allocations, swallow)
}


def main() -> None:
    """Answer until the input ends. What libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = load(*sys.argv[1:3])
    print(json.dumps({}), file=replies, flush=True)
    for line in sys.stdin:
        arguments = json.loads(line)
        function = COMMANDS[arguments.pop("do")]
        try:
            answer = function(peer, **arguments)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=replies, flush=True)


if __name__ == "__main__":
    main()
