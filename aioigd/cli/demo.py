"""``aioigd demo``: what the library does, step by step, with an emulated router on loopback.

It works without click and rich, so its entry among the subcommands is in app.py. Nothing leaves this machine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import Final

from .. import ChangeKind, IGDError, Lease, PortMapper
from ..testing import EmulatedGateway, quirks
from .streams import BROKEN_PIPE_CODE, flush, is_broken_pipe

__all__ = ["demo"]

_BATCH: Final = range(20_000, 20_100)
_CALLERS: Final = 10_000
_PAGE: Final = b"<h1>Hello, internet!</h1>"
_RESTART_TIMEOUT: Final = 15.0
"""Seconds until the lease must have noticed that the router restarted; it takes a fraction of one."""


def demo() -> int:
    """Run the demo, print each step, and return the exit code."""
    log = logging.getLogger("aioigd")
    if not log.handlers:
        log.addHandler(logging.NullHandler())  # or Python writes among the steps that a lease is lost for a moment
    try:
        asyncio.run(_demo())
    except KeyboardInterrupt:
        return 130
    except (IGDError, OSError) as error:
        if is_broken_pipe(error):
            flush()
            return BROKEN_PIPE_CODE
        print(f"\nThe demo needs loopback and UDP port 1900 on it: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


async def _demo() -> None:
    async with EmulatedGateway(address=None, forward=True) as router:
        _print_heading("A router of its own")
        _print_step(f"An emulated router is up at {router.location}")
        _print_step(f"Its internet side is {router.internet_side}: what is mapped is open there, and nothing else.")
        outside = _free_port(router.internet_side)
        async with _web_server(router.address) as port, PortMapper(source_address=router.address) as mapper:
            await _open_a_port(mapper, router, outside, port)
            await _open_many(mapper, router)
            await _list_and_delete(mapper, router, outside)
            await _keep_through_a_restart(mapper, router, outside, port)
    await _fall_back()
    _print_heading("Done")
    _print_step("Nothing is left open.")


async def _open_a_port(mapper: PortMapper, router: EmulatedGateway, outside: int, port: int) -> None:
    _print_heading("One port")
    _print_step(
        f"A web server listens on {router.address}:{port}. From the internet side: {await _fetch(router, outside)}"
    )
    start = perf_counter()
    mapping = await mapper.add_port_mapping(outside, port, "my site", "TCP", 3600)
    _print_step(f"Found the router and mapped TCP port {outside} in {_milliseconds(start)}: lease {mapping.duration} s")
    _print_step(f"To the world it is {await mapper.query_external_address()}:{mapping.external_port}")
    _print_step(f"From the internet side: {await _fetch(router, outside)}")


async def _open_many(mapper: PortMapper, router: EmulatedGateway) -> None:
    _print_heading("Many at once")
    start = perf_counter()
    await asyncio.gather(*(mapper.add_port_mapping(port, desc="batch") for port in _BATCH))
    _print_step(f"Mapped {len(_BATCH)} UDP ports concurrently in {_milliseconds(start)}")
    before = router.count("AddPortMapping")
    start = perf_counter()
    await asyncio.gather(*(mapper.add_port_mapping(30_000) for _ in range(_CALLERS)))
    requests = router.count("AddPortMapping") - before
    _print_step(
        f"Asked {_CALLERS:,} times at once for one port in {_milliseconds(start)}: the router saw {requests} request"
    )


async def _list_and_delete(mapper: PortMapper, router: EmulatedGateway, outside: int) -> None:
    _print_heading("The table")
    gateway = await mapper.get_gateway()
    mappings = [mapping async for mapping in gateway.query_port_mappings()]
    _print_step(f"The router lists {len(mappings)} mappings, the first three of them:")
    for mapping in mappings[:3]:
        to = f"{mapping.internal_client}:{mapping.internal_port}"
        left = f"{mapping.duration} s left" if mapping.duration else "no limit"
        _print_step(f"    {mapping.proto} {mapping.external_port} -> {to}  {mapping.desc!r}, {left}")
    try:
        await gateway.add_port_mapping(outside, 9090, proto="TCP")
    except IGDError as error:
        _print_step(f"Asked not to replace anything, it says: {error}")
    await asyncio.gather(
        mapper.delete_port_mapping(outside, "TCP"),
        mapper.delete_port_mapping(30_000),
        *(mapper.delete_port_mapping(port) for port in _BATCH),
    )
    _print_step(
        f"Deleted them all: {len(router.mappings)} are left. From the internet side: {await _fetch(router, outside)}"
    )


async def _keep_through_a_restart(mapper: PortMapper, router: EmulatedGateway, outside: int, port: int) -> None:
    _print_heading("A lease, and a router that restarts")
    # Event loops without readers (Windows) hear no notices of a restart, so it has to be polled for.
    async with mapper.lease(outside, port, "my site", "TCP", poll_interval=1.0) as lease:
        _print_step(
            f"Holding TCP port {outside}, {lease.state.value}. From the internet side: {await _fetch(router, outside)}"
        )
        back = asyncio.ensure_future(_until_back(lease))
        start = perf_counter()
        await router.restart()
        _print_step(f"The router restarted: {len(router.mappings)} mappings, and its controls are on another port now")
        async with asyncio.timeout(_RESTART_TIMEOUT):
            await back
        _print_step(
            f"The mapping is back after {_milliseconds(start)}. From the internet side: {await _fetch(router, outside)}"
        )
    _print_step(
        f"The block is left: {len(router.mappings)} mappings. From the internet side: {await _fetch(router, outside)}"
    )


async def _until_back(lease: Lease) -> None:
    async for change in lease.changes():
        if change.kind is ChangeKind.BACK:
            return


async def _fall_back() -> None:
    _print_heading("A router that refuses leases, and wants plain words")
    stubborn = EmulatedGateway(quirks.refuses_leases, quirks.plain_descriptions_only, address=None)
    async with stubborn as router, PortMapper(source_address=router.address) as mapper:
        start = perf_counter()
        mapping = await mapper.add_port_mapping(8080, desc="Zoë's site (beta)", proto="TCP", duration=3600)
        _print_step(f"Asked for an hour and “Zoë's site (beta)”. Mapped in {_milliseconds(start)} all the same:")
        _print_step(f"    {mapping.desc!r}, {f'{mapping.duration} s' if mapping.duration else 'no limit'}")
        first = router.count("AddPortMapping")
        await mapper.add_port_mapping(8081, desc="Zoë's site (beta)", proto="TCP", duration=3600)
        second = router.count("AddPortMapping") - first
        _print_step(f"It took {first} requests; for the next port {second}, as the library remembers what it is like")
        await mapper.delete_port_mapping(8080, "TCP")
        await mapper.delete_port_mapping(8081, "TCP")


@asynccontextmanager
async def _web_server(address: str) -> AsyncIterator[int]:
    """Serve one page on a port of this machine, and yield that port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(_PAGE)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + _PAGE)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, address, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _fetch(router: EmulatedGateway, port: int) -> str:
    """Fetch the page as a browser on the internet does, and return it, or why that failed."""
    try:
        reader, writer = await asyncio.open_connection(router.internet_side, port)
    except OSError:
        return f"port {port} is closed"
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: {router.external_address}\r\nConnection: close\r\n\r\n".encode())
        reply = await reader.read()
    except OSError:
        return f"port {port} leads nowhere"
    finally:
        writer.close()
    return reply.rpartition(b"\r\n")[2].decode()


def _free_port(address: str) -> int:
    """Return 8080, or another port where 8080 is in use."""
    for port in (8080, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((address, port))
            return int(probe.getsockname()[1])
    return 8080


def _milliseconds(start: float) -> str:
    return f"{(perf_counter() - start) * 1000:.0f} ms"


def _print_heading(text: str) -> None:
    is_plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    _print_line(f"\n{text}" if is_plain else f"\n\x1b[1;36m{text}\x1b[0m")


def _print_step(text: str) -> None:
    _print_line(f"  {text}")


def _print_line(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a demo prints
