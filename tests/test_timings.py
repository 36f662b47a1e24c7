"""Durations: exact mean, deviation and jitter, percentiles within 0.1 %, in little memory."""

from __future__ import annotations

import statistics
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastecho.measure.timings import BATCH, PERCENTILES, Timings

durations = st.lists(st.integers(0, 10**13), min_size=1, max_size=200)


def timings(values: list[int]) -> Timings:
    made = Timings()
    for value in values:
        made.add(value)
    return made


@given(durations)
def test_mean_deviation_and_extremes_are_exact(values: list[int]) -> None:
    made = timings(values)
    assert (made.count, made.min_ns, made.max_ns) == (len(values), min(values), max(values))
    assert made.mean_ns == pytest.approx(statistics.fmean(values))
    assert made.stddev_ns == pytest.approx(statistics.pstdev(values), abs=1e-3)


@given(durations)
def test_jitter_is_the_mean_step_from_one_to_the_next(values: list[int]) -> None:
    steps = [abs(b - a) for a, b in pairwise(values)]
    expected = statistics.fmean(steps) if steps else 0.0
    assert timings(values).jitter_ns == pytest.approx(expected)


@given(durations)
def test_percentile_is_a_value_that_so_many_do_not_exceed(values: list[int]) -> None:
    ordered = sorted(values)
    for percent, found in zip(
        PERCENTILES, timings(values).percentiles_ns(*PERCENTILES), strict=True
    ):
        exact = ordered[max(ceil(len(ordered) * percent / 100), 1) - 1]
        assert exact <= found <= min(exact * 1.001, max(values))


def test_no_durations_are_no_division_by_zero() -> None:
    made = Timings()
    assert (made.mean_ns, made.stddev_ns, made.jitter_ns) == (0.0, 0.0, 0.0)
    assert made.percentiles_ns(50, 99) == [0, 0]
    assert made.to_json() is None


def test_memory_is_bounded_by_the_range_not_by_the_number() -> None:
    made = timings(list(range(1, 400_000, 3)))
    assert made.min_ns == 1
    assert len(made._counts) < 12_000
    assert len(made._new) < BATCH


def test_json_is_in_microseconds() -> None:
    shown = timings([1000, 2000, 3000]).to_json()
    assert shown is not None
    assert (shown["min"], shown["mean"], shown["p50"], shown["max"]) == (1.0, 2.0, 2.0, 3.0)
    assert list(shown) == [
        "min", "mean", "stddev", "p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "max",
    ]  # fmt: skip
