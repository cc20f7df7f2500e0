"""How help pages are laid out: commands in the order of use, epilogs as they were written."""

from __future__ import annotations

import click

from .exits import EXPLAINED

__all__ = ["Command", "Group", "exit_codes"]


def exit_codes() -> str:
    """Return the table of exit codes."""
    return "\n".join(f"  {int(code):>3}  {text}" for code, text in EXPLAINED.items())


class _Epilog(click.Command):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog without an indentation."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write_text(self.epilog)


class Command(_Epilog):
    """A subcommand."""


class Group(_Epilog, click.Group):
    """The command itself: its subcommands are listed in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the subcommands."""
        return list(self.commands)
