"""The load generator itself: its CPU beside that of a plain C one, and whether both agree.

The C generator (peers/load.c) verifies every byte as well and shares no code with ours. Both drive
one C server by turns, from the same core, so all that differs is the generator. Rate, p50 and p99
must be the same: two programs that were written apart see the same server. So must the latency and
the service time of an open loop, where both poll all the time and CPU says nothing.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks._build import compile_source
from benchmarks._compare import AGAIN, Against, Quantity, result, values
from benchmarks._errors import SetupError
from benchmarks._figures import Column, Figure, Result, Table
from benchmarks._generators import CLoad
from benchmarks._plan import Plan
from benchmarks._ratios import at_least, at_most, judge, summarize
from benchmarks._servers import Server
from benchmarks._turns import Contender, Round, Stage, interleave

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

OPEN_COLUMNS = (
    Column("generator", "generator"),
    Column("rate_per_s", "messages/s", ",.0f", spread=True),
    Column("p50_us", "p50 us", ",.1f", spread=True),
    Column("p99_us", "p99 us", ",.0f", spread=True),
    Column("service_p50_us", "service p50 us", ",.1f"),
    Column("service_p99_us", "service p99 us", ",.0f"),
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
        "service_p50_us": summarize(turn.service_p50_us for turn in turns),
        "service_p99_us": summarize(turn.service_p99_us for turn in turns),
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


@dataclass(frozen=True, slots=True)
class Pair:
    """Both generators, and the server that they drive; what they start ends with `stack`."""

    stack: contextlib.ExitStack
    stage: Stage
    program: Path
    server: Server

    def in_c(self, rate: float = 0.0) -> CLoad:
        """Start the C generator, in an open loop at `rate` or in a closed one."""
        core = self.stage.load_core
        return self.stack.enter_context(
            CLoad(self.program, self.server.address, core, CONNECTIONS, SIZE, rate)
        )

    def contenders(self, rate: float = 0.0) -> list[Contender]:
        """Return both with their second instances; `rate` as above."""
        made = []
        mode = {"mode": "open", "rate": rate} if rate else {}
        for name in (OURS, C, OURS + AGAIN, C + AGAIN):
            if name.startswith(OURS):
                load = self.stage.load(self.server, connections=CONNECTIONS, size=SIZE, **mode)
                made.append(Contender(name, self.server, load))
            else:
                c_load = self.in_c(rate)
                made.append(Contender(name, self.server, cast(Any, c_load), beside=[c_load]))
        return made

    def limit(self, seconds: float) -> float:
        """Return the messages/s that the server answers the C generator in a closed loop."""
        load = self.in_c()
        load.run(seconds)
        ran = load.run(seconds)
        return float(ran["messages"] / ran["total_ns"] * 1e9)


@contextlib.contextmanager
def pair(plan: Plan) -> Iterator[Pair]:
    """Compile the C generator and start the server."""
    programs = [one for one in plan.c_programs if one.name == SERVER]
    if not programs:
        raise SetupError("the C peers are needed: install gcc")
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(plan.stage())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = compile_source("load.c", directory / "load")
        yield Pair(stack, stage, program, stage.server(programs[0]))


def generator(plan: Plan) -> Figure:
    """Return the figure of a closed loop."""
    with pair(plan) as both:
        contenders = both.contenders()
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


def generator_open(plan: Plan) -> Figure:
    """Return the figure of an open loop at half of what the server can do.

    Each generator is held against the other: too low a latency is as wrong as too high a one.
    """
    with pair(plan) as both:
        limit = both.limit(plan.seconds(0.5))
        rate = round(limit / 2, -3)
        contenders = both.contenders(rate)
        # longer turns: a stall of 1 ms is 1 % of 100 ms, and that alone would be the p99
        taken = interleave(contenders, plan.rounds(24), plan.seconds(0.25))
    quantities: tuple[Quantity, ...] = ("p50_us", "p99_us", "service_p50_us", "service_p99_us")
    bars = [Against("rate", C, at_least(0.99))]
    for quantity in quantities:
        bars.append(Against(quantity, C, at_most(1.05), same=True))
        bars.append(Against(quantity, OURS, at_most(1.05), subject=C, same=True))
    made = Figure(
        "generator-open",
        f"the load generator: {SIZE} B, open loop, {rate:,.0f} messages/s over {CONNECTIONS}"
        " connections, one C server",
        Table(OPEN_COLUMNS, [row(taken.rounds, one.name) for one in contenders]),
        [result(taken.rounds, against, []) for against in bars],
        [f"the rate is half of what a closed loop showed before: {limit:,.0f} messages/s"],
    )
    if note := taken.note():
        made.notes.append(note)
    return made


FIGURES: dict[str, Callable[[Plan], Figure]] = {
    "generator": generator,
    "generator-open": generator_open,
}
