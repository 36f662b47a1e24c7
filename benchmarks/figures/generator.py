"""The load generator itself: its CPU beside that of a plain C one, and whether both agree.

The C generator (peers/load.c) verifies every byte as well and shares no code with ours. Both drive
one C server by turns, from the same core, so all that differs is the generator. Rate, p50 and p99
must be the same: two programs that were written apart see the same server.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from benchmarks._build import compile_source
from benchmarks._compare import AGAIN, Against, result, values
from benchmarks._errors import SetupError
from benchmarks._figures import Column, Figure, Result, Table
from benchmarks._generators import CLoad
from benchmarks._plan import Plan
from benchmarks._ratios import at_least, at_most, judge, summarize
from benchmarks._turns import Contender, Round, interleave

CONNECTIONS = 64
SIZE = 64
OURS = "fastecho"
C = "C generator"
# the peer of the server figures that is best at small messages on most machines
SERVER = "C 64K"

COLUMNS = (
    Column("generator", "generator"),
    Column("rate_per_s", "messages/s", ",.0f", spread=True),
    Column("load_cpu_us", "CPU us/message", ".2f", spread=True),
    Column("server_cpu_us", "server's", ".2f"),
    Column("p50_us", "p50 us", ",.0f"),
    Column("p99_us", "p99 us", ",.0f"),
    Column("load_busy", "busy", ".0%"),
    Column("server_busy", "server busy", ".0%"),
)


def row(rounds: list[Round], name: str) -> dict[str, Any]:
    """Return the table's row of one generator."""
    turns = [taken[name] for taken in rounds]
    return {
        "generator": name,
        "rate_per_s": summarize(turn.rate for turn in turns),
        "load_cpu_us": summarize(values(rounds, name, "load_cpu_us")),
        "server_cpu_us": summarize(turn.cpu_us for turn in turns),
        "p50_us": summarize(turn.p50_us for turn in turns),
        "p99_us": summarize(turn.p99_us for turn in turns),
        "load_busy": summarize(turn.load_busy for turn in turns),
        "server_busy": summarize(turn.server_cpu / turn.seconds for turn in turns),
    }


def own(rounds: list[Round]) -> list[Result]:
    """Return what is about our generator and the server alone."""
    to_server = summarize(taken[OURS].load_cpu / taken[OURS].server_cpu for taken in rounds)
    busy = summarize(taken[OURS].server_cpu / taken[OURS].seconds for taken in rounds)
    cpu, limit = at_most(1.02), at_least(0.95)
    return [
        Result(f"CPU per message / the server's ({SERVER})", cpu, to_server, None,
               judge(cpu, to_server, None)),
        Result("the server is busy", limit, busy, None, judge(limit, busy, None)),
    ]  # fmt: skip


def generator(plan: Plan) -> Figure:
    """Return the figure."""
    programs = [one for one in plan.c_programs if one.name == SERVER]
    if not programs:
        raise SetupError("the C peers are needed: install gcc")
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(plan.stage())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = compile_source("load.c", directory / "load")
        server = stage.server(programs[0])
        contenders = []
        for name in (OURS, C, OURS + AGAIN, C + AGAIN):
            if name.startswith(OURS):
                load = stage.load(server, connections=CONNECTIONS, size=SIZE)
                contenders.append(Contender(name, server, load))
            else:
                c_load = stack.enter_context(
                    CLoad(program, server, plan.load_core, CONNECTIONS, SIZE)
                )
                contenders.append(Contender(name, server, cast(Any, c_load), beside=[c_load]))
        taken = interleave(contenders, plan.rounds(40), plan.seconds(0.1))
    made = Figure(
        "generator",
        f"the load generator: {SIZE} B, depth 1, {CONNECTIONS} connections, one C server",
        Table(COLUMNS, [row(taken.rounds, one.name) for one in contenders]),
    )
    bars = [
        Against("load_cpu_us", C, at_most(1.05)),
        Against("rate", C, at_least(0.97)),
        Against("p50_us", C, at_most(1.03)),
        Against("p99_us", C, at_most(1.05)),
    ]
    made.results = [result(taken.rounds, against, []) for against in bars] + own(taken.rounds)
    if note := taken.note():
        made.notes.append(note)
    return made


FIGURES: dict[str, Callable[[Plan], Figure]] = {"generator": generator}
