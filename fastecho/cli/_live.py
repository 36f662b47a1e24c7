"""What `fastecho bench` shows while it runs: a line, or a table with --live.

What lives here: drawing intervals on standard error, at most twice a second. What may not live
here: measuring; options. All of it happens in the thread that watches, never in a load's.
"""

from __future__ import annotations

import os
import sys
import time

from fastecho.cli._summary import count_text, time_text

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from fastecho.measure.plan import Plan
    from fastecho.measure.result import Interval

    class Shown(Protocol):
        """Something that shows intervals."""

        def interval(self, one: Interval) -> None:
            """Show the latest interval."""

        def clear(self) -> None:
            """Make room for a line of text."""

        def close(self) -> None:
            """Stop showing; idempotent."""


__all__ = ["Line", "Nothing", "Shown", "Table"]

REFRESH_SECONDS = 0.5
"""No two refreshes are nearer to each other: people read no faster."""
ROWS = 12
"""Intervals that the table holds."""


def _cells(one: Interval) -> tuple[str, ...]:
    """Return rate, p50, p99, maximum and failures of an interval."""
    times = [
        "-" if value is None else time_text(value * 1e6) for value in (one.p50, one.p99, one.max)
    ]
    return (count_text(round(one.messages_per_s)), *times, f"{one.failures:,}")


class Nothing:
    """Nobody looks."""

    def interval(self, one: Interval) -> None:
        """Show nothing."""

    def clear(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class _Paced:
    """Lets a drawing through at most twice a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._drawn = float("-inf")

    def __call__(self) -> bool:
        now = self._clock()
        if now - self._drawn < REFRESH_SECONDS:
            return False
        self._drawn = now
        return True


class StatusLine:
    """One line at the bottom of the terminal that is written over."""

    def __init__(self) -> None:
        self._shows = False

    def put(self, text: str) -> None:
        """Write the text over the line, as much of it as has room."""
        self._write(f"\r{text[: self._columns()]}\x1b[K")
        self._shows = True

    def clear(self) -> None:
        """Take the line away."""
        if self._shows:
            self._write("\r\x1b[K")
            self._shows = False

    def _columns(self) -> int:
        try:
            return (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
        except (OSError, ValueError):
            return 79

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):
            pass  # a terminal that is gone is no reason to stop


class Line(StatusLine):
    """The latest interval, on the status line."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._end = "" if plan.duration is None else f" of {plan.duration:g}"
        self._failures = 0
        self._lost: int | None = 0 if plan.udp else None
        self._due = _Paced()

    def interval(self, one: Interval) -> None:
        """Write the latest interval over the line."""
        self._failures += one.failures
        if self._lost is not None:
            self._lost += one.lost or 0
        if not self._due():
            return
        rate, p50, p99, _, _ = _cells(one)
        now = one.start + one.elapsed
        text = f"{now:.3g}{self._end} s  {rate} messages/s  p50 {p50}  p99 {p99}"
        lost = "" if self._lost is None else f"  lost {self._lost:,}"
        self.put(f"{text}  failures {self._failures:,}{lost}")

    def close(self) -> None:
        """Take the line away."""
        self.clear()


class Table:
    """A table of the last intervals, drawn by rich."""

    def __init__(self, plan: Plan) -> None:
        from rich.console import Console
        from rich.live import Live

        self._title = ", ".join(str(one) for one in plan.targets)
        self._lost = plan.udp
        self._rows: list[tuple[str, ...]] = []
        self._due = _Paced()
        self._live = Live(
            self._table(), console=Console(stderr=True), auto_refresh=False, transient=True
        )
        self._live.start()

    def interval(self, one: Interval) -> None:
        """Add a row."""
        lost = (f"{one.lost or 0:,}",) if self._lost else ()
        row = (f"{one.start + one.elapsed:.3g} s", *_cells(one)[:4], *lost, *_cells(one)[4:])
        self._rows = [*self._rows, row][-ROWS:]
        if self._due():
            self._live.update(self._table(), refresh=True)

    def clear(self) -> None:
        """Begin anew: lines of text go above a table by themselves."""
        self._rows = []

    def close(self) -> None:
        """Take the table away."""
        self._live.stop()

    def _table(self) -> Any:
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=Text(self._title))
        lost = ("lost",) if self._lost else ()
        for name in ("time", "messages/s", "p50", "p99", "max", *lost, "failures"):
            table.add_column(name, justify="right")
        for row in self._rows:
            table.add_row(*row, style="red" if row[-1] != "0" else None)
        return table
