"""A result as text for people: what `bench` prints at its end and `report` for a saved run.

What lives here: the words and columns of one result. What may not live here: reading files and
options, comparing (report.py), any figure that the result does not hold: percentiles come from its
keys or its histograms (fastecho.measure).

A result is the JSON object of a run (docs/reference/measure.md), or an object whose to_json() gives
it. Keys that are missing leave their line out, so that a file of a later version can be shown.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastecho.cli._bars import BLOCKS, bars
from fastecho.cli._terminal import printable
from fastecho.measure.oneway import SERVICES
from fastecho.measure.oneway import rate_text as oneway_text
from fastecho.measure.words import (
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
    from typing import Any, Protocol, TypedDict

    class HasJson(Protocol):
        """What is shown as its dictionary: fastecho.measure.result.Result."""

        def to_json(self) -> dict[str, Any]:
            """Return the JSON object."""

    class Look(TypedDict):
        """How text may look on a stream."""

        color: bool
        unicode: bool
        width: int


__all__ = [
    "PERCENTILES", "Paint", "bytes_text", "count_text", "look_of", "rate_text", "summary",
    "time_text",
]  # fmt: skip

PERCENTILES = ("p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "max")
ROWS = ("min", "mean", "stddev", *PERCENTILES)
COLUMNS = (
    ("latency_us", "latency"),
    ("service_us", "service time"),
    ("connect_us", "connect"),
    ("schedule_error_us", "sent late by"),
)
DESCRIBED = 5
"""So many failures are shown one by one."""
LOOPS = {
    "closed": "closed loop (each connection sends after its reply)",
    "open": "open loop (sent on a schedule, whatever the server does)",
    "reconnect": "reconnect (connect, echo one message, close)",
    "upload": "upload (to a discard server, in one direction)",
    "download": "download (from a chargen server, in one direction)",
}
LEAST_SPIN_SECONDS = 0.001
"""Less is no news: every thread waits so for the start."""
WIDTH = 80
"""Columns where there is no terminal."""
MARGIN = 11
"""Columns before the text of a line."""


class Paint:
    """Colours for a terminal, or none."""

    def __init__(self, *, color: bool) -> None:
        self._color = color

    def __call__(self, text: str, style: str) -> str:
        """Return the text in a style: bold, dim, red, green, yellow or cyan."""
        codes = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}
        return f"\x1b[{codes[style]}m{text}\x1b[0m" if self._color else text


def look_of(stream: object) -> Look:
    """Return what text on a stream may look like: colours on a terminal, if NO_COLOR allows."""
    import os

    terminal = bool(getattr(stream, "isatty", bool)())
    columns = 0
    if terminal:
        try:
            columns = os.get_terminal_size(getattr(stream, "fileno", int)()).columns
        except (OSError, ValueError):
            pass
    return {
        "color": terminal
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb",
        "unicode": _can_show_blocks(getattr(stream, "encoding", None) or "ascii"),
        "width": columns or WIDTH,
    }


def _can_show_blocks(encoding: str) -> bool:
    try:
        BLOCKS.encode(encoding)
    except (LookupError, UnicodeError):
        return False
    return True


def time_text(us: float) -> str:
    """Return a time of so many microseconds with three digits and its unit."""
    for limit, unit, divisor in ((999.5, "us", 1.0), (999.5e3, "ms", 1e3)):
        if us < limit:
            return f"{_digits(us / divisor)} {unit}"
    return f"{_digits(us / 1e6)} s"


def _digits(value: float) -> str:
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def count_text(value: float) -> str:
    """Return a number with its thousands apart; a small one that is not whole keeps 3 digits."""
    return _digits(value) if value < 999.5 and value != int(value) else f"{value:,.0f}"


def rate_text(result: Mapping[str, Any]) -> str:
    """Return messages and bytes per second; of a run in one direction there are bytes alone."""
    if result.get("plan", {}).get("loop") in SERVICES:
        return f"{bytes_text(result.get('bytes_per_s', 0.0))}/s"
    rate = f"{count_text(result.get('messages_per_s', 0.0))} messages/s"
    return f"{rate}, {bytes_text(result.get('bytes_per_s', 0.0))}/s"


def bytes_text(value: float) -> str:
    """Return a number of bytes with three digits and its unit, of decimal thousands."""
    for limit, unit in ((1e3, "B"), (1e6, "kB"), (1e9, "MB")):
        if value < limit * 0.9995:
            return f"{_digits(value / limit * 1e3)} {unit}"
    return f"{_digits(value / 1e9)} GB"


def summary(result: Mapping[str, Any] | HasJson, *, color: bool, unicode: bool, width: int) -> str:
    """Return the text of a result, lines ended by newlines.

    Args:
        result: the JSON object of a run, or a Result.
        color: escape sequences may be used.
        unicode: the output can show block characters; otherwise bars are made of `#`.
        width: columns of the terminal; at least 40 are used.
    """
    run = result if isinstance(result, Mapping) else result.to_json()
    paint = Paint(color=color)
    width = max(width, 40)
    blocks = [
        _head(run, width),
        _rates(run, paint, width),
        _latencies(run, paint),
        _datagrams(run, paint, width),
        _histogram(run, paint, unicode=unicode, width=width),
        _instances(run, width),
        _failures(run, paint, width),
        _generator(run, paint, width),
        _parts(run, width),
        _search(run, width),
    ]
    return "\n".join(block for block in blocks if block)


def _line(name: str, text: str) -> str:
    return f"{name:<{MARGIN}}{text}\n"


def _wrapped(name: str, text: str, width: int) -> str:
    """A line that goes on below itself when it is too long."""
    from textwrap import wrap

    rows = wrap(printable(text), max(width - MARGIN, 30)) or [""]
    return "".join(_line(name if n == 0 else "", row) for n, row in enumerate(rows))


def _head(run: Mapping[str, Any], width: int) -> str:
    """What was run, against whom."""
    plan = run.get("plan", {})
    text = _wrapped("label", str(run["label"]), width) if run.get("label") else ""
    if run.get("started_at"):
        host = run.get("host", {}).get("name", "")
        text += _wrapped("started", f"{run['started_at']}{f' on {host}' if host else ''}", width)
    if plan.get("targets"):
        text += _wrapped("target", ", ".join(map(str, plan["targets"])), width)
    loop = str(plan.get("loop", ""))
    if loop:
        text += _wrapped("loop", LOOPS.get(loop, loop), width)
    load = _load_words(plan)
    return text + (_wrapped("load", load, width) if load else "")


def _load_words(plan: Mapping[str, Any]) -> str:
    """Connections, threads, sizes and so on, in one line."""
    words = []
    if plan.get("rate_per_s"):
        words.append(f"{plan['rate_per_s']:,.10g} messages/s due ({plan.get('schedule')})")
    words += [
        counted(plan[f"{one}s"], one) for one in ("connection", "thread") if f"{one}s" in plan
    ]
    if plan.get("depth", 1) != 1:
        words.append(f"depth {plan['depth']}")
    if plan.get("loop") == "upload":
        words.append(f"sends of {plan.get('size')} bytes")
    elif "size" in plan and plan.get("loop") != "download":
        words.append(f"messages of {plan['size']} byte{'' if plan['size'] == '1' else 's'}")
    if plan.get("frame", "recv") != "recv":
        words.append(f"frame {plan['frame']}")
    if plan.get("idle_connections"):
        words.append(counted(plan["idle_connections"], "idle connection"))
    if plan.get("warmup_s"):
        words.append(f"after {plan['warmup_s']:g} s of warm-up")
    return ", ".join(words)


def _rates(run: Mapping[str, Any], paint: Paint, width: int) -> str:
    text = _line("rate", paint(rate_text(run), "bold"))
    messages, elapsed = run.get("messages", 0), run.get("elapsed_s", 0.0)
    plan = run.get("plan", {})
    loop = str(plan.get("loop", ""))
    if loop in SERVICES:
        text += _line("", oneway_text(loop, run.get("bytes", 0), elapsed, bytes_text))
    else:
        text += _line("", replies_text(messages, elapsed, loop))
    wanted = plan.get("rate_per_s")
    reached = run.get("messages_per_s", 0.0)
    if wanted and reached < wanted * 0.99:
        share = f"{reached / wanted * 100:.1f} % of the rate that was asked for"
        text += _line("", paint(share, "yellow"))
    if run.get("held"):
        text += _line("", f"{counted(run['held'], 'message')} had to wait for a free connection")
    if plan.get("loop") == "reconnect" and run.get("connects"):
        text += _line("", counted(run["connects"], "connect"))
    if run.get("reopened"):
        text += _wrapped(
            "gaps",
            f"{reopened_text(run['reopened'])}; {run.get('gap_ms', 0):,.0f} ms "
            f"without, the longest {run.get('longest_gap_ms', 0):,.0f} ms",
            width,
        )
    return text


def _latencies(run: Mapping[str, Any], paint: Paint) -> str:
    """A column for each histogram, a row for each percentile."""
    reconnects = run.get("plan", {}).get("loop") == "reconnect"
    columns = [
        (title, run[key])
        for key, title in COLUMNS
        if run.get(key) and (key != "connect_us" or reconnects)
    ]
    if not columns or not run.get("messages"):
        return ""
    text = _line("", "".join(paint(f"{title:>14}", "bold") for title, _ in columns))
    for row in ROWS:
        cells = [f"{time_text(one[row]):>14}" if row in one else " " * 14 for _, one in columns]
        if any(row in one for _, one in columns):
            text += _line(row, "".join(cells))
    if run.get("service_us"):
        text += _line("", "latency counts from when a message was due,")
        text += _line("", "service time from when it was sent")
    if (connect := run.get("connect_us")) and not reconnects:
        figures = [
            f"{name} {time_text(connect[name])}" for name in ("p50", "max") if name in connect
        ]
        text += _line("connect", ", ".join(figures))
    return text


def _datagrams(run: Mapping[str, Any], paint: Paint, width: int) -> str:
    """What was lost, doubled and reordered over UDP."""
    counts = run.get("datagrams")
    if not counts:
        return ""
    from fastecho.measure.datagrams import lines

    first, *others = lines(counts, run.get("sent", 0))
    text = _wrapped("datagrams", first, width)
    if counts.get("lost"):
        text = text.replace(first, paint(first, "yellow"))
    return text + "".join(_wrapped("", one, width) for one in others)


def _histogram(run: Mapping[str, Any], paint: Paint, *, unicode: bool, width: int) -> str:
    encoded = run.get("histograms", {}).get("latency")
    if not encoded or not run.get("messages"):
        return ""
    from fastecho.measure.histograms import decode

    values = decode(encoded, run.get("latency_us"))
    most = time_text(values.max / 1e3)  # as in the column above
    rows = bars(values, most=most, unicode=unicode, width=width)
    return "".join(
        f"{label} {paint(bar, 'cyan')}\n" if bar else f"{label}\n" for label, bar in rows
    )


def _instances(run: Mapping[str, Any], width: int) -> str:
    """Who answered, and how much."""
    text = ""
    for name, counts in (run.get("instances") or {}).items():
        messages = counted(counts.get("messages", 0), "message")
        connections = counted(counts.get("connections", 0), "connection")
        row = f"{name or 'others'}: {messages} on {connections}"
        text += _wrapped("" if text else "answered", row, width)
    return text


def _failures(run: Mapping[str, Any], paint: Paint, width: int) -> str:
    counts = {kind: n for kind, n in run.get("failures", {}).items() if n}
    if not counts:
        return _line("failures", paint("none", "green"))
    text = ""
    for kind, n in counts.items():
        meaning = failure_meaning(kind, udp=bool(run.get("datagrams")))
        head = f"{n:,} {printable(failure_name(kind, n))}"
        rows = _wrapped(
            "" if text else "failures", f"{head}: {meaning}" if meaning else head, width
        )
        text += rows.replace(head, paint(head, "red"), 1)
    described = run.get("described", [])
    for one in described[:DESCRIBED]:
        text += _wrapped("", str(one), width)
    if len(described) > DESCRIBED:
        text += _line("", f"... {len(described) - DESCRIBED} more are in the saved result")
    return text


def _generator(run: Mapping[str, Any], paint: Paint, width: int) -> str:
    """What the load itself took, and what that means for the figures."""
    generator = run.get("generator", {})
    text = ""
    if "busy" in generator:
        busy = f"busy {generator['busy'] * 100:.0f} %, {generator.get('cpu_s', 0.0):.3g} s of CPU"
        is_open = run.get("plan", {}).get("loop") == "open"
        if is_open and (spin := generator.get("spin_s", 0.0)) >= LEAST_SPIN_SECONDS:
            busy += f", {spin:.3g} s of it waiting for the next send to be due"
        text += _wrapped("generator", busy, width)
    if generator.get("verdict"):
        rows = _wrapped("" if text else "generator", str(generator["verdict"]), width)
        text += paint(rows.rstrip("\n"), "bold") + "\n"
    return text


def _parts(run: Mapping[str, Any], width: int) -> str:
    """The runs that a merged result was made of."""
    parts = run.get("parts", [])
    if not parts:
        return ""
    lost = sum("lost" in part for part in parts)
    answered = f"{len(parts) - lost:,} of " if lost else ""
    text = _line("merged", f"{answered}{counted(len(parts), 'run')}; their histograms were added")
    for part in parts:
        name = " ".join(str(part[key]) for key in ("label", "host") if part.get(key))
        if "lost" in part:
            text += _wrapped("", f"{name or 'unnamed'}: LOST, {part['lost']}", width)
            continue
        known = part.get("offset_ms") or "offset_uncertain_ms" in part
        offset = f", clock {clock_text(part)}" if known else ""
        text += _wrapped(
            "",
            f"{name or 'unnamed'}: {count_text(part.get('messages_per_s', 0.0))} messages/s, "
            f"{counted(part.get('messages', 0), 'message')}, "
            f"started {part.get('started_at', '?')}{offset}",
            width,
        )
    return text


def _search(run: Mapping[str, Any], width: int) -> str:
    """What `--find-max` has tried, in order, and what it has found."""
    search = run.get("search")
    if not search:
        return ""
    text = _wrapped("search", found_text(search), width)
    for step in search["steps"]:
        text += _wrapped("", f"{step['rate_per_s']:,.10g} messages/s: {step['why']}", width)
    return text
