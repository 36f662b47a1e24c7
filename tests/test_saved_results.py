"""Saved results are read back; any other file is one sentence that names it."""

from __future__ import annotations

import copy
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_results import made, without_edges

from fastecho.cli._summary import summary
from fastecho.errors import ConfigError
from fastecho.measure.compare import compare, merge
from fastecho.measure.saved import read

RUN = made(1, seconds=3, label="run").to_json()


def saved(folder: Path, text: str | bytes) -> Path:
    path = folder / "run.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(*events: dict[str, Any]) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


def test_json_is_read_back(tmp_path: Path) -> None:
    again = read(saved(tmp_path, json.dumps(RUN, indent=1))).to_json()
    assert without_edges(again) == without_edges(RUN)


def test_lines_of_json_are_read_back(tmp_path: Path) -> None:
    intervals = [{"event": "interval", **one} for one in RUN["intervals"]]
    text = lines(*intervals, {"event": "result", **RUN})
    for one in (text, lines({"event": "result", **RUN})):
        again = read(saved(tmp_path, one)).to_json()
        assert without_edges(again) == without_edges(RUN)


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
SMALL = merge(PARTS).to_json()
STRANGE: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 10**30, 10**400, 1e308, -1e308, float("inf"), 5e-324, "", "x", "\x1b[2J",
     "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+14:00", [], [[]], [None], {}, {"a": []}]
)  # fmt: skip


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(places(SMALL)), STRANGE), min_size=1, max_size=3))
def test_any_value_anywhere_is_shown_or_refused(
    tmp_path: Path, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    data = copy.deepcopy(SMALL)
    for way, value in changes:
        place: Any = data
        try:
            for key in way[:-1]:
                place = place[key]
            place[way[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took it away
    path = saved(tmp_path, json.dumps(data))
    try:
        result = read(path)
        shown = summary(result, color=False, unicode=True, width=80)
        compare([PARTS[0], result])
        merge([PARTS[0], result])
    except ValueError as error:
        shown = str(error)
    assert shown.replace("\n", "").isprintable()
