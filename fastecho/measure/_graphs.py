"""Which charts a page has: what of the runs is drawn over what.

What lives here: from results to lines and axes. What may not live here: shapes (_charts.py), the
text around the charts (page.py).
"""

from __future__ import annotations

import math
from bisect import bisect_left

from ._axes import count_text, linear, log, nines_of, percentile, time_text
from ._charts import Line

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fastecho._load import Histogram

    from ._axes import Axis
    from .result import Interval, Result

__all__ = ["Graph", "by_percentile", "graphs"]

STEPS_A_DECADE = 40
"""Points of a curve between 0 and 90 %, 90 and 99 %, and so on."""
POINTS = 500
"""More intervals than so many are drawn together."""


class Graph:
    """A chart to be drawn: heading, a sentence for who cannot see it, lines and axes."""

    __slots__ = ("about", "lines", "title", "x", "y")

    def __init__(self, title: str, about: str, lines: list[Line], x: Axis, y: Axis) -> None:
        self.title = title
        self.about = about
        self.lines = lines
        self.x = x
        self.y = y


def graphs(runs: Sequence[tuple[str, Result]]) -> Iterator[Graph]:
    """Yield the charts of some runs, each given with its name; what is empty is left out."""
    if any(result.latency is not None and result.latency.count for _, result in runs):
        yield by_percentile(runs)
    timed = [(name, _drawn(result.intervals)) for name, result in runs]
    if not any(intervals for _, intervals in timed):
        return
    end = max(one.start + one.elapsed for _, intervals in timed for one in intervals)
    x = linear("time since the start", end, _seconds_text, round_up=False)
    yield _rate(timed, x)
    yield from _latencies(timed, x)
    if any(one.failures for _, intervals in timed for one in intervals):
        yield _failures(timed, x)


def by_percentile(runs: Sequence[tuple[str, Result]]) -> Graph:
    """Return the chart of latency by percentile, both axes logarithmic."""
    lines, told, most = [], [], 1
    for n, (name, result) in enumerate(runs):
        both = [("latency", result.latency, 0), ("service time", result.service, 1)]
        for what, histogram, dash in both:
            if histogram is None or not histogram.count:
                continue
            alone = result.service is None or not result.service.count
            words = ([name] if len(runs) > 1 else []) + ([] if alone else [what])
            # One run has two colours, several have one each: dashes tell the two apart as well.
            colour = n if len(runs) > 1 else dash
            lines.append(Line(", ".join(words) or what, _curve(histogram), colour, dash))
            most = max(most, histogram.count)
            figures = ", ".join(
                f"p{p:g} {time_text(histogram.percentile(p) / 1e3)}" for p in (50, 99, 99.9)
            )
            told.append(f"{lines[-1].name}: {figures}, max {time_text(histogram.max / 1e3)}")
    heights = [y for line in lines for _, y in line.points if y is not None]
    y = log("latency", heights, time_text)
    about = f"Latency by percentile, logarithmic. {'. '.join(told)}."
    return Graph("Latency by percentile", about, lines, percentile(most), y)


def _curve(histogram: Histogram) -> list[tuple[float, float | None]]:
    """Return (log10(1 / (1 - p)), microseconds) of a histogram, up to its maximum."""
    total = histogram.count
    sums, values, summed = [], [], 0
    for _, highest, count in histogram.buckets():
        summed += count
        sums.append(summed)
        values.append(min(highest, histogram.max) / 1e3)
    end = math.log10(total)
    steps = {n / STEPS_A_DECADE for n in range(math.ceil(end * STEPS_A_DECADE))}
    steps |= {nines for p in (25, 50, 75) if (nines := nines_of(p)) < end}
    points: list[tuple[float, float | None]] = []
    for nines in sorted(steps):
        place = bisect_left(sums, math.ceil(total * (1 - 10.0**-nines) - 1e-6) or 1)
        # Values above the last bucket (1 h) are known by their maximum only.
        points.append((nines, values[place] if place < len(values) else histogram.max / 1e3))
    points.append((end, histogram.max / 1e3))
    return points


def _drawn(intervals: Sequence[Interval]) -> list[Interval]:
    """Return the intervals, several put together where there are too many for a picture.

    Then a percentile is the highest of those together: it is not averaged.
    """
    from .result import Interval

    size = math.ceil(len(intervals) / POINTS)
    if size <= 1:
        return list(intervals)
    found = []
    for n in range(0, len(intervals), size):
        group = intervals[n : n + size]
        found.append(
            Interval(
                group[0].start,
                sum(one.elapsed for one in group),
                messages=sum(one.messages for one in group),
                failures=sum(one.failures for one in group),
                p50=_highest(one.p50 for one in group),
                p99=_highest(one.p99 for one in group),
                max=_highest(one.max for one in group),
            )
        )
    return found


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _over_time(
    intervals: Sequence[Interval], name: str, scale: float = 1.0
) -> list[tuple[float, float | None]]:
    """Return (middle of the interval, value) of an attribute."""
    points: list[tuple[float, float | None]] = []
    for one in intervals:
        value = getattr(one, name)
        # A logarithmic axis has no zero, and 0 would mean less than any clock can tell.
        height = None if value is None or (scale != 1.0 and value <= 0) else value * scale
        points.append((one.start + one.elapsed / 2, height))
    return points


def _rate(timed: Sequence[tuple[str, list[Interval]]], x: Axis) -> Graph:
    lines = [
        Line(name, _over_time(intervals, "messages_per_s"), n)
        for n, (name, intervals) in enumerate(timed)
    ]
    heights = [y for line in lines for _, y in line.points if y is not None]
    y = linear("messages/s", max(heights, default=0), count_text, round_up=True)
    told = f"between {count_text(min(heights))} and {count_text(max(heights))}" if heights else ""
    return Graph("Rate over time", f"Right replies a second over time, {told}.", lines, x, y)


def _latencies(timed: Sequence[tuple[str, list[Interval]]], x: Axis) -> Iterator[Graph]:
    """Yield p50, p99 and max of one run in one chart; of several runs a chart for each figure."""
    figures = ("p50", "p99", "max")
    if len(timed) == 1:
        lines = [
            Line(figure, _over_time(timed[0][1], figure, 1e6), n, n)
            for n, figure in enumerate(figures)
        ]
        yield from _latency("Latency over time", lines, x)
        return
    for figure in figures:
        lines = [
            Line(name, _over_time(intervals, figure, 1e6), n)
            for n, (name, intervals) in enumerate(timed)
        ]
        yield from _latency(f"{figure} over time", lines, x)


def _latency(title: str, lines: list[Line], x: Axis) -> Iterator[Graph]:
    heights = [y for line in lines for _, y in line.points if y is not None]
    if heights:
        told = [
            f"{line.name} at most {time_text(max(known))}"
            for line in lines
            if (known := [y for _, y in line.points if y is not None])
        ]
        about = f"{title}, logarithmic: {', '.join(told)}."
        yield Graph(title, about, lines, x, log("latency", heights, time_text))


def _failures(timed: Sequence[tuple[str, list[Interval]]], x: Axis) -> Graph:
    lines = [
        Line(name, _over_time(intervals, "failures"), n)
        for n, (name, intervals) in enumerate(timed)
    ]
    most = max(y for line in lines for _, y in line.points if y is not None)
    y = linear("failures in an interval", most, count_text, round_up=True)
    about = f"Failures of all kinds in each interval, at most {count_text(most)}."
    return Graph("Failures over time", about, lines, x, y)


def _seconds_text(value: float) -> str:
    return f"{value:.4g} s"
