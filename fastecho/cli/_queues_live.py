"""`fastecho queues --watch`: what is shown while it goes on.

Lives here: a table that changes, drawn by rich, or lines. Does not live here: looking and judging
(fastecho.diagnose), columns (_queues_text.py).
"""

from __future__ import annotations

import sys
import time
from collections import deque

from fastecho.cli import put_line
from fastecho.cli._outputs import STDOUT, write_text
from fastecho.cli._queues_text import absent, changes, sentences, sparkline, table
from fastecho.cli._summary import Paint, look_of
from fastecho.cli._surroundings import let_sigterm_end_it
from fastecho.measure.words import counted

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from rich.console import Group

    from fastecho.diagnose.report import Report

    class Shown(Protocol):
        """Something that shows reports."""

        def report(self, one: Report) -> None:
            """Show the latest."""

        def close(self) -> None:
            """Stop showing; idempotent."""


__all__ = ["run_live"]

HISTORY = 20
"""Intervals of a sparkline."""
LEAST_ROWS = 3
"""Rows of the table, with its head, that are shown whatever else there is to say."""


def run_live(observe: Callable[[], Report], json_path: str | None) -> bool:
    """Observe and show until Ctrl-C; tell whether anything was wrong in any interval.

    observe: takes an interval, and returns what was found in it.
    """
    let_sigterm_end_it()
    had_problems = False
    mode = "w"
    shown: Shown = _Table() if _can_draw(json_path) else _Lines(json_path)
    try:
        while True:
            report = observe()
            had_problems = had_problems or bool(report.problems or report.absent)
            shown.report(report)
            if json_path is not None:
                import json

                write_text(json_path, json.dumps(report.to_json()) + "\n", mode)
                mode = "a"
    except KeyboardInterrupt:
        pass
    finally:
        shown.close()
    return had_problems


def _can_draw(json_path: str | None) -> bool:
    if json_path == STDOUT or not look_of(sys.stdout)["color"]:
        return False
    from importlib.util import find_spec

    return find_spec("rich") is not None


class _Lines:
    """A line for each listener where something happens, and one where nothing does."""

    def __init__(self, json_path: str | None) -> None:
        self._say = put_line if json_path == STDOUT else lambda line: print(line, flush=True)

    def report(self, one: Report) -> None:
        now = time.strftime("%H:%M:%S")
        for line in changes(one):
            self._say(f"{now} {line}")

    def close(self) -> None:
        """Do nothing."""


class _Table:
    """The table, drawn anew after each interval, with the depths of the last ones."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._unicode = look_of(sys.stdout)["unicode"]
        self._depths: dict[int, deque[int]] = {}
        self._rows: list[str] = []
        self._said: list[str] = []
        self._live = Live(console=Console(), auto_refresh=False, screen=True)
        self._live.start()

    def report(self, one: Report) -> None:
        self._depths = {
            judged.listening.inode: self._depths.get(judged.listening.inode)
            or deque[int](maxlen=HISTORY)
            for judged in one.judged
        }
        history = {}
        for judged in one.judged:
            depths = self._depths[judged.listening.inode]
            depths.append(judged.seen.deepest)
            history[judged.listening.inode] = sparkline(
                depths, judged.listening.holds, unicode=self._unicode
            )
        paint = Paint(color=True)
        # Who has something wrong comes first: a screen may be too small for all.
        wrong = {judged.listening.inode for judged in one.problems}
        listed = sorted(one.judged, key=lambda judged: judged.listening.inode not in wrong)
        self._rows = list(table(listed, paint, history))
        self._said = [*map(absent, one.absent), *sentences(one, paint)]
        self._live.update(self._fitted(), refresh=True)

    def _fitted(self) -> Group:
        """Return what fits the screen: all that is said, if that is possible, then rows."""
        from rich.console import Group
        from rich.text import Text

        console = self._live.console
        said = [Text.from_ansi(line, overflow="fold") for line in self._said]
        height = sum(len(text.wrap(console, console.width)) for text in said)
        room = max(console.height - height - 1, LEAST_ROWS)
        rows = self._rows
        if len(rows) > room:
            hidden = len(rows) - room + 1
            rows = [*rows[: room - 1], f"... and {counted(hidden, 'listener')} more"]
        texts = [Text.from_ansi(row, no_wrap=True, overflow="ellipsis") for row in rows]
        return Group(*texts, Text(), *said)

    def close(self) -> None:
        """Leave the last table behind."""
        self._live.stop()
        for line in (*self._rows, "", *self._said):
            print(line)
        self._rows = self._said = []
