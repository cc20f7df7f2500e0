"""Processes that are asked by lines of JSON: the gateways, and the peers.

A process prints a line when it is ready. Each line on its standard input is then answered by one, and it ends with its
standard input.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

LIMIT: Final = 180.0
"""Seconds that nothing takes."""


class ProcessError(Exception):
    """The process could not do what it was asked for, or has ended."""


class OutOfTimeError(ProcessError):
    """The process took longer than it was given."""


class Process:
    """A running process; ``location`` is where its description is, and ``address`` its own, if it is a gateway."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name, self.pid = name, process.pid
        self._input, self._output = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
        ready = self._read_line(LIMIT)
        self.address, self.location = str(ready.get("address")), str(ready.get("location"))

    def ask(self, *, limit: float = LIMIT, **message: object) -> dict[str, Any]:
        """Send a message, and return the answer."""
        self._input.write(json.dumps(message).encode() + b"\n")
        self._input.flush()
        return self._read_line(limit)

    def most_memory(self) -> float:
        """Return the most MiB that it ever held in memory (Linux)."""
        found = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0

    def _read_line(self, limit: float) -> dict[str, Any]:
        if not select.select([self._output], [], [], limit)[0]:
            raise OutOfTimeError(f"{self.name}: over {limit} s")
        answer: dict[str, Any] = json.loads(self._output.readline() or '{"error": "has ended"}')
        if "error" in answer:
            raise ProcessError(f"{self.name}: {answer['error']}")
        return answer


@contextmanager
def run_process(module: str, *arguments: str, memory: int | None = None, quiet: bool = False) -> Iterator[Process]:
    """Run a module; ``memory``: the bytes of address space that it gets once it is ready; ``quiet``: its errors go."""
    pipe, errors = subprocess.PIPE, subprocess.DEVNULL if quiet else None
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors) as process:
        try:
            running = Process(arguments[0] if arguments else module, process)
            if memory is not None:
                resource.prlimit(process.pid, resource.RLIMIT_AS, (memory, memory))
            yield running
        finally:
            process.kill()


def answer(ready: Mapping[str, object], function: Callable[..., Mapping[str, object]]) -> None:
    """Be such a process: print ``ready``, and answer messages. What libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(ready), file=replies, flush=True)
    for line in sys.stdin:
        try:
            reply = function(**json.loads(line))
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)
