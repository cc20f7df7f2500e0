"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import aioigd_pytest
from aioigd.net.guard import VARIABLE

PLUGIN = "aioigd_pytest"
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
LOOPBACK_ONLY = """
import os
import pytest
import aioigd

async def test_a_forgotten_source_address_is_an_error():
    async with aioigd.PortMapper(source_address="127.0.0.1", location="http://192.0.2.1:5000/x") as mapper:
        with pytest.raises(aioigd.errors.NoRouteError, match="192.0.2.1 is not on loopback"):
            await mapper.get_gateway()

async def test_the_fixture_works(igd_gateway):
    await aioigd.add_port_mapping(8080, source_address=igd_gateway.address)
    assert len(igd_gateway.mappings) == 1

async def test_a_test_may_switch_it_off(monkeypatch):
    monkeypatch.delenv("AIOIGD_LOOPBACK_ONLY")
    aioigd.net.guard.check_destination("192.0.2.1")

def test_it_is_on_again():
    assert os.environ["AIOIGD_LOOPBACK_ONLY"] == "1"
"""


def run(directory: Path, mark: str, *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_of_a_user.py").write_text(TESTS.replace("{mark}", mark))
    (directory / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", *_plugin_options()]
    for unneeded in ("cacheprovider", "hypothesispytest", "benchmark"):
        command += ["-p", f"no:{unneeded}"]
    root = Path(__file__).parents[2]
    return subprocess.run(
        [*command, *options, str(directory)], cwd=root, capture_output=True, text=True, check=False, timeout=60
    )


def _plugin_options() -> list[str]:
    return [] if _is_installed() else ["-p", PLUGIN]


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
def test_in_parallel_and_with_the_guard(tmp_path: Path) -> None:
    (tmp_path / "test_of_a_careless_user.py").write_text(LOOPBACK_ONLY)
    options = [*PYTEST_ASYNCIO, "asyncio_mode=auto", "-o", "aioigd_loopback_only=true", "-n", "2"]
    result = run(tmp_path, "[]", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "7 passed" in result.stdout


def test_the_guard_is_on_where_it_is_asked_for_and_ends_with_the_run(tmp_path: Path) -> None:
    """Several runs in one process, as some editors have them."""
    (tmp_path / "test_it.py").write_text(
        "import os\n\ndef test_it():\n    assert os.environ.get('AIOIGD_LOOPBACK_ONLY') == os.environ.get('EXPECTED')\n"
    )
    options = [*_plugin_options(), "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:hypothesispytest"]
    code = f"""
import os, pytest
for option in ("--verbose", "--aioigd-loopback-only"):
    assert pytest.main([*{options}, option, {str(tmp_path)!r}]) == 0
    assert "AIOIGD_LOOPBACK_ONLY" not in os.environ
    os.environ["EXPECTED"] = "1"
"""
    environment = {name: value for name, value in os.environ.items() if name != "AIOIGD_LOOPBACK_ONLY"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_run_that_does_not_use_it_imports_nothing_for_it(tmp_path: Path) -> None:
    """Not even with the guard, which is for what aioigd does, if anybody uses it."""
    (tmp_path / "test_it.py").write_text(
        "import sys\n\ndef test_it():\n"
        "    heavy = ('aioigd', 'aiohttp', 'lxml', 'asyncio', 'pytest_asyncio')\n"
        "    assert [name for name in heavy if name in sys.modules] == []\n"
        "    assert 'aioigd_pytest' in sys.modules\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", *_plugin_options(), "--aioigd-loopback-only"]
    others = ("cacheprovider", "hypothesispytest", "benchmark", "asyncio", "anyio", "xdist")
    for unneeded in others:
        command += ["-p", f"no:{unneeded}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))}
    result = subprocess.run(
        [*command, "-c", os.devnull, f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_guard_of_the_plugin_is_that_of_the_library() -> None:
    assert aioigd_pytest._GUARD == VARIABLE


def test_the_plugin_stands_beside_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["entry-points"]["pytest11"] == {"aioigd": PLUGIN}
    assert f"{PLUGIN}.py" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
