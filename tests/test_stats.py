"""Statistics: exact at rest, consistent under load, and never behind what a peer has seen."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from conftest import Join, MakeServer
from peers import (
    exchange,
    expect_stats,
    fill,
    is_turned_away,
    pattern,
    read_to_eof,
    recv_exactly,
    reset,
    wait_until,
)

from fastecho import Server, Stats
from fastecho.stats import WorkerStats

if TYPE_CHECKING:
    import fastecho

NAMES = [name for name in WorkerStats.__slots__ if name not in ("errors", "queue_waits")]
COUNTERS = [name for name in NAMES if name not in ("connections_open", "bytes_pending")]
MILLION = 1_000_000


def numbers(stats: WorkerStats) -> dict[str, float]:
    """Return every counter by name."""
    return {name: getattr(stats, name) for name in NAMES}


def gone_back(now: WorkerStats, before: WorkerStats) -> list[str]:
    """Return the counters that are less than they were, which must be none."""
    names = [name for name in COUNTERS if getattr(now, name) < getattr(before, name)]
    waits = zip(now.queue_waits, before.queue_waits, strict=True)
    if any(one < other for one, other in waits):
        names.append("queue_waits")
    names += [name for name, count in before.errors.items() if now.errors.get(name, 0) < count]
    return names


def reasons(stats: WorkerStats) -> int:
    """Return how many connections have ended, for whatever reason."""
    return sum(getattr(stats, name) for name in NAMES if name.startswith("ended_by_"))


def total(stats: Stats, name: str) -> int:
    """Return the sum of a counter over the workers."""
    return sum(getattr(worker, name) for worker in stats.workers)


# --- exact -----------------------------------------------------------------------------------


def test_raw_echo_counts_every_byte_and_message(make_server: MakeServer, join: Join) -> None:
    server = make_server(threads=2)
    peers = [join(server) for _ in range(6)]
    for size, peer in enumerate(peers, 1):
        for _ in range(10):
            assert len(exchange(peer, b"m" * size)) == size
    stats = server.stats()
    assert (stats.connections_accepted, stats.connections_closed) == (6, 0)
    assert stats.connections_open == 6
    assert stats.bytes_in == stats.bytes_out == 10 * (1 + 2 + 3 + 4 + 5 + 6)
    assert stats.messages == 60
    assert (stats.bytes_pending, stats.bytes_dropped, stats.bytes_discarded) == (0, 0, 0)
    assert stats.errors == {}


def test_frames_are_counted_whatever_the_segments(make_server: MakeServer, join: Join) -> None:
    server = make_server(frame="line", prefix=b"> ", suffix=b"!")
    peer = join(server)
    assert exchange(peer, [b"a\nb", b"c\n", b"\nd\ne\n"], 9 + 5 * 3) == (
        b"> a!\n> bc!\n> !\n> d!\n> e!\n"
    )
    stats = server.stats()
    assert (stats.messages, stats.bytes_in, stats.bytes_out) == (5, 10, 25)


def test_each_end_is_counted_by_its_reason(make_server: MakeServer, join: Join) -> None:
    allowed = threading.Event()
    allowed.set()
    server = make_server(
        threads=2, frame="line", max_frame=100, on_accept=lambda _: allowed.is_set()
    )
    peers = [join(server) for _ in range(9)]
    for peer in peers:
        assert exchange(peer, b"x\n") == b"x\n"
    for peer in peers[:2]:
        peer.close()
    for peer in peers[2:5]:
        reset(peer)
    peers[5].sendall(b"y" * 200)
    assert read_to_eof(peers[5]) == b""
    peers[5].close()
    allowed.clear()
    assert is_turned_away(server)
    wait_until(lambda: server.stats().connections_closed == 7)
    stats = server.stats()
    assert (stats.ended_by_peer, stats.ended_by_error) == (2, 3)
    assert (stats.ended_by_frame_too_long, stats.ended_by_denial) == (1, 1)
    assert stats.errors == {"ECONNRESET": 3}
    assert (stats.connections_open, reasons(stats)) == (3, 7)
    server.abort()
    stats = server.stats()
    assert (stats.ended_by_abort, stats.connections_open) == (3, 0)


def test_sums_are_those_of_the_workers(make_server: MakeServer, join: Join) -> None:
    server = make_server(threads=3)
    peers = [join(server) for _ in range(9)]
    for peer in peers:
        assert exchange(peer, b"12345") == b"12345"
    for peer in peers[:4]:
        reset(peer)
    wait_until(lambda: server.stats().connections_closed == 4)
    stats = server.stats()
    assert len(stats.workers) == 3
    assert numbers(stats) == {name: total(stats, name) for name in NAMES}
    assert [worker.bytes_in for worker in stats.workers] == [15, 15, 15]
    assert sum(worker.errors.get("ECONNRESET", 0) for worker in stats.workers) == 4


def test_pending_is_a_gauge(make_server: MakeServer, join: Join) -> None:
    server = make_server()
    peer = join(server)
    data = pattern(32 << 20)
    sent = fill(peer, data, blocked=lambda: server.stats().bytes_pending > 0)
    stats = server.stats()
    assert 0 < stats.bytes_pending <= 256 * 1024
    assert stats.short_writes >= 1
    assert recv_exactly(peer, sent) == data[:sent]
    assert server.stats().bytes_pending == 0
    assert server.stats().bytes_in == server.stats().bytes_out == sent


def test_what_a_connection_was_owed_at_its_end_is_dropped(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server()
    peer = join(server)
    fill(peer, pattern(32 << 20), blocked=lambda: server.stats().bytes_pending > 0)
    pending = server.stats().bytes_pending
    reset(peer)
    expect_stats(server, connections_closed=1, bytes_pending=0, bytes_dropped=pending)


def test_a_loop_that_sleeps_does_not_count(make_server: MakeServer, join: Join) -> None:
    """One event for each message, and no round without one."""
    server = make_server()
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    before = server.stats()
    for _ in range(100):
        assert exchange(peer, b"x") == b"x"
    after = server.stats()
    assert after.events - before.events == 100
    assert after.iterations - before.iterations == 100


def test_times_are_those_of_the_workers_threads(make_server: MakeServer, join: Join) -> None:
    """One that burns a core, in a callback, has it nearly all the time; one that waits, hardly."""
    server = make_server()
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    began, before = time.monotonic(), server.stats()
    assert not threading.Event().wait(0.3)
    passed, after = time.monotonic() - began, server.stats()
    assert after.running_time - before.running_time == pytest.approx(passed, abs=0.1)
    assert 0 <= after.busy_time - before.busy_time < 0.1
    assert after.callback_time == 0
    assert server.stop()
    end = server.stats()
    assert end.running_time >= after.running_time
    assert end.busy_time >= after.busy_time
    assert (end.running_time, end.busy_time) == (server.stats().running_time, end.busy_time)


def test_time_in_callbacks_is_counted(make_server: MakeServer, join: Join) -> None:
    def answer(_: fastecho.Connection, data: bytes) -> bytes:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        return data

    server = make_server(on_message=answer)
    peer = join(server)
    for _ in range(4):
        assert exchange(peer, b"x") == b"x"
    stats = server.stats()
    assert stats.callback_time >= 0.2
    assert 0.2 <= stats.busy_time <= stats.running_time


# --- never behind ----------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"frame": "line", "prefix": b"> "}], ids=["raw", "line"])
def test_bytes_are_counted_before_the_peer_has_them(
    make_server: MakeServer, join: Join, config: dict[str, Any]
) -> None:
    server = make_server(**config)
    added = len(config.get("prefix", b""))
    peer = join(server)
    for turn in range(1, 2001):
        peer.sendall(b"12345678\n")
        recv_exactly(peer, 9 + added)
        stats = server.stats()
        assert (stats.bytes_in, stats.bytes_out) == (9 * turn, (9 + added) * turn)
        assert stats.messages == turn
        assert stats.connections_accepted == 1


def test_a_connection_is_counted_as_closed_before_the_peer_has_our_fin(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(threads=2)
    for turn in range(1, 501):
        peer = join(server)
        peer.sendall(b"x")
        peer.shutdown(socket.SHUT_WR)
        assert read_to_eof(peer) == b"x"
        stats = server.stats()
        assert (stats.connections_closed, stats.ended_by_peer) == (turn, turn)
        assert stats.connections_open == 0
        peer.close()


def test_under_load_open_is_never_negative_and_nothing_goes_back(make_server: MakeServer) -> None:
    """Connections come and go on four workers while this thread looks without a pause."""
    from fastecho._load import Load

    server = make_server(threads=4)
    assert server.host is not None and server.port is not None
    load = Load([(socket.AF_INET, (server.host, server.port))], connections=8, mode="reconnect")
    looks = 0
    try:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(load.run, 1.5)
            before = server.stats()
            while not running.done():
                stats = server.stats()
                looks += 1
                left = stats.connections_accepted - stats.connections_closed
                assert stats.connections_open == left >= 0
                assert all(worker.connections_open >= 0 for worker in stats.workers)
                assert gone_back(stats, before) == []
                before = stats
            done = running.result()
    finally:
        load.close()
    assert looks > 100
    assert done["messages"] > 1000
    wait_until(lambda: server.stats().connections_open == 0)
    stats = server.stats()
    assert stats.connections_accepted == stats.connections_closed == reasons(stats)
    assert stats.bytes_in == stats.bytes_out == 64 * stats.messages


@pytest.mark.parametrize("with_callback", [False, True], ids=["native", "callback"])
def test_over_a_million_messages_nothing_goes_back_and_all_sums_up(
    make_server: MakeServer, with_callback: bool
) -> None:
    """Frames on two workers; each worker's counters and the sums are looked at all the time."""
    from fastecho._load import Load

    callback = (lambda _, data: data) if with_callback else None
    server = make_server(threads=2, frame="length", on_message=callback)
    assert server.host is not None and server.port is not None
    load = Load(
        [(socket.AF_INET, (server.host, server.port))], connections=8, depth=32, frame="length"
    )
    try:
        with ThreadPoolExecutor(1) as pool:
            load.connect()
            running = pool.submit(load.run, 100, messages=MILLION)
            before, looks = server.stats(), 0
            while not running.done():
                stats = server.stats()
                looks += 1
                assert gone_back(stats, before) == []
                pairs = zip(stats.workers, before.workers, strict=True)
                assert [gone_back(*pair) for pair in pairs] == [[], []]
                assert stats.listen_queue is not None and before.listen_queue is not None
                assert stats.listen_queue.highest >= before.listen_queue.highest
                before = stats
            done = running.result()
    finally:
        load.close()
    assert looks > 100
    assert (done["messages"], done["failures"]) == (MILLION, [])
    wait_until(lambda: server.stats().connections_open == 0)
    stats = server.stats()
    assert stats.messages == MILLION
    assert stats.bytes_in == stats.bytes_out == done["bytes_sent"] == done["bytes_received"]
    assert stats.connections_accepted == stats.connections_closed == reasons(stats) == 8
    assert sum(stats.queue_waits) == stats.connections_accepted
    for name in NAMES:
        assert getattr(stats, name) == pytest.approx(total(stats, name), rel=1e-12), name


# --- the object ------------------------------------------------------------------------------


def test_before_the_start_all_is_nothing() -> None:
    stats = Server(threads=2).stats()
    assert set(numbers(stats).values()) == {0}
    assert (stats.errors, stats.workers) == ({}, ())
    assert (set(stats.queue_waits), stats.listen_queue) == ({0}, None)


@pytest.mark.parametrize("end", [Server.stop, Server.abort], ids=["stop", "abort"])
def test_they_survive_the_end(
    make_server: MakeServer, join: Join, end: Callable[[Server], object]
) -> None:
    server = make_server(threads=2)
    peers = [join(server) for _ in range(4)]
    for peer in peers:
        assert exchange(peer, b"12345") == b"12345"
        peer.close()
    wait_until(lambda: server.stats().connections_closed == 4)
    end(server)
    stats = server.stats()
    assert (stats.bytes_in, stats.bytes_out, stats.messages) == (20, 20, 4)
    assert (stats.connections_accepted, stats.connections_closed) == (4, 4)
    assert [worker.bytes_in for worker in stats.workers] == [10, 10]
    assert numbers(server.stats()) == numbers(stats)


def test_a_snapshot_does_not_change(make_server: MakeServer, join: Join) -> None:
    server = make_server()
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    stats = server.stats()
    kept = numbers(stats)
    assert exchange(peer, b"more") == b"more"
    assert numbers(stats) == kept
    assert server.stats().bytes_in == 5


def test_a_snapshot_cannot_be_changed(make_server: MakeServer, join: Join) -> None:
    server = make_server()
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    reset(peer)
    wait_until(lambda: server.stats().errors == {"ECONNRESET": 1})
    stats = server.stats()
    for one in (stats, stats.workers[0]):
        for name in (*NAMES, "errors", "queue_waits", "new"):
            with pytest.raises(AttributeError):
                setattr(one, name, 7)
            with pytest.raises(AttributeError):
                delattr(one, name)
    with pytest.raises(AttributeError):
        stats.workers = ()
    # The dict is the caller's own: what is done to it is not seen by anybody else.
    stats.errors["EPIPE"] = 9
    assert server.stats().errors == {"ECONNRESET": 1}


def test_its_text_shows_what_is_not_zero(make_server: MakeServer, join: Join) -> None:
    server = make_server()
    peer = join(server)
    assert exchange(peer, b"12345") == b"12345"
    text = repr(server.stats())
    assert text.startswith("Stats(")
    assert "bytes_in=5" in text
    assert "bytes_dropped" not in text


def counted(**values: object) -> dict[str, object]:
    """Return a worker's counters as the core gives them, all others nothing."""
    times = dict.fromkeys(("queue_wait_ms", "busy_ns", "callback_ns", "running_ns"), 0)
    nothing = {"queue_waits": [0] * 17, "connections_placed": 0, "errnos": {}}
    return {**dict.fromkeys(NAMES, 0), **times, **nothing, **values}


def test_an_errno_without_a_name_is_told_by_its_number() -> None:
    assert Stats([counted(errnos={104: 2, 0: 1})]).errors == {"ECONNRESET": 2, "errno 0": 1}


def test_who_is_accepted_and_not_placed_yet_is_open() -> None:
    stats = Stats(
        [
            counted(connections_accepted=3, connections_closed=0, connections_placed=1),
            counted(connections_accepted=0, connections_closed=1, connections_placed=0),
        ]
    )
    assert stats.connections_open == 2
    assert [worker.connections_open for worker in stats.workers] == [1, 0]


def test_many_threads_look_while_it_ends(make_server: MakeServer, join: Join) -> None:
    """The last workers give their memory back meanwhile."""
    for _ in range(8):
        server = make_server(threads=2)
        peer = join(server)
        assert exchange(peer, b"12345") == b"12345"
        with ThreadPoolExecutor(2) as pool:
            looks = [pool.submit(look_until_end, server) for _ in range(2)]
            server.abort()
            for one in looks:
                assert one.result(10) == 5


def look_until_end(server: fastecho.Server) -> int:
    """Read the statistics until the server has ended; return the bytes it has read."""
    while not server.wait(0):
        assert server.stats().bytes_in == 5
    return server.stats().bytes_in
