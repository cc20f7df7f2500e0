"""Rates are right where the counters begin again: because they were full, or because the gateway has restarted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioigd import TrafficMeter, TrafficRates, TrafficTotals

FULL = 1 << 32


def measure(*readings: TrafficTotals) -> TrafficRates:
    meter = TrafficMeter()
    for reading in readings[:-1]:
        meter.update(reading)
    return meter.update(readings[-1])


def test_the_first_reading_has_nothing_to_compare() -> None:
    assert measure(TrafficTotals(5, 6, 7, 8, at=100.0)) == TrafficRates(0.0, 0.0, 0.0, 0.0, 0.0)


def test_rates_are_per_second() -> None:
    rates = measure(TrafficTotals(0, 1000, 10, 10, at=5.0), TrafficTotals(100, 3000, 12, 14, at=7.0))
    assert rates == TrafficRates(50.0, 1000.0, 1.0, 2.0, 2.0)


def test_two_readings_at_once_have_no_rate() -> None:
    assert measure(TrafficTotals(0, 0, at=5.0), TrafficTotals(9, 9, at=5.0)).bytes_sent == 0.0


def test_a_counter_that_is_full_counts_on() -> None:
    meter = TrafficMeter()
    meter.update(TrafficTotals(FULL - 100, 50, 1, 1, at=0.0))
    rates = meter.update(TrafficTotals(200, 150, 2, 2, at=1.0))
    assert (rates.bytes_sent, rates.bytes_received) == (300.0, 100.0)
    assert (meter.bytes_sent, meter.bytes_received) == (300, 100)


def test_a_gateway_that_has_restarted_counts_from_0() -> None:
    rates = measure(TrafficTotals(4_000_000_000, 50_000, 900, 800, at=0.0), TrafficTotals(70, 60, 3, 2, at=1.0))
    assert rates == TrafficRates(70.0, 60.0, 3.0, 2.0, 1.0)


@pytest.mark.parametrize(("before", "grown"), [(FULL - 1000, 1100.0), (1000, 100.0)], ids=["near its end", "near 0"])
def test_a_lone_counter_is_full_if_it_was_near_its_end(before: int, grown: float) -> None:
    assert measure(TrafficTotals(before, 0, at=0.0), TrafficTotals(100, 0, at=1.0)).bytes_sent == grown


def test_counters_of_more_than_32_bits_are_never_full() -> None:
    rates = measure(TrafficTotals(FULL * 2, 10, at=0.0), TrafficTotals(100, 20, at=1.0))
    assert rates.bytes_sent == 100.0


def test_packets_that_are_not_told_have_no_rate() -> None:
    rates = measure(TrafficTotals(0, 0, None, 5, at=0.0), TrafficTotals(1, 1, None, None, at=1.0))
    assert (rates.packets_sent, rates.packets_received) == (None, None)


@given(st.lists(st.integers(1, FULL // 2 - 1), min_size=1, max_size=20), st.integers(0, FULL - 1))
def test_what_went_through_is_counted_however_often_the_counter_is_full(steps: list[int], start: int) -> None:
    meter, total = TrafficMeter(), start
    meter.update(TrafficTotals(total % FULL, 1, 1, 1, at=0.0))
    for number, step in enumerate(steps, 1):
        total += step
        meter.update(TrafficTotals(total % FULL, 1 + number, 1 + number, 1 + number, at=float(number)))
    assert meter.bytes_sent == total - start
