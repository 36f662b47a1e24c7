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
BATCH = 1024


class Timings:
    """Durations in nanoseconds, in the order in which they were measured."""

    __slots__ = ("_count", "_counts", "_last_ns", "_max_ns", "_min_ns", "_new", "_square_sum",
                 "_step_sum", "_sum")  # fmt: skip

    def __init__(self) -> None:
        # Those that the fields below do not know of yet.
        self._new: list[int] = []
        self._count = self._min_ns = self._max_ns = 0
        # How often each value came, rounded up by setting all but its highest bits.
        self._counts: dict[int, int] = {}
        self._sum = self._square_sum = 0
        # Sum of the differences between each value and the one before it, without sign.
        self._step_sum = self._last_ns = 0

    def add(self, ns: int) -> None:
        """Take one more duration; cheap, since somebody measures."""
        self._new.append(ns)
        if len(self._new) >= BATCH:
            self._work_in()

    def _work_in(self) -> None:
        """Add up what is new."""
        for ns in self._new:
            dropped = ns.bit_length() - KEPT_BITS
            kept = ns | ((1 << dropped) - 1) if dropped > 0 else ns
            self._counts[kept] = self._counts.get(kept, 0) + 1
            self._sum += ns
            self._square_sum += ns * ns
            if self._count == 0:
                self._min_ns = self._max_ns = ns
            else:
                self._step_sum += abs(ns - self._last_ns)
                self._min_ns = min(self._min_ns, ns)
                self._max_ns = max(self._max_ns, ns)
            self._last_ns = ns
            self._count += 1
        self._new.clear()

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count + len(self._new)

    @property
    def min_ns(self) -> int:
        """The shortest; 0 when there are none."""
        self._work_in()
        return self._min_ns

    @property
    def max_ns(self) -> int:
        """The longest; 0 when there are none."""
        self._work_in()
        return self._max_ns

    @property
    def mean_ns(self) -> float:
        """The mean; 0 when there are none."""
        self._work_in()
        return self._sum / self._count if self._count else 0.0

    @property
    def stddev_ns(self) -> float:
        """The standard deviation of all that was measured (not an estimate for more)."""
        self._work_in()
        if not self._count:
            return 0.0
        return sqrt(self._count * self._square_sum - self._sum * self._sum) / self._count

    @property
    def jitter_ns(self) -> float:
        """The mean difference, without sign, between successive durations.

        Of RFC 3550 it is the mean of |D|, where that protocol keeps a running average.
        """
        self._work_in()
        return self._step_sum / (self._count - 1) if self._count > 1 else 0.0

    # What a rule asks of a histogram, it can ask of these as well (rules.py).

    @property
    def max(self) -> int:
        """The longest, in nanoseconds."""
        return self.max_ns

    @property
    def mean(self) -> float:
        """The mean, in nanoseconds."""
        return self.mean_ns

    def percentile(self, percent: float) -> int:
        """Return one percentile, in nanoseconds."""
        return self.percentiles_ns(percent)[0]

    def percentiles_ns(self, *percents: float) -> list[int]:
        """Return the smallest durations that so many percent do not exceed, within 0.1 %.

        `percents` ascend; 0 for each when there are no durations.
        """
        self._work_in()
        if not self._count:
            return [0] * len(percents)
        found: list[int] = []
        ordered = iter(sorted(self._counts.items()))
        value, seen = next(ordered)
        seen_until = seen
        for percent in percents:
            rank = max(ceil(self._count * percent / 100), 1)
            while seen_until < rank:
                value, seen = next(ordered)
                seen_until += seen
            found.append(min(value, self._max_ns))
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
