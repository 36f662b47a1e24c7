"""One HTML page of several models: what the figures mean, charts by connections, tables.

What lives here: the text and the graphs of the page. What may not live here: the frame of a page
(_document.py), how charts look (_charts.py, _style.py), sentences (model_words.py). Importing this
needs drawsvg, the extra `report`.
"""

from __future__ import annotations

from . import _charts as charts
from ._axes import Axis, count_text, log, time_text
from ._charts import Line
from ._document import document
from ._document import escaped as _text
from ._graphs import Graph
from ._style import CHART
from .model_words import COLUMNS, LEGEND, cells, sentences
from .words import counted

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .model_result import Figures, ModelRuns

__all__ = ["page", "picture"]

TITLE = "I/O models under one load"


def page(runs: ModelRuns, breaks: Mapping[str, str] | None = None) -> str:
    """Return an HTML page of all figures; it needs no network and no script.

    Args:
        runs: what was measured.
        breaks: where each model breaks, by its name.
    Returns:
        str: the whole file; write it as UTF-8.
    Thread: any.   Cost: some 0.1 s.
    """
    said = "\n".join(f"<p>{_text(one)}</p>" for one in sentences(runs))
    return document(
        TITLE,
        [
            f"<h1>{_text(TITLE)}</h1>",
            _asked(runs),
            said,
            _all_charts(runs),
            *(_table(size, runs.at(size)) for size in runs.sizes),
            f"<p class='soft'>{_text(LEGEND)}</p>",
            _breaks(runs, breaks or {}),
        ],
    )


def picture(runs: ModelRuns) -> str:
    """Return the chart of one peer that talks among silent ones as an SVG file, for a document.

    Raises:
        ValueError: nothing was measured.
    Thread: any.   Cost: tens of milliseconds.
    """
    graph = _graphs(runs)[1]
    if not any(height for line in graph.lines for _, height in line.points):
        raise ValueError("there is nothing to draw: no peer was served")
    text = charts.chart(
        graph.title, graph.about, graph.lines, graph.x, graph.y, charts.ALONE, "models", css=CHART
    )
    return text + "\n"


def _asked(runs: ModelRuns) -> str:
    from time import gmtime, strftime

    host = ", ".join(str(runs.host[key]) for key in ("name", "system") if runs.host.get(key))
    cpus = counted(int(runs.host.get("cpus", 1)), "CPU")
    pinned = "; one for the servers, another for the load" if runs.pinned else ""
    started = strftime("%Y-%m-%d %H:%M:%S UTC", gmtime(runs.started_at))
    return (
        f"<p class='soft'>Messages of 64 bytes, closed loop; {runs.duration:g} s for each model "
        f"and size, in turns. Started {_text(started)} on {_text(host)}, {cpus}{pinned}. "
        f"It took {runs.elapsed:.0f} s.</p>"
    )


def _graphs(runs: ModelRuns) -> list[Graph]:
    def chart(
        title: str, value: Callable[[Figures], float | None], text: Callable[[float], str], y: str
    ) -> Graph:
        lines = [
            Line(_name(runs, model), _points(runs, model, value), n)
            for n, model in enumerate(runs.models)
        ]
        heights = [height for line in lines for _, height in line.points if height]
        told = [
            f"{line.name} {text(known[-1])}"
            for line in lines
            if (known := [height for _, height in line.points if height])
        ]
        about = f"{title}, logarithmic; at the most connections: {', '.join(told)}."
        up = log(y, heights, text)
        if text is count_text:  # a million has no room beside the axis
            up.ticks = [(edge, _short(edge) if written else "") for edge, written in up.ticks]
        return Graph(title, about, lines, _connections(runs.sizes), up)

    return [
        chart(
            "CPU of the server for each message, all peers talking",
            lambda one: _us(one.cpu_per_message), time_text, "CPU for each message",
        ),
        chart(
            "CPU of the server for each message, one peer talking and the others silent",
            lambda one: _us(one.lone_cpu_per_message), time_text, "CPU for each message",
        ),
        chart("Rate", lambda one: one.messages_per_s or None, count_text, "messages/s"),
        chart("p99 of the latency", lambda one: _us(one.percentile(99)), time_text, "latency"),
    ]  # fmt: skip


def _short(count: float) -> str:
    """Return a round number with its thousands or millions as a letter."""
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.4g}{letter}"
    return f"{count:.4g}"


def _us(seconds: float | None) -> float | None:
    """Return microseconds; a logarithmic axis has no zero."""
    return seconds * 1e6 if seconds else None


def _name(runs: ModelRuns, model: str) -> str:
    """Return a model's name for a legend; whether it serves but some must be seen there."""
    mine = [one for one in runs.figures if one.model == model and one.served]
    if all(one.serves_all for one in mine):
        return model
    served = {one.served for one in mine}
    return f"{model} (serves {served.pop()})" if len(served) == 1 else f"{model} (serves some)"


def _points(
    runs: ModelRuns, model: str, value: Callable[[Figures], float | None]
) -> list[tuple[float, float | None]]:
    found = {one.connections: value(one) for one in runs.figures if one.model == model}
    return [(size, found.get(size)) for size in sorted(runs.sizes)]


def _connections(sizes: Sequence[int]) -> Axis:
    low, high = min(sizes), max(sizes)
    if low == high:
        return log("connections", [low], count_text)
    ticks = [(float(size), count_text(size)) for size in sorted(sizes)]
    return Axis("connections", low, high, ticks, _connections_text, log=True)


def _connections_text(value: float) -> str:
    return f"{value:,.0f} connection{'' if value == 1 else 's'}"


def _all_charts(runs: ModelRuns) -> str:
    """Return every chart twice, wide and narrow: the style sheet shows the one that fits."""
    text = ""
    for n, graph in enumerate(_graphs(runs)):
        if not any(height for line in graph.lines for _, height in line.points):
            continue
        text += f"<section>\n<h2>{_text(graph.title)}</h2>\n"
        for shape in (charts.WIDE, charts.NARROW):
            text += charts.chart(
                graph.title, graph.about, graph.lines, graph.x, graph.y, shape,
                f"chart{n}{shape.name}",
            ) + "\n"  # fmt: skip
        text += "</section>\n"
    return text


def _table(size: int, figures: Sequence[Figures]) -> str:
    if not figures:
        return ""
    head = "".join(f"<th scope='col'>{_text(name)}</th>" for name in COLUMNS)
    rows = ""
    for one in figures:
        texts = "".join(f"<td>{_text(cell)}</td>" for cell in cells(one, time_text))
        problem = f"<small class='bad'>{_text(one.problem)}</small>" if one.problem else ""
        rows += f"<tr><th scope='row'>{_text(one.model)}{problem}</th>{texts}</tr>\n"
    return (
        f"<h2>{_text(_connections_text(size))}</h2>\n<div class='scroll'><table><thead><tr>"
        f"<th scope='col'>model</th>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


def _breaks(runs: ModelRuns, breaks: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{_text(model)}</th>"
        f"<td style='text-align:left;white-space:normal'>{_text(breaks[model])}</td></tr>\n"
        for model in runs.models
        if model in breaks
    )
    if not rows:
        return ""
    return f"<h2>Where each breaks</h2>\n<table><tbody>{rows}</tbody></table>"
