"""The traffic of a gateway as it goes on: its counters, read again and again, and the rates they make."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from rich.text import Text

from .. import Gateway, IGDError, TrafficMeter, TrafficRates, TrafficTotals
from .format import amount, rate

__all__ = ["Traffic", "curve", "traffic_line"]

_PAUSE: Final = 2.0
_KEPT: Final = 60
"""Readings kept for the curve."""


class Traffic:
    """What went through a gateway since it is watched; ``totals`` is None as long as it does not tell."""

    def __init__(self) -> None:
        self.totals: TrafficTotals | None = None
        self.rates: TrafficRates | None = None
        self.history: deque[TrafficRates] = deque(maxlen=_KEPT)
        self.is_counted = True
        self._meter = TrafficMeter()

    @property
    def received(self) -> int:
        """Bytes received since the first reading."""
        return self._meter.bytes_received

    @property
    def sent(self) -> int:
        """Bytes sent since the first reading."""
        return self._meter.bytes_sent

    async def read(self, gateway: Gateway) -> None:
        """Read the counters once; raises IGDError where the gateway does not tell."""
        self.totals = await gateway.query_traffic()
        rates = self._meter.update(self.totals)
        if rates.seconds:
            self.rates = rates
            self.history.append(rates)

    async def watch(self, find: Callable[[], Awaitable[Gateway]]) -> None:
        """Read the counters of whatever gateway there is, again and again; one that has none is left in peace."""
        failures = 0
        while failures < 3 or self.totals is not None:
            try:
                await self.read(await find())
                failures = 0
            except IGDError:
                failures += 1
                self.rates = None
            await asyncio.sleep(_PAUSE)
        self.is_counted = False


_STEPS: Final = "▁▂▃▄▅▆▇█"
_WIDTH: Final = 8


def traffic_line(traffic: Traffic) -> Text:
    """Return what goes through the router, in both directions."""
    if not traffic.is_counted:
        return Text("This router does not count its traffic.", style="dim")
    if traffic.totals is None:
        return Text("Traffic  …", style="dim")
    rates = traffic.rates
    return Text.assemble(
        ("Traffic  ", "dim"),
        ("↓ ", "green"),
        f"{rate(rates.bytes_received if rates else None):>10} ",
        (curve(each.bytes_received for each in traffic.history), "green"),
        ("   ↑ ", "blue"),
        f"{rate(rates.bytes_sent if rates else None):>10} ",
        (curve(each.bytes_sent for each in traffic.history), "blue"),
        (f"   {amount(traffic.received)} in, {amount(traffic.sent)} out", "dim"),
    )


def curve(values: Iterable[float], width: int = _WIDTH) -> str:
    """Return the last values as a row of bars, the highest one full."""
    shown: Sequence[float] = list(values)[-width:]
    highest = max(shown, default=0.0)
    if highest <= 0:
        return _STEPS[0] * len(shown)
    return "".join(_STEPS[min(len(_STEPS) - 1, int(value / highest * len(_STEPS)))] for value in shown)
