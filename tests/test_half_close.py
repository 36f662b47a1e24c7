"""A peer's FIN: everything that came before it is echoed, then our FIN follows, and not earlier."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import Join, MakeServer
from peers import (
    connect,
    exchange,
    fill,
    has_ipv6,
    is_reset,
    iterations_at_rest,
    pattern,
    plenty,
    read_to_eof,
    recv_exactly,
    same,
    wait_until,
)

import fastecho


@pytest.fixture(params=["ipv4", "ipv6", "unix"] if has_ipv6() else ["ipv4", "unix"])
def everywhere(
    request: pytest.FixtureRequest, make_server: MakeServer, tmp_path: Path
) -> fastecho.Server:
    """Return a server on each kind of address in turn."""
    places = {"ipv4": "127.0.0.1:0", "ipv6": "[::1]:0", "unix": f"unix:{tmp_path}/echo"}
    return make_server(places[request.param])


@pytest.mark.parametrize("size", [0, 1, 100, 100_000])
def test_fin_right_behind_the_data_is_answered_behind_the_echo(
    everywhere: fastecho.Server, join: Join, size: int
) -> None:
    peer, data = join(everywhere), pattern(size)
    peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)
    assert same(read_to_eof(peer), data)
    wait_until(lambda: everywhere.stats().ended_by_peer == 1)


def test_fin_while_megabytes_are_under_way_loses_none(
    everywhere: fastecho.Server, join: Join
) -> None:
    peer, data = join(everywhere), pattern(6_000_000)

    def send() -> None:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    received = read_to_eof(peer)
    sender.join()
    assert same(received, data)


def test_fin_of_a_peer_that_has_not_read_waits_for_its_turn(
    server: fastecho.Server, join: Join
) -> None:
    """The FIN stands behind unread input, and replies are pending: nothing may be skipped."""
    peer = join(server)
    sent = fill(peer, plenty(), lambda: server.stats().bytes_pending > 0)
    peer.shutdown(socket.SHUT_WR)
    assert server.stats().connections_open == 1
    assert same(read_to_eof(peer), plenty()[:sent])
    wait_until(lambda: server.stats().ended_by_peer == 1)
    assert server.stats().bytes_dropped == 0


def test_half_closed_peer_that_does_not_read_costs_no_iterations(
    server: fastecho.Server, join: Join
) -> None:
    blocked = join(server, receive_buffer=65536)
    blocked.sendall(pattern(100_000))
    wait_until(lambda: server.stats().bytes_in == 100_000)
    sent = fill(blocked, plenty(), lambda: server.stats().bytes_pending > 0)
    blocked.shutdown(socket.SHUT_WR)
    assert iterations_at_rest(server) <= 3
    assert same(read_to_eof(blocked), pattern(100_000) + plenty()[:sent])


def test_fin_with_everything_read_and_replies_pending_costs_no_iterations(
    make_server: MakeServer, join: Join
) -> None:
    """The server has read the FIN and only waits for room: nothing else may wake it."""
    server = make_server(frame="line", prefix="x" * 4000, high_water=4_000_000)
    for listener in server.sockets:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    blocked = join(server, receive_buffer=65536)
    blocked.sendall(b"\n" * 500)
    blocked.shutdown(socket.SHUT_WR)
    wait_until(lambda: server.stats().messages == 500)
    exchange(join(server), b"after it\n", 4009)  # so the FIN was read as well
    assert iterations_at_rest(server) <= 3
    assert server.stats().connections_open == 2
    assert same(read_to_eof(blocked), (b"x" * 4000 + b"\n") * 500)


def test_frames_that_wait_at_the_fin_are_all_answered(make_server: MakeServer, join: Join) -> None:
    server = make_server(frame="line", prefix="a long prefix: ", high_water=70_000)
    for listener in server.sockets:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peer = join(server, receive_buffer=65536)
    peer.sendall(b"\n" * 100_000)
    peer.shutdown(socket.SHUT_WR)
    assert same(read_to_eof(peer), b"a long prefix: \n" * 100_000)


def test_fin_is_not_sent_before_the_peers(server: fastecho.Server, join: Join) -> None:
    peer = join(server)
    assert exchange(peer, b"first") == b"first"
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(1)
    peer.setblocking(True)
    assert exchange(peer, b"second") == b"second"


def test_peer_that_closes_after_reading_everything_ends_in_order(server: fastecho.Server) -> None:
    with connect(server) as peer:
        assert same(exchange(peer, pattern(10_000)), pattern(10_000))
    wait_until(lambda: server.stats().connections_closed == 1)
    stats = server.stats()
    assert (stats.ended_by_peer, stats.ended_by_error, stats.errors) == (1, 0, {})


def test_our_close_sends_fin_and_no_reset(server: fastecho.Server, join: Join) -> None:
    peer = join(server)
    peer.sendall(pattern(300_000))
    peer.shutdown(socket.SHUT_WR)
    assert not is_reset(peer)


@pytest.mark.parametrize("config", [{"threads": 2}, {"frame": "line", "prefix": ""}], ids=str)
def test_many_peers_that_half_close_at_once_all_get_the_rest(
    make_server: MakeServer, join: Join, config: dict[str, Any]
) -> None:
    server = make_server(**config)
    peers = [join(server) for _ in range(100)]
    for place, peer in enumerate(peers):
        peer.sendall(b"%d\n" % place * 200)
        peer.shutdown(socket.SHUT_WR)
    for place, peer in enumerate(peers):
        assert same(read_to_eof(peer), b"%d\n" % place * 200)
    wait_until(lambda: server.stats().ended_by_peer == 100)


def test_half_closed_connection_frees_its_place(make_server: MakeServer) -> None:
    server = make_server(max_connections=1)
    for turn in range(20):
        with connect(server) as peer:
            peer.sendall(b"turn %d" % turn)
            peer.shutdown(socket.SHUT_WR)
            assert read_to_eof(peer) == b"turn %d" % turn
        wait_until(lambda: server.stats().connections_open == 0)
    assert server.stats().shed_max_connections == 0


def test_echo_goes_on_for_the_others_while_one_is_half_closed(
    server: fastecho.Server, join: Join
) -> None:
    closing, other = join(server, receive_buffer=65536), join(server)
    sent = fill(closing, plenty(), lambda: server.stats().bytes_pending > 0)
    closing.shutdown(socket.SHUT_WR)
    data = pattern(2_000_000, seed=9)
    assert same(exchange(other, data), data)
    assert same(recv_exactly(closing, sent), plenty()[:sent])
    assert read_to_eof(closing) == b""
