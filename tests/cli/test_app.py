"""The help pages, and the version."""

from __future__ import annotations

import pytest

from aioigd.cli.app import command
from aioigd.cli.options import all_interfaces

from .conftest import Run

NO_JSON = {("demo",), ("pinhole",)}


def all_commands() -> list[tuple[str, ...]]:
    """The words of every command and subcommand."""
    found: list[tuple[str, ...]] = [()]
    for name, each in command.commands.items():
        found.append((name,))
        found += [(name, below) for below in getattr(each, "commands", ())]
    return found


class TestHelp:
    @pytest.mark.parametrize("words", all_commands(), ids=" ".join)
    async def test_every_command_explains_itself_within_80_columns(self, run: Run, words: tuple[str, ...]) -> None:
        outcome = await run(*words, "--help")
        assert outcome.code == 0
        assert "Usage: aioigd" in outcome.out
        assert max(map(len, outcome.out.splitlines())) <= 80

    @pytest.mark.parametrize("words", [words for words in all_commands() if words and words not in NO_JSON])
    async def test_every_command_documents_its_json(self, run: Run, words: tuple[str, ...]) -> None:
        out = (await run(*words, "--help")).out
        assert "--json" in out
        assert "\nJSON" in out

    async def test_the_exit_codes_are_in_the_help(self, run: Run) -> None:
        out = (await run("--help")).out
        assert all(f"  {code}  " in out for code in (0, 1, 2, 3, 4, 130, 143))

    async def test_the_version_is_that_of_the_package(self, run: Run) -> None:
        import aioigd

        assert (await run("--version")).out == f"aioigd {aioigd.__version__}\n"

    async def test_an_interface_can_be_named(self, run: Run) -> None:
        name = all_interfaces()[-1].name
        assert (await run("discover", "--interface", name, "--timeout", 0.1)).code == 3
