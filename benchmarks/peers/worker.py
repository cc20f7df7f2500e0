"""The process of a peer, seen from the program that measures."""

from __future__ import annotations

import json
import re
import resource
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIMIT = 180.0
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

    def peak_memory(self) -> int:
        """Return the most bytes that it ever held in memory (Linux)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0


@contextmanager
def worker(name: str, source: str, *, memory: int | None = None, verbose: bool = False) -> Iterator[Worker]:
    """Run a peer in a process of its own, with at most so many bytes of address space.

    ``verbose``: what it complains about goes to standard error. Some complain a thousand times.
    """
    command = [sys.executable, "-m", "benchmarks.peers", name, source]
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
