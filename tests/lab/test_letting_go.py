"""What is taken back from a real router, however the program lets go of it."""

from __future__ import annotations

import asyncio

import anyio

from .network import LAN_ADDRESS, UpnpMapper
from .router import Mapping, Router

PORTS = (20000, 20001)
BOTH = [Mapping("TCP", port, LAN_ADDRESS, port) for port in PORTS]


async def are_gone(router: Router) -> None:
    """They are deleted in the background: who waited may leave at once."""
    async with asyncio.timeout(30.0):
        while await asyncio.to_thread(router.mappings):  # noqa: ASYNC110 - the router announces nothing
            await asyncio.sleep(0.05)


async def test_a_scope_of_anyio_that_ends_a_lease_leaves_nothing(router: Router, inside_lan: None) -> None:
    with anyio.move_on_after(3.0) as scope:
        async with UpnpMapper() as mapper, mapper.lease(PORTS, proto="TCP"):
            assert router.mappings() == BOTH
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    await are_gone(router)


async def test_a_task_that_fails_beside_a_lease_leaves_nothing(router: Router, inside_lan: None) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    try:
        async with UpnpMapper() as mapper, anyio.create_task_group() as group, mapper.lease(PORTS, proto="TCP"):
            group.start_soon(fail)
            await anyio.sleep_forever()
    except* ZeroDivisionError:
        pass
    await are_gone(router)


async def test_a_call_that_is_cancelled_in_the_middle_leaves_nothing(router: Router, inside_lan: None) -> None:
    async with UpnpMapper() as mapper:
        await mapper.discover()
        for delay in (0.0, 0.001, 0.003, 0.006, 0.01):
            call = asyncio.create_task(mapper.add_port_mapping(PORTS[0], proto="TCP"))
            await asyncio.sleep(delay)
            if not call.cancel():
                await mapper.delete_port_mapping(PORTS[0], proto="TCP")
            await asyncio.wait([call])
    assert router.mappings() == []


def test_a_program_that_just_returns_leaves_nothing(router: Router, inside_lan: None) -> None:
    async def main() -> None:
        is_there = asyncio.Event()

        async def keep() -> None:
            async with UpnpMapper() as mapper, mapper.lease(PORTS, proto="TCP"):
                is_there.set()
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(keep()), asyncio.create_task(is_there.wait())]
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert router.mappings() == BOTH
        for task in pending:
            task.cancel()

    asyncio.run(main())
    assert router.mappings() == []
