"""Restarts in a storm: what becomes of those who connect while the server is replaced.

Lives here: the storm, its table and bars. Does not live here: the ways of replacing a server, one
module of figures/ each, and the generator (benchmarks/_storm.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks._errors import MeasurementError
from benchmarks._figures import Column, Figure, Result, Table
from benchmarks._ratios import at_most, judge_value, summarize
from benchmarks._storm import LATE, OUTCOMES, RATE, Storm

PAUSE = 1.0
"""Seconds of storm before the first restart, between two, and after the last."""

COLUMNS = (
    Column("server", "server"),
    Column("restarts", "restarts", ",.0f"),
    Column("connections", "connections", ",.0f"),
    *(Column(one, one, ",.0f") for one in OUTCOMES),
    Column("worst_ms", "worst ms", ",.1f"),
)


def storm_through(address: str, restart: Callable[[], object], times: int) -> Storm:
    """Replace the server behind `address` so often in a storm; return the storm when it is over."""
    with Storm(address) as storm:
        time.sleep(PAUSE)
        for _ in range(times):
            restart()
            time.sleep(PAUSE)
    if not storm.begun:
        raise MeasurementError("no connection was begun")
    return storm


def figure(name: str, title: str, storms: dict[str, tuple[int, Storm]]) -> Figure:
    """Return the figure of storms by the name of the server, each with its number of restarts."""
    table = Table(COLUMNS)
    results = []
    for server, (restarts, storm) in storms.items():
        counts = {one: float(storm.seen[one]) for one in OUTCOMES}
        table.rows.append(
            {
                "server": server,
                "restarts": float(restarts),
                "connections": float(storm.begun),
                **counts,
                "worst_ms": storm.worst * 1e3,
            }
        )
        bar = at_most(0, "")
        harmed = float(storm.harmed)
        results.append(
            Result(
                f"refused, reset or lost ({server})",
                bar,
                summarize([harmed]),
                None,
                judge_value(bar, harmed, 0.0),
                spec=",.0f",
            )
        )
    note = (
        f"{RATE:,.0f} connections a second, each begun when it is due, echoing one message and "
        f"gone; late: the echo came more than {LATE:g} s after that"
    )
    return Figure(name, title, table, results, [note])
