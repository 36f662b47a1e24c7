"""Two threads: where connections are placed, and what a message then costs."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks._compare import Against, figure
from benchmarks._errors import MeasurementError
from benchmarks._figures import Column, Figure, Result, Table
from benchmarks._plan import Plan
from benchmarks._programs import fastecho, hosted
from benchmarks._ratios import at_most, judge_value, summarize
from benchmarks._servers import Server
from benchmarks._turns import Contender, interleave

CONNECTIONS = 64

ONE = fastecho(name="fastecho, 1 thread")
TWO = fastecho(name="fastecho, 2 threads on one core", threads=2)
TWO_APART = fastecho(name="fastecho, 2 threads on a core each", threads=2)

# seconds in which a server must have noticed that its connections are closed
CLOSE_TIMEOUT = 5.0


def await_empty(server: Server) -> None:
    """Wait until no worker has a connection left."""
    deadline = time.monotonic() + CLOSE_TIMEOUT
    while any(server.ask("workers")):
        if time.monotonic() > deadline:
            raise MeasurementError(f"{server.name} kept connections that were closed long ago")
        time.sleep(0.01)


def placement(plan: Plan) -> Figure:
    """Return how many of 64 connections each of two workers got, over several fillings."""
    program = hosted("fastecho", "--threads", "2", name="fastecho, 2 threads")
    columns = (
        Column("filling", "filling"),
        Column("placed", "connections of each worker"),
        Column("apart", "from an even share", ".0f"),
    )
    made = Figure("placement", f"{CONNECTIONS} connections on 2 threads", Table(columns))
    apart: list[float] = []
    with plan.stage() as stage:
        server = stage.server(program, cores=(plan.server_core, plan.load_core))
        for filling in range(plan.rounds(16)):
            load = stage.load(server, connections=CONNECTIONS)
            Contender(program.name, server, load).turn(0.05)
            placed = server.ask("workers")
            if sum(placed) != CONNECTIONS:
                raise MeasurementError(
                    f"{server.name} tells of {sum(placed)} connections, not of 64"
                )
            apart.append(float(max(abs(one - CONNECTIONS / 2) for one in placed)))
            shown = " / ".join(str(one) for one in placed)
            made.table.rows.append(
                {"filling": f"{filling + 1}", "placed": shown, "apart": apart[-1]}
            )
            stage.close_loads()
            await_empty(server)
    bar = at_most(1, "connections")
    # the bar is on the worst filling, not on the usual one
    worst = max(apart)
    made.results.append(
        Result(
            "worst distance from 32/32",
            bar,
            summarize([worst]),
            None,
            judge_value(bar, worst, 0.0),
            spec=".0f",
        )
    )
    return made


def cost(plan: Plan) -> Figure:
    """Return the CPU of a message with one thread and with two."""
    with plan.stage() as stage:
        contenders = [
            stage.contender(program, connections=CONNECTIONS)
            for program in (ONE, TWO, TWO_APART, ONE.again())
        ]
        contenders[2].server.spread([plan.server_core, plan.load_core])
        taken = interleave(contenders, plan.rounds(40), plan.seconds(0.1))
        made = figure(
            "threads",
            f"64 B, depth 1, {CONNECTIONS} connections, one thread and two",
            contenders,
            taken,
            [],
            [
                Against("cpu_us", ONE.name, at_most(1.15), subject=program.name)
                for program in (TWO, TWO_APART)
            ],
        )
    made.notes.append("on a core each, one of the two workers shares the load's core")
    return made


FIGURES: dict[str, Callable[[Plan], Figure]] = {"placement": placement, "threads": cost}
