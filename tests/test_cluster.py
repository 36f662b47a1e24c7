"""`fastecho bench --cluster`: Dask's own scheduler and workers, as processes of this machine.

They are as far apart as processes are; what differs between machines (their clocks, a network) does
not happen here, but for clocks that are set forward. Dask's threads stay out of the process of the
tests: the command runs as it is.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND, environment, run
from load_servers import exact, serving
from peers import wait_until
from wrong_servers import address_of

import fastecho
from fastecho.measure.result import Result

if find_spec("distributed") is None:
    pytest.skip("needs Dask distributed", allow_module_level=True)

pytestmark = pytest.mark.timeout(120)
DEADLINE = 60.0


@contextmanager
def process(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python program until the end of the block."""
    with subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as one:
        try:
            yield one
        finally:
            one.kill()


class Cluster:
    """A scheduler, and its workers by name."""

    def __init__(
        self,
        address: str,
        workers: dict[str, subprocess.Popen[bytes]],
        scheduler: subprocess.Popen[bytes],
    ) -> None:
        self.address = address
        self.workers = workers
        self.scheduler = scheduler


Make = Callable[..., Cluster]
CLOCK = (
    "--preload",
    "import time; time.time = lambda: time.clock_gettime(time.CLOCK_REALTIME) + 5.0",
)
"""Option of a worker. (libfaketime has clock_nanosleep() fail, on which Python's sleep() rests.)"""


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Make]:
    """Return a function that starts a scheduler and the workers of these names.

    The clock of the day of the one that is `ahead` is set forward by CLOCK.
    """
    file = tmp_path / "scheduler.json"
    common = (f"--scheduler-file={file}", "--no-dashboard", "--host=127.0.0.1")
    with ExitStack() as stack:

        def make(*names: str, ahead: str = "") -> Cluster:
            scheduler = ("-m", "distributed.cli.dask_scheduler", "--port=0", *common)
            started = stack.enter_context(process(*scheduler))
            worker = ("-m", "distributed.cli.dask_worker", "--nthreads=1", "--no-nanny", *common)
            wait_until(lambda: file.exists() and file.read_bytes().endswith(b"}"), DEADLINE)
            folder = f"--local-directory={tmp_path}"
            workers = {
                name: stack.enter_context(
                    process(*worker, folder, f"--name={name}", *(CLOCK if name == ahead else ()))
                )
                for name in names
            }
            address = json.loads(file.read_text())["address"]
            if names:
                come = f"distributed.Client({address!r}).wait_for_workers({len(names)}, {DEADLINE})"
                subprocess.run(
                    [sys.executable, "-c", f"import distributed; {come}"],
                    check=True,
                    timeout=DEADLINE,
                )
            return Cluster(address, workers, started)

        yield make


def bench(
    cluster: str,
    *words: str,
    program: Sequence[str] = COMMAND,
    at_first_interval: Callable[[int], object] = lambda pid: None,
) -> tuple[int, list[dict[str, Any]], list[str]]:
    """Run the command; return its exit code, its lines of JSON, and what it said."""
    command = [*program, "bench", *words, "--cluster", cluster, "--interval=0.1", "--jsonl"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # what readline() read ahead, communicate() would not give
        env=environment(),
        start_new_session=True,
    ) as one:
        try:
            assert one.stdout is not None
            lines = [one.stdout.readline()]
            at_first_interval(one.pid)
            rest, said = one.communicate(timeout=DEADLINE)
        finally:
            one.kill()
    lines += rest.splitlines()
    return one.returncode, [json.loads(line) for line in lines if line], said.decode().splitlines()


def test_every_worker_runs_the_plan_and_the_results_are_added(
    make_cluster: Make, server: fastecho.Server
) -> None:
    cluster = make_cluster("node-1", "node-2")
    code, lines, said = bench(cluster.address, server.address, "-c3", "-d1")
    *intervals, result = lines
    assert (code, result["event"]) == (0, "result"), said
    parts = result["parts"]
    assert [part["label"] for part in parts] == ["127.0.0.1/node-1", "127.0.0.1/node-2"]
    assert min(part["messages"] for part in parts) > 0
    assert sum(part["messages"] for part in parts) == result["messages"]
    assert sum(interval["messages"] for interval in intervals) == result["messages_in_window"]
    # One machine has one clock.
    assert all(abs(part["offset_ms"]) <= part["offset_uncertain_ms"] for part in parts)
    assert parts[0]["started_at"][:19] == parts[1]["started_at"][:19]
    assert result["plan"]["connections"] == 6
    assert server.stats().connections_accepted == 6
    assert said[0].startswith(f"On every worker of {cluster.address}: {server.address}: ")


def test_a_worker_that_is_killed_is_named_and_the_rest_is_kept(
    make_cluster: Make, server: fastecho.Server
) -> None:
    cluster = make_cluster("node-1", "node-2")
    code, lines, said = bench(
        cluster.address,
        server.address,
        "-d2",
        at_first_interval=lambda _: cluster.workers["node-1"].kill(),
    )
    result = lines[-1]
    lost, answered = sorted(result["parts"], key=lambda part: part["label"])
    assert (code, lost["lost"]) == (1, "it left the cluster")
    assert set(lost) == {"label", "messages", "messages_per_s", "lost"}
    assert Result.from_json(result).to_json()["parts"] == result["parts"]
    assert "lost" not in answered
    assert result["messages"] == answered["messages"] > 0
    assert "fastecho bench: 127.0.0.1/node-1 lost: it left the cluster" in said
    assert "fastecho bench: 1 of 2 workers answered" in said


def test_no_worker_that_answers_is_a_failed_start_and_told_by_us_alone(
    server: fastecho.Server,
) -> None:
    code, _, said = bench("local:1", server.address, "-d5", at_first_interval=kill_worker)
    assert code == 4
    assert said[-1] == "fastecho bench: no worker has answered: 127.0.0.1: it left the cluster"
    assert [line for line in said if "distributed" in line] == []


def kill_worker(pid: int) -> None:
    """Kill a worker that a command has started on this machine."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [Path(f"/proc/{child}") for one in lists for child in one.read_text().split()]
    workers = [one for one in children if b"spawn_main" in (one / "cmdline").read_bytes()]
    os.kill(int(workers[0].name), signal.SIGKILL)


def test_ctrl_c_ends_the_windows_of_all(make_cluster: Make, server: fastecho.Server) -> None:
    cluster = make_cluster("node-1", "node-2")
    began = time.monotonic()
    code, lines, said = bench(
        cluster.address,
        server.address,
        "-d60",
        at_first_interval=lambda pid: os.kill(pid, signal.SIGINT),
    )
    assert time.monotonic() - began < 30
    assert code == 0, said
    assert [part.get("lost") for part in lines[-1]["parts"]] == [None, None]
    assert lines[-1]["messages"] > 0


IMPATIENT = """
import sys
from fastecho.measure import cluster
cluster.REACH = cluster.SPARE = 1.0
from fastecho.cli import main
sys.exit(main())
"""
"""The command, with seconds in which it waits for workers that a test can wait for as well."""


def test_ctrl_c_beside_a_worker_that_is_stopped_keeps_what_the_others_have(
    make_cluster: Make, server: fastecho.Server
) -> None:
    cluster = make_cluster("node-1", "node-2")
    interrupted = 0.0

    def stop_one_and_interrupt(pid: int) -> None:
        nonlocal interrupted
        cluster.workers["node-1"].send_signal(signal.SIGSTOP)
        os.kill(pid, signal.SIGINT)
        interrupted = time.monotonic()

    code, lines, said = bench(
        cluster.address,
        *(server.address, "-d60", "--timeout=0.5"),
        program=(sys.executable, "-c", IMPATIENT),
        at_first_interval=stop_one_and_interrupt,
    )
    assert time.monotonic() - interrupted < 8
    lost, answered = lines[-1]["parts"][::-1]
    assert (code, lost["lost"]) == (1, "it did not answer in time"), said
    assert lines[-1]["messages"] == answered["messages"] > 0
    assert "fastecho bench: 127.0.0.1/node-1 lost: it did not answer in time" in said


def test_a_stopped_worker_that_tells_no_time_is_left_out(
    make_cluster: Make, server: fastecho.Server
) -> None:
    cluster = make_cluster("node-1", "node-2")
    cluster.workers["node-1"].send_signal(signal.SIGSTOP)
    code, lines, said = bench(
        cluster.address, server.address, "-d0.3", program=(sys.executable, "-c", IMPATIENT)
    )
    lost = next(part for part in lines[-1]["parts"] if "lost" in part)
    assert (code, lost["lost"]) == (1, "it did not tell its time within 1 s"), said
    assert lost["label"] == "127.0.0.1/node-1"
    assert lines[-1]["messages"] > 0
    assert "fastecho bench: 1 of 2 workers answered" in said


def test_workers_whose_clocks_differ_start_together(make_cluster: Make) -> None:
    began: list[float] = []

    def note_begin(sock: socket.socket) -> None:
        data = exact(sock, 64)
        began.append(time.monotonic())
        while data:
            sock.sendall(data)
            data = exact(sock, 64)

    cluster = make_cluster("node-1", "node-2", ahead="node-2")
    with serving(note_begin) as served:
        code, lines, said = bench(cluster.address, address_of(served), "-c1", "-d0.3")
    assert code == 0, said
    offsets = [part["offset_ms"] for part in lines[-1]["parts"]]
    assert offsets == pytest.approx([0, 5000], abs=200)
    assert abs(began[0] - began[1]) < 0.5
    assert lines[-1]["messages"] > 0


AHEAD = """
import sys, time
from fastecho.measure import cluster
real = time.time
class Ahead:
    def __getattr__(self, name):
        return (lambda: real() + 3600) if name == "time" else getattr(time, name)
cluster.time = Ahead()
from fastecho.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""


def test_clocks_that_differ_are_told_and_allowed_for(
    make_cluster: Make, server: fastecho.Server
) -> None:
    """The workers' clock is the machine's; that of the command is set an hour ahead."""
    cluster = make_cluster("node-1")
    words = ("bench", server.address, "-d0.5", "--cluster", cluster.address, "--json")
    done = subprocess.run(
        [sys.executable, "-c", AHEAD, *words], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    [part] = json.loads(done.stdout)["parts"]
    assert part["offset_ms"] == pytest.approx(-3_600_000, abs=1000)
    assert part["messages"] > 0


def test_local_workers_come_and_go_with_the_command() -> None:
    done = run("bench", "--server", "--cluster=local:2", "-d0.3", "-c2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [part["messages"] > 0 for part in result["parts"]] == [True, True]
    assert result["plan"]["connections"] == 4


def test_ctrl_c_in_a_terminal_costs_local_workers_nothing(server: fastecho.Server) -> None:
    """A terminal tells every process of the foreground group."""
    code, lines, said = bench(
        "local:2",
        *(server.address, "-d60"),
        at_first_interval=lambda group: os.killpg(group, signal.SIGINT),
    )
    assert code == 0, said
    assert [part["messages"] > 0 for part in lines[-1]["parts"]] == [True, True]
    assert not [line for line in said if "Traceback" in line or "distributed" in line]


def test_workers_that_cannot_connect_are_one_sentence() -> None:
    done = run("bench", "--cluster=local:1", "127.0.0.1:1", "-d1")
    assert done.returncode == 4
    lost, line = done.stderr.splitlines()[-2:]
    assert "127.0.0.1 lost: its load failed" in lost
    assert "no worker has answered" in line
    assert "refused the connection" in line


def test_what_is_no_scheduler_is_told_before_dask_waits_for_it(server: fastecho.Server) -> None:
    where = f"tcp://{server.address}"
    done = run("bench", "127.0.0.1:7", "--cluster", where)
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == (
        f"fastecho bench: at {where} there is no Dask scheduler: nothing came from it"
    )
    assert "Traceback" not in done.stderr


def test_a_scheduler_that_dies_is_one_sentence(make_cluster: Make, server: fastecho.Server) -> None:
    cluster = make_cluster("node-1")

    def kill(_pid: int) -> None:
        cluster.scheduler.kill()

    code, _, said = bench(cluster.address, server.address, "-d2", at_first_interval=kill)
    assert code == 4
    assert said[-1].startswith("fastecho bench: no worker has answered: 127.0.0.1: ")
    assert not any("Traceback" in line or "internal error" in line for line in said)


def test_scheduler_without_workers_is_one_sentence(make_cluster: Make) -> None:
    cluster = make_cluster()
    done = run("bench", "127.0.0.1:1", "--cluster", cluster.address)
    assert done.returncode == 4
    assert done.stderr.endswith(f"the Dask scheduler at {cluster.address} has no workers\n")


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--cluster=local:0"], 2, "needs a number of workers from 1 to 256 after local:"),
        (["--cluster=local:x"], 2, "needs a number of workers"),
        (["--cluster=nowhere"], 2, "--cluster 'nowhere' must be tcp://HOST:PORT or local:N"),
        (
            ["--cluster=tcp://127.0.0.1:1"],
            4,
            "cannot reach the Dask scheduler at tcp://127.0.0.1:1",
        ),
        (
            ["--cluster=local:1", "--find-max=p99<1ms"],
            2,
            "--cluster 'local:1' does not go together with --find-max",
        ),
        (
            ["--cluster=local:1", f"--start-at={time.time() + 3500:.0f}"],
            2,
            "--cluster 'local:1' does not go together with --start-at",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence(options: list[str], code: int, says: str) -> None:
    done = run("bench", "127.0.0.1:1", *options)
    assert done.returncode == code
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_far_workers_do_not_reach_the_server_of_the_command() -> None:
    done = run("bench", "--server", "--cluster=tcp://192.0.2.1:8786")
    assert done.returncode == 2
    assert "does not reach the server of --server" in done.stderr
