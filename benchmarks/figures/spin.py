"""Spinning before blocking: what `--spin-us 20` gives one connection, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks._compare import Against, enter, figure
from benchmarks._figures import Figure
from benchmarks._plan import Plan
from benchmarks._programs import fastecho
from benchmarks._ratios import at_least, at_most
from benchmarks._turns import interleave

PLAIN = fastecho()
SPINNING = fastecho("--spin-us", "20", name="fastecho --spin-us 20")


def round_trips(plan: Plan, name: str, poll: bool) -> Figure:
    """Return the figure of one connection with one message outstanding.

    The bar is for a client that polls. One that sleeps adds its own waking up to every round
    trip: on a virtual machine that alone can take longer than the server is willing to spin.
    """
    with plan.stage() as stage:
        contenders = enter(stage, [PLAIN, SPINNING], [], [], connections=1, size=64, poll=poll)
        taken = interleave(contenders, plan.rounds(40), plan.seconds(0.1))
        client = "a client that polls" if poll else "a client that sleeps"
        return figure(
            name,
            f"64 B, depth 1, 1 connection, {client}, with and without spinning",
            contenders,
            taken,
            [],
            [
                Against("rate", PLAIN.name, at_least(1.8) if poll else None, subject=SPINNING.name),
                Against("cpu_us", PLAIN.name, None, subject=SPINNING.name),
                Against("p99_us", PLAIN.name, None, subject=SPINNING.name),
            ],
        )


def open_loop(plan: Plan, name: str, connections: int) -> Figure:
    """Return the figure of 30,000 messages/s on a schedule."""
    with plan.stage() as stage:
        contenders = enter(
            stage,
            [PLAIN, SPINNING],
            [],
            [],
            connections=connections,
            depth=64,
            size=64,
            mode="open",
            rate=30_000.0,
        )
        taken = interleave(contenders, plan.rounds(24), plan.seconds(0.25))
        plural = "connection" if connections == 1 else "connections"
        return figure(
            name,
            f"64 B, open loop, 30,000 messages/s over {connections} {plural}, with and without",
            contenders,
            taken,
            [],
            [
                Against("cpu_us", PLAIN.name, at_most(1.25), subject=SPINNING.name),
                Against("p99_us", PLAIN.name, None, subject=SPINNING.name),
            ],
        )


FIGURES: dict[str, Callable[[Plan], Figure]] = {
    "spin": partial(round_trips, name="spin", poll=True),
    "spin-sleeping": partial(round_trips, name="spin-sleeping", poll=False),
    "spin-open-1": partial(open_loop, name="spin-open-1", connections=1),
    "spin-open-64": partial(open_loop, name="spin-open-64", connections=64),
}
