"""Placement: a newcomer goes to the worker with the fewest connections, whoever accepts it.

Which worker accepts is up to the kernel, so the tests do not assume it: they look in the
statistics where each connection was accepted and where it was placed.
"""

from __future__ import annotations

import errno
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from conftest import Join, MakeServer
from peers import exchange, is_reset, wait_until

if TYPE_CHECKING:
    import fastecho

HANDED_OVER_WITHIN = 400
"""Connections after which one must have been accepted by one worker and placed on the other."""


def spread(server: fastecho.Server) -> list[int]:
    """Return how many connections are placed on each worker."""
    return [worker.connections_open for worker in server.stats().workers]


def accepted(server: fastecho.Server) -> list[int]:
    """Return how many connections each worker has accepted."""
    return [worker.connections_accepted for worker in server.stats().workers]


def join_and_find(server: fastecho.Server, join: Join) -> tuple[socket.socket, int, int]:
    """Connect; return the socket, the worker that accepted it and the one that serves it."""
    before, placed_before = accepted(server), spread(server)
    sock = join(server)
    wait_until(lambda: sum(spread(server)) > sum(placed_before), what="being accepted")
    after, placed_after = accepted(server), spread(server)
    (acceptor,) = [i for i, old in enumerate(before) if after[i] != old]
    (owner,) = [i for i, old in enumerate(placed_before) if placed_after[i] != old]
    return sock, acceptor, owner


class HandedOver(NamedTuple):
    """A connection that one worker accepted and another one serves; the only one left."""

    sock: socket.socket
    owner: int
    begun: float
    """Before it was opened, in time.monotonic()."""


def join_handed_over(server: fastecho.Server, join: Join) -> HandedOver:
    """Connect until one is served by another worker than the one that accepted it."""
    others: list[socket.socket] = []
    for _ in range(HANDED_OVER_WITHIN):
        begun = time.monotonic()
        sock, acceptor, owner = join_and_find(server, join)
        if acceptor != owner:
            for other in others:
                other.close()
            wait_until(lambda: sum(spread(server)) == 1, what="the others to be gone")
            return HandedOver(sock, owner, begun)
        others.append(sock)
    raise AssertionError(f"none of {HANDED_OVER_WITHIN} connections was handed over")


def test_64_connections_are_spread_32_and_32(make_server: MakeServer, join: Join) -> None:
    server = make_server(threads=2)
    peers = [join(server) for _ in range(64)]
    for peer in peers:
        assert exchange(peer, b"here?") == b"here?"
    assert spread(server) == [32, 32]
    # Served where placed: every worker has read what its own connections sent.
    assert [worker.bytes_in for worker in server.stats().workers] == [32 * 5, 32 * 5]


def test_connections_that_come_at_once_are_spread_as_well(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(threads=3)
    starting = [socket.socket() for _ in range(100)]
    try:
        for sock in starting:
            sock.setblocking(False)
            assert sock.connect_ex((server.host, server.port)) in (0, errno.EINPROGRESS)
        wait_until(lambda: sum(spread(server)) == 100, what="100 connections")
        assert sorted(spread(server)) == [33, 33, 34]
    finally:
        for sock in starting:
            sock.close()


def test_a_worker_that_lost_connections_gets_the_next_ones(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(threads=2)
    owners = [join_and_find(server, join) for _ in range(40)]
    assert spread(server) == [20, 20]
    for sock, _, owner in owners:
        if owner == 0:
            sock.close()
    wait_until(lambda: spread(server) == [0, 20], what="worker 0 to be empty")
    assert {join_and_find(server, join)[2] for _ in range(20)} == {0}
    assert spread(server) == [20, 20]


def test_a_connection_that_was_handed_over_is_echoed(make_server: MakeServer, join: Join) -> None:
    server = make_server(threads=2)
    sock, owner, _ = join_handed_over(server, join)
    assert exchange(sock, b"to the other worker") == b"to the other worker"
    assert server.stats().workers[owner].bytes_in == len("to the other worker")
    assert server.stats().workers[1 - owner].bytes_in == 0


def test_a_silent_connection_on_another_worker_times_out(
    make_server: MakeServer, join: Join
) -> None:
    """Nothing but the hand-over ever reaches its worker: the timer must be that worker's own."""
    server = make_server(threads=2, idle_timeout=0.5)
    sock, owner, begun = join_handed_over(server, join)
    assert not is_reset(sock)
    assert time.monotonic() - begun >= 0.5
    sock.close()
    wait_until(lambda: server.stats().workers[owner].ended_by_idle_timeout == 1)


def test_a_silent_connection_on_another_worker_is_ended_by_stop(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(threads=2, drain_idle=0.05)
    sock, owner, _ = join_handed_over(server, join)
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(server.stop, 10)
        assert not is_reset(sock)
        sock.close()
        assert stopped.result(10) is True
    assert server.stats().workers[owner].ended_by_drain == 1


def test_a_handed_over_connection_of_a_worker_is_reset_by_abort(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(threads=2)
    sock, owner, _ = join_handed_over(server, join)
    server.abort()
    assert is_reset(sock)
    assert server.stats().workers[owner].ended_by_abort == 1


def test_with_reuse_port_each_worker_serves_what_it_accepts(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(threads=2, reuse_port=True)
    assert [listener.worker for listener in server.listeners] == [0, 1]
    assert {listener.address.port for listener in server.listeners} == {server.port}
    # The kernel spreads by a hash of the addresses: 64 times the same worker is 2 in 10**19.
    peers = [join(server) for _ in range(64)]
    for peer in peers:
        assert exchange(peer, b"here?") == b"here?"
    assert accepted(server) == spread(server)
    assert all(spread(server))
    assert sum(spread(server)) == 64
    assert [w.bytes_in for w in server.stats().workers] == [5 * n for n in spread(server)]


def test_with_reuse_port_stop_serves_both_accept_queues(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(threads=2, reuse_port=True, drain_idle=0.05)
    peers = [join(server) for _ in range(64)]
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(server.stop, 10)
        for peer in peers:
            assert not is_reset(peer)
            peer.close()
        assert stopped.result(10) is True
    assert server.stats().connections_accepted == 64
