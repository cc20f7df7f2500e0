"""Processes that are asked by lines of JSON: the gateways, and the peers.

A process prints a line when it is ready. Each line on its standard input is then answered by one, and it ends with its
standard input.
"""

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
from typing import Any, Final

LIMIT: Final = 180.0
"""Seconds that nothing takes."""


class ProcessError(Exception):
    """The process could not do what it was asked for, or has ended."""


class OutOfTimeError(ProcessError):
    """The process took longer than it was given."""


class Process:
    """A running process. ``ready`` is its first line."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self._process = process
        self.ready = self._read_line(LIMIT)

    def ask(self, *, limit: float = LIMIT, **message: object) -> dict[str, Any]:
        """Send a message, and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._read_line(limit)
        if "error" in answer:
            raise ProcessError(f"{self.name}: {answer['error']}")
        return answer

    def most_memory(self) -> int:
        """Return the most bytes that it ever held in memory (Linux)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0

    def _read_line(self, limit: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], limit)[0]:
            raise OutOfTimeError(f"{self.name}: over {limit} s")
        line = self._process.stdout.readline()
        if not line:
            raise ProcessError(f"{self.name} has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def run_process(module: str, *arguments: str, memory: int | None = None, quiet: bool = False) -> Iterator[Process]:
    """Run a module of the benchmarks.

    ``memory``: the bytes of address space that it gets once it is ready; ``quiet``: drop what it complains about.
    """
    pipe, errors = subprocess.PIPE, subprocess.DEVNULL if quiet else None
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdin=pipe, stdout=pipe, stderr=errors
    ) as process:
        try:
            running = Process(arguments[0] if arguments else module, process)
            if memory is not None:
                resource.prlimit(process.pid, resource.RLIMIT_AS, (memory, memory))
            yield running
        finally:
            process.kill()
