"""The changes that ``aioigd watch`` reports, as real processes."""

from __future__ import annotations

import json
import sys

import pytest

from aioigd.testing import EmulatedGateway, quirks

from .conftest import ERROR, Run, Start, there

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")


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
            assert away["error"].keys() == ERROR
            gateway.resume()
            await process.until('"back"')
            await process.end()

    async def test_a_router_without_counters_is_watched_all_the_same(self, run: Run) -> None:
        async with EmulatedGateway(quirks.no_common_config, address=None) as gateway:
            outcome = await run("watch", "--interval", 0.1, "--count", 1, "--json", *there(gateway))
        assert outcome.code == 0
        assert outcome.lines[-1]["bytes_sent"] is None
