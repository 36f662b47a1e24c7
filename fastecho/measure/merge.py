"""Several runs of one plan as one result: counts and histograms are added, nothing is averaged.

Lives here: which runs may be added up, how their windows lie to each other, and the sum. Does not
live here: comparing runs (compare.py), reading files (cli/report.py).

Runs that went on at the same time (on several machines) are one larger run: what all of them got
is divided by the longest window, so rates of windows of one length add up. Runs that followed one
another are one longer run: their times add up. Anything between the two has no rate, and is
refused.
"""

from __future__ import annotations

from itertools import pairwise

from fastecho.errors import shown

from .datagrams import add_up as add_up_datagrams
from .instances import add_up as add_up_instances
from .plan import ADDED
from .reading import MOST
from .result import FAILURES, HISTOGRAMS, Generator, Interval, Result
from .values import seconds_text

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from fastecho._load import Histogram

    from .plan import Plan

__all__ = ["add_up", "copies", "differences", "merge", "name_of"]

MAY_DIFFER = ("targets", "label", "threads", "seed", "sources")
"""Of a plan: what does not change which load it is."""
TOGETHER = 0.9
"""Of the shorter run: so much must overlap when two went on at the same time."""
DESCRIBED = 20
"""So many failures are described in a merged result."""


def merge(results: Sequence[Result], *, label: str = "", started_together: bool = False) -> Result:
    """Return one result that holds everything that these hold.

    Args:
        results: one or more, of plans that differ in targets, label, threads, seed and sources at
            most; all at the same time, or one after the other.
        label: of the merged result; "" takes the one that all share.
        started_together: they are of one time, also where one of them began late.
    Returns:
        Result: its `parts` name each run, with host, start, offset and rate. The steps of a search
        (`--find-max`) are left out.
    Raises:
        ValueError: there is none, two hold the same run, they are not runs of one load (names what
            differs), or their counts are too large to be added up.
    Thread: any.   Cost: below 1 ms for each result, and for each of its intervals.
    """
    if not results:
        raise ValueError("there is no result to merge")
    if (found := copies(results)) is not None:
        names = " and ".join(name_of(results[n]) for n in found)
        raise ValueError(f"{names} hold the same run: it would be counted twice")
    first = results[0]
    for other in results[1:]:
        _check_load(first, other)
    ordered = sorted(results, key=lambda one: one.started_at)
    together = started_together or _are_together(ordered)
    labels = {one.label for one in results}
    label = label or (first.label if len(labels) == 1 else "")
    sums: dict[str, Any] = {name: _sum(getattr(one, name) for one in results) for name in _COUNTS}
    for name in HISTOGRAMS:
        sums[name] = _histogram(getattr(one, name) for one in results)
    return Result(
        _plan(results, together=together, label=label),
        label=label,
        started_at=ordered[0].started_at,
        host=_host(results),
        elapsed=(max if together else _sum)(one.elapsed for one in results),
        failures={kind: _sum(one.failures[kind] for one in results) for kind in FAILURES},
        datagrams=add_up_datagrams(one.datagrams for one in results),
        described=_described(results),
        gap=_sum(one.gap for one in results),
        longest_gap=max(one.longest_gap for one in results),
        intervals=_beside(ordered) if together else _behind(ordered),
        generator=_generator(results),
        instances=_instances(results),
        parts=[part for one in results for part in _parts(one)],
        **sums,
    )


_COUNTS = ("messages", "messages_in_window", "bytes", "sent", "connects", "held", "reopened")


def copies(results: Sequence[Result]) -> tuple[int, int] | None:
    """Return the places of two results that hold the same run; None: there are none.

    A run is known by its id, also as a part of a merged result. Files without ids tell nothing.
    """
    places: dict[str, int] = {}
    for n, one in enumerate(results):
        for part in _parts(one):
            if (run := part.get("run")) and places.setdefault(run, n) != n:
                return places[run], n
    return None


def _check_load(one: Result, other: Result) -> None:
    """Refuse to add up runs of different loads."""
    besides: list[str] = []
    if one.parts or other.parts:
        # A merged run has the connections and so on of all its parts; a closed loop has no rate.
        plans = one.plan, other.plan
        besides = [name for name in ADDED if len({getattr(x, name) is None for x in plans}) == 1]
    if different := differences(one.plan, other.plan, besides=besides):
        raise ValueError(
            f"{name_of(one)} and {name_of(other)} are runs of different loads: "
            f"{'; '.join(different)}"
        )


def _sum(values: Iterable[Any]) -> Any:
    total = sum(values)
    if total >= MOST:
        raise ValueError("their counts are too large to be added up")
    return total


def differences(one: Plan, other: Plan, *, besides: Sequence[str] = ()) -> list[str]:
    """Return what makes two plans different loads, a few words each: "depth 1 and 16"."""
    mine, theirs = one.keywords(), other.keywords()
    return [
        f"{name.replace('_', ' ')} {_plain(name, mine[name])} and {_plain(name, theirs[name])}"
        for name in mine
        if name not in (*MAY_DIFFER, *besides) and mine[name] != theirs[name]
    ]


def _plain(name: str, value: object) -> str:
    """Return the value of an option with its unit."""
    if value is None:
        return "none"
    if isinstance(value, float):  # the others are times
        return f"{value:,.10g} messages/s" if name == "rate" else seconds_text(value)
    if not isinstance(value, str) or not value:
        return shown(value)
    return f"{value} bytes" if name == "size" else value


def name_of(result: Result) -> str:
    """Return what a reader knows a run by: its label, its host, or when it began."""
    host = str(result.host.get("name", ""))
    if result.label:
        return f"{result.label} ({host})" if host else result.label
    from .reading import utc_text

    return f"{host or 'the run'} of {utc_text(result.started_at)}"


def _are_together(ordered: Sequence[Result]) -> bool:
    """Tell whether runs, sorted by their start, went on at the same time; False: in turn."""
    pairs = list(pairwise(ordered))
    if all(_common(a, b) <= 0.01 * min(a.elapsed, b.elapsed) for a, b in pairs) and pairs:
        return False
    for n, one in enumerate(ordered):
        for other in ordered[n + 1 :]:
            common, shorter = _common(one, other), min(one.elapsed, other.elapsed)
            if common < TOGETHER * shorter:
                raise ValueError(
                    f"{name_of(one)} and {name_of(other)} overlap for {max(common, 0):.3g} of "
                    f"{shorter:.3g} s: they ran neither at the same time nor in turn"
                )
    return True


def _common(one: Result, other: Result) -> float:
    """Return the seconds for which two windows overlap; negative: the pause between them."""
    end = min(one.started_at + one.elapsed, other.started_at + other.elapsed)
    return end - max(one.started_at, other.started_at)


def _plan(results: Sequence[Result], *, together: bool, label: str) -> Plan:
    plan = results[0].plan
    targets = list(dict.fromkeys(one for result in results for one in result.plan.targets))
    sums: dict[str, Any] = {}
    if together:
        for name in ADDED:
            values = [getattr(one.plan, name) for one in results]
            sums[name] = None if values[0] is None else _sum(values)
    return plan.with_sums(sums, targets=targets, label=label)


def _host(results: Sequence[Result]) -> dict[str, Any]:
    hosts = [one.host for one in results]
    if all(host == hosts[0] for host in hosts):
        return dict(hosts[0])
    different = {str(host.get("name", "")): host for host in hosts}
    systems = {str(host.get("system", "")) for host in hosts}
    return {
        "name": ", ".join(different),
        "system": systems.pop() if len(systems) == 1 else "",
        "cpus": sum(n for host in different.values() if isinstance(n := host.get("cpus"), int)),
    }


def _described(results: Sequence[Result]) -> list[str]:
    """Return the first failures of each, in turn, with the name of the run."""
    several = len(results) > 1
    longest = max(len(one.described) for one in results)
    found = [
        f"{name_of(one)}: {one.described[n]}" if several else one.described[n]
        for n in range(longest)
        for one in results
        if n < len(one.described)
    ]
    return found[:DESCRIBED]


def _histogram(parts: Iterable[Histogram | None]) -> Histogram | None:
    """Return the sum of histograms; None if there is none."""
    present = [part for part in parts if part is not None]
    if not present:
        return None
    from fastecho._load import Histogram

    total = Histogram()
    for part in present:
        total.merge(part)
    return total


def latencies_of(intervals: Iterable[Interval]) -> Histogram | None:
    """Return the sum of the histograms of intervals; None if one that had replies has none."""
    from fastecho._load import Histogram

    from .histograms import decode

    total = Histogram()
    for one in intervals:
        if one.histogram is not None:
            figures = {} if one.max is None else {"max": one.max * 1e6}
            total.merge(decode(one.histogram, figures))
        elif one.messages:
            return None
    return total


def _beside(results: Sequence[Result]) -> list[Interval]:
    """Return the intervals of runs that went on together, added up one by one."""
    longest = max((one.intervals for one in results), key=len)
    return [
        add_up([one.intervals[n] for one in results if n < len(one.intervals)])
        for n in range(len(longest))
    ]


def add_up(parts: Sequence[Interval]) -> Interval:
    """Return one interval that holds all of these; percentiles only if histograms are there.

    The intervals are of the same time, of loads that ran together; at least one.
    """
    if len(parts) == 1:
        return parts[0]

    total = latencies_of(parts)
    text = p50 = p99 = None
    if total is not None and total.count:
        from .histograms import encode

        text = encode(total)
        p50, p99 = total.percentile(50) / 1e9, total.percentile(99) / 1e9
    return Interval(
        min(part.start for part in parts),
        max(part.elapsed for part in parts),
        messages=_sum(part.messages for part in parts),
        bytes=_sum(part.bytes for part in parts),
        failures=_sum(part.failures for part in parts),
        p50=p50,
        p99=p99,
        max=max((part.max for part in parts if part.max is not None), default=None),
        histogram=text,
        lost=_sum(known) if (known := [x.lost for x in parts if x.lost is not None]) else None,
    )


def _behind(results: Sequence[Result]) -> list[Interval]:
    """Return the intervals of runs that followed one another, as if there had been no pause."""
    found, before = [], 0.0
    for one in results:
        for part in one.intervals:
            names = ("messages", "bytes", "failures", "p50", "p99", "max", "histogram", "lost")
            values = {name: getattr(part, name) for name in names}
            found.append(Interval(before + part.start, part.elapsed, **values))
        before += one.elapsed
    return found


def _generator(results: Sequence[Result]) -> Generator:
    """Return what all loads took; the busiest of them speaks for all."""
    busiest: Result = max(results, key=lambda one: one.generator.busy)
    verdict = busiest.generator.verdict
    if verdict and len(results) > 1:
        verdict = f"{name_of(busiest)}, the busiest of {len(results)}: {verdict}"
    return Generator(
        busiest.generator.busy,
        _sum(one.generator.cpu for one in results),
        _sum(one.generator.spin for one in results),
        verdict,
    )


def _instances(results: Sequence[Result]) -> dict[str, dict[str, int]] | None:
    """Add up what each instance has answered, if that was asked for."""
    asked = [one.instances for one in results if one.instances is not None]
    return add_up_instances(asked) if asked else None


def _parts(result: Result) -> list[dict[str, Any]]:
    """Return where a result came from; one that was merged has it already."""
    if result.parts:
        return [dict(part) for part in result.parts]
    from .reading import utc_text

    offset = result.host.get("offset_ms")
    return [
        {
            "label": result.label,
            "host": str(result.host.get("name", "")),
            "started_at": utc_text(result.started_at),
            "offset_ms": offset if isinstance(offset, int | float) else 0.0,
            "messages": result.messages,
            "messages_per_s": round(result.messages_per_s, 3),
            "run": result.run,
        }
    ]
