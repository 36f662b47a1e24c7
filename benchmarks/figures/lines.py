"""Pipelined lines with a prefix: 64 connections, 32 lines outstanding on each."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks._compare import Against, enter, figure
from benchmarks._figures import Figure
from benchmarks._plan import Plan
from benchmarks._programs import fastecho, peer
from benchmarks._ratios import at_least
from benchmarks._turns import interleave

# the tutorial's own words, 37 bytes of UTF-8
PREFIX = "服务端收到, 你发的消息是: "

OPTIONS = ("--frame", "line", "--prefix", PREFIX)

UVLOOP_LINES = peer("uvloop Protocol, lines", "protocol", "--loop", "uvloop", *OPTIONS)
ASYNCIO_LINES = peer("asyncio Protocol, lines", "protocol", "--loop", "asyncio", *OPTIONS)
STREAMS_LINES = peer("asyncio streams, readline", "streams", *OPTIONS)


def lines(plan: Plan) -> Figure:
    """Return the figure."""
    with plan.stage() as stage:
        contenders = enter(
            stage,
            [fastecho(*OPTIONS), UVLOOP_LINES, STREAMS_LINES],
            [],
            [ASYNCIO_LINES],
            connections=64,
            depth=32,
            size=64,
            frame="line",
            prefix=PREFIX.encode(),
        )
        taken = interleave(contenders, plan.rounds(40), plan.seconds(0.1))
        return figure(
            "lines",
            "64 connections, depth 32, lines of 64 B, each answered with a prefix of 37 B",
            contenders,
            taken,
            [],
            [
                Against("rate", UVLOOP_LINES.name, at_least(1.5)),
                Against("rate", STREAMS_LINES.name, at_least(8)),
            ],
        )


FIGURES: dict[str, Callable[[Plan], Figure]] = {"lines": lines}
