"""Behind a proxy: what it costs to be told who the peer is.

The header comes as a proxy sends it, right after the connect and in the segment of the first
message: the load makes one of version 2 from each connection's own addresses.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks._compare import Against, figure
from benchmarks._figures import Figure
from benchmarks._plan import Plan
from benchmarks._programs import fastecho
from benchmarks._ratios import at_most
from benchmarks._turns import interleave
from benchmarks.figures.reconnect import SOURCES

TOLD = fastecho("--proxy-protocol", "required")
ASKED = fastecho("--proxy-protocol", "optional", name="fastecho, optional, none sent")
PLAIN = fastecho(name="fastecho, no header")


def proxy(plan: Plan) -> Figure:
    """Return the figure of connect, echo, close, each behind a header and not."""
    with plan.stage() as stage:
        contenders = [
            stage.contender(
                program,
                connections=16,
                size=64,
                mode="reconnect",
                sources=SOURCES,
                proxy=0 if program in (PLAIN, ASKED) else 2,
            )
            for program in (TOLD, PLAIN, TOLD.again(), ASKED)
        ]
        taken = interleave(contenders, plan.rounds(60), plan.seconds(0.1))
        return figure(
            "proxy",
            "a PROXY header of version 2, connect, echo 64 B, close; 16 at a time",
            contenders,
            taken,
            [],
            [
                Against("cpu_us", PLAIN.name, at_most(1.02)),
                Against("cpu_us", PLAIN.name, None, subject=ASKED.name),
                Against("rate", PLAIN.name, None),
            ],
        )


FIGURES: dict[str, Callable[[Plan], Figure]] = {"proxy": proxy}
