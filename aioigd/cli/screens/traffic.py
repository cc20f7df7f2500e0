"""Traffic in one line: rates, a curve of the last minutes, totals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich.text import Text

from ..format import amount, rate
from ..traffic import Traffic

__all__ = ["curve", "traffic_line"]

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
