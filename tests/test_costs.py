"""What calls cost, in numbers that no machine changes: objects left for the collector, tasks, callbacks, timers."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import aioigd
from aioigd import IGDError, PortMapper, PortMapping
from aioigd.testing import EmulatedGateway, quirks

PACKAGE = str(Path(aioigd.__file__).parent)
WARM = range(1000, 1005)
"""Ports that are mapped before anything is counted."""
SERVE = """
import asyncio, sys
from aioigd.testing import EmulatedGateway

async def main():
    async with EmulatedGateway(address=None) as gateway:
        print(gateway.location, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture
def location() -> Iterator[str]:
    """The description of a gateway in a process of its own, so that what is counted is what the mapper does."""
    command = [sys.executable, "-c", SERVE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        yield served.stdout.readline().strip()
        served.communicate()


@pytest.fixture
async def mapper(location: str) -> AsyncIterator[PortMapper]:
    """A warm mapper of that gateway."""
    async with PortMapper(location=location) as mapper:
        for port in WARM:
            await mapper.add_port_mapping(port, desc="costs", proto="TCP")
        yield mapper


async def garbage_of(work: Callable[[], Awaitable[object]]) -> Counter[str]:
    """Return the types of the objects that only the garbage collector finds after some work, and how many."""
    await work()  # what is made once
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        await work()
        await asyncio.sleep(0.05)  # transports close in the next iterations
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.collect()
        if was_enabled:
            gc.enable()


async def call(mapper: PortMapper, callers: int) -> None:
    await asyncio.gather(*(mapper.add_port_mapping(8080, proto="TCP") for _ in range(callers)))


async def fail(mapper: PortMapper, callers: int) -> None:
    failures = await asyncio.gather(
        *(mapper.delete_port_mapping(9999, proto="TCP") for _ in range(callers)), return_exceptions=True
    )
    assert all(isinstance(failure, IGDError) for failure in failures)


async def leave(mapper: PortMapper, callers: int) -> None:
    tasks = [asyncio.create_task(mapper.add_port_mapping(8082, proto="TCP")) for _ in range(callers)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the call has begun
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


@pytest.mark.parametrize("behave", [call, fail, leave])
async def test_callers_who_agree_leave_no_more_for_the_collector_than_one_does(
    behave: Callable[[PortMapper, int], Awaitable[None]],
) -> None:
    async with EmulatedGateway(address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        await mapper.get_gateway()
        one, many = [await garbage_of(partial(behave, mapper, callers)) for callers in (1, 1_000)]
    assert many.total() < one.total() + 50, many - one


@pytest.mark.skipif(sys.platform == "win32", reason="its event loop has transports of another kind")
async def test_a_batch_leaves_next_to_nothing_for_the_collector(mapper: PortMapper) -> None:
    async def batch() -> None:
        await asyncio.gather(*(mapper.add_port_mapping(port, proto="TCP") for port in range(2000, 2100)))

    garbage = await garbage_of(batch)
    assert garbage.total() < 50, garbage


async def test_a_mapping_that_waits_for_its_turn_is_little_for_the_collector_to_look_at() -> None:
    """The coroutines of eleven functions are the most of it; a full collection looks at all of a batch."""
    asyncio.get_running_loop().set_debug(False)  # it remembers where each future was made

    async def waiting(mapper: PortMapper, ports: range) -> list[asyncio.Task[PortMapping]]:
        tasks = [asyncio.create_task(mapper.add_port_mapping(port, proto="TCP")) for port in ports]
        await asyncio.sleep(0.05)
        gc.collect()
        return tasks

    async with EmulatedGateway(quirks.slow(0.5)) as gateway, PortMapper(source_address=gateway.address) as mapper:
        await mapper.get_gateway()
        tasks = await waiting(mapper, range(20_000, 20_020))
        before = len(gc.get_objects())
        tasks += await waiting(mapper, range(21_000, 21_500))
        added = len(gc.get_objects()) - before
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert added < 22 * 500


class Counts:
    """What the running loop is asked for in a block."""

    def __init__(self) -> None:
        self.loop: Any = asyncio.get_running_loop()
        self.of: Counter[str] = Counter()

    def __enter__(self) -> Counter[str]:
        for name in ("call_soon", "call_at"):
            setattr(self.loop, name, self._counting(name))
        self.loop.set_task_factory(self._make_task)
        return self.of

    def __exit__(self, *_: object) -> None:
        for name in ("call_soon", "call_at"):
            delattr(self.loop, name)
        self.loop.set_task_factory(None)

    def _counting(self, name: str) -> Callable[..., Any]:
        real = getattr(self.loop, name)

        def counted(*args: Any, **options: Any) -> Any:
            self.of[name] += 1
            return real(*args, **options)

        return counted

    def _make_task(self, loop: Any, work: Any, **options: Any) -> Any:
        self.of["tasks"] += work.cr_code.co_filename.startswith(PACKAGE)
        return asyncio.Task(work, loop=loop, **options)


async def test_a_warm_call_takes_one_task_two_callbacks_and_one_timer_more_than_its_request(
    mapper: PortMapper,
) -> None:
    """A request alone is what aiohttp does for it; beside it a call is begun, and its caller is woken."""
    device = (await mapper.get_gateway()).device
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:

        async def request() -> None:
            async with session.post(device.igd_control_url, data=b"<x/>") as response:
                await response.read()

        await request()
        fewest: list[Counter[str]] = []
        for work in (request, lambda: mapper.add_port_mapping(WARM[0], desc="costs", proto="TCP")):
            runs = []
            for _ in range(9):  # a reply may come in two pieces
                with Counts() as counts:
                    await work()
                runs.append(counts)
            fewest.append(min(runs, key=lambda each: each["call_soon"]))
    bare, ours = fewest
    assert ours["tasks"] == 1
    assert ours["call_soon"] <= bare["call_soon"] + 2
    assert ours["call_at"] <= bare["call_at"] + 1
