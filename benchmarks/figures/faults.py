"""Faults: how exact their times are, what they cost, and what a server without one pays for them.

The client of the first two figures is this program: blocking sockets of its own, pinned to the
load's core. What it adds to a time is measured with the same server without a fault, and shown.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from functools import partial

from benchmarks._compare import BEST_C, Against, enter, figure
from benchmarks._errors import MeasurementError
from benchmarks._figures import Cell, Column, Figure, Result, Table
from benchmarks._plan import Plan
from benchmarks._programs import fastecho
from benchmarks._ratios import Bar, Summary, at_least, at_most, judge_value, summarize
from benchmarks._servers import pinned
from benchmarks._turns import interleave

DELAY_MS = 50
RATES = (100_000, 1_000_000, 10_000_000)
PIECES = 200

COLUMNS = (
    Column("what", "what"),
    Column("median", "median", ",.3f", spread=True),
    Column("unit", "unit"),
)


Client = Callable[[socket.socket], list[float]]


def connect(plan: Plan, *options: str) -> Callable[[Client], list[float]]:
    """Return what starts a server with these options, and lets a client measure it."""

    def measured(client: Client) -> list[float]:
        with plan.stage() as stage:
            server = stage.server(fastecho(*options))
            with pinned([plan.load_core]), socket.create_connection(server.address, 20) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return client(sock)

    return measured


def receive(sock: socket.socket, size: int) -> int:
    """Receive so many bytes; return how many recv calls gave them."""
    reads = 0
    while size:
        got = len(sock.recv(min(size, 1 << 18)))
        if got == 0:
            raise MeasurementError("the server ended the connection")
        size -= got
        reads += 1
    return reads


def round_trips(sock: socket.socket, count: int, delay_ms: float = 0.0) -> list[float]:
    """Return the milliseconds of each round trip of 64 B that are more than the delay."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        sock.sendall(b"x" * 64)
        receive(sock, 64)
        taken.append((time.perf_counter() - began) * 1e3 - delay_ms)
    return taken


def transfers(sock: socket.socket, count: int, rate: int) -> list[float]:
    """Return the rates of transfers of half a second each, as a share of what it should be."""
    size = rate // 2
    taken = []
    for _ in range(count):
        sender = threading.Thread(target=sock.sendall, args=[bytes(size)])
        began = time.perf_counter()
        sender.start()
        receive(sock, size)
        taken.append(size / (time.perf_counter() - began) / rate)
        sender.join()
    return taken


def pieces(sock: socket.socket, count: int) -> list[float]:
    """Return how many bytes a read gives each time, where the server sends one at a time."""
    taken = []
    for _ in range(count):
        sock.sendall(b"x" * PIECES)
        taken.append(PIECES / receive(sock, PIECES))
    return taken


def judged(what: str, measured: Summary, bar: Bar) -> Result:
    """Return the verdict on the median of what was measured."""
    noise = max(measured.high - measured.median, measured.median - measured.low)
    verdict = judge_value(bar, measured.median, noise)
    return Result(what, bar, measured, noise, verdict, spec=".3f")


def judged_delay(late: list[float]) -> list[Result]:
    """Return the verdicts on a delay: it is not much too long, and never too short."""
    what = f"delay of {DELAY_MS} ms"
    return [
        judged(f"{what}: later than that by", summarize(late), at_most(0.3, "ms")),
        judged(f"{what}: the earliest by", summarize([min(late)]), at_least(0, "ms")),
    ]


def timing(plan: Plan) -> Figure:
    """Return the figure of delay, bandwidth and slice."""
    table = Table(COLUMNS)
    results: list[Result] = []

    def row(what: str, unit: str, measured: Summary) -> None:
        cells: dict[str, Cell] = {"what": what, "median": measured, "unit": unit}
        table.rows.append(cells)

    def add(unit: str, *judgements: Result) -> None:
        for one in judgements:
            assert one.measured is not None
            row(one.what, unit, one.measured)
            results.append(one)

    count = plan.rounds(200)
    plain = connect(plan)(partial(round_trips, count=count))
    row("round trip without a fault", "ms", summarize(plain))
    late = connect(plan, "--fault", f"delay={DELAY_MS}ms")(
        partial(round_trips, count=count, delay_ms=DELAY_MS)
    )
    add("ms", *judged_delay(late))
    for rate in RATES:
        taken = connect(plan, "--fault", f"bandwidth={rate}")(
            partial(transfers, count=plan.rounds(12), rate=rate)
        )
        share = summarize(taken)
        what = f"bandwidth of {rate:,} B/s: share that came"
        add("", judged(what, share, at_least(0.98)))
        if share.median > 1.02:
            raise MeasurementError(f"{what} is {share.median:.3f}")
    read = connect(plan, "--fault", "slice=1")(partial(pieces, count=plan.rounds(12)))
    add("", judged("slice=1: bytes a read", summarize(read), at_most(1.01)))
    return Figure("timing", "faults: how exact they are, one connection", table, results)


def cost(plan: Plan) -> Figure:
    """Return the figure of a server with no fault, and of ones whose fault does next to nothing."""
    with plan.stage() as stage:
        contenders = enter(
            stage,
            [
                fastecho(),
                fastecho("--fault", "delay=1s,fail_first=0", name="a fault that nobody gets"),
                fastecho("--fault", "stall_after=1G", name="a limit that is never reached"),
                fastecho("--fault", "corrupt=0.000000000001", name="corrupt, next to never"),
            ],
            plan.c_programs,
            [],
            connections=64,
            size=64,
        )
        taken = interleave(contenders, plan.rounds(40), plan.seconds(0.1))
        return figure(
            "cost",
            "faults: 64 B, depth 1, 64 connections, 1 thread",
            contenders,
            taken,
            plan.c_names,
            [
                Against("rate", BEST_C, at_least(0.97)),
                Against("cpu_us", BEST_C, at_most(1.03)),
                *(
                    Against(quantity, "fastecho", None, subject=name)
                    for name in (
                        "a fault that nobody gets",
                        "a limit that is never reached",
                        "corrupt, next to never",
                    )
                    for quantity in ("rate", "cpu_us")
                ),
            ],
        )


FIGURES: dict[str, Callable[[Plan], Figure]] = {"timing": timing, "cost": cost}
