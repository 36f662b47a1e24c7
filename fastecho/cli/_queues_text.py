"""The queues of listeners and the limits of a machine as text.

Lives here: columns, widths, sparklines, the words of --explain. Does not live here: what is wrong
(fastecho.diagnose).
"""

from __future__ import annotations

from fastecho.diagnose.syn_queue import syn_queue
from fastecho.logs import one_line
from fastecho.measure.words import counted

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fastecho.cli._summary import Paint
    from fastecho.diagnose.limits import Limit
    from fastecho.diagnose.listening import Listening
    from fastecho.diagnose.report import Judged, Report

__all__ = [
    "absent",
    "changes",
    "explained",
    "limit_lines",
    "lines",
    "sentences",
    "sparkline",
    "table",
]

COLUMNS = ("ACCEPT QUEUE", "HIGHEST", "DROPS", "SYN QUEUE", "LISTENER", "PROCESS")
LEFT = ("LISTENER", "PROCESS", "DEPTH")
"""Columns of text; the others are numbers, at the right."""
SPARKS = "▁▂▃▄▅▆▇█"
ASCII_SPARKS = "_.:-=+*#"
PROCESSES = 2
"""So many are named in a line."""


def lines(report: Report, paint: Paint) -> Iterator[str]:
    """Yield the table and what it means."""
    yield from table(report.judged, paint)
    if report.judged:
        yield ""
    yield from sentences(report, paint)


def sentences(report: Report, paint: Paint) -> Iterator[str]:
    """Yield what the table means: what is wrong, what the namespace counted, what was not seen."""
    for one in report.judged:
        if one.verdict is not None:
            now = "red" if one.verdict.is_now else "dim"
            yield paint(f"{_name(one.listening)}: {one.verdict.sentence}", now)
    if not report.problems:
        yield _well(report)
    yield from _namespace(report)
    for sentence in report.missing:
        yield paint(f"not seen: {one_line(sentence)}", "dim")


def _well(report: Report) -> str:
    if not report.judged:
        return "nobody listens"
    if report.seconds == 0:
        return "no accept queue is full; what else happens now, a single look cannot tell"
    return "nothing is wrong"


def changes(report: Report) -> Iterator[str]:
    """Yield a line for each listener where somebody waits or something is wrong; or one for all."""
    said = False
    for one in report.judged:
        found = one.verdict if one.verdict is not None and one.verdict.is_now else None
        if found is None and not one.seen.deepest:
            continue
        said = True
        listening = one.listening
        holds = "?" if listening.holds is None else f"{listening.holds:,}"
        what = f"{_name(listening)}: {listening.depth:,} of {holds}, at most {one.seen.deepest:,}"
        yield f"{what}; {found.sentence}" if found is not None else what
    for place in report.absent:
        said = True
        yield absent(place)
    if not said:
        yield f"{counted(len(report.judged), 'listener')}, nobody waits, nothing is wrong"


def absent(place: str) -> str:
    """Return what is said of a place that was asked for and where nobody listens."""
    return f"{one_line(place)}: nothing listens there"


def table(
    judged: Sequence[Judged], paint: Paint, history: Mapping[int, str] | None = None
) -> Iterator[str]:
    """Yield head and rows; `history`: a sparkline for each inode."""
    if not judged:
        return
    head = COLUMNS if history is None else (*COLUMNS[:1], "DEPTH", *COLUMNS[1:])
    rows = [_cells(one, history) for one in judged]
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    yield paint(_row(head, head, widths), "bold")
    for one, row in zip(judged, rows, strict=True):
        text = _row(head, row, widths)
        yield paint(text, "red") if one.verdict is not None and one.verdict.is_now else text


def _row(head: Sequence[str], row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(
        f"{cell:{'<' if name in LEFT else '>'}{width}}"
        for name, cell, width in zip(head, row, widths, strict=True)
    ).rstrip()


def _cells(one: Judged, history: Mapping[int, str] | None) -> tuple[str, ...]:
    listening = one.listening
    holds = "?" if listening.holds is None else f"{listening.holds:,}"
    drops = "-" if listening.kind == "unix" else "?"
    if listening.drops is not None:
        drops = f"{listening.drops:,}"
        if one.seen.drops_new:
            drops += f" (+{one.seen.drops_new:,})"
    syns = "-"
    if listening.handshakes is not None:
        rule = one.syn_queue
        room = None if rule.holds is None else rule.holds * listening.sharing
        most = "cookies" if room == 0 else "?" if room is None else f"{room:,}"
        syns = f"{listening.handshakes:,} of {most}"
    depth = () if history is None else (history.get(listening.inode, ""),)
    return (
        f"{listening.depth:,} of {holds}",
        *depth,
        f"{one.seen.highest:,}",
        drops,
        syns,
        one_line(listening.address),
        _processes(listening),
    )


def _processes(one: Listening) -> str:
    named = [f"{one_line(name)} ({pid})" for pid, name in one.processes[:PROCESSES]]
    rest = len(one.processes) - len(named)
    if rest:
        named.append(f"{rest} more")
    return ", ".join(named) or "-"


def _name(one: Listening) -> str:
    where = one_line(one.address)
    return f"{where}, {_processes(one)}" if one.processes else where


def _namespace(report: Report) -> Iterator[str]:
    """Say what the counters of the namespace hold, if they hold anything."""
    words = {
        "listen_overflows": ("SYN or ACK", "SYNs and ACKs", "found an accept queue full"),
        "listen_drops": ("packet", "packets", "to listeners dropped for any reason"),
        "syn_queue_drops": ("SYN", "SYNs", "dropped at a full SYN queue"),
        "syn_queue_cookies": ("SYN", "SYNs", "answered by a cookie at a full SYN queue"),
        "cookies_failed": ("cookie", "cookies", "came back wrong"),
    }
    said = []
    for name, (singular, plural, what) in words.items():
        if count := report.counters.get(name):
            new = report.new.get(name)
            noun = singular if count == 1 else plural
            said.append(f"{count:,}{f' (+{new:,})' if new else ''} {noun} {what}")
    if said:
        yield "at all listeners since this network namespace began: " + "; ".join(said)


def sparkline(depths: Iterable[int], holds: int | None, *, unicode: bool) -> str:
    """Return a character for each depth, the highest one for a full queue."""
    depths = list(depths)
    marks = SPARKS if unicode else ASCII_SPARKS
    top = holds or max(*depths, 1)
    steps = len(marks) - 1
    return "".join(marks[min(steps, -(-depth * steps // top))] for depth in depths)


def explained(report: Report, release: str) -> Iterator[str]:
    """Yield how long both queues are: what most tutorials say, what is so today, and here."""
    most, syn = report.settings.get("somaxconn"), report.settings.get("tcp_max_syn_backlog")
    yield f"How long are the two queues of a listener? (Linux {release})"
    yield ""
    yield "accept queue: the handshake is over, the application has not accepted yet"
    yield "  most tutorials  min(backlog, somaxconn)"
    yield "  today           min(backlog, somaxconn) + 1"
    yield f"  this machine    somaxconn = {_known(most)}"
    yield "  when it is full the SYN is dropped, silently: the client sends it again after 1, 2, 3,"
    yield "  4, 5, 7 s and so on, for two minutes. tcp_abort_on_overflow does not change that."
    yield ""
    yield "SYN queue: the handshake has begun"
    yield "  most tutorials  max(64, tcp_max_syn_backlog)"
    rule = syn_queue(most, report.settings)
    yield f"  today           {rule.rule}"
    cookies = _known(report.settings.get("tcp_syncookies"))
    yield f"  this machine    tcp_max_syn_backlog = {_known(syn)}, tcp_syncookies = {cookies}"
    tcp = [one for one in report.judged if one.listening.kind == "tcp"]
    if not tcp:
        return
    yield ""
    yield "                accept queue          SYN queue"
    yield "  backlog*  tutorials   today   tutorials   today  LISTENER"
    for one in tcp:
        limit, holds = one.listening.limit, one.listening.holds
        cells = (
            f"{_known(limit):>10}",
            f"{_known(limit):>9}",
            f"{_known(holds):>6}",
            f"{_known(None if syn is None else max(64, syn)):>10}",
            f"{_known(one.syn_queue.holds):>6}",
        )
        yield f"{'  '.join(cells)}  {one_line(one.listening.address)}"
    yield "  * as far as somaxconn allows"


def _known(value: int | None) -> str:
    return "?" if value is None else str(value)


def limit_lines(found: Iterable[Limit], paint: Paint, width: int) -> Iterator[str]:
    """Yield a block for each limit."""
    from textwrap import wrap

    for one in found:
        yield f"{paint(one.name, 'bold')}: {one_line(one.shown)}"
        for text in (one.meaning, f"to change it: {one.change}"):
            for line in wrap(text, max(width, 40) - 2):
                yield f"  {line}"
