"""A figure: what was measured, its table, and the bars with their verdicts. Data only.

Figures are made in benchmarks/figures, printed by _report.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks._ratios import Bar, Summary, Verdict

Cell = Summary | float | str | None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    # the key in the JSON form; it carries the unit
    key: str
    header: str
    # how a number is written, as format() takes it; not used for text
    spec: str = ""
    # show the quartiles of a summary
    spread: bool = False


@dataclass(slots=True)
class Table:
    """Rows of cells, found by the keys of the columns."""

    columns: Sequence[Column]
    rows: list[dict[str, Cell]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """One quantity that a figure is about, most often with a bar."""

    # the quantity: "rate / best C (C 64K)"
    what: str
    # None: it is shown for the reader
    bar: Bar | None
    # None when it could not be measured; then `why` says so
    measured: Summary | None
    # what the program shows against itself: a share of 1, or in the bar's unit
    noise: float | None
    # None without a bar
    verdict: Verdict | None
    why: str = ""
    # how a number is written
    spec: str = ".3f"


@dataclass(slots=True)
class Figure:
    """Everything that one figure shows."""

    # as --only takes it
    name: str
    title: str
    table: Table
    results: list[Result] = field(default_factory=list)
    # sentences under the table
    notes: list[str] = field(default_factory=list)
