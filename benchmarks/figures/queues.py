"""Queues and metrics: what it takes to look, and what a server pays for being looked at.

The listeners and connections of others are held by processes of this program (peers/holder.py),
which do nothing. The scraper of `metrics` is a thread of the harness, on the load's core.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import fastecho
from benchmarks._compare import Against, figure
from benchmarks._errors import MeasurementError
from benchmarks._figures import Column, Figure, Result, Table
from benchmarks._plan import Plan
from benchmarks._programs import fastecho as served
from benchmarks._ratios import Bar, Summary, at_most, judge_value, summarize
from benchmarks._servers import ROOT, environment, pinned
from benchmarks._turns import interleave
from benchmarks.startup import fastecho_command

LISTENERS = 1000
CONNECTIONS = 20_000
CALLS = 1000

COLUMNS = (
    Column("what", "what"),
    Column("taken", "median", ",.2f", spread=True),
    Column("unit", "unit"),
)


@contextlib.contextmanager
def held(listeners: int, connections: int) -> Iterator[None]:
    """Let other processes hold so many listeners and connections, of both ends each."""
    each = 6000
    parts = [(listeners, 0)] if listeners else []
    parts += [(1, min(each, connections - at)) for at in range(0, connections, each)]
    with contextlib.ExitStack() as stack:
        for part in parts:
            command = [sys.executable, "-m", "benchmarks.peers.holder", *map(str, part)]
            process = stack.enter_context(
                subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise MeasurementError(f"nobody holds {part[0]} listeners, {part[1]} connections")
        yield


def judged(what: str, measured: Summary, bar: Bar) -> Result:
    """Return the verdict on a time."""
    noise = measured.high - measured.median
    return Result(what, bar, measured, noise, judge_value(bar, measured.median, noise), spec=".2f")


def one_queue(plan: Plan) -> list[float]:
    """Return the microseconds of a call of Server.listen_queue()."""
    taken = []
    with pinned([plan.server_core]), fastecho.Server() as server:
        for _ in range(plan.rounds(40)):
            began = time.perf_counter_ns()
            for _ in range(CALLS):
                server.listen_queue()
            taken.append((time.perf_counter_ns() - began) / CALLS / 1e3)
    return taken


def scrapes(plan: Plan) -> list[float]:
    """Return the milliseconds of a scrape over HTTP, of a server with two workers."""
    from fastecho.metrics import MetricsServer

    taken = []
    with (
        pinned([plan.server_core]),
        fastecho.Server(threads=2) as server,
        MetricsServer("127.0.0.1:0", server) as metrics,
    ):
        for _ in range(plan.rounds(100)):
            began = time.perf_counter_ns()
            scrape(socket.AF_INET, metrics.addresses[0])
            taken.append((time.perf_counter_ns() - began) / 1e6)
    return taken


def scrape(family: int, address: str) -> None:
    """Get /metrics once."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(family)
    with contextlib.closing(connection):
        if family == socket.AF_UNIX:
            connection.sock.connect(address)
        else:
            host, _, port = address.rpartition(":")
            connection.sock.connect((host, int(port)))
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200 or b"fastecho_messages_total" not in body:
            raise MeasurementError(f"the metrics answered {answer.status}: {body[:80]!r}")


def commands(plan: Plan, listeners: int, connections: int) -> list[float]:
    """Return the wall milliseconds of `fastecho queues`, a single look."""
    command = [*fastecho_command(), "queues", "--interval", "0"]
    taken = []
    with held(listeners, connections), pinned([plan.server_core]):
        for _ in range(1 + plan.rounds(30)):
            began = time.perf_counter_ns()
            subprocess.run(
                command, stdout=subprocess.DEVNULL, env=environment(), timeout=20, check=True
            )
            taken.append((time.perf_counter_ns() - began) / 1e6)
    return taken[1:]


def reading(plan: Plan) -> Figure:
    """Return the figure of how long a look takes."""
    table = Table(COLUMNS)
    results = []
    for what, unit, limit, take in (
        ("Server.listen_queue()", "us", 5, one_queue),
        ("a scrape of /metrics", "ms", 5, scrapes),
        (
            f"fastecho queues, {LISTENERS:,} listeners", "ms", 200,
            lambda plan: commands(plan, LISTENERS, 0),
        ),
        (
            f"fastecho queues, {CONNECTIONS:,} connections", "ms", 300,
            lambda plan: commands(plan, 0, CONNECTIONS),
        ),
    ):  # fmt: skip
        measured = summarize(take(plan))
        table.rows.append({"what": what, "taken": measured, "unit": unit})
        results.append(judged(what, measured, at_most(limit, unit)))
    none = summarize(commands(plan, 0, 0))
    table.rows.append(
        {"what": "fastecho queues, only the machine's own", "taken": none, "unit": "ms"}
    )
    return Figure("reading", "queues and metrics: how long a look takes", table, results)


@contextlib.contextmanager
def scraped_each_second(paths: Sequence[Path]) -> Iterator[list[int]]:
    """Scrape all of these from a thread meanwhile; gives how often that was."""
    over, count = threading.Event(), [0]
    failures: list[Exception] = []

    def run() -> None:
        try:
            while not over.wait(1):
                for path in paths:
                    scrape(socket.AF_UNIX, str(path))
                count[0] += 1
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield count
    finally:
        over.set()
        thread.join(10)
    if failures:
        raise MeasurementError(f"the scraper failed: {failures[0]}")


def metrics(plan: Plan) -> Figure:
    """Return the figure of a server that is scraped each second, beside one without metrics."""
    with tempfile.TemporaryDirectory() as folder, plan.stage() as stage:
        paths = [Path(folder) / name for name in ("metrics", "again")]
        scraped = [served("--metrics", f"unix:{path}") for path in paths]
        contenders = [
            stage.contender(program, connections=64, size=64)
            for program in (scraped[0], served(name="fastecho, no metrics"), scraped[1].again())
        ]
        with scraped_each_second(paths) as count:
            # A turn as long as the time between two scrapes: each has one.
            taken = interleave(contenders, plan.rounds(20), plan.seconds(1.0))
        made = figure(
            "metrics",
            "metrics, scraped each second: 64 B, depth 1, 64 connections, 1 thread",
            contenders,
            taken,
            [],
            [
                Against("cpu_us", "fastecho, no metrics", at_most(1.02)),
                Against("rate", "fastecho, no metrics", None),
            ],
        )
        made.notes.append(f"scraped {count[0]} times; whose turn it was not was scraped as well")
        return made


FIGURES: dict[str, Callable[[Plan], Figure]] = {"reading": reading, "metrics": metrics}
