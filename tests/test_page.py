"""The page of `--html`: one well-formed file that loads nothing and escapes what it is given."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from page_samples import (
    HOSTILE,
    SAMPLES,
    closed,
    empty,
    failing,
    histogram,
    result,
    short,
    wide_range,
)

from fastecho.measure._graphs import by_percentile
from fastecho.measure.page import page, picture
from fastecho.measure.result import Result

SVG = "{http://www.w3.org/2000/svg}"
HTML = "{http://www.w3.org/1999/xhtml}"
# Names of XML's languages are no addresses that anybody opens.
NAMESPACES = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml",
              "http://www.w3.org/1999/xlink")  # fmt: skip
LOADING = ("src", "srcset", "href", "data", "action", "poster", "background", "style",
           "{http://www.w3.org/1999/xlink}href")  # fmt: skip

Make = Callable[[], list[dict[str, Any]]]


def read(text: str) -> ElementTree.Element:
    """Read a page strictly, as XML."""
    assert text.startswith("<!DOCTYPE html>\n")
    return ElementTree.fromstring(text.encode())


def words_of(text: str) -> str:
    return " ".join("".join(read(text).itertext()).split())


@cache
def page_of(sample: str) -> str:
    return page(SAMPLES[sample]())


@pytest.fixture(params=list(SAMPLES))
def made(request: pytest.FixtureRequest) -> str:
    return page_of(request.param)


def test_page_is_well_formed_and_every_name_in_it_is_unique(made: str) -> None:
    names = [element.get("id") for element in read(made).iter() if element.get("id")]
    assert len(names) == len(set(names))


def test_page_loads_nothing_and_runs_nothing(made: str) -> None:
    root = read(made)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags.isdisjoint({"script", "img", "iframe", "object", "embed", "image", "use", "base"})
    for element in root.iter():
        for name, value in element.attrib.items():
            assert not name.startswith("on"), (name, value)
            if name in LOADING:
                assert (name, value) in {("href", "data:,"), ("style", "text-align:left")}
    styles = "".join(style.text or "" for style in root.iter(f"{HTML}style"))
    assert "url(" not in styles and "@import" not in styles
    for name in NAMESPACES:
        made = made.replace(f'"{name}"', "")
    assert re.findall(r"https?://(?!x\.example)[^\s<]*", made) == []


def test_every_chart_says_what_it_is_to_who_cannot_see_it(made: str) -> None:
    for chart in read(made).iter(f"{SVG}svg"):
        names = (chart.get("aria-labelledby") or "").split()
        told = [element for element in chart if element.get("id") in names]
        assert [element.tag for element in told] == [f"{SVG}title", f"{SVG}desc"]
        assert all(element.text for element in told)


def test_no_number_on_a_page_is_infinite_or_none(made: str) -> None:
    text = re.sub(r"<style>.*?</style>", "", made, flags=re.S)
    assert re.findall(r"\b(nan|inf|None|1e\+?\d+)\b", text) == []


def test_text_from_outside_is_text_only() -> None:
    text = page_of("hostile")
    assert HOSTILE in "".join(read(text).itertext())
    assert "<script" not in text and "<img" not in text and "<a " not in text
    # What cannot stand in a file of UTF-8 is replaced.
    assert "\ufffd" in text
    assert text.encode().decode() == text


def test_headline_has_the_figures_of_the_result() -> None:
    data = result()
    words = words_of(page([data]))
    assert "a run" in words and "32 connections" in words and "node-1" in words
    assert "messages/s 2,000" in words.replace("messages/s2,000", "messages/s 2,000")
    assert "20,000 messages due in 10 s, every byte right." in words
    assert data["generator"]["verdict"] in words
    for name in ("p50", "p99", "p99.9", "max"):
        assert data["latency_us"][name] > 0
    assert "200 ms" in words  # the maximum, exact in the JSON


def test_only_an_open_loop_waits_for_a_send_to_be_due() -> None:
    assert "1.25 s of it waiting for the next send to be due" in words_of(page([result()]))
    assert "waiting for the next send" not in words_of(page([closed()]))


def test_open_loop_has_service_time_beside_latency() -> None:
    assert "service time" in words_of(page([result()]))
    assert "service time" not in words_of(page([closed()]))


def test_charts_of_a_run_without_failures() -> None:
    titles = [title.text for title in read(page_of("open")).iter(f"{HTML}h2")]
    assert titles == ["Latency by percentile", "Rate over time", "Latency over time"]


def test_failures_are_told_in_words_with_the_first_ones() -> None:
    data = failing()
    text = page([data])
    words = words_of(text)
    assert "1,234other bytes came back" in words
    assert "connects that nobody accepted" in words
    assert words.count("0.5 s, connection") == 10
    assert "Failures over time" in words
    assert "2 connections were opened again" in words
    assert "Failures over time" not in words_of(page([result()]))


def test_line_is_broken_where_no_reply_came() -> None:
    paths = [path.get("d") or "" for path in read(page([failing()])).iter(f"{SVG}path")]
    broken = [path for path in paths if path.count("M") == 2 and path.count("L") == 17]
    assert len(broken) == 3 * 2  # p50, p99 and max; wide and narrow


def test_run_without_a_reply_says_so_and_has_no_latency() -> None:
    data = empty()
    words = words_of(page([{**data, "intervals": []}]))
    assert "No reply came: there is nothing to draw." in words
    assert (
        "Percentiles p" not in words and "stddev" not in words and "connection ended first" in words
    )


def test_latencies_above_an_hour_are_on_the_chart() -> None:
    words = words_of(page([wide_range()]))
    assert "18,000 s" in words
    assert "1 µs" in words


def test_values_of_a_percentile_are_those_of_the_histogram() -> None:
    data = closed(latency=histogram(9, 100_000))
    shown = [
        [span.text for span in text.iter(f"{SVG}tspan")]
        for text in read(page([data])).iter(f"{SVG}text")
    ]
    wanted = data["latency_us"]["p99"]
    assert ["p99", f"{wanted:.3g} µs"] in shown


@pytest.mark.parametrize("count", [2, 9, 10, 11, 1000, 65_537])
def test_curve_goes_from_the_minimum_to_the_maximum_through_every_percentile(count: int) -> None:
    latency = histogram(count, count)
    read_again = Result.from_json(closed(latency=latency))
    (line,) = by_percentile([("a run", read_again)]).lines
    assert read_again.latency is not None
    assert line.points[-1] == (math.log10(count), read_again.latency.max / 1e3)
    assert line.points[0][1] == read_again.latency.min / 1e3
    assert [x for x, _ in line.points] == sorted({x for x, _ in line.points})
    for nines, us in line.points[1:-1]:
        assert us == read_again.latency.percentile(100 * (1 - 10**-nines)) / 1e3


def test_several_runs_are_compared_with_the_first() -> None:
    words = words_of(page_of("three"))
    assert "3 runs compared" in words
    assert "before" in words and "after" in words
    assert "\u00d7 1" in words and "within noise" in words
    for title in ("p50 over time", "p99 over time", "max over time"):
        assert title in words


def test_runs_of_one_name_are_told_apart() -> None:
    words = words_of(page([result("same"), result("same")]))
    assert "same (1)" in words and "same (2)" in words


def test_merged_run_names_its_parts() -> None:
    words = words_of(page_of("merged"))
    assert "node-1, node-2" in words and "+0.5 ms" in words


def test_clock_of_a_part_is_shown_with_what_it_may_be_off() -> None:
    part = {"host": "node-1", "offset_ms": 1.25, "offset_uncertain_ms": 0.3}
    lost = {"label": "node-2", "lost": "it left the cluster"}
    words = words_of(page([result(parts=[part, lost])]))
    assert "+1.25 ms +-0.3 ms" in words
    assert "+0 ms" not in words and " on node-1, fastecho" in words


def test_search_is_shown_with_its_steps() -> None:
    step = {"rate_per_s": 4000.0, "messages_per_s": 3990.0, "holds": False, "why": HOSTILE}
    best = {"rate_per_s": 2000.0, "messages_per_s": 1999.0, "holds": True, "why": "p99 is 80 us"}
    search = {"limit": "p99<1ms", "rate_per_s": 2000.0, "steps": [step, best]}
    text = page([result(search=search)])
    words = words_of(text)
    assert "Search 2,000 messages/s held p99<1ms; 4,000 did not (2 steps)." in words
    assert f"4,0003,990{HOSTILE}" in words and "2,0001,999p99 is 80 us" in words
    assert "<script" not in text
    assert "Search" not in words_of(page([result()]))


def test_one_is_no_plural_and_nothing_is_not_right() -> None:
    words = words_of(page([short()]))
    assert "1 message sent in 0.5 s, every byte right." in words
    words = words_of(page([closed(failures={"extra_bytes": 1}, reopened=1, held=1)]))
    assert "byte too many1nothing was due" in words
    assert "1 connection was opened again" in words and "1 message had to wait" in words
    words = words_of(page([empty()]))
    assert "No message came back right within the timeout, in 10 s." in words
    assert "every byte right" not in words


def test_long_run_is_drawn_in_few_points_and_its_worst_stays_visible() -> None:
    data = result()
    one = data["intervals"][0]
    data["intervals"] = [
        {**one, "start_s": float(n), "max_us": 3e6 if n == 77_777 else 100.0} for n in range(86_400)
    ]
    text = page([data])
    assert len(text) < 400_000
    assert "max at most 3 s" in text


def test_picture_is_one_svg_with_a_paper_of_its_own() -> None:
    text = picture([result()])
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert "prefers-color-scheme:dark" in text
    # Nobody can point at a place of an <img>: there are no values to show.
    assert [rect.get("class") for rect in root.iter(f"{SVG}rect")] == ["paper"]


@pytest.mark.parametrize("make", [page, picture])
def test_nothing_to_show_is_a_sentence(make: Callable[[list[dict[str, Any]]], str]) -> None:
    with pytest.raises(ValueError, match="no result to show"):
        make([])
    with pytest.raises(ValueError, match="is not a result of fastecho bench"):
        make([{"format": "something else"}])


def test_picture_without_a_reply_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="no reply came"):
        picture([empty()])


def test_without_the_extra_one_sentence_names_it() -> None:
    code = (
        "import sys; sys.modules['drawsvg'] = None\n"
        "from fastecho.errors import ExtensionMissingError\n"
        "try:\n    import fastecho.measure.page\n"
        "except ExtensionMissingError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert done.stdout == (
        "charts need drawsvg, which is not installed: "
        "pip install 'fastecho[report]', or '.[report]' in a checkout\n"
    )
