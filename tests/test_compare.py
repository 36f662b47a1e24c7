"""Two runs beside each other: what is a difference is told, what is noise is called noise."""

from __future__ import annotations

import math

import pytest
from made_results import made

from fastecho.measure import compare as comparing
from fastecho.measure.compare import FIGURES, Comparison, compare


def verdicts(comparison: Comparison) -> dict[str, str]:
    return {figure.name: figure.verdict for figure in comparison.figures}


@pytest.mark.parametrize("histograms", [True, False], ids=["histograms", "figures-only"])
def test_same_load_is_within_noise(histograms: bool) -> None:
    told = 0
    for seed in range(30):
        pair = [made(2 * seed + n, seconds=12, rate=150, histograms=histograms) for n in (0, 1)]
        told += sum(verdict in ("more", "less") for verdict in verdicts(compare(pair)[0]).values())
    # 180 figures at a level of 99 %, six of each pair not independent.
    assert told <= 6


@pytest.mark.parametrize("histograms", [True, False], ids=["histograms", "figures-only"])
def test_faster_server_is_told(histograms: bool) -> None:
    slow = made(1, us=30.0, rate=300, histograms=histograms)
    fast = made(2, us=24.0, rate=390, histograms=histograms)
    (found,) = compare([slow, fast])
    said = verdicts(found)
    assert said["rate"] == "more"
    assert said["p50"] == said["p90"] == said["p99"] == "less"
    for figure in found.figures:
        assert figure.ratio is not None and figure.low is not None and figure.high is not None
        assert figure.low < figure.ratio < figure.high
    assert found.figures[0].ratio == pytest.approx(fast.messages_per_s / slow.messages_per_s)
    p50 = found.figures[1]
    assert p50.ratio == pytest.approx(
        (fast.percentile(50) or 0) / (slow.percentile(50) or 1), rel=1e-9
    )


def test_interval_of_the_ratio_holds_what_is_true() -> None:
    missed = 0
    for seed in range(40):
        one = made(3 * seed, seconds=12, rate=150, us=25.0)
        other = made(3 * seed + 1, seconds=12, rate=150, us=27.5)
        figure = compare([one, other])[0].figures[1]
        assert figure.low is not None and figure.high is not None
        missed += not figure.low <= 1.1 <= figure.high
    assert missed <= 2


def test_same_files_give_the_same_words() -> None:
    pair = [made(1), made(2)]
    assert [c.to_json() for c in compare(pair)] == [c.to_json() for c in compare(pair)]


def test_run_equals_itself() -> None:
    one = made(1)
    (found,) = compare([one, made(1)])
    assert set(verdicts(found).values()) == {"within noise"}
    assert all(figure.ratio == 1.0 for figure in found.figures)


def test_short_run_cannot_tell() -> None:
    (found,) = compare([made(1, seconds=3), made(2, seconds=3)])
    assert set(verdicts(found).values()) == {"cannot tell"}
    assert all(figure.ratio and figure.low is None for figure in found.figures)


def test_run_without_replies_has_no_ratio() -> None:
    (found,) = compare([made(1), made(2, rate=0, messages=0, latency=None, intervals=[])])
    assert all(figure.ratio is None for figure in found.figures)
    assert set(verdicts(found).values()) == {"cannot tell"}


def test_second_that_stalls_widens_the_rate() -> None:
    steady, stalled = made(1), made(2)
    for n in (4, 5):
        stalled.intervals[n].messages = 0
    plain = compare([steady, made(2)])[0].figures[0]
    wide = compare([steady, stalled])[0].figures[0]
    assert plain.high is not None and wide.high is not None
    assert wide.high > plain.high


def test_second_without_a_reply_leaves_the_latencies_comparable() -> None:
    steady, stalled = made(1), made(2)
    for n in (3, 4, 5, 11):  # a whole batch, and one more
        one = stalled.intervals[n]
        one.messages, one.p50, one.p99, one.max, one.histogram = 0, None, None, None, None
    figures = {figure.name: figure for figure in compare([steady, stalled])[0].figures}
    for name in ("p50", "p99"):
        assert figures[name].verdict == "within noise"
        high = figures[name].high
        assert high is not None and high < 1.3, name


def test_largest_value_is_compared_as_a_single_one() -> None:
    """Twice as many seconds make a mean more certain, but not a maximum."""
    short = compare([made(1, seconds=16), made(2, seconds=16)])[0].figures
    long = compare([made(1, seconds=64), made(2, seconds=64)])[0].figures

    def spread(figures: list[comparing.Figure], name: str) -> float:
        figure = next(one for one in figures if one.name == name)
        assert figure.low and figure.high
        return math.log(figure.high / figure.low)

    assert spread(long, "rate") < 0.7 * spread(short, "rate")
    assert spread(long, "max") > 0.4 * spread(short, "max")


def test_each_result_is_compared_with_the_baseline() -> None:
    results = [made(n, label=f"run {n}") for n in range(3)]
    found = compare(results, baseline=1)
    assert [one.name for one in found] == ["run 0 (node-1)", "run 2 (node-1)"]
    assert {one.baseline for one in found} == {"run 1 (node-1)"}


def test_single_result_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="two results or more"):
        compare([made()])


def test_what_a_reader_must_know_is_noted() -> None:
    one = made(1)
    other = made(
        2,
        plan={"size": "1024", "connections": 20, "threads": 2},
        host={"name": "node-2"},
        failures={"lost": 3},
    )
    notes = "\n".join(compare([one, other])[0].notes)
    assert "size 64 bytes and 1024 bytes" in notes
    assert "connections 10 and 20" in notes
    assert "threads differ: 1 and 2" in notes
    assert "different machines: node-1 and node-2" in notes
    assert "3 failures" in notes
    other.failures["lost"] = 1
    assert any(note.endswith("has 1 failure") for note in compare([one, other])[0].notes)
    longer = made(3, plan={"duration": 60.0})
    assert compare([one, longer])[0].notes == []


def test_json_names_figures_with_their_units() -> None:
    data = compare([made(1), made(2)])[0].to_json()
    names = {"messages_per_s", *(f"latency_us.{name}" for name in FIGURES[1:])}
    assert set(data["figures"]) == names
    assert set(data["figures"]["latency_us.p99"]) == {
        "baseline", "value", "ratio", "low", "high", "verdict",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("freedom", "expected"), [(3, 5.841), (5, 4.032), (10, 3.169), (60, 2.660)]
)
def test_student_is_that_of_the_tables(freedom: float, expected: float) -> None:
    assert comparing._student(freedom) == pytest.approx(expected, rel=0.06)
