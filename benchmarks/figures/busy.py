"""A busy Python thread beside the server, and whether the server waits for it.

One process holds the server and, during the busy turns only, a thread that runs pure Python and is
pinned to the load's core; the server's threads keep the other core. The load sends 1,000 messages
per second on a schedule, in turns with and without the busy loop, and so each server is compared
with itself. The load runs at a real-time priority where that is permitted: otherwise the figure
would be how the kernel shares the load's core between the load and the busy loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks._compare import Against, result, values
from benchmarks._connects import Connects
from benchmarks._errors import MeasurementError
from benchmarks._figures import Cell, Column, Figure, Result, Table
from benchmarks._plan import Plan
from benchmarks._programs import Program, hosted
from benchmarks._ratios import at_most, summarize
from benchmarks._servers import Server, first_in_line
from benchmarks._turns import Contender, Round, Stage, interleave

RATE = 1000.0
CONNECTIONS = 10
CONNECTS_PER_S = 100.0
LIMIT = at_most(1.5)

PLAIN = hosted("fastecho", name="fastecho")
ACCEPTING = hosted("fastecho", "--on-accept", name="fastecho with on_accept")
READERS = (
    hosted("uvloop", name="uvloop Protocol in a thread"),
    hosted("asyncio", name="asyncio Protocol in a thread"),
)

COLUMNS = (
    Column("server", "server"),
    Column("quiet_p50_us", "quiet p50 us", ",.0f"),
    Column("quiet_p99_us", "quiet p99 us", ",.0f", spread=True),
    Column("busy_p50_us", "busy p50 us", ",.0f"),
    Column("busy_p99_us", "busy p99 us", ",.0f", spread=True),
    Column("p99_ratio", "busy / quiet p99", ".2f", spread=True),
    Column("busy_turns_per_s", "busy loop, turns/s", ",.0f"),
)


@dataclass(slots=True)
class Pair:
    """One hosted server with its load: it takes quiet turns and busy ones."""

    program: Program
    server: Server
    load_core: int
    connects: bool = False
    # how often the busy loop went round a second, one value a turn
    busy_rates: list[float] = field(default_factory=list)
    # connections made beside the load
    begun: int = 0
    echoed: int = 0

    @property
    def quiet(self) -> str:
        """The name of its turns without the busy loop."""
        return f"{self.program.name}, quiet"

    @property
    def busy(self) -> str:
        """The name of its turns beside the busy loop."""
        return f"{self.program.name}, busy"

    @contextlib.contextmanager
    def beside_connects(self) -> Iterator[None]:
        """Connect CONNECTS_PER_S times a second meanwhile, if this pair does so."""
        if not self.connects:
            yield
            return
        with Connects(self.server.address, CONNECTS_PER_S) as connects:
            yield
        self.begun += connects.begun
        self.echoed += connects.echoed

    @contextlib.contextmanager
    def beside_busy_loop(self) -> Iterator[None]:
        """Run the busy loop meanwhile."""
        self.server.ask(f"busy {self.load_core}")
        try:
            with self.beside_connects():
                yield
        finally:
            told = self.server.ask("idle")
        self.busy_rates.append(told["turns"] / told["seconds"])

    def contenders(self, stage: Stage, every: int, again: bool) -> list[Contender]:
        """Return its turns as contenders: quiet, busy, and quiet again as the noise."""
        load = stage.load(
            self.server, connections=CONNECTIONS, depth=64, size=64, mode="open", rate=RATE
        )
        names = [self.quiet, *([f"{self.quiet} (again)"] if again else [])]
        turns = [
            Contender(name, self.server, load, every, self.beside_connects, 0.1) for name in names
        ]
        turns.append(Contender(self.busy, self.server, load, every, self.beside_busy_loop, 0.1))
        return turns

    def verify(self) -> None:
        """Raise MeasurementError unless everything beside the load happened as it should."""
        if self.echoed != self.begun:
            raise MeasurementError(
                f"{self.program.name}: {self.begun - self.echoed} of {self.begun} connections"
                " beside the load were not served"
            )
        if self.connects:
            accepted = self.server.ask("accepts")
            if accepted != self.begun + CONNECTIONS:
                raise MeasurementError(
                    f"{self.program.name}: the accept callback ran {accepted} times for"
                    f" {self.begun + CONNECTIONS} connections"
                )

    def row(self, rounds: list[Round]) -> dict[str, Cell]:
        """Return its row of the table."""
        pairs = [(taken[self.quiet], taken[self.busy]) for taken in rounds if self.busy in taken]
        return {
            "server": self.program.name,
            "quiet_p50_us": summarize(quiet.p50_us for quiet, _ in pairs),
            "quiet_p99_us": summarize(quiet.p99_us for quiet, _ in pairs),
            "busy_p50_us": summarize(busy.p50_us for _, busy in pairs),
            "busy_p99_us": summarize(values(rounds, self.busy, "p99_us")),
            "p99_ratio": summarize(busy.p99_us / quiet.p99_us for quiet, busy in pairs),
            "busy_turns_per_s": summarize(self.busy_rates),
        }


def bar(rounds: list[Round], pair: Pair) -> Result:
    """Return the line of the bar: busy p99 to quiet p99."""
    return result(rounds, Against("p99_us", pair.quiet, LIMIT, subject=pair.busy), [])


def busy(plan: Plan) -> Figure:
    """Return the figure."""
    with plan.stage() as stage:
        pairs: list[Pair] = []
        contenders: list[Contender] = []
        for program in (PLAIN, ACCEPTING, *READERS):
            if program.missing:
                continue
            barred = program in (PLAIN, ACCEPTING)
            pair = Pair(
                program, stage.server(program), plan.load_core, connects=program is ACCEPTING
            )
            pairs.append(pair)
            contenders += pair.contenders(stage, every=1 if barred else 2, again=barred)
        with first_in_line() as ahead:
            taken = interleave(contenders, plan.rounds(24), plan.seconds(0.5))
        rounds = taken.rounds
        for pair in pairs:
            pair.verify()
        made = Figure(
            "busy",
            f"{RATE:,.0f} messages/s on a schedule over {CONNECTIONS} connections,"
            " with and without a busy Python thread in the server's process",
            Table(COLUMNS, [pair.row(rounds) for pair in pairs]),
            [bar(rounds, pair) for pair in pairs if pair.program in (PLAIN, ACCEPTING)],
        )
        made.notes.append(
            "the load ran at a real-time priority (SCHED_FIFO), ahead of the busy loop on its core"
            if ahead
            else "no right to a real-time priority: the load shared its core with the busy loop,"
            " and waiting for that core is part of every busy p99"
        )
        made.notes += [
            f"{pair.program.name}: {pair.begun:,} connections were made beside the load,"
            f" {CONNECTS_PER_S:g} a second, all accepted by the callback and served"
            for pair in pairs
            if pair.connects
        ]
        if note := taken.note():
            made.notes.append(note)
        return made


FIGURES: dict[str, Callable[[Plan], Figure]] = {"busy": busy}
