"""RST from a peer: that connection ends at once and is counted; nothing spins, nobody else notices.

A peer can reset at any moment: before it was accepted, in the middle of a message, while it owes
us reads, after its own FIN. Each moment has its test.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from conftest import Join, MakeServer
from peers import (
    connect,
    exchange,
    expect_stats,
    fill,
    iterations_at_rest,
    pattern,
    plenty,
    recv_exactly,
    reset,
    same,
    wait_until,
)

import fastecho


def test_idle_connection_that_is_reset_ends(server: fastecho.Server) -> None:
    peer = connect(server)
    assert exchange(peer, b"hello") == b"hello"
    reset(peer)
    expect_stats(
        server, connections_closed=1, ended_by_error=1, ended_by_peer=0, errors={"ECONNRESET": 1}
    )


def test_reset_in_the_middle_of_a_message_ends_that_connection_only(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(frame="line")
    victim, other = connect(server), join(server)
    victim.sendall(b"whole\nhal")
    other.sendall(b"hal")
    assert recv_exactly(victim, 6) == b"whole\n"
    wait_until(lambda: server.stats().bytes_in == 12)
    reset(victim)
    expect_stats(server, connections_closed=1, ended_by_error=1, frames_incomplete=1, messages=1)
    other.sendall(b"f\n")
    assert recv_exactly(other, 5) == b"half\n"


def test_connection_that_is_reset_while_replies_are_pending_ends_and_does_not_spin(
    server: fastecho.Server, join: Join
) -> None:
    victim, other = connect(server), join(server)
    fill(victim, plenty(), lambda: server.stats().bytes_pending > 0)
    reset(victim)
    expect_stats(server, connections_closed=1, ended_by_error=1, bytes_pending=0)
    assert server.stats().bytes_dropped > 0
    assert exchange(other, b"and on") == b"and on"
    assert iterations_at_rest(server) <= 3


def test_paused_framed_connection_that_is_reset_ends_and_does_not_spin(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(frame="line", prefix="some prefix", high_water=100_000)
    victims = [connect(server, receive_buffer=4096) for _ in range(5)]
    for victim in victims:
        victim.sendall(b"\n" * 500_000)
    wait_until(lambda: server.stats().bytes_pending >= 5 * 100_000)
    for victim in victims:
        reset(victim)
    expect_stats(server, connections_closed=5, ended_by_error=5, bytes_pending=0)
    other = join(server)
    assert exchange(other, b"\n", 12) == b"some prefix\n"
    assert iterations_at_rest(server) <= 3


def test_half_closed_connection_that_is_reset_while_it_is_owed_ends(
    server: fastecho.Server,
) -> None:
    victim = connect(server, receive_buffer=4096)
    fill(victim, plenty(), lambda: server.stats().bytes_pending > 0)
    victim.shutdown(socket.SHUT_WR)
    reset(victim)
    expect_stats(server, connections_closed=1, ended_by_peer=0, ended_by_error=1, bytes_pending=0)


def test_half_closed_connection_with_frames_left_that_is_reset_ends(
    make_server: MakeServer, join: Join
) -> None:
    """The FIN was read and high water is reached: reading is over, writing blocked."""
    server = make_server(frame="line", prefix="x" * 4000, high_water=100_000)
    for listener in server.sockets:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    victim, other = connect(server, receive_buffer=4096), join(server)
    victim.sendall(b"\n" * 1000)
    wait_until(lambda: server.stats().bytes_pending >= 100_000)
    victim.shutdown(socket.SHUT_WR)
    exchange(other, b"\n", 4001)
    reset(victim)
    expect_stats(
        server, connections_closed=1, ended_by_error=1, bytes_pending=0, frames_incomplete=1
    )


def test_connection_that_was_reset_before_it_was_accepted_is_counted_and_ends(
    make_server: MakeServer, join: Join
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(20):
            reset(connect(listener.getsockname()))
        server = make_server(f"fd://{listener.fileno()}")
        expect_stats(server, connections_closed=20, connections_accepted=20, ended_by_error=20)
        assert server.stats().errors == {"ECONNRESET": 20}
        assert exchange(join(listener.getsockname()), b"served") == b"served"


def test_data_and_reset_before_accept_are_no_message_to_nobody(make_server: MakeServer) -> None:
    """A RST throws away what stood in the queue: recv reports the reset, not the bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(20):
            peer = connect(listener.getsockname())
            peer.sendall(b"gone")
            reset(peer)
        server = make_server(f"fd://{listener.fileno()}", threads=2)
        expect_stats(server, connections_closed=20, ended_by_error=20, bytes_pending=0)


@pytest.mark.parametrize("threads", [1, 2])
def test_resets_harm_only_themselves(make_server: MakeServer, join: Join, threads: int) -> None:
    server = make_server(threads=threads)
    victims = [connect(server) for _ in range(50)]
    others = [join(server) for _ in range(50)]
    for place, victim in enumerate(victims):
        victim.sendall(pattern(10_000, seed=place))
        others[place].sendall(pattern(10_000, seed=-place))
        reset(victim)
    for place, other in enumerate(others):
        assert same(recv_exactly(other, 10_000), pattern(10_000, seed=-place))
    wait_until(lambda: server.stats().connections_closed == 50)
    for place, other in enumerate(others):
        assert same(exchange(other, pattern(5000, seed=place)), pattern(5000, seed=place))
    assert server.stats().connections_open == 50


def test_reset_in_the_middle_of_bulk_harms_no_bulk_beside_it(server: fastecho.Server) -> None:
    data, results = pattern(8_000_000), []

    def talk() -> None:
        with connect(server) as peer:
            results.append(exchange(peer, data, timeout=30) == data)

    talkers = [threading.Thread(target=talk) for _ in range(2)]
    for talker in talkers:
        talker.start()
    for turn in range(20):
        victim = connect(server)
        victim.settimeout(0.02)
        try:
            victim.sendall(plenty()[: (turn + 1) * 100_000])
        except TimeoutError:
            pass
        reset(victim)
    for talker in talkers:
        talker.join()
    assert results == [True, True]
    expect_stats(server, connections_closed=22, bytes_pending=0)


def test_peer_that_leaves_replies_unread_is_counted_as_an_error(server: fastecho.Server) -> None:
    """Closing with unread input resets too: the server learns it from recv or from send."""
    for _ in range(20):
        with connect(server) as peer:
            peer.sendall(pattern(100_000))
            recv_exactly(peer, 1)
    expect_stats(server, connections_closed=20, bytes_pending=0)
    assert set(server.stats().errors) <= {"ECONNRESET", "EPIPE"}
    assert sum(server.stats().errors.values()) == server.stats().ended_by_error > 0


def test_unix_peer_that_leaves_with_unread_input_ends_as_an_error(
    make_server: MakeServer, join: Join, tmp_path: Path
) -> None:
    server = make_server(f"unix:{tmp_path}/echo")
    with connect(server) as peer:
        peer.sendall(b"never read")
        wait_until(lambda: server.stats().bytes_out == 10)
    expect_stats(server, connections_closed=1, ended_by_error=1)
    assert exchange(join(server), b"served") == b"served"
