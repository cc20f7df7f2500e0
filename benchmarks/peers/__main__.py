"""The process of one peer: ``python -m benchmarks.peers NAME SOURCE``.

Each line on standard input is a JSON object that says what to do, answered by one with what came of it. It ends with
its standard input.
"""

from __future__ import annotations

import json
import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from .interface import ONE_BY_ONE, PORTS, Peer
from .registry import load


def first(peer: Peer, port: int) -> dict[str, Any]:
    """Measure a cold start; a peer that is a process of its own may have timed itself."""
    started = time.perf_counter()
    peer.cold_start(port)
    return {"seconds": _own_time(peer) or time.perf_counter() - started}


def search(peer: Peer) -> dict[str, Any]:
    """Measure a search."""
    started = time.perf_counter()
    found = peer.search()
    return {"seconds": _own_time(peer) or time.perf_counter() - started, "found": found}


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


def swallow(peer: Peer, location: str) -> dict[str, Any]:
    """Measure what a hostile gateway does to a peer."""
    seconds, stall = peer.swallow(location)
    return {"seconds": seconds, "stall": stall}


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function for function in (first, search, batch, memory, swallow)
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


def _own_time(peer: Peer) -> float | None:
    return getattr(peer, "took", None)


if __name__ == "__main__":
    main()
