"""Debian's command upnpc, as shell scripts use it: a process for each mapping."""

from __future__ import annotations

import subprocess

from .blocking import Add, BlockingPeer

LIMIT = 60.0


class Upnpc(BlockingPeer):
    """The whole process counts."""

    def cold_start(self, port: int) -> None:
        """Add, with the search that comes before it."""
        self._run("-m", self.source, "-a", self.source, str(port), str(port), "TCP")

    def search(self) -> int:
        """Ask for the status, which fails where no gateway is."""
        return int(self._run("-m", self.source, "-s", check=False) == 0)

    def open(self, location: str) -> Add:
        """Give the description with each call, so that it does not search."""
        return lambda port: self._run("-u", location, "-a", self.source, str(port), str(port), "TCP")

    def _run(self, *arguments: str, check: bool = True) -> int:
        return subprocess.run(
            ["upnpc", *arguments], check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=LIMIT
        ).returncode
