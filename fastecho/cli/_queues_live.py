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
from fastecho.cli._queues_text import changes, lines, sparkline
from fastecho.cli._summary import Paint, look_of

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

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


def run_live(observe: Callable[[], Report], json_path: str | None) -> bool:
    """Observe and show until Ctrl-C; tell whether anything was wrong in any interval.

    observe: takes an interval, and returns what was found in it.
    """
    had_problems = False
    mode = "w"
    shown: Shown = _Table() if _can_draw(json_path) else _Lines(json_path)
    try:
        while True:
            report = observe()
            had_problems = had_problems or bool(report.problems)
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
        self._last: list[str] = []
        self._live = Live(console=Console(), auto_refresh=False, screen=True)
        self._live.start()

    def report(self, one: Report) -> None:
        from rich.console import Group
        from rich.text import Text

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
        self._last = list(lines(one, Paint(color=True), history))
        rows = len(one.judged) + 1  # sentences may go on below themselves, rows may not
        texts = [
            Text.from_ansi(line, no_wrap=at < rows, overflow="ellipsis" if at < rows else "fold")
            for at, line in enumerate(self._last)
        ]
        self._live.update(Group(*texts), refresh=True)

    def close(self) -> None:
        """Leave the last table behind."""
        self._live.stop()
        for line in self._last:
            print(line)
        self._last = []
