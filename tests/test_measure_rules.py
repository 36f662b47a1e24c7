"""Rules such as `p99>2ms`: what they take, what they refuse, and when they are true."""

from __future__ import annotations

from typing import Any

import pytest

from fastecho import ConfigError
from fastecho._load import Histogram
from fastecho.measure import Plan, Result, Rule


def result(**more: Any) -> Result:
    """Return a result of 1,000 messages of 1 ms, in 2 s."""
    latency = Histogram()
    latency.record(1_000_000, 990)
    latency.record(5_000_000, 10)
    given = {"messages": 1000, "elapsed": 2.0, "latency": latency, **more}
    return Result(Plan("127.0.0.1:7777"), **given)


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("p50>0.9ms", True),
        ("p50 > 2ms", False),
        ("p50<1.1ms", True),
        ("p99.9>=4.9ms", True),
        ("max>4s", False),
        ("max<6000us", True),
        ("mean<1.1ms", True),
        ("p50>900000ns", True),
        ("p50>1m", False),
        ("p50<1min", True),
        ("max<1h", True),
        ("max>0.0000005h", True),
        ("mean<1ms", False),
        ("latency.p99<2ms", True),
        ("rate<501", True),
        ("rate<500/s", False),
        ("rate>=0.5k/s", True),
        ("rate>1M", False),
        ("rate>1,000", False),
        ("failures>0", False),
        ("failures<=0", True),
        ("lost>0", False),
    ],
)
def test_a_rule_is_true_or_not(text: str, true: bool) -> None:
    rule = Rule(text)
    assert rule.holds(result()) is true
    assert rule.fails(result()) is true
    assert str(rule) == text


def test_a_kind_of_failure_is_a_metric() -> None:
    failed = result(failures={"lost": 3, "reset": 1})
    assert Rule("lost>2").holds(failed)
    assert Rule("reset>1").holds(failed) is False
    assert Rule("failures>=4").holds(failed)
    assert Rule("lost>2").shown(failed) == "lost is 3"


def test_other_histograms_are_metrics() -> None:
    histogram = Histogram()
    histogram.record(70_000)
    one = result(service=histogram, connect=histogram, schedule_error=histogram)
    for name in ("service.p99", "connect.max", "schedule.p50"):
        assert Rule(f"{name}>60us").holds(one)
        assert Rule(f"{name}>80us").holds(one) is False


def test_what_was_never_measured_fails_but_does_not_hold() -> None:
    nothing = result(latency=None)
    assert Rule("p99>2ms").fails(nothing)
    assert Rule("p99<2ms").holds(nothing) is False
    assert Rule("p99<2ms").shown(nothing) == "p99 is unknown"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("p50<1s", "p50 is 1 ms"), ("max<1s", "max is 5 ms"), ("rate<1", "rate is 500/s"),
     ("failures>1", "failures is 0")],
)  # fmt: skip
def test_a_value_is_shown_with_its_unit(text: str, shown: str) -> None:
    assert Rule(text).shown(result()) == shown


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must be METRIC>VALUE or METRIC<VALUE, such as p99>2ms"),
        ("p99", "must be METRIC>VALUE"),
        ("p99=2ms", "must be METRIC>VALUE"),
        ("p99>>2ms", "must be METRIC>VALUE"),
        ("p99>two", "must be METRIC>VALUE"),
        ("p99>2,5ms", "has a comma that groups no thousands: write 2.5"),
        ("rate<1,5k", "has a comma that groups no thousands"),
        ("p99>2", "needs a unit of time: us, ms, s, m or h"),
        ("p99>2kms", "needs a unit of time: us, ms, s, m or h"),
        ("p99>2d", "needs a unit of time: us, ms, s, m or h"),
        ("p99>1.2.3ms", "has no number to compare with"),
        ("p99>1_0ms", "has no number to compare with"),
        ("p98>2ms", "has no metric 'p98': did you mean p99?"),
        ("service>2ms", "has no metric 'service'"),
        ("zzz>2", "has no metric 'zzz': there are p50 to p99.99"),
        ("rate<5ms", "takes /s or no unit after its number"),
        ("failures>0/s", "takes no unit after its number"),
        ("lost>0ms", "takes no unit after its number"),
    ],
)
def test_a_wrong_rule_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rule(text, "--fail-if")
    assert str(caught.value).startswith("--fail-if ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_metric_that_a_plan_cannot_have_is_told_before_it_runs() -> None:
    closed, opened = Plan("127.0.0.1:1"), Plan("127.0.0.1:1", rate=5)
    for text in ("service.p99>1ms", "schedule.p50>1ms"):
        with pytest.raises(ConfigError, match="needs an open loop"):
            Rule(text).check_plan(closed)
        Rule(text).check_plan(opened)
    Rule("connect.p99>1ms").check_plan(closed)
    each = Plan("127.0.0.1:1", reconnect=True)
    with pytest.raises(ConfigError, match=r"not measured with --reconnect: write p99 or connect\."):
        Rule("service.p99>1ms").check_plan(each)
    Rule("rate<5k").check_plan(each)


def test_only_what_a_result_has_is_suggested() -> None:
    for text, hint in [("rat<1", "there are"), ("servic.p99<1ms", "there are"), ("los>1", "lost?")]:
        with pytest.raises(ConfigError) as caught:
            Rule(text, "--fail-if", without=("rate", "unsent", "service", "schedule"))
        said = str(caught.value).partition("has no metric")[2].partition(":")[2]
        assert hint in said
        assert not any(word in said for word in ("rate", "unsent", "service", "schedule"))
