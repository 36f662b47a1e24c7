"""Print figures for people and write them as JSON. No measuring, no judging.

JSON keys carry their units. A figure's results are under "results", each with its bar, its
median, its quartiles, the interval of its median, its noise and its verdict.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from benchmarks._figures import Cell, Column, Figure, Result
from benchmarks._ratios import Summary


def number(value: float, spec: str) -> str:
    """Return `value` as text."""
    return format(value, spec)


def spread(summary: Summary, spec: str) -> str:
    """Return the median and the quartiles as text."""
    quartiles = f"[{number(summary.q1, spec)} {number(summary.q3, spec)}]"
    return f"{number(summary.median, spec)} {quartiles}"


def cell(value: Cell, column: Column) -> str:
    """Return a cell as text."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, Summary):
        if column.spread:
            return spread(value, column.spec)
        return number(value.median, column.spec)
    return number(value, column.spec)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines: the first column to the left, the others to the right."""
    widths = [max(len(text) for text in column) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    for row in rows:
        parts = [row[0].ljust(widths[0])]
        parts += [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  " + "  ".join(parts).rstrip())
    return lines


def result_row(result: Result) -> list[str]:
    """Return the texts of one result."""
    noise = "-" if result.noise is None else number(result.noise, result.spec)
    return [
        result.what,
        "-" if result.bar is None else str(result.bar),
        "-" if result.measured is None else spread(result.measured, result.spec),
        noise,
        result.verdict or "for the reader",
    ]


def print_figure(figure: Figure, out: TextIO) -> None:
    """Print the table, the bars and the notes of one figure."""
    columns = figure.table.columns
    rows = [[column.header for column in columns]]
    rows += [[cell(row.get(one.key), one) for one in columns] for row in figure.table.rows]
    print(f"\n{figure.name}: {figure.title}", file=out)
    print("\n".join(aligned(rows)), file=out)
    if figure.results:
        head = ["ratio or quantity", "bar", "median [quartiles]", "noise", "verdict"]
        print(file=out)
        lines = aligned([head, *map(result_row, figure.results)])
        print("\n".join(lines), file=out)
    for why in sorted({result.why for result in figure.results if result.why}):
        print(f"  not measured: {why}", file=out)
    for note in figure.notes:
        print(f"  note: {note}", file=out)
    out.flush()


def print_head(environment: Mapping[str, str], doubts: Sequence[str], out: TextIO) -> None:
    """Print what stands above all figures."""
    for name, value in environment.items():
        print(f"{name.replace('_', ' ')}: {value}", file=out)
    for doubt in doubts:
        print(f"doubt: {doubt}", file=out)
    out.flush()


def print_sum(figures: Sequence[Figure], failed: Sequence[str], out: TextIO) -> None:
    """Print how many bars were met, every one that was not, and what could not be measured."""
    judged = [(figure, result) for figure in figures for result in figure.results if result.bar]
    met = [one for _, one in judged if one.verdict in ("met", "met within the noise")]
    print(f"\n{len(met)} of {len(judged)} bars met", file=out)
    for figure, result in judged:
        if result.verdict not in ("met", "met within the noise"):
            measured = "-" if result.measured is None else spread(result.measured, result.spec)
            print(
                f"  {result.verdict}: {figure.name}: {result.what}: {measured}, bar {result.bar}",
                file=out,
            )
    for sentence in failed:
        print(f"  failed: {sentence}", file=out)
    out.flush()


def summary_json(summary: Summary) -> dict[str, float | int]:
    """Return a summary for JSON."""
    return {
        "median": summary.median,
        "q1": summary.q1,
        "q3": summary.q3,
        "median_low": summary.low,
        "median_high": summary.high,
        "count": summary.count,
    }


def figure_json(figure: Figure) -> dict[str, Any]:
    """Return one figure for JSON."""
    rows = [
        {
            key: summary_json(value) if isinstance(value, Summary) else value
            for key, value in row.items()
        }
        for row in figure.table.rows
    ]
    results = [
        {
            "what": result.what,
            "bar": None
            if result.bar is None
            else {
                "side": result.bar.side,
                "value": result.bar.value,
                "unit": result.bar.unit or "ratio",
            },
            "measured": None if result.measured is None else summary_json(result.measured),
            "noise": result.noise,
            "verdict": result.verdict,
        }
        for result in figure.results
    ]
    return {
        "name": figure.name,
        "title": figure.title,
        "rows": rows,
        "results": results,
        "notes": figure.notes,
    }


def write_json(
    environment: Mapping[str, str], doubts: Sequence[str], figures: Sequence[Figure], path: str
) -> None:
    """Write everything to the file `path`, or to stdout if it is "-"."""
    document = {
        "environment": dict(environment),
        "doubts": list(doubts),
        "figures": [figure_json(figure) for figure in figures],
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if path == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
