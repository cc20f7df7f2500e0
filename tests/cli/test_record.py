"""A conversation written to a file, and a router that answers from it."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioigd import PortMapper, testing
from aioigd.testing import EmulatedGateway

from .conftest import Run

pytestmark = pytest.mark.waits


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


async def test_what_is_there_already_stays_unless_it_may_go(run: Run, gateway: EmulatedGateway, tmp_path: Path) -> None:
    file = tmp_path / "router.json"
    file.write_text("mine")
    arguments = ("record", file, "--source-address", gateway.address, "--timeout", 1.0, "--no-trial")
    outcome = await run(*arguments)
    assert outcome.code == 1
    assert "something of this name already" in outcome.err
    assert "router.json" in outcome.err
    assert file.read_text() == "mine"
    assert not gateway.requests
    assert (await run(*arguments, "--overwrite")).code == 0
    assert "GetExternalIPAddress" in file.read_text("utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes")
async def test_the_file_is_the_owners_alone(run: Run, gateway: EmulatedGateway, tmp_path: Path) -> None:
    file = tmp_path / "router.json"
    await record(run, gateway, file, "--no-trial")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["router.json"]


EVIL = "\x1b]0;owned\x07\x1b[2J\r\u202e\u2028"


@pytest.mark.parametrize(
    "changes",
    [
        {"url": f"http://192.0.2.1/{EVIL}"},
        {"url": "http://192.0.2.1:99999/"},
        {"method": EVIL},
        {"status": "200"},
        {"reply_headers": {"X": EVIL}},
        {EVIL: 1},
        {"time": -1},
    ],
    ids=lambda changes: ascii(changes)[:20],
)
async def test_a_recording_of_an_enemy_is_usage_in_one_clean_line(
    changes: dict[str, Any], run: Run, gateway: EmulatedGateway, tmp_path: Path
) -> None:
    file = tmp_path / "router.json"
    async with testing.record(file), PortMapper(source_address=gateway.address) as mapper:
        await mapper.get_gateway()
    content = json.loads(file.read_text("utf-8"))
    number = next(number for number, event in enumerate(content["events"]) if event["kind"] == "http")
    content["events"][number] |= changes
    file.write_text(json.dumps(content), "utf-8")
    outcome = await run("replay", file)
    assert outcome.code == 2
    assert f"events[{number}]" in outcome.err.replace("\n", "")
    assert all(line.isprintable() for line in outcome.err.splitlines())
    assert "Traceback" not in outcome.err


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
async def test_a_recording_without_a_description_is_played_all_the_same(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "x[bold].json"
    file.write_text('{"format": 1, "about": {}, "events": []}')
    async with start("replay", file, "--json") as process:
        assert json.loads(await process.until('"ready"'))["location"] is None
        assert (await process.end()).code == 0
    async with start("replay", file) as process:
        assert "x[bold].json" in await process.until("The router of")
        assert (await process.end()).code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
async def test_other_commands_can_map_by_what_was_recorded_of_nat_pmp(
    run: Run, start: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "router.json"
    async with (
        EmulatedGateway(address=None, protocols=("nat-pmp",)) as router,
        testing.record(file),
        PortMapper(source_address=router.address) as mapper,
    ):
        await mapper.add_port_mapping(8080, proto="TCP")
    async with start("replay", file, "--json") as process:
        ready = json.loads(await process.until('"ready"'))
        assert ready["location"] is None
        outcome = await run("add", 8080, "--source-address", ready["address"], "--json")
        assert outcome.code == 0
        assert (await process.end()).code == 0
