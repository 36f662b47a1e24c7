"""One plan on several workers: Dask's own scheduler and workers, on this machine.

They are as far apart as processes are; what differs between machines (clocks, networks) does not
happen here.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from commands import run

import fastecho
from fastecho.errors import ConfigError, StartError
from fastecho.measure import cluster as module
from fastecho.measure.cluster import run_on_cluster
from fastecho.measure.plan import Plan
from fastecho.measure.result import Interval, Result

distributed = pytest.importorskip("distributed", reason="needs Dask distributed")

pytestmark = [
    pytest.mark.timeout(120),
    # Dask's own, of its event loop and of what it imports.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def server() -> Iterator[fastecho.Server]:
    with fastecho.Server() as one:
        yield one


@contextmanager
def cluster(workers: int) -> Iterator[tuple[str, list[int]]]:
    """Run a scheduler with workers; give its address and the workers' process ids."""
    made = distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
    )
    try:
        with distributed.Client(made, set_as_default=False) as client:
            pids = list(client.run(os.getpid).values())
        yield made.scheduler_address, pids
    finally:
        made.close()


def once(act: Callable[[], object]) -> Callable[[Interval], None]:
    """Return what acts at the first interval in which messages came back."""
    left = [act]

    def look(interval: Interval) -> None:
        if interval.messages and left:
            left.pop()()

    return look


def kill(pid: int) -> None:
    """End a worker without a word."""
    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module", autouse=True)
def what_dask_keeps() -> None:
    """Its thread for offloading and multiprocessing's tracker stay for the life of a process."""
    with cluster(1) as (address, _), distributed.Client(address, set_as_default=False) as client:
        assert client.submit(os.getpid).result()


def test_every_worker_runs_the_plan_and_the_results_are_added(server: fastecho.Server) -> None:
    told: list[Interval] = []
    plan = Plan(server.address, connections=3, duration=1.0, interval=0.2)
    result = run_on_cluster(plan, "local:2", told.append)
    assert result.failed == 0
    assert len(result.parts) == 2
    assert sum(part["messages"] for part in result.parts) == result.messages
    assert min(part["messages"] for part in result.parts) > 0
    assert result.latency is not None
    assert result.latency.count == result.messages
    # One machine has one clock.
    assert all(abs(part["offset_ms"]) <= part["offset_uncertain_ms"] for part in result.parts)
    begins = [part["started_at"] for part in result.parts]
    assert begins[0][:19] == begins[1][:19]
    # Each interval is of both together, and all of them are all there is.
    assert sum(interval.messages for interval in told) == result.messages
    assert sum(interval.messages for interval in result.intervals) == result.messages
    assert result.plan.connections == 6
    assert server.stats().connections_accepted == 6


def test_a_worker_that_is_killed_is_named_and_the_others_result_is_kept(
    server: fastecho.Server,
) -> None:
    with cluster(2) as (address, pids):
        told: list[str] = []
        plan = Plan(server.address, connections=2, duration=2.0, interval=0.1)
        result = run_on_cluster(plan, address, once(lambda: kill(pids[0])), told.append)
    answered = [part for part in result.parts if "lost" not in part]
    [lost] = [part for part in result.parts if "lost" in part]
    assert lost["lost"] == "it left the cluster"
    assert len(answered) == 1
    assert result.messages == answered[0]["messages"] > 0
    assert told == [f"{lost['label']} lost: it left the cluster"]
    assert Result.from_json(result.to_json()).parts == result.parts


def test_no_worker_that_answers_is_an_error(server: fastecho.Server) -> None:
    with cluster(1) as (address, pids):
        plan = Plan(server.address, connections=2, duration=5.0, interval=0.1)
        with pytest.raises(StartError, match=r"no worker has answered: .*: it left the cluster"):
            run_on_cluster(plan, address, once(lambda: kill(pids[0])))


def test_what_ends_the_load_of_a_worker_is_told(server: fastecho.Server) -> None:
    """Nothing listens there: each worker says so, and that is the sentence."""
    address = server.address
    server.abort()
    with pytest.raises(StartError, match=r"no worker has answered: .*refused the connection"):
        run_on_cluster(Plan(address, duration=1.0), "local:2")


def test_a_signal_ends_the_windows_of_all(server: fastecho.Server) -> None:
    main, began = threading.get_ident(), time.monotonic()
    plan = Plan(server.address, connections=2, duration=60.0, interval=0.1)
    result = run_on_cluster(plan, "local:2", once(lambda: signal.pthread_kill(main, signal.SIGINT)))
    assert time.monotonic() - began < 30
    assert [part.get("lost") for part in result.parts] == [None, None]
    assert result.messages > 0


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("local:0", "--cluster 'local:0' needs a number of workers from 1 to 256 after local:"),
        ("local:x", "needs a number of workers"),
        ("here", "must be tcp://HOST:PORT or local:N"),
    ],
)
def test_wrong_place_is_refused(where: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run_on_cluster(Plan("127.0.0.1:1"), where)


def test_scheduler_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(
        StartError, match=r"cannot reach the Dask scheduler at tcp://127\.0\.0\.1:1"
    ):
        run_on_cluster(Plan("127.0.0.1:1"), "tcp://127.0.0.1:1")


def test_scheduler_without_workers_is_one_sentence() -> None:
    with cluster(0) as (address, _), pytest.raises(StartError, match="has no workers"):
        run_on_cluster(Plan("127.0.0.1:1"), address)


def test_clocks_that_differ_are_told_and_allowed_for(
    server: fastecho.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers' clock stands for itself; ours is set an hour ahead instead."""

    class Ahead:
        """The module time, an hour ahead."""

        def __getattr__(self, name: str) -> Any:
            return (lambda: time.time() + 3600) if name == "time" else getattr(time, name)

    monkeypatch.setattr(module, "time", Ahead())
    result = run_on_cluster(Plan(server.address, connections=2, duration=0.5), "local:1")
    [part] = result.parts
    assert part["offset_ms"] == pytest.approx(-3_600_000, abs=1000)
    assert result.messages > 0


# --- the command ------------------------------------------------------------------------------


def test_command_prints_one_result_of_all_workers() -> None:
    done = run("bench", "--server", "--cluster=local:2", "-d0.3", "-c2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [part["messages"] > 0 for part in result["parts"]] == [True, True]
    assert result["plan"]["connections"] == 4
    assert done.stderr.startswith("On every worker of local:2: 127.0.0.1:")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--cluster=local:0", "127.0.0.1:1"], "needs a number of workers from 1 to 256"),
        (["--cluster=nowhere", "127.0.0.1:1"], "--cluster 'nowhere' must be tcp://HOST:PORT or"),
        (
            ["--cluster=local:1", "127.0.0.1:1", "--find-max=p99<1ms"],
            "--cluster 'local:1' does not go together with --find-max",
        ),
        (
            ["--cluster=local:1", "127.0.0.1:1", f"--start-at={time.time() + 99:.0f}"],
            "--cluster 'local:1' does not go together with --start-at",
        ),
        (
            ["--cluster=tcp://192.0.2.1:8786", "--server"],
            "--cluster 'tcp://192.0.2.1:8786' does not reach the server of --server",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(options: list[str], says: str) -> None:
    done = run("bench", *options)
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_workers_that_cannot_connect_are_one_sentence() -> None:
    done = run("bench", "--cluster=local:1", "127.0.0.1:1", "-d1")
    assert done.returncode == 4
    assert "no worker has answered" in done.stderr.splitlines()[-1]
    assert "refused the connection" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
