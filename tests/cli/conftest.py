"""How the command is run: in a thread of this process, or as a real process where signals are what is tested."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner

from aioigd.cli.app import command
from aioigd.testing import EmulatedGateway

from ..leases.virtual import VirtualLoop

DEVICE = {
    "friendly_name",
    "manufacturer",
    "model_name",
    "description_url",
    "service_type",
    "igd_service_type",
    "igd_control_url",
    "igd_our_addr",
    "igd_status",
    "is_valid_gateway",
    "udn",
    "server",
    "protocol",
    "address",
}
MAPPING = {
    "proto",
    "external_port",
    "internal_client",
    "internal_port",
    "remote_host",
    "desc",
    "duration",
    "enabled",
    "protocol",
}
ERROR = {"message", "result", "error_code", "protocol"}


@dataclass(frozen=True)
class Outcome:
    """What a run of the command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Awaitable[Outcome]]
Start = Callable[..., Any]


def patient(seconds: float) -> float:
    """Return a time limit, longer where many programs wait for each processor, and little is done in a second."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return round(seconds * min(max(1.0, load / (os.cpu_count() or 1)), 6.0), 1)


def there(gateway: EmulatedGateway) -> tuple[str, str]:
    """The options by which a command finds an emulated gateway."""
    return "--source-address", gateway.address


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command with some arguments, and return what it said; in virtual time where the test is."""

    async def run(*arguments: object) -> Outcome:
        loop = asyncio.get_running_loop()
        if isinstance(loop, VirtualLoop):
            monkeypatch.setattr(asyncio, "run", loop.clock.run)
        words = [str(each) for each in arguments]
        result = await asyncio.to_thread(CliRunner().invoke, command, words, prog_name="aioigd")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


class Process:
    """The command as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[str] = []

    async def until(self, text: str) -> str:
        """Read lines until one has this text in it, and return that one."""
        assert self._process.stdout is not None
        while line := (await self._process.stdout.readline()).decode():
            self.said.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} never came; it said {self.said}")

    async def end(self, number: signal.Signals = signal.SIGINT) -> Outcome:
        """Send a signal, and return what was said and how it ended."""
        self._process.send_signal(number)
        return await self.outcome()

    async def outcome(self) -> Outcome:
        out, err = await self._process.communicate()
        assert self._process.returncode is not None
        return Outcome(self._process.returncode, "".join(self.said) + out.decode(), err.decode())


@pytest.fixture
def start() -> Callable[..., Any]:
    """Give a function that runs the command as a process, for as long as an ``async with`` block lasts."""

    @asynccontextmanager
    async def start(*arguments: object, **environment: str) -> AsyncIterator[Process]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "aioigd",
            *(str(each) for each in arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **environment},
        )
        try:
            async with asyncio.timeout(20):
                yield Process(process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    return start
