"""Whatever a router says, and in whatever order: calls end, in time, with few requests, and claim nothing untrue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from aioigd import IGDError, PortMapper, PortMapping
from aioigd.core.calls import LONGEST_ROLLBACK
from aioigd.models import MappingKey

from .liar import ADDRESS, HONEST, HastyLoop, Liar, Lie, Reaction

TIMEOUT = 10.0
SETTLING = 4.0
"""Seconds that a cancelled call may take to undo what it did, and that one may take on top in all."""
MOST_REQUESTS = 300
"""Of one call: a table of 256 entries may have to be walked through once."""

PORTS = st.integers(1, 4)
CODES = st.sampled_from([401, 402, 403, 501, 600, 606, 713, 714, 718, 724, 725, 726, 728, 729, 730, 0, -911, 99999])
STATUSES = st.sampled_from([0, 200, 204, 301, 400, 404, 405, 500, 503, 999])
BODIES = st.sampled_from([b"", b"OK", b"<html/>", b"\0", b"<s:Envelope/>", b"<a", b"\xff\xfe<", b"<!DOCTYPE x>"])
REACTIONS = st.one_of(
    st.just(HONEST),
    st.builds(Reaction, st.sampled_from([Lie.REFUSES, Lie.REFUSES_DONE]), CODES),
    st.builds(Reaction, st.sampled_from([Lie.GIBBERISH, Lie.GIBBERISH_DONE, Lie.WRONG_STATUS]), STATUSES, BODIES),
    st.builds(
        Reaction,
        st.sampled_from([each for each in Lie if each not in (Lie.REFUSES, Lie.REFUSES_DONE)]),
        STATUSES,
        BODIES,
    ),
)
SCRIPTS = st.lists(REACTIONS, max_size=12)


class Router(RuleBasedStateMachine):
    """A mapper and a router that lies as hypothesis tells it to."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = HastyLoop()
        self.liar = Liar(self.loop)
        self.patches: list[Any] = [
            mock.patch("aioigd.upnp.driver.HttpClient", return_value=self.liar),
            mock.patch("aioigd.upnp.search.SsdpSearch", self.liar.search),
        ]
        for patch in self.patches:
            patch.start()
        self.mapper = PortMapper(source_address=ADDRESS, timeout=TIMEOUT, discovery_timeout=3)

    def teardown(self) -> None:
        self.liar.begin([])
        self.loop.run_until_complete(self.mapper.close())
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()
        for patch in self.patches:
            patch.stop()

    @invariant()
    def nothing_is_left_under_way(self) -> None:
        assert not asyncio.all_tasks(self.loop)

    # What a program does

    @rule(
        port=PORTS,
        script=SCRIPTS,
        afterwards=REACTIONS,
        desc=st.sampled_from(["", "Ünser Spiel"]),
        verify=st.booleans(),
    )
    def add(self, port: int, script: list[Reaction], afterwards: Reaction, desc: str, verify: bool) -> None:
        work = self.mapper.add_port_mapping(port, desc=desc, duration=60, verify=verify)
        mapping = self.outcome(work, script, afterwards)
        if mapping is not None:
            assert self.router_said_it_is_mapped(mapping)

    @rule(port=PORTS, script=SCRIPTS, afterwards=REACTIONS)
    def add_without_replacing(self, port: int, script: list[Reaction], afterwards: Reaction) -> None:
        async def add() -> PortMapping:
            return await (await self.mapper.get_gateway()).add_port_mapping(port)

        theirs = self.liar.connection.table.get(MappingKey(port, "UDP"))
        mapping = self.outcome(add(), script, afterwards)
        if mapping is not None:
            assert self.router_said_it_is_mapped(mapping)
        # Otherwise it may take back what it made itself, or could not see that it was there before.
        if theirs is not None and theirs.mapping.internal_client != ADDRESS:
            assert not any(action == "DeletePortMapping" for action, _, _ in self.liar.said)
            assert self.liar.connection.table.get(MappingKey(port, "UDP")) == theirs

    @rule(port=PORTS, script=SCRIPTS, afterwards=REACTIONS)
    def delete(self, port: int, script: list[Reaction], afterwards: Reaction) -> None:
        self.outcome(self.mapper.delete_port_mapping(port), script, afterwards)

    @rule(script=SCRIPTS, afterwards=REACTIONS)
    def ask_for_the_address(self, script: list[Reaction], afterwards: Reaction) -> None:
        address = self.outcome(self.mapper.query_external_address(), script, afterwards)
        assert address is None or str(address) == "11.22.33.44"

    @rule(port=PORTS, script=SCRIPTS, rounds=st.integers(0, 60))
    def add_and_think_better_of_it(self, port: int, script: list[Reaction], rounds: int) -> None:
        async def cancelled() -> None:
            task = asyncio.ensure_future(self.mapper.add_port_mapping(port))
            for _ in range(rounds):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError, IGDError):
                await task
            await self.mapper._release_sockets()  # what the call had sent is settled by then

        before = self.liar.connection.table.get(MappingKey(port, "UDP"))
        self.outcome(cancelled(), script, HONEST)
        if not script and before is None and not self.was_finished(port):
            assert self.liar.connection.table.get(MappingKey(port, "UDP")) is None

    def was_finished(self, port: int) -> bool:
        return self.liar.said[-1:] == [("AddPortMapping", True, {})]

    # What a router does

    @rule(port=PORTS)
    def a_good_router_does_what_it_is_asked(self, port: int) -> None:
        mapping = self.outcome(self.mapper.add_port_mapping(port, 80), [], HONEST)
        entry = self.liar.connection.table.get(MappingKey(port, "UDP"))
        assert mapping is not None
        assert entry is not None
        assert (entry.mapping.internal_client, entry.mapping.internal_port) == (ADDRESS, 80)

    @rule()
    def restart(self) -> None:
        self.liar.connection.table.clear()

    @rule(port=PORTS)
    def somebody_else_maps_a_port(self, port: int) -> None:
        self.liar.connection.table.put(PortMapping(port, port, "192.168.1.77", "UDP", "theirs"))

    @rule(seconds=st.integers(1, 100))
    def time_passes(self, seconds: int) -> None:
        self.loop.skip(seconds)

    @precondition(lambda self: self.liar.is_on)
    @rule()
    def go_silent(self) -> None:
        self.liar.is_on = False
        with pytest.raises(IGDError):
            self.loop.run_until_complete(_search_again(self.mapper))
        self.liar.is_on = True

    def outcome(self, work: Awaitable[Any], script: list[Reaction], afterwards: Reaction) -> Any:
        """Return what comes of a call, None for an error; check what holds for every call."""
        self.liar.begin(script, afterwards)
        began = self.loop.time()
        try:
            return self.loop.run_until_complete(_bounded(work))
        except IGDError:
            return None
        finally:
            assert self.loop.time() - began <= TIMEOUT + SETTLING + 0.5
            failed_at = self.loop.time()
            self.loop.run_until_complete(_settled())
            assert self.loop.time() - failed_at <= LONGEST_ROLLBACK + 1.5
            assert self.liar.requests <= MOST_REQUESTS

    def router_said_it_is_mapped(self, mapping: PortMapping) -> bool:
        """Tell whether the router said so last: success, or an entry that is this mapping."""
        return any(
            said
            and (
                action == "AddPortMapping"
                or (
                    outputs.get("NewInternalClient") == mapping.internal_client
                    and outputs.get("NewInternalPort") == str(mapping.internal_port)
                )
            )
            for action, said, outputs in self.liar.said
        )


async def _bounded(work: Awaitable[Any]) -> Any:
    async with asyncio.timeout(100):
        return await work


async def _settled() -> None:
    """Wait until what a call that has failed may have done is undone."""
    await asyncio.sleep(0)
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


async def _search_again(mapper: PortMapper) -> None:
    mapper.devices = []
    await mapper.get_gateway()


def a_run(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )


def test_a_router_may_say_anything() -> None:
    run_state_machine_as_test(Router, settings=a_run(60, 20))


@pytest.mark.long
def test_a_router_may_say_anything_for_long() -> None:
    run_state_machine_as_test(Router, settings=a_run(2000, 50))
