"""The server's own accept queue: what listen_queue() and stats() tell, against `ss` and the deed.

The accept queue fills because a worker is kept in a callback, or accepting rests (a fault). What is
seen of listeners of others is in test_queues.py.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Join, MakeServer
from diary import Gate
from peers import connect, exchange, expect_stats, has_ipv6, is_turned_away, wait_until
from test_queues import knocked, told_by_ss

import fastecho
from fastecho import Connection, Server
from fastecho.stats import QUEUE_WAIT_BOUNDS

needs_ss = pytest.mark.skipif(shutil.which("ss") is None, reason="ss is not installed")
MORE = 3


def kept_busy(make_server: MakeServer, bind: str, **settings: int) -> tuple[Server, Gate]:
    """Return a server whose only worker, once it is sent something, is kept in a callback."""
    gate = Gate()

    def hold(_: Connection, data: bytes) -> bytes:
        gate.hold()
        return data

    return make_server(bind, on_message=hold, **settings), gate


@needs_ss
@pytest.mark.parametrize("backlog", [0, 1, 5, 128])
@pytest.mark.parametrize(
    "bind",
    [
        pytest.param("127.0.0.1:0", id="IPv4"),
        pytest.param(
            "[::1]:0", id="IPv6", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6")
        ),
    ],
)
def test_depth_limit_and_drops_are_those_of_ss(
    make_server: MakeServer, join: Join, bind: str, backlog: int
) -> None:
    server, gate = kept_busy(make_server, bind, backlog=backlog)
    peer = join(server)
    wait_until(lambda: server.stats().connections_open == 1)
    peer.sendall(b"x")
    gate.wait()
    assert server.port is not None
    queue = server.listen_queue()
    assert (queue.depth, queue.limit, queue.drops) == (0, backlog, 0)
    with knocked(server.sockets[0], backlog + 1 + MORE):
        before, told, after = (
            server.listen_queue(), told_by_ss(server.port), server.listen_queue(),
        )  # fmt: skip
        assert (before.depth, before.limit) == told[:2] == (backlog + 1, backlog)
        assert before.drops is not None
        assert after.drops is not None
        assert MORE <= before.drops <= told[2] <= after.drops
        assert server.stats().listen_queue is not None
        gate.open()
        wait_until(lambda: server.listen_queue().depth == 0)
        assert server.listen_queue().highest == backlog + 1


@pytest.mark.parametrize("backlog", [0, 5])
def test_of_a_unix_listener_depth_and_limit(
    make_server: MakeServer, join: Join, tmp_path: Path, backlog: int
) -> None:
    server, gate = kept_busy(make_server, f"unix:{tmp_path / 'socket'}", backlog=backlog)
    peer = join(server)
    wait_until(lambda: server.stats().connections_open == 1)
    peer.sendall(b"x")
    gate.wait()
    with knocked(server.sockets[0], backlog + 1 + MORE):
        queue = server.listen_queue()
        assert (queue.depth, queue.limit, queue.drops) == (backlog + 1, backlog, None)
        assert queue.highest == backlog + 1
        gate.open()


def test_several_listeners_are_told_together_and_alone(
    make_server: MakeServer, tmp_path: Path
) -> None:
    binds = ["127.0.0.1:0", f"unix:{tmp_path / 'socket'}", "127.0.0.1:0"]
    server = make_server(binds, backlog=7, fault="accept_delay=20s")
    with knocked(server.listeners[0].socket, 2), knocked(server.listeners[1].socket, 1):
        queue = server.listen_queue()
        known = [one for one in queue.listeners if one is not None]
        assert [one.depth for one in known] == [2, 1, 0]
        assert [one.drops for one in known] == [0, None, 0]
        assert (queue.depth, queue.limit, queue.drops, queue.highest) == (3, 21, 0, 2)
        assert known[0].listeners == ()
        server.abort()


def test_of_unix_listeners_alone_nobody_knows_drops(
    make_server: MakeServer, tmp_path: Path
) -> None:
    queue = make_server([f"unix:{tmp_path / name}" for name in "ab"], backlog=7).listen_queue()
    assert (queue.limit, queue.drops) == (14, None)


def test_who_is_about_to_end_has_no_queue_though_it_listens_still(
    make_server: MakeServer, join: Join
) -> None:
    """A worker that is kept keeps the listener open."""
    server, gate = kept_busy(make_server, "127.0.0.1:0")
    peer = join(server)
    peer.sendall(b"x")
    gate.wait()
    assert server.listen_queue().depth == 0
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(server.stop, 0)
        wait_until(lambda: not server.is_ready())
        assert server.is_serving()
        assert server.stats().listen_queue is None
        with pytest.raises(RuntimeError, match="does not accept"):
            server.listen_queue()
        assert server.is_serving()  # it was so meanwhile
        gate.open()
        ended.result(20)


def test_who_does_not_accept_has_no_queue(make_server: MakeServer) -> None:
    server = fastecho.Server()
    with pytest.raises(RuntimeError, match="does not accept"):
        server.listen_queue()
    server = make_server()
    assert server.stats().listen_queue is not None
    server.refuse()
    assert server.stats().listen_queue is None
    server.admit()
    assert server.listen_queue().depth == 0
    server.stop()
    assert server.stats().listen_queue is None
    with pytest.raises(RuntimeError, match="does not accept"):
        server.listen_queue()


def test_a_snapshot_cannot_be_changed(make_server: MakeServer) -> None:
    queue = make_server().listen_queue()
    with pytest.raises(AttributeError):
        queue.depth = 1
    with pytest.raises(AttributeError):
        del queue.depth
    assert re.fullmatch(r"<ListenQueue 0 of \d+ \+ 1, highest 0, drops 0>", repr(queue))


# The wait in the queue


def classes(stats: fastecho.Stats) -> dict[float, int]:
    """Return how many waited less than each bound, where anybody did."""
    pairs = zip(QUEUE_WAIT_BOUNDS, stats.queue_waits, strict=True)
    return {bound: count for bound, count in pairs if count}


def test_each_accepted_connection_is_counted_by_its_wait(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(threads=2, fault="accept_delay=0.3s")
    began = time.monotonic()
    peers = [join(server) for _ in range(5)]
    for peer in peers:
        assert exchange(peer, b"x") == b"x"
    passed = time.monotonic() - began
    stats = server.stats()
    assert sum(stats.queue_waits) == 5
    assert 5 * 0.25 <= stats.queue_wait <= 5 * (passed + 0.02)
    assert set(classes(stats)) <= {bound for bound in QUEUE_WAIT_BOUNDS if bound > 0.25}
    server.set_fault(None)
    assert exchange(join(server), b"x") == b"x"
    assert sum(server.stats().queue_waits) == 6
    assert min(classes(server.stats())) <= 0.128


def test_who_is_shed_is_counted_too_and_unix_sockets_are_not(
    make_server: MakeServer, join: Join, tmp_path: Path
) -> None:
    server = make_server(max_connections=1)
    assert exchange(join(server), b"x") == b"x"
    assert is_turned_away(server)
    expect_stats(server, connections_accepted=1, shed_max_connections=1)
    assert sum(server.stats().queue_waits) == 2
    server = make_server(f"unix:{tmp_path / 'socket'}")
    assert exchange(join(server), b"x") == b"x"
    assert sum(server.stats().queue_waits) == 0


def test_the_wait_is_in_the_access_log(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "fastecho.access")
    binds = ["127.0.0.1:0", f"unix:{tmp_path / 'socket'}"]
    server = make_server(binds, access_log=True, log_format="json", fault="accept_delay=0.2s")
    for address in server.addresses:
        with connect(address) as peer:
            assert exchange(peer, b"x") == b"x"
            peer.shutdown(socket.SHUT_WR)
    expect_stats(server, connections_closed=2)
    assert server.stop()
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    waits = {line["listener"]: line["queue_wait_ms"] for line in lines}
    assert 150 <= waits[server.addresses[0]] <= 20_000
    assert waits[server.addresses[1]] is None


def test_without_sock_diag_a_unix_listener_has_no_queue_to_tell(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A kernel without unix_diag cannot be had here."""
    from fastecho.diagnose import sock_diag

    def missing(inode: int) -> None:
        raise OSError(2, "No such file or directory")

    monkeypatch.setattr(sock_diag, "unix_listener", missing)
    server = make_server(f"unix:{tmp_path / 'socket'}")
    assert server.stats().listen_queue is None
    with pytest.raises(OSError, match="No such file"):
        server.listen_queue()
    both = make_server(["127.0.0.1:0", f"unix:{tmp_path / 'other'}"], backlog=7)
    queue = both.listen_queue()
    assert queue.listeners[0] is not None
    assert (queue.listeners[0].limit, queue.listeners[1]) == (7, None)
    assert (queue.depth, queue.limit, queue.drops) == (0, 7, 0)


def test_of_a_unix_listener_the_deepest_that_was_told_stays(
    make_server: MakeServer, tmp_path: Path
) -> None:
    server = make_server(f"unix:{tmp_path / 'socket'}", fault="accept_delay=20s")
    with knocked(server.listeners[0].socket, 3):
        wait_until(lambda: server.listen_queue().depth == 3)
        server.set_fault(None)
        wait_until(lambda: server.listen_queue().depth == 0)
    assert server.listen_queue().highest == 3


def test_who_refuses_for_a_time_has_a_whole_queue_or_none(make_server: MakeServer) -> None:
    """Beside refuse() and admit() of another thread: never that of a socket that is no listener."""
    server = make_server(["127.0.0.1:0"] * 3, backlog=77)
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            server.refuse()
            server.admit()

    seen = set()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(1) as pool:
            changing = pool.submit(change)
            for _ in range(3000):
                queue = server.stats().listen_queue
                seen.add(None if queue is None else queue.limit)
            over.set()
            changing.result()
    finally:
        sys.setswitchinterval(interval)
    assert seen <= {None, 3 * 77}
    assert server.listen_queue().limit == 3 * 77
