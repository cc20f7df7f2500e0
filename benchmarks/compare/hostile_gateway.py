"""An emulated gateway that attacks whoever reads its description, in a process of its own.

``python -m benchmarks.compare.hostile_gateway ATTACK`` prints its location as JSON, and ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any, Final

from aioigd.testing import EmulatedGateway, quirks

ATTACKS: Final[dict[str, Callable[[], Any]]] = {
    "endless body": quirks.endless_body,
    "gzip bomb, 512 MiB": lambda: quirks.gzip_bomb(megabytes=512),
    "a million elements": quirks.million_elements,
    "100,000 attributes": quirks.many_attributes,
    "entity bomb": quirks.entity_bomb,
    "5,000 services": quirks.thousands_of_services,
    "a byte a second": quirks.drips,
    "silence": quirks.silent,
}
WAITING: Final = ("a byte a second", "silence")
"""Attacks on the time of those who wait, not on the machine."""


async def serve(attack: str) -> None:
    """Be that gateway until the input ends."""
    async with EmulatedGateway(ATTACKS[attack](), address=None) as gateway:
        print(json.dumps({"location": gateway.location}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
