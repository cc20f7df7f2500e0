"""The process of :mod:`benchmarks.gateway_server`, seen from the program that measures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class FakeGateway:
    """A running gateway: where it is, and what it counted."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        where = self._line()
        self.address: str = where["address"]
        self.location: str = where["location"]
        self.control_url: str = where["control_url"]

    def counts(self, **changes: object) -> dict[str, int]:
        """Return what was counted since the last time: requests by action, connections, resets, searches.

        ``changes`` are settings that hold from now on (see ``gateway_server.Settings``).
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(changes).encode() + b"\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line: dict[str, Any] = json.loads(self._process.stdout.readline())
        return line


@contextmanager
def fake_gateway(*arguments: str, module: str = "benchmarks.gateway_server") -> Iterator[FakeGateway]:
    """Run a gateway (or another ``module`` that speaks as it does) in a process of its own, with these arguments."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield FakeGateway(process)
        finally:
            process.terminate()
