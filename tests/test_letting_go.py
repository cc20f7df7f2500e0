"""However the owner of a port ends, the port is closed: scopes, cancellations, loops that end, generators, signals."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
import pytest
import uvloop

import aioigd
from aioigd import IGDError, PortMapper
from aioigd.testing import EmulatedGateway, quirks

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


def anyio_run(main: Coroutine[Any, Any, Any]) -> Any:
    async def call() -> Any:
        return await main

    return anyio.run(call)


RUNNERS: dict[str, Runner] = {"asyncio": asyncio.run, "uvloop": uvloop.run, "anyio": anyio_run}


@pytest.fixture(params=list(RUNNERS))
def run(request: pytest.FixtureRequest) -> Runner:
    """Run a main coroutine in a loop of its own, as a program does; the gateway lives in another thread's loop."""
    return RUNNERS[request.param]


class Beside:
    """An emulated gateway in a loop of its own, which outlives the loop of the program."""

    def __init__(self, *gateway_quirks: Any) -> None:
        self._quirks = gateway_quirks

    def __enter__(self) -> EmulatedGateway:
        self._portal_context = anyio.from_thread.start_blocking_portal()
        self._portal = self._portal_context.__enter__()
        self._gateway_context = self._portal.wrap_async_context_manager(EmulatedGateway(*self._quirks, address=None))
        return self._gateway_context.__enter__()

    def __exit__(self, *_: object) -> None:
        self._gateway_context.__exit__(None, None, None)
        self._portal_context.__exit__(None, None, None)


@asynccontextmanager
async def leased(gateway: EmulatedGateway, *ports: int) -> AsyncIterator[PortMapper]:
    async with PortMapper(source_address=gateway.address) as mapper, mapper.lease(list(ports or (8080, 8081))):
        assert len(gateway.mappings) == len(ports or (8080, 8081))
        yield mapper


async def leave_by_move_on_after(gateway: EmulatedGateway) -> None:
    with anyio.move_on_after(0.3):
        async with leased(gateway):
            await anyio.sleep(60)


async def leave_by_fail_after(gateway: EmulatedGateway) -> None:
    with suppress(TimeoutError), anyio.fail_after(0.3):
        async with leased(gateway):
            await anyio.sleep(60)


async def leave_by_a_cancelled_task_group(gateway: EmulatedGateway) -> None:
    async def hold(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with leased(gateway):
            task_status.started()
            await anyio.sleep(60)

    async with anyio.create_task_group() as group:
        await group.start(hold)
        group.cancel_scope.cancel()


async def leave_by_an_error_in_a_sibling(gateway: EmulatedGateway) -> None:
    async def fail() -> None:
        await anyio.sleep(0.2)
        raise ZeroDivisionError

    with suppress(BaseExceptionGroup):
        async with anyio.create_task_group() as group, leased(gateway):
            group.start_soon(fail)
            await anyio.sleep(60)


async def leave_by_first_completed(gateway: EmulatedGateway) -> None:
    async def hold() -> None:
        async with leased(gateway):
            await asyncio.sleep(60)

    task = asyncio.ensure_future(hold())
    await asyncio.wait({task, asyncio.ensure_future(asyncio.sleep(0.3))}, return_when=asyncio.FIRST_COMPLETED)
    task.cancel()


async def leave_by_returning(gateway: EmulatedGateway) -> None:
    async def hold() -> None:
        async with leased(gateway):
            await asyncio.sleep(60)

    task = asyncio.ensure_future(hold())
    await asyncio.sleep(0.3)
    assert not task.done()


async def leave_a_generator(gateway: EmulatedGateway) -> None:
    async def ports() -> AsyncIterator[int]:
        async with leased(gateway):
            yield 1
            yield 2

    async for _ in ports():
        break


async def leave_by_a_storm(gateway: EmulatedGateway) -> None:
    async def hold() -> None:
        async with leased(gateway):
            await asyncio.sleep(60)

    task = asyncio.ensure_future(hold())
    await asyncio.sleep(0.3)
    for _ in range(30):
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
        await asyncio.sleep(0)
    assert task.done()


async def leave_an_awaited_lease(gateway: EmulatedGateway) -> None:
    mapper = PortMapper(source_address=gateway.address)
    lease = await mapper.lease([8080, 8081])
    closing = asyncio.ensure_future(lease.release())
    await asyncio.sleep(0)
    closing.cancel()
    closing = asyncio.ensure_future(mapper.close())
    await asyncio.sleep(0)
    closing.cancel()


ENDS = [
    leave_by_move_on_after,
    leave_by_fail_after,
    leave_by_a_cancelled_task_group,
    leave_by_an_error_in_a_sibling,
    leave_by_first_completed,
    leave_by_returning,
    leave_a_generator,
    leave_by_a_storm,
    leave_an_awaited_lease,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_however_a_lease_ends_its_ports_are_closed(
    run: Runner, end: Callable[[EmulatedGateway], Coroutine[Any, Any, None]]
) -> None:
    with Beside() as gateway:
        run(end(gateway))
        assert gateway.mappings == []


@pytest.mark.parametrize("rounds", [*range(12), 20, 35, 50])
def test_a_loop_may_end_any_number_of_rounds_after_its_owner(rounds: int) -> None:
    async def main(gateway: EmulatedGateway) -> None:
        async def hold() -> None:
            async with leased(gateway):
                await asyncio.sleep(60)

        task = asyncio.ensure_future(hold())
        while len(gateway.mappings) < 2:  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        for _ in range(rounds):
            await asyncio.sleep(0)

    with Beside() as gateway:
        asyncio.run(main(gateway))
        assert gateway.mappings == []


async def add_by_a_mapper(gateway: EmulatedGateway) -> None:
    async with PortMapper(source_address=gateway.address) as mapper:
        await mapper.add_port_mapping(8080)


async def add_by_a_function(gateway: EmulatedGateway) -> None:
    await aioigd.add_port_mapping(8080, source_address=gateway.address)


@pytest.mark.parametrize("add", [add_by_a_mapper, add_by_a_function], ids=lambda add: add.__name__)
@pytest.mark.parametrize("seconds", [0.02, 0.08, 0.15, 0.25])
def test_a_plain_call_in_a_scope_that_ends_leaves_nothing(
    run: Runner, add: Callable[[EmulatedGateway], Awaitable[None]], seconds: float
) -> None:
    """A slow router carries out what was asked for after its caller has gone."""

    async def main(gateway: EmulatedGateway) -> bool:
        with anyio.move_on_after(seconds) as scope:
            await add(gateway)
        return scope.cancelled_caught

    with Beside(quirks.slow_add) as gateway:
        assert run(main(gateway))
        assert gateway.mappings == []


def test_a_release_can_keep_the_mappings() -> None:
    async def main(gateway: EmulatedGateway) -> None:
        async with PortMapper(source_address=gateway.address) as mapper:
            lease = await mapper.lease(8080)
            await lease.release(keep=True)
            await lease.release()

    with Beside() as gateway:
        asyncio.run(main(gateway))
        assert [mapping.external_port for mapping in gateway.mappings] == [8080]


def test_a_loop_that_is_just_closed_is_said_once() -> None:
    async def main(gateway: EmulatedGateway) -> PortMapper:
        mapper = PortMapper(source_address=gateway.address)
        await mapper.lease([8080, 8081], proto="TCP")
        return mapper

    with Beside() as gateway:
        loop = asyncio.new_event_loop()
        mapper = loop.run_until_complete(main(gateway))
        loop.set_exception_handler(lambda *_: None)
        loop.close()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            asyncio.run(mapper.close())  # from another loop: it frees what is left
            del mapper, loop
            gc.collect()
            gc.collect()
        said = [str(one.message) for one in caught if "stay open" in str(one.message)]
        assert len(said) == 1
        assert "TCP 8080" in said[0]
        assert "TCP 8081" in said[0]
        assert len(gateway.mappings) == 2


@pytest.mark.parametrize("at", ["add", "lease", "function"])
def test_a_coroutine_that_is_closed_while_it_waits_raises_nothing(at: str, recwarn: pytest.WarningsRecorder) -> None:
    async def main(gateway: EmulatedGateway) -> None:
        async with PortMapper(source_address=gateway.address) as mapper:
            await mapper.get_gateway()

            async def hold() -> None:
                async with mapper.lease(8080):
                    await asyncio.sleep(60)

            makers: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
                "add": partial(mapper.add_port_mapping, 8080),
                "lease": hold,
                "function": partial(aioigd.add_port_mapping, 8080, source_address=gateway.address),
            }
            work = makers[at]()
            work.send(None)
            await asyncio.sleep(0.2)
            work.close()

    with Beside() as gateway:
        asyncio.run(main(gateway))
        assert gateway.mappings == []
    assert not list(recwarn)


def test_without_a_running_asyncio_loop_an_error_says_so() -> None:
    for work in (PortMapper().add_port_mapping(8080), aioigd.add_port_mapping(8080), PortMapper().get_gateway()):
        with pytest.raises(IGDError, match="asyncio event loop"):
            work.send(None)
