"""What a run has found, as a plain object: counts and histograms, from which all else is computed.

Lives here: Result, Interval, Generator, and their JSON (docs/reference/measure.md lists its keys).
Does not live here: how it is measured (runner.py), added up or compared (compare.py), how a
histogram becomes text (histograms.py), tables and colours (cli/_summary.py). Attributes are in
seconds; JSON has units in its keys. Percentiles are never stored, only computed.
"""

from __future__ import annotations

from os import urandom

from fastecho._version import __version__
from fastecho.errors import ConfigError, shown

from . import datagrams as of_datagrams
from .instances import add_up, from_json
from .plan import Plan
from .reading import count as _count
from .reading import figures as _figures
from .reading import is_plain as _is_plain
from .reading import part as _part
from .reading import rate as _rate
from .reading import real as _real
from .reading import seconds as _seconds
from .reading import seconds_since_1970 as _seconds_since_1970
from .reading import text as _text
from .reading import utc_text as _utc_text

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Self

    from fastecho._load import Histogram

__all__ = [
    "FAILURES",
    "FAILURES_OF_MESSAGES",
    "FORMAT",
    "HISTOGRAMS",
    "PERCENTILES",
    "Generator",
    "Interval",
    "Result",
]

FORMAT, VERSION = "fastecho-bench", 1

FAILURES = (
    "late",
    "corrupt",
    "misplaced",
    "lost",
    "timed_out",
    "unsent",
    "extra_bytes",
    "reset",
    "closed",
    "refused",
    "connect_timed_out",
    "other",
)
"""The ways to fail."""
FAILURES_OF_MESSAGES = FAILURES[:6]
"""Of these, a message of the window ends as one at most."""
HISTOGRAMS = ("latency", "service", "connect", "schedule_error")
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)


class Interval:
    """What one part of a run has brought.

    Attributes:
        start, elapsed: seconds since the start of the window, and its length.
        messages, bytes: right replies within the timeout that came in it.
        failures: of all kinds together.
        lost: over UDP: datagrams whose timeout ended in it; None over TCP.
        p50, p99, max: seconds; None when no reply came.
        histogram: its latencies as text (histograms.py), or None; kept as text, because an hour
            of them unpacked would not fit. With it, runs are compared and merged exactly. The
            last one holds those of replies that came after the window as well.
    """

    __slots__ = (
        "bytes", "elapsed", "failures", "histogram", "lost", "max", "messages", "p50", "p99",
        "start",
    )  # fmt: skip

    def __init__(
        self,
        start: float,
        elapsed: float,
        *,
        messages: int = 0,
        bytes: int = 0,
        failures: int = 0,
        p50: float | None = None,
        p99: float | None = None,
        max: float | None = None,
        histogram: str | None = None,
        lost: int | None = None,
    ) -> None:
        self.start = start
        self.elapsed = elapsed
        self.messages = messages
        self.bytes = bytes
        self.failures = failures
        self.p50 = p50
        self.p99 = p99
        self.max = max
        self.histogram = histogram
        self.lost = lost

    @property
    def messages_per_s(self) -> float:
        """Right replies a second."""
        return _ratio(self.messages, self.elapsed)

    def to_json(self) -> dict[str, Any]:
        """Return the interval with units in its keys."""
        found = {
            "start_s": round(self.start, 6),
            "elapsed_s": round(self.elapsed, 6),
            "messages": self.messages,
            "bytes": self.bytes,
            "failures": self.failures,
            "p50_us": _us_or_none(self.p50),
            "p99_us": _us_or_none(self.p99),
            "max_us": _us_or_none(self.max),
        }
        if self.lost is not None:
            found["lost"] = self.lost
        return found if self.histogram is None else {**found, "histogram": self.histogram}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the interval that to_json() gave."""
        return cls(
            _seconds(data, "start_s"),
            _seconds(data, "elapsed_s"),
            messages=_count(data, "messages"),
            bytes=_count(data, "bytes"),
            failures=_count(data, "failures"),
            **{
                name: None if data.get(f"{name}_us") is None else _seconds(data, f"{name}_us", 1e6)
                for name in ("p50", "p99", "max")
            },
            histogram=None if data.get("histogram") is None else _text(data, "histogram"),
            lost=None if data.get("lost") is None else _count(data, "lost"),
        )

    def __repr__(self) -> str:
        return f"<Interval {self.to_json()}>"


class Generator:
    """What the load itself took.

    Attributes:
        busy: share of its time that the busiest thread worked, 0..1, without polling ahead of
            sends that were nearly due.
        cpu: seconds of CPU of all threads; spin: of these, seconds of such polling.
        verdict: a sentence: whose limit the figures show.
    """

    __slots__ = ("busy", "cpu", "spin", "verdict")

    def __init__(
        self, busy: float = 0.0, cpu: float = 0.0, spin: float = 0.0, verdict: str = ""
    ) -> None:
        # As in a file: every text rounds the same number then.
        self.busy = round(busy, 4)
        self.cpu = cpu
        self.spin = spin
        self.verdict = verdict

    def to_json(self) -> dict[str, Any]:
        """Return the values with units in their keys."""
        return {
            "busy": self.busy,
            "cpu_s": round(self.cpu, 6),
            "spin_s": round(self.spin, 6),
            "verdict": self.verdict,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return what to_json() gave."""
        return cls(
            _real(data, "busy", low=0),
            _seconds(data, "cpu_s"),
            _seconds(data, "spin_s"),
            _text(data, "verdict"),
        )

    def __repr__(self) -> str:
        return f"<Generator {self.to_json()}>"


class Result:
    """What one run, or several that were merged, have found.

    Attributes:
        plan: what was asked for.
        label: the name of the run.
        started_at: when the window began, in seconds since 1970 (UTC).
        host: name, system and number of CPUs of the machine of the load.
        elapsed: seconds of the window.
        messages: right replies within the timeout.
        messages_in_window: right replies that came within the window, those to messages of the
            warm-up included; bytes: of these. What the rates count.
        sent: messages given to a connection; connects: connections established.
        held: open loop: messages that waited because every connection had `depth` outstanding.
        failures: a count for each name in FAILURES.
        described: the first few failures, a sentence each.
        datagrams: over UDP: how many were lost, late (of these, answered after the timeout),
            duplicates, reordered, not_sent, and overflows (replies dropped at our own sockets);
            none is a failure. None over TCP.
        reopened: lost connections that answered again; gap, longest_gap: seconds until then, of
            all together and of the longest.
        latency, service, connect, schedule_error: histograms of nanoseconds, or None.
        intervals: one for each part of the window.
        generator: what the load itself took.
        instances: by name of each instance of the server that answered, `connections` and
            `messages`; "" are those beyond 256 names. None: nobody asked who answers.
        parts: after a merge, where each part came from.
        run: an id that no other run has, by which a run is known that would be merged twice; of a
            merged result, its parts have those of the runs.
        search: of a run that `--find-max` has found and saved: limit, rate_per_s and steps, as in
            JSON; else None.
        interrupted: Ctrl-C ended the window early; not saved.
    """

    __slots__ = (
        "bytes", "connect", "connects", "datagrams", "described", "elapsed", "failures", "gap",
        "generator", "held", "host", "instances", "interrupted", "intervals", "label", "latency",
        "longest_gap", "messages", "messages_in_window", "parts", "plan", "reopened", "run",
        "schedule_error", "search", "sent", "service", "started_at", "version",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        *,
        label: str | None = None,
        started_at: float = 0.0,
        host: Mapping[str, Any] | None = None,
        elapsed: float = 0.0,
        messages: int = 0,
        messages_in_window: int | None = None,
        bytes: int = 0,
        sent: int = 0,
        connects: int = 0,
        held: int = 0,
        failures: Mapping[str, int] | None = None,
        datagrams: Mapping[str, int] | None = None,
        described: Iterable[str] = (),
        reopened: int = 0,
        gap: float = 0.0,
        longest_gap: float = 0.0,
        latency: Histogram | None = None,
        service: Histogram | None = None,
        connect: Histogram | None = None,
        schedule_error: Histogram | None = None,
        intervals: Iterable[Interval] = (),
        generator: Generator | None = None,
        instances: Mapping[str, Mapping[str, int]] | None = None,
        parts: Iterable[Mapping[str, Any]] = (),
        run: str | None = None,
        search: Mapping[str, Any] | None = None,
        version: str = __version__,
    ) -> None:
        self.plan = plan
        self.label = plan.label if label is None else label
        self.started_at = started_at
        self.host = dict(host or {})
        self.elapsed = elapsed
        self.messages = messages
        self.messages_in_window = messages if messages_in_window is None else messages_in_window
        self.bytes = bytes
        self.sent = sent
        self.connects = connects
        self.held = held
        self.failures = {**dict.fromkeys(FAILURES, 0), **(failures or {})}
        self.datagrams = None if datagrams is None else dict(datagrams)
        self.described = list(described)
        self.reopened = reopened
        self.gap = gap
        self.longest_gap = longest_gap
        self.latency = latency
        self.service = service
        self.connect = connect
        self.schedule_error = schedule_error
        self.intervals = list(intervals)
        self.generator = generator or Generator()
        self.instances = None if instances is None else add_up([instances])
        self.parts = [dict(one) for one in parts]
        self.run = urandom(8).hex() if run is None else run
        self.search = None if search is None else dict(search)
        self.version = version
        self.interrupted = False

    @property
    def messages_per_s(self) -> float:
        """Right replies a second, within the window."""
        return _ratio(self.messages_in_window, self.elapsed)

    @property
    def bytes_per_s(self) -> float:
        """Bytes of right replies a second, within the window."""
        return _ratio(self.bytes, self.elapsed)

    @property
    def failed(self) -> int:
        """Failures of all kinds together; 0: everything came back right."""
        return sum(self.failures.values())

    @property
    def lost_percent(self) -> float | None:
        """Of the datagrams that were sent, those without a reply in time; None over TCP."""
        if self.datagrams is None:
            return None
        return of_datagrams.lost_percent(self.datagrams, self.sent)

    def percentile(self, percent: float, name: str = "latency") -> float | None:
        """Return the seconds that about so many percent (0..100) of a histogram do not exceed.

        Its rank is rounded to the nearest value: docs/reference/measure.md says how exactly.
        None if there is no such histogram, or nothing in it.
        """
        histogram = getattr(self, name) if name in HISTOGRAMS else None
        if histogram is None or not histogram.count:
            return None
        return float(histogram.percentile(percent)) / 1e9

    def to_json(self) -> dict[str, Any]:
        """Return everything as a plain dict for json.dumps; the keys carry their units."""
        from .histograms import encode

        found: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "fastecho": self.version,
            "run": self.run,
            "label": self.label,
            "started_at": _utc_text(self.started_at),
            "host": dict(self.host),
            "plan": self.plan.to_json(),
            "elapsed_s": round(self.elapsed, 9),
            "messages": self.messages,
            "messages_in_window": self.messages_in_window,
            "messages_per_s": round(self.messages_per_s, 3),
            "bytes": self.bytes,
            "bytes_per_s": round(self.bytes_per_s, 3),
            "sent": self.sent,
            "connects": self.connects,
            "held": self.held,
            "failures": dict(self.failures),
            "datagrams": of_datagrams.to_json(self.datagrams, self.sent),
            "described": list(self.described),
            "reopened": self.reopened,
            "gap_ms": round(self.gap * 1e3, 6),
            "longest_gap_ms": round(self.longest_gap * 1e3, 6),
        }
        present = {name: getattr(self, name) for name in HISTOGRAMS}
        for name, histogram in present.items():
            found[f"{name}_us"] = None if histogram is None else _percentiles(histogram)
        found["histograms"] = {
            name: encode(histogram) for name, histogram in present.items() if histogram is not None
        }
        found["intervals"] = [one.to_json() for one in self.intervals]
        found["generator"] = self.generator.to_json()
        found["instances"] = self.instances
        found["parts"] = [dict(one) for one in self.parts]
        if self.search is not None:
            found["search"] = dict(self.search)
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the result that to_json() gave, of this version or a later one of the format.

        Raises:
            ValueError: it is no such result, or a part of it is broken; a sentence that says which.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError("is not a result of fastecho bench")
        if data.get("version") != VERSION:
            raise ValueError(f"has version {shown(data.get('version'))}: this reads {VERSION}")
        try:
            return cls(**_keywords(data))
        except ConfigError as error:
            raise ValueError(f"has a plan that is not valid: {error}") from None
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"is not a complete result: {error}") from None

    def __str__(self) -> str:
        """Return a summary of a few lines."""
        return "\n".join(_lines(self))

    def __repr__(self) -> str:
        return f"<Result {'; '.join(_lines(self))}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the summary as lines in a notebook (IPython asks for it)."""
        printer.text("..." if cycle else str(self))


def _keywords(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Result takes, from its JSON."""
    from .histograms import decode

    label = _text(data, "label")
    histograms = _part(data, "histograms", dict)
    parts = [_origin(one) for one in _part(data, "parts", list)]
    return {
        "plan": Plan.from_json(_part(data, "plan", dict), label=label, merged=bool(parts)),
        "label": label,
        "started_at": _seconds_since_1970(data.get("started_at")),
        "host": {k: v for k, v in _part(data, "host", dict).items() if _is_plain(v)},
        "elapsed": _seconds(data, "elapsed_s"),
        "messages": _count(data, "messages"),
        "messages_in_window": _count(
            data, "messages_in_window" if "messages_in_window" in data else "messages"
        ),
        **{name: _count(data, name) for name in ("bytes", "sent", "connects", "held", "reopened")},
        "failures": {name: _count(_part(data, "failures", dict), name) for name in FAILURES},
        "described": [
            _text({"described": one}, "described") for one in _part(data, "described", list)
        ],
        "datagrams": of_datagrams.from_json(data.get("datagrams")),
        "gap": _seconds(data, "gap_ms", 1e3),
        "longest_gap": _seconds(data, "longest_gap_ms", 1e3),
        **{
            name: decode(histograms[name], _figures(data, name))
            for name in HISTOGRAMS
            if name in histograms
        },
        "intervals": [Interval.from_json(one) for one in _part(data, "intervals", list)],
        "generator": Generator.from_json(_part(data, "generator", dict)),
        "instances": from_json(data.get("instances")),
        "parts": parts,
        "run": _text(data, "run"),
        "search": None if data.get("search") is None else _search(_part(data, "search", dict)),
        "version": _text(data, "fastecho"),
    }


def _origin(data: object) -> dict[str, Any]:
    """Return one of the parts of a merged result."""
    if not isinstance(data, dict):
        raise ValueError(f"has {shown(data)} for a part: it must be an object")
    found: dict[str, Any] = {
        "label": _text(data, "label"),
        **{name: _text(data, name) for name in ("host", "started_at") if name in data},
        **({"offset_ms": _real(data, "offset_ms")} if "offset_ms" in data else {}),
        "messages": _count(data, "messages"),
        "messages_per_s": _rate(data, "messages_per_s"),
    }
    if "offset_uncertain_ms" in data:
        found["offset_uncertain_ms"] = _real(data, "offset_uncertain_ms", low=0)
    for name in ("run", "lost"):
        if name in data:
            found[name] = _text(data, name)
    return found


def _search(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the search has found that a run was a step of."""
    rate = data.get("rate_per_s")
    steps = _part(data, "steps", list)
    if not all(isinstance(one, dict) for one in steps):
        raise ValueError("has a step of a search that is no object")
    return {
        "limit": _text(data, "limit"),
        "rate_per_s": None if rate is None else _rate(data, "rate_per_s"),
        "steps": [
            {
                "rate_per_s": _rate(one, "rate_per_s"),
                "messages_per_s": _rate(one, "messages_per_s"),
                "holds": one.get("holds") is True,
                "why": _text(one, "why"),
            }
            for one in steps
        ],
    }


def _ratio(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def _us_or_none(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e6, 3)


def _percentiles(histogram: Histogram) -> dict[str, float]:
    """Return a histogram's figures in microseconds."""
    found = {
        "min": histogram.min,
        "mean": histogram.mean,
        "stddev": histogram.stddev,
        **{f"p{percent:g}": histogram.percentile(percent) for percent in PERCENTILES},
        "max": histogram.max,
    }
    return {name: round(ns / 1e3, 3) for name, ns in found.items()}


def _lines(result: Result) -> list[str]:
    """Return a summary for a notebook: rate, latency, failures, verdict."""
    name = f"{result.label}: " if result.label else ""
    targets = ", ".join(str(one) for one in result.plan.targets)
    rates = f"{result.messages_per_s:,.0f} messages/s, {result.bytes_per_s / 1e6:,.3g} MB/s"
    loop = f"{result.plan.loop} loop"
    if result.plan.is_one_way:
        loop, rates = result.plan.loop, rates.partition(", ")[2]
    lines = [f"{name}{targets}, {loop}, {result.elapsed:.3g} s: {rates}"]
    for title in HISTOGRAMS:
        histogram = getattr(result, title)
        if histogram is not None and histogram.count:
            figures = [
                f"p{percent:g} {histogram.percentile(percent) / 1e3:,.4g}"
                for percent in (50.0, 99.0, 99.9)
            ]
            figures.append(f"max {histogram.max / 1e3:,.4g}")
            lines.append(f"{title.replace('_', ' ')} in us: {', '.join(figures)}")
    if result.datagrams is not None:
        lines += of_datagrams.lines(result.datagrams, result.sent)
    counts = [f"{name} {count:,}" for name, count in result.failures.items() if count]
    lines.append(f"failures: {', '.join(counts) or 'none'}")
    if result.generator.verdict:
        lines.append(result.generator.verdict)
    return lines
