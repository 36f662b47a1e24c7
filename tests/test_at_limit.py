"""at_limit="queue": who comes above max_connections waits in the kernel's queue, and is served.

Nobody is reset, there are never more connections than allowed, and waiting costs no CPU. (The other
choice, reset: test_accept.py.)
"""

from __future__ import annotations

import select
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import Join, MakeServer
from peers import (
    connect,
    exchange,
    is_reset,
    is_turned_away,
    iterations_at_rest,
    read_to_eof,
    recv_exactly,
)

import fastecho


def is_silent(*peers: socket.socket, span: float = 0.05) -> bool:
    """Tell whether nothing comes from any of them for a while."""
    return not select.select(peers, [], [], span)[0]


@pytest.mark.parametrize("threads", [1, 3])
def test_newcomer_above_the_limit_is_served_when_a_place_is_free(
    make_server: MakeServer, join: Join, threads: int
) -> None:
    server = make_server(max_connections=2, at_limit="queue", threads=threads)
    inside = [join(server) for _ in range(2)]
    for peer in inside:
        assert exchange(peer, b"in") == b"in"
    waiting = [join(server) for _ in range(3)]
    for peer in waiting:
        peer.sendall(b"waits")
    assert is_silent(*waiting)
    assert iterations_at_rest(server) <= 3
    while waiting:
        inside.pop(0).close()
        ready = select.select(waiting, [], [], 20)[0]
        assert len(ready) == 1
        assert recv_exactly(ready[0], 5) == b"waits"
        waiting.remove(ready[0])
        inside.append(ready[0])
        assert not waiting or is_silent(*waiting)
    assert server.stats().connections_accepted == 5
    assert server.stats().shed_max_connections == 0


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "unix"])
def test_storm_is_served_in_full_and_never_above_the_limit(
    make_server: MakeServer, tmp_path: Path, bind: str
) -> None:
    """A place that is lost on the way would leave somebody waiting for ever."""
    where = f"unix:{tmp_path}/s" if bind == "unix" else bind
    server = make_server(where, max_connections=3, at_limit="queue", threads=4)
    lock = threading.Lock()
    inside = highest = 0

    def visit(turn: int) -> bool:
        nonlocal inside, highest
        with connect(server) as peer:
            assert exchange(peer, b"hello") == b"hello"
            with lock:
                inside += 1
                highest = max(highest, inside)
            assert exchange(peer, b"again") == b"again"
            with lock:
                inside -= 1
            if turn % 2:
                peer.shutdown(socket.SHUT_WR)
                assert read_to_eof(peer) == b""
        return True

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(visit, range(1500)))
    assert 1 < highest <= 3
    stats = server.stats()
    assert (stats.connections_accepted, stats.shed_max_connections) == (1500, 0)


def test_raising_the_limit_lets_those_in_who_wait(make_server: MakeServer, join: Join) -> None:
    server = make_server(max_connections=1, at_limit="queue")
    assert exchange(join(server), b"in") == b"in"
    waiting = join(server)
    waiting.sendall(b"waits")
    assert is_silent(waiting)
    server.set_limits(max_connections=2)
    assert recv_exactly(waiting, 5) == b"waits"
    third = join(server)
    third.sendall(b"third")
    assert is_silent(third)
    server.set_limits(max_connections=None)
    assert recv_exactly(third, 5) == b"third"


def test_refusal_by_another_limit_gives_the_place_back(make_server: MakeServer) -> None:
    server = make_server(max_connections=2, max_per_ip=1, at_limit="queue", threads=2)
    for _ in range(20):
        with connect(server) as peer:
            assert exchange(peer, b"in") == b"in"
            assert is_turned_away(server)
            peer.shutdown(socket.SHUT_WR)
            assert read_to_eof(peer) == b""
    assert server.stats().shed_max_per_ip == 20


@pytest.mark.parametrize(
    "end", [fastecho.Server.stop, fastecho.Server.abort, fastecho.Server.close]
)
def test_full_server_ends(
    make_server: MakeServer, join: Join, end: object, request: pytest.FixtureRequest
) -> None:
    """Who still waits then goes with the listener, or is accepted in the last moment and ends."""
    server = make_server(max_connections=1, at_limit="queue", threads=2, drain_idle=0.01)
    inside = join(server)
    assert exchange(inside, b"in") == b"in"
    with ExitStack() as stack:
        waiting = [stack.enter_context(connect(server)) for _ in range(3)]
        ending = threading.Thread(target=end, args=(server,))  # type: ignore[arg-type]
        ending.start()
        if end is fastecho.Server.close:
            ending.join(20)
            assert exchange(inside, b"still in") == b"still in"
        inside.close()
        ending.join(20)
        for peer in waiting:
            is_reset(peer)  # or in order; fails if neither comes
    assert server.wait(20)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_place_is_not_always_given_to_the_same_listener(
    make_server: MakeServer, threads: int
) -> None:
    """Three peers come again and again to each of two listeners; there is one place."""
    server = make_server(
        ["127.0.0.1:0", "127.0.0.1:0"], max_connections=1, at_limit="queue", threads=threads
    )
    over = threading.Event()

    def visit_again_and_again(address: str) -> int:
        served = 0
        while not over.is_set():
            with connect(address) as peer:
                assert exchange(peer, b"x") == b"x"
            served += 1
            if served == 300:
                over.set()
        return served

    with ThreadPoolExecutor(6) as pool:
        addresses = [address for address in server.addresses for _ in range(3)]
        served = list(pool.map(visit_again_and_again, addresses))
    least, most = sorted((sum(served[:3]), sum(served[3:])))
    assert least > most / 4, served
