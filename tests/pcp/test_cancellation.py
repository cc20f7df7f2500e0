"""Each call by PCP and NAT-PMP, cancelled in the first, second, third … turn of the event loop until it is over.

After each of them there may be no task and no socket, no mapping that was not there before, and none may be gone that
was not to be deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

import pytest

from aioigd.models import MappingKey, MappingRequest, Pinhole, PinholeRequest, Terms
from aioigd.testing import EmulatedGateway, Quirk, quirks

from ..support import sockets
from .test_backend import BOTH, Core

Name = Literal["pcp", "nat-pmp"]
MOST_TURNS = 500
HELD = (7070, 70)
"""External and internal port of a mapping that this program has before each call."""
EARLIER = 6060
"""The port of a mapping that an earlier run has made."""
TAKEN = 9999
"""A port of another host."""

SLOWLY = "add, slowly"

Call = Callable[[Core], Awaitable[object]]


async def add_any(core: Core) -> None:
    await core.dispatcher.add_any(MappingRequest(MappingKey(TAKEN, "TCP"), 80, "", Terms("", 600)))


CALLS: dict[str, tuple[Call, set[int], list[Quirk[...] | str]]] = {
    "add": (lambda core: core.add(8080, 80), set(), []),
    SLOWLY: (lambda core: core.add(8080, 80), set(), [quirks.slow_pcp(0.05)]),
    "renew": (lambda core: core.add(*HELD), set(), []),
    "add on a port of another host": (lambda core: core.add(TAKEN, 80), set(), []),
    "add where another port is given": (lambda core: core.add(8080, 80), set(), ["internal_port_only"]),
    "add where an earlier run has mapped it": (lambda core: core.add(8080, EARLIER), {EARLIER}, ["keeps_first_port"]),
    "add any": (add_any, set(), []),
    "delete": (lambda core: core.delete(HELD[0]), {HELD[0]}, []),
    "delete what an earlier run has made": (lambda core: core.delete(EARLIER), {EARLIER}, []),
    "delete what is another host's": (lambda core: core.delete(TAKEN), set(), []),
    "delete what nobody has made": (lambda core: core.delete(5050), set(), []),
    "external address": (lambda core: core.dispatcher.external_address(), set(), []),
}


async def cut(call: Awaitable[object], turns: int, pause: float = 0.0) -> bool:
    """Cancel a call after so many turns of the event loop, or pauses, and return whether it was over before that."""

    async def run() -> None:
        await call

    task = asyncio.create_task(run())
    for _ in range(turns):
        await asyncio.sleep(pause)
    was_over = task.done()
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
    return was_over


async def settled(core: Core) -> None:
    await core.queue.drain()
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


def ports(gateway: EmulatedGateway) -> set[int]:
    return {each.external_port for each in gateway.mappings}


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.waits
async def test_what_is_cancelled_in_any_turn_leaves_nothing(protocol: Name, name: str) -> None:
    call, may_go, rules = CALLS[name]
    before = set() if "internal_port_only" in rules else {EARLIER, HELD[0]}
    async with EmulatedGateway(*rules, address=None, protocols=BOTH) as gateway:
        open_before = sockets()
        for turns in range(1, MOST_TURNS):
            for each in gateway.mappings:
                gateway.remove_mapping(each.external_port, each.proto)
            gateway.add_mapping(TAKEN, proto="TCP")
            core = Core(gateway, protocol)
            if before:
                await Core(gateway, protocol).add(EARLIER)
                await core.add(*HELD)
            else:
                await core.backend()
            was_over = await cut(call(core), turns, pause=0.005 if name == SLOWLY else 0.0)
            await settled(core)
            where = f"after {turns} turns"
            assert sockets() == open_before, where
            backend = await core.backend()
            assert "out=0 waiting=0" in repr(backend._state.limiter), where  # type: ignore[attr-defined]
            assert backend._state._turns == {}, where  # type: ignore[attr-defined]
            there = ports(gateway)
            assert was_over or there <= before | {TAKEN}, where
            assert before | {TAKEN} <= there | may_go, where
            await core.add(4040)  # it still works
            if was_over:
                break
        else:
            raise AssertionError("it never comes to its end")
        assert turns > 3
        assert gateway.problems == []


PINHOLE = PinholeRequest("", 8080, "UDP", "2001:db8::2", 0, 600)
CLOSED = Pinhole(0, "::1", 8080, "UDP", "2001:db8::3", 0, 600, "pcp")
PINHOLES: dict[str, tuple[Call, set[str]]] = {
    "open": (lambda core: core.dispatcher.add_pinhole(PINHOLE), set()),
    "prolong": (lambda core: core.dispatcher.add_pinhole(PINHOLE._replace(remote_host="2001:db8::1")), set()),
    "close": (lambda core: core.dispatcher.delete_pinhole(CLOSED), {"2001:db8::3"}),
}


@pytest.mark.parametrize("name", PINHOLES)
@pytest.mark.waits
async def test_what_is_cancelled_in_any_turn_leaves_no_pinhole(name: str) -> None:
    call, may_go = PINHOLES[name]
    there = {"2001:db8::1", "2001:db8::3"}
    async with EmulatedGateway(address="::1", protocols=("pcp",)) as gateway:
        open_before = sockets()
        for turns in range(1, MOST_TURNS):
            core = Core(gateway, "pcp")
            for host in there:
                await core.dispatcher.add_pinhole(PINHOLE._replace(remote_host=host))
            was_over = await cut(call(core), turns)
            await settled(core)
            where = f"after {turns} turns"
            assert sockets() == open_before, where
            found = {each.remote_host for each in gateway.firewall.pinholes}
            assert there - may_go <= found, where
            assert was_over or found <= there, where
            gateway.firewall.clear()
            if was_over:
                break
        else:
            raise AssertionError("it never comes to its end")
        assert turns > 3
