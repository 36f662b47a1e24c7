"""`fastecho bench` as a command: what it says, what it writes, and the code that it exits with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND, DEADLINE, assert_refused, environment, run, serving
from load_servers import hold
from load_servers import serving as handling
from peers import wait_until
from terminal import Terminal
from wrong_servers import address_of, flips, web_server

from fastecho.measure import Result
from fastecho.measure.plan import OPTIONS


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """Return the address of a `fastecho serve`."""
    with serving("--threads=1", "--drain-idle=0") as server:
        yield server.addresses[0]
        server.end(signal.SIGTERM)


def test_a_run_says_first_what_it_does_and_at_the_end_what_it_found(target: str) -> None:
    done = run("bench", target, "-c", "2", "-d", "200ms")
    assert done.returncode == 0
    assert done.stderr == (
        f"{target}: 2 connections for 200 ms, messages of 64 bytes. Closed loop: each connection "
        "sends the next message when the reply is in.\n"
    )
    for words in ("closed loop", "messages/s", "p99.99", "failures   none", "generator"):
        assert words in done.stdout
    assert "\x1b" not in done.stdout


def test_an_open_loop_says_so(target: str) -> None:
    done = run("bench", target, "-R", "1k", "-d", "200ms")
    assert done.returncode == 0
    assert "open loop" in done.stdout
    assert "service time" in done.stdout


def test_wrk_s_letters_and_the_long_names_are_the_same(target: str) -> None:
    short = ["-c4", "-t2", "-d2s", "-R200", "-p3", "-s128", "-n60"]
    long = ["--connections=4", "--threads=2", "--duration=2s", "--rate=200", "--depth=3",
            "--size=128", "--messages=60"]  # fmt: skip
    plans = []
    for words in (short, long):
        done = run("bench", target, *words, "--json")
        assert done.returncode == 0, done.stderr
        plans.append(json.loads(done.stdout)["plan"])
    assert plans[0] == plans[1]
    assert (plans[0]["connections"], plans[0]["rate_per_s"], plans[0]["depth"]) == (4, 200.0, 3)


def test_help_names_every_option_with_its_default() -> None:
    text = " ".join(run("bench", "--help", COLUMNS="200").stdout.split())
    for option in OPTIONS:
        assert f" {option.flag}" in text
        assert option.help.split(",")[0] in text
    for flag in ("--fail-if", "--find-max", "--server", "--start-at", "--json", "--jsonl",
                 "--hgrm", "--html", "--live"):  # fmt: skip
        assert flag in text
    for said in ("after its message was given to a connection is late", "tried a second time",
                 "latencies in microseconds"):  # fmt: skip
        assert said in text


# --- what it writes -------------------------------------------------------------------------


def test_json_on_stdout_leaves_the_text_to_stderr(target: str) -> None:
    done = run("bench", target, "-d", "200ms", "--label", "before", "--json")
    assert done.returncode == 0
    data = json.loads(done.stdout)
    assert data["label"] == "before"
    assert Result.from_json(data).messages == data["messages"] > 0
    assert "p99.99" in done.stderr


def test_results_go_to_their_files(target: str, tmp_path: Path) -> None:
    files = {name: tmp_path / f"result.{name}" for name in ("json", "jsonl", "hgrm")}
    files["jsonl"].write_text("an old line\n")
    words = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    done = run("bench", target, "-d", "400ms", "--interval", "100ms", *words)
    assert done.returncode == 0, done.stderr
    assert "p99.99" in done.stdout
    data = json.loads(files["json"].read_text())
    lines = [json.loads(line) for line in files["jsonl"].read_text().splitlines()]
    assert [line.pop("event") for line in lines] == ["interval"] * (len(lines) - 1) + ["result"]
    assert lines[-1] == data
    assert lines[:-1] == data["intervals"]
    assert files["hgrm"].read_text().lstrip().startswith("Value")


def test_lines_come_while_the_run_lasts(target: str) -> None:
    words = ["bench", target, "-d", "30s", "--interval", "100ms", "--jsonl"]
    with subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=DEADLINE)
    assert first["event"] == "interval"
    assert json.loads(rest.splitlines()[-1])["event"] == "result"
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_show_what_there_is(target: str, number: int) -> None:
    with subprocess.Popen(
        [*COMMAND, "bench", target, "-d", "30s", "--interval", "100ms", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()
        time.sleep(0.5)  # into the window; where in it does not matter
        process.send_signal(number)
        out, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, said
    data = json.loads(out)
    assert 0 < data["elapsed_s"] < 20
    assert data["messages"] > 0


def test_ctrl_c_before_anything_came_back_is_130() -> None:
    with (
        handling(hold) as served,
        subprocess.Popen(
            [*COMMAND, "bench", address_of(served), "--timeout", "1s"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as process,
    ):
        wait_until(lambda: served.peers)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in said


# --- exit codes -----------------------------------------------------------------------------


def test_a_rule_that_comes_true_is_named_and_exit_code_3(target: str) -> None:
    done = run("bench", target, "-d", "200ms", "--fail-if", "p99>1us", "--fail-if", "rate<1",
               "--fail-if", "mean>2us")  # fmt: skip
    assert done.returncode == 3
    said = done.stderr.splitlines()[1:]
    assert [line.partition(":")[2].split(" came true: ")[0] for line in said] == [
        " --fail-if p99>1us", " --fail-if mean>2us",
    ]  # fmt: skip
    assert said[0].startswith("fastecho bench: --fail-if p99>1us came true: p99 is ")
    assert run("bench", target, "-d", "200ms", "--fail-if", "p99>10s").returncode == 0


def test_a_failure_is_exit_code_1() -> None:
    with handling(flips) as served:
        done = run("bench", address_of(served), "-c", "1", "-n", "20")
        assert done.returncode == 1
        assert "1 corrupt" in done.stdout
        assert "message 9: byte 5 of the reply" in " ".join(done.stdout.split())
        done = run("bench", address_of(served), "-c", "1", "-n", "20", "--fail-if", "corrupt>0")
        assert done.returncode == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "target '' is missing: write HOST:PORT, or --server"),
        (["nowhere"], "target 'nowhere' has no port: write HOST:PORT"),
        (["a:1", "b:0"], "target 'b:0' has port 0"),
        (["--json", "a:1"], "--json 'a:1' was taken for a file: write the target before --json"),
        (["--html", "a:1"], "--html 'a:1' was taken for a file: write the target before --html"),
        (["--server", "a:1"], "--server 'a:1' takes no target: it starts its own"),
        (["a:1", "-c", "0"], "--connections '0' must be a whole number from 1 to 1048576"),
        (["a:1", "-c", "-1"], "--connections '-1' must be a whole number"),
        (["a:1", "-t", "11"], "--connections 10 is less than --threads 11: each thread needs one"),
        (["a:1", "-d", "5x"], "--duration '5x' must be a time such as 10, 10s, 500ms or 2m"),
        (["a:1", "-R", "fast"], "--rate 'fast' must be messages a second, such as 50000 or 50k"),
        (["a:1", "-s", "9:3"], "--size '9:3' has its larger size first"),
        (["a:1", "--expect-prefix", "x"], "--expect-prefix 'x' needs --frame line or length"),
        (["unix:/x", "--source", "127.0.0.1"], "--source '127.0.0.1' has no effect"),
        (["a:1", "--reconnect", "-R", "5k"], "--rate '5k' does not go together with --reconnect"),
        (["a:1", "--ramp", "10s"], "--ramp '10s' does not end before the run: --duration and"),
        (["a:1", "--schedule", "poisson"], "has no effect without --rate or --find-max"),
        (["a:1", "--find-max", "failures<1"], "--find-max 'failures<1' limits no latency"),
        (["a:1", "--source", "here"], "--source 'here' must be a numeric address"),
        (["a:1", "--fail-if", "p99>2"], "'p99>2' needs a unit of time: us, ms, s, m or h"),
        (["a:1", "--fail-if", "service.p99>2ms"], "needs an open loop (--rate)"),
        (["a:1", "--find-max", "p99>2ms"], "must be a limit to hold, such as p99<1ms"),
        (["a:1", "--find-max", "p99<2ms", "-n", "5"], "needs steps of a --duration"),
        (["a:1", "--find-max", "p99<2ms", "--reconnect"], "does not go together with --reconnect"),
        (["a:1", "--find-max", "p99<2ms", "--start-at", "23:00"], "with --find-max"),
        (["a:1", "--start-at", "soon"], "--start-at 'soon' must be a time such as"),
        (
            ["a:1", "--start-at", "2001-01-01T00:00:00Z"],
            "--start-at '2001-01-01T00:00:00Z' is over",
        ),
        (["a:1", "--json", "--jsonl"], "is wanted by --json as well: give one of them a file"),
        (["a:1", "--json", "/nowhere/x"], "is in a folder that does not exist: /nowhere"),
        (["a:1", "--hgrm", "/"], "--hgrm '/' is a folder"),
        (["a:1", "--json="], "--json '' is no file"),
        (["a:1", "--sorce", "x"], "there is no option '--sorce': did you mean --source?"),
        (["a:1", "-c"], "needs a value"),
        (["a:1", "--reconnect=5"], "--reconnect takes no value, and was given '5'"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_exit_code_2(words: list[str], sentence: str) -> None:
    assert_refused(run("bench", *words), 2, sentence)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["unix:/nowhere/echo"], "unix:/nowhere/echo does not exist"),
        (["no.such.name.invalid:7"], "no.such.name.invalid:7 does not resolve"),
        (
            ["127.0.0.1:7", "--source", "127.0.0.1,192.0.2.1"],
            "bench: --source 192.0.2.1 is no address of this machine",
        ),
        (["127.0.0.1:7", "-c", "1000000"], "1000000 connections need"),
    ],
)
def test_what_cannot_start_is_one_sentence_and_exit_code_4(words: list[str], sentence: str) -> None:
    done = run("bench", *words)
    announced, _, done.stderr = done.stderr.partition("\n")
    assert "10 connections" in announced or "1,000,000 connections" in announced
    assert_refused(done, 4, sentence)


@pytest.mark.parametrize(
    ("handler", "sentence"),
    [(web_server, "answered, but not with what was sent: no echo server"),
     (hold, "took the connection, but nothing came back within 200 ms")],
)  # fmt: skip
def test_no_echo_server_is_one_sentence_and_exit_code_4(handler: Any, sentence: str) -> None:
    with handling(handler) as served:
        done = run("bench", address_of(served), "--timeout", "200ms")
    done.stderr = done.stderr.partition("\n")[2]
    assert_refused(done, 4, sentence)


def test_a_disk_that_is_full_is_one_sentence(target: str) -> None:
    done = run("bench", target, "-d", "100ms", "--json", "/dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("No space left on device")
    assert "Traceback" not in done.stderr


# --- the search, the server, the terminal ---------------------------------------------------


def test_the_search_shows_its_steps_and_what_it_found(target: str) -> None:
    done = run("bench", target, "-c", "2", "-d", "100ms", "-R", "500", "--find-max", "p50<5s",
               "--jsonl")  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert "Open loop: searches the highest rate with p50<5s, at most 500." in said[0]
    assert said[1].startswith("500 messages/s: p50 is ")
    assert "500 messages/s held p50<5s, the highest that was tried" in said[-1]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["step", "result"]
    assert lines[1]["search"]["rate_per_s"] == 500.0


def test_a_limit_that_nothing_holds_is_exit_code_3(target: str) -> None:
    done = run("bench", target, "-c", "1", "-d", "20ms", "-R", "100", "--find-max", "p50<1ns")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == "fastecho bench: no rate held p50<1ns"


@pytest.mark.parametrize(
    "words",
    [[], ["--frame=line", "--expect-prefix=<", "--expect-suffix=>"],
     ["--frame=length", "-s", "70000:80000"]],
    ids=["raw", "line", "length"],
)  # fmt: skip
def test_a_server_of_its_own_is_started_and_ended(words: list[str]) -> None:
    done = run("bench", "--server", "-c", "2", "-d", "200ms", "--json", *words)
    assert done.returncode == 0, done.stderr
    where = json.loads(done.stdout)["plan"]["targets"][0]
    again = run("bench", where, "-d", "100ms")
    assert again.returncode == 4
    assert "refused the connection" in again.stderr


def test_ctrl_c_reaches_the_load_and_not_the_server_of_its_own() -> None:
    with subprocess.Popen(
        [*COMMAND, "bench", "--server", "-d", "30s", "--interval", "100ms", "--jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert [os.getpgid(int(child)) != process.pid for child in children] == [True]
        # As a terminal does it: every process of the foreground group is told.
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, rest
    assert sum(json.loads(rest.splitlines()[-1])["failures"].values()) == 0


def test_a_server_of_its_own_goes_with_the_command() -> None:
    with subprocess.Popen(
        [*COMMAND, "bench", "--server", "-d", "30s"],
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    ) as process:
        assert process.stderr is not None
        where = process.stderr.readline().partition(": ")[0]
        process.kill()
        process.wait(DEADLINE)
    wait_until(lambda: run("bench", where, "-d", "50ms", "-c", "1").returncode == 4)


def test_a_terminal_shows_a_line_that_goes_away(target: str) -> None:
    words = ["bench", target, "-d", "1500ms", "-c", "1", "--interval", "300ms"]
    with Terminal(words, columns=100, rows=50) as terminal:
        terminal.wait_for(lambda screen: "failures 0" in screen.text(), "line of progress")
        row = terminal.screen.rows()[-1]
        assert " of 1.5 s  " in row
        assert " messages/s  p50 " in row
        assert terminal.wait_for_exit() == 0
        assert "failures 0" not in terminal.screen.text()
        # Intervals of 0.3 s, and no more than two refreshes a second.
        assert 2 <= terminal.raw.count(b"failures 0") <= 4


def test_a_live_table_is_drawn_and_taken_away(target: str) -> None:
    words = ["bench", target, "-d", "1500ms", "-c", "1", "--interval", "200ms", "--live"]
    with Terminal(words, columns=100, rows=50) as terminal:
        # What rich draws with is its own affair.
        terminal.screen.feed = lambda text: None  # type: ignore[method-assign]
        assert terminal.wait_for_exit() == 0
        text = terminal.raw.decode()
    assert 2 <= text.count("messages/s") - 1 <= 7, text
    assert "┃" in text
    assert "failures" in text


@pytest.mark.parametrize(
    ("option", "sentence", "extra"),
    [("--live", "--live needs rich", "rich"), ("--html=x", "--html needs drawsvg", "report"),
     ("--cluster=local:1", "--cluster needs distributed", "distributed")],
)  # fmt: skip
def test_a_missing_extra_is_named_and_exit_code_4(option: str, sentence: str, extra: str) -> None:
    package = sentence.rsplit(maxsplit=1)[-1]
    code = (
        f"import sys; sys.modules['{package}'] = None; from fastecho.cli import main; "
        "sys.exit(main())"
    )
    done = subprocess.run(
        [COMMAND[0], "-c", code, "bench", "127.0.0.1:1", option],
        capture_output=True, text=True, timeout=DEADLINE, env=environment(), check=False,
    )  # fmt: skip
    how = f"pip install 'fastecho[{extra}]', or '.[{extra}]' in a checkout"
    assert_refused(done, 4, f"{sentence}, which is not installed: {how}")


def test_colour_is_for_terminals_that_want_it(target: str) -> None:
    words = ["bench", target, "-d", "100ms", "-c", "1"]
    for more, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        with Terminal(words, columns=100, rows=50, variables={"NO_COLOR": None, **more}) as one:
            assert one.wait_for_exit() == 0
            assert (b"\x1b[32m" in one.raw) is coloured


def test_what_only_the_run_finds_wrong_is_named_as_it_was_written() -> None:
    done = run("bench", "[::1]:1", "--source", "127.0.0.1", "--source", "127.0.0.2")
    done.stderr = done.stderr.partition("\n")[2]
    assert_refused(done, 2, "--source '127.0.0.1,127.0.0.2' is of another address family than")


def test_a_connection_for_each_message_is_judged_by_connections_a_second(target: str) -> None:
    words = ["bench", target, "-c2", "-d0.1", "--reconnect", "--fail-if"]
    assert run(*words, "rate<10M").returncode == 3
    assert run(*words, "rate<1").returncode == 0


def test_a_search_on_a_random_schedule_says_so(target: str) -> None:
    words = ["-d0.1", "--find-max=p50<5s", "-R200", "--schedule=poisson"]
    done = run("bench", target, *words)
    assert done.returncode in (0, 3), done.stderr
    assert "Open loop at random times (Poisson): searches the highest rate" in done.stderr


def test_two_machines_can_start_together(target: str) -> None:
    begin = time.time() + 1.5
    done = run("bench", target, "-d", "100ms", "--start-at", f"{begin:.3f}", "--json")
    assert done.returncode == 0, done.stderr
    assert abs(Result.from_json(json.loads(done.stdout)).started_at - begin) < 0.05


def test_a_run_that_does_not_start_leaves_the_old_files_alone(tmp_path: Path) -> None:
    files = {name: tmp_path / f"result.{name}" for name in ("json", "jsonl", "hgrm")}
    for file in files.values():
        file.write_text("an old line\n")
    flags = [f"--{name}={file}" for name, file in files.items()]
    assert run("bench", "127.0.0.1:1", *flags).returncode == 4
    assert {file.read_text() for file in files.values()} == {"an old line\n"}


@pytest.mark.parametrize("flag", ["--json", "--jsonl", "--hgrm"])
def test_a_full_disk_costs_the_file_and_not_the_summary(target: str, flag: str) -> None:
    done = run("bench", target, "-d0.2", "--interval=0.05", f"{flag}=/dev/full")
    assert done.returncode == 1
    assert "every byte right" in done.stdout
    assert done.stderr.splitlines()[-1] == "fastecho bench: /dev/full: No space left on device"


def test_ctrl_c_ends_a_search_with_the_steps_that_were_whole(target: str) -> None:
    words = [target, "-c", "1", "-d", "0.3", "--find-max", "p50<5s", "--timeout", "0.5"]
    with subprocess.Popen(
        [*COMMAND, "bench", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        while "messages/s: " not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        said, steps = process.communicate(timeout=DEADLINE)
    assert process.returncode in (0, 3), steps
    assert steps.count("messages/s: ") <= 1
    assert "p50<5s" in said
    assert "the highest that was asked for" not in said


@pytest.mark.parametrize("options", [["-c200"], ["-c20", "-R2000"], ["-c20", "--reconnect"]])
def test_a_generator_that_is_stopped_does_not_call_the_server_silent(
    target: str, options: list[str]
) -> None:
    """Replies that came while it slept are late at most; it looks for them before it judges."""
    words = [target, *options, "-d2", "--timeout=0.4", "--interval=0.2", "--jsonl"]
    with subprocess.Popen(
        [*COMMAND, "bench", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.8)  # as long as it is stopped
        process.send_signal(signal.SIGCONT)
        lines += process.communicate(timeout=DEADLINE)[0].splitlines()
    failures = json.loads(lines[-1])["failures"]
    assert {name: n for name, n in failures.items() if n and name != "late"} == {}, lines[-1][:2000]


def test_addresses_that_the_server_will_see_instead_of_one_are_announced(target: str) -> None:
    words = ("bench", target, "--reconnect", "-c1", "-n5")
    assert "The server sees several addresses of 127.0.1.0/24" in run(*words).stderr
    assert "sees several" not in run(*words, "--source=127.0.0.1").stderr
    assert "sees several" not in run("bench", target, "-c1", "-n5").stderr
