"""Servers on the LAN host, reached from the internet for as long as they run, and what they leave when they end."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from .network import EXTERNAL_ADDRESS, LAN_ADDRESS, Lab, UpnpMapper
from .router import Mapping, Router

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 60.0
"""Seconds: programs start and end within a few, unless the machine is very busy."""
FIRST = 20000
LEASES = 50

UVICORN = """
import sys
from contextlib import AsyncExitStack, asynccontextmanager

import uvicorn
from fastapi import FastAPI

import aioigd

FIRST, LEASES, DURATION = map(int, sys.argv[1:])

@asynccontextmanager
async def lifespan(app):
    async with aioigd.PortMapper() as mapper, AsyncExitStack() as stack:
        for port in range(FIRST, FIRST + LEASES):
            await stack.enter_async_context(mapper.lease(port, desc="uvicorn", proto="TCP", duration=DURATION))
        yield

app = FastAPI(lifespan=lifespan)

@app.get("/")
async def hello():
    return "hello"

uvicorn.run(app, host="0.0.0.0", port=FIRST, log_level="warning")
"""


def aiohttp_server(leases: int) -> list[str]:
    return [str(EXAMPLES / "aiohttp_server.py"), "--port", str(FIRST), "--leases", str(leases)]


def uvicorn_server(leases: int, duration: int = 3600) -> list[str]:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    return ["-c", UVICORN, str(FIRST), str(leases), str(duration)]


def fastapi_example(leases: int) -> list[str]:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    assert leases == 1
    return [str(EXAMPLES / "fastapi_app.py"), "--port", str(FIRST)]


@contextmanager
def running(lab: Lab, words: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    with lab.inside("lan"):
        program = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        yield program
    finally:
        program.kill()
        program.wait()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ask(lab: Lab, port: int) -> str:
    """Ask for / from the internet, and return the reply; "" while nobody listens there."""
    with lab.inside("wan"):
        connection = http.client.HTTPConnection(EXTERNAL_ADDRESS, port, timeout=5.0)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return ""
        finally:
            connection.close()


def holds(router: Router, mappings: list[Mapping]) -> bool:
    try:
        return router.mappings() == mappings
    except (ValueError, RuntimeError):  # it changed between the one table and the other
        return False


def wanted(leases: int) -> list[Mapping]:
    return [Mapping("TCP", port, LAN_ADDRESS, port) for port in range(FIRST, FIRST + leases)]


@pytest.mark.parametrize(
    ("server", "leases", "reply"),
    [
        pytest.param(aiohttp_server, 1, "hello\n", id="aiohttp example"),
        pytest.param(aiohttp_server, LEASES, "hello\n", id="aiohttp with 50 leases"),
        pytest.param(fastapi_example, 1, EXTERNAL_ADDRESS, id="FastAPI example"),
        pytest.param(uvicorn_server, LEASES, "hello", id="uvicorn with 50 leases", marks=pytest.mark.long),
    ],
)
def test_a_server_is_reached_from_the_internet_and_leaves_nothing_when_it_is_told_to_stop(
    lab: Lab, router: Router, server: Callable[[int], list[str]], leases: int, reply: str
) -> None:
    with running(lab, server(leases)) as program:
        until(lambda: reply in ask(lab, FIRST))
        until(lambda: holds(router, wanted(leases)))  # those that are not required are mapped in the background
        program.send_signal(signal.SIGTERM)
        program.wait(PATIENCE)
    assert router.mappings() == []
    assert ask(lab, FIRST) == ""


async def test_a_server_that_is_killed_leaves_only_what_will_expire(lab: Lab, router: Router, inside_lan: None) -> None:
    with running(lab, aiohttp_server(LEASES)) as program:
        until(lambda: holds(router, wanted(LEASES)))
        program.kill()
        program.wait(PATIENCE)
    assert router.mappings() == wanted(LEASES)
    async with UpnpMapper() as mapper:
        left = [mapping async for mapping in (await mapper.get_gateway()).query_port_mappings()]
    assert {mapping.external_port for mapping in left} == set(range(FIRST, FIRST + LEASES))
    assert all(0 < mapping.duration <= 3600 for mapping in left)


def test_what_a_killed_server_leaves_does_expire(lab: Lab, router: Router) -> None:
    with running(lab, uvicorn_server(10, duration=4)) as program:
        until(lambda: "hello" in ask(lab, FIRST))
        assert router.mappings() == wanted(10)
        program.kill()
        program.wait(PATIENCE)
    until(lambda: holds(router, []))
