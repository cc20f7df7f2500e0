"""Each public operation, cancelled at its first, second, third … step until it comes to its end.

The default run takes every third step, and ``-m long`` all of them.

A step is one turn of any task of the event loop, the emulated gateway's included: so the cancellation falls between
any two things that happen, also after the gateway has done what was asked and before its answer has arrived. After
each of them nothing may be left: no task, no socket, no session, and no mapping that was not there before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

import aioigd
from aioigd import PortMapper
from aioigd.results import ProtocolName
from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.testing.hooks import Exchange
from aioigd.testing.http import Response
from aioigd.upnp.backend import UpnpBackend

from .support import connected, odd, page, refuses, settled_loop, sockets

pytestmark = pytest.mark.usefixtures("nothing_is_left")

ADD = "AddPortMapping"
MOST_STEPS = 2000
EVERY = 3
"""Of an operation, the default run takes each third step, and of the next operation those beside them."""
in_steps = pytest.mark.parametrize("every", [EVERY, pytest.param(1, marks=pytest.mark.long)])


class Stepwise(Coroutine[Any, Any, Any]):
    """A coroutine that tells of each of its steps."""

    def __init__(self, inner: Any, tick: Callable[[], None]) -> None:
        self._inner = inner
        self._tick = tick

    def send(self, value: Any) -> Any:
        self._tick()
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        self._tick()
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError


class Axe:
    """Counts the steps of all tasks, and cancels one task at a given step."""

    def __init__(self) -> None:
        self._victim: asyncio.Task[Any] | None = None
        self._left = 0
        self._loop = asyncio.get_running_loop()
        self._loop.set_task_factory(self._make_task)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(Stepwise(coroutine, self._tick), loop=loop, **options)

    def _tick(self) -> None:
        if self._victim is None:
            return
        self._left -= 1
        # Never in the middle of its own turn: a caller that has its result already is not what is tested.
        if self._left <= 0 and asyncio.current_task() is not self._victim:
            victim, self._victim = self._victim, None
            victim.cancel()

    async def cut(self, operation: Coroutine[Any, Any, Any], step: int) -> bool:
        """Run an operation that is cancelled at a step; tell whether it was over before that."""
        task = self._loop.create_task(operation)
        self._victim, self._left = task, step
        await asyncio.wait({task})
        over_before = self._victim is not None
        self._victim = None
        if not task.cancelled():
            task.exception()
        return over_before


Operation = Callable[[PortMapper, EmulatedGateway], Awaitable[object]]


async def map_at_the_gateway(mapper: PortMapper, _: EmulatedGateway) -> None:
    await (await mapper.get_gateway()).add_port_mapping(8080)


async def map_twice(mapper: PortMapper, _: EmulatedGateway) -> None:
    await asyncio.gather(mapper.add_port_mapping(8080), mapper.add_port_mapping(8080))


async def map_one_after_another(mapper: PortMapper, _: EmulatedGateway) -> None:
    await asyncio.gather(*(mapper.add_port_mapping(8080, desc=str(number)) for number in range(3)))


async def map_after_a_restart(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    await mapper.add_port_mapping(8080)


def sloppy(exchange: Exchange, response: Response) -> Response:
    return page("<html>done</html>") if exchange.action == ADD else response


SEVERAL_CALLERS = ("add, twice at once", "add, one after another")
"""Here one of the calls may have had its result when the whole is cancelled; what it made is its own business."""

OPERATIONS: dict[str, tuple[Operation, list[Quirk[...]]]] = {
    "get_gateway": (lambda mapper, _: mapper.get_gateway(), []),
    "discover": (lambda mapper, _: mapper.discover(0.02), []),
    "add": (lambda mapper, _: mapper.add_port_mapping(8080), []),
    "add, verified": (lambda mapper, _: mapper.add_port_mapping(8080, verify=True), []),
    "add, with a conflict": (lambda mapper, _: mapper.add_port_mapping(9999), []),
    "add, with a doubtful answer": (lambda mapper, _: mapper.add_port_mapping(8080), [odd(response=sloppy)]),
    "add, on other terms": (
        lambda mapper, _: mapper.add_port_mapping(8080, duration=60),
        [refuses(ADD, 725, lambda call: call.arguments["NewLeaseDuration"] != "0")],
    ),
    "add, twice at once": (map_twice, []),
    "add, one after another": (map_one_after_another, []),
    "add, at the gateway": (map_at_the_gateway, []),
    "delete": (lambda mapper, _: mapper.delete_port_mapping(9999), []),
    "query": (lambda mapper, _: mapper.query_external_address(), []),
}


async def sweep(
    axe: Axe,
    gateway: EmulatedGateway,
    operation: Operation,
    *,
    warm: bool = True,
    undone: bool = True,
    protocols: Sequence[ProtocolName] = ("upnp",),
    steps: range,
) -> int:
    """Cancel an operation at each of the steps; return how many there were."""
    for step in steps:
        gateway.add_mapping(9999)
        before = {each.key for each in gateway.mappings}
        open_before = sockets()
        mapper = PortMapper(source_address=gateway.address, protocols=protocols)
        if warm:
            await mapper.get_gateway()

        async def operate(mapper: PortMapper = mapper) -> None:
            await operation(mapper, gateway)

        over = await axe.cut(operate(), step)
        await mapper._release_sockets()
        where = f"after a cancellation at step {step}"
        assert "0 calls under way" in repr(mapper), where
        if undone and not over:
            assert {each.key for each in gateway.mappings} <= before, where
        backend = mapper._cache.last
        if isinstance(backend, UpnpBackend):
            assert "out=0 waiting=0" in repr(backend._client.state.limiter), where
        await mapper.query_external_address()  # it still works
        await mapper.close()
        await settled_loop()
        await gateway_is_idle(gateway)
        assert asyncio.all_tasks() == {asyncio.current_task()}, where
        assert sockets() == open_before, where
        gateway.remove_mapping(8080)
        if over:
            return step
    raise AssertionError("it never comes to its end")


async def gateway_is_idle(gateway: EmulatedGateway) -> None:
    for _ in range(10_000):
        if not gateway.open_connections:
            break
        await asyncio.sleep(0)


@asynccontextmanager
async def chopping(
    *rules: Quirk[...], protocols: Sequence[ProtocolName] = ("upnp",)
) -> AsyncIterator[tuple[Axe, EmulatedGateway]]:
    loop = asyncio.get_running_loop()
    async with EmulatedGateway(*rules, address=None, protocols=protocols) as gateway:
        try:
            yield Axe(), gateway
        finally:
            loop.set_task_factory(None)


def steps_of(name: str, names: Iterable[str], every: int) -> range:
    return range(1 + list(names).index(name) % every, MOST_STEPS, every)


@pytest.mark.parametrize("name", OPERATIONS)
@in_steps
async def test_an_operation_that_is_cancelled_at_any_step_leaves_nothing(name: str, every: int) -> None:
    operation, rules = OPERATIONS[name]
    async with chopping(*rules) as (axe, gateway):
        steps = await sweep(
            axe,
            gateway,
            operation,
            warm=name not in ("get_gateway", "discover"),
            undone=name not in SEVERAL_CALLERS,
            steps=steps_of(name, OPERATIONS, every),
        )
        assert steps > 5


@in_steps
async def test_an_operation_that_has_to_search_first_leaves_nothing(every: int) -> None:
    async with chopping() as (axe, gateway):
        steps = range(1, MOST_STEPS, every)
        assert await sweep(axe, gateway, OPERATIONS["add"][0], warm=False, steps=steps) > 20


ORDERS: dict[str, tuple[Sequence[ProtocolName], list[Quirk[...]]]] = {
    "PCP first": (("pcp", "nat-pmp", "upnp"), []),
    "NAT-PMP alone": (("nat-pmp",), []),
    "PCP refuses": (("pcp", "upnp"), [quirks.pcp_refuses_mappings()]),
    "PCP is silent": (("pcp", "nat-pmp", "upnp"), [quirks.pcp_ignored()]),
    "UPnP refuses": (("upnp", "pcp"), [odd(response=sloppy)]),
}


@pytest.mark.parametrize(
    ("name", "is_known"),
    [
        # Each undo at a silent router takes two seconds.
        pytest.param(name, is_known, marks=pytest.mark.long if name == "PCP is silent" and not is_known else ())
        for name in ORDERS
        for is_known in (True, False)
    ],
)
@in_steps
async def test_a_mapping_by_any_protocol_that_is_cancelled_at_any_step_leaves_nothing(
    name: str, is_known: bool, every: int
) -> None:
    protocols, rules = ORDERS[name]
    of_it = steps_of(name, ORDERS, every)
    async with chopping(*rules, protocols=("upnp", "pcp", "nat-pmp")) as (axe, gateway):
        steps = await sweep(axe, gateway, OPERATIONS["add"][0], warm=is_known, protocols=protocols, steps=of_it)
        assert steps > 3


@pytest.mark.waits
async def test_an_operation_that_has_to_search_again_leaves_nothing() -> None:
    async with chopping() as (axe, gateway):
        for step in range(1, MOST_STEPS, 3):
            async with PortMapper(source_address=gateway.address) as mapper:
                await mapper.get_gateway()
                await gateway.restart()
                over = await axe.cut(_coroutine(mapper.add_port_mapping(8080)), step)
                await mapper._release_sockets()
                assert over or gateway.mappings == [], f"after a cancellation at step {step}"
            if over:
                break
        assert step > 20


async def test_a_plain_function_that_is_cancelled_at_any_step_leaves_nothing_open() -> None:
    async with chopping() as (axe, gateway):
        for step in range(1, MOST_STEPS):
            before = sockets()
            over = await axe.cut(aioigd.add_port_mapping(8080, source_address=gateway.address), step)
            await settled_loop()
            await gateway_is_idle(gateway)
            assert sockets() == before, f"after a cancellation at step {step}"
            assert over or gateway.mappings == [], f"after a cancellation at step {step}"
            if over:
                break
        assert step > 10


@pytest.mark.parametrize("ending", ["close", "_release_sockets"])
@pytest.mark.waits
async def test_an_ending_that_is_cancelled_at_any_step_leaves_nothing(ending: str) -> None:
    async with chopping() as (axe, gateway):
        for step in range(1, MOST_STEPS):
            before = sockets()
            mapper = PortMapper(source_address=gateway.address)
            await mapper.get_gateway()
            under_way = asyncio.ensure_future(mapper.add_port_mapping(8080))
            await asyncio.sleep(0.002)
            over = await axe.cut(getattr(mapper, ending)(), step)
            await asyncio.wait({under_way})
            await mapper.close()  # it may not even have begun
            await settled_loop()
            await gateway_is_idle(gateway)
            assert sockets() == before, f"after a cancellation at step {step}"
            gateway.remove_mapping(8080)
            if over:
                break
        assert step > 1


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
async def test_a_timeout_of_the_callers_leaves_nothing(known: bool) -> None:
    async with connected() as (gateway, mapper):
        for number in range(500):
            if known:
                await mapper.get_gateway()
            else:
                mapper.devices.clear()
            try:
                async with asyncio.timeout(0.0004 * number * (1 + number // 100)):  # a busy machine needs longer
                    await mapper.add_port_mapping(8080)
            except TimeoutError:
                await mapper._release_sockets()
                assert gateway.mappings == []
            else:
                break
        else:
            raise AssertionError("it never comes to its end")


async def _coroutine(awaitable: Awaitable[object]) -> object:
    return await awaitable
