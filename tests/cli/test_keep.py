"""Ports that ``aioigd add --keep`` holds, as real processes: what they hold, say, and leave behind."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from aioigd.testing import EmulatedGateway

from .conftest import Run, Start, there

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")


class TestKeep:
    @pytest.mark.parametrize(
        "number",
        [
            signal.SIGTERM,
            signal.SIGHUP,
            *(pytest.param(each, marks=pytest.mark.long) for each in (signal.SIGINT, signal.SIGQUIT)),
        ],
    )
    async def test_ports_are_held_until_a_signal_and_then_nothing_is_left(
        self, start: Start, gateway: EmulatedGateway, number: signal.Signals
    ) -> None:
        async with start("add", "8080-8082", "--both", "--keep", *there(gateway)) as process:
            for _ in range(6):
                await process.until("kept until Ctrl-C")
            assert len(gateway.mappings) == 6
            outcome = await process.end(number)
        assert gateway.mappings == []
        assert outcome.code == 0
        assert "The 6 ports are closed; nothing is left" in outcome.out
        assert (outcome.err, "\x1b" in outcome.out) == ("", False)

    async def test_it_goes_on_when_the_router_restarts(self, start: Start, gateway: EmulatedGateway) -> None:
        async with start("add", 8080, "--keep", "--json", *there(gateway)) as process:
            held = json.loads(await process.until('"held"'))
            assert held.keys() == {"event", "gateway", "external_address", "mappings"}
            await gateway.restart()
            back = json.loads(await process.until('"BACK"'))
            assert back.keys() == {"event", "at", "kind", "external_address", "external_port", "proto"}
            assert len(gateway.mappings) == 1
            outcome = await process.end()
        assert gateway.mappings == []
        assert json.loads(outcome.out.splitlines()[-1]) == {"event": "released", "mappings": []}

    async def test_changes_are_told_in_words(self, start: Start, gateway: EmulatedGateway) -> None:
        async with start("add", 8080, "--keep", *there(gateway)) as process:
            await process.until("kept until")
            await gateway.restart()
            await process.until("lost")
            await process.until("open again")
            await process.end()

    async def test_a_port_that_is_taken_ends_it_and_leaves_nothing(self, run: Run, gateway: EmulatedGateway) -> None:
        theirs = gateway.add_mapping(8081, proto="TCP")
        outcome = await run("add", "8080-8083", "--keep", *there(gateway))
        assert outcome.code == 1
        assert "8081" in outcome.err
        assert gateway.mappings == [theirs]

    async def test_a_router_that_has_gone_is_no_reason_to_hang(self, start: Start, gateway: EmulatedGateway) -> None:
        async with start("add", 8080, "--keep", "--timeout", 1, *there(gateway)) as process:
            await process.until("kept until")
            gateway.hang()
            outcome = await process.end()
        assert outcome.code == 1  # nobody knows whether the port is closed
        assert "out of reach: it forgets the ports within the hour" in outcome.out
        gateway.resume()
