"""`models --run`: each model is measured beside the others, and one that misbehaves stops no other.

What a model can do is held elsewhere (test_models.py, the conformance suite); here it is what the
measurement finds of it, how it ends, and what it leaves.
"""

from __future__ import annotations

import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from commands import COMMAND, DEADLINE, assert_refused, environment, run
from peers import wait_until

from fastecho.cli._models_run import _table
from fastecho.cli._summary import Paint
from fastecho.errors import ConfigError
from fastecho.measure import model_runs
from fastecho.measure.model_result import Figures, ModelRuns, Turn
from fastecho.measure.model_runs import longest, measure_models
from fastecho.measure.model_server import ModelServer, Peers, ServerError
from fastecho.measure.model_words import sentences

LISTENS = """
import contextlib, os, signal, socket, sys
listener = socket.create_server(("127.0.0.1", 0), backlog=64)
def tell():
    fd = int(sys.argv[-1])
    os.write(fd, b"127.0.0.1:%d\\n" % listener.getsockname()[1])
    os.close(fd)
def serve(most):
    while most:
        with listener.accept()[0] as peer, contextlib.suppress(ConnectionError):
            while most and (data := peer.recv(65536)):
                peer.sendall(data)
                most -= 1
"""
HANGS = "tell(); signal.pause()"
DIES = "tell(); serve(400); sys.exit('had enough')"
REFUSES = "tell(); serve(1)\nwhile True: listener.accept()[0].close()"
NO_START = "sys.exit('has no mind to')"
SILENT = "signal.pause()"


def fake(script: str) -> list[str]:
    """Return the command of a server that does what a script says."""
    return [sys.executable, "-c", f"{LISTENS}{script}"]


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and not waited for."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, path.read_text().split())
    return found


def is_there(pid: int) -> bool:
    """Tell whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --- the command ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, str]:
    """Run three models at two sizes; return the JSON, the text for people, and the page."""
    path = tmp_path_factory.mktemp("models") / "page.html"
    ended = run(
        *("models", "blocking", "epoll", "native", "--run", "--connections=10,1"),
        *("--duration=0.2", "--json", "-", f"--html={path}"),
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout), ended.stderr, path.read_text(encoding="utf-8")


def test_a_run_finds_whom_each_model_serves_and_at_what_cost(
    done: tuple[dict[str, Any], str, str],
) -> None:
    data = done[0]
    assert data["format"] == "fastecho-models"
    assert data["models"] == ["blocking", "epoll", "native"]
    assert data["connections"] == [1, 10]
    assert data["elapsed_s"] < data["at_most_s"]
    asked = [(size, model) for size in (1, 10) for model in data["models"]]
    assert [(one["connections"], one["model"]) for one in data["figures"]] == asked
    for one in data["figures"]:
        assert one["problem"] == ""
        served = 1 if one["model"] == "blocking" else one["connections"]
        assert (one["served"], one["driven"]) == (served, served)
        assert one["messages_per_s"] > 100
        assert 0 < one["latency_us"]["p50"] <= one["latency_us"]["p99"]
        assert 0 < one["cpu_per_message_us"] < 1e3
        assert 0 < one["lone_cpu_per_message_us"] < 1e4
        assert one["idle_cpu"] < 0.2
        assert one["threads"] >= 1
        assert one["memory_per_connection_bytes"] >= 0
        assert 0 < one["load_busy"] <= 1
        assert one["load_limits"] is (one["load_busy"] >= 0.9)
        assert len(one["turns"]) == 1
        assert one["turns"][0]["messages"] > 0
    assert "blocking served 1 of 10 peers that were there at once." in data["sentences"]
    assert any("native needs" in one and "best in pure Python" in one for one in data["sentences"])


def test_every_key_of_the_json_is_in_the_documentation(
    done: tuple[dict[str, Any], str, str],
) -> None:
    text = (Path(__file__).parent.parent / "docs/reference/models.md").read_text()
    figures = done[0]["figures"][0]
    for keys in (done[0], figures, figures["turns"][0]):
        for key in keys:
            assert f"`{key}`" in text, key


def test_text_announces_its_time_and_fits_100_columns(
    done: tuple[dict[str, Any], str, str],
) -> None:
    data, text, _ = done
    first, *rest = text.splitlines()
    sentence = r"3 models at 1 and 10 connections, .*: takes at most (\d+) s"
    (most,) = re.fullmatch(sentence, first).groups()  # type: ignore[union-attr]
    assert int(most) == math.ceil(data["at_most_s"]) <= 20
    assert max(map(len, rest)) <= 100
    assert "10 connections: epoll" in rest  # a line a step, as there is no terminal
    assert re.search(r"^blocking .* 1 of 10 +\d+ %$", text, re.M)
    assert re.search(r"^native +[\d.]+ us [█▏▎▍▌▋▊▉#]+$", text, re.M)
    for sentence in data["sentences"]:
        assert sentence in " ".join(text.split())


def test_page_is_one_file_that_refers_to_nothing(done: tuple[dict[str, Any], str, str]) -> None:
    page = done[2]
    ElementTree.fromstring(page.replace("<!DOCTYPE html>", ""))
    addresses = set(re.findall(r"https?://[^\s\"'<]*", page))
    assert addresses <= {"http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg",
                         "http://www.w3.org/1999/xlink"}  # fmt: skip
    assert "<script" not in page
    assert page.count("<svg") == 8  # four charts, wide and narrow
    for text in ("blocking (serves 1)", "1 of 10", "the second peer waits until the first"):
        assert text in page


def test_progress_is_one_line_that_is_written_over_on_a_terminal() -> None:
    ours, theirs = os.openpty()
    try:
        arguments = ("models", "epoll", "--run", "--connections=1", "--duration=0.1")
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=theirs, timeout=DEADLINE,
            env=environment(), check=False,
        )  # fmt: skip
        said = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0
    announced, lines = said.split("\r\n")
    assert announced.startswith("1 model at 1 connection, ")
    most = re.search(r"at most \d+ s", announced)[0]  # type: ignore[index]
    assert f"\r0 s of {most}: 1 connection: epoll\x1b[K" in lines
    assert f"s of {most}: 1 connection: round 1 of 1, epoll\x1b[K" in lines
    assert lines.endswith("\r\x1b[K")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--connections=1,x"], "--connections '1,x' has no effect without --run"),
        (["--html=page.html"], "--html 'page.html' has no effect without --run"),
        (["--run", "--connections=1,x"], "--connections '1,x' must be a whole number"),
        (["--run", "--connections=0"], "--connections '0' must be "),
        (["--run", "--duration=0"], "--duration '0' must be "),
        (["--run", "--json", "epoll"], "--json 'epoll' was taken for a file: write the model "),
        (["--run", "--html=/no/folder/page.html"], "--html '/no/folder/page.html' is in a folder "),
        (["--run", "--connections=900000"], "--connections 900000 needs 9,900,100 descriptors"),
        (["--run", "kqueue"], "NAME 'kqueue' is no model"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(arguments: list[str], sentence: str) -> None:
    assert_refused(run("models", *arguments), 2, sentence)


def test_the_list_can_be_saved(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    assert run("models", "--json", str(path)).stdout == ""
    assert len(json.loads(path.read_text())) == 10


# --- models that misbehave --------------------------------------------------------------------


def test_those_that_hang_die_refuse_or_do_not_start_are_shown_and_the_run_goes_on() -> None:
    before = set(children(os.getpid()))  # what other tests are forked from
    commands = {
        "hangs": fake(HANGS),
        "dies": fake(DIES),
        "refuses": fake(REFUSES),
        "no start": fake(NO_START),
        "nowhere": ["/no/such/program"],
    }
    told: list[str] = []
    runs = measure_models(
        commands, [2], duration=0.1, on_progress=lambda text, _is_step: told.append(text)
    )
    assert runs.elapsed < runs.at_most
    found = {one.model: one for one in runs.at(2)}
    assert (found["hangs"].served, found["hangs"].problem) == (0, "gave no answer within 1 s")
    assert found["dies"].served == 1
    assert found["dies"].problem == "ended with exit code 1: had enough"
    assert found["refuses"].served == 0
    assert found["refuses"].problem.startswith("refused 2 peers: ")
    assert found["no start"].problem == "ended with exit code 1: has no mind to"
    assert found["no start"].served is None
    assert found["nowhere"].problem == "did not start: No such file or directory"
    assert told[-1] == "2 connections: 1 round of turns"
    assert set(children(os.getpid())) <= before


def test_what_was_measured_before_a_model_dies_stays() -> None:
    """It serves the probes and two turns: SIGCONT is what begins one."""
    script = (
        "turns = []\n"
        "def begin(*_):\n"
        "    turns.append(1)\n"
        "    if len(turns) == 3: os._exit(5)\n"
        "signal.signal(signal.SIGCONT, begin); tell(); serve(-1)"
    )
    runs = measure_models({"dies": fake(script)}, [1], duration=1.2)
    (one,) = runs.figures
    assert one.served == 1
    assert one.problem == "ended with exit code 5"
    assert len(one.turns) == 2
    assert one.cpu_per_message


def test_a_run_ends_within_its_time_whatever_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(children(os.getpid()))
    monkeypatch.setattr(model_runs, "SLACK", 0.0)
    monkeypatch.setattr(model_runs, "MORE_SECONDS", 1.8)
    runs = measure_models({"silent": fake(SILENT), "next": fake(HANGS)}, [1, 2], duration=0.1)
    assert runs.at_most == longest(2, 2, 0.1) == 1.8
    assert runs.elapsed < 1.8
    first, second = (one.problem for one in runs.at(1))
    (waited,) = re.fullmatch(r"was not ready within (0\.\d+) s", first).groups()  # type: ignore[union-attr]
    assert 0.3 < float(waited) <= (1.8 - 1) / 2  # its part of the time that was left
    assert second == "was not measured: the time was over"
    assert [one.model for one in runs.at(2)] == ["silent", "next"]
    assert set(children(os.getpid())) <= before


def test_too_few_descriptors_are_told_before_anything_is_started() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    with pytest.raises(ConfigError, match=rf"^--connections {most} needs .* for 1 model, and "):
        measure_models({"nowhere": ["/no/such/program"]}, [most])


# --- the end ----------------------------------------------------------------------------------


@pytest.fixture
def running() -> Iterator[subprocess.Popen[str]]:
    """Run a measurement of a minute, up to the turns of the first size."""
    arguments = ("models", "native", "nonblocking", "--run", "--duration=20")
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(),
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "rounds of turns" in line:
                    break
            yield process
        finally:
            process.kill()


def test_ctrl_c_shows_what_there_is_and_leaves_no_process(running: subprocess.Popen[str]) -> None:
    servers = children(running.pid)
    assert len(servers) == 2
    running.send_signal(signal.SIGINT)
    out, said = running.communicate(timeout=DEADLINE)
    assert running.returncode == 0
    assert said == ""
    assert re.search(r"^nonblocking .* all ", out, re.M)
    assert not any(map(is_there, servers))


def test_servers_end_with_a_run_that_is_killed_also_those_that_are_stopped(
    running: subprocess.Popen[str],
) -> None:
    servers = children(running.pid)
    running.kill()
    running.wait(DEADLINE)
    wait_until(lambda: not any(map(is_there, servers)), what="the end of the servers")


def test_interrupted_before_there_was_anything_is_130() -> None:
    with subprocess.Popen(
        [*COMMAND, "models", "epoll", "--run"], stderr=subprocess.PIPE, text=True,
        env=environment(),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert "takes at most" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode in (0, 130)  # 0: the first probe was over
    assert "Traceback" not in said


# --- a server and its peers -------------------------------------------------------------------


def test_a_server_is_started_and_told_of_beyond_descriptor_1024() -> None:
    """select() ends there, and the loads of ten models at 1,000 connections have more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip(f"needs 1,200 descriptors, and {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with (
            ModelServer(fake("tell(); serve(-1)"), None, DEADLINE) as server,
            Peers(server.address, 1) as peers,
        ):
            peers.wait(DEADLINE, DEADLINE)
            assert peers.answered == 1
            assert peers.talk(0.01) >= 1
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_stopped_server_takes_no_cpu_and_goes_on() -> None:
    with ModelServer(fake("tell(); serve(-1)"), None, DEADLINE) as server:
        with Peers(server.address, 1) as peers:
            peers.wait(DEADLINE, DEADLINE)
            server.pause()
            cpu = server.cpu()
            with pytest.raises(ServerError, match=r"^answered no more while one peer talked: "):
                peers.talk(0.01)
            assert server.cpu() - cpu < 0.001
            server.resume()
        with Peers(server.address, 1) as peers:
            peers.wait(DEADLINE, DEADLINE)
            assert peers.answered == 1
        assert server.death() == ""
    assert not is_there(server.pid)


# --- sentences --------------------------------------------------------------------------------


def made(cpu: dict[str, float], **more: Any) -> ModelRuns:
    """Return figures at 1 and 100 connections with so many microseconds for each message."""
    runs = ModelRuns(list(cpu), [1, 100], core="native")
    for size in (1, 100):
        for model, us in cpu.items():
            one = Figures(model, size)
            one.served = one.driven = size
            one.turns = [Turn(1000, 1000.0, us * 1e-3, more.get("busy", 0.5))]
            one.lone_cpu_per_message = us * 1e-6 * (size if model == "select" else 1)
            one.kernel_share = more.get("kernel", 0.9)
            one.threads = size + 1 if model == "threaded" else 1
            runs.figures.append(one)
    return runs


def test_sentences_say_what_the_figures_bear_out() -> None:
    runs = made({"select": 10.0, "epoll": 9.0, "threaded": 27.0, "native": 7.2})
    runs.at(1)[2].idle_cpu = 0.98
    compared, *rest = sentences(runs)
    assert compared == (
        "At 100 connections native needs 7.2 us of CPU for each message, 0.80 of the 9 us of "
        "epoll, the best in pure Python. The kernel does most of the work, 90 % of it for native "
        "and 90 % for epoll: a tight loop in Python is close to C."
    )
    lone = (
        "At 100 connections, one of them talking, select needs 100.0 times the CPU that it needs "
        "for a message at 1 connection: there the silent ones cost CPU at each message."
    )
    assert rest == [
        "At 100 connections, all of them talking, threaded needs 3.0 times the CPU of epoll.",
        lone,
        "threaded took 101 threads for 100 peers.",
        "threaded took 98 % of a core while nobody talked.",
    ]


def test_the_kernel_is_not_said_to_do_the_work_that_it_does_not() -> None:
    assert "The kernel" not in " ".join(sentences(made({"epoll": 9.0, "native": 7.0}, kernel=0.4)))
    assert "The kernel" not in " ".join(sentences(made({"epoll": 90.0, "native": 7.0})))


def test_a_load_that_is_the_limit_is_told() -> None:
    said = sentences(made({"epoll": 9.0, "native": 7.0}, busy=0.93))
    sentence = "At 100 connections the load was the limit with epoll and native: "
    assert any(one.startswith(sentence) for one in said)
    assert not any("limit" in one for one in sentences(made({"epoll": 9.0}, busy=0.89)))


def test_the_widest_row_fits_100_columns() -> None:
    one = Figures("socketserver", 1500)
    one.served, one.problem = 1499, "refused 1 peer: connection reset by peer"
    one.turns = [Turn(1000, 1_234_567.0, 0.999, 1.0)]
    one.lone_cpu_per_message, one.idle_cpu, one.threads = 0.999, 1.0, 98_765
    one.memory_per_connection = 23_456.0
    text = _table(1500, [one], Paint(color=False))
    assert max(map(len, text.splitlines())) == 100
    assert " 23.5 kB 1,499 of 1,500 100 %" in text
    assert "\n  refused 1 peer: connection reset by peer\n" in text
