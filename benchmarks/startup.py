"""Print how fast fastecho starts: `python -m benchmarks.startup`.

Processes are started in turn and timed from outside; README.md beside this file tells the method.
No server is measured here, benchmarks.echo does that.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import _command
from benchmarks._errors import MeasurementError
from benchmarks._figures import Column, Figure, Result, Table
from benchmarks._plan import Plan
from benchmarks._ratios import Bar, Summary, at_most, judge_value, summarize
from benchmarks._servers import ROOT, START_TIMEOUT, environment, pinned, readable

ABOUT = "Measure how long fastecho takes to import, to serve and to tell its version."

ADDRESS = re.compile(rb"\d+\.\d+\.\d+\.\d+:\d+")

# processes of each kind; at least 20 make an interval worth printing
ROUNDS = 40

COLUMNS = (
    Column("process", "process"),
    Column("cpu_ms", "CPU ms", ".2f", spread=True),
    Column("wall_ms", "wall ms", ".2f", spread=True),
)


@dataclass(frozen=True, slots=True)
class Started:
    """What one process took, in milliseconds."""

    # from its start until it ended, or until its address was read
    wall_ms: float
    # user and system, of the whole process
    cpu_ms: float


def fastecho_command() -> list[str]:
    """Return the installed command, or how to run it without one."""
    script = Path(sys.executable).parent / "fastecho"
    return [str(script)] if script.exists() else [sys.executable, "-m", "fastecho"]


def children_cpu() -> float:
    """Return the seconds of CPU, user and system, of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def await_address(process: subprocess.Popen[bytes]) -> None:
    """Read what the process prints until there is an address in it."""
    assert process.stdout is not None
    printed = b""
    stdout = process.stdout.fileno()
    while not ADDRESS.search(printed):
        in_time = readable(stdout, START_TIMEOUT)
        chunk = os.read(stdout, 4096) if in_time else b""
        if not chunk:
            raise MeasurementError(f"fastecho serve said no address: {printed!r}")
        printed += chunk


def await_end(process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has ended; Popen.wait with a timeout would notice it late."""
    ended_fd = os.pidfd_open(process.pid)
    try:
        if not readable(ended_fd, START_TIMEOUT):
            raise MeasurementError(f"process {process.pid} did not end within {START_TIMEOUT:g} s")
    finally:
        os.close(ended_fd)


def start(command: list[str], plan: Plan, *, serves: bool = False) -> Started:
    """Start a process, wait for its end (or for its address, and end it), and return its cost."""
    cpu_before = children_cpu()
    began = time.monotonic()
    with pinned([plan.server_core]):
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        if serves:
            await_address(process)
            wall = time.monotonic() - began
            process.terminate()
        await_end(process)
        if not serves:
            wall = time.monotonic() - began
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if process.returncode != 0:
        raise MeasurementError(f"{' '.join(command)} ended with {process.returncode}")
    return Started(wall * 1e3, (children_cpu() - cpu_before) * 1e3)


Kinds = dict[str, Callable[[], Started]]


def interleave(kinds: Kinds, rounds: int) -> dict[str, list[Started]]:
    """Start one of each kind in every round, in rotated order, after a round thrown away."""
    names = list(kinds)
    for name in names:
        kinds[name]()
    taken: dict[str, list[Started]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in [*names[shift:], *names[:shift]]:
            taken[name].append(kinds[name]())
    return taken


def table(taken: dict[str, list[Started]]) -> Table:
    """Return the table of everything that was started."""
    made = Table(COLUMNS)
    for name, started in taken.items():
        made.rows.append(
            {
                "process": name,
                "cpu_ms": summarize(one.cpu_ms for one in started),
                "wall_ms": summarize(one.wall_ms for one in started),
            }
        )
    return made


def line(what: str, bar: Bar, measured: Summary, noise: float) -> Result:
    """Return the line of a bar in milliseconds."""
    return Result(what, bar, measured, noise, judge_value(bar, measured.median, noise), spec=".2f")


def added_cpu(taken: dict[str, list[Started]], name: str, bare: str) -> Summary:
    """Return the CPU of `name` beyond that of `bare`, round by round."""
    pairs = zip(taken[name], taken[bare], strict=True)
    return summarize(one.cpu_ms - other.cpu_ms for one, other in pairs)


def importing(plan: Plan) -> Figure:
    """Return what `import fastecho` adds to bare Python."""

    def python(code: str) -> Callable[[], Started]:
        return lambda: start([sys.executable, "-c", code], plan)

    kinds: Kinds = {
        "python -c pass": python("pass"),
        "python -c pass (again)": python("pass"),
        "python -c 'import fastecho'": python("import fastecho"),
        "python -c 'import fastecho; fastecho.Server'": python("import fastecho; fastecho.Server"),
        "python -c 'import asyncio'": python("import asyncio"),
    }
    bare, again, imported, used, _ = kinds
    taken = interleave(kinds, plan.rounds(ROUNDS))
    same = added_cpu(taken, again, bare)
    noise = max(abs(same.low), abs(same.high))
    results = [
        line(
            "CPU that import fastecho adds",
            at_most(10, "ms"),
            added_cpu(taken, imported, bare),
            noise,
        ),
        Result(
            "CPU that fastecho.Server adds",
            None,
            added_cpu(taken, used, bare),
            noise,
            None,
            spec=".2f",
        ),
    ]
    return Figure("import", "import fastecho", table(taken), results)


def commands(plan: Plan) -> Figure:
    """Return how long the command takes to say its address and its version."""
    command = fastecho_command()
    serve = [*command, "serve", "--bind", "127.0.0.1:0"]
    kinds: Kinds = {
        "fastecho serve, until its address": lambda: start(serve, plan, serves=True),
        "fastecho --version": lambda: start([*command, "--version"], plan),
        "python -c pass": lambda: start([sys.executable, "-c", "pass"], plan),
    }
    serving, version, _ = kinds
    taken = interleave(kinds, plan.rounds(ROUNDS))

    def wall(name: str, limit: float) -> Result:
        measured = summarize(one.wall_ms for one in taken[name])
        return line(
            f"wall time of {name}", at_most(limit, "ms"), measured, measured.high - measured.median
        )

    return Figure(
        "commands", " ".join(command), table(taken), [wall(serving, 150), wall(version, 40)]
    )


MAKERS: dict[str, _command.FigureMaker] = {"import": importing, "commands": commands}

if __name__ == "__main__":
    sys.exit(_command.run("benchmarks.startup", ABOUT, MAKERS, c_peers=False))
