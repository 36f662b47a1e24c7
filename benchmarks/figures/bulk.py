"""Large messages: 1 MiB, on one connection and on eight, sent from memory and by sendfile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks._compare import BEST_C, Against, enter, figure
from benchmarks._figures import Figure
from benchmarks._plan import Plan
from benchmarks._programs import ASYNCIO, UVLOOP, fastecho
from benchmarks._ratios import at_least
from benchmarks._turns import interleave

ONE_RECV = "C 256K"

NOTE = (
    "a load that is 99 % busy is the limit, and what it costs depends on when the replies come: see"
    " what 20 us of wasted time do to the C peer"
)

# Seconds of load on a new connection before it is measured: TCP finds its rate meanwhile.
WARM_UP = 0.12


def bulk(plan: Plan, name: str, connections: int, sendfile: bool) -> Figure:
    """Return the figure of `connections` connections."""
    bars = [
        Against("rate", UVLOOP.name, at_least(1.0)),
        Against("rate", ASYNCIO.name, at_least(1.0)),
        Against("rate", BEST_C, at_least(0.97)),
    ]
    if connections == 8:
        bars.append(Against("rate", ONE_RECV, at_least(1.1)))
    bars += [Against("rate", ONE_RECV, None, subject=one.name) for one in plan.late]
    with plan.stage() as stage:
        contenders = enter(
            stage,
            [fastecho(), UVLOOP, ASYNCIO, *plan.late],
            plan.c_programs,
            [],
            connections=connections,
            size=2**20,
            sendfile=sendfile,
        )
        for one in contenders:
            one.fresh, one.lead_in = True, WARM_UP
        taken = interleave(contenders, plan.rounds(40), plan.seconds(0.12))
        sent = "sent by sendfile" if sendfile else "sent from memory"
        plural = "connection" if connections == 1 else "connections"
        title = f"1 MiB messages, depth 1, {connections} {plural}, {sent}"
        made = figure(name, title, contenders, taken, plan.c_names, bars)
        made.notes.append(NOTE)
        return made


FIGURES: dict[str, Callable[[Plan], Figure]] = {
    f"bulk-{connections}{suffix}": partial(
        bulk, name=f"bulk-{connections}{suffix}", connections=connections, sendfile=sendfile
    )
    for sendfile, suffix in ((False, ""), (True, "-sendfile"))
    for connections in (1, 8)
}
