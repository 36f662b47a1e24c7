"""The load generator against servers that echo: what it sends, measures and leaves behind.

The servers here are threads around blocking sockets, some lines each, so that nothing but the
generator is under test. Servers that do wrong are in test_load_failures.py.
"""

from __future__ import annotations

import _thread
import errno
import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from load_servers import echo, exact, framed, hold, serving

from fastecho._load import Load

if TYPE_CHECKING:
    from fastecho._load import RunResult

FAILURES = (
    "late", "corrupt", "misplaced", "lost", "timed_out", "unsent", "extra_bytes", "reset",
    "closed", "refused", "connect_timed_out", "other",
)  # fmt: skip

# Nobody listens there, and nobody needs to.
DISCARD = (socket.AF_INET, ("127.0.0.1", 9))


def at(address: object, family: int = socket.AF_INET) -> dict[str, object]:
    """Return the argument of a load that drives what is there."""
    return {"targets": [(family, address)]}


def assert_faultless(result: RunResult) -> None:
    """Every message sent was answered rightly, and nothing went wrong."""
    counted = dict(result)
    assert {name: counted[name] for name in FAILURES} == dict.fromkeys(FAILURES, 0)
    assert result["failures"] == []
    assert result["sent"] == result["messages"] > 0


@pytest.mark.parametrize("sendfile", [False, True], ids=["send", "sendfile"])
@pytest.mark.parametrize(
    ("size", "connections", "depth"),
    [
        (1, 1, 1),
        (64, 1, 1),
        (64, 20, 1),
        (1, 3, 100),
        (64, 3, 33),
        (100_000, 2, 3),
        (1 << 20, 2, 1),
    ],
)
def test_echo_is_driven_and_verified(
    size: int, connections: int, depth: int, sendfile: bool
) -> None:
    with (
        serving(echo) as server,
        server.load(size=size, connections=connections, depth=depth, sendfile=sendfile) as load,
    ):
        load.connect()
        for _ in range(2):
            load.reset()
            result = load.run(0.05)
            assert_faultless(result)
            assert result["messages"] >= connections * depth
            assert result["bytes"] == result["messages_in_window"] * size
            assert result["bytes_received"] == result["bytes_sent"] == result["messages"] * size
            assert result["connections_open"] == connections
            assert load.histogram().count == result["messages"]


@pytest.mark.parametrize("depth", [1, 8])
@pytest.mark.parametrize("size", [1, 2, 64, 50_000])
@pytest.mark.parametrize(
    ("prefix", "suffix"), [(b"", b""), ("服务端: ".encode(), b""), (b"<" * 4096, b">" * 4096)]
)
@pytest.mark.parametrize("frame", ["line", "length"])
def test_frames_carry_prefix_and_suffix(
    frame: str, prefix: bytes, suffix: bytes, size: int, depth: int
) -> None:
    with (
        serving(framed(frame, prefix, suffix)) as server,
        server.load(
            frame=frame, prefix=prefix, suffix=suffix, size=size, depth=depth, connections=2
        ) as load,
    ):
        load.connect()
        assert_faultless(load.run(0.02))


def test_lines_hold_no_other_line_end() -> None:
    seen: list[bytes] = []

    def keep(sock: socket.socket) -> None:
        for line in sock.makefile("rb"):
            seen.append(line)
            sock.sendall(line)

    with serving(keep) as server, server.load(frame="line", size=1000) as load:
        load.connect()
        assert_faultless(load.run(0.05))
    assert {len(line) for line in seen} == {1000}
    assert not any(b"\r" in line for line in seen)


def test_messages_differ_by_connection_number_and_seed() -> None:
    seen: set[bytes] = set()

    def keep(sock: socket.socket) -> None:
        for _ in range(5):
            seen.add(message := exact(sock, 64))
            sock.sendall(message)
        exact(sock, 64)

    for seed in (1, 2):
        with serving(keep) as server, server.load(connections=4, seed=seed, timeout=0.2) as load:
            load.connect()
            assert load.run(0.1)["messages"] == 20
    assert len(seen) == 40


def test_the_largest_message_comes_back() -> None:
    with serving(echo) as server, server.load(size=64 << 20, timeout=30.0) as load:
        load.connect()
        assert_faultless(result := load.run(0.001))
        assert result["bytes_received"] == result["messages"] * (64 << 20)


@pytest.mark.parametrize("mode", ["closed", "reconnect"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_every_family_is_reached(family: socket.AddressFamily, mode: str, tmp_path: Path) -> None:
    where = str(tmp_path / "echo") if family == socket.AF_UNIX else None
    with (
        serving(echo, family=family, where=where) as server,
        server.load(connections=3, mode=mode) as load,
    ):
        load.connect()
        assert_faultless(load.run(0.05))


def test_pipelined_messages_travel_together() -> None:
    """32 messages that are due at once are one send, and one recv of the server sees them."""
    sizes: list[int] = []

    def measure(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            sizes.append(len(data))
            sock.sendall(data)

    with serving(measure) as server, server.load(depth=32) as load:
        load.connect()
        assert_faultless(load.run(0.05))
    assert sum(size == 32 * 64 for size in sizes) >= 0.9 * len(sizes)


def test_nothing_is_in_flight_after_a_run() -> None:
    received = [0]

    def count(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            received[0] += len(data)
            sock.sendall(data)

    with serving(count) as server, server.load(connections=5, depth=7) as load:
        load.connect()
        for _ in range(3):
            received[0] = 0
            result = load.run(0.02)
            assert received[0] == result["bytes_sent"] == result["bytes_received"]


def test_times_are_those_of_the_run() -> None:
    with serving(echo) as server, server.load(connections=4) as load:
        load.connect()
        cpu, wall = time.thread_time_ns(), time.monotonic_ns()
        result = load.run(0.1)
        cpu, wall = time.thread_time_ns() - cpu, time.monotonic_ns() - wall
    assert result["elapsed_ns"] == 100_000_000
    assert result["elapsed_ns"] <= result["total_ns"] <= wall
    assert 0 < result["cpu_ns"] <= cpu
    assert 0 < result["messages_in_window"] <= result["messages"]
    assert result["iterations"] > 0


def test_latency_is_that_of_the_server() -> None:
    def slow(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            time.sleep(0.02)  # the latency that is to be measured
            sock.sendall(data)

    with serving(slow) as server, server.load() as load:
        load.connect()
        result = load.run(0.2)
        histogram = load.histogram()
        assert_faultless(result)
        assert 20_000_000 <= histogram.min <= histogram.percentile(50) <= histogram.max
        # One message at a time: all latencies together are the run.
        assert histogram.mean * histogram.count <= result["total_ns"] * 1.01
        load.reset()
        assert load.histogram().count == 0


# Open loop


def test_open_loop_sends_the_rate_that_was_asked_for() -> None:
    with (
        serving(echo) as server,
        server.load(mode="open", rate=2000, connections=7, depth=4) as load,
    ):
        load.connect()
        result = load.run(0.25)
        assert_faultless(result)
        assert result["sent"] == 500
        assert load.histogram().count == 500
        assert load.histogram("schedule_error").count == 500 - result["held"]
        assert result["elapsed_ns"] == 250_000_000


def test_open_loop_spreads_over_the_connections() -> None:
    counts: list[int] = []

    def count(sock: socket.socket) -> None:
        messages = 0
        while data := sock.recv(1 << 16):
            messages += len(data) // 64
            sock.sendall(data)
        counts.append(messages)

    with serving(count) as server, server.load(mode="open", rate=1000, connections=10) as load:
        load.connect()
        assert_faultless(load.run(0.2))
    assert len(counts) == 10
    assert sum(counts) == 200
    assert min(counts) >= 5


def test_open_loop_latency_counts_from_the_intended_time_at_a_stall() -> None:
    """A stall of 0.2 s: with one message outstanding, the others wait and are late as well."""
    stalled = threading.Event()
    outstanding: list[int] = []

    def stall_once(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            outstanding.append(len(data) // 64)
            if not stalled.is_set():
                stalled.set()
                time.sleep(0.2)  # the stall that is to be seen
            sock.sendall(data)

    with serving(stall_once) as server, server.load(mode="open", rate=500, depth=2) as load:
        load.connect()
        result = load.run(0.5)
        latency, schedule = load.histogram(), load.histogram("schedule_error")
    assert_faultless(result)
    assert result["sent"] == latency.count == 250
    assert max(outstanding) <= 2
    # 100 of the 250 were due during the stall: half of those waited 0.1 s or more.
    assert latency.percentile(80) >= 90_000_000
    # They waited for a connection; that is not the generator's lateness.
    assert result["held"] >= 90
    assert schedule.count == 250 - result["held"]


def test_open_loop_counts_what_it_could_not_send() -> None:
    def slow(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            time.sleep(0.01)  # 100 messages a second are all it serves
            sock.sendall(data)

    with serving(slow) as server, server.load(mode="open", rate=1000, timeout=0.2) as load:
        load.connect()
        result = load.run(0.2)
        assert 5 <= result["sent"] <= 41
        assert result["sent"] + result["unsent"] == 200
        assert result["total_ns"] >= 400_000_000


def test_open_loop_sleeps_between_messages() -> None:
    """A message is awaited asleep, but for the last moment: the core is not burnt."""
    with serving(echo) as server, server.load(mode="open", rate=50) as load:
        load.connect()
        result = load.run(0.4)
        assert_faultless(result)
        # 20 messages, 0.1 ms of looking ahead each; all of 0.4 s if it did not sleep.
        assert result["cpu_ns"] < 100_000_000


# Reconnecting


def test_reconnect_ends_each_connection_by_fin_and_waits_for_the_servers() -> None:
    ends: list[bytes] = []

    def once(sock: socket.socket) -> None:
        sock.sendall(exact(sock, 64))
        ends.append(sock.recv(1))

    with serving(once) as server, server.load(mode="reconnect", connections=4) as load:
        result = load.run(0.1)
        assert_faultless(result)
        assert result["connects"] == result["messages"] == load.histogram().count
        assert result["connections_open"] == 0
        wait_for = result["connects"]
    assert ends == [b""] * wait_for


def test_reconnect_can_end_connections_by_rst() -> None:
    ends: list[int] = []

    def once(sock: socket.socket) -> None:
        sock.sendall(exact(sock, 64))
        try:
            sock.recv(1)
        except ConnectionResetError as error:
            ends.append(error.errno or 0)

    with serving(once) as server, server.load(mode="reconnect", close="reset") as load:
        result = load.run(0.05)
        assert_faultless(result)
    assert ends == [errno.ECONNRESET] * result["connects"]


def test_reconnect_uses_many_source_addresses_on_loopback() -> None:
    with serving(echo) as server, server.load(mode="reconnect", connections=64) as load:
        assert_faultless(load.run(0.05))
    assert len({peer[0] for peer in server.peers}) == 64
    assert all(peer[0].startswith("127.0.1.") for peer in server.peers)


def test_a_source_address_of_ipv6_is_used() -> None:
    with (
        serving(echo, family=socket.AF_INET6) as server,
        server.load(mode="reconnect", sources=("::1",)) as load,
    ):
        assert_faultless(load.run(0.02))


def test_source_addresses_are_used_in_turn() -> None:
    with (
        serving(echo) as server,
        server.load(connections=5, sources=("127.0.0.9", "127.0.0.8")) as load,
    ):
        load.connect()
        assert_faultless(load.run(0.01))
    assert sorted(peer[0] for peer in server.peers) == ["127.0.0.8"] * 2 + ["127.0.0.9"] * 3


# Connecting and holding


def test_idle_connections_are_held_and_send_nothing() -> None:
    with serving(hold) as server, server.load(mode="idle", connections=500) as load:
        load.connect()
        assert load.connections_open == 500
        result = load.run(0.05)
        assert result["connections_open"] == result["connects"] == 500
        assert (result["sent"], result["bytes_received"], result["failures"]) == (0, 0, [])
        load.connect()
        assert load.run(0.01)["connects"] == 0


def test_connecting_waits_for_room_in_a_unix_backlog(tmp_path: Path) -> None:
    """The kernel says EAGAIN at once there: it is tried again until the timeout."""
    with (
        serving(hold, family=socket.AF_UNIX, where=str(tmp_path / "echo"), backlog=2) as server,
        server.load(connections=100, mode="idle") as load,
    ):
        load.connect()
        assert load.connections_open == 100


def test_too_few_descriptors_are_one_error() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(hold) as server, server.load(connections=200, mode="idle") as load:
        # Both ends of a connection count here.
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 20, hard))
        try:
            with pytest.raises(OSError, match="of 200 connections failed") as failed:
                load.connect()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert failed.value.errno == errno.EMFILE
        load.connect()
        assert load.connections_open == 200


# The object


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"connections": 0}, "connections must be between 1 and 1048576, not 0"),
        ({"depth": 65537}, "depth must be between 1 and 65536, not 65537"),
        ({"size": 0}, "size must be between 1 and 67108864, not 0"),
        ({"size": (64 << 20) + 1}, "size must be between 1 and 67108864, not 67108865"),
        ({"timeout": 0}, "timeout must be between 0.001 and 1000000.0, not 0"),
        ({"frame": "recv"}, "frame must be one of raw, line, length, not 'recv'"),
        (
            {"mode": "fast"},
            "mode must be one of closed, open, reconnect, idle, upload, download, not 'fast'",
        ),
        ({"close": "now"}, "close must be one of fin, reset, not 'now'"),
        ({"prefix": b"x"}, "prefix needs frame 'line' or 'length', not 'raw'"),
        ({"suffix": b"x" * 4097, "frame": "line"}, "the length of suffix must be between 0 and"),
        ({"rate": 5.0}, "rate must be given in mode 'open' only, not 5.0 in 'closed'"),
        ({"mode": "open"}, "rate must be given in mode 'open' only, not 0.0 in 'open'"),
        ({"mode": "open", "rate": -1.0}, "rate must be between 0.001 and 10000000.0, not -1.0"),
        ({"mode": "reconnect", "depth": 2}, "depth must be 1 in mode 'reconnect', not 2"),
        ({"size": []}, "the number of sizes must be between 1 and 65536, not 0"),
        ({"size": [1] * 65537}, "the number of sizes must be between 1 and 65536, not 65537"),
        ({"size": [64, 0]}, "size must be between 1 and 67108864, not 0"),
        ({"size": [64, 1], "sendfile": True}, "sendfile needs one size, not a table of 2"),
        ({"schedule": "odd"}, "schedule must be one of fixed, poisson, not 'odd'"),
        ({"phase": 1.5}, "phase must be between 0.0 and 1.0, not 1.5"),
        ({"targets": []}, "the number of targets must be between 1 and 65536, not 0"),
        ({"targets": [(socket.AF_UNIX, "x")], "sources": ["::1"]}, "sources need an IP"),
        ({"sources": ["here"]}, "address must be (numeric host, port), not ('here', 0)"),
        ({"sources": ["::1"]}, "none of the sources ['::1'] fits the target ('127.0.0.1', 9)"),
        (at(("localhost", 7)), "address must be (numeric host, port), not ('localhost'"),
        (at(("127.0.0.1", 70000)), "address must be (numeric host, port), not"),
        (at("x"), "address must be (numeric host, port), not 'x'"),
        (at("x" * 108, socket.AF_UNIX), "a path of 1 to 107 bytes, not"),
        (at(b"", socket.AF_UNIX), "a path of 1 to 107 bytes, not"),
        (at(("127.0.0.1", 7), 77), "family must be AF_INET, AF_INET6 or AF_UNIX, not 77"),
    ],
)
def test_wrong_argument_is_named_with_its_value(arguments: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"targets": [DISCARD], **arguments}
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- compared as text, not as a pattern
        Load(**given)  # type: ignore[arg-type]
    assert message in str(refused.value)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_run_takes_time(seconds: float) -> None:
    with Load([DISCARD]) as load, pytest.raises(ValueError, match="seconds must be between"):
        load.run(seconds)


def test_run_without_a_connection_is_refused() -> None:
    with Load([DISCARD]) as load, pytest.raises(RuntimeError, match="no connection is open"):
        load.run(1.0)


def test_a_closed_load_says_so() -> None:
    load = Load([DISCARD])
    load.close()
    load.close()
    assert load.connections_open == 0
    for method in (load.connect, load.reset, load.histogram):
        with pytest.raises(RuntimeError, match="the load is closed"):
            method()
    with pytest.raises(RuntimeError, match="the load is closed"):
        load.run(1.0)


def test_closing_ends_every_connection() -> None:
    with serving(hold) as server:
        load = server.load(connections=10, mode="idle")
        load.connect()
        load.close()
        server.wait_for_ends(10)


@pytest.mark.parametrize("mode", ["closed", "reconnect"])
def test_a_closed_load_cannot_connect(mode: Literal["closed", "reconnect"]) -> None:
    load = Load([DISCARD], mode=mode)
    load.close()
    with pytest.raises(RuntimeError, match="the load is closed"):
        load.connect()


def test_a_load_goes_on_with_new_connections_after_a_disconnect() -> None:
    with serving(echo) as server, server.load(connections=3) as load:
        load.connect()
        assert_faultless(load.run(0.05))
        load.disconnect()
        server.wait_for_ends(3)
        assert load.connections_open == 0
        load.connect()
        assert load.connections_open == 3
        result = load.run(0.05)
        assert_faultless(result)
        assert result["connects"] == 3


def test_one_thread_at_a_time() -> None:
    arrived, answer = threading.Event(), threading.Event()

    def wait(sock: socket.socket) -> None:
        message = exact(sock, 64)
        arrived.set()
        answer.wait(10)
        sock.sendall(message)
        hold(sock)

    with serving(wait) as server, server.load(timeout=20.0) as load:
        load.connect()
        # A window that is over before the answer is there: no second message is sent.
        thread = threading.Thread(target=load.run, args=(0.000001,))
        thread.start()
        assert arrived.wait(10)
        for method in (load.connect, load.reset, load.close):
            with pytest.raises(RuntimeError, match="another thread"):
                method()
        answer.set()
        thread.join()
        assert load.histogram().count == 1


def test_ctrl_c_ends_a_run_and_closes_its_connections() -> None:
    interrupted = threading.Event()

    def interrupt(sock: socket.socket) -> None:
        sock.sendall(exact(sock, 64))
        if not interrupted.is_set():
            interrupted.set()
            _thread.interrupt_main(signal.SIGINT)
        echo(sock)

    begin = time.monotonic()
    with serving(interrupt) as server, server.load() as load:
        load.connect()
        with pytest.raises(KeyboardInterrupt):
            load.run(50.0)
        assert time.monotonic() - begin < 10
        assert load.connections_open == 0
        # What the broken-off run has counted is forgotten.
        load.connect()
        assert load.connections_open == 1
        assert_faultless(load.run(0.02))
