"""What becomes of many turns: medians, quartiles, intervals, ratios, and the verdict on a bar.

Pure arithmetic on numbers that were measured elsewhere; nothing is started or printed here.

A ratio is taken round by round, of two turns that were at most a round apart, so that what the
machine did meanwhile hits both. Its summary is the median over the rounds with its quartiles
(how much one round says) and a 95 % interval of the median (how much all of them say). The
interval is the one that the sign test gives: two order statistics, no assumption about the shape
of the noise.

Noise is what the same figure shows for a program against a second instance of itself: the bound
of that interval which lies farther from 1.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

# the share of cases in which the interval of a median covers the true one
CONFIDENCE = 0.95

# pairs below which the interval of a tail is too wide to say anything
TAIL_PAIRS = 20

# rounds below which there is no interval of CONFIDENCE at all
LEAST_ROUNDS = 6

# noise, as a share of the bar, that is too large to excuse a miss; that of a tail, of which a
# single value is good for a factor of two
NOISE_LIMIT = 0.10
TAIL_NOISE_LIMIT = 0.25

Verdict = Literal[
    "met", "met within the noise", "not met", "too noisy", "too few rounds", "not measured"
]


@dataclass(frozen=True, slots=True)
class Summary:
    """Many values of one quantity; every field has the unit of the values."""

    median: float
    # first and third quartile
    q1: float
    q3: float
    # interval of the median
    low: float
    high: float
    # number of values
    count: int


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the order statistics that hold the true median in CONFIDENCE of the cases.

    With fewer than six values no pair of them does: then the smallest and the largest.
    """
    ordered = sorted(values)
    count = len(ordered)
    rank = 0
    tail = 0.0
    while rank < count // 2:
        tail += math.comb(count, rank) / 2**count
        if 2 * tail > 1 - CONFIDENCE:
            break
        rank += 1
    lower = max(rank - 1, 0)
    return ordered[lower], ordered[count - 1 - lower]


def summarize(values: Iterable[float]) -> Summary:
    """Return the summary of at least one value."""
    measured = list(values)
    low, high = median_interval(measured)
    if len(measured) > 1:
        q1, median, q3 = statistics.quantiles(measured, n=4, method="inclusive")
    else:
        q1 = median = q3 = measured[0]
    return Summary(median, q1, q3, low, high, len(measured))


def noise_of(*same_against_same: Summary) -> float | None:
    """Return the noise that these ratios of a program to itself show, as a share of 1.

    None when no program had a second instance.
    """
    if not same_against_same:
        return None
    return max(max(abs(one.low - 1), abs(one.high - 1)) for one in same_against_same)


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure to reach."""

    value: float
    # "at least": larger is better; "at most": smaller is better
    side: Literal["at least", "at most"]
    # the unit of value, "" for a ratio
    unit: str = ""

    def __str__(self) -> str:
        sign = ">=" if self.side == "at least" else "<="
        unit = f" {self.unit}" if self.unit else ""
        return f"{sign} {self.value:g}{unit}"


def at_least(value: float, unit: str = "") -> Bar:
    """Return the bar that a figure must not be below."""
    return Bar(value, "at least", unit)


def at_most(value: float, unit: str = "") -> Bar:
    """Return the bar that a figure must not be above."""
    return Bar(value, "at most", unit)


def judge(bar: Bar, measured: Summary, noise: float | None) -> Verdict:
    """Return whether the median of a ratio reaches the bar, or misses it by less than the noise.

    `noise` is a share of 1.
    """
    if measured.count < LEAST_ROUNDS:
        return "too few rounds"
    return judge_value(bar, measured.median, (noise or 0.0) * bar.value)


def judge_value(bar: Bar, value: float, slack: float) -> Verdict:
    """Return whether `value` reaches the bar, or misses it by at most `slack`, in its unit."""
    miss = bar.value - value if bar.side == "at least" else value - bar.value
    if miss <= 0:
        return "met"
    if miss > slack:
        return "not met"
    return "met within the noise" if slack <= NOISE_LIMIT * bar.value else "too noisy"


def judge_tail(bar: Bar, measured: Summary, noise: float = 0.0) -> Verdict:
    """Return whether a ratio of tails reaches the bar, by the interval of its median.

    `noise`, a share of 1, excuses a miss as it does for other ratios. Where it is too large,
    nothing is excused by an interval that is as wide.
    """
    if measured.count < TAIL_PAIRS:
        return "too few rounds"
    best_case = measured.low if bar.side == "at most" else measured.high
    if judge_value(bar, measured.median, 0.0) == "met":
        return "met"
    within_noise = judge_value(bar, measured.median, noise * bar.value) != "not met"
    if not within_noise and judge_value(bar, best_case, 0.0) == "not met":
        return "not met"
    return "met within the noise" if noise <= TAIL_NOISE_LIMIT else "too noisy"
