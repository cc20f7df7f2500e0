"""From nothing to the first mapping on a real miniupnpd: aioigd next to the floor (floor.py), and upnpc.

Builds the lab of tests/lab (root, network namespaces, miniupnpd) and measures pairs, one of each in turn, each with
a port of its own. The start of Python is left out for both; upnpc is measured as a whole process, for comparison.

    python -m benchmarks.lab_cold_start [--pairs 15]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import time
from collections.abc import Sequence

from aioigd import PortMapper
from tests.lab.network import LAN_ADDRESS, Lab

from .floor import first_mapping

FIRST_PORT = 20000


async def _map(port: int) -> None:
    async with PortMapper() as mapper:
        await mapper.add_port_mapping(port, proto="TCP", desc="cold start")


def with_aioigd(port: int) -> float:
    """Map a port in an event loop of its own; the seconds from making the mapper to having closed it."""

    async def timed() -> float:
        started = time.perf_counter()
        await _map(port)
        return time.perf_counter() - started

    return asyncio.run(timed())


def with_upnpc(port: int) -> float:
    """Map a port with Debian's command; its seconds as a process."""
    started = time.perf_counter()
    command = ["upnpc", "-a", LAN_ADDRESS, str(port), str(port), "TCP"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=30)
    return time.perf_counter() - started


def show(name: str, seconds: Sequence[float]) -> None:
    """Print median, quartiles and range in milliseconds."""
    low, _, high = statistics.quantiles(seconds, n=4)
    ms = [1000 * value for value in (statistics.median(seconds), low, high, min(seconds), max(seconds))]
    print(f"{name:8} {ms[0]:8.1f} ms   quartiles {ms[1]:.1f} to {ms[2]:.1f}, range {ms[3]:.1f} to {ms[4]:.1f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15, help="how many of each (default: %(default)s)")
    parser.add_argument("--upnpc", type=int, default=3, help="how many of upnpc (default: %(default)s)")
    arguments = parser.parse_args()
    floor: list[float] = []
    aioigd: list[float] = []
    upnpc: list[float] = []
    with Lab() as lab:
        lab.start_router()
        with lab.inside("lan"):
            # What a process does once is done before: imports, the first thread, the router's first rule.
            with_aioigd(FIRST_PORT - 2)
            first_mapping(LAN_ADDRESS, FIRST_PORT - 1)
            for pair in range(arguments.pairs):
                port = FIRST_PORT + 2 * pair
                if pair % 2:
                    aioigd.append(with_aioigd(port))
                floor.append(first_mapping(LAN_ADDRESS, port + 1))
                if not pair % 2:
                    aioigd.append(with_aioigd(port))
            upnpc += [with_upnpc(FIRST_PORT - 3 - number) for number in range(arguments.upnpc)]
    show("floor", floor)
    show("aioigd", aioigd)
    if len(upnpc) > 1:
        show("upnpc", upnpc)
    ratios = [one / other for one, other in zip(aioigd, floor, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    print(f"aioigd takes {statistics.median(aioigd) / statistics.median(floor):.2f} times the floor (medians)")
    print(f"within a pair: median {statistics.median(ratios):.2f}, quartiles {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
