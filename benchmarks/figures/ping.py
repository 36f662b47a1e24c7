"""What `fastecho ping` adds to the time that a ping-pong in C shows, on the same server.

Each turn starts the command, or peers/ping.c, as a process on the load's core. With a server that
spins, what the client adds is most of what can differ. With one that sleeps, waking it up is most
of every round trip, and takes the longer the longer it slept: Python, which takes more time between
two probes, pays for that as well. With a pause between probes both pay.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import _build
from benchmarks._compare import AGAIN
from benchmarks._errors import MeasurementError
from benchmarks._figures import Cell, Column, Figure, Result, Table
from benchmarks._plan import Plan
from benchmarks._programs import Program, fastecho
from benchmarks._ratios import Summary, at_most, judge_value, summarize
from benchmarks._servers import ROOT, Server, environment

C, OURS = "C ping-pong", "fastecho ping"

# most microseconds that Python may add to the median
BAR = at_most(3, "us")

TIMEOUT = 30.0

COLUMNS = (
    Column("client", "client"),
    Column("p50_us", "p50 us", ".2f", spread=True),
    Column("p99_us", "p99 us", ".2f", spread=True),
)


@dataclass(frozen=True, slots=True)
class Times:
    """What one turn of one client showed."""

    p50_us: float
    p99_us: float


def output(command: Sequence[str]) -> str:
    """Return what a client printed, or raise MeasurementError."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=TIMEOUT
    )
    if done.returncode != 0:
        raise MeasurementError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def ping_in_c(program: Path, server: Server, count: int, interval_us: int) -> Times:
    """Take a turn of peers/ping.c."""
    p50, p99 = output([str(program), str(server.address[1]), str(count), str(interval_us)]).split()
    return Times(int(p50) / 1e3, int(p99) / 1e3)


def ping_of_ours(server: Server, count: int, interval_us: int) -> Times:
    """Take a turn of the command."""
    host, port = server.address
    options = ["-q", "-c", str(count), "-i", f"{interval_us / 1e6:g}", "--json"]
    command = [sys.executable, "-m", "fastecho", "ping", f"{host}:{port}", *options]
    result = json.loads(output(command))
    return Times(result["latency_us"]["p50"], result["latency_us"]["p99"])


Turns = Mapping[str, Callable[[], Times]]


def interleave(clients: Turns, rounds: int) -> list[dict[str, Times]]:
    """Let each client take a turn in every round, in rotated order, after one thrown away."""
    names = list(clients)
    for name in names:
        clients[name]()
    taken: list[dict[str, Times]] = []
    for number in range(rounds):
        shift = number % len(names)
        order = [*names[shift:], *names[:shift]]
        taken.append({name: clients[name]() for name in order})
    return taken


def added(taken: Sequence[Mapping[str, Times]], name: str, other: str) -> Summary:
    """Return by how many microseconds the p50 of `name` is above that of `other`."""
    return summarize(one[name].p50_us - one[other].p50_us for one in taken)


def ping(
    plan: Plan, name: str, title: str, program: Program, *, count: int, interval_us: int
) -> Figure:
    """Return the figure."""
    with plan.stage() as stage, tempfile.TemporaryDirectory(prefix="fastecho-ping-") as folder:
        c_client = _build.compile_source("ping.c", Path(folder) / "ping")
        server = stage.server(program)
        in_c = partial(ping_in_c, c_client, server, count, interval_us)
        ours = partial(ping_of_ours, server, count, interval_us)
        clients: Turns = {C: in_c, OURS: ours, C + AGAIN: in_c, OURS + AGAIN: ours}
        taken = interleave(clients, plan.rounds(32))
    same = [added(taken, one, one + AGAIN) for one in (C, OURS)]
    noise = max(max(abs(one.low), abs(one.high)) for one in same)
    measured = added(taken, OURS, C)
    verdict = judge_value(BAR, measured.median, noise)
    rows: list[dict[str, Cell]] = [
        {
            "client": client,
            "p50_us": summarize(one[client].p50_us for one in taken),
            "p99_us": summarize(one[client].p99_us for one in taken),
        }
        for client in clients
    ]
    what = f"p50: {OURS} - {C}, us"
    line = Result(what, BAR, measured, noise, verdict, spec=".2f")
    return Figure(name, title, Table(COLUMNS, rows), [line])


SPINNING = fastecho("--spin-us", "50")

FIGURES: dict[str, Callable[[Plan], Figure]] = {
    "ping": lambda plan: ping(
        plan, "ping", "64 B, no pause, a server that spins", SPINNING, count=4000, interval_us=0
    ),
    "ping-sleeping": lambda plan: ping(
        plan,
        "ping-sleeping",
        "64 B, no pause, a server that sleeps",
        fastecho(),
        count=4000,
        interval_us=0,
    ),
    "ping-paced": lambda plan: ping(
        plan,
        "ping-paced",
        "64 B, a probe every 2 ms, a server that sleeps",
        fastecho(),
        count=100,
        interval_us=2000,
    ),
}
