"""Which addresses a host has, and that a silent name server holds up nobody."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from aioigd import NoRouteError
from aioigd.net import names
from aioigd.net.names import addresses_of, numeric_address


class SilentServer:
    """A look-up that takes until it is released."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.threads: set[threading.Thread] = set()
        self._released = threading.Event()

    def look_up(self, host: str) -> list[str]:
        self.asked.append(host)
        self.threads.add(threading.current_thread())
        self._released.wait(30)
        return ["192.0.2.1"]

    def release(self) -> None:
        self._released.set()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentServer]:
    server = SilentServer()
    monkeypatch.setattr(names, "_look_up", server.look_up)
    yield server
    server.release()


NUMBERS = {
    "192.168.1.1": "192.168.1.1",
    "0177.0.0.1": "127.0.0.1",
    "0x7f.1": "127.0.0.1",
    "127.1": "127.0.0.1",
    "2130706433": "127.0.0.1",
    "::1": "::1",
    "::ffff:192.0.2.1": "::ffff:192.0.2.1",
}


@pytest.mark.parametrize("host", NUMBERS)
async def test_numbers_are_read_at_once(host: str, silent: SilentServer) -> None:
    assert numeric_address(host) == NUMBERS[host]
    assert await addresses_of(host) == [NUMBERS[host]]
    assert silent.asked == []


async def test_the_zone_of_a_number_stays(silent: SilentServer) -> None:
    zone = socket.if_nametoindex("lo")
    for spelled in (f"fe80::1%{zone}", "fe80::1%lo"):
        (address,) = await addresses_of(spelled)
        assert address.partition("%")[0] == "fe80::1"
        assert address.partition("%")[2] in (str(zone), "lo")
    assert silent.asked == []


@pytest.mark.parametrize("host", ["256.1.1.1", "1.2.3.4.5", "fe80::1%nowhere", "1::2::3", "router.lan.0"])
async def test_what_looks_like_a_number_is_never_looked_up(host: str, silent: SilentServer) -> None:
    with pytest.raises(NoRouteError, match="cannot be resolved"):
        await addresses_of(host)
    assert silent.asked == []


@pytest.mark.parametrize(("ipv6", "first"), [(False, "192.0.2.1"), (True, "2001:db8::1")])
async def test_all_addresses_come_those_of_the_family_first(
    monkeypatch: pytest.MonkeyPatch, ipv6: bool, first: str
) -> None:
    found = ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]
    monkeypatch.setattr(names, "_look_up", lambda _: found)
    addresses = await addresses_of("router.lan", ipv6=ipv6)
    assert sorted(addresses) == sorted(found)
    assert addresses[0] == first


async def test_localhost_has_its_address() -> None:
    assert "127.0.0.1" in await addresses_of("localhost")


async def test_a_name_that_cannot_be_one_is_an_error_of_ours() -> None:
    with pytest.raises(NoRouteError, match="cannot be resolved"):
        await addresses_of("a" * 100)


async def test_names_wait_for_each_other_in_one_thread_and_clog_no_executor(silent: SilentServer) -> None:
    tasks = [asyncio.create_task(addresses_of(f"router{number}.lan")) for number in range(40)]
    await asyncio.sleep(0.05)
    assert silent.asked == ["router0.lan"]
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 5) == "free"
    assert all(thread.daemon for thread in silent.threads)
    for task in tasks[1:]:
        task.cancel()
    silent.release()
    assert await tasks[0] == ["192.0.2.1"]
    assert await addresses_of("last.lan") == ["192.0.2.1"]
    assert silent.asked == ["router0.lan", "last.lan"]  # nobody waits for the others any more


async def test_there_is_no_thread_while_nothing_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_look_up", lambda _: ["192.0.2.1"])
    await addresses_of("router.lan")
    async with asyncio.timeout(5):
        while any(thread.name == "aioigd-names" for thread in threading.enumerate()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


PROGRAM = """
import asyncio, sys, time
from aioigd import IGDError, PortMapper
from aioigd.net import names

names._look_up = lambda host: time.sleep(60)

async def main():
    async with PortMapper(location="http://router.lan/desc.xml", discovery_timeout=0.3, timeout=0.3) as mapper:
        try:
            await mapper.add_port_mapping(8080)
        except IGDError as error:
            print(error.result.name)

asyncio.run(main())
print("over")
"""


@pytest.mark.usefixtures("beyond_loopback")
def test_a_silent_name_server_does_not_hold_up_the_end_of_a_program() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["HTTP_ERROR", "over"]
    assert done.stderr == ""
    assert time.monotonic() - began < 20
