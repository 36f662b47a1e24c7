"""Axes of charts: where a value stands between 0 and 1, and which values are written beside.

What lives here: scales, ticks, and numbers as short text. What may not live here: pixels and
drawing (_charts.py), results (page.py).
"""

from __future__ import annotations

import math

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "Axis",
    "count_text",
    "linear",
    "log",
    "nines_of",
    "percent_text",
    "percentile",
    "time_text",
]


class Axis:
    """A scale with its ticks.

    Attributes:
        title: what its values are.
        ticks: (value, text) of each line across the chart; the text may be empty.
        text: a value in words, where somebody points at it.
        places: values to be shown there, in lists that get shorter; empty: any will do.
    """

    __slots__ = ("_high", "_log", "_low", "places", "text", "ticks", "title")

    def __init__(
        self,
        title: str,
        low: float,
        high: float,
        ticks: list[tuple[float, str]],
        text: Callable[[float], str],
        *,
        log: bool = False,
        places: Sequence[Sequence[float]] = (),
    ) -> None:
        self.title = title
        self.ticks = ticks
        self.text = text
        self.places = places
        self._log = log
        self._low = math.log10(low) if log else low
        self._high = math.log10(high) if log else high

    def __call__(self, value: float) -> float:
        """Return where a value stands: 0 at the low end, 1 at the high end, never beyond."""
        if self._log:
            value = math.log10(value) if value > 0 else self._low
        return min(max((value - self._low) / (self._high - self._low), 0.0), 1.0)


def linear(title: str, highest: float, text: Callable[[float], str], *, round_up: bool) -> Axis:
    """Return an axis from 0 to `highest`, or to the next round number above it."""
    if highest <= 0:
        highest, round_up = 1.0, True
    step = 10.0 ** math.floor(math.log10(highest / 5))
    step *= next(factor for factor in (1, 2, 5, 10) if highest / (step * factor) <= 6)
    # Room above the highest, so that a flat line is not taken for the edge.
    steps = math.ceil(highest * 1.03 / step) if round_up else math.floor(highest / step + 1e-9)
    ticks = [(n * step, text(n * step)) for n in range(steps + 1)]
    return Axis(title, 0.0, max(steps * step, highest), ticks, text)


def log(title: str, values: Iterable[float], text: Callable[[float], str]) -> Axis:
    """Return a logarithmic axis around all positive values."""
    positive = [value for value in values if value > 0]
    least, most = (min(positive), max(positive)) if positive else (1.0, 10.0)
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1
    wide = most / least > 1e3
    close = most / least < 4  # finer steps, so that there are some lines
    mantissas = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if close else (1, 2, 5)
    steps = [(mantissa, power) for power in range(low, high + 1) for mantissa in mantissas]
    edges = [mantissa * 10.0**power for mantissa, power in steps]
    # From the round number below to the one above: the values fill the chart.
    start = max(edge for edge in edges if edge <= least * (1 + 1e-9))
    end = min((edge for edge in edges if edge >= most * (1 - 1e-9)), default=edges[-1])
    if end <= start:
        end = edges[min(edges.index(start) + 1, len(edges) - 1)]
    every = 1 if most / least <= 1e7 else 2
    ticks = []
    for (mantissa, power), edge in zip(steps, edges, strict=True):
        if start <= edge <= end:
            written = not wide or (mantissa == 1 and (power - low) % every == 0)
            if written or mantissa == 1:
                ticks.append((edge, text(edge) if written else ""))
    return Axis(title, start, end, ticks, text, log=True)


def percentile(count: int) -> Axis:
    """Return the axis of log10(1 / (1 - p)): as much room for 90 to 99 as for 99 to 99.9.

    Args:
        count: how many values there are; above 1 - 1 / count is only the largest of them.
    """
    end = max(math.log10(max(count, 1)), 1.0)
    ticks = [(nines_of(p), f"{p:g}") for p in (0, 50)]
    ticks += [(float(nines), percent_text(nines)) for nines in range(1, math.floor(end) + 1)]
    first = [nines_of(p) for p in (0, 25, 50, 75)]
    places = [
        first + [n / parts for n in range(parts, math.floor(end * parts) + 1)]
        for parts in (10, 5, 2, 1)
    ]
    return Axis("percentile", 0.0, end, ticks, _percentile_text, places=places)


def nines_of(percent: float) -> float:
    """Return log10(1 / (1 - p)), the number of nines in a percentile; it must be below 100."""
    return -math.log10(1 - percent / 100)


def _percentile_text(nines: float) -> str:
    return "minimum" if nines == 0 else f"p{percent_text(nines)}"


def percent_text(nines: float) -> str:
    """Return the percentile of log10(1 / (1 - p)), with the digits that tell it from 100."""
    digits = max(math.ceil(nines - 1e-9), 1)
    text = f"{100 * (1 - 10.0**-nines):.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def time_text(us: float) -> str:
    """Return a time of so many microseconds with three digits and its unit."""
    for limit, unit, divisor in ((999.5, "µs", 1.0), (999.5e3, "ms", 1e3)):
        if us < limit:
            return f"{_digits(us / divisor)} {unit}"
    return f"{_digits(us / 1e6)} s"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def count_text(value: float) -> str:
    """Return a count or a rate with its thousands apart; a small one keeps three digits."""
    return f"{value:,.0f}" if value >= 999.5 or value == int(value) else f"{value:.3g}"
