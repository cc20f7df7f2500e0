"""The devices that ``aioigd discover`` lists."""

from __future__ import annotations

import pytest

from aioigd.testing import EmulatedGateway, quirks

from .conftest import DEVICE, Run, there

pytestmark = pytest.mark.waits


class TestDiscover:
    async def test_it_lists_gateways_and_those_who_only_say_that_they_are(self, run: Run) -> None:
        async with EmulatedGateway(quirks.media_server_first, address=None, friendly_name="My box") as gateway:
            outcome = await run("discover", *there(gateway), "--timeout", 1)
        assert outcome.code == 0
        assert "● My box" in " ".join(outcome.out.split())
        assert "no gateway" in outcome.out
        assert "\x1b" not in outcome.out

    async def test_programs_get_a_line_for_each_device(self, run: Run) -> None:
        async with EmulatedGateway(quirks.media_server_first, address=None) as gateway:
            outcome = await run("discover", *there(gateway), "--timeout", 1, "--all", "--json")
            assert {line["is_valid_gateway"] for line in outcome.lines} == {True, False}
            assert all(line.keys() == DEVICE for line in outcome.lines)
            assert gateway.location in {line["description_url"] for line in outcome.lines}

    async def test_nobody_there_is_exit_3(self, run: Run, address: str) -> None:
        outcome = await run("discover", "--source-address", address, "--timeout", 0.3)
        assert outcome.code == 3
        assert "aioigd doctor" in outcome.err

    async def test_a_location_is_read_instead_of_searching(self, run: Run, gateway: EmulatedGateway) -> None:
        outcome = await run("discover", "--location", gateway.location, "--json")
        assert outcome.code == 0
        assert gateway.count("M-SEARCH") == 0

    async def test_two_gateways_are_told_of(self, run: Run, gateway: EmulatedGateway) -> None:
        async with EmulatedGateway(address=gateway.address):
            outcome = await run("discover", *there(gateway), "--timeout", 1)
        assert "2 gateways" in outcome.out
