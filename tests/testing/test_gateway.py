"""The gateway as a whole: what it records, how it fails on demand, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from aioigd.models import PortMapping
from aioigd.testing import EmulatedGateway, loopback_address, network, quirks

from .client import IGD_1, get, mapping, outcome, post, search, send, values

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# What it records


async def test_it_records_what_it_receives(gateway: EmulatedGateway) -> None:
    await search(gateway.address, IGD_1)
    await send(gateway, get())
    request = post("AddPortMapping", mapping(8080))
    await send(gateway, request)
    asked, fetched, added = gateway.requests
    assert (asked.kind, asked.target, asked.connection) == ("M-SEARCH", IGD_1, 0)
    assert (fetched.kind, fetched.target, fetched.action) == ("GET", "/rootDesc.xml", "")
    assert (added.kind, added.target, added.action) == ("POST", "/ctl/WANIPConn1", "AddPortMapping")
    assert added.arguments == mapping(8080)
    assert added.raw == request
    assert added.sender[0] == gateway.address
    assert asked.time <= fetched.time <= added.time
    assert added.connection == 2


async def test_it_counts(gateway: EmulatedGateway) -> None:
    for target in (IGD_1, "ssdp:all", IGD_1):
        await search(gateway.address, target)
    await outcome(gateway, "AddPortMapping", mapping())
    await outcome(gateway, "GetStatusInfo")
    assert gateway.count("M-SEARCH") == 3
    assert gateway.search_rounds == 2
    assert gateway.count("POST") == 2
    assert gateway.count("AddPortMapping") == 1
    assert gateway.count("DeletePortMapping") == 0
    assert gateway.tally.accepted == 2
    assert gateway.tally.peak == 1


async def test_it_counts_connections_at_the_same_time() -> None:
    async with EmulatedGateway(quirks.slow(0.05), address=None) as gateway:
        await asyncio.gather(*(send(gateway, get()) for _ in range(5)))
        assert gateway.tally.peak == 5
        assert gateway.open_connections == 0


async def test_mappings_are_equal_to_those_that_a_mapper_returns(gateway: EmulatedGateway) -> None:
    await outcome(gateway, "AddPortMapping", mapping(1, client=gateway.address, lease=60))
    other = gateway.add_mapping(2, 3, "TCP", internal_client="192.168.1.9", desc="theirs")
    assert gateway.mappings == [PortMapping(1, 1, gateway.address, "TCP", "my server", 60), other]
    entry = gateway.entry(1, "TCP")
    assert entry is not None
    assert entry.expires is not None
    assert gateway.remove_mapping(2, "TCP")
    assert not gateway.remove_mapping(2, "TCP")


async def test_its_repr_tells_its_state(gateway: EmulatedGateway) -> None:
    assert f"at {gateway.location} running, 0 mappings, 0 requests" in repr(gateway)
    gateway.hang()
    assert "hanging" in repr(gateway)
    await gateway.stop()
    assert "stopped" in repr(gateway)


# What it refuses to be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "192.0.2.1"}, "loopback address"),
        ({"address": "0.0.0.0"}, "loopback address"),
        ({"version": 3}, "version 1 or 2"),
    ],
)
def test_it_lives_on_loopback_and_has_a_version(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmulatedGateway(**options)


def test_a_quirk_must_be_known() -> None:
    with pytest.raises(ValueError, match="no quirk named 'no_such_thing'"):
        EmulatedGateway("no_such_thing")


async def test_it_runs_once(gateway: EmulatedGateway) -> None:
    with pytest.raises(RuntimeError, match="runs already"):
        await gateway.start()


# Restarts, and other bad days


async def test_a_restart_has_another_port_and_no_mappings(gateway: EmulatedGateway) -> None:
    gateway.add_mapping(8080)
    old = gateway.port
    reader, writer = await asyncio.open_connection(gateway.address, old)
    await gateway.restart()
    assert gateway.port != old
    assert gateway.mappings == []
    assert await reader.read() == b"", "the connection has ended"
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(gateway.address, old)
    (reply,) = await search(gateway.address, IGD_1)
    assert reply.headers["LOCATION"] == gateway.location


async def test_a_restart_has_another_port_also_where_the_system_would_give_the_same(
    gateway: EmulatedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in some thousand times it does."""
    old = gateway.port
    given = [old]
    make = network.http_socket
    monkeypatch.setattr(network, "http_socket", lambda address, port: make(address, given.pop() if given else port))
    await gateway.restart()
    assert given == []
    assert gateway.port != old


async def test_a_restart_may_keep_port_and_mappings(gateway: EmulatedGateway) -> None:
    kept = gateway.add_mapping(8080)
    old = gateway.port
    await send(gateway, get())
    await gateway.restart(polite=False, new_port=False, keep_mappings=True)
    assert gateway.port == old
    assert gateway.mappings == [kept]
    await send(gateway, get())
    assert gateway.tally.accepted == 2, "of both its lives"


async def test_the_device_stays_the_same_over_a_restart(gateway: EmulatedGateway) -> None:
    before = (await search(gateway.address, IGD_1))[0].headers
    await gateway.restart()
    after = (await search(gateway.address, IGD_1))[0].headers
    assert after["USN"] == before["USN"]
    assert int(after["BOOTID.UPNP.ORG"]) == int(before["BOOTID.UPNP.ORG"]) + 1


async def test_one_that_hangs_accepts_and_answers_only_when_it_goes_on(gateway: EmulatedGateway) -> None:
    gateway.hang()
    assert await search(gateway.address, IGD_1) == []
    assert (await send(gateway, get(), patience=0.05)).end == "open"
    assert (gateway.count("M-SEARCH"), gateway.count("GET")) == (1, 1), "received they are"
    waiting = asyncio.create_task(send(gateway, get(), patience=5))
    await asyncio.sleep(0.02)
    gateway.resume()
    assert (await waiting).status == 200
    assert await search(gateway.address, IGD_1) != []


async def test_a_restart_does_not_wake_one_that_hangs(gateway: EmulatedGateway) -> None:
    gateway.hang()
    await gateway.restart()
    assert (await send(gateway, get(), patience=0.05)).end == "open"


async def test_the_external_address_can_be_set(gateway: EmulatedGateway) -> None:
    gateway.external_address = "100.64.0.1"
    assert await values(gateway, "GetExternalIPAddress") == {"newexternalipaddress": "100.64.0.1"}


# Addresses


@on_linux
def test_loopback_addresses_are_never_shared() -> None:
    code = "from aioigd.testing import loopback_address as a, EmulatedGateway\nwith a() as x, a() as y: print(x, y)"
    with loopback_address() as one, loopback_address() as other:
        elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        addresses = [one, other, *elsewhere.stdout.split()]
    assert len(set(addresses)) == 4
    assert all(address.startswith("127.") and address != "127.0.0.1" for address in addresses)


@on_linux
def test_an_address_that_is_taken_is_passed_over() -> None:
    with loopback_address() as address:
        pass
    head, _, last = address.rpartition(".")
    with socket.socket() as taken, socket.socket() as another:
        taken.bind((f"{head}.{int(last) % 254 + 1}", 1900))
        another.bind((f"{head}.{int(last) % 254 + 2}", 1900))
        with loopback_address() as free:
            assert free not in (taken.getsockname()[0], another.getsockname()[0])


# Nothing is left


async def use_a_gateway() -> None:
    async with EmulatedGateway(quirks.late_replies(5), address=None) as gateway:
        await search(gateway.address, patience=0.01)
        gateway.hang()
        _, writer = await asyncio.open_connection(gateway.address, gateway.port)
        writer.write(get())
        await asyncio.sleep(0.01)
        writer.transport.abort()
        _, idle = await asyncio.open_connection(gateway.address, gateway.port)
        try:
            await gateway.restart()
        finally:
            idle.transport.abort()


@on_linux
async def test_nothing_is_left_behind() -> None:
    await use_a_gateway()
    before = open_files()
    await use_a_gateway()
    await asyncio.sleep(0)  # the client's own sockets
    gc.collect()
    assert open_files() == before
    assert asyncio.all_tasks() == {asyncio.current_task()}


@on_linux
async def test_nothing_is_left_behind_by_a_cancellation_at_any_time() -> None:
    await use_a_gateway()
    before = open_files()
    steps = 0
    while True:
        task = asyncio.create_task(_start_and_restart())
        for _ in range(steps):
            await asyncio.sleep(0)
        if task.done():
            break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert open_files() == before, f"cancelled after {steps} steps"
        assert asyncio.all_tasks() == {asyncio.current_task()}
        steps += 1
    assert steps > 10


async def _start_and_restart() -> None:
    async with EmulatedGateway(address=None) as gateway:
        await gateway.restart()


@on_linux
async def test_nothing_is_left_behind_by_a_start_that_fails(gateway: EmulatedGateway) -> None:
    await use_a_gateway()
    before = open_files()
    taken = EmulatedGateway(address=gateway.address)
    taken._port = gateway.port
    with pytest.raises(OSError, match=r"[Aa]ddress"):
        await taken.start()
    assert open_files() == before


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_it_runs_on_any_event_loop_in_debug_mode_without_a_warning(loop: str) -> None:
    run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    if loop == "uvloop":
        run = pytest.importorskip("uvloop").run

    async def everything() -> None:
        asyncio.get_running_loop().set_debug(True)
        await _start_and_restart()
        async with EmulatedGateway(address=None) as gateway:
            assert await search_in_a_thread(gateway.address) > 0
            assert await outcome(gateway, "AddPortMapping", mapping()) == 0

    run(everything())
    gc.collect()


async def search_in_a_thread(address: str) -> int:
    """Count the replies to a search, by blocking calls; uvloop has no sock_recvfrom()."""

    def ask() -> int:
        return len(asyncio.run(search(address)))

    return await asyncio.to_thread(ask)
