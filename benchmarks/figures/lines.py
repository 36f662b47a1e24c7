"""Pipelined lines with a prefix: 64 connections, 32 lines outstanding on each.

Beside the bars: what the same server needs for raw echo of as many bytes, without framing and
without the prefix. That is the kernel's part, which no framing can go below; the rate that it
allows is the most that any server could reach here.
"""

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

RAW = fastecho(name="fastecho, raw, no prefix")
UVLOOP_EACH = peer(
    "uvloop Protocol, line by line", "protocol", "--loop", "uvloop", "--each", *OPTIONS
)
UVLOOP_LINES = peer("uvloop Protocol, lines", "protocol", "--loop", "uvloop", *OPTIONS)
ASYNCIO_LINES = peer("asyncio Protocol, lines", "protocol", "--loop", "asyncio", *OPTIONS)
STREAMS_LINES = peer("asyncio streams, readline", "streams", *OPTIONS)


def lines(plan: Plan) -> Figure:
    """Return the figure."""
    with plan.stage() as stage:
        contenders = enter(
            stage,
            [fastecho(*OPTIONS), UVLOOP_LINES, STREAMS_LINES, UVLOOP_EACH],
            [],
            [ASYNCIO_LINES],
            connections=64,
            depth=32,
            size=64,
            frame="line",
            prefix=PREFIX.encode(),
        )
        contenders.append(stage.contender(RAW, connections=64, depth=32, size=64))
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
                Against("rate", UVLOOP_EACH.name, None),
                Against("cpu_us", UVLOOP_LINES.name, None),
                Against("cpu_us", UVLOOP_LINES.name, None, subject=RAW.name),
            ],
        )


FIGURES: dict[str, Callable[[Plan], Figure]] = {"lines": lines}
