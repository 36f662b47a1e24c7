"""Durations that were measured one by one: their percentiles, mean, deviation and jitter.

Lives here: arithmetic on whole nanoseconds, in pure Python and in bounded memory. Does not live
here: clocks and sockets (pinger.py), the native histogram of loads (_load).

Minimum, maximum, mean, deviation and jitter are exact: sums of Python's integers lose nothing. For
percentiles a value is rounded up behind its highest 11 bits, so by less than 0.1 %, as in an HDR
histogram with three significant digits: at most 1,024 different values for each power of two.
"""

from __future__ import annotations

from math import ceil, sqrt

__all__ = ["PERCENTILES", "Timings"]

PERCENTILES = (50, 75, 90, 95, 99, 99.9, 99.99)
KEPT_BITS = 11


class Timings:
    """Durations in nanoseconds, in the order in which they were measured.

    Attributes:
        count: how many.
        min_ns, max_ns: the extremes; 0 when there are none.
    """

    __slots__ = ("_counts", "_last_ns", "_square_sum", "_step_sum", "_sum", "count", "max_ns",
                 "min_ns")  # fmt: skip

    def __init__(self) -> None:
        self.count = 0
        self.min_ns = self.max_ns = 0
        # How often each value came, rounded up by setting all but its highest bits.
        self._counts: dict[int, int] = {}
        self._sum = self._square_sum = 0
        # Sum of the differences between each value and the one before it, without sign.
        self._step_sum = self._last_ns = 0

    def add(self, ns: int) -> None:
        """Take one more duration."""
        dropped = ns.bit_length() - KEPT_BITS
        kept = ns | ((1 << dropped) - 1) if dropped > 0 else ns
        self._counts[kept] = self._counts.get(kept, 0) + 1
        self._sum += ns
        self._square_sum += ns * ns
        if self.count == 0:
            self.min_ns = self.max_ns = ns
        else:
            self._step_sum += abs(ns - self._last_ns)
            if ns < self.min_ns:
                self.min_ns = ns
            elif ns > self.max_ns:
                self.max_ns = ns
        self._last_ns = ns
        self.count += 1

    @property
    def mean_ns(self) -> float:
        """The mean; 0 when there are none."""
        return self._sum / self.count if self.count else 0.0

    @property
    def stddev_ns(self) -> float:
        """The standard deviation of all that was measured (not an estimate for more)."""
        if not self.count:
            return 0.0
        return sqrt(self.count * self._square_sum - self._sum * self._sum) / self.count

    @property
    def jitter_ns(self) -> float:
        """The mean difference, without sign, between successive durations.

        Of RFC 3550 it is the mean of |D|, where that protocol keeps a running average.
        """
        return self._step_sum / (self.count - 1) if self.count > 1 else 0.0

    def percentiles_ns(self, *percents: float) -> list[int]:
        """Return the smallest durations that so many percent do not exceed, within 0.1 %.

        `percents` ascend; 0 for each when there are no durations.
        """
        if not self.count:
            return [0] * len(percents)
        found: list[int] = []
        ordered = iter(sorted(self._counts.items()))
        value, seen = next(ordered)
        seen_until = seen
        for percent in percents:
            rank = max(ceil(self.count * percent / 100), 1)
            while seen_until < rank:
                value, seen = next(ordered)
                seen_until += seen
            found.append(min(value, self.max_ns))
        return found

    def to_json(self) -> dict[str, float] | None:
        """Return all of it in microseconds; None when there are no durations."""
        if not self.count:
            return None
        values = self.percentiles_ns(*PERCENTILES)
        return {
            "min": self.min_ns / 1000,
            "mean": round(self.mean_ns / 1000, 3),
            "stddev": round(self.stddev_ns / 1000, 3),
            **{f"p{at:g}": ns / 1000 for at, ns in zip(PERCENTILES, values, strict=True)},
            "max": self.max_ns / 1000,
        }
