"""The examples as their readers run them: as programs of their own, with the real servers, and ended by signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from aioigd import ProtocolName
from aioigd.testing import EmulatedGateway

EXAMPLES = Path(__file__).parent.parent / "examples"
PATIENCE = 60.0
"""Seconds: a program starts within one or two, unless the machine is very busy."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")


@asynccontextmanager
async def running(name: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    code = ("-c", arguments[0]) if name == "-c" else (str(EXAMPLES / name), *arguments)
    program = await asyncio.create_subprocess_exec(
        sys.executable, *code, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    )
    try:
        yield program
    finally:
        if program.returncode is None:
            program.kill()
        await program.communicate()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.02)


async def ended(program: asyncio.subprocess.Process, number: signal.Signals) -> int:
    program.send_signal(number)
    async with asyncio.timeout(PATIENCE):
        return await program.wait()


async def get(address: str, port: int) -> str:
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://{address}:{port}/") as response:
                    return await response.text()
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.02)


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("leases", [1, 50])
async def test_an_aiohttp_server_is_mapped_answers_and_leaves_nothing(gateway: EmulatedGateway, leases: int) -> None:
    port = 20_000
    options = ("--source-address", gateway.address, "--port", str(port), "--leases", str(leases))
    async with running("aiohttp_server.py", *options) as program:
        await until(lambda: len(gateway.mappings) == leases)
        assert await get(gateway.address, port) == "hello\n"
        assert await ended(program, signal.SIGTERM) == 0
    assert gateway.mappings == []


async def test_a_fastapi_application_is_mapped_answers_and_leaves_nothing(gateway: EmulatedGateway) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    port = free_port(gateway.address)
    async with running("fastapi_app.py", "--source-address", gateway.address, "--port", str(port)) as program:
        await until(lambda: len(gateway.mappings) == 1)
        await shows(gateway, port, f'{{"state":"active","address":"11.22.33.44","port":{port}}}')
        await ended(program, signal.SIGTERM)
    assert gateway.mappings == []


async def shows(gateway: EmulatedGateway, port: int, answer: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while await get(gateway.address, port) != answer:  # noqa: ASYNC110 - the lease begins in the background
            await asyncio.sleep(0.02)


HYPERCORN = """
import asyncio, sys
sys.path.insert(0, "{folder}")
from fastapi_app import make_app
from hypercorn.asyncio import serve
from hypercorn.config import Config
config = Config()
config.bind = ["{address}:{port}"]
asyncio.run(serve(make_app("{address}", {port}), config))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_hypercorn_leaves_nothing(gateway: EmulatedGateway, number: signal.Signals) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("hypercorn")
    port = free_port(gateway.address)
    async with running("-c", HYPERCORN.format(folder=EXAMPLES, address=gateway.address, port=port)) as program:
        await until(lambda: len(gateway.mappings) == 1)
        await shows(gateway, port, f'{{"state":"active","address":"11.22.33.44","port":{port}}}')
        await ended(program, number)
    assert gateway.mappings == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
async def test_a_bare_server_leaves_nothing(gateway: EmulatedGateway, number: signal.Signals) -> None:
    async with running("bare_asyncio.py", "--source-address", gateway.address) as program:
        await until(lambda: len(gateway.mappings) == 1)
        (mapping,) = gateway.mappings
        reader, writer = await asyncio.open_connection(mapping.internal_client, mapping.internal_port)
        writer.write(b"\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
        await writer.wait_closed()
        assert await ended(program, number) == 0
    assert gateway.mappings == []


async def test_a_bare_server_goes_on_under_nohup(gateway: EmulatedGateway) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which its child inherits
    try:
        async with running("bare_asyncio.py", "--source-address", gateway.address) as program:
            await until(lambda: len(gateway.mappings) == 1)
            program.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.5)
            assert len(gateway.mappings) == 1
            assert await ended(program, signal.SIGTERM) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert gateway.mappings == []


async def test_a_batch_is_mapped_and_leaves_nothing(gateway: EmulatedGateway) -> None:
    async with running("batch.py", "--source-address", gateway.address, "20000", "20024") as program:
        await until(lambda: len(gateway.mappings) == 50)
        assert await ended(program, signal.SIGINT) == 0
    assert gateway.mappings == []


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp"])
async def test_a_server_behind_a_vpn_has_the_port_that_the_gateway_chose(protocol: ProtocolName) -> None:
    quirks = ("assigns_own_ports", "grants_lifetime")
    async with EmulatedGateway(*quirks, protocols=(protocol,), forward=True) as gateway:
        async with running("vpn.py", "--gateway", f"{gateway.address}:{gateway.pcp_port}") as program:
            assert program.stdout is not None
            async with asyncio.timeout(PATIENCE):
                told = (await program.stdout.readline()).decode()
            (mapping,) = gateway.mappings
            assert told == f"open at 11.22.33.44:{mapping.external_port}\n"
            assert (mapping.duration, mapping.external_port != mapping.internal_port) == (60, True)
            reader, writer = await asyncio.open_connection(gateway.internet_side, mapping.external_port)
            writer.write(b"\n")
            assert await reader.readline() == b"hello\n"
            writer.close()
            await writer.wait_closed()
            assert await ended(program, signal.SIGTERM) == 0
        assert gateway.mappings == []


async def test_a_killed_server_leaves_only_what_expires(gateway: EmulatedGateway) -> None:
    async with running("aiohttp_server.py", "--source-address", gateway.address, "--port", "20000") as program:
        await until(lambda: len(gateway.mappings) == 1)
        await ended(program, signal.SIGKILL)
    assert [mapping.duration for mapping in gateway.mappings] == [3600]
