"""What README and documentation show has to run: each Python block, against an emulated gateway."""

from __future__ import annotations

import asyncio
import functools
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import aioigd
import aioigd.testing
from aioigd.testing import EmulatedGateway

ROOT = Path(__file__).parent.parent
AUTODOC = re.compile(r"^\.\. auto\w+:: (\S+)$", re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def python_blocks() -> Iterator[tuple[str, str]]:
    """Yield a name and the code of each Python block."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if "_generated" in page.parts or "_build" in page.parts:
            continue
        for number, block in enumerate(BLOCK.findall(page.read_text("utf-8")), 1):
            yield f"{page.relative_to(ROOT)}:{number}", block


BLOCKS = dict(python_blocks())


@contextmanager
def gateway_in_a_thread() -> Iterator[EmulatedGateway]:
    """Run an emulated gateway beside programs that bring an event loop of their own."""
    ready = threading.Event()
    running: list[EmulatedGateway] = []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        over = asyncio.Event()
        async with EmulatedGateway(address=None) as gateway:
            running.append(gateway)
            loops.append((asyncio.get_running_loop(), over))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield running[0]
    finally:
        loop, over = loops[0]
        loop.call_soon_threadsafe(over.set)
        thread.join(10)


@pytest.mark.parametrize("name", [name for name, code in BLOCKS.items() if "asyncio.run(" in code])
def test_a_program_in_the_documentation_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway_in_a_thread() as gateway:
        # A reader's network is the router's; here it is the loopback address of the emulated one.
        for function in ("add_port_mapping", "delete_port_mapping", "query_external_address"):
            here = functools.partial(getattr(aioigd, function), source_address=gateway.address)
            monkeypatch.setattr(aioigd, function, here)
        if "EmulatedGateway" not in BLOCKS[name]:
            monkeypatch.setattr(
                aioigd, "PortMapper", functools.partial(aioigd.PortMapper, source_address=gateway.address)
            )
        exec(compile(BLOCKS[name], name, "exec"), {"__name__": "__main__"})
        if "EmulatedGateway" not in BLOCKS[name]:
            assert gateway.requests, "it has not talked to the gateway"


@pytest.mark.parametrize("name", [name for name, code in BLOCKS.items() if "def test_" in code])
def test_a_test_in_the_documentation_passes(name: str, tmp_path: Path) -> None:
    (tmp_path / "test_block.py").write_text(BLOCKS[name], "utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        "-o",
        "asyncio_mode=auto",
        "test_block.py",
    ]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_every_block_is_a_program_or_a_test() -> None:
    assert all("asyncio.run(" in code or "def test_" in code for code in BLOCKS.values())


def test_the_readme_has_the_two_commands_of_a_new_user() -> None:
    shell = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert [command.strip().rpartition(" ")[2] for command in shell] == ["demo", ".venv/bin/nox"]
    assert all(command.count("\n") == 1 for command in shell)


def test_the_reference_has_every_public_name_and_no_other() -> None:
    names = AUTODOC.findall((ROOT / "docs" / "api.md").read_text("utf-8"))
    testing = [name.rpartition(".")[2] for name in names if name.startswith("aioigd.testing.")]
    assert sorted(testing) == aioigd.testing.__all__
    assert sorted(name for name in names if "." not in name) == aioigd.__all__


def test_every_public_name_of_the_test_kit_can_be_imported() -> None:
    for name in aioigd.testing.__all__:
        assert getattr(aioigd.testing, name) is not None


def test_where_to_change_what_names_files_that_exist() -> None:
    table = (ROOT / "docs" / "contributing.md").read_text("utf-8").partition("## Where do I change")[2]
    places = re.findall(r"`(aioigd/\S+)`", table.partition("\n## ")[0])
    assert len(places) > 15
    assert all((ROOT / place).exists() for place in places)
