"""Peers that are processes of their own: Debian's command upnpc, and Godot's class UPNP in godot3-server."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .base import Add, Batch, BlockingPeer

SCRIPT: Final = Path(__file__).with_name("godot.gd")
DEFAULT_TIMEOUT: Final = 2000
SHORT_TIMEOUT: Final = 100
"""Milliseconds that Godot searches: by default, and where the search does not count."""
LIMIT: Final = 120.0


class Upnpc(BlockingPeer):
    """As shell scripts use it: a process for each mapping, and the whole process counts."""

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


class Godot(BlockingPeer):
    """What aioigd is modelled on; a script that times itself, so that the start of the engine does not count."""

    def cold_start(self, port: int) -> None:
        """Discover, add."""
        done = self._run([port], DEFAULT_TIMEOUT, cold=True)
        assert done["made"] == 1, done

    def search(self) -> int:
        """Discover."""
        return int(self._run([], DEFAULT_TIMEOUT, cold=True)["found"])

    def open(self, location: str) -> Add:
        """Fail: it cannot be told where the gateway is."""
        raise NotImplementedError

    def batch(self, location: str, ports: Sequence[int], way: str, *, watch: bool) -> Batch:
        """Discover, which cannot be left out and does not count, and add one after another."""
        done = self._run(ports, SHORT_TIMEOUT, cold=False)
        return Batch(done["seconds"], 0.0, done["made"])

    def _run(self, ports: Sequence[int], timeout: int, *, cold: bool) -> Any:
        job = {"source": self.source, "ports": list(ports), "timeout": timeout, "cold": cold}
        with tempfile.TemporaryDirectory() as home:
            # It would leave its settings in the user's home.
            environment = {**os.environ, "HOME": home, "AIOIGD_BENCHMARK": json.dumps(job)}
            for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
                environment.pop(name, None)
            command = ["godot3-server", "--script", str(SCRIPT)]
            done = subprocess.run(
                command, env=environment, cwd=home, capture_output=True, text=True, timeout=LIMIT, check=True
            )
        (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT "))
        result = json.loads(line.removeprefix("RESULT "))
        self.took = result["seconds"]
        return result
