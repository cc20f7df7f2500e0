"""The process of a peer: ``python -m benchmarks.peers.worker NAME SOURCE``, and how to run and ask it.

Each line on its standard input is a JSON object that says what to do, answered by one with what came of it. It ends
with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import select
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from . import load
from .base import ONE_BY_ONE, PORTS, AsyncPeer, Peer

LIMIT: Final = 180.0
"""Seconds that nothing takes."""


class PeerError(Exception):
    """The peer could not do what it was asked for."""


class OutOfTime(PeerError):
    """The peer took longer than it was given."""


class Worker:
    """A peer that waits for what it is to do."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self._process = process

    def ask(self, do: str, *, limit: float = LIMIT, **arguments: object) -> dict[str, Any]:
        """Have it do something, and return what came of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self._process.stdin.flush()
        answer = self.line(limit)
        if "error" in answer:
            raise PeerError(f"{self.name}, {do}: {answer['error']}")
        return answer

    def line(self, limit: float) -> dict[str, Any]:
        """Return its next line."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], limit)[0]:
            raise OutOfTime(f"{self.name}: over {limit} s")
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"{self.name} has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def most_memory(self) -> int:
        """Return the most bytes that it ever held in memory (Linux)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0


@contextmanager
def worker(name: str, source: str, *, memory: int | None = None, verbose: bool = False) -> Iterator[Worker]:
    """Run a peer in a process of its own, with at most so many bytes of address space.

    ``verbose``: what it complains about goes to standard error. Some complain a thousand times.
    """
    command = [sys.executable, "-m", "benchmarks.peers.worker", name, source]
    pipe, errors = subprocess.PIPE, None if verbose else subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors) as process:
        try:
            running = Worker(name, process)
            running.line(LIMIT)
            if memory is not None:
                resource.prlimit(process.pid, resource.RLIMIT_AS, (memory, memory))
            yield running
        finally:
            process.kill()


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


def allocations(peer: AsyncPeer, location: str, count: int) -> dict[str, Any]:
    """Measure Python's memory for one mapping and for a batch, once the gateway is known."""
    return asyncio.run(peer.memory_of_mappings(location, count))


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
