"""Commands that go on until they are told to stop, as real processes: what they hold, say, and leave behind."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from aioigd.testing import EmulatedGateway, quirks

from .conftest import Run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")

Start = Callable[..., Any]


def there(gateway: EmulatedGateway) -> tuple[str, str]:
    return "--source-address", gateway.address


class TestKeep:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
        assert outcome.code == 0
        assert "out of reach: it forgets the ports within the hour" in outcome.out
        gateway.resume()


class TestWatch:
    async def test_it_tells_of_changes_as_they_happen(self, start: Start, gateway: EmulatedGateway) -> None:
        async with start("watch", "--interval", 0.1, "--json", *there(gateway)) as process:
            first = json.loads(await process.until('"sample"'))
            assert first.keys() == {
                "event",
                "at",
                "external_address",
                "connection",
                "uptime",
                "mappings",
                "bytes_sent",
                "bytes_received",
                "rate_sent",
                "rate_received",
            }
            assert (first["external_address"], first["mappings"]) == ("11.22.33.44", 0)

            gateway.external_address = "11.22.33.55"
            changed = json.loads(await process.until('"address"'))
            assert (changed["old"], changed["new"]) == ("11.22.33.44", "11.22.33.55")

            gateway.add_mapping(8080)
            added = json.loads(await process.until('"mapping-added"'))
            assert added["mapping"]["external_port"] == 8080
            gateway.remove_mapping(8080)
            await process.until('"mapping-removed"')

            gateway.line.count(received=1_000_000)
            sample = json.loads(await process.until('"sample"'))
            while not sample["rate_received"]:
                sample = json.loads(await process.until('"sample"'))
            outcome = await process.end()
        assert outcome.code == 0

    async def test_it_stops_by_itself_where_that_was_asked_for(self, run: Run, gateway: EmulatedGateway) -> None:
        outcome = await run("watch", "--interval", 0.1, "--count", 2, *there(gateway))
        assert outcome.code == 0
        assert "external address: 11.22.33.44" in outcome.out
        assert "Watched for 0 s" in outcome.out

    async def test_a_router_that_goes_and_comes_back_is_told_of(self, start: Start, gateway: EmulatedGateway) -> None:
        async with start("watch", "--interval", 0.1, "--timeout", 0.5, "--json", *there(gateway)) as process:
            await process.until('"sample"')
            gateway.hang()
            away = json.loads(await process.until('"away"'))
            assert away["error"].keys() == {"message", "result", "error_code"}
            gateway.resume()
            await process.until('"back"')
            await process.end()

    async def test_a_router_without_counters_is_watched_all_the_same(self, run: Run) -> None:
        async with EmulatedGateway(quirks.no_common_config, address=None) as gateway:
            outcome = await run("watch", "--interval", 0.1, "--count", 1, "--json", *there(gateway))
        assert outcome.code == 0
        assert outcome.lines[-1]["bytes_sent"] is None


class TestSignals:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    async def test_other_commands_end_clean_and_say_by_what(
        self, start: Start, gateway: EmulatedGateway, number: signal.Signals, code: int
    ) -> None:
        gateway.hang()
        async with start("list", "--location", gateway.location, "-v") as process:
            async with asyncio.timeout(15):
                while not gateway.open_connections:  # noqa: ASYNC110 - it is in another process
                    await asyncio.sleep(0.01)
            outcome = await process.end(number)
        gateway.resume()
        assert outcome.code == code
        assert "Traceback" not in outcome.err

    async def test_logs_go_to_standard_error(self, start: Start, gateway: EmulatedGateway) -> None:
        async with start("list", "-vv", "--json", *there(gateway)) as process:
            outcome = await process.outcome()
        assert outcome.document["mappings"] == []
        assert "aioigd.traffic" in outcome.err
