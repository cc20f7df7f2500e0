"""How cost grows with callers that want the same: made together, and cancelled together."""

from __future__ import annotations

import asyncio
import gc

from ..gateway_server import GatewayProcess, gateway_process
from ..peers.registry import OURS
from ..targets import identical
from .bench import Bench

EMPTY = "empty coroutines"
PLAIN = "plain tasks"


def measure(bench: Bench) -> None:
    """Compare with gathering as many coroutines that do nothing, and cancelling as many tasks that wait."""
    with gateway_process() as gateway:
        for _ in range(bench.plan.runs):
            for callers in bench.plan.callers:
                made = asyncio.run(identical.call_known(gateway, callers))
                empty = asyncio.run(identical.gather_nothing(callers))
                bench.record.add("callers", OURS, "s", made, callers=callers)
                bench.record.add("callers", EMPTY, "s", empty, callers=callers)
                if callers >= identical.FEW:
                    cancelled = asyncio.run(identical.cancel_all(gateway, callers))
                    plain = asyncio.run(identical.cancel_plain(callers))
                    bench.record.add("callers: cancelled", OURS, "s", cancelled, callers=callers)
                    bench.record.add("callers: cancelled", PLAIN, "s", plain, callers=callers)
                    bench.record.add("callers: uncollected", OURS, "s", _uncollected(gateway, callers), callers=callers)
                elif callers == 1:
                    asyncio.run(identical.call_all(gateway, callers))  # checks that the gateway saw one request
            several = min(identical.MANY, max(bench.plan.callers))
            bench.record.add("callers: cold", OURS, "s", asyncio.run(identical.call_all(gateway, several)), n=several)


def _uncollected(gateway: GatewayProcess, callers: int) -> float:
    """Cancel without the garbage collector, which looks at everything ever more often as there is more of it."""
    gc.disable()
    try:
        return asyncio.run(identical.cancel_all(gateway, callers))
    finally:
        gc.enable()
        gc.collect()
