"""Saved results are read back; any other file is one sentence that names it."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_results import made

from fastecho._load import Histogram
from fastecho.cli import main
from fastecho.cli._summary import summary
from fastecho.errors import ConfigError
from fastecho.measure import saved as saved_module
from fastecho.measure.compare import compare, merge
from fastecho.measure.histograms import encode
from fastecho.measure.result import Result
from fastecho.measure.saved import read

RUN = made(1, seconds=3, label="run").to_json()


DEEP: Any = json.loads("[" * 900 + "]" * 900)


def saved(folder: Path, text: str | bytes) -> Path:
    path = folder / "run.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(*events: dict[str, Any]) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


def test_json_is_read_back(tmp_path: Path) -> None:
    again = read(saved(tmp_path, json.dumps(RUN, indent=1))).to_json()
    assert again == RUN


def test_lines_of_json_are_read_back(tmp_path: Path) -> None:
    intervals = [{"event": "interval", **one} for one in RUN["intervals"]]
    text = lines(*intervals, {"event": "result", **RUN})
    for one in (text, lines({"event": "result", **RUN})):
        again = read(saved(tmp_path, one)).to_json()
        assert again == RUN


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO(json.dumps(RUN).encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))
    assert read("-").label == "run"
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigError, match="standard input, which is closed"):
        read("-")


INTERVAL = {"event": "interval", **RUN["intervals"][0]}
WHOLE = json.dumps(RUN)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("\n  \n", "is empty"),
        (b"\xff\xfe\x00", "is no JSON: it is not even text"),
        ("root:x:0:0\nbin:x:1:1\n", "is no JSON, or is cut"),
        (WHOLE[:-20], "is no JSON, or is cut"),
        (json.dumps(RUN, indent=1)[:-20], "is no JSON, or is cut"),
        (lines(INTERVAL, INTERVAL), "ends before its result: the run was broken off"),
        (lines(INTERVAL), "ends before its result: the run was broken off"),
        (lines(INTERVAL, {"event": "step"}), "ends before its result: the run was broken off"),
        (lines(INTERVAL, {"event": "result", **RUN})[:-30], "is cut: its last line is no JSON"),
        ("[1, 2]", "is JSON, but not a result of fastecho bench"),
        ("{}", "is JSON, but not a result of fastecho bench: it names no format"),
        ('{"format": "wrk"}', "not a result of fastecho bench: its format is 'wrk'"),
        ("[" * 100_000, "is no JSON, or is cut"),
        ("1" * 5000, "is no JSON, or is cut"),
        (json.dumps({**RUN, "version": 2}), "has version 2: this reads 1"),
        (json.dumps({**RUN, "messages": -1}), "has -1 for 'messages'"),
        (json.dumps({**RUN, "messages": 10**400}), "for 'messages'"),
        (json.dumps({**RUN, "elapsed_s": float("nan")}), "has nan for 'elapsed_s'"),
        (json.dumps({**RUN, "elapsed_s": -1}), "has -1 for 'elapsed_s': it must be a number, not"),
        (json.dumps({**RUN, "described": DEEP}), "for 'described': it must be text"),
        (json.dumps({**RUN, "label": DEEP}), "for 'label': it must be text"),
        (json.dumps({**RUN, "run": 7}), "has 7 for 'run': it must be text"),
        (json.dumps({**RUN, "search": {"steps": [1]}}), "has a step of a search that is no object"),
        (json.dumps({**RUN, "started_at": "0001-01-01T00:00:00"}), "it must be a time since 1970"),
        (json.dumps({**RUN, "started_at": "9999-12-31T23:59:59"}), "it must be a time since 1970"),
        (json.dumps({**RUN, "plan": 3}), "has 'plan' that is no object"),
        (json.dumps({**RUN, "plan": {}}), "has a plan that is not valid"),
        (json.dumps({**RUN, "started_at": "noon"}), "has 'noon' for 'started_at'"),
        (json.dumps({**RUN, "histograms": {"latency": "HISTFAAA"}}), "is damaged: the histogram"),
        (json.dumps({**RUN, "histograms": {"latency": 3}}), "is damaged: a histogram is a text"),
    ],
)
def test_file_that_is_no_result_is_one_sentence(
    text: str | bytes, said: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert caught.value.option == "file" and caught.value.value == str(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [("nothing.json", "No such file"), (".", "Is a directory"), ("a\0b", "embedded null")],
)
def test_file_that_cannot_be_read_is_named(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"cannot be read: {said}"):
        read(f"{tmp_path}/{name}")


def test_mark_before_the_text_is_no_damage(tmp_path: Path) -> None:
    assert read(saved(tmp_path, b"\xef\xbb\xbf" + WHOLE.encode())).label == "run"


def test_endless_file_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_module, "LARGEST", 1 << 20)
    with pytest.raises(ConfigError, match="is no result of fastecho bench: it has more than 1 MiB"):
        read("/dev/zero")


def test_rate_of_a_short_window_can_be_saved(tmp_path: Path) -> None:
    short = read(saved(tmp_path, json.dumps({**RUN, "messages": 2**62, "elapsed_s": 1e-9})))
    survives(merge([short]))


def test_only_what_is_plain_is_kept_of_a_host(tmp_path: Path) -> None:
    host = {"name": "a", "cpus": 2, "x": [1], "y": float("nan"), "z": 10**400}
    assert read(saved(tmp_path, json.dumps({**RUN, "host": host}))).host == {"name": "a", "cpus": 2}


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value inside of a JSON object."""
    inside = data.items() if isinstance(data, dict) else enumerate(data)
    found = []
    for key, value in inside:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += places(value, (*path, key))
    return found


PARTS = [made(n, seconds=1, rate=5, host={"offset_ms": 0.1, "cpus": 2}) for n in (2, 3)]
OTHER = Result.from_json(made(4, seconds=1, rate=5).to_json())
SMALL = merge(PARTS).to_json()
SMALL["search"] = {
    "limit": "p99<1ms",
    "rate_per_s": 200.0,
    "steps": [{"rate_per_s": 200.0, "messages_per_s": 199.5, "holds": True, "why": "p99 is 1 us"}],
}
MANY = Histogram()
MANY.record(25_000, 2**62)
STRANGE: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 1, 2**62, 10**30, 10**400, 1e308, -1e308, float("inf"), float("nan"),
     5e-324, 1e-9, 1e18, "", "x", "\x1b[2J", "\ud800", "\0", "9999-12-31T23:59:59.999999Z",
     "0001-01-01T00:00:00+14:00", "1970-01-01T00:00:00+14:00", [], [[]], [None], {}, {"a": []},
     DEEP, "HISTFAAA", encode(MANY), encode(Histogram())]
)  # fmt: skip


def changed(changes: list[tuple[tuple[Any, ...], Any]]) -> dict[str, Any]:
    """Return SMALL with other values at some places."""
    data = copy.deepcopy(SMALL)
    for way, value in changes:
        place: Any = data
        try:
            for key in way[:-1]:
                place = place[key]
            place[way[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took it away
    return data


CHANGES = st.lists(st.tuples(st.sampled_from(places(SMALL)), STRANGE), min_size=1, max_size=3)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(CHANGES)
def test_any_value_anywhere_is_shown_or_refused(
    tmp_path: Path, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    path = saved(tmp_path, json.dumps(changed(changes)))
    try:
        result = read(path)
        text = summary(result, color=False, unicode=True, width=80)
        survives(result)
        compare([OTHER, result])
        survives(merge([OTHER, result]))
    except ValueError as error:
        text = str(error)
    assert text.replace("\n", "").isprintable()


def survives(result: Result) -> None:
    """Assert that what was read or added up can be saved and read again."""
    try:
        again = Result.from_json(json.loads(json.dumps(result.to_json(), allow_nan=False)))
    except ValueError as error:
        raise AssertionError(error) from error
    assert again.to_json() == result.to_json()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(CHANGES)
def test_report_of_any_values_ends_with_a_result_or_a_sentence(
    tmp_path: Path, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    pytest.importorskip("drawsvg")
    path = str(saved(tmp_path, json.dumps(changed(changes))))
    other = tmp_path / "other.json"
    other.write_text(json.dumps(OTHER.to_json()))
    for words in ([path], [str(other), path], ["--merge", str(other), path]):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(["report", *words, "--html", str(tmp_path / "page.html")])
        assert code in (0, 2) and "internal error" not in said.getvalue(), said.getvalue()
