"""What was measured: for each figure the values of all runs, and what they depend on."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from os import cpu_count
from pathlib import Path
from statistics import median
from typing import Any, Final, Self

_PACKAGES: Final = ("aioigd", "aiohttp", "lxml", "yarl", "async-timeout")
_PEERS: Final = ("miniupnpc", "async-upnp-client", "upnpclient", "requests")
_DEBIAN: Final = ("godot3-server", "miniupnpc", "miniupnpd-iptables")


@dataclass
class Series:
    """One figure of one peer, a value for each run. ``of`` says of which kind: the delay, the count, the way."""

    figure: str
    who: str
    unit: str
    of: Mapping[str, Any] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def median(self) -> float:
        """The middle of the values."""
        return median(self.values)


class Record:
    """All series, in the order in which they began."""

    def __init__(self) -> None:
        self.series: dict[tuple[object, ...], Series] = {}
        self.environment: dict[str, Any] = {}

    def add(self, figure: str, who: str, unit: str, value: float, *, note: str = "", **of: object) -> None:
        """Note the value of one run."""
        one = self.series.setdefault((figure, who, *sorted(of.items())), Series(figure, who, unit, of))
        one.values.append(value)
        one.note = note or one.note

    def find(self, figure: str, who: str | None = None, **of: Any) -> list[Series]:
        """Return the series of a figure, of one peer or of all, for which all of ``of`` holds."""
        found = (one for one in self.series.values() if one.figure == figure and who in (None, one.who))
        return [one for one in found if of.items() <= one.of.items()]

    def get(self, figure: str, who: str | None = None, **of: Any) -> Series | None:
        """Return the first of them, if any."""
        return next(iter(self.find(figure, who, **of)), None)

    def fill(self, earlier: Self, again: Sequence[str]) -> None:
        """Take from an earlier run what was not measured ``again``, and its environment."""
        taken = {key: one for key, one in earlier.series.items() if key not in self.series}
        self.series = {**taken, **self.series}
        self.environment = {**earlier.environment, "again": [*again]}

    def as_json(self) -> dict[str, Any]:
        """Return everything, to be written to a file."""
        return {
            "environment": self.environment,
            "series": [{**vars(one), "of": dict(one.of), "median": one.median} for one in self.series.values()],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Return what a file holds."""
        record = cls()
        record.environment = data["environment"]
        for one in data["series"]:
            for value in one["values"]:
                record.add(one["figure"], one["who"], one["unit"], value, note=one["note"], **one["of"])
        return record


def environment() -> dict[str, Any]:
    """Return what the figures depend on; nothing in it tells whose machine it is."""
    versions = {}
    for name in (*_PACKAGES, *_PEERS):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "processor": f"{cpu_count()} x {_processor()}",
        "packages": versions,
        "debian": dict(_debian_packages()),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _debian_packages() -> Iterator[tuple[str, str]]:
    for name in _DEBIAN:
        try:
            done = subprocess.run(
                ["dpkg-query", "-W", "-f", "${Version}", name], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        if done.stdout:
            yield name, done.stdout
