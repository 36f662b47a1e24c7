"""One direction: discard and chargen beside plain C, in bytes a second and CPU for a GiB."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._build import compile_source
from benchmarks._compare import Against, Quantity, ratio, result
from benchmarks._errors import MeasurementError
from benchmarks._figures import Column, Figure, Table
from benchmarks._plan import Plan
from benchmarks._programs import Program, fastecho
from benchmarks._ratios import at_least, at_most, summarize
from benchmarks._turns import Contender, Stage, Turn, interleave
from fastecho.measure.result import FAILURES

SERVICES = {"upload": "discard", "download": "chargen"}
# The first of each is plain, and is what ours is held against; the other is for the reader.
VARIANTS = {
    "discard": {"C discard": (), "C discard, MSG_TRUNC": ("-DTRUNC",)},
    "chargen": {"C chargen": (), "C chargen, sendfile": ("-DSENDFILE",)},
}
QUANTITIES: tuple[Quantity, ...] = ("rate", "cpu_us")
SEND_SIZE = 262144
GIB = 2**30

COLUMNS = (
    Column("server", "server"),
    Column("gb_per_s", "GB/s", ".2f", spread=True),
    Column("rate_ratio", "/ plain C", ".3f"),
    Column("cpu_ms_per_gib", "CPU ms/GiB", ",.1f", spread=True),
    Column("cpu_ratio", "/ plain C", ".3f"),
    Column("load_busy", "load busy", ".0%"),
)


@dataclass(slots=True)
class OneWay(Contender):
    """A server, and a load in one direction: each of its turns is on new connections.

    The messages of its turns are bytes.
    """

    def turn(self, seconds: float) -> Turn:
        """Move bytes for `seconds`, end the connections, and return what that showed."""
        self.load.connect()
        before = self.server.cpu_ns()
        found: dict[str, Any] = dict(self.load.run(seconds))
        server_ns = self.server.cpu_ns() - before
        faults = [f"{key} {found[key]}" for key in FAILURES if found[key]]
        if faults or not found["bytes"]:
            what = ", ".join(faults) or "no byte moved"
            raise MeasurementError(f"{self.name}: a turn of {seconds:g} s showed {what}")
        return Turn(
            messages=found["bytes"],
            seconds=found["elapsed_ns"] / 1e9,
            server_cpu=server_ns / 1e9,
            load_cpu=found["cpu_ns"] / 1e9,
            p50_us=0.0,
            p99_us=0.0,
        )


@contextlib.contextmanager
def compiled(service: str) -> Iterator[list[Program]]:
    """Compile the C peers of a service for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="fastecho-") as folder:
        yield [
            Program(
                name,
                (
                    str(
                        compile_source(
                            "oneway.c", Path(folder) / str(n), f"-D{service.upper()}", *defines
                        )
                    ),
                ),
            )
            for n, (name, defines) in enumerate(VARIANTS[service].items())
        ]


def enter(stage: Stage, program: Program, way: str, connections: int) -> OneWay:
    """Start a server and make its load, which connects in each turn."""
    server = stage.server(program)
    load = stage.load(server, mode=way, connections=connections, size=SEND_SIZE)
    return OneWay(program.name, server, load)


def oneway(plan: Plan, way: str, connections: int) -> Figure:
    """Return the figure of one direction over so many connections."""
    service = SERVICES[way]
    with compiled(service) as programs, plan.stage() as stage:
        ours = fastecho("--service", service)
        # Every one has a second instance, which shows the noise.
        entered = [one for each in (ours, *programs) for one in (each, each.again())]
        contenders = [enter(stage, one, way, connections) for one in entered]
        taken = interleave(contenders, plan.rounds(40), plan.seconds(0.2))
    rounds, names = taken.rounds, [one.name for one in programs]
    made = Figure(f"{way}-{connections}", f"{way}, {connections} connections", Table(COLUMNS))
    for one in contenders:
        turns = [each[one.name] for each in rounds]
        made.table.rows.append(
            {
                "server": one.name,
                "gb_per_s": summarize(turn.rate / 1e9 for turn in turns),
                "rate_ratio": ratio(rounds, one.name, names[0], "rate"),
                "cpu_ms_per_gib": summarize(turn.cpu_us / 1e3 * GIB for turn in turns),
                "cpu_ratio": ratio(rounds, one.name, names[0], "cpu_us"),
                "load_busy": summarize(turn.load_busy for turn in turns),
            }
        )
    bars = [
        Against("rate", names[0], at_least(0.97)),
        Against("cpu_us", names[0], at_most(1.03)),
        *(Against(quantity, names[1], None) for quantity in QUANTITIES),
    ]
    judged = [result(rounds, one, names) for one in bars]
    made.results = [replace(one, what=one.what.replace("message", "byte")) for one in judged]
    if note := taken.note():
        made.notes.append(note)
    return made


FIGURES: dict[str, Callable[[Plan], Figure]] = {
    f"{way}-{connections}": partial(oneway, way=way, connections=connections)
    for way in SERVICES
    for connections in (1, 16)
}
