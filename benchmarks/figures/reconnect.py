"""Connect, echo one message, close: 16 connections at a time, over and over."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks._compare import BEST_C, Against, enter, figure
from benchmarks._figures import Figure
from benchmarks._plan import Plan
from benchmarks._programs import ASYNCIO, UVLOOP, fastecho
from benchmarks._ratios import at_least
from benchmarks._turns import interleave

# many source addresses: one alone runs out of ports while closed connections linger
SOURCES = tuple(f"127.0.1.{last}" for last in range(1, 65))


def reconnect(plan: Plan) -> Figure:
    """Return the figure."""
    with plan.stage() as stage:
        contenders = enter(
            stage,
            [fastecho()],
            plan.c_programs,
            [UVLOOP, ASYNCIO],
            connections=16,
            size=64,
            mode="reconnect",
            sources=SOURCES,
        )
        taken = interleave(contenders, plan.rounds(60), plan.seconds(0.1))
        return figure(
            "reconnect",
            "connect, echo 64 B, close; 16 at a time",
            contenders,
            taken,
            plan.c_names,
            [Against("rate", BEST_C, at_least(0.97))],
        )


FIGURES: dict[str, Callable[[Plan], Figure]] = {"reconnect": reconnect}
