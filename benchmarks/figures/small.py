"""Small messages: 64 B, one outstanding on each connection, one thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks._compare import BEST_C, Against, enter, figure
from benchmarks._figures import Figure
from benchmarks._plan import Plan
from benchmarks._programs import (
    ASYNCIO,
    ASYNCIO_BUFFERED,
    EPOLL_LOOP,
    STREAMS,
    THREADS,
    UVLOOP,
    fastecho,
)
from benchmarks._ratios import at_least, at_most
from benchmarks._turns import interleave


def small(plan: Plan, connections: int, rounds: int, uvloop_bar: float) -> Figure:
    """Return the figure of `connections` connections."""
    with plan.stage() as stage:
        contenders = enter(
            stage,
            [fastecho(), UVLOOP, ASYNCIO, ASYNCIO_BUFFERED],
            plan.c_programs,
            [STREAMS, THREADS, EPOLL_LOOP],
            connections=connections,
            size=64,
        )
        taken = interleave(contenders, plan.rounds(rounds), plan.seconds(0.1))
        return figure(
            f"small-{connections}",
            f"64 B, depth 1, {connections:,} connections, 1 thread",
            contenders,
            taken,
            plan.c_names,
            [
                Against("rate", BEST_C, at_least(0.97)),
                Against("rate", UVLOOP.name, at_least(uvloop_bar)),
                Against("rate", ASYNCIO.name, at_least(1.25)),
                Against("rate", ASYNCIO_BUFFERED.name, at_least(1.25)),
                Against("cpu_us", BEST_C, at_most(1.03)),
            ],
        )


FIGURES: dict[str, Callable[[Plan], Figure]] = {
    "small-64": partial(small, connections=64, rounds=40, uvloop_bar=1.08),
    "small-1000": partial(small, connections=1000, rounds=60, uvloop_bar=1.12),
}
