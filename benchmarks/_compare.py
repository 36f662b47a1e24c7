"""Compare programs under one load: the table and the ratios of a figure.

Used by every figure that drives servers by turns. It decides which C peer is the best one and
which program gets a second instance; it starts nothing by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks._figures import Cell, Column, Figure, Result, Table
from benchmarks._programs import Program
from benchmarks._ratios import Bar, Summary, judge, judge_tail, noise_of, summarize
from benchmarks._turns import Contender, Round, Stage, Taken, Turn, interleave

Quantity = Literal[
    "rate", "cpu_us", "load_cpu_us", "p50_us", "p99_us", "service_p50_us", "service_p99_us"
]

# stands for the C peer that did best at the quantity in question
BEST_C = "best C"

AGAIN = " (again)"

QUANTITIES: dict[Quantity, tuple[str, Callable[[Turn], float]]] = {
    "rate": ("rate", lambda turn: turn.rate),
    "cpu_us": ("server CPU per message", lambda turn: turn.cpu_us),
    "load_cpu_us": ("CPU per message", lambda turn: turn.load_cpu / turn.messages * 1e6),
    "p50_us": ("p50", lambda turn: turn.p50_us),
    "p99_us": ("p99", lambda turn: turn.p99_us),
    "service_p50_us": ("p50 of service time", lambda turn: turn.service_p50_us),
    "service_p99_us": ("p99 of service time", lambda turn: turn.service_p99_us),
}

# quantities of which a single value says little
TAILS: tuple[Quantity, ...] = ("p99_us", "service_p99_us")

COLUMNS = (
    Column("server", "server"),
    Column("rate_per_s", "messages/s", ",.0f"),
    Column("rate_ratio", "to best C", ".3f", spread=True),
    Column("cpu_us_per_message", "CPU us/message", ".2f"),
    Column("cpu_ratio", "to best C", ".3f", spread=True),
    Column("p50_us", "p50 us", ",.0f"),
    Column("p99_us", "p99 us", ",.0f"),
    Column("memory_mib", "memory MiB", ".1f"),
    Column("load_busy", "load busy", ".0%"),
)


@dataclass(frozen=True, slots=True)
class Against:
    """A ratio of one program to another, most often with a bar."""

    quantity: Quantity
    # a program's name, or BEST_C
    other: str
    # None: the ratio is shown for the reader
    bar: Bar | None
    subject: str = "fastecho"
    # the bar says that both are the same: noise excuses the miss of a tail, unless it is too large
    same: bool = False


def values(rounds: Sequence[Round], name: str, quantity: Quantity) -> list[float]:
    """Return what `name` showed in the rounds that it took part in."""
    take = QUANTITIES[quantity][1]
    return [take(taken[name]) for taken in rounds if name in taken]


def ratio(rounds: Sequence[Round], subject: str, other: str, quantity: Quantity) -> Summary:
    """Return the ratio of two programs, round by round."""
    take = QUANTITIES[quantity][1]
    return summarize(
        take(taken[subject]) / take(taken[other])
        for taken in rounds
        if subject in taken and other in taken
    )


def best_c(rounds: Sequence[Round], names: Sequence[str], quantity: Quantity) -> str | None:
    """Return the C peer with the best median: the highest rate, the least CPU or latency."""
    if not names:
        return None
    sign = 1 if quantity == "rate" else -1
    return max(names, key=lambda name: sign * summarize(values(rounds, name, quantity)).median)


def self_noise(rounds: Sequence[Round], quantity: Quantity) -> float | None:
    """Return the noise: the worst of all programs that have a second instance."""
    names = {name for taken in rounds for name in taken if name.endswith(AGAIN)}
    return noise_of(
        *(ratio(rounds, name, name.removesuffix(AGAIN), quantity) for name in sorted(names))
    )


def row(rounds: Sequence[Round], contender: Contender, c_names: Sequence[str]) -> dict[str, Cell]:
    """Return the table's row of one contender."""
    name = contender.name
    turns = [taken[name] for taken in rounds if name in taken]
    best_rate = best_c(rounds, c_names, "rate")
    best_cpu = best_c(rounds, c_names, "cpu_us")
    return {
        "server": name,
        "rate_per_s": summarize(turn.rate for turn in turns),
        "rate_ratio": ratio(rounds, name, best_rate, "rate") if best_rate else None,
        "cpu_us_per_message": summarize(turn.cpu_us for turn in turns),
        "cpu_ratio": ratio(rounds, name, best_cpu, "cpu_us") if best_cpu else None,
        "p50_us": summarize(turn.p50_us for turn in turns),
        "p99_us": summarize(turn.p99_us for turn in turns),
        "memory_mib": contender.server.memory() / 2**20,
        "load_busy": summarize(turn.load_busy for turn in turns),
    }


def result(rounds: Sequence[Round], against: Against, c_names: Sequence[str]) -> Result:
    """Return the line of one ratio, with its verdict."""
    quantity = against.quantity
    label = QUANTITIES[quantity][0]
    other = best_c(rounds, c_names, quantity) if against.other == BEST_C else against.other
    present = set(rounds[0])
    subject = "" if against.subject == "fastecho" else f"{against.subject}: "
    if other is None or other not in present or against.subject not in present:
        what = f"{subject}{label} / {against.other}"
        return Result(what, against.bar, None, None, "not measured", f"{other} did not run")
    named = f"{BEST_C} ({other})" if against.other == BEST_C else other
    measured = ratio(rounds, against.subject, other, quantity)
    noise = self_noise(rounds, quantity)
    bar = against.bar
    verdict = None
    if bar is not None:
        if quantity in TAILS:
            verdict = judge_tail(bar, measured, (noise or 0.0) if against.same else 0.0)
        else:
            verdict = judge(bar, measured, noise)
    return Result(f"{subject}{label} / {named}", bar, measured, noise, verdict)


def enter(
    stage: Stage,
    programs: Sequence[Program],
    c_programs: Sequence[Program],
    readers: Sequence[Program],
    **load: Any,
) -> list[Contender]:
    """Start every program that can run, connect its load, and add the second instances.

    The first of `programs` and the C peer that wins a short trial get one. `readers` have no bar:
    they take part in every third round.
    """
    able = [one for one in (*programs, *c_programs) if not one.missing]
    contenders = [stage.contender(one, **load) for one in able]
    twins = [programs[0].again()]
    c_names = [one.name for one in c_programs]
    if c_names:
        trial = interleave([one for one in contenders if one.name in c_names], 6, 0.05).rounds
        winner = best_c(trial, c_names, "rate")
        twins += [one.again() for one in c_programs if one.name == winner]
    contenders += [stage.contender(one, **load) for one in twins]
    contenders += [stage.contender(one, every=3, **load) for one in readers if not one.missing]
    return contenders


def figure(
    name: str,
    title: str,
    contenders: Sequence[Contender],
    taken: Taken,
    c_names: Sequence[str],
    bars: Sequence[Against],
) -> Figure:
    """Return the figure of finished rounds; the servers must still be alive."""
    columns = COLUMNS if c_names else [one for one in COLUMNS if not one.key.endswith("_ratio")]
    made = Figure(name, title, Table(columns))
    made.table.rows = [row(taken.rounds, contender, c_names) for contender in contenders]
    made.results = [result(taken.rounds, against, c_names) for against in bars]
    if note := taken.note():
        made.notes.append(note)
    return made
