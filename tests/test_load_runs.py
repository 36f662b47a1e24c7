"""A run of the load generator: its window, its warm-up, its ramp, its schedule, who watches it."""

from __future__ import annotations

import itertools
import math
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from load_servers import Served, counted, echo, exact, framed, hold, serving
from peers import wait_until
from programs import Program

from fastecho._load import Load

FAILURES = (
    "late", "corrupt", "misplaced", "lost", "timed_out", "unsent", "extra_bytes", "reset",
    "closed", "refused", "connect_timed_out", "other",
)  # fmt: skip
MODES: list[dict[str, Any]] = [{}, {"mode": "open", "rate": 2000.0}, {"mode": "reconnect"}]


def assert_faultless(result: Any) -> None:
    """Every message of the window was answered rightly."""
    assert {name: result[name] for name in FAILURES} == dict.fromkeys(FAILURES, 0)
    assert result["failures"] == []
    assert result["sent"] == result["messages"] > 0


# Targets


def test_connections_take_their_targets_in_turn(tmp_path: Path) -> None:
    with (
        serving(echo) as first,
        serving(echo, family=socket.AF_INET6) as second,
        serving(echo, family=socket.AF_UNIX, where=str(tmp_path / "echo")) as third,
        Load([first.target(), second.target(), third.target()], connections=7) as load,
    ):
        load.connect()
        assert_faultless(load.run(0.05))
        assert [len(server.peers) for server in (first, second, third)] == [3, 2, 2]


def test_each_target_has_all_sources_in_turn() -> None:
    sources = ("127.0.0.8", "127.0.0.9")
    with (
        serving(echo) as first,
        serving(echo) as second,
        Load([first.target(), second.target()], connections=8, sources=sources) as load,
    ):
        load.connect()
        for server in (first, second):
            wait_until(lambda: len(server.peers) == 4, what="four connections")  # noqa: B023
            assert sorted(peer[0] for peer in server.peers) == sorted(2 * sources)


def test_a_source_is_used_for_targets_of_its_family() -> None:
    with (
        serving(echo) as first,
        serving(echo, family=socket.AF_INET6) as second,
        Load(
            [first.target(), second.target()], connections=2, sources=("::1", "127.0.0.9")
        ) as load,
    ):
        load.connect()
        assert_faultless(load.run(0.02))
        assert [server.peers[0][0] for server in (first, second)] == ["127.0.0.9", "::1"]


# Sizes


@pytest.mark.parametrize("depth", [1, 9])
@pytest.mark.parametrize("frame", ["raw", "line", "length"])
def test_messages_draw_their_sizes_from_a_table(frame: Any, depth: int) -> None:
    affix = b"" if frame == "raw" else b"affix"
    handler = echo if frame == "raw" else framed(frame, affix, affix)
    sizes = [1, 2, 64, 1000, 70_000]
    with (
        serving(handler) as server,
        server.load(
            size=sizes, frame=frame, prefix=affix, suffix=affix, depth=depth, connections=3
        ) as load,
    ):
        load.connect()
        assert_faultless(load.run(30.0, messages=1000))


def test_each_size_of_a_table_is_sent_as_often_as_it_stands_there() -> None:
    seen: dict[int, int] = {}

    def keep(sock: socket.socket) -> None:
        for line in sock.makefile("rb"):
            seen[len(line)] = seen.get(len(line), 0) + 1
            sock.sendall(line)

    with serving(keep) as server, server.load(size=[10, 20, 20, 20], frame="line") as load:
        load.connect()
        assert_faultless(load.run(30.0, messages=2000))
    assert seen.keys() == {10, 20}
    # 500 of 2,000 are expected, the deviation is 19; the seed makes it the same every time.
    assert 400 < seen[10] < 600


# The window


@pytest.mark.parametrize("settings", MODES, ids=["closed", "open", "reconnect"])
def test_a_number_of_messages_ends_a_run_when_all_are_answered(settings: dict[str, Any]) -> None:
    with serving(echo) as server, server.load(connections=3, **settings) as load:
        load.connect()
        result = load.run(30.0, messages=50)
        assert_faultless(result)
        assert result["messages"] == result["messages_in_window"] == 50
        assert 0 < result["elapsed_ns"] <= result["total_ns"] < 10_000_000_000
        # The next run is not limited by it.
        assert load.run(30.0, messages=70)["messages"] == 70


@pytest.mark.parametrize("settings", MODES, ids=["closed", "open", "reconnect"])
def test_a_reply_that_never_comes_does_not_stretch_the_window(settings: dict[str, Any]) -> None:
    """A number of messages ends with the last reply: the timeout of another is no part of it."""
    numbers = itertools.count(1)

    def echo_all_but_the_ninth(sock: socket.socket) -> None:
        while message := sock.recv(64):
            if next(numbers) == 9:
                hold(sock)
            sock.sendall(message)

    with serving(echo_all_but_the_ninth) as server:
        with server.load(connections=3, timeout=0.5, **settings) as load:
            load.connect()
            result = load.run(30.0, messages=20)
        assert (result["messages"], result["timed_out"]) == (19, 1)
        assert result["elapsed_ns"] < 400_000_000 < result["total_ns"]


@pytest.mark.parametrize(
    ("settings", "lost"), [({"reopen": True}, 1), ({"mode": "reconnect"}, 0)], ids=str
)
def test_the_window_is_not_stretched_by_a_last_message_on_a_new_connection(
    settings: dict[str, Any], lost: int
) -> None:
    numbers = itertools.count(1)

    def leave_and_fall_silent(sock: socket.socket) -> None:
        while message := sock.recv(64):
            number = next(numbers)
            if number == 5:
                hold(sock)
            sock.sendall(message)
            if number == 4:
                return

    with serving(leave_and_fall_silent) as server:
        with server.load(timeout=0.5, **settings) as load:
            load.connect()
            result = load.run(30.0, messages=5 + lost)
        assert (result["messages"], result["lost"], result["timed_out"]) == (4, lost, 1)
        assert result["elapsed_ns"] < 400_000_000 < result["total_ns"]


def test_a_number_of_messages_by_a_schedule_takes_so_many_intervals() -> None:
    """So that the rate is the one that was asked for, and not that of one message fewer."""
    with serving(echo) as server:
        with server.load(mode="open", rate=100.0, phase=0.5, connections=2) as load:
            load.connect()
            result = load.run(30.0, messages=10)
        assert_faultless(result)
        assert abs(result["elapsed_ns"] - 100_000_000) <= 1000
        assert result["total_ns"] >= 100_000_000


def test_a_number_of_messages_is_due_and_no_more_when_the_server_is_gone() -> None:
    def leave(sock: socket.socket) -> None:
        sock.sendall(exact(sock, 64))

    with serving(leave) as server, server.load(mode="open", rate=1000.0, reopen=True) as load:
        load.connect()
        wait_until(lambda: server.peers, what="the connection accepted")
        server.stop_listening()
        result = load.run(30.0, messages=50)
        assert (result["messages"], result["lost"], result["unsent"]) == (1, 49, 0)


@pytest.mark.parametrize("messages", [3, 200])
def test_in_reconnect_mode_there_are_as_many_connections_as_messages(messages: int) -> None:
    with serving(echo) as server, server.load(mode="reconnect", connections=16) as load:
        result = load.run(30.0, messages=messages)
        assert_faultless(result)
        assert result["messages"] == result["connects"] == messages
        assert load.histogram("connect").count == messages
    assert len(server.peers) == messages


def test_when_a_queue_is_given_up_what_was_sent_has_its_time_to_be_answered() -> None:
    """Half of what is due cannot be sent; no connection was ever silent for the timeout."""

    def slowly(sock: socket.socket) -> None:
        while message := sock.recv(64):
            time.sleep(0.02)
            sock.sendall(message)

    options: dict[str, Any] = {"rate": 200.0, "connections": 2, "timeout": 0.1}
    with serving(slowly) as server, server.load(mode="open", **options) as load:
        load.connect()
        result = load.run(0.5)
    assert counted(result) == {}
    assert result["messages"] == result["sent"]
    assert result["sent"] + result["unsent"] == 100
    assert result["unsent"] < result["held"] <= 100


def test_in_an_open_loop_that_keeps_up_no_message_waits() -> None:
    with serving(echo) as server, server.load(mode="open", rate=1000.0, connections=99) as load:
        load.connect()
        result = load.run(0.1, start_ns=time.monotonic_ns() + 10_000_000)
        assert_faultless(result)
        assert result["held"] == 0
        assert load.histogram("schedule_error").count == 100


POLLS = """
import os, sys
from fastecho._load import Load
load = Load([(2, ("127.0.0.1", int(sys.argv[1])))], mode="open", rate=100.0, poll=True)
load.connect()
found = load.run(0.6)
print(found["spin_ns"], found["cpu_ns"], flush=True)
"""


def test_a_generator_that_stands_still_does_not_poll_meanwhile() -> None:
    """Else its work would be less than nothing."""
    received: list[bytes] = []

    def note(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            received.append(data)
            sock.sendall(data)

    with serving(note) as server, Program(POLLS, str(server.target()[1][1])) as program:
        wait_until(lambda: len(received) > 5, what="a run")
        stop = time.monotonic() + 0.3
        with program.paused():
            wait_until(lambda: time.monotonic() > stop, what="a pause that would show")
        spin_ns, cpu_ns = map(int, program.line().split())
    assert spin_ns < cpu_ns + 50_000_000


def test_deep_pipelines_are_filled_one_after_the_other_while_replies_are_read() -> None:
    """Filling them all takes longer than the first run; the second looks for replies meanwhile."""
    with serving(hold) as server, server.load(connections=64, depth=65536, timeout=0.1) as load:
        load.connect()
        result = load.run(0.005)
        assert 0 < result["sent"] < 32 * 65536
        load.connect()
        assert load.run(0.2)["iterations"] > 40


@pytest.mark.parametrize("settings", MODES, ids=["closed", "open", "reconnect"])
def test_the_warm_up_is_the_same_load_and_is_not_counted(settings: dict[str, Any]) -> None:
    received: list[float] = []

    def note(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            received.append(time.monotonic())
            sock.sendall(data)

    with serving(note) as server, server.load(**settings) as load:
        load.connect()
        begin = time.monotonic()
        result = load.run(0.1, warmup=0.2)
        assert time.monotonic() - begin >= 0.3
        assert_faultless(result)
        assert load.histogram().count == result["messages"]
        assert result["elapsed_ns"] == 100_000_000
        assert len(received) > result["messages"] * 1.2
        if settings.get("mode") == "open":
            assert (len(received), result["sent"]) == (600, 200)


def test_what_fails_in_the_warm_up_is_counted_and_its_time_is_negative() -> None:
    def greet(sock: socket.socket) -> None:
        sock.sendall(b"hello")
        hold(sock)

    with serving(greet) as server, server.load(mode="idle") as load:
        load.connect()
        result = load.run(0.05, warmup=0.2)
        assert result["extra_bytes"] == 5
        ((moment, sentence),) = result["failures"]
        assert -250_000_000 < moment < 0
        assert sentence == "connection 0: 5 bytes came although no reply was due"


def test_a_failure_has_its_time_in_the_window() -> None:
    def later(sock: socket.socket) -> None:
        time.sleep(0.15)  # the moment that is to be told
        sock.sendall(b"hello")
        hold(sock)

    with serving(later) as server, server.load(mode="idle") as load:
        load.connect()
        ((moment, _),) = load.run(0.4)["failures"]
        assert 50_000_000 < moment < 400_000_000


def test_a_ramp_opens_connections_evenly() -> None:
    arrived: list[float] = []

    def note(sock: socket.socket) -> None:
        arrived.append(time.monotonic())
        hold(sock)

    with serving(note) as server, server.load(connections=10, mode="idle") as load:
        begin = time.monotonic()
        result = load.run(0.6, ramp=0.5)
        assert result["failures"] == []
        assert result["connects"] == result["connections_open"] == 10
    # 50 ms lie between two of them.
    for number, moment in enumerate(sorted(arrived)):
        assert 0.05 * number - 0.002 <= moment - begin < 0.05 * number + 0.2


def test_a_ramp_in_an_open_loop_loses_nothing() -> None:
    """The first messages are due before the first connection is open: they wait for it."""
    with serving(echo) as server, server.load(mode="open", rate=1000, connections=3) as load:
        result = load.run(0.2, ramp=0.1)
        assert_faultless(result)
        assert result["messages"] == 200


def test_a_run_begins_at_the_time_that_was_given() -> None:
    received: list[int] = []

    def note(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            received.append(time.monotonic_ns())
            sock.sendall(data)

    with serving(note) as server, server.load() as load:
        load.connect()
        start = time.monotonic_ns() + 200_000_000
        result = load.run(0.05, start_ns=start)
        assert_faultless(result)
        assert start <= received[0] < start + 50_000_000
        assert result["elapsed_ns"] == 50_000_000
        # One that is over is now.
        assert_faultless(load.run(0.02, start_ns=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"messages": 0}, "messages must be between 1 and 9223372036854775808, not 0"),
        ({"warmup": -1.0}, "warmup must be between 0.0 and 1000000.0, not -1.0"),
        ({"ramp": math.nan}, "ramp must be between 0.0 and 1000000.0, not nan"),
        ({"start_ns": -1}, "start_ns must be between 0 and"),
        ({"start_ns": 2**63}, "start_ns must be between 0 and"),
    ],
)
def test_a_wrong_argument_of_a_run_is_named(arguments: dict[str, Any], message: str) -> None:
    with Load([(socket.AF_INET, ("127.0.0.1", 9))]) as load, pytest.raises(ValueError) as refused:  # noqa: PT011 -- compared as text, not as a pattern
        load.run(1.0, **arguments)
    assert message in str(refused.value)


# Schedules


def arrivals(server: Served, times: list[int], **settings: Any) -> list[int]:
    """Return when the messages of a run arrived, in ns since its start."""
    with server.load(mode="open", connections=8, **settings) as load:
        load.connect()
        start = time.monotonic_ns() + 20_000_000
        assert_faultless(load.run(0.5, start_ns=start))
    return sorted(moment - start for moment in times)


def test_a_phase_moves_a_fixed_schedule() -> None:
    times: list[int] = []

    def note(sock: socket.socket) -> None:
        while data := sock.recv(64):
            times.append(time.monotonic_ns())
            sock.sendall(data)

    with serving(note) as server:
        found = arrivals(server, times, rate=20.0, phase=0.5)
    assert len(found) == 10
    for number, moment in enumerate(found):
        due = (number + 0.5) * 50_000_000
        assert due <= moment < due + 200_000_000


def test_a_poisson_schedule_is_irregular_and_repeats_with_its_seed() -> None:
    times: list[int] = []

    def note(sock: socket.socket) -> None:
        while data := sock.recv(64):
            times.append(time.monotonic_ns())
            sock.sendall(data)

    with serving(note) as server:
        runs = []
        for seed in (1, 1, 2):
            times.clear()
            runs.append(arrivals(server, times, rate=400.0, schedule="poisson", seed=seed))
    first, again, other = runs
    assert len(first) == len(again) != len(other) or first[0] // 10**6 != other[0] // 10**6
    # 200 are expected, the deviation is 14.
    assert 140 < len(first) < 260
    gaps = [after - before for before, after in itertools.pairwise(first)]
    # Of evenly spaced messages none would come within 1 ms: a third of these do.
    assert sum(gap < 1_000_000 for gap in gaps) > len(gaps) // 8


# Watching and ending


@pytest.mark.parametrize("settings", [*MODES, {"mode": "idle"}])
def test_stop_ends_a_run_from_another_thread(settings: dict[str, Any]) -> None:
    with serving(echo) as server, server.load(connections=2, **settings) as load:
        load.connect()
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(load.run, 50.0)
            wait_until(lambda: load.snapshot()["elapsed_ns"] > 20_000_000, what="a run")
            load.stop()
            result = running.result(10)
        assert 20_000_000 < result["elapsed_ns"] < 10_000_000_000
        if settings.get("mode") != "idle":
            assert_faultless(result)
        # The next run is not ended by it.
        assert load.run(0.05)["elapsed_ns"] == 50_000_000


def test_stop_can_end_a_run_without_what_is_outstanding() -> None:
    with serving(hold) as server, server.load(connections=2, timeout=50.0) as load:
        load.connect()
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(load.run, 50.0)
            wait_until(lambda: load.snapshot()["sent"] == 2, what="messages")
            load.stop(collect=False)
            result = running.result(10)
        assert result["timed_out"] == 2
        assert result["total_ns"] < 10_000_000_000


def test_stop_before_a_run_ends_it_at_once() -> None:
    with serving(echo) as server, server.load() as load:
        load.connect()
        load.stop()
        result = load.run(50.0)
        assert (result["sent"], result["elapsed_ns"], result["connections_open"]) == (0, 0, 1)


def test_stop_ends_the_wait_for_a_start_time() -> None:
    with serving(echo) as server, server.load() as load:
        load.connect()
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(load.run, 1.0, start_ns=time.monotonic_ns() + 60 * 10**9)
            load.stop()
            result = running.result(10)
        assert (result["sent"], result["elapsed_ns"]) == (0, 0)


def test_stop_in_the_warm_up_leaves_an_empty_window() -> None:
    with serving(echo) as server, server.load() as load:
        load.connect()
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(load.run, 1.0, warmup=50.0)
            wait_until(lambda: load.histogram("connect").count == 1, what="a connection")
            load.stop()
            result = running.result(10)
        assert (result["messages"], result["elapsed_ns"]) == (0, 0)


@pytest.mark.parametrize("settings", MODES, ids=["closed", "open", "reconnect"])
def test_a_run_is_watched_by_another_thread(settings: dict[str, Any]) -> None:
    """Numbers only grow, and end as the result says."""
    with serving(echo) as server, server.load(connections=4, **settings) as load:
        load.connect()
        seen: list[dict[str, Any]] = []
        counts: list[int] = []
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(load.run, 0.3, warmup=0.05)
            while not running.done():
                seen.append(dict(load.snapshot()))
                counts.append(load.histogram().count)
                time.sleep(0.001)  # as somebody who watches does
            result: dict[str, Any] = dict(running.result())
        assert_faultless(result)
        growing = ("messages", "bytes", "sent", "elapsed_ns")
        for name in growing:
            values = [one[name] for one in seen]
            assert values == sorted(values)
            assert values[-1] <= result[name]
        assert len({one["messages"] for one in seen}) > 10
        assert counts == sorted(counts)
        assert load.histogram().count == result["messages"]
        told = dict(result)
        del told["failures"]
        assert load.snapshot() == told
        assert any(0 < one["cpu_ns"] < result["cpu_ns"] for one in seen)


def test_a_snapshot_before_the_first_run_is_zero() -> None:
    with Load([(socket.AF_INET, ("127.0.0.1", 9))]) as load:
        assert set(load.snapshot().values()) == {0}


def test_a_load_may_be_closed_while_it_is_looked_at() -> None:
    with serving(hold) as server:
        load = server.load(mode="idle")
        load.connect()
        done = threading.Event()

        def look() -> None:
            while not done.is_set():
                load.snapshot()
                try:
                    load.histogram("connect")
                except RuntimeError:
                    done.set()

        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(look)
            load.close()
            looking.result(10)


# Histograms


def test_each_histogram_has_its_name() -> None:
    with serving(echo) as server, server.load(mode="open", rate=2000, connections=5) as load:
        load.connect()
        assert load.histogram("connect").count == 5
        result = load.run(0.1)
        assert_faultless(result)
        assert load.histogram("latency").count == load.histogram("service").count == 200
        assert load.histogram("schedule_error").count == 200 - result["held"]
        assert load.histogram("service").max <= load.histogram("latency").max
        load.reset()
        for name in ("latency", "service", "connect", "schedule_error"):
            assert load.histogram(name).count == 0
        with pytest.raises(ValueError, match="name must be one of latency, service, connect, sch"):
            load.histogram("lateness")  # type: ignore[arg-type]


def test_only_an_open_loop_has_service_times_and_schedule_errors() -> None:
    with serving(echo) as server, server.load() as load:
        load.connect()
        assert_faultless(load.run(0.02))
        assert load.histogram("service").count == load.histogram("schedule_error").count == 0
        load.reset()


def test_reconnecting_records_each_connect() -> None:
    with serving(echo) as server, server.load(mode="reconnect") as load:
        result = load.run(0.1)
        assert load.histogram("connect").count == result["connects"] == result["messages"]
        assert load.histogram("connect").max <= load.histogram("latency").max


def test_messages_of_a_table_are_the_same_again_with_the_same_seed() -> None:
    seen: list[bytes] = []

    def keep(sock: socket.socket) -> None:
        seen.append(exact(sock, 500))
        hold(sock)

    for _ in range(2):
        with serving(keep) as server, server.load(size=[5, 9, 30], depth=100, timeout=0.1) as load:
            load.connect()
            load.run(0.01)
    assert seen[0] == seen[1]
