"""One HTML page of one or more runs: figures, charts, tables, failures in words.

What lives here: the text of the page. What may not live here: which charts (_graphs.py), how they
look (_charts.py, _style.py), figures that results do not hold. Importing this needs drawsvg, the
extra `report`: docs/decisions/0009-charts.md says why.

The page is one file and loads nothing: its own policy forbids it, scripts included. It is
well-formed XML as well, so that a test can read it. All text from outside (labels, hosts, targets,
what failures say) goes through _text().
"""

from __future__ import annotations

from . import _charts as charts
from ._axes import count_text, time_text
from ._document import clean as _clean
from ._document import document
from ._document import escaped as _text
from ._graphs import by_percentile, graphs
from ._style import CHART
from .datagrams import lines
from .result import FAILURES, Result
from .words import (
    clock_text,
    counted,
    failure_meaning,
    failure_name,
    found_text,
    reopened_text,
    replies_text,
)

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

__all__ = ["page", "picture"]

COLUMNS = (
    ("latency_us", "latency"),
    ("service_us", "service time"),
    ("connect_us", "connect"),
    ("schedule_error_us", "sent late by"),
)
ROWS = ("min", "mean", "stddev", "p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "max")
HEADLINE = ("p50", "p99", "p99.9", "max")
DESCRIBED = 10
"""So many failures are shown one by one."""


class _Run:
    """One result, with the name that the page calls it by."""

    def __init__(self, data: Mapping[str, Any], result: Result, name: str) -> None:
        self.data = data
        self.result = result
        self.name = name

    def figures(self, key: str) -> Mapping[str, Any]:
        """Return a column of figures in microseconds; empty if nothing was measured."""
        name = key.removesuffix("_us")
        histogram = getattr(self.result, name)
        found = self.data.get(key)
        return found if isinstance(found, dict) and histogram and histogram.count else {}


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """Return an HTML page of runs: one shown in full, or several laid over each other.

    The page needs no network and no script, follows the reader's light or dark, and shows values
    where the pointer is. With several runs, the others are compared with the first.

    Args:
        results: one or more, as Result.to_json() gives them.
    Returns:
        str: the whole file; write it as UTF-8. About 150 KB for a run of a minute.
    Raises:
        ValueError: there is no result, or one is not complete; a sentence that says what.
    Thread: any.   Cost: some 0.1 s.
    """
    runs = _runs(results)
    if len(runs) == 1:
        title = runs[0].result.label or f"Echo of {_targets(runs[0])}"
        top = [_headline(runs[0])]
    else:
        title = f"{len(runs)} runs compared"
        top = [_comparison(runs)]
    blocks = [
        f"<h1>{_text(title)}</h1>",
        *([] if len(runs) > 1 else [_asked(runs[0])]),
        *top,
        _all_charts(runs),
        *(_details(run, alone=len(runs) == 1) for run in runs),
    ]
    return document(title, blocks)


def picture(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the chart of latency by percentile as an SVG file of its own, for a document.

    Raises:
        ValueError: there is no result, one is not complete, or none has a reply.
    Thread: any.   Cost: tens of milliseconds.
    """
    runs = _runs(results)
    graph = by_percentile([(run.name, run.result) for run in runs])
    if not graph.lines:
        raise ValueError("there is nothing to draw: no reply came")
    text = charts.chart(
        graph.title, graph.about, graph.lines, graph.x, graph.y, charts.ALONE, "latency", css=CHART
    )
    return text + "\n"


def _runs(results: Sequence[Mapping[str, Any]]) -> list[_Run]:
    """Read results, and give each a name of its own."""
    if not results:
        raise ValueError("there is no result to show")
    read = [Result.from_json(data) for data in results]
    wanted = [_clean(one.label or f"run {n + 1}") for n, one in enumerate(read)]
    names: list[str] = []
    for n, name in enumerate(wanted):
        names.append(name if wanted.count(name) == 1 else f"{name} ({n + 1})")
    return [_Run(*one) for one in zip(results, read, names, strict=True)]


def _targets(run: _Run) -> str:
    return ", ".join(str(one) for one in run.result.plan.targets)


def _bytes_text(value: float) -> str:
    for unit, divisor in (("B", 1.0), ("kB", 1e3), ("MB", 1e6)):
        if value < 999.5 * divisor:
            return f"{value / divisor:.3g} {unit}/s"
    return f"{value / 1e9:,.3g} GB/s"


def _asked(run: _Run) -> str:
    """Say what was run, where and when."""
    result = run.result
    host = ", ".join(str(result.host[key]) for key in ("name", "system") if result.host.get(key))
    if result.host.get("cpus"):
        host += f", {result.host['cpus']} CPU{'' if result.host['cpus'] == 1 else 's'}"
    started = run.data.get("started_at", "")
    if result.parts:
        host = ", ".join(
            dict.fromkeys(str(part["host"]) for part in result.parts if part.get("host"))
        )
    where = f"Started {_text(started)} on {_text(host)}, fastecho {_text(result.version)}."
    return f"<p>{_text(result.plan)}</p>\n<p class='soft'>{where}</p>"


def _headline(run: _Run) -> str:
    """Return the figures that most readers look for, and the verdict on the load itself."""
    result, latency = run.result, run.figures("latency_us")
    cards = [
        ("messages/s", count_text(result.messages_per_s)),
        ("payload", _bytes_text(result.bytes_per_s)),
        *((name, time_text(latency[name])) for name in HEADLINE if name in latency),
    ]
    text = "".join(f"<div><dt>{_text(name)}</dt><dd>{value}</dd></div>" for name, value in cards)
    bad = " class='bad'" if result.failed else ""
    text += f"<div><dt>failures</dt><dd{bad}>{result.failed:,}</dd></div>"
    return f"<dl class='cards'>{text}</dl>\n" + "\n".join(_notes(run))


def _notes(run: _Run) -> list[str]:
    """Return sentences that a reader must know before the figures are believed."""
    result, found = run.result, []
    said = replies_text(result.messages, result.elapsed, result.plan.loop)
    found.append(f"{said[0].upper()}{said[1:]}.")
    wanted = result.plan.rate
    if wanted and result.messages_per_s < wanted * 0.99:
        found.append(
            f"{result.messages_per_s / wanted * 100:.1f} % of the rate that was asked for."
        )
    if result.datagrams is not None:
        found += [f"{one}." for one in lines(result.datagrams, result.sent)]
    if result.held:
        held = counted(result.held, "message")
        found.append(f"{held} had to wait in the generator for a connection.")
    if result.reopened:
        found.append(
            f"{reopened_text(result.reopened)}; {result.gap * 1e3:,.0f} ms "
            f"without, the longest {result.longest_gap * 1e3:,.0f} ms."
        )
    if result.generator.verdict:
        found.append(result.generator.verdict)
    return [f"<p>{_text(one)}</p>" for one in found]


def _comparison(runs: Sequence[_Run]) -> str:
    """Return a table with a row for each run; ratios are to the first."""
    from .compare import FIGURES, compare

    # Placed by hand: compare() leaves out its baseline.
    compared = [None, *compare([run.result for run in runs])]
    head = "".join(f"<th scope='col'>{_text(name)}</th>" for name in ("messages/s", *FIGURES[1:]))
    rows = ""
    for n, (run, beside) in enumerate(zip(runs, compared, strict=True)):
        latency = run.figures("latency_us")
        values = [count_text(run.result.messages_per_s)]
        values += [time_text(latency[name]) if name in latency else "-" for name in FIGURES[1:]]
        cells = ""
        for place, value in enumerate(values):
            small = _ratio_text(beside.figures[place]) if beside else ""
            cells += f"<td>{value}{small}</td>"
        bad = " class='bad'" if run.result.failed else ""
        key = f"<span class='key c{n % charts.COLOURS}'></span>"
        rows += (
            f"<tr><th scope='row'>{key}{_text(run.name)}</th>{cells}"
            f"<td{bad}>{run.result.failed:,}</td></tr>\n"
        )
    notes = "".join(
        f"<li>{_text(one.name)}: {_text(note)}</li>"
        for one in compared
        if one is not None
        for note in one.notes
    )
    return (
        "<p class='soft'>Below each figure: its ratio to that of the first run, and what the ratio "
        "may be (at 99 %, from the intervals).</p>\n<div class='scroll'><table>\n"
        f"<thead><tr><th scope='col'>run</th>{head}<th scope='col'>failures</th></tr></thead>\n"
        f"<tbody>{rows}</tbody></table></div>" + (f"\n<ul>{notes}</ul>" if notes else "")
    )


def _ratio_text(figure: Any) -> str:
    """Return the ratio of a figure, and how sure it is, as small text."""
    if figure.ratio is None:
        return ""
    times = f"<small>&#215; {_times_text(figure.ratio)}</small>"
    if figure.low is None:
        return times
    noise = "<small>within noise</small>" if figure.verdict == "within noise" else ""
    between = f"{_times_text(figure.low)} to {_times_text(figure.high)}"
    return f"{times}<small>{between}</small>{noise}"


def _times_text(ratio: float) -> str:
    """Return a ratio; far from 1 it is not told more closely."""
    if ratio < 0.01:
        return "&lt; 0.01"
    return f"{ratio:.3g}" if ratio < 999.5 else "&gt; 1,000"


def _all_charts(runs: Sequence[_Run]) -> str:
    """Return every chart twice, wide and narrow: the style sheet shows the one that fits."""
    text = ""
    for n, graph in enumerate(graphs([(run.name, run.result) for run in runs])):
        text += f"<section>\n<h2>{_text(graph.title)}</h2>\n"
        for shape in (charts.WIDE, charts.NARROW):
            text += charts.chart(
                graph.title, _clean(graph.about), graph.lines, graph.x, graph.y, shape,
                f"chart{n}{shape.name}",
            ) + "\n"  # fmt: skip
        text += "</section>\n"
        if n == 0 and any(run.result.service is not None for run in runs):
            text += (
                "<p class='soft'>Latency counts from when a message was due, service time from "
                "when it was sent: what lies between is waiting that a closed loop hides.</p>\n"
            )
    return text or "<p>No reply came: there is nothing to draw.</p>"


def _details(run: _Run, *, alone: bool) -> str:
    """Return the tables of one run."""
    blocks = [] if alone else [f"<h2>{_text(run.name)}</h2>", _asked(run), *_notes(run)]
    blocks += [_percentiles(run), _failures(run), _parts(run), _search(run), _load(run)]
    inner = "\n".join(block for block in blocks if block)
    return f"<section>\n{inner}\n</section>"


def _percentiles(run: _Run) -> str:
    columns = [(title, found) for key, title in COLUMNS if (found := run.figures(key))]
    if not columns:
        return ""
    head = "".join(f"<th scope='col'>{_text(title)}</th>" for title, _ in columns)
    rows = ""
    for row in ROWS:
        if any(row in found for _, found in columns):
            cells = "".join(
                f"<td>{time_text(found[row]) if row in found else '-'}</td>" for _, found in columns
            )
            rows += f"<tr><th scope='row'>{row}</th>{cells}</tr>\n"
    return (
        f"<h3>Percentiles</h3>\n<div class='scroll'><table><thead><tr><th scope='col'></th>{head}"
        f"</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


def _failures(run: _Run) -> str:
    """Say in words what failed, and how the first did."""
    counts = {kind: run.result.failures[kind] for kind in FAILURES if run.result.failures[kind]}
    if not counts:
        return "<h3>Failures</h3>\n<p>No message and no connection failed.</p>"
    udp = run.result.plan.udp
    rows = "".join(
        f"<tr><th scope='row'>{failure_name(kind, n)}</th><td class='bad'>{n:,}</td>"
        f"<td style='text-align:left'>{failure_meaning(kind, udp=udp)}</td></tr>\n"
        for kind, n in counts.items()
    )
    text = f"<h3>Failures</h3>\n<div class='scroll'><table><tbody>{rows}</tbody></table></div>"
    described = run.result.described
    if described:
        shown = "".join(f"<li>{_text(one)}</li>\n" for one in described[:DESCRIBED])
        text += f"\n<p>The first of them:</p>\n<ul>{shown}</ul>"
    return text


def _parts(run: _Run) -> str:
    """Return the runs that a merged result was made of."""
    if not run.result.parts:
        return ""
    rows = ""
    for part in run.result.parts:
        name = " ".join(str(part[key]) for key in ("label", "host") if part.get(key))
        if "lost" in part:
            name += f" (lost: {part['lost']})"
        cells = (
            name or "unnamed",
            part.get("started_at") or "-",
            "-" if "lost" in part or "offset_ms" not in part else clock_text(part),
            f"{part.get('messages', 0):,}",
            count_text(part.get("messages_per_s", 0.0)),
        )
        rows += "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>\n"
    titles = ("run", "started", "clock offset", "messages", "messages/s")
    head = "".join(f"<th scope='col'>{title}</th>" for title in titles)
    return (
        "<h3>Merged from</h3>\n<p>Histograms were added.</p>\n<div class='scroll'><table>"
        f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


def _search(run: _Run) -> str:
    """Return what `--find-max` has tried, in order, and what it has found."""
    search = run.result.search
    if search is None:
        return ""
    rows = "".join(
        f"<tr><td>{one['rate_per_s']:,.10g}</td><td>{count_text(one['messages_per_s'])}</td>"
        f"<td style='text-align:left'>{_text(one['why'])}</td></tr>\n"
        for one in search["steps"]
    )
    titles = ("asked, messages/s", "reached", "")
    head = "".join(f"<th scope='col'>{title}</th>" for title in titles)
    said = found_text(search)
    return (
        f"<h3>Search</h3>\n<p>{_text(said[0].upper() + said[1:])}.</p>\n<div class='scroll'><table>"
        f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


def _load(run: _Run) -> str:
    """Say what the load itself took."""
    one = run.result.generator
    if not one.cpu:
        return ""
    spin = ""
    if one.spin and run.result.plan.loop == "open":
        spin = f", {one.spin:.3g} s of it waiting for the next send to be due"
    return f"<h3>Generator</h3>\n<p>Busy {one.busy * 100:.0f} %, {one.cpu:.3g} s of CPU{spin}.</p>"
