"""A latency histogram as rows of text: log buckets, their share, a bar.

What lives here: which buckets, how long a bar, which characters. What may not live here: colours,
options, where the histogram came from.

The rows go from the smallest value to p99.9 in steps that are equal on a log scale and end at
round numbers; what is above is one row. The finest step is chosen that needs no more than ROWS
rows: values that lie close together are told apart, values over many decades still fit a screen.
"""

from __future__ import annotations

import math

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Buckets(Protocol):
        """What fastecho._load.Histogram offers of it."""

        def buckets(self) -> list[tuple[int, int, int]]:
            """Return (lowest ns, highest ns, count) of each bucket."""

        def percentile(self, p: float) -> int:
            """Return ns."""

        @property
        def count(self) -> int:
            """All values."""

        @property
        def max(self) -> int:
            """Largest value, ns."""


__all__ = ["BLOCKS", "bar", "bars"]

ROWS = 14
STEPS: tuple[tuple[float, ...], ...] = (
    (1, 1.1, 1.2, 1.3, 1.5, 1.6, 1.8, 2, 2.2, 2.4, 2.7, 3, 3.3, 3.6, 3.9, 4.3, 4.7, 5.1, 5.6, 6.2,
     6.8, 7.5, 8.2, 9.1),
    (1, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3, 3.9, 4.7, 5.6, 6.8, 8.2),
    (1, 1.5, 2.2, 3.3, 4.7, 6.8),
    (1, 2, 5),
    (1,),
)  # fmt: skip
"""Edges within a decade: the E24, E12 and E6 series of preferred numbers, 1-2-5, and decades."""
BLOCKS = "▏▎▍▌▋▊▉█"
"""One to eight eighths of a column."""
LABEL = 31
"""Columns of a row before its bar."""
BAR = 50
"""Columns of the longest bar, on a wide terminal."""


def bars(histogram: Buckets, *, most: str, unicode: bool, width: int) -> list[tuple[str, str]]:
    """Return (label, bar) of each row; no row for an empty histogram. `most` is its maximum."""
    if histogram.count == 0:
        return []
    buckets = histogram.buckets()
    low = buckets[0][0] if buckets else histogram.max
    edges = _edges(max(low, 64), max(histogram.percentile(99.9), 64))
    shares = _shares(buckets, edges, histogram.count)
    longest = max(shares)
    room = max(min(BAR, width - LABEL - 1), 5)
    rows = []
    for n, share in enumerate(shares):
        if n < len(edges) - 1:
            name = f"{_time(edges[n])} - {_time(edges[n + 1])}"
        elif share == 0:
            continue
        else:
            name = f"{_time(edges[n])} - max {most}"
        rows.append(
            (f"{name:>22} {_percent(share):>7}", bar(share / longest, room, unicode=unicode))
        )
    return rows


def _edges(low: int, high: int) -> list[float]:
    """Return edges in ns around low..high, the finest that make at most ROWS rows."""
    for step in STEPS:
        edges = [
            mantissa * 10.0**power
            for power in range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 2)
            for mantissa in step
        ]
        first = max(n for n, edge in enumerate(edges) if edge <= low)
        last = min(n for n, edge in enumerate(edges) if edge > high)
        if last - first <= ROWS:
            break
    return edges[first : last + 1]


def _shares(
    buckets: Sequence[tuple[int, int, int]], edges: Sequence[float], total: int
) -> list[float]:
    """Return the share of all values between each edge and the next, and above the last."""
    from bisect import bisect_right

    counts = [0] * len(edges)
    for lowest, highest, count in buckets:
        counts[max(bisect_right(edges, (lowest + highest) / 2) - 1, 0)] += count
    counts[-1] += total - sum(counts)
    return [count / total for count in counts]


def bar(part: float, room: int, *, unicode: bool) -> str:
    """Return a bar; what is not zero shows at least a mark."""
    if part <= 0:
        return ""
    if not unicode:
        return "#" * max(round(part * room), 1)
    eighths = max(round(part * room * 8), 1)
    return BLOCKS[-1] * (eighths // 8) + BLOCKS[eighths % 8 - 1 : eighths % 8]


def _percent(share: float) -> str:
    if share == 0:
        return "0 %"
    if share < 0.0001:
        return "<0.01 %"
    return f"{share * 100:.2f} %" if share < 0.1 else f"{share * 100:.1f} %"


def _time(ns: float) -> str:
    for limit, unit, divisor in ((1e6, "us", 1e3), (1e9, "ms", 1e6)):
        if ns < limit * 0.9999:
            return f"{ns / divisor:.3g} {unit}"
    return f"{ns / 1e9:.4g} s"
