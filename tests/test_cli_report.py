"""`fastecho report`: shows, compares and adds up saved results; wrong files are one sentence."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import assert_refused, run
from made_results import made
from terminal import Terminal

from fastecho.cli import main
from fastecho.measure.histograms import hgrm
from fastecho.measure.result import Result
from fastecho.measure.saved import read

Save = Callable[..., str]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Return what saves a made result and gives the file's name."""

    def save(name: str, seed: int = 1, **settings: Any) -> str:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(made(seed, **{"label": name, **settings}).to_json()))
        return str(path)

    return save


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return what runs `fastecho report` in this process: exit code, stdout, stderr."""

    def report(*arguments: str) -> tuple[int, str, str]:
        code = main(["report", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return report


Report = Callable[..., tuple[int, str, str]]


def test_one_file_is_shown_as_bench_shows_it(save: Save, report: Report) -> None:
    code, out, err = report(save("before"))
    assert (code, err) == (0, "")
    assert "label      before\n" in out
    assert re.search(r"^p99 +\d+\.\d us$", out, re.M)
    assert "failures   none" in out


def test_failures_of_a_saved_run_do_not_fail_the_report(save: Save, report: Report) -> None:
    code, out, _ = report(save("bad", failures={"lost": 3}))
    assert code == 0 and "3 lost" in out


def test_two_files_are_compared_with_the_first(save: Save, report: Report) -> None:
    code, out, err = report(save("before", us=30.0), save("after", 2, us=20.0, rate=400))
    assert (code, err) == (0, "")
    assert out.startswith("baseline   before (node-1)\ncompared   after (node-1)\n")
    assert re.search(r"^rate +\d+/s +\d+/s +1\.\d+ +1\.\d+ and 1\.\d+ +\d+\.\d % more$", out, re.M)
    assert re.search(r"^p99 .* 0\.\d+ and 0\.\d+ +\d+\.\d % less$", out, re.M)


def test_noise_is_called_noise(save: Save, report: Report) -> None:
    _, out, _ = report(save("one", 1), save("other", 2))
    assert re.search(r"^p50 .* within noise$", out, re.M)


def test_short_runs_cannot_tell(save: Save, report: Report) -> None:
    _, out, _ = report(save("one", 1, seconds=2), save("other", 2, seconds=2))
    assert out.count("cannot tell: too few intervals") == 6
    _, out, _ = report(save("one"), save("none", rate=0, messages=0, latency=None, intervals=[]))
    assert out.count("no replies to compare") == 6


def test_much_more_is_told_as_times(save: Save, report: Report) -> None:
    _, out, _ = report(save("one", us=10.0), save("other", 2, us=45.0))
    assert re.search(r"^p50 .* 4\.\d times as much$", out, re.M)


def test_each_of_several_files_is_compared(save: Save, report: Report) -> None:
    names = [save(name, n) for n, name in enumerate(["a", "b", "c"])]
    _, out, _ = report(*names)
    assert re.findall(r"^compared +(\w)", out, re.M) == ["b", "c"]
    _, out, _ = report(*names, "--baseline", names[2])
    assert re.findall(r"^baseline +(\w)", out, re.M) == ["c", "c"]
    assert re.findall(r"^compared +(\w)", out, re.M) == ["a", "b"]


def test_baseline_may_be_a_further_file(save: Save, report: Report) -> None:
    _, out, _ = report(save("after", 2), "--baseline", save("before"))
    assert out.startswith("baseline   before (node-1)\ncompared   after (node-1)\n")


def test_different_loads_are_noted(save: Save, report: Report) -> None:
    _, out, _ = report(save("one"), save("other", 2, plan={"size": "1024"}))
    assert "note: the loads differ: size 64 bytes and 1024 bytes\n" in out


def test_merged_files_are_one_run(save: Save, report: Report, tmp_path: Path) -> None:
    files = [save(f"n{n}", n, label="all", host={"name": f"node-{n}"}) for n in range(3)]
    whole = str(tmp_path / "whole.json")
    code, out, err = report("--merge", *files, "--json", whole)
    assert (code, err) == (0, "")
    assert "merged     3 runs" in out
    parts = [read(name) for name in files]
    merged = read(whole)
    assert merged.messages == sum(part.messages for part in parts)
    assert [part["host"] for part in merged.parts] == ["node-0", "node-1", "node-2"]
    # A merged result is a result: it can be written again, shown and compared.
    Path(whole).unlink()
    assert report("--merge", *files, "--json", whole)[0] == 0
    assert "merged     3 runs" in report(whole)[1]
    assert "compared" in report("--merge", *files, "--baseline", whole)[1]


def test_different_loads_are_not_merged(save: Save) -> None:
    done = run("report", "--merge", save("a"), save("b", plan={"connections": 99}))
    assert_refused(done, 2, "a (node-1) and b (node-1) are runs of different loads: connections 10")


def test_same_run_is_not_merged_twice(save: Save, tmp_path: Path) -> None:
    one, other = save("one"), save("other", 2)
    copy = tmp_path / "copy.json"
    copy.write_bytes(Path(one).read_bytes())
    done = run("report", "--merge", one, other, str(copy))
    assert_refused(done, 2, f"copy.json' holds the same run as {one}: it would be counted twice")
    done = run("report", "--merge", one, other, one)
    assert_refused(done, 2, "one.json' is given twice: it would be counted twice")


def test_same_run_beside_itself_is_noted(save: Save, report: Report) -> None:
    one = save("one")
    assert "note: both hold the same run: they are no two measurements\n" in report(one, one)[1]
    assert "note" not in report(one, save("other", 2))[1]


SEARCH: dict[str, Any] = {
    "limit": "p99<1ms",
    "rate_per_s": 2000.0,
    "steps": [
        {"rate_per_s": 4000.0, "messages_per_s": 3990.0, "holds": False, "why": "p99 is 2 ms"},
        {"rate_per_s": 2000.0, "messages_per_s": 1999.5, "holds": True, "why": "p99 is 80 us"},
    ],
}


def test_search_of_a_saved_run_is_shown_and_saved_again(
    save: Save, report: Report, tmp_path: Path
) -> None:
    again = str(tmp_path / "again.json")
    code, out, err = report(save("best", search=SEARCH), "--json", again)
    assert (code, err) == (0, "")
    assert (
        "search     2,000 messages/s held p99<1ms; 4,000 did not (2 steps)\n"
        "           4,000 messages/s: p99 is 2 ms\n"
        "           2,000 messages/s: p99 is 80 us\n"
    ) in out
    assert json.loads(Path(again).read_text())["search"] == SEARCH
    assert report(again)[1] == out


def test_search_is_left_out_of_sums_and_comparisons_in_words(save: Save, report: Report) -> None:
    best, other = save("best", search=SEARCH), save("other", 2)
    _, out, err = report("--merge", best, other)
    assert "search" not in out
    assert err == (
        "fastecho report: --merge leaves out the steps of --find-max: they are not runs of one "
        "load\n"
    )
    note = "best (node-1) is a step of a search for p99<1ms: the others are left out"
    assert f"note: {note}\n" in report(other, best)[1]


def test_search_without_a_rate_that_held_says_so(save: Save, report: Report) -> None:
    search = {"limit": "p99<1ns", "rate_per_s": None, "steps": SEARCH["steps"][:1]}
    assert "search     no rate held p99<1ns in 1 step\n" in report(save("none", search=search))[1]


def test_label_that_the_encoding_lacks_is_escaped(save: Save) -> None:
    done = run("report", save("run"), "--label", "é", PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("label      \\xe9\n")


def test_full_disk_is_one_sentence_and_the_text_is_there(save: Save) -> None:
    for words in ([save("a")], [save("a"), save("b", 2)]):
        done = run("report", *words, "--json", "/dev/full")
        assert done.returncode == 1 and "p99" in done.stdout
        assert done.stderr == "fastecho report: /dev/full: No space left on device\n"


def test_pipe_is_written_without_being_read_first(save: Save, tmp_path: Path) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)  # opens without waiting, and holds what is written
    try:
        done = run("report", save("run", seconds=1), "--json", pipe)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(os.read(held, 1 << 16))["label"] == "run"
    finally:
        os.close(held)


def test_help_names_every_exit_code_and_what_the_page_needs() -> None:
    text = " ".join(run("report", "--help").stdout.split())
    assert "(needs fastecho[report])" in text
    for said in ("Exit code 0 ", " 1 if ", " 2 for ", " 3 if ", " 4 if "):
        assert said in text


def test_label_names_what_is_shown(save: Save, report: Report) -> None:
    _, out, _ = report("--merge", save("a"), save("b"), "--label", "both")
    assert out.startswith("label      both\n")


def test_json_goes_to_stdout_and_text_to_stderr(save: Save, report: Report) -> None:
    name = save("run")
    code, out, err = report(name, "--json")
    assert code == 0
    assert json.loads(out) == read(name).to_json()
    assert "label      run\n" in err


def test_comparison_is_json_too(save: Save, report: Report) -> None:
    _, out, err = report(save("before", us=30.0), save("after", 2, us=20.0), "--json")
    data = json.loads(out)
    assert (data["format"], data["version"]) == ("fastecho-comparison", 1)
    (one,) = data["comparisons"]
    assert (one["baseline"], one["name"]) == ("before (node-1)", "after (node-1)")
    assert one["figures"]["latency_us.p99"]["verdict"] == "less"
    assert "99 % between" in err


def test_hgrm_is_that_of_the_latency(save: Save, report: Report) -> None:
    name = save("run")
    latency = read(name).latency
    assert latency is not None
    assert report(name, "--hgrm")[1] == hgrm(latency)


def test_lines_of_json_are_read(save: Save, report: Report, tmp_path: Path) -> None:
    data = json.loads(Path(save("run")).read_text())
    lines = tmp_path / "run.jsonl"
    events = [{"event": "interval", **one} for one in data["intervals"]]
    events.append({"event": "result", **data})
    lines.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert "label      run\n" in report(str(lines))[1]


def test_rule_that_came_true_is_exit_code_3(save: Save, report: Report) -> None:
    slow = save("slow", us=30.0)
    code, out, err = report(slow, "--fail-if", "p99>1us", "--fail-if", "failures>0")
    assert code == 3 and "p99" in out
    assert re.fullmatch(rf"fastecho report: {slow}: --fail-if p99>1us came true: .*us\n", err)
    assert report(slow, "--fail-if", "p99>1s")[0] == 0


def test_baseline_is_not_judged(save: Save, report: Report) -> None:
    slow, fast = save("slow", us=900.0), save("fast", 2)
    assert report(slow, fast, "--fail-if", "p50>500us")[0] == 0
    code, _, err = report(fast, slow, "--fail-if", "p50>500us")
    assert code == 3 and slow in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("no json", "is no JSON, or is cut"),
        ('{"format": "fastecho-bench", "version": 9}', "has version 9: this reads 1"),
        ('{"name": "wrk"}', "is JSON, but not a result of fastecho bench"),
        ('{"event": "interval"}\n{"event": "interval"}\n', "the run was broken off"),
    ],
)
def test_file_that_is_no_result_is_exit_code_2(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    done = run("report", str(path))
    assert_refused(done, 2, said)
    assert "x.json" in done.stderr


def test_damaged_histogram_of_an_interval_is_one_sentence(save: Save, tmp_path: Path) -> None:
    data = json.loads(Path(save("run")).read_text())
    data["intervals"][3]["histogram"] = "HISTFAAA"
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(data))
    for words in ([save("a"), str(path)], ["--merge", save("a"), str(path)]):
        assert_refused(run("report", *words), 2, "bad.json' has a damaged interval")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "FILE '' is missing: name a result that bench --json has saved"),
        (["--json", "A"], "was taken for a file to write: name the files to read before --json"),
        (["A", "--json", "A"], "is also a file to read: it would be overwritten"),
        (["A", "--html", "B"], "is a saved run, and would be overwritten"),
        (["--json", "A", "B"], "is a saved run, and would be overwritten"),
        (["A", "--json", "LINES"], "is a saved run, and would be overwritten"),
        (["A", "B", "--hgrm"], "--hgrm '-' is for one result: name one file, or use --merge"),
        (["A", "B", "--label", "x"], "--label 'x' names one result"),
        (["A", "--baseline", "A"], "is the only result: name another FILE"),
        (["-", "-"], "is standard input, which can be read once"),
        (["A", "--fail-if", "fast"], "--fail-if 'fast' must be METRIC>VALUE"),
        (["A", "--fail-if", "service.p99>1ms"], "needs an open loop"),
        (["A", "--json", "/nowhere/x"], "is in a folder that does not exist"),
        (["A", "--json", "--hgrm"], "is wanted by --json as well"),
        (["A", "--marge"], "there is no option '--marge': did you mean --merge?"),
    ],
)
def test_wrong_use_is_one_sentence_and_nothing_is_written(
    arguments: list[str], said: str, save: Save, tmp_path: Path
) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"event": "interval", "start_s": 0.0}\n')  # of a run that was broken off
    files = {"A": save("a"), "B": save("b", 2), "LINES": str(lines)}
    before = {name: Path(path).read_bytes() for name, path in files.items()}
    assert_refused(run("report", *(files.get(one, one) for one in arguments)), 2, said)
    assert before == {name: Path(path).read_bytes() for name, path in files.items()}


def test_run_without_replies_has_no_hgrm(save: Save, report: Report) -> None:
    name = save("none", rate=0, messages=0, latency=None, intervals=[])
    assert Result.from_json(json.loads(Path(name).read_text())).latency is None
    code, out, err = report(name, "--hgrm")
    assert (code, out) == (2, "") and "holds no latencies" in err


def test_terminal_gets_blocks_and_colours(save: Save) -> None:
    name = save("run", failures={"lost": 1})
    with Terminal(["report", name], columns=80, rows=40) as terminal:
        terminal.wait_for_rows("           the generator had time to spare")
        assert "█" in terminal.screen.text()
        assert b"\x1b[31m1 lost\x1b[0m" in terminal.raw
        assert terminal.wait_for_exit() == 0


def test_no_color_is_obeyed(save: Save) -> None:
    name, other = save("run", failures={"lost": 1}), save("other", 2, us=99.0)
    for words in ([name], [name, other]):
        variables = {"NO_COLOR": "1"}
        with Terminal(["report", *words], columns=80, rows=40, variables=variables) as terminal:
            assert terminal.wait_for_exit() == 0
        assert b"\x1b" not in terminal.raw
        assert len(terminal.raw) > 300


def test_output_without_blocks_gets_ascii(save: Save) -> None:
    done = run("report", save("run"), PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "####" in done.stdout and done.stdout.isascii()
