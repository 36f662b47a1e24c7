"""A result is counts and histograms, survives JSON, and refuses what is none."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fastecho._load import Histogram
from fastecho.cli._summary import summary
from fastecho.measure import Interval, Plan, Result
from fastecho.measure.result import FAILURES, Generator
from fastecho.measure.verdict import verdict

# Written out again on purpose: a key that comes or goes changes the format.
KEYS = {
    "format", "version", "fastecho", "run", "label", "started_at", "host", "plan", "elapsed_s",
    "messages", "messages_in_window", "messages_per_s", "bytes", "bytes_per_s", "sent",
    "connects", "held", "failures", "datagrams", "described", "reopened", "gap_ms",
    "longest_gap_ms",
    "latency_us", "service_us", "connect_us", "schedule_error_us", "histograms", "intervals",
    "generator", "instances", "parts",
}  # fmt: skip
FIGURES = {
    "min", "mean", "stddev", "p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "max",
}  # fmt: skip


PART = {
    "label": "a", "host": "there", "started_at": "2025-11-25T07:00:00.250Z", "offset_ms": 0.5,
    "messages": 5, "messages_per_s": 2.5,
}  # fmt: skip


def histogram(*values: int) -> Histogram:
    """Return a histogram of values in ns."""
    found = Histogram()
    for ns in values:
        found.record(ns)
    return found


def full() -> Result:
    """Return a result with something in every place."""
    return Result(
        Plan("127.0.0.1:7777", rate=100, label="before"),
        started_at=1764054000.25,
        host={"name": "here", "system": "Linux", "cpus": 2},
        elapsed=2.5,
        messages=250,
        messages_in_window=240,
        bytes=16000,
        sent=255,
        connects=11,
        held=4,
        failures={"lost": 3, "timed_out": 2},
        described=["1.000 s, connection 3, message 17: lost"],
        reopened=1,
        gap=0.25,
        longest_gap=0.25,
        latency=histogram(64_001, 128_000, 1_048_777),
        service=histogram(64_002),
        connect=histogram(99_005),
        schedule_error=histogram(641),
        intervals=[Interval(0, 1, messages=90, bytes=5760, failures=5, p50=1e-4, p99=1e-3, max=1.0),
                   Interval(1, 1.5)],
        generator=Generator(0.5, 1.25, 0.25, "it was not the limit"),
        parts=[PART],
    )  # fmt: skip


def test_each_text_says_the_same_of_how_busy_the_load_was() -> None:
    result = Result(Plan("a:1", duration=1), elapsed=1, generator=Generator(0.72504))
    assert "busy 72 %" in verdict(result)
    assert "busy 72 %" in summary(result, color=False, unicode=False, width=80)


def test_rates_count_what_came_within_the_window() -> None:
    result = full()
    assert result.messages_per_s == pytest.approx(96)
    assert result.bytes_per_s == pytest.approx(result.bytes / 2.5)
    assert result.failed == 5
    assert result.percentile(50) == pytest.approx(128e-6, rel=1e-3)
    assert result.percentile(50, "service") == pytest.approx(64e-6, rel=1e-3)
    assert Result(Plan("a:1")).percentile(50) is None
    assert Result(Plan("a:1")).messages_per_s == 0


def test_json_has_exactly_the_documented_keys() -> None:
    data = full().to_json()
    assert set(data) == KEYS
    assert set(data["failures"]) == set(FAILURES)
    assert set(data["latency_us"]) == FIGURES
    assert data["started_at"] == "2025-11-25T07:00:00.250Z"
    assert (data["format"], data["version"]) == ("fastecho-bench", 1)
    assert (data["gap_ms"], data["elapsed_s"], data["messages_per_s"]) == (250.0, 2.5, 96.0)
    assert data["intervals"][1]["p99_us"] is None


def test_a_histogram_that_is_not_there_is_null_and_has_no_text() -> None:
    data = Result(Plan("a:1"), latency=histogram(5000)).to_json()
    assert data["service_us"] is None
    assert set(data["histograms"]) == {"latency"}


def test_a_result_survives_json() -> None:
    data = json.loads(json.dumps(full().to_json()))
    again = Result.from_json(data)
    assert again.to_json() == data
    for name in ("latency", "service", "connect", "schedule_error"):
        mine, read = getattr(full(), name), getattr(again, name)
        assert (read.min, read.max, read.mean) == (mine.min, mine.max, mine.mean), name
    assert again.plan == full().plan
    assert again.started_at == pytest.approx(1764054000.25)


def test_keys_of_a_later_version_are_no_obstacle() -> None:
    data = {**full().to_json(), "a_new_key": 5}
    assert Result.from_json(data).messages == 250


@pytest.mark.parametrize(
    "figures",
    [None, 5, {}, {"min": "64", "max": None}, {"min": True, "max": float("nan")},
     {"min": -64.0, "max": 1e300}, {"min": 63.9, "max": 1049.6}, {"min": 1048.576, "max": 64.0}],
)  # fmt: skip
def test_a_minimum_and_maximum_that_the_counts_deny_are_edges_of_buckets(figures: Any) -> None:
    latency = Result.from_json({**full().to_json(), "latency_us": figures}).latency
    assert latency is not None
    assert (latency.min, latency.max) == (64_000, 1_049_599)


def changed(**changes: Any) -> dict[str, Any]:
    return {**full().to_json(), **changes}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "is not a result of fastecho bench"),
        ([], "is not a result of fastecho bench"),
        ("x", "is not a result of fastecho bench"),
        (changed(format="wrk"), "is not a result of fastecho bench"),
        (changed(version=2), "has version 2: this reads 1"),
        (changed(messages=-1), "has -1 for 'messages': a count is a whole number"),
        (changed(messages="5"), "has '5' for 'messages': a count is a whole number"),
        (changed(elapsed_s="long"), "has 'long' for 'elapsed_s': it must be a number"),
        (changed(elapsed_s=float("nan")), "has nan for 'elapsed_s': it must be a number"),
        (changed(started_at="noon"), "has 'noon' for 'started_at': it must be a time"),
        (changed(plan=5), "has 'plan' that is no object"),
        (changed(plan={}), "has a plan that is not valid: plan.targets None"),
        (changed(failures=[]), "has 'failures' that is no object"),
        (changed(intervals={}), "has 'intervals' that is no list"),
        (changed(intervals=[5]), "is not a complete result"),
        (changed(histograms={"latency": "HISTFAAA"}), "histogram"),
        (changed(histograms={"latency": 5}), "histogram"),
        (changed(generator=None), "has 'generator' that is no object"),
    ],
)
def test_what_is_no_result_is_refused_in_one_sentence(data: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        Result.from_json(data)
    assert "\n" not in str(caught.value)


def test_a_result_shows_itself_in_a_few_lines() -> None:
    text = str(full())
    assert text.splitlines()[0] == (
        "before: 127.0.0.1:7777, open loop, 2.5 s: 96 messages/s, 0.0064 MB/s"
    )
    assert "latency in us: p50 128" in text
    assert "failures: lost 3, timed_out 2" in text
    assert text.endswith("it was not the limit")
    assert repr(full()).startswith("<Result before: ")
