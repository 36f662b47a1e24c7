"""Two runs beside each other: ratios of rate and latency, and how sure they are.

Lives here: the figures that are compared, the method, the verdict in words. Does not live here:
adding runs up (merge.py), tables (cli/report.py).

How sure: the method of batch means (Law, Simulation Modeling and Analysis, "batch means"). Seconds
of a run are no independent draws: what disturbs one often lasts into the next. So the intervals of
a run are put together to batches of at least two, at most BATCHES of them; a figure is computed for
each batch, from its own histogram; and the spread of these, on a log scale, tells how far the
figure of the whole run may be from what the same load would give in the long run. Two runs give the
interval of their ratio by Welch's t. Nothing is drawn at random, so the same files always give the
same words.

The ratio itself is that of the whole runs, never of a mean of percentiles. An interval holds at a
level of 99 %, for six figures are told at once. It knows only what changed during the runs: a
machine that was slower all the time looks like a slower server, and only further runs show that.

A maximum is a single value and gets no narrower with time: there the spread of the batches itself
is what two runs may differ by. Where intervals hold no histograms, p90 and p99.9 borrow the larger
spread of their neighbours (p50 and p99, p99 and the maximum).
"""

from __future__ import annotations

import math

from .datagrams import percent_text
from .merge import copies, differences, latencies_of, merge, name_of
from .words import counted

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .result import Interval, Result

__all__ = ["FIGURES", "Comparison", "Figure", "compare", "key_of", "merge"]

FIGURES = ("rate", "p50", "p90", "p99", "p99.9", "max")
NEIGHBOURS = {"p90": ("p50", "p99"), "p99.9": ("p99", "max")}
"""Whose spread a percentile borrows that intervals without histograms do not have."""
BATCHES = 8
"""At most: docs/decisions/0010-comparing-runs.md."""
FEWEST = 4
"""Batches; fewer than so many tell nothing of a spread."""
Z = 2.5758293
"""Of a normal distribution, for a level of 99 %."""
RESOLUTION = 0.001
"""A smaller difference is never told: it is the width of a histogram's bucket."""
BUCKET_US = 0.064
LENGTH = ("duration", "messages", "interval")
NOISE, MORE, LESS, UNKNOWN = "within noise", "more", "less", "cannot tell"


class Figure:
    """One figure of two runs.

    Attributes:
        name: of FIGURES.
        baseline, value: messages a second for the rate, otherwise microseconds; None: no reply.
        ratio: value / baseline; None if there is none.
        low, high: what the ratio may be; None if the runs are too short to tell.
        verdict: "within noise", "more", "less" or "cannot tell".
    """

    __slots__ = ("baseline", "high", "low", "name", "ratio", "value", "verdict")

    def __init__(
        self, name: str, baseline: float | None, value: float | None, spread: float | None
    ) -> None:
        self.name = name
        self.baseline = baseline
        self.value = value
        self.ratio = self.low = self.high = None
        self.verdict = UNKNOWN
        if not baseline or not value:
            return
        self.ratio = value / baseline
        if spread is None:
            return
        self.low = self.ratio * math.exp(-spread)
        self.high = self.ratio * math.exp(spread)
        self.verdict = LESS if self.high < 1 else MORE if self.low > 1 else NOISE

    def to_json(self) -> dict[str, Any]:
        """Return the figure; times are in microseconds, a rate in messages a second."""
        found = {name: getattr(self, name) for name in self.__slots__ if name != "name"}
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}

    def __repr__(self) -> str:
        return f"<Figure {self.name} {self.to_json()}>"


class Comparison:
    """A run beside the one that it is measured against.

    Attributes:
        baseline, name: what the two runs are called.
        figures: a Figure for each of FIGURES.
        notes: sentences that a reader must know: plans that differ, failures.
    """

    __slots__ = ("baseline", "figures", "name", "notes")

    def __init__(self, baseline: Result, result: Result) -> None:
        self.baseline = name_of(baseline)
        self.name = name_of(result)
        self.figures = _figures(baseline, result)
        self.notes = _notes(baseline, result)

    def to_json(self) -> dict[str, Any]:
        """Return everything as a plain dict; keys of figures carry their units."""
        return {
            "name": self.name,
            "baseline": self.baseline,
            "figures": {key_of(one.name): one.to_json() for one in self.figures},
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        return f"<Comparison of {self.name} with {self.baseline}: {self.figures}>"


def compare(results: Sequence[Result], *, baseline: int = 0) -> list[Comparison]:
    """Compare each result with one of them.

    Args:
        results: two or more.
        baseline: the place of the one that the others are measured against.
    Returns:
        list: a Comparison for each of the others, in their order.
    Raises:
        ValueError: there are fewer than two, or an interval's histogram is damaged.
    Thread: any.   Cost: about 0.2 ms for each interval that has a histogram.
    """
    if len(results) < 2:
        raise ValueError("two results or more can be compared, not one")
    base = results[baseline]
    return [Comparison(base, one) for one in results if one is not base]


def key_of(name: str) -> str:
    """Return the key of a figure in JSON: messages_per_s, latency_us.p99."""
    return "messages_per_s" if name == "rate" else f"latency_us.{name}"


def _figures(baseline: Result, result: Result) -> list[Figure]:
    spreads = _Spread(baseline), _Spread(result)
    found = []
    for name in FIGURES:
        values = [_value(one, name) for one in (baseline, result)]
        found.append(Figure(name, values[0], values[1], _together(name, spreads, values)))
    return found


def _value(result: Result, name: str) -> float | None:
    """Return a figure of a whole run."""
    if name == "rate":
        return result.messages_per_s or None
    percent = 100.0 if name == "max" else float(name[1:])
    seconds = result.percentile(percent)
    return None if seconds is None else seconds * 1e6


class _Spread:
    """How far the batches of one run lie apart, for each figure."""

    def __init__(self, result: Result) -> None:
        self._batches = _batches(result.intervals)
        self._values: dict[str, list[float]] = {"rate": [_rate(one) for one in self._batches]}
        histograms = [latencies_of(batch) for batch in self._batches]
        known = [one for one in histograms if one is not None]
        for name in FIGURES[1:]:
            if len(known) == len(histograms):
                percent = 100.0 if name == "max" else float(name[1:])
                # A batch without any reply has no latency; the next one shows why.
                self._values[name] = [max(x.percentile(percent), 1) for x in known if x.count]
            elif name not in NEIGHBOURS:
                self._values[name] = [
                    x for batch in self._batches if (x := _typical(batch, name)) is not None
                ]

    def of(self, name: str) -> tuple[float, int] | None:
        """Return the relative variance of a run's figure, and the batches it was seen in."""
        lent = [self._among(one) for one in NEIGHBOURS.get(name, ()) if name not in self._values]
        found = lent or [self._among(name)]
        known = [one for one in found if one is not None]
        if len(known) < len(found):
            return None
        variance, count = max(known)
        return (variance if name == "max" else variance / count), count

    def _among(self, name: str) -> tuple[float, int] | None:
        """Return the relative variance of single batches, and their number, if it is enough."""
        values = self._values[name]
        count = len(values)
        if count < FEWEST or not any(values):
            return None
        # A rate may be 0 for a while; a latency may be far from the others.
        seen = [math.log(value) for value in values] if name != "rate" else values
        middle = math.fsum(seen) / count
        variance = math.fsum((one - middle) ** 2 for one in seen) / (count - 1)
        return (variance / middle**2 if name == "rate" else variance), count


def _batches(intervals: Sequence[Interval]) -> list[list[Interval]]:
    """Return the intervals of a run in batches of the same number, a short last one left out."""
    if not intervals:
        return []
    usual = sorted(one.elapsed for one in intervals)[len(intervals) // 2]
    whole = [one for one in intervals if one.elapsed >= usual / 2]
    size = max(-(-len(whole) // BATCHES), 2 if len(whole) >= 2 * FEWEST else 1)
    return [whole[n : n + size] for n in range(0, len(whole) - size + 1, size)]


def _rate(batch: Sequence[Interval]) -> float:
    seconds = math.fsum(one.elapsed for one in batch)
    return sum(one.messages for one in batch) / seconds if seconds else 0.0


def _typical(batch: Sequence[Interval], name: str) -> float | None:
    """Return the geometric mean of a batch's intervals, to see a spread: not a percentile."""
    values = [value for one in batch if (value := getattr(one, name))]
    if name == "max":
        return max(values, default=None)
    return math.exp(math.fsum(map(math.log, values)) / len(values)) if values else None


def _together(
    name: str, spreads: tuple[_Spread, _Spread], values: Sequence[float | None]
) -> float | None:
    """Return how far, on a log scale, the ratio of two runs may be off."""
    one, other = (spread.of(name) for spread in spreads)
    if one is None or other is None:
        return None
    variance = one[0] + other[0]
    square = sum(v * v / (count - 1) for v, count in (one, other))
    freedom = variance * variance / square if square else math.inf
    floor = RESOLUTION
    if name != "rate":
        floor = max(floor, *(BUCKET_US / value for value in values if value))
    return max(_student(freedom) * math.sqrt(variance), floor)


def _student(freedom: float) -> float:
    """Return Student's t for a level of 99 %, two-sided (Cornish and Fisher; 2 % off at 3)."""
    z, v = Z, freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )


def _notes(baseline: Result, result: Result) -> list[str]:
    notes = []
    if copies((baseline, result)) is not None:
        notes.append("both hold the same run: they are no two measurements")
    # A longer run of the same load is only more certain.
    if different := differences(baseline.plan, result.plan, besides=LENGTH):
        notes.append(f"the loads differ: {'; '.join(different)}")
    if baseline.plan.threads != result.plan.threads:
        notes.append(f"threads differ: {baseline.plan.threads} and {result.plan.threads}")
    hosts = [str(one.host.get("name", "")) for one in (baseline, result)]
    if hosts[0] != hosts[1]:
        notes.append(f"they ran on different machines: {hosts[0]} and {hosts[1]}")
    failed = [one for one in (baseline, result) if one.failed]
    notes += [f"{name_of(one)} has {counted(one.failed, 'failure')}" for one in failed]
    losses = [one for one in (baseline, result) if one.lost_percent]
    notes += [
        f"{name_of(one)} lost {percent_text(one.lost_percent or 0.0)} of its datagrams"
        for one in losses
    ]
    return notes + [
        f"{name_of(one)} is a step of a search for {one.search['limit']}: the others are left out"
        for one in (baseline, result)
        if one.search is not None
    ]
