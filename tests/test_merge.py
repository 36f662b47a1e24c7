"""Runs of one load are added up: counts and histograms exactly, and nothing is averaged."""

from __future__ import annotations

import json
import pickle
import re
from typing import Any

import pytest
from made_results import NOON, made

from fastecho._load import Histogram
from fastecho.cli._summary import summary
from fastecho.measure.cluster import _added_up, _Worker
from fastecho.measure.compare import compare, merge
from fastecho.measure.result import Result


def hosts(count: int, **changes: Any) -> list[Result]:
    """Return runs of several machines that began at the same time."""
    return [
        made(n, label="all", host={"name": f"node-{n}", "cpus": 2, "offset_ms": n / 10}, **changes)
        for n in range(count)
    ]


def test_histograms_and_counts_are_added() -> None:
    parts = hosts(3, failures={"lost": 2, "reset": 1}, held=4, reopened=1, gap=0.5, longest_gap=0.3)
    whole = merge(parts)
    total = Histogram()
    for part in parts:
        assert part.latency is not None
        total.merge(part.latency)
    assert whole.latency is not None
    assert whole.latency.buckets() == total.buckets()
    assert whole.messages == sum(part.messages for part in parts) == whole.latency.count
    assert whole.bytes == sum(part.bytes for part in parts)
    assert whole.failures["lost"] == 6 and whole.failures["reset"] == 3
    assert (whole.held, whole.reopened, whole.gap, whole.longest_gap) == (12, 3, 1.5, 0.3)
    assert whole.service is None


def test_rates_of_runs_at_the_same_time_add_up() -> None:
    parts = hosts(2)
    whole = merge(parts)
    assert whole.elapsed == 20.0
    assert whole.messages_per_s == pytest.approx(sum(part.messages_per_s for part in parts))
    assert whole.plan.connections == 20
    assert whole.plan.threads == 2


def test_run_that_was_done_first_counts_as_idle_until_the_last_one_was() -> None:
    parts = [made(1), made(2, seconds=10, plan={"duration": 20.0})]
    whole = merge(parts)
    assert whole.elapsed == 20.0
    assert whole.messages_per_s == sum(part.messages_in_window for part in parts) / 20.0


def test_times_of_runs_in_turn_add_up() -> None:
    parts = [made(n, started_at=NOON + 25 * n) for n in range(3)]
    whole = merge(parts)
    assert whole.elapsed == 60.0
    mean = sum(part.messages_per_s for part in parts) / 3
    assert whole.messages_per_s == pytest.approx(mean)
    assert whole.plan.connections == 10
    assert [round(one.start) for one in whole.intervals] == list(range(60))


def test_runs_that_overlap_by_half_are_refused() -> None:
    one, other = made(1), made(2, started_at=NOON + 10)
    with pytest.raises(ValueError, match="overlap for 10 of 20 s: they ran neither"):
        merge([one, other])


def test_runs_that_were_started_together_are_added_though_one_was_late() -> None:
    parts = [made(1), made(2, started_at=NOON + 10), made(3, started_at=NOON + 30)]
    whole = merge(parts, started_together=True)
    assert (whole.elapsed, whole.plan.connections) == (20.0, 30)
    assert whole.messages == sum(part.messages for part in parts)


def test_result_of_a_worker_that_began_late_is_not_lost() -> None:
    workers = [_Worker(name, name) for name in ("node-1", "node-2")]
    for n, worker in enumerate(workers):
        worker.result = made(n, label=worker.name, seconds=2, started_at=NOON + n)
    whole = _added_up(workers, "all")
    assert whole.messages == sum(part["messages"] for part in whole.parts)
    assert (whole.elapsed, whole.label, len(whole.parts)) == (2.0, "all", 2)


def test_three_of_which_one_came_later_are_refused() -> None:
    runs = [made(1), made(2), made(3, started_at=NOON + 30)]
    with pytest.raises(ValueError, match="overlap for 0 of 20 s"):
        merge(runs)


def test_each_part_keeps_label_host_start_and_offset() -> None:
    parts = hosts(2)
    whole = merge(parts)
    assert whole.parts[1] == {
        "label": "all",
        "host": "node-1",
        "started_at": "2026-11-25T12:00:00.000Z",
        "offset_ms": 0.1,
        "messages": parts[1].messages,
        "messages_per_s": parts[1].messages_per_s,
        "run": parts[1].run,
    }
    assert whole.host == {"name": "node-0, node-1", "system": "", "cpus": 4}
    assert whole.label == "all"


def test_merged_runs_can_be_merged_again() -> None:
    whole = merge([merge(hosts(2)), made(7, host={"name": "node-7"})], label="more")
    assert [part["host"] for part in whole.parts] == ["node-0", "node-1", "node-7"]
    assert whole.label == whole.plan.label == "more"


def test_sum_of_many_hosts_is_above_the_limits_of_one_run_and_survives() -> None:
    load = {"threads": 64, "connections": 64_000, "rate": 5e8, "messages": 2**52}
    whole = merge(hosts(200, seconds=1, rate=5, plan={**load, "idle_connections": 2**20}))
    assert whole.plan.threads == 12_800 and whole.plan.connections == 12_800_000
    assert whole.plan.rate == 1e11 and whole.plan.messages == 200 * 2**52
    again = Result.from_json(json.loads(json.dumps(whole.to_json())))
    assert again.plan == whole.plan and again.messages == whole.messages
    assert pickle.loads(pickle.dumps(again.plan)) == whole.plan
    assert "12,800,000 connections, 12,800 threads" in summary(
        again, color=False, unicode=True, width=200
    )
    assert compare([whole, again])[0].figures[0].ratio == 1
    more = merge([again, made(7, seconds=1, rate=5, plan=load)])
    assert more.plan.threads == 12_864 and len(more.parts) == 201


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", None, 2**63, float("nan")])
def test_sum_in_a_file_is_a_count(value: object) -> None:
    data = merge(hosts(2)).to_json()
    data["plan"]["threads"] = value
    with pytest.raises(ValueError, match=r"has a plan that is not valid: plan\.threads"):
        Result.from_json(data)


def test_limits_of_one_run_hold_for_one_run() -> None:
    data = made(1).to_json()
    data["plan"]["threads"] = 1025
    with pytest.raises(
        ValueError, match=r"plan.threads 1025 must be a whole number from 1 to 1024"
    ):
        Result.from_json(data)


def test_same_run_is_not_counted_twice() -> None:
    one, other = hosts(2)
    copy = Result.from_json({**one.to_json(), "label": "copy"})
    with pytest.raises(ValueError, match=r"all \(node-0\) and copy \(node-0\) hold the same run"):
        merge([one, other, copy])
    with pytest.raises(ValueError, match="hold the same run: it would be counted twice"):
        merge([Result.from_json(merge([one, other]).to_json()), other])


def test_runs_that_look_the_same_are_different_runs() -> None:
    # Two containers of one host name, started together.
    whole = merge([made(1), made(1)])
    assert whole.messages == 2 * made(1).messages


def test_counts_that_no_file_can_hold_are_not_added() -> None:
    with pytest.raises(ValueError, match="their counts are too large to be added up"):
        merge(hosts(2, messages=2**62))
    many = Histogram()
    many.record(1000, 2**62)
    with pytest.raises(ValueError, match=r"more than 2.*63 - 1 values cannot be added up"):
        merge(hosts(2, latency=many))


def test_closed_and_open_loop_are_different_loads_also_when_one_is_merged() -> None:
    whole = merge(hosts(2))
    for runs in ([whole, made(7, plan={"rate": 10})], [made(7, plan={"rate": 10}), whole]):
        with pytest.raises(ValueError, match="runs of different loads: rate"):
            merge(runs)


def test_merged_run_survives_its_json() -> None:
    whole = merge(hosts(2))
    again = Result.from_json(whole.to_json())
    assert again.to_json() == whole.to_json()


def test_sum_of_saved_runs_has_their_exact_extremes() -> None:
    parts = hosts(2)
    measured = merge(parts)
    read = merge([Result.from_json(part.to_json()) for part in parts])
    latencies = [part.latency for part in parts if part.latency]
    assert read.latency is not None
    assert read.latency.max == max(one.max for one in latencies)
    assert read.latency.min == min(one.min for one in latencies)
    assert read.to_json()["latency_us"] == measured.to_json()["latency_us"]
    assert [one.to_json() for one in read.intervals] == [
        one.to_json() for one in measured.intervals
    ]
    assert all(one.p99 is not None and one.max and one.p99 <= one.max for one in read.intervals)
    compared = compare([measured, Result.from_json(read.to_json())])[0].to_json()["figures"]
    assert compared["latency_us.max"]["ratio"] == 1.0


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"size": "1024"}, "size 64 bytes and 1024 bytes"),
        ({"rate": 1234.5}, "rate none and 1,234.5 messages/s"),
        ({"warmup": 0.5}, "warmup 0 s and 500 ms"),
        ({"timeout": "2m"}, "timeout 5 s and 2 min"),
        ({"connections": 20}, "connections 10 and 20"),
        ({"rate": 5000}, "rate none and 5,000 messages/s"),
        ({"duration": 5}, "duration 20 s and 5 s"),
        ({"frame": "line", "prefix": "x"}, "frame recv and line; prefix b'' and b'x'"),
        ({"reconnect": True}, "reconnect False and True"),
    ],
)
def test_different_loads_are_refused_by_name(plan: dict[str, Any], said: str) -> None:
    one, other = made(1, label="a"), made(2, label="b", plan=plan)
    sentence = re.escape(f"a (node-1) and b (node-1) are runs of different loads: {said}")
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        merge([one, other])


@pytest.mark.parametrize(
    "plan",
    [{"targets": "10.0.0.1:7"}, {"threads": 2}, {"seed": 7}, {"sources": ["127.0.0.2"]}],
    ids=lambda plan: next(iter(plan)),
)
def test_what_does_not_change_the_load_may_differ(plan: dict[str, Any]) -> None:
    whole = merge([made(1), made(2, plan=plan)])
    assert whole.plan.connections == 20
    assert len(whole.plan.targets) == (2 if "targets" in plan else 1)


def test_rates_that_were_asked_for_add_up() -> None:
    whole = merge(hosts(2, plan={"rate": 1000, "messages": 5000}))
    assert (whole.plan.rate, whole.plan.messages) == (2000.0, 10000)


def test_intervals_at_the_same_time_are_added_one_by_one() -> None:
    parts = hosts(2)
    whole = merge(parts)
    assert len(whole.intervals) == 20
    first, a, b = whole.intervals[0], parts[0].intervals[0], parts[1].intervals[0]
    assert first.messages == a.messages + b.messages
    assert first.max == max(a.max or 0, b.max or 0)
    assert first.p99 is not None and a.p99 is not None and b.p99 is not None
    assert min(a.p99, b.p99) <= first.p99 <= max(a.p99, b.p99)


def test_percentiles_of_intervals_without_histograms_are_left_out() -> None:
    whole = merge([made(1, histograms=False), made(2, histograms=False)])
    first = whole.intervals[0]
    assert first.p50 is None and first.p99 is None and first.histogram is None
    assert first.max is not None and first.messages > 0


def test_interval_without_replies_adds_nothing() -> None:
    parts = hosts(2)
    one = parts[0].intervals[3]
    one.messages, one.p50, one.p99, one.max, one.histogram = 0, None, None, None, None
    whole = merge(parts)
    assert whole.intervals[3].p99 == parts[1].intervals[3].p99
    assert whole.intervals[3].histogram is not None


def test_intervals_of_which_one_run_has_more_are_kept() -> None:
    longer = made(2, seconds=21, plan={"duration": 20.0})
    whole = merge([made(1), longer])
    assert len(whole.intervals) == 21
    assert whole.intervals[20].messages == longer.intervals[20].messages


def test_merged_runs_are_compared_like_others() -> None:
    before, after = merge(hosts(2)), merge(hosts(2, us=20.0))
    p99 = compare([before, after])[0].figures[3]
    assert p99.verdict == "less"


def test_failures_are_told_in_turn_with_their_run() -> None:
    parts = hosts(2)
    parts[0].described = ["a", "b"]
    parts[1].described = ["c"]
    whole = merge(parts)
    assert whole.described == ["all (node-0): a", "all (node-1): c", "all (node-0): b"]


def test_busiest_generator_speaks_for_all() -> None:
    parts = hosts(2)
    parts[1].generator.busy = 0.97
    parts[1].generator.verdict = "the generator was busy"
    whole = merge(parts)
    assert whole.generator.busy == 0.97
    assert whole.generator.cpu == 8.0
    assert whole.generator.verdict == "all (node-1), the busiest of 2: the generator was busy"


def test_one_run_is_merged_with_itself_alone() -> None:
    one = made(1)
    whole = merge([one])
    assert whole.messages == one.messages
    assert whole.intervals[3].to_json() == one.intervals[3].to_json()
    assert len(whole.parts) == 1


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="no result to merge"):
        merge([])
