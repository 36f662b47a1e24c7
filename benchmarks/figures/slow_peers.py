"""The others' p99 beside 1,000 slow peers: silent ones, slow senders, non-readers, slow readers.

Each kind holds a server of its own, and two more have no such peers; all are the same program.
Each server takes turns in which 64 ordinary connections send on a schedule. What slow peers do,
they do in the turns of their own server only, from the load's core. Load and servers run at a
real-time priority where that is permitted: ahead of the slow peers, and of other programs, which
make a tail what it is on a machine that is not idle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks._compare import AGAIN, ratio, self_noise
from benchmarks._errors import MeasurementError
from benchmarks._figures import Cell, Column, Figure, Result, Table
from benchmarks._plan import Plan
from benchmarks._programs import fastecho
from benchmarks._ratios import at_most, judge_tail, summarize
from benchmarks._servers import Server, first_in_line
from benchmarks._slow_peers import EVERY, SIP, Kind
from benchmarks._sockets import held
from benchmarks._turns import Contender, Round, Stage, interleave

PEERS = 1000
CONNECTIONS = 64
RATE = 4000.0

# So small that the kernel's TCP memory holds two thousand full ones on a small machine as well.
SERVER_BUFFER = 16 * 1024
PEER_BUFFER = 4 * 1024

SERVER = fastecho("--send-buffer", f"{SERVER_BUFFER}", "--receive-buffer", f"{SERVER_BUFFER}")

NAMES: dict[Kind, str] = {
    "silent": "silent peers",
    "slow-sender": "slow senders",
    "non-reader": "non-readers",
    "slow-reader": "slow readers",
}

QUIET = "no slow peers"

COLUMNS = (
    Column("turns", "turns"),
    Column("p50_us", "p50 us", ",.0f"),
    Column("p99_us", "p99 us", ",.0f", spread=True),
    Column("cpu_us_per_message", "CPU us/message", ".2f"),
    Column("acts_per_s", "their acts/s", ",.0f"),
    Column("kernel_kib", "kernel KiB each", ",.1f"),
    Column("server_kib", "server KiB each", ",.1f"),
)


class Holding:
    """A server that is held by slow peers of one kind."""

    def __init__(self, stage: Stage, kind: Kind) -> None:
        self.server = stage.server(SERVER)
        before = self.server.memory()
        self.peers = stage.slow_peers(self.server, kind, PEERS, buffer=PEER_BUFFER)
        # bytes for each peer: in the kernel, on the server's side, and in the server
        self.kernel = held(port=self.server.address[1]).memory / PEERS
        self.user = (self.server.memory() - before) / PEERS

    def verify(self) -> None:
        """Raise MeasurementError unless all peers are there, and acted."""
        self.peers.verify()
        present = held(port=self.server.address[1]).connections
        if present != PEERS + CONNECTIONS:
            raise MeasurementError(
                f"{self.peers.name}: {present} connections are open, not {PEERS + CONNECTIONS}"
            )


def ordinary(stage: Stage, name: str, server: Server) -> Contender:
    """Return a server with its ordinary connections."""
    load = stage.load(server, connections=CONNECTIONS, depth=64, size=64, mode="open", rate=RATE)
    return Contender(name, server, load, lead_in=0.1)


def beside(stage: Stage, name: str, holding: Holding) -> Contender:
    """Return the same for a server that is held by slow peers, which act in its turns."""
    made = ordinary(stage, name, holding.server)
    made.around, made.beside = holding.peers.at_work, [holding.peers]
    return made


def row(rounds: Sequence[Round], name: str, holding: Holding | None) -> dict[str, Cell]:
    """Return the row of the turns called `name`, and of the slow peers that acted in them."""
    turns = [taken[name] for taken in rounds]
    cells: dict[str, Cell] = {
        "turns": name,
        "p50_us": summarize(turn.p50_us for turn in turns),
        "p99_us": summarize(turn.p99_us for turn in turns),
        "cpu_us_per_message": summarize(turn.cpu_us for turn in turns),
    }
    if holding is not None:
        cells["acts_per_s"] = holding.peers.acts / holding.peers.seconds
        cells["kernel_kib"] = holding.kernel / 1024
        cells["server_kib"] = holding.user / 1024
    return cells


def line(rounds: Sequence[Round], name: str) -> Result:
    """Return the line of one kind: beside it the p99 is what it is without, but for the noise."""
    limit = at_most(1.0)
    measured = ratio(rounds, name, QUIET, "p99_us")
    noise = self_noise(rounds, "p99_us")
    verdict = judge_tail(limit, measured, noise or 0.0)
    return Result(f"p99: {name} / {QUIET}", limit, measured, noise, verdict)


def notes(ahead: bool) -> list[str]:
    """Return what a reader must know beside the table; `ahead`: the load had priority."""
    doing = (
        f"a slow sender sends 1 byte every {EVERY:g} s; non-readers filled all buffers, and slow"
        f" readers as well, which then take {SIP:,} bytes and send as many every {EVERY:g} s"
    )
    buffers = (
        f"buffers: {SERVER_BUFFER >> 10} KiB each way on the server's side,"
        f" {PEER_BUFFER >> 10} KiB on that of the slow peers"
    )
    priority = (
        "load and servers ran at a real-time priority (SCHED_FIFO), the slow peers did not"
        if ahead
        else "no right to a real-time priority: the load shared its core with the slow peers, and"
        " waiting for that core is part of every p99 in whose turns they acted"
    )
    return [doing, buffers, priority]


def slow_peers(plan: Plan) -> Figure:
    """Return the figure."""
    with plan.stage() as stage:
        holdings = {f"{PEERS:,} {name}": Holding(stage, kind) for kind, name in NAMES.items()}
        contenders = [
            ordinary(stage, name, stage.server(SERVER)) for name in (QUIET, QUIET + AGAIN)
        ]
        contenders += [beside(stage, name, holding) for name, holding in holdings.items()]
        with first_in_line() as ahead:
            if ahead:
                for one in contenders:
                    one.server.put_first()
            taken = interleave(contenders, plan.rounds(30), plan.seconds(0.5))
        for holding in holdings.values():
            holding.verify()
    rounds = taken.rounds
    made = Figure(
        "slow-peers",
        f"{RATE:,.0f} messages/s on a schedule over {CONNECTIONS} connections, beside {PEERS:,}"
        " slow peers",
        Table(COLUMNS, [row(rounds, one.name, holdings.get(one.name)) for one in contenders]),
        [line(rounds, name) for name in holdings],
    )
    made.notes = notes(ahead)
    if note := taken.note():
        made.notes.append(note)
    return made


FIGURES: dict[str, Callable[[Plan], Figure]] = {"slow-peers": slow_peers}
