"""What people see on a real terminal, and that Ctrl-C typed there does what it should."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aioigd.testing import EmulatedGateway, quirks

from .conftest import there

if sys.platform == "win32":
    pytest.skip("there are no such terminals", allow_module_level=True)

import fcntl
import pty
import re
import struct
import termios

LINES, COLUMNS = 30, 100


class Terminal:
    """A command on a terminal; ``text`` is everything that it has written there, without escape sequences."""

    def __init__(self, master: int, process: asyncio.subprocess.Process) -> None:
        self.raw = b""
        self.process = process
        self._master = master
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw.decode("utf-8", "ignore"))

    async def until(self, text: str) -> None:
        while text not in self.text:
            self._news.clear()
            await self._news.wait()

    def forget(self) -> None:
        self.raw = b""

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)

    def _read(self) -> None:
        try:
            self.raw += os.read(self._master, 65536)
        except OSError:
            asyncio.get_running_loop().remove_reader(self._master)
        self._news.set()


def _take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@asynccontextmanager
async def on_terminal(*arguments: object, **environment: str) -> AsyncIterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, int(environment.get("COLUMNS", COLUMNS)), 0, 0))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "aioigd",
        *(str(each) for each in arguments),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=_take_terminal,  # Ctrl-C reaches whoever the terminal belongs to
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )
    os.close(slave)
    terminal = Terminal(master, process)
    try:
        async with asyncio.timeout(20):
            yield terminal
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        terminal.close()


async def test_keeping_shows_each_port_the_traffic_and_what_happens(gateway: EmulatedGateway) -> None:
    async with on_terminal("add", "8080-8081", "--keep", *there(gateway)) as terminal:
        await terminal.until("Keeping 2 ports open on Emulated gateway")
        await terminal.until("● open")
        await terminal.until("11.22.33.44:8081")
        gateway.line.count(received=5_000_000)
        await terminal.until("Traffic  ↓")
        await gateway.restart()
        await terminal.until("TCP 8080: lost")
        await terminal.until("TCP 8080: open again")
        terminal.type(b"\x03")
        await terminal.until("The 2 ports are closed; nothing is left on Emulated gateway.")
        assert await terminal.process.wait() == 0
    assert "Traceback" not in terminal.text
    assert gateway.mappings == []


async def test_a_terminal_that_can_do_nothing_is_as_wide_as_it_says() -> None:
    async with EmulatedGateway(address=None, friendly_name="A Router " * 20) as gateway:
        gateway.add_mapping(8080, desc="x" * 48)
        for words in ("list", "status"):
            async with on_terminal(words, *there(gateway), COLUMNS="50", TERM="dumb") as terminal:
                assert await terminal.process.wait() == 0
                await asyncio.sleep(0)  # what was written last is read in the next iteration
                lines = terminal.raw.decode().splitlines()
                assert len(lines) > 2
                assert all(len(line) <= 50 for line in lines), lines


async def test_watching_shows_rates_and_changes(gateway: EmulatedGateway) -> None:
    async with on_terminal("watch", "--interval", 0.1, *there(gateway)) as terminal:
        await terminal.until("Watching Emulated gateway")
        await terminal.until("connected for")
        gateway.line.count(received=50_000_000)
        await terminal.until("MB/s")
        gateway.external_address = "100.64.0.7"
        await terminal.until("external address: 11.22.33.44 → 100.64.0.7")
        await terminal.until("CGNAT")
        terminal.type(b"\x03")
        await terminal.until("Watched for")
        assert await terminal.process.wait() == 0


async def test_watching_tells_of_a_router_without_counters() -> None:
    async with (
        EmulatedGateway(quirks.no_common_config, address=None) as gateway,
        on_terminal("watch", "--interval", 0.1, "--timeout", 1, *there(gateway)) as terminal,
    ):
        await terminal.until("does not count its traffic")
        gateway.hang()
        await terminal.until("out of reach")
        gateway.resume()
        await terminal.until("answers again")


async def test_a_range_has_a_progress_bar_and_a_result() -> None:
    async with (
        EmulatedGateway(quirks.slow(0.1), quirks.ports_taken(8003, 8004), address=None) as gateway,
        on_terminal("add", "8000-8019", *there(gateway)) as terminal,
    ):
        await terminal.until(" of 20")
        await terminal.until("2 refused")
        await terminal.until("18 open on Emulated gateway")
        assert await terminal.process.wait() == 1


async def test_discovery_shows_gateways_while_it_searches(gateway: EmulatedGateway) -> None:
    async with on_terminal("discover", "--timeout", 1, *there(gateway)) as terminal:
        await terminal.until("Searching, 1 s left")
        await terminal.until("● ")
        assert await terminal.process.wait() == 0
    assert "Emulated" in terminal.text


async def test_the_doctor_says_what_it_is_doing(gateway: EmulatedGateway) -> None:
    async with on_terminal("doctor", "--timeout", 0.5, *there(gateway)) as terminal:
        await terminal.until("Searching for gateways …")
        await terminal.until("a port was opened and closed again")
        assert await terminal.process.wait() == 0


async def test_ctrl_c_in_the_middle_of_it_is_no_traceback(gateway: EmulatedGateway) -> None:
    gateway.hang()
    async with on_terminal("list", "--location", gateway.location) as terminal:
        await terminal.until("Reading the router's table")
        terminal.type(b"\x03")
        assert await terminal.process.wait() == 130
    gateway.resume()
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
async def test_who_wants_no_colours_gets_none(gateway: EmulatedGateway, variables: dict[str, str]) -> None:
    gateway.add_mapping(8080, internal_client=gateway.address)
    async with on_terminal("list", *there(gateway), **variables) as terminal:
        await terminal.until("forwards 1 port")
        await terminal.process.wait()
    assert re.search(rb"\x1b\[[0-9;]*3[0-7]m", terminal.raw) is None


async def test_a_small_terminal_keeps_its_last_line(gateway: EmulatedGateway) -> None:
    async with on_terminal("add", "8000-8039", "--keep", *there(gateway)) as terminal:
        await terminal.until("Ctrl-C closes them.")
        assert re.search(r"and \d+ more", terminal.text)
        terminal.type(b"\x03")
        await terminal.until("nothing is left")
    assert gateway.mappings == []
