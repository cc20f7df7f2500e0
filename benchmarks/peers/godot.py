"""Godot's own class UPNP, which aioigd is modelled on, in Debian's godot3-server."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .interface import Batch, Peer

SCRIPT = Path(__file__).with_name("godot.gd")
DEFAULT_TIMEOUT = 2000
SHORT_TIMEOUT = 100
LIMIT = 120.0


class Godot(Peer):
    """A script that times itself, so that the start of the engine does not count."""

    took: float | None = None
    """The seconds that the script measured last."""

    def cold_start(self, port: int) -> None:
        """Discover, add."""
        done = self._run([port], DEFAULT_TIMEOUT, cold=True)
        assert done["made"] == 1, done
        self.took = done["seconds"]

    def search(self) -> int:
        """Discover."""
        done = self._run([], DEFAULT_TIMEOUT, cold=True)
        self.took = done["seconds"]
        return int(done["found"])

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
            done = subprocess.run(
                ["godot3-server", "--script", str(SCRIPT)],
                env=environment,
                cwd=home,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=True,
            )
        (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT "))
        return json.loads(line.removeprefix("RESULT "))
