"""Traffic of a gateway: its counters, read again and again, and the line that shows them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from rich.text import Text

from .. import Gateway, IGDError, TrafficMeter, TrafficRates, TrafficTotals
from .format import byte_count, byte_rate

__all__ = ["Traffic", "curve", "no_counters_line", "traffic_line"]

_INTERVAL: Final = 2.0
"""Seconds between two readings."""
_HISTORY: Final = 60
"""Rates kept for the curve."""
_MOST_FAILURES: Final = 3
"""Readings after which a gateway that has never answered one has no counters."""
_BARS: Final = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH: Final = 8


class Traffic:
    """The traffic of a gateway since the first reading; ``totals`` is None before it."""

    def __init__(self) -> None:
        self.totals: TrafficTotals | None = None
        self.rates: TrafficRates | None = None
        self.history: deque[TrafficRates] = deque(maxlen=_HISTORY)
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
        """Read the counters once; raises IGDError where that fails."""
        self.totals = await gateway.query_traffic()
        rates = self._meter.update(self.totals)
        if rates.seconds:
            self.rates = rates
            self.history.append(rates)

    async def poll(self, find: Callable[[], Awaitable[Gateway]]) -> None:
        """Read the counters again and again, of the gateway that ``find`` returns; ends where it has none."""
        failures = 0
        while failures < _MOST_FAILURES or self.totals is not None:
            try:
                await self.read(await find())
                failures = 0
            except IGDError:
                failures += 1
                self.rates = None
            await asyncio.sleep(_INTERVAL)
        self.is_counted = False


def traffic_line(traffic: Traffic) -> Text:
    """Return rates, curves and totals in both directions."""
    if not traffic.is_counted:
        return no_counters_line()
    if traffic.totals is None:
        return Text("Traffic  …", style="dim")
    rates = traffic.rates
    return Text.assemble(
        ("Traffic  ", "dim"),
        ("↓ ", "green"),
        f"{byte_rate(rates.bytes_received if rates else None):>10} ",
        (curve(each.bytes_received for each in traffic.history), "green"),
        ("   ↑ ", "blue"),
        f"{byte_rate(rates.bytes_sent if rates else None):>10} ",
        (curve(each.bytes_sent for each in traffic.history), "blue"),
        (f"   {byte_count(traffic.received)} in, {byte_count(traffic.sent)} out", "dim"),
    )


def no_counters_line() -> Text:
    """Return what is shown in the place of traffic that is not counted."""
    return Text("This router does not count its traffic.", style="dim")


def curve(values: Iterable[float], width: int = _CURVE_WIDTH) -> str:
    """Return the last values as a row of bars, the highest one full."""
    shown: Sequence[float] = list(values)[-width:]
    highest = max(shown, default=0.0)
    if highest <= 0:
        return _BARS[0] * len(shown)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / highest * len(_BARS)))] for value in shown)
