"""What histograms cost: recording a latency, merging a thousand, reading and writing their text.

No server and no peer: each figure is a time of this program alone, held against a bar in ns or ms.
Its noise is how far the interval of the median reaches.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import _build
from benchmarks._errors import MeasurementError
from benchmarks._figures import Column, Figure, Result, Table
from benchmarks._plan import Plan
from benchmarks._ratios import Bar, Summary, at_most, judge_value, summarize
from benchmarks._servers import ROOT, pinned

COLUMNS = (
    Column("what", "what"),
    Column("median", "median", ".3f", spread=True),
    Column("unit", "unit"),
)
HISTOGRAMS = 1000
VALUES = 20_000


def recording(plan: Plan) -> Summary:
    """Return nanoseconds of recording one latency, in C, as the load does it."""
    with tempfile.TemporaryDirectory() as folder:
        program = _build.compile_source("record.c", Path(folder) / "record", f"-I{ROOT / 'src_c'}")
        with pinned([plan.load_core]):
            done = subprocess.run(
                [str(program), str(plan.rounds(40))], capture_output=True, text=True, timeout=60
            )
    if done.returncode != 0:
        raise MeasurementError(f"record ended with {done.returncode}: {done.stderr.strip()}")
    return summarize(float(line) for line in done.stdout.split())


def milliseconds(plan: Plan, rounds: int, work: Callable[[], object]) -> Summary:
    """Return the CPU time of a piece of work."""
    taken = []
    with pinned([plan.load_core]):
        work()
        for _ in range(plan.rounds(rounds)):
            began = time.thread_time()
            work()
            taken.append((time.thread_time() - began) * 1e3)
    return summarize(taken)


def merging(plan: Plan) -> dict[str, Summary]:
    """Return milliseconds of adding up a thousand histograms, in memory and as text."""
    from fastecho._load import Histogram
    from fastecho.measure.histograms import decode, encode

    dice = random.Random(1)
    parts = []
    for _ in range(HISTOGRAMS):
        part = Histogram()
        for _ in range(VALUES // 100):
            part.record(round(dice.lognormvariate(10.5, 0.6)), 100)
        part.record(3_000_000_000)  # a stall of 3 s: nearly every slot is looked at
        parts.append(part)
    texts = [encode(part) for part in parts]

    def merge() -> None:
        total = Histogram()
        for part in parts:
            total.merge(part)
        assert total.count == HISTOGRAMS * (VALUES + 1)

    def merge_texts() -> None:
        total = Histogram()
        for text in texts:
            total.merge(decode(text))
        assert total.count == HISTOGRAMS * (VALUES + 1)

    return {
        "merging 1,000": milliseconds(plan, 12, merge),
        "reading 1,000 texts and merging them": milliseconds(plan, 8, merge_texts),
        "writing 1,000 texts": milliseconds(plan, 8, lambda: [encode(part) for part in parts]),
    }


def histogram(plan: Plan, name: str) -> Figure:
    """Return the figure of all of them."""
    table = Table(COLUMNS)
    results = []
    bars: dict[str, Bar] = {
        "recording one": at_most(10, "ns"),
        "merging 1,000": at_most(1000, "ms"),
    }
    for what, measured in {"recording one": recording(plan), **merging(plan)}.items():
        unit = "ns" if what == "recording one" else "ms"
        table.rows.append({"what": what, "median": measured, "unit": unit})
        if bar := bars.get(what):
            noise = max(measured.high - measured.median, measured.median - measured.low)
            verdict = judge_value(bar, measured.median, noise)
            results.append(Result(what, bar, measured, noise, verdict, spec=".2f"))
    return Figure(name, "histograms: CPU time of one core", table, results)


FIGURES = {"histogram": partial(histogram, name="histogram")}
