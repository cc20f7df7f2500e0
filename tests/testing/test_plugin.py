"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = "aioigd.testing.plugin"
PYTEST_ASYNCIO = ["-o", "asyncio_default_fixture_loop_scope=function", "-o"]
TESTS = """
import pytest
from aioigd.testing import quirks

pytestmark = {mark}

async def test_it_runs(igd_gateway):
    assert igd_gateway.location.startswith("http://127.")
    assert igd_gateway.quirks == ()

@pytest.mark.igd_quirks("refuses_leases", quirks.short_descriptions_only(5), version=2)
@pytest.mark.igd_quirks("slow", external_address="44.0.0.1")
async def test_quirks_and_options_of_all_markers_add_up(igd_gateway):
    assert [quirk.name for quirk in igd_gateway.quirks] == ["refuses_leases", "short_descriptions_only", "slow"] or \\
        [quirk.name for quirk in igd_gateway.quirks] == ["slow", "refuses_leases", "short_descriptions_only"]
    assert (igd_gateway.version, igd_gateway.external_address) == (2, "44.0.0.1")

async def test_there_may_be_several(igd_gateway, igd_gateway_factory):
    another = await igd_gateway_factory("refuses_leases")
    neighbour = await igd_gateway_factory(address=another.address)
    assert igd_gateway.address != another.address == neighbour.address
"""


def run(directory: Path, mark: str, *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_of_a_user.py").write_text(TESTS.replace("{mark}", mark))
    (directory / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    installed = [] if _is_installed() else ["-p", PLUGIN]
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider", *installed, *options]
    root = Path(__file__).parents[2]
    return subprocess.run([*command, str(directory)], cwd=root, capture_output=True, text=True, check=False, timeout=60)


def _is_installed() -> bool:
    from importlib.metadata import entry_points

    return any(entry.value == PLUGIN for entry in entry_points(group="pytest11"))


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_with_pytest_asyncio(tmp_path: Path, mode: str) -> None:
    mark = "[]" if mode == "auto" else "pytest.mark.asyncio"
    result = run(tmp_path, mark, *PYTEST_ASYNCIO, f"asyncio_mode={mode}")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 passed" in result.stdout


@pytest.mark.skipif(importlib.util.find_spec("anyio") is None, reason="anyio is not installed")
def test_with_anyio(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n")
    result = run(tmp_path, "pytest.mark.anyio", "-p", "no:asyncio", "-p", "anyio")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 passed" in result.stdout


@pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="pytest-xdist is not installed")
def test_in_parallel(tmp_path: Path) -> None:
    result = run(tmp_path, "[]", *PYTEST_ASYNCIO, "asyncio_mode=auto", "-n", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 passed" in result.stdout


def test_loading_the_plugin_does_not_load_the_emulator() -> None:
    code = (
        f"import sys, {PLUGIN}\n"
        "heavy = [name for name in sys.modules if name.startswith('aioigd.testing.')]\n"
        f"assert heavy == ['{PLUGIN}'], heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
