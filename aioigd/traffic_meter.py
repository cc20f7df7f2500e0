"""Rates from counters that begin again at 0: pure arithmetic, no I/O and no clock.

A counter of 32 bits is full after 4 GiB, which takes 34 seconds at 1 Gbit/s; and all counters fall to 0 when the
gateway restarts. What has fallen is taken for full if another counter has not fallen, or if it was nearer to its end
than to its beginning; otherwise for restarted.
"""

from __future__ import annotations

from typing import Final

from .arguments import check_totals
from .models import TrafficRates, TrafficTotals

__all__ = ["TrafficMeter"]

_FULL: Final = 1 << 32
"""The counters are of the type ui4 (WANCommonInterfaceConfig:1 section 2.2)."""

_Counts = tuple[int, int, int | None, int | None]


class TrafficMeter:
    """Turns the successive totals of one gateway into rates.

    ::

        meter = TrafficMeter()
        while True:
            rates = meter.update(await gateway.query_traffic())
            print(rates.bytes_received, "bytes per second,", meter.bytes_received, "bytes since the first reading")
            await asyncio.sleep(5)

    A gateway that is read too seldom may have filled a counter twice, and nothing tells: every ten seconds is enough
    up to 3 Gbit/s.
    """

    def __init__(self) -> None:
        self.bytes_sent = 0
        """Bytes sent since the first reading, however often the counter has begun again."""
        self.bytes_received = 0
        """The same for bytes received."""
        self._last: TrafficTotals | None = None

    def __repr__(self) -> str:
        return f"<TrafficMeter {self.bytes_sent} bytes sent, {self.bytes_received} received>"

    def update(self, totals: TrafficTotals) -> TrafficRates:
        """Return the rates since the last reading; all 0 over 0 seconds for the first one.

        Raises UsageError for what no gateway can have told.
        """
        last, self._last = self._last, check_totals(totals)
        if last is None or totals.at <= last.at:
            return TrafficRates(0.0, 0.0, 0.0, 0.0, 0.0)
        seconds = totals.at - last.at
        sent, received, packets_sent, packets_received = _growth(_counts(last), _counts(totals))
        assert sent is not None  # noqa: S101 - bytes are always told
        assert received is not None  # noqa: S101
        self.bytes_sent += sent
        self.bytes_received += received
        return TrafficRates(
            bytes_sent=sent / seconds,
            bytes_received=received / seconds,
            packets_sent=None if packets_sent is None else packets_sent / seconds,
            packets_received=None if packets_received is None else packets_received / seconds,
            seconds=seconds,
        )


def _counts(totals: TrafficTotals) -> _Counts:
    return totals.bytes_sent, totals.bytes_received, totals.packets_sent, totals.packets_received


def _growth(before: _Counts, after: _Counts) -> list[int | None]:
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old is not None and new is not None]
    moving = [new < old for old, new in pairs if old > 0]
    restarted = bool(moving) and all(moving) and not (len(moving) == 1 and _is_full(*pairs[_first_moving(pairs)]))
    return [
        None if old is None or new is None else _grown(old, new, restarted=restarted)
        for old, new in zip(before, after, strict=True)
    ]


def _first_moving(pairs: list[tuple[int, int]]) -> int:
    return next(number for number, (old, _) in enumerate(pairs) if old > 0)


def _grown(old: int, new: int, *, restarted: bool) -> int:
    if new >= old:
        return new - old
    return new if restarted or old >= _FULL else new - old + _FULL


def _is_full(old: int, new: int) -> bool:
    """Whether a counter that has fallen, and is the only one, was near its end."""
    return old < _FULL and new - old + _FULL < _FULL // 2
