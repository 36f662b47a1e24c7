"""Idle connections: resident memory of the server for each of 10,000 that wait."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks._figures import Cell, Column, Figure, Result, Table
from benchmarks._plan import Plan
from benchmarks._programs import ASYNCIO, STREAMS, UVLOOP, Program, fastecho
from benchmarks._ratios import Bar, Summary, at_most, judge_value, summarize
from benchmarks._turns import Contender

CONNECTIONS = 10_000

# connections that warm the server up: what its first messages touch is not a connection's cost
WARMING = 64

COLUMNS = (
    Column("server", "server"),
    Column("bytes_per_connection", "bytes a connection", ",.1f"),
    Column("before_mib", "MiB before", ".2f"),
    Column("after_mib", "MiB with them", ".2f"),
)


def measure(plan: Plan, program: Program) -> dict[str, Cell]:
    """Return the row of one program: memory before and with the connections."""
    with plan.stage() as stage:
        server = stage.server(program)
        warming = Contender(program.name, server, stage.load(server, connections=WARMING))
        warming.turn(0.1)
        before = server.memory()
        # each echoes at least one message, then all wait
        load = stage.load(server, connections=CONNECTIONS, timeout=20.0)
        Contender(program.name, server, load).turn(2.0)
        after = server.memory()
    return {
        "server": program.name,
        "bytes_per_connection": (after - before) / CONNECTIONS,
        "before_mib": before / 2**20,
        "after_mib": after / 2**20,
    }


def line(bar: Bar, measured: Summary, noise: float) -> Result:
    """Return the line of the bar."""
    verdict = judge_value(bar, measured.median, noise)
    return Result("resident bytes a connection", bar, measured, noise, verdict, spec=".1f")


def idle(plan: Plan) -> Figure:
    """Return the figure; one server at a time holds its connections."""
    programs = [fastecho(), fastecho().again(), *plan.c_programs, UVLOOP, ASYNCIO, STREAMS]
    if plan.quick:
        programs = programs[:3]
    rows = [measure(plan, one) for one in programs if not one.missing]
    figures = [row["bytes_per_connection"] for row in rows[:2]]
    first, second = (float(one) for one in figures if isinstance(one, float))
    return Figure(
        "idle",
        f"{CONNECTIONS:,} idle connections, each of which echoed before",
        Table(COLUMNS, rows),
        [line(at_most(100, "bytes"), summarize([first, second]), abs(first - second))],
        ["one program at a time; a connection's kernel memory is not in these figures"],
    )


FIGURES: dict[str, Callable[[Plan], Figure]] = {"idle": idle}
