"""How the command begins: with its extra, without it, for completion; and the demo, which needs nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_WITHOUT_EXTRA = """
import sys, importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("click", "rich") else find(name, *rest)
sys.modules["click"] = sys.modules["rich"] = None
sys.argv = ["aioigd", *{arguments!r}]
from aioigd.cli import main
main()
"""


def without_extra(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = _WITHOUT_EXTRA.format(arguments=arguments)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aioigd", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("arguments", [(), ("list",), ("--help",), ("demo", "--help")], ids=str)
def test_without_the_extra_it_says_what_to_install(arguments: tuple[str, ...]) -> None:
    done = without_extra(*arguments)
    assert done.returncode == 2
    assert 'pip install "aioigd[cli]"' in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("run", [without_extra, command], ids=["without extra", "with extra"])
def test_the_demo_works_and_leaves_nothing(run: object) -> None:
    done = run("demo")  # type: ignore[operator]
    assert done.returncode == 0, done.stderr
    for said in (
        "Hello, internet!",
        "Mapped 100 UDP ports concurrently",
        "the router saw 1 request",
        "Deleted them all: 0 are left",
        "The router restarted: 0 mappings",
        "The mapping is back",
        "Nothing is left open.",
    ):
        assert said in done.stdout
    assert done.stdout.count("Hello, internet!") == 3
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("shell", ["bash", *(pytest.param(each, marks=pytest.mark.long) for each in ("zsh", "fish"))])
def test_shells_can_complete_it(shell: str) -> None:
    done = command(_AIOIGD_COMPLETE=f"{shell}_source")
    assert done.returncode == 0
    assert "_AIOIGD_COMPLETE" in done.stdout


def test_interfaces_are_completed() -> None:
    done = command(_AIOIGD_COMPLETE="bash_complete", COMP_WORDS="aioigd list --interface ", COMP_CWORD="3")
    assert "plain,lo" in done.stdout


def test_commands_are_completed() -> None:
    done = command(_AIOIGD_COMPLETE="bash_complete", COMP_WORDS="aioigd d", COMP_CWORD="1")
    assert {line.partition(",")[2] for line in done.stdout.split()} >= {"discover", "delete", "doctor", "demo"}


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -m aioigd --help | true", shell=True, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr
