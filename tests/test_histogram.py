"""The load generator's histogram agrees with PyPI's hdrhistogram, whatever is recorded.

Both use one layout (lowest discernible 64 ns, 3 digits, 1 h). Ours differs on purpose in three
things: minimum and maximum are exact, no percentile exceeds the maximum and no mean leaves the two,
and values above an hour are counted instead of refused.
"""

from __future__ import annotations

import time

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from fastecho._load import Histogram

HOUR = 3_600_000_000_000
PERCENTS = [0.0, 0.001, 1.0, 25.0, 33.3, 50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0]

# Small values, values of any magnitude, and the edges of buckets.
NANOSECONDS = st.one_of(
    st.integers(0, 200_000),
    st.integers(0, HOUR),
    st.integers(6, 41).map(lambda bits: 2**bits),
    st.integers(6, 41).map(lambda bits: 2**bits - 1),
)
RECORDED = st.lists(st.tuples(NANOSECONDS, st.integers(1, 1000)), max_size=60)

# The oracle is Python and walks 27,648 buckets: fewer examples, and no limit for one.
patient = settings(deadline=None, max_examples=40)


def pair(recorded: list[tuple[int, int]]) -> tuple[Histogram, HdrHistogram]:
    """Return our histogram and the oracle with the same values in them."""
    ours, oracle = Histogram(), HdrHistogram(64, HOUR, 3)
    for ns, count in recorded:
        ours.record(ns, count)
        oracle.record_value(ns, count)
    return ours, oracle


@patient
@given(RECORDED)
def test_percentiles_equal_the_oracles(recorded: list[tuple[int, int]]) -> None:
    ours, oracle = pair(recorded)
    for percent in PERCENTS:
        expected = oracle.get_value_at_percentile(percent) if recorded else 0
        assert ours.percentile(percent) == min(expected, ours.max), percent


@patient
@given(RECORDED)
def test_every_count_stands_in_the_oracles_bucket(recorded: list[tuple[int, int]]) -> None:
    ours, oracle = pair(recorded)
    expected = []
    for index in range(oracle.counts_len):
        if count := oracle.get_count_at_index(index):
            low = oracle.get_value_from_index(index)
            expected.append((low, oracle.get_highest_equivalent_value(low), count))
    assert ours.buckets() == expected


@patient
@given(RECORDED)
def test_count_minimum_and_maximum_are_exact(recorded: list[tuple[int, int]]) -> None:
    ours, _ = pair(recorded)
    values = [ns for ns, _ in recorded]
    assert ours.count == sum(count for _, count in recorded)
    assert (ours.min, ours.max) == (min(values, default=0), max(values, default=0))
    assert ours.overflow == 0


@patient
@given(RECORDED)
def test_mean_and_deviation_equal_the_oracles(recorded: list[tuple[int, int]]) -> None:
    ours, oracle = pair(recorded)
    # The oracle's mean of bucket middles may lie outside of the values themselves.
    mean = min(max(oracle.get_mean_value(), ours.min), ours.max)
    assert ours.mean == pytest.approx(mean, rel=1e-9)
    assert ours.min <= ours.mean <= ours.max
    # The oracle adds floats in another order; where all values are equal it is 0.
    deviation = oracle.get_stddev()
    assert ours.stddev == pytest.approx(deviation, rel=1e-6, abs=1e-6 * ours.mean + 1e-9)


@patient
@given(RECORDED, RECORDED)
def test_merging_equals_recording_into_one(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    one, _ = pair(first)
    other, _ = pair(second)
    both, _ = pair(first + second)
    one.merge(other)
    assert one.buckets() == both.buckets()
    assert (one.count, one.min, one.max) == (both.count, both.min, both.max)
    assert other.buckets() == pair(second)[0].buckets()


def test_merging_into_itself_doubles() -> None:
    ours, _ = pair([(1000, 3), (HOUR, 1)])
    ours.merge(ours)
    assert [count for _, _, count in ours.buckets()] == [6, 2]
    assert ours.count == 8


def test_too_many_values_are_not_added_up() -> None:
    ours, other = Histogram(), Histogram()
    ours.record(1000, 2**62)
    other.record(5000, 2**62)
    with pytest.raises(ValueError, match="cannot be added up"):
        ours.merge(other)
    assert ours.count == 2**62 and ours.buckets() == [(960, 1023, 2**62)]


def test_values_above_an_hour_count_as_larger_than_any_bucket() -> None:
    ours = Histogram()
    ours.record(1000, 90)
    ours.record(HOUR + 1, 9)
    ours.record(2**80)
    assert (ours.count, ours.overflow) == (100, 10)
    assert ours.percentile(90) == 1023
    assert ours.percentile(90.6) == ours.max == 2**64 - 1
    assert sum(count for _, _, count in ours.buckets()) == 90


def test_reset_leaves_an_empty_histogram() -> None:
    ours, _ = pair([(5, 1), (HOUR + 5, 2)])
    ours.reset()
    assert (ours.count, ours.overflow, ours.min, ours.max) == (0, 0, 0, 0)
    assert (ours.mean, ours.stddev, ours.percentile(99)) == (0.0, 0.0, 0)
    assert ours.buckets() == []


@pytest.mark.parametrize(("ns", "count"), [(-1, 1), (1, -1)])
def test_negative_value_or_count_is_refused(ns: int, count: int) -> None:
    ours = Histogram()
    with pytest.raises(ValueError, match="not be negative, not"):
        ours.record(ns, count)
    assert ours.count == 0


@pytest.mark.parametrize("percent", [-0.1, 100.1, float("nan")])
def test_percentile_outside_0_to_100_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        Histogram().percentile(percent)


def test_a_thousand_histograms_merge_within_a_second() -> None:
    full = Histogram()
    for ns in range(0, HOUR, HOUR // 5000):
        full.record(ns)
    total = Histogram()
    begin = time.process_time()
    for _ in range(1000):
        total.merge(full)
    assert time.process_time() - begin <= 1.0
    assert total.count == 1000 * full.count
