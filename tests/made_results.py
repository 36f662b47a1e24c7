"""Results as runs would leave them, made without a server: for tests of what reads them.

Each second of a run draws latencies around a middle that wanders a little, as a machine's load
does; the same seed gives the same result.
"""

from __future__ import annotations

import math
import random
from typing import Any

from fastecho._load import Histogram
from fastecho.measure.histograms import encode
from fastecho.measure.plan import Plan
from fastecho.measure.result import Generator, Interval, Result

NOON = 1_795_608_000.0
"""Seconds since 1970 of a day in November 2026."""


def an_interval(second: int, values: Histogram, *, histograms: bool = True) -> Interval:
    """Return the interval of one second, with these latencies."""
    return Interval(
        float(second),
        1.0,
        messages=values.count,
        bytes=64 * values.count,
        p50=values.percentile(50) / 1e9,
        p99=values.percentile(99) / 1e9,
        max=values.max / 1e9,
        histogram=encode(values) if histograms else None,
    )


def made(
    seed: int = 1,
    *,
    seconds: int = 20,
    rate: float = 300,
    us: float = 25.0,
    wander: float = 0.02,
    histograms: bool = True,
    plan: dict[str, Any] | None = None,
    **changes: Any,
) -> Result:
    """Return a result: about `rate` messages/s with a median of `us`, both wandering."""
    dice = random.Random(seed)
    latency, intervals, wandered = Histogram(), [], 0.0
    for second in range(seconds):
        wandered = 0.5 * wandered + dice.gauss(0, wander)
        values = Histogram()
        for _ in range(round(rate * math.exp(-wandered))):
            values.record(round(us * 1e3 * math.exp(wandered + dice.gauss(0, 0.25))))
        latency.merge(values)
        intervals.append(an_interval(second, values, histograms=histograms))
    settings = {"targets": "127.0.0.1:7777", "duration": float(seconds), **(plan or {})}
    values_of = {
        "started_at": NOON,
        "host": {"name": "node-1", "system": "Linux 6.18 x86_64", "cpus": 2},
        "elapsed": float(seconds),
        "messages": latency.count,
        "bytes": 64 * latency.count,
        "sent": latency.count,
        "connects": 10,
        "latency": latency,
        "intervals": intervals,
        "generator": Generator(0.4, 4.0, 0.0, "the generator had time to spare"),
        **changes,
    }
    return Result(Plan(**settings), **values_of)
