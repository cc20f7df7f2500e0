"""The command ``aioigd``: its help page and the list of its subcommands."""

from __future__ import annotations

import sys

import click

from .. import __version__
from .add import add
from .delete import delete
from .demo import demo as run_demo
from .discover import discover
from .doctor.command import doctor
from .list import list_mappings
from .options import Command, Group
from .pinhole import pinhole
from .record import record, replay
from .runner import EXIT_CODE_HELP
from .status import status
from .watch import watch

__all__ = ["command"]

_EPILOG = """\
\b
Examples:
  aioigd doctor                       what is wrong, and what to do
  aioigd add 8080 --for 2h            open TCP port 8080 for two hours
  aioigd add 27015 --both --keep      keep a port open until Ctrl-C
  aioigd add 6881-6889 --udp          open nine ports at once
  aioigd list                         what the router forwards
  aioigd watch                        address and traffic as they change

\b
Exit codes:
{codes}

\b
Completion for your shell (bash, zsh or fish):
  eval "$(_AIOIGD_COMPLETE=bash_source aioigd)"

There is no need for a router to try it: `aioigd demo`.
"""


@click.group(
    cls=Group,
    epilog=_EPILOG.format(codes="\n".join(f"  {code:>3}  {text}" for code, text in EXIT_CODE_HELP.items())),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="aioigd %(version)s")
def command() -> None:
    """Open ports on the router in front of this machine (UPnP IGD).

    Each command finds the router by itself. All take the same options for that, and write JSON with --json.
    """


# Here and not in demo.py, which works where click is not installed.
@click.command(cls=Command)
def demo() -> None:
    """Show what there is, with an emulated router on this machine.

    Nothing leaves the machine. A small web server is started and its port opened; its page is fetched through the
    router; then come a batch of ports, a router that grants no leases, and one that restarts.
    """
    sys.exit(run_demo())


for each in (discover, status, list_mappings, add, delete, pinhole, watch, doctor, record, replay, demo):
    command.add_command(each)
