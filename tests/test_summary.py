"""The text of a result: figures, bars, failures in words, on terminals of any kind."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from made_results import made

from fastecho._load import Histogram
from fastecho.cli._bars import bars
from fastecho.cli._summary import count_text, look_of, summary, time_text
from fastecho.measure.compare import merge
from fastecho.measure.result import FAILURES as KINDS
from fastecho.measure.result import Result
from fastecho.measure.words import FAILURES

HOUR_NS = 3_600_000_000_000


def text_of(result: Result | dict[str, Any], **look: Any) -> str:
    return summary(result, **{"color": False, "unicode": True, "width": 80, **look})


def test_rate_and_percentiles_are_those_of_the_result() -> None:
    result = made(1, label="before")
    text = text_of(result)
    data = result.to_json()
    assert "label      before\n" in text
    assert f"{result.messages:,} messages sent in 20 s, every byte right" in text
    for name in ("p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "max"):
        value = time_text(data["latency_us"][name])
        assert re.search(rf"^{re.escape(name)} +{value}$", text, re.M), name
    assert "failures   none\n" in text
    assert text_of(data) == text


def test_open_loop_shows_service_time_beside_latency() -> None:
    service = Histogram()
    service.record(7_000, 100)
    result = made(1, plan={"rate": 5000}, service=service, schedule_error=service)
    text = text_of(result)
    assert re.search(r"^ +latency  service time  sent late by$", text, re.M)
    assert re.search(r"^p99 +\S+ us +7.00 us +7.00 us$", text, re.M)
    assert "latency counts from when a message was due" in text
    assert "service time" not in text_of(made(1))


def test_connects_have_a_column_where_every_message_has_one() -> None:
    connect = Histogram()
    connect.record(90_000, 10)
    text = text_of(made(1, connect=connect))
    assert "\nconnect    p50 90.0 us, max 90.0 us\n" in text
    text = text_of(made(1, connect=connect, plan={"reconnect": True}))
    assert re.search(r"^ +latency +connect$", text, re.M)
    assert re.search(r"^p99 +\S+ us +90.0 us$", text, re.M)


def test_rate_that_was_not_reached_is_said() -> None:
    text = text_of(made(1, plan={"rate": 1234.5}))
    assert re.search(r"^ +(23|24)\.\d % of the rate that was asked for$", text, re.M)
    assert "load       1,234.5 messages/s due (fixed), " in text
    assert re.search(r"^ +\S+ messages due in 20 s, every byte right$", text, re.M)
    assert "that was asked for" not in text_of(made(1))


def test_every_kind_of_failure_has_words() -> None:
    assert set(FAILURES) == set(KINDS)
    text = text_of(made(1, failures=dict.fromkeys(KINDS, 7)), width=100)
    for name, meaning in FAILURES.values():
        assert f"7 {name}: {meaning}\n" in text


def test_first_failures_are_described_and_the_rest_is_counted() -> None:
    text = text_of(made(1, failures={"lost": 9}, described=[f"failure {n}" for n in range(9)]))
    assert "failure 4\n" in text and "failure 5" not in text
    assert "... 4 more are in the saved result\n" in text


def test_gap_held_and_connects_are_told_when_there_are_any() -> None:
    text = text_of(made(1, reopened=3, gap=0.5, longest_gap=0.25, held=12))
    assert "3 connections were opened again; 500 ms without, the longest 250 ms" in text
    assert "12 messages had to wait for a free connection" in text
    text = text_of(made(1, plan={"reconnect": True}, connects=77))
    assert "77 connects\n" in text
    assert "gaps" not in text


def test_one_of_a_thing_is_no_plural() -> None:
    plan = {"connections": 1, "size": 1, "idle_connections": 1}
    data = made(1, plan=plan, held=1, reopened=1).to_json() | {"messages": 1}
    text = text_of(data)
    assert "load       1 connection, 1 thread, messages of 1 byte, 1 idle connection\n" in text
    assert "1 message sent in 20 s, every byte right" in text
    assert "1 message had to wait for a free connection" in text
    assert "1 connection was opened again; " in text


def test_a_wait_for_the_start_is_no_news() -> None:
    run = made(1, plan={"rate": 300}).to_json()
    for seconds, told in ((0.0005, False), (0.25, True)):
        run["generator"] = {"busy": 0.5, "cpu_s": 0.5, "spin_s": seconds}
        assert ("s of it waiting for the next send" in text_of(run)) is told
    run["plan"]["loop"] = "closed"  # where no send is ever due
    assert "waiting" not in text_of(run)


def test_parts_of_a_merged_result_are_listed() -> None:
    hosts = [made(n, host={"name": f"node-{n}", "offset_ms": 0.25}) for n in range(2)]
    text = text_of(merge(hosts), width=120)
    assert "merged     2 runs; their histograms were added\n" in text
    assert re.search(r"node-1: \d+ messages/s, [\d,]+ messages, started \S+, clock \+0.25 ms", text)


def test_clock_of_a_part_is_told_with_what_it_may_be_off() -> None:
    whole = merge([made(1)])
    whole.parts[0] |= {"offset_ms": 0.0, "offset_uncertain_ms": 0.1174}
    assert "clock +0 ms +-0.117 ms" in text_of(whole, width=200)
    whole.parts[0] |= {"offset_ms": -1234.0}
    assert "clock -1.23 s +-0.117 ms" in text_of(whole, width=200)


def test_one_is_no_plural() -> None:
    ones = dict.fromkeys(KINDS, 1)
    result = made(
        1, failures=ones, messages=1, held=1, connects=1, reopened=1,
        plan={"connections": 1, "size": "1", "reconnect": True, "idle_connections": 1},
    )  # fmt: skip
    text = text_of(merge([result]), width=200)
    for said in (
        "1 connection, 1 thread, messages of 1 byte, 1 idle connection\n",
        "every byte right", "1 message had to wait", "1 connect\n",
        "1 connection was opened again", "1 byte too many", "1 connect timed out",
        "merged     1 run;", "messages/s, 1 message, started",
    ):  # fmt: skip
        assert said in text, said


def test_run_without_replies_is_shown() -> None:
    text = text_of(made(1, messages=0, latency=None, intervals=[], failures={"lost": 3}))
    assert "0 messages/s" in text and "3 lost" in text
    assert "no message came back right within the timeout, in 20 s" in text
    assert "every byte right" not in text
    assert "p99" not in text


def test_who_answered_has_a_line_each_and_the_others_one() -> None:
    counts = {"connections": 1, "messages": 2000}
    text = text_of(made(1, instances={"": counts, "b": counts, "a": counts}))
    assert "answered   a: 2,000 messages on 1 connection\n           b: 2,000" in text
    assert "\n           others: 2,000 messages on 1 connection\n" in text
    assert "answered" not in text_of(made(1))


def test_text_from_a_file_cannot_act_on_the_terminal() -> None:
    strange = "\x1b[2Jx\u202e"
    data = made(1, label="x").to_json()
    data["label"] = data["generator"]["verdict"] = data["host"]["name"] = strange
    data["described"] = [strange]
    data["failures"][strange] = 1
    data["plan"] = dict.fromkeys(("targets", "loop", "size", "frame"), strange)
    data["instances"] = {strange: {"connections": 1, "messages": 1}}
    assert text_of(data, width=200).replace("\n", "").isprintable()


@pytest.mark.parametrize("width", [1, 40, 60, 80, 200])
def test_lines_fit_the_width(width: int) -> None:
    result = made(1, label="a long label " * 8, described=["word " * 40], failures={"lost": 1})
    for line in text_of(result, width=width).splitlines():
        assert len(line) <= max(width, 64), line


def test_colour_is_used_only_where_it_may_be() -> None:
    result = made(1, failures={"lost": 1})
    assert "\x1b[31m1 lost\x1b[0m" in text_of(result, color=True)
    plain = re.sub(r"\x1b\[\d+m", "", text_of(result, color=True))
    assert plain == text_of(result) and "\x1b" not in plain


def test_bars_are_ascii_where_blocks_cannot_be_shown() -> None:
    text = text_of(made(1), unicode=False)
    assert text.isascii()
    assert re.search(r"^ +18 us - 22 us +\d+\.\d % #{10,}$", text, re.M)


# --- bars -------------------------------------------------------------------------------------


def histogram(*values: tuple[int, int]) -> Histogram:
    found = Histogram()
    for ns, count in values:
        found.record(ns, count)
    return found


def shares(rows: list[tuple[str, str]]) -> float:
    return sum(float(label.split("%")[0].split()[-1].lstrip("<")) for label, _ in rows)


@pytest.mark.parametrize(
    "values",
    [
        [(0, 1)],
        [(25_000, 1000)],
        [(25_000, 1000), (26_000, 1000), (27_000, 1)],
        [(64, 1), (HOUR_NS, 1)],
        [(1_000, 999), (50_000_000, 1)],
        [(10**power, 10) for power in range(13)],
        [(2 * HOUR_NS, 5)],
        [(1_000, 5), (2 * HOUR_NS, 5)],
        [(999_999, 3), (1_000_000, 3), (1_000_001, 3)],
    ],
)
def test_bars_show_all_values_on_one_screen(values: list[tuple[int, int]]) -> None:
    rows = bars(histogram(*values), most="2 h", unicode=True, width=80)
    assert 1 <= len(rows) <= 20
    assert shares(rows) == pytest.approx(100, abs=0.6)
    assert all(len(f"{label} {bar}") <= 80 for label, bar in rows)
    assert max(len(bar) for _, bar in rows) >= 40


@pytest.mark.parametrize(
    ("ns", "most"),
    [(25_249_000, "25.2 ms"), (5_100_000, "5.10 ms"), (999_499, "999 us"), (999_900, "1.00 ms")],
)  # the first one's bucket ends at 25,264,127
def test_last_bar_ends_at_the_maximum(ns: int, most: str) -> None:
    run = made(1, latency=histogram((10_000, 2000), (ns, 1)), run="1")
    text = text_of(run)
    assert re.search(rf"^max +{most}$", text, re.M)
    assert f" - max {most} " in text
    assert text_of(Result.from_json(run.to_json())) == text


def test_bar_is_as_long_as_its_share() -> None:
    values = histogram((10_500, 400), (16_500, 100), (33_500, 1))
    rows = dict(bars(values, most="33.5 us", unicode=False, width=80))
    lengths = sorted(len(bar) for bar in rows.values() if bar)
    assert lengths == [1, 12, 48]


def test_empty_histogram_has_no_bars() -> None:
    assert bars(Histogram(), most="", unicode=True, width=80) == []


# --- numbers and streams ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0.00 us"), (0.064, "0.06 us"), (9.994, "9.99 us"), (9.996, "10.0 us"),
        (99.94, "99.9 us"), (99.96, "100 us"), (999.4, "999 us"), (999.6, "1.00 ms"),
        (123456, "123 ms"), (999_600, "1.00 s"), (3.6e9, "3,600 s"),
    ],
)  # fmt: skip
def test_time_has_three_digits_and_a_unit(us: float, text: str) -> None:
    assert time_text(us) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (7, "7"), (0.5, "0.50"), (12.34, "12.3"), (1234.5, "1,234"), (float("inf"), "inf")],
)
def test_count_has_its_thousands_apart(value: float, text: str) -> None:
    assert count_text(value) == text


def test_file_gets_no_colour_and_80_columns() -> None:
    assert look_of(io.StringIO()) == {"color": False, "unicode": False, "width": 80}
    assert look_of(None)["color"] is False
    with io.TextIOWrapper(io.BytesIO(), encoding="utf-8") as stream:
        assert look_of(stream)["unicode"] is True
    with io.TextIOWrapper(io.BytesIO(), encoding="latin-1") as stream:
        assert look_of(stream)["unicode"] is False
