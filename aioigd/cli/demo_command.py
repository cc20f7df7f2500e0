"""``aioigd demo``: everything against an emulated router, on loopback."""

from __future__ import annotations

import sys

import click

from .demo import demo as run_demo
from .help import Command

__all__ = ["demo"]


@click.command(cls=Command)
def demo() -> None:
    """Show what there is, with an emulated router on this machine.

    Nothing leaves the machine. A small web server is started and its port opened; its page is fetched through the
    router; then come a batch of ports, a router that grants no leases, and one that restarts.
    """
    sys.exit(run_demo())
