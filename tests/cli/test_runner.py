"""Failures, signals and logs, and the exit codes of each."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest

from aioigd.testing import EmulatedGateway

from .conftest import ERROR, Run, Start, there

pytestmark = pytest.mark.waits


class TestFailures:
    async def test_no_gateway_is_exit_3_with_a_hint(self, run: Run, address: str) -> None:
        outcome = await run("list", "--source-address", address, "--timeout", 0.3)
        assert outcome.code == 3
        assert "doctor" in outcome.err

    async def test_programs_get_the_error_as_a_document(self, run: Run, address: str) -> None:
        outcome = await run("status", "--source-address", address, "--timeout", 0.3, "--json")
        assert outcome.code == 3
        assert outcome.document["error"].keys() == ERROR
        assert outcome.document["error"]["result"] == "NO_DEVICES"

    async def test_a_location_where_nobody_listens_is_exit_1(self, run: Run, address: str) -> None:
        outcome = await run("list", "--location", f"http://{address}:9/rootDesc.xml", "--timeout", 1)
        assert outcome.code == 1
        assert "Traceback" not in outcome.err

    @pytest.mark.parametrize(
        "arguments",
        [
            ("add",),
            ("add", "http"),
            ("add", "0"),
            ("add", "65536"),
            ("add", "9-3"),
            ("add", "80", "--for", "soon"),
            ("add", "80", "--for", "0s"),
            ("add", "80", "--internal", "here"),
            ("add", "80", "--internal", ":80"),
            ("add", "80", "--internal", "1.2.3:80"),
            ("add", "65000-65010", "--internal", "65530"),
            ("add", "80", "--keep", "--for", "2h"),
            ("add", "80", "--keep", "--internal", "192.168.1.7:80"),
            ("list", "--interface", "nosuch0"),
            ("list", "--interface", "lo", "--source-address", "127.0.0.1"),
            ("list", "--source-address", "router"),
            ("list", "--location", "ftp://x/"),
            ("list", "--timeout", "0"),
            ("pinhole", "add", "80", "--for", "2d"),
            ("pinhole", "check"),
            ("nonsense",),
        ],
        ids=" ".join,
    )
    async def test_wrong_usage_is_exit_2(self, run: Run, arguments: tuple[str, ...]) -> None:
        outcome = await run(*arguments)
        assert outcome.code == 2
        assert "Usage: aioigd" in outcome.err


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
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
