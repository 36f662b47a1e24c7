"""What the figures of several models mean, in sentences that every output shares.

Lives here: sentences, each only where the figures bear it out, and how a cell of the table reads.
Does not live here: the figures (model_result.py), layout (cli, model_page.py).
"""

from __future__ import annotations

import math

from .words import counted

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .model_result import Figures, ModelRuns

__all__ = ["COLUMNS", "LEGEND", "announced", "best_in_python", "cells", "sentences"]

COLUMNS = (
    "messages/s", "p50", "p99", "CPU", "one talks", "idle", "threads", "memory", "served", "load",
)  # fmt: skip
LEGEND = (
    "CPU: of the server, for each message while all its peers talk; one talks: the same while one "
    "peer talks and the others are connected and silent; idle: share of a core while nobody talks; "
    "memory: resident, for each connection; load: how busy the load was. The rate of a model that "
    "serves only some is that of those."
)
MUCH, GROWN = 1.5, 3.0
"""Ratios that a sentence is worth: to another model, to the same one with fewer peers."""
CLOSE = 2.0
"""Compiled code is called close up to this ratio."""


def announced(models: int, sizes: Iterable[int], at_most: float) -> str:
    """Say what will be measured, and within which time."""
    listed = [f"{size:,}" for size in sizes]
    number = "connection" if listed == ["1"] else "connections"
    return (
        f"{counted(models, 'model')} at {_joined(listed)} {number}, one after the other in short "
        f"turns: takes at most {math.ceil(at_most)} s"
    )


def cells(figures: Figures, time_text: Callable[[float], str]) -> list[str]:
    """Return the cells of a model's row, in the order of COLUMNS; "-" for what is not known.

    Args:
        time_text: makes text of microseconds.
    """

    def time(seconds: float | None) -> str:
        return "-" if seconds is None else time_text(seconds * 1e6)

    rate, memory = figures.messages_per_s, figures.memory_per_connection
    return [
        "-" if rate is None else f"{rate:,.0f}",
        time(figures.percentile(50)),
        time(figures.percentile(99)),
        time(figures.cpu_per_message),
        time(figures.lone_cpu_per_message),
        _percent(figures.idle_cpu),
        "-" if figures.threads is None else f"{figures.threads:,}",
        "-" if memory is None else f"{memory / 1e3:,.1f} kB",
        _served(figures),
        _percent(figures.load_busy),
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.0f} %"


def _served(figures: Figures) -> str:
    if figures.served is None:
        return "-"
    return "all" if figures.serves_all else f"{figures.served:,} of {figures.connections:,}"


def best_in_python(runs: ModelRuns, connections: int) -> Figures | None:
    """Return the model but the core that serves all at the least CPU for each message."""
    found = [
        one
        for one in runs.at(connections)
        if one.model != runs.core and one.serves_all and one.cpu_per_message
    ]
    return min(found, key=lambda one: one.cpu_per_message or 0.0, default=None)


def sentences(runs: ModelRuns) -> list[str]:
    """Return what the figures mean."""
    size, found = runs.largest, list[str]()
    if size is not None:
        found += [*_core(runs, size), *_dearer(runs, size), *_lone(runs, size)]
        found += [*_partly_served(runs), *_threads(runs, size)]
        found += [*_busy_idlers(runs), *_limited(runs)]
    if runs.interrupted:
        found.append("Interrupted: this is what there was until then.")
    return found


def _joined(names: Iterable[str]) -> str:
    """Return names as a list in words: "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _at(size: int) -> str:
    return f"At {counted(size, 'connection')}"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.3g} us"


def _core(runs: ModelRuns, size: int) -> list[str]:
    """Compare compiled code with the best in Python."""
    best = best_in_python(runs, size)
    core = next((one for one in runs.at(size) if one.model == runs.core), None)
    if best is None or not best.cpu_per_message or core is None or not core.cpu_per_message:
        return []
    ratio = core.cpu_per_message / best.cpu_per_message
    found = (
        f"{_at(size)} {core.model} needs {_us(core.cpu_per_message)} of CPU for each message, "
        f"{ratio:.2f} of the {_us(best.cpu_per_message)} of {best.model}, the best in pure Python."
    )
    shares = [core.kernel_share, best.kernel_share]
    if all(share is not None and share > 0.5 for share in shares) and 1 / CLOSE < ratio < CLOSE:
        found += (
            f" The kernel does most of the work, {_percent(shares[0])} of it for {core.model} and "
            f"{_percent(shares[1])} for {best.model}: a tight loop in Python is close to C."
        )
    return [found]


def _times(ratios: list[tuple[str, float]], what: str) -> str:
    """Say how many times something each model needs: "a needs 2.0 times x, b 3.1 and c 4.0"."""
    (first, ratio), *rest = ratios
    said = f"{first} needs {ratio:.1f} times {what}"
    return f"{said}, {_joined(f'{name} {ratio:.1f}' for name, ratio in rest)}" if rest else said


def _dearer(runs: ModelRuns, size: int) -> list[str]:
    """Say which models need far more CPU for a message, all their peers talking."""
    best = best_in_python(runs, size)
    if best is None or not best.cpu_per_message:
        return []
    ratios = [
        (one.model, one.cpu_per_message / best.cpu_per_message)
        for one in runs.at(size)
        if one.serves_all and one.cpu_per_message
    ]
    dear = [(model, ratio) for model, ratio in ratios if ratio > MUCH]
    if not dear:
        return []
    return [f"{_at(size)}, all of them talking, {_times(dear, f'the CPU of {best.model}')}."]


def _lone(runs: ModelRuns, size: int) -> list[str]:
    """Say for which models silent peers cost CPU: those that need more of it the more there are."""
    least = min(runs.sizes)
    few = {one.model: one.lone_cpu_per_message for one in runs.at(least)}
    ratios = [
        (one.model, one.lone_cpu_per_message / before)
        for one in runs.at(size)
        if one.serves_all and one.lone_cpu_per_message and (before := few.get(one.model))
    ]
    dear = [(model, ratio) for model, ratio in ratios if ratio > GROWN]
    if size == least or not dear:
        return []
    what = f"the CPU that it needs for a message at {counted(least, 'connection')}"
    said = f"{_at(size)}, one of them talking, {_times(dear, what)}"
    return [f"{said}: there the silent ones cost CPU at each message."]


def _partly_served(runs: ModelRuns) -> list[str]:
    """Say which models served only some of their peers."""
    found = []
    for model in runs.models:
        partly = [
            f"{one.served:,} of {one.connections:,}"
            for one in runs.figures
            if one.model == model and one.served is not None and not one.serves_all
        ]
        if partly:
            found.append(f"{model} served {_joined(partly)} peers that were there at once.")
    return found


def _threads(runs: ModelRuns, size: int) -> list[str]:
    many = [one for one in runs.at(size) if (one.threads or 0) > max(size / 2, 4)]
    if not many:
        return []
    needed = sorted({one.threads or 0 for one in many})
    threads = " to ".join(f"{one:,}" for one in (needed[0], needed[-1])[: len(needed)])
    return [f"{_joined(one.model for one in many)} took {threads} threads for {size:,} peers."]


def _busy_idlers(runs: ModelRuns) -> list[str]:
    found = []
    for model in runs.models:
        idle = max((one.idle_cpu or 0.0 for one in runs.figures if one.model == model), default=0.0)
        if idle > 0.5:
            found.append(f"{model} took {_percent(idle)} of a core while nobody talked.")
    return found


def _limited(runs: ModelRuns) -> list[str]:
    """Say where a rate is that of the load."""
    found = []
    for size in runs.sizes:
        limited = [one.model for one in runs.at(size) if one.load_limits]
        if limited:
            found.append(
                f"{_at(size)} the load was the limit with {_joined(limited)}: "
                "there the server could answer faster than the rate shows."
            )
    return found
