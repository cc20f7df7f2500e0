"""How many instructions a mapping takes, counted by valgrind: the same on a busy machine as on an idle one.

Run it from the root of the project, on Linux with valgrind::

    python -m benchmarks.instructions [OTHER_CHECKOUT ...]

Counted is what the process computes for one mapping, one by one and at once, without the kernel's part and with the
garbage collector off: the difference between many mappings and few, so that what is done once does not count.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from .gateway_server import gateway_process
from .peers import AT_ONCE, BARE, ONE_BY_ONE, OURS, PEERS, PORTS
from .workload import HERE

FEW: Final = 100
MANY: Final = 500
WARM_UP: Final = 50


async def work(who: str, location: str, way: str, count: int) -> None:
    """Map so many ports, on a gateway that is known."""
    gc.disable()
    peer = PEERS[who]("127.0.0.1")
    async with peer._opened(location) as add:
        await peer._one_by_one(add, PORTS[:WARM_UP])
        await (peer._one_by_one if way == ONE_BY_ONE else peer._at_once)(add, PORTS[WARM_UP : WARM_UP + count])


def count(checkout: str, who: str, location: str, way: str) -> float:
    """Return the instructions of one mapping, by the aioigd of a checkout or by another peer."""
    totals = []
    with TemporaryDirectory() as place:
        Path(place, "aioigd").symlink_to(Path(checkout).resolve() / "aioigd")  # and the benchmarks are those of here
        for number in (FEW, MANY):
            totals.append(_count(place, who, location, way, number))
    return (totals[1] - totals[0]) / (MANY - FEW)


def _count(place: str, who: str, location: str, way: str, number: int) -> int:
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    command += [sys.executable, "-P", "-m", "benchmarks.instructions", "--work", who, location, way, str(number)]
    environment = {**os.environ, "PYTHONPATH": f"{place}:{HERE}", "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    assert found, done.stderr
    return int(found[1].replace(",", ""))


def main(others: Sequence[str]) -> None:
    """Count and print."""
    with gateway_process() as gateway:
        for way in (ONE_BY_ONE, AT_ONCE):
            bare = count(str(HERE), BARE, gateway.location, way)
            print(f"{way:<12} {bare:>12,.0f}        {BARE}", flush=True)
            for checkout in (str(HERE), *others):
                ours = count(checkout, OURS, gateway.location, way)
                print(f"{way:<12} {ours:>12,.0f} {ours / bare:.2f}x  {OURS} of {checkout}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        who, location, way, number = sys.argv[2:]
        asyncio.run(work(who, location, way, int(number)))
    else:
        main(sys.argv[1:])
