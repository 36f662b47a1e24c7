"""UDP: the cost of a datagram beside asyncio, uvloop and plain C, and a flood beside a guest."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks._build import compile_source
from benchmarks._compare import Against, enter, figure
from benchmarks._figures import Column, Figure, Result, Table
from benchmarks._plan import Plan
from benchmarks._programs import Program, fastecho, peer
from benchmarks._ratios import at_most, judge_value, summarize
from benchmarks._servers import Process
from benchmarks._turns import interleave

C = "C recvmmsg"
ASYNCIO = peer("asyncio DatagramProtocol", "datagrams", "--loop", "asyncio")
UVLOOP = peer("uvloop DatagramProtocol", "datagrams", "--loop", "uvloop")
BIND = "udp://127.0.0.1:0"
# as many as the load can ask for, and still through the bucket
OURS = fastecho("--udp-rate", "1000000000", bind=BIND)
GUARDED = fastecho(name="fastecho, default rate", bind=BIND)

# of the guest beside a flood, in datagrams/s: below the default rate of a source
GUEST_RATE = 900.0


@contextlib.contextmanager
def compiled(source: str) -> Iterator[Path]:
    """Compile a C peer for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="fastecho-") as folder:
        yield compile_source(source, Path(folder) / "program")


def datagrams(plan: Plan, connections: int, size: int, pipeline: int, rounds: int) -> Figure:
    """Return the figure of so many sources, each with `pipeline` datagrams on their way."""
    with compiled("datagrams.c") as program, plan.stage() as stage:
        c = Program(C, (str(program),))
        contenders = enter(
            stage,
            [OURS, UVLOOP, ASYNCIO],
            [c],
            [],
            connections=connections,
            size=size,
            depth=pipeline,
            udp=True,
        )
        taken = interleave(contenders, plan.rounds(rounds), plan.seconds(0.1))
        bars = [
            Against("cpu_us", C, at_most(1.03) if size == 64 else None),
            Against("cpu_us", ASYNCIO.name, at_most(0.7) if size == 64 else None),
            Against("cpu_us", UVLOOP.name, at_most(0.7) if size == 64 else None),
            Against("rate", C, None),
            Against("rate", UVLOOP.name, None),
        ]
        title = f"{size:,} B over UDP, {connections} sources, {pipeline} on their way of each"
        return figure(f"udp-{size}-{connections}x{pipeline}", title, contenders, taken, [C], bars)


FLOOD_COLUMNS = (
    Column("flood_per_s", "flood/s", ",.0f"),
    Column("guest_sent", "guest sent", ",.0f"),
    Column("guest_lost", "lost", ",.0f"),
    Column("server_busy", "server busy", ".0%"),
)


def flood(plan: Plan) -> Figure:
    """Return what a flood from one source costs another source of a server with its defaults."""
    made = Figure("udp-flood", "a flood from one source beside a guest", Table(FLOOD_COLUMNS))
    lost: list[float] = []
    seconds = plan.seconds(1.0)
    with compiled("flood.c") as program, plan.stage() as stage:
        server = stage.server(GUARDED)
        port = str(server.address[1])
        options = ("--port", port, "--source", "127.0.0.2")
        with Process("flood", (str(program), *options), (plan.load_core,), obeys=True) as flooder:
            guest = stage.load(
                server, connections=4, size=64, mode="open", rate=GUEST_RATE, udp=True, timeout=1.0
            )
            for _ in range(plan.rounds(10)):
                before = server.cpu_ns()
                guest.reset()
                flooder.order(f"{seconds + 0.2}")
                result = guest.run(seconds)
                sent = flooder.answer("a flood")["sent"]
                lost.append(result["no_reply"])
                made.table.rows.append(
                    {
                        "flood_per_s": sent / (seconds + 0.2),
                        "guest_sent": result["sent"],
                        "guest_lost": result["no_reply"],
                        "server_busy": (server.cpu_ns() - before) / 1e9 / (seconds + 0.2),
                    }
                )
    bar = at_most(0.0, "lost")
    total = summarize([sum(lost)])
    verdict = judge_value(bar, total.median, 0.0)
    made.results = [Result("datagrams of the guest", bar, total, None, verdict, spec=",.0f")]
    return made


FIGURES: dict[str, Callable[[Plan], Figure]] = {
    "udp-64-64x1": partial(datagrams, connections=64, size=64, pipeline=1, rounds=60),
    "udp-64-16x16": partial(datagrams, connections=16, size=64, pipeline=16, rounds=40),
    "udp-1400-64x1": partial(datagrams, connections=64, size=1400, pipeline=1, rounds=30),
    "udp-flood": flood,
}
