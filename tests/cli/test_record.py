"""A conversation written to a file, and a router that answers from it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioigd.testing import EmulatedGateway

from .conftest import Run


async def record(run: Run, gateway: EmulatedGateway, file: Path, *options: str) -> Any:
    outcome = await run("record", file, "--source-address", gateway.address, "--timeout", 1.0, "--json", *options)
    assert outcome.code == 0, outcome.out + outcome.err
    return outcome.document


async def test_what_the_router_says_is_written_down(run: Run, gateway: EmulatedGateway, tmp_path: Path) -> None:
    file = tmp_path / "router.json"
    document = await record(run, gateway, file)
    assert document.keys() == {"file", "datagrams", "requests", "advice"}
    assert document["datagrams"] > 0
    assert document["requests"] > 3
    assert "AddPortMapping" in file.read_text("utf-8")
    assert gateway.address not in file.read_text("utf-8")
    assert gateway.mappings == []


async def test_nothing_is_opened_where_that_is_not_wanted(run: Run, gateway: EmulatedGateway, tmp_path: Path) -> None:
    await record(run, gateway, tmp_path / "router.json", "--no-trial")
    assert gateway.count("AddPortMapping") == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
async def test_other_commands_can_talk_to_the_recording(
    run: Run, start: Callable[..., Any], gateway: EmulatedGateway, tmp_path: Path
) -> None:
    file = tmp_path / "router.json"
    await record(run, gateway, file)
    async with start("replay", file, "--json") as process:
        ready = json.loads(await process.until('"ready"'))
        assert ready.keys() == {"event", "address", "location"}
        document = (await run("list", "--source-address", ready["address"], "--json")).document
        assert document["gateway"]["friendly_name"] == "Emulated gateway"
        outcome = await process.end()
    assert outcome.code == 0


async def test_a_file_that_is_no_recording_is_usage(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text("{}")
    for path in (file, tmp_path / "absent.json"):
        assert (await run("replay", path)).code == 2


async def test_a_place_where_nothing_can_be_written_is_exit_1(
    run: Run, gateway: EmulatedGateway, tmp_path: Path
) -> None:
    outcome = await run("record", tmp_path / "no" / "such.json", "--location", gateway.location, "--timeout", 0.3)
    assert outcome.code == 1
    assert "No such file" in outcome.err
