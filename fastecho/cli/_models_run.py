"""`fastecho models --run`: the models under one load, as a table, bars, JSON and a page.

What lives here: which servers are started how, progress, the text for people. What may not live
here: measuring (fastecho.measure.model_runs), what the figures mean (measure/model_words.py), the
list of the models (models.py).
"""

from __future__ import annotations

import math
import sys
import time

from fastecho import models
from fastecho.cli import put_line
from fastecho.cli._live import StatusLine
from fastecho.errors import ConfigError
from fastecho.measure import values

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from fastecho.cli._summary import Paint
    from fastecho.measure.model_result import Figures, ModelRuns

__all__ = ["commands_of", "run"]

EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130
CORE = "native"
SIZES = (1, 10, 100, 1000)
DURATION = 3.0
WIDTHS = (11, 8, 8, 8, 10, 6, 8, 8, 15, 6)
"""Columns of each cell after the model's name."""
BAR = 50
"""Columns of the longest bar."""


def run(args: argparse.Namespace, names: list[str]) -> int:
    """Measure these models; return the exit code."""
    from fastecho.cli._local import environment
    from fastecho.cli._outputs import Outputs
    from fastecho.cli._surroundings import let_sigterm_end_it, raise_descriptor_limit
    from fastecho.measure import run as _  # noqa: F401 - the compiled part
    from fastecho.measure.model_words import announced

    sizes = SIZES if args.connections is None else _sizes(args.connections)
    duration = DURATION
    if args.duration is not None:
        found = values.seconds(0.05, 3600)(args.duration, "--duration")
        assert isinstance(found, float)
        duration = found
    outputs = Outputs(args)
    raise_descriptor_limit()
    let_sigterm_end_it()
    from fastecho.measure.model_runs import check_descriptors, longest, measure_models

    check_descriptors(len(names), max(sizes))

    commands = commands_of(names)
    at_most = longest(len(names), len(sizes), duration)
    put_line(announced(len(names), sizes, at_most))
    progress = _Progress(at_most)
    try:
        runs = measure_models(
            commands, sizes, duration=duration, core=CORE, environment=environment(),
            on_progress=progress,
        )  # fmt: skip
    finally:
        progress.clear()
    measured = any(one.turns for one in runs.figures)
    if runs.interrupted and not measured and not any(one.served for one in runs.figures):
        return EXIT_INTERRUPTED
    stream = sys.stderr if outputs.takes_stdout else sys.stdout
    if stream is not None:
        from fastecho.cli._summary import Paint, look_of

        look = look_of(stream)
        stream.write(_text(runs, Paint(color=look["color"]), unicode=look["unicode"]))
        stream.flush()
    outputs.models(runs, {name: models.described(name).breaks for name in names})
    return EXIT_DONE if measured or runs.interrupted else EXIT_FAILED


def commands_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Return what starts a server of each model."""
    from fastecho.cli._local import server_command

    # One that is stopped would not end by SIGTERM.
    return {name: server_command(*_options(name), last_signal="SIGKILL") for name in names}


def _options(name: str) -> list[str]:
    """Return the options of `serve` for a model: one thread each, so that all have one core."""
    words = ["--model", name, "--bind", "127.0.0.1:0", "--log-level", "warning"]
    return [*words, "--threads", "1"] if name == CORE else words


def _sizes(text: str) -> list[int]:
    """Return the numbers of connections that a flag lists, each once, in order."""
    check = values.whole(1, values.MOST_CONNECTIONS)
    found = set()
    for part in text.split(","):
        try:
            size = check(part.strip(), "--connections")
        except ConfigError as error:
            raise ConfigError("--connections", text, error.reason) from None
        assert isinstance(size, int)
        found.add(size)
    return sorted(found)


class _Progress:
    """Says what is done now: on the status line of a terminal, else a line a step."""

    def __init__(self, at_most: float) -> None:
        self._at_most = at_most
        self._began = time.monotonic()
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._line = StatusLine() if is_terminal else None

    def __call__(self, text: str, is_step: bool) -> None:
        if self._line is not None:
            passed = time.monotonic() - self._began
            self._line.put(f"{passed:.0f} s of at most {math.ceil(self._at_most)} s: {text}")
        elif is_step:
            put_line(text)

    def clear(self) -> None:
        """Take the line away."""
        if self._line is not None:
            self._line.clear()


def _text(runs: ModelRuns, paint: Paint, *, unicode: bool) -> str:
    """Return the tables, the bars and what they mean."""
    from textwrap import fill

    from fastecho.measure.model_words import LEGEND, sentences

    blocks = [_table(size, runs.at(size), paint) for size in runs.sizes if runs.at(size)]
    blocks.append(f"{fill(LEGEND, 96)}\n")
    if runs.largest is not None:
        blocks.append(_bars(runs.largest, runs.at(runs.largest), paint, unicode=unicode))
    said = [fill(one, 96, subsequent_indent="  ") for one in sentences(runs)]
    if said:
        blocks.append("\n".join(said) + "\n")
    return "\n".join(blocks)


def _table(size: int, figures: list[Figures], paint: Paint) -> str:
    from textwrap import fill

    from fastecho.cli._summary import time_text
    from fastecho.cli._terminal import printable
    from fastecho.measure.model_words import COLUMNS, cells
    from fastecho.measure.words import counted

    def row(cells: list[str]) -> str:
        return "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))

    room = max(len(one.model) for one in figures)
    text = paint(counted(size, "connection"), "bold") + "\n"
    text += " " * room + row(list(COLUMNS)) + "\n"
    for one in figures:
        if one.served or one.turns:
            text += f"{one.model:<{room}}{row(cells(one, time_text))}\n"
        if one.problem:
            subject = "" if one.served or one.turns else f"{one.model}: "
            said = fill(printable(f"{subject}{one.problem}"), 92)
            indent = "" if subject else "  "
            text += "".join(f"{indent}{paint(line, 'red')}\n" for line in said.split("\n"))
    return text


def _bars(size: int, figures: list[Figures], paint: Paint, *, unicode: bool) -> str:
    """Return a bar for each model: the CPU for each message."""
    from fastecho.cli._bars import bar
    from fastecho.cli._summary import time_text
    from fastecho.measure.words import counted

    known = [(one, one.cpu_per_message) for one in figures if one.cpu_per_message]
    if not known:
        return ""
    most = max(cpu for _, cpu in known)
    names = [
        one.model if one.serves_all else f"{one.model} (serves {one.served:,})" for one, _ in known
    ]
    room = max(map(len, names))
    text = paint(f"CPU for each message, {counted(size, 'connection')}", "bold") + "\n"
    for name, (_, cpu) in zip(names, known, strict=True):
        shown = paint(bar(cpu / most, BAR, unicode=unicode), "cyan")
        text += f"{name:<{room}} {time_text(cpu * 1e6):>9} {shown}\n"
    return text
