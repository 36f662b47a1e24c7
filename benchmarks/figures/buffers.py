"""What a peer that never reads costs, and what bounding it costs: --send-buffer, --receive-buffer.

Memory: 16 peers send to a server of their own until nothing more is taken, and read nothing. What
the kernel holds for them then is asked from the kernel; what the server itself holds is what its
resident memory has grown by. Price: the rate of small messages and of bulk with such buffers,
divided by the rate with the system's own, which grow as they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks._compare import AGAIN, ratio, self_noise
from benchmarks._errors import MeasurementError
from benchmarks._figures import Cell, Column, Figure, Result, Table
from benchmarks._plan import Plan
from benchmarks._programs import Program, fastecho
from benchmarks._ratios import at_most, judge_value, summarize
from benchmarks._sockets import held, setting, tcp_pages
from benchmarks._turns import Contender, Round, Taken, interleave

SYSTEM = "the system's"

# bytes each way, by the name in the table; None: what the system gives
SIZES: dict[str, int | None] = {
    SYSTEM: None,
    "1 MiB": 2**20,
    "256 KiB": 256 * 1024,
    "64 KiB": 64 * 1024,
    "16 KiB": 16 * 1024,
}

# so few that the kernel's memory for TCP holds them with the system's buffers as well
PEERS = 16

# A queue takes a whole segment as long as it is below its limit: what it can be above it.
SEGMENT = 64 * 1024

# What the server reads at once, and --high-water: its own memory for a peer follows from them.
READ = 256 * 1024
HIGH_WATER = 256 * 1024

# raw: what one read left over
RAW_MOST = READ
# frames: replies up to high water and one more (a whole read, if that is the frame), and one read
# of input that waits; twice, since such buffers grow by doubling
FRAMES_MOST = 2 * (HIGH_WATER + READ + READ)

FRAMES = ("--frame", "line", "--prefix", "-", "--high-water", f"{HIGH_WATER}")
FRAMES_LOAD: dict[str, Any] = {"frame": "line", "prefix": b"-"}

# seconds of load on a new connection before it is measured: TCP finds its rate meanwhile
WARM_UP = 0.12

LOADS: dict[str, dict[str, Any]] = {
    "64 B x 64": {"connections": 64, "size": 64},
    "1 MiB x 1": {"connections": 1, "size": 2**20},
    "1 MiB x 8": {"connections": 8, "size": 2**20},
}

RATE_KEYS = ("rate_ratio_64_b_x_64", "rate_ratio_1_mib_x_1", "rate_ratio_1_mib_x_8")

NOTE = (
    "loopback: over a network, no more than about the send buffer is on its way at a time, so a"
    " connection's rate is at most that divided by the round-trip time"
)

CUT = "sizes above net.core.wmem_max or net.core.rmem_max were cut to these by the kernel"

PRESSED = (
    "the kernel was short of memory for TCP (net.ipv4.tcp_mem), and gave the peers less than it"
    " would have given"
)

COLUMNS = (
    Column("buffers", "buffers"),
    Column("kernel_kib", "kernel KiB", ",.0f"),
    Column("kernel_most_kib", "at most", ",.0f"),
    Column("both_ends_kib", "with the peer's end", ",.0f"),
    Column("server_raw_kib", "server KiB, raw", ",.0f"),
    Column("server_frames_kib", "with frames", ",.0f"),
    *(Column(key, f"rate, {name}", ".3f") for key, name in zip(RATE_KEYS, LOADS, strict=True)),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one peer that never reads costs, in bytes."""

    # in the kernel: on the server's side, the most that it may be there, and on both sides
    kernel: float
    kernel_most: float
    both_ends: float
    # in the server
    user: float
    # the kernel cut the sizes that were asked for
    cut: bool
    # the kernel was short of memory for TCP: it gave less than it would have given
    pressed: bool


def program(size: int | None, *options: str, name: str) -> Program:
    """Return the server with buffers of `size` bytes each way; None: the system's."""
    buffers = () if size is None else ("--send-buffer", f"{size}", "--receive-buffer", f"{size}")
    return fastecho(*buffers, *options, name=name)


def most(limit: float, size: int | None) -> float:
    """Return what the kernel may hold for the server's end, whose own limits are `limit`."""
    if size is None:  # they grow up to the system's largest
        return setting("net.ipv4.tcp_wmem")[2] + setting("net.ipv4.tcp_rmem")[2] + 2 * SEGMENT
    return limit + 2 * SEGMENT


def cost(plan: Plan, size: int | None, *, framed: bool) -> Cost:
    """Return what a peer costs that sends and never reads."""
    options, warming = (FRAMES, FRAMES_LOAD) if framed else ((), {})
    with plan.stage() as stage:
        server = stage.server(program(size, *options, name="fastecho"))
        # memory that it needs whoever its peers are
        load = stage.load(server, size=32 * 1024, depth=8, **warming)
        Contender(server.name, server, load).turn(0.1)
        stage.close_loads()
        before = server.memory()
        stage.slow_peers(server, "non-reader", PEERS)
        port = server.address[1]
        ours, theirs = held(port=port), held(port=port, remote=True)
        user = server.memory() - before
        pressed = tcp_pages() > setting("net.ipv4.tcp_mem")[1]
    if not ours.connections == theirs.connections == PEERS:
        raise MeasurementError(f"the kernel knows {ours.connections} of {PEERS} connections")
    return Cost(
        ours.memory / PEERS,
        most(ours.limit / PEERS, size),
        (ours.memory + theirs.memory) / PEERS,
        user / PEERS,
        size is not None and ours.limit < PEERS * 2 * 2 * size,
        pressed,
    )


def rates(plan: Plan, load: dict[str, Any]) -> Taken:
    """Return rounds of all sizes of buffers, under `load`."""
    with plan.stage() as stage:
        sizes = {**SIZES, SYSTEM + AGAIN: None}
        contenders = [
            stage.contender(program(size, name=name), **load) for name, size in sizes.items()
        ]
        if load["size"] > READ:
            for one in contenders:
                one.fresh, one.lead_in = True, WARM_UP
        return interleave(contenders, plan.rounds(24), plan.seconds(0.12))


def memory_line(what: str, value: float, most: float) -> Result:
    """Return the line of a bound in bytes: it holds whatever the machine does meanwhile."""
    bar = at_most(round(most / 1024), "KiB")
    measured = summarize([value / 1024])
    return Result(what, bar, measured, None, judge_value(bar, measured.median, 0.0), spec=",.0f")


def rate_line(rounds: Sequence[Round], load: str, name: str) -> Result:
    """Return the line of a price: no bar, the reader decides."""
    measured = ratio(rounds, name, SYSTEM, "rate")
    what = f"rate of {load}: {name} / {SYSTEM}"
    return Result(what, None, measured, self_noise(rounds, "rate"), None)


def buffers(plan: Plan) -> Figure:
    """Return the figure."""
    raw = {name: cost(plan, size, framed=False) for name, size in SIZES.items()}
    frames = {name: cost(plan, size, framed=True) for name, size in SIZES.items()}
    taken = {name: rates(plan, load) for name, load in LOADS.items()}
    rows: list[dict[str, Cell]] = []
    for name in SIZES:
        cells: dict[str, Cell] = {
            "buffers": name,
            "kernel_kib": raw[name].kernel / 1024,
            "kernel_most_kib": raw[name].kernel_most / 1024,
            "both_ends_kib": raw[name].both_ends / 1024,
            "server_raw_kib": raw[name].user / 1024,
            "server_frames_kib": frames[name].user / 1024,
        }
        for key, rounds in zip(RATE_KEYS, taken.values(), strict=True):
            cells[key] = ratio(rounds.rounds, name, SYSTEM, "rate")
        rows.append(cells)
    kernel = [
        memory_line(f"kernel KiB of a non-reader: {name}", one.kernel, one.kernel_most)
        for name, one in raw.items()
    ]
    user = [
        memory_line(f"server KiB of a non-reader: {what}, worst", max(each), limit)
        for what, each, limit in (
            ("raw", [one.user for one in raw.values()], RAW_MOST),
            ("frames", [one.user for one in frames.values()], FRAMES_MOST),
        )
    ]
    price = [
        rate_line(rounds.rounds, load, name)
        for load, rounds in taken.items()
        for name in SIZES
        if name != SYSTEM
    ]
    made = Figure(
        "buffers",
        "a peer that sends and never reads, and the rate of others, by --send-buffer and"
        " --receive-buffer",
        Table(COLUMNS, rows),
        [*kernel, *user, *price],
        [NOTE],
    )
    costs = [*raw.values(), *frames.values()]
    made.notes += [CUT] if any(one.cut for one in costs) else []
    made.notes += [PRESSED] if any(one.pressed for one in costs) else []
    made.notes += [f"{load}: {note}" for load, one in taken.items() if (note := one.note())]
    return made


FIGURES: dict[str, Callable[[Plan], Figure]] = {"buffers": buffers}
