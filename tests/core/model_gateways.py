"""Gateways that consist of nothing but the time they take, for a limiter on a clock that jumps.

``python -m tests.core.model_gateways`` prints the table of docs/guides/batches.md.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

from aioigd.core.limiter import Limiter, Outcome

from ..leases import virtual

__all__ = ["BATCH", "MODELS", "Batch", "ModelGateway", "results", "simulate", "table"]

BATCH: Final = 1000
_RESET: Final = 0.001
_PAUSE: Final = 0.02


class ModelGateway:
    """Takes ``seconds`` for a request, with ``workers`` at once (None: any number); others wait for their turn.

    Either may be a function: ``seconds`` of how many it has served and how many are out, ``workers`` of how many it has
    served. ``slices``: in so many pieces a request is worked on, in turn with others. ``most``: connections beyond that
    are reset. ``link``: seconds that a packet needs, drawn anew for each.
    """

    def __init__(
        self,
        seconds: float | Callable[[int, int], float] = 0.02,
        *,
        workers: int | Callable[[int], int | None] | None = None,
        slices: int = 1,
        most: int = 10**6,
        link: Callable[[random.Random], float] = lambda _: 0.0,
        seed: int = 0,
    ) -> None:
        self._seconds = seconds
        self._workers = workers
        self._slices = slices
        self._most = most
        self._link = link
        self._dice = random.Random(seed)
        self._free: list[float] = []
        """When each worker has done what it has to do already."""
        self._served = 0
        self.out = 0
        self.resets = 0
        self.saw: list[int] = []
        """How many were out as each request came."""

    async def answer(self) -> bool:
        """Answer a request; False if it is reset."""
        self.out += 1
        self.saw.append(self.out)
        try:
            if self.out > self._most:
                self.resets += 1
                await asyncio.sleep(_RESET)
                return False
            seconds = self._seconds(self._served, self.out) if callable(self._seconds) else self._seconds
            self._served += 1
            await asyncio.sleep(self._link(self._dice))
            for _ in range(self._slices):
                await self._work(seconds / self._slices)
            await asyncio.sleep(self._link(self._dice))
            return True
        finally:
            self.out -= 1

    async def _work(self, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        workers = self._workers(self._served) if callable(self._workers) else self._workers
        if workers is None:
            await asyncio.sleep(seconds)
            return
        while len(self._free) < workers:
            heapq.heappush(self._free, now)
        done = max(now, heapq.heappop(self._free)) + seconds
        heapq.heappush(self._free, done)
        await asyncio.sleep(done - now)


@dataclass(frozen=True)
class Batch:
    """What came of a batch: its seconds, resets, and how many were out at most, and most often in its second half."""

    seconds: float
    resets: int
    most_out: int
    usually_out: int
    late_most_out: int


def simulate(gateway: ModelGateway, *, batches: int = 1, requests: int = BATCH) -> list[Batch]:
    """Send batches through one limiter, one after another."""

    async def main() -> list[Batch]:
        limiter = Limiter()
        return [await _batch(limiter, gateway, requests) for _ in range(batches)]

    return virtual.run(main(), debug=False)


async def _batch(limiter: Limiter, gateway: ModelGateway, requests: int) -> Batch:
    loop = asyncio.get_running_loop()
    started, resets = loop.time(), gateway.resets
    gateway.saw.clear()
    await asyncio.gather(*(_request(limiter, gateway) for _ in range(requests)))
    late = gateway.saw[len(gateway.saw) // 2 :]
    return Batch(
        seconds=loop.time() - started,
        resets=gateway.resets - resets,
        most_out=max(gateway.saw),
        usually_out=sorted(late)[len(late) // 2],
        late_most_out=max(late),
    )


async def _request(limiter: Limiter, gateway: ModelGateway) -> None:
    """Send a request until it is answered."""
    is_again = False
    while True:
        permit = await limiter.acquire(first=is_again)
        is_answered = await gateway.answer()
        limiter.release(permit, Outcome.ANSWERED if is_answered else Outcome.LOST, "add")
        if is_answered:
            return
        is_again = True
        if not permit.had_company:
            await asyncio.sleep(_PAUSE)


def _wifi(dice: random.Random) -> float:
    """Return the seconds of a packet on a busy Wi-Fi: five on average, and now and then it is sent again."""
    return dice.expovariate(200) + (0.1 if dice.random() < 0.02 else 0.0)


MODELS: Final[Mapping[str, Callable[[], ModelGateway]]] = {
    "parallel, 20 ms": ModelGateway,
    "parallel, 100 ms": partial(ModelGateway, 0.1),
    "one by one, 20 ms": partial(ModelGateway, workers=1),
    "one by one, 18 ms, and 2 ms of the link": partial(ModelGateway, 0.018, workers=1, link=lambda _: 0.001),
    "all in turn on one processor, 20 ms": partial(ModelGateway, workers=1, slices=10),
    "one connection, 5 ms, resets others": partial(ModelGateway, 0.005, workers=1, most=1),
    "5 connections, 20 ms, resets others": partial(ModelGateway, most=5),
    "8 workers, 20 ms": partial(ModelGateway, workers=8),
    "slower from 16 on": partial(ModelGateway, lambda _, out: 0.02 * max(1.0, out / 16)),
    "ten times slower from 16 on": partial(ModelGateway, lambda _, out: 0.02 if out < 16 else 0.2),
    "parallel, 5 ms, over Wi-Fi": partial(ModelGateway, 0.005, link=_wifi),
    "one by one, 20 ms, over Wi-Fi": partial(ModelGateway, workers=1, link=_wifi),
    "parallel, slow at first": partial(ModelGateway, lambda served, _: max(0.02, 0.2 * 0.97**served)),
    "one by one, slow at first": partial(ModelGateway, lambda served, _: max(0.02, 0.2 * 0.97**served), workers=1),
    "parallel, one by one from the middle on": partial(
        ModelGateway, workers=lambda served: 1 if served > 500 else None
    ),
    "one by one, parallel from the middle on": partial(
        ModelGateway, workers=lambda served: None if served > 500 else 1
    ),
    "parallel, 20 ms, then 100 ms": partial(ModelGateway, lambda served, _: 0.1 if served > 500 else 0.02),
    "the first at once, 10 connections, resets others": partial(
        ModelGateway, lambda served, _: 0.02 if served else 0.001, most=10
    ),
}
"""By name, for tests and for the table of the documentation."""


@cache
def results(name: str) -> tuple[Batch, Batch]:
    """Return what comes of two batches at a gateway of MODELS."""
    first, second = simulate(MODELS[name](), batches=2)
    return first, second


def table() -> str:
    """Return what comes of all of MODELS, as a table of Markdown."""
    lines = ["| gateway | first batch | second | out, usually | at most | resets |", "|---|---:|---:|---:|---:|---:|"]
    for name in MODELS:
        first, second = results(name)
        lines.append(
            f"| {name} | {first.seconds:.2f} s | {second.seconds:.2f} s | {first.usually_out} | {first.most_out} "
            f"| {first.resets} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
