"""Faults that end, refuse or ignore a connection, as a plain client sees them."""

from __future__ import annotations

import select
import socket
from pathlib import Path

import pytest
from conftest import Join, MakeServer
from peers import (
    connect,
    exchange,
    expect_stats,
    fill,
    is_reset,
    is_turned_away,
    iterations_at_rest,
    pattern,
    plenty,
    read_to_eof,
    recv_exactly,
    reset,
    same,
    wait_until,
)

from fastecho import Fault

QUIET = 0.1
"""Seconds in which a server that does not answer is seen not to."""


def stays_silent(sock: socket.socket) -> bool:
    """Tell whether neither a byte nor an end comes."""
    return select.select([sock], [], [], QUIET)[0] == []


def sent_before_reset(sock: socket.socket) -> bytes:
    """Read until RST; return what came before it."""
    received = b""
    while True:
        try:
            data = sock.recv(1 << 20)
        except ConnectionResetError:
            return received
        assert data, "FIN, not RST"
        received += data


def test_deny_resets_at_once(make_server: MakeServer) -> None:
    server = make_server(fault=Fault(deny=True))
    assert is_turned_away(server)
    expect_stats(server, ended_by_fault=1, connections_faulty=1, bytes_in=0)


def test_silent_reads_everything_and_answers_nothing(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="silent")
    peer = join(server)
    peer.sendall(plenty()[:8_000_000])
    expect_stats(server, bytes_in=8_000_000, bytes_out=0, bytes_discarded=8_000_000)
    assert stays_silent(peer)
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b""
    expect_stats(server, ended_by_peer=1)


def test_no_read_lets_the_buffers_run_full(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="no_read")
    peer = join(server)
    assert fill(peer, plenty()) > 100_000
    assert server.stats().bytes_in == 0
    assert iterations_at_rest(server) <= 1


def test_no_read_notices_a_reset(make_server: MakeServer) -> None:
    server = make_server(fault="no_read")
    peer = connect(server)
    peer.sendall(b"x")
    wait_until(lambda: server.stats().connections_open == 1)
    reset(peer)
    expect_stats(server, ended_by_error=1, connections_open=0, errors={"ECONNRESET": 1})


def test_no_read_ends_with_idle_timeout(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="no_read", idle_timeout=0.05)
    assert read_to_eof(join(server)) == b""
    expect_stats(server, ended_by_idle_timeout=1)


def test_half_close_sends_fin_first_and_reads_on(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="half_close")
    peer = join(server)
    assert read_to_eof(peer) == b""
    peer.sendall(plenty()[:8_000_000])
    expect_stats(server, bytes_in=8_000_000, bytes_out=0, connections_open=1)
    peer.shutdown(socket.SHUT_WR)
    expect_stats(server, connections_open=0, ended_by_peer=1)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_stall_after_is_silent_but_open(make_server: MakeServer, join: Join, n: int) -> None:
    server = make_server(fault=Fault(stall_after=n))
    peer = join(server)
    peer.sendall(b"0123456789")
    assert recv_exactly(peer, n) == b"0123456789"[:n]
    peer.sendall(b"more")
    assert stays_silent(peer)
    expect_stats(server, bytes_in=14, bytes_out=n, bytes_discarded=14 - n, connections_open=1)


@pytest.mark.parametrize("n", [0, 1, 10, 3_000_000])
def test_close_after_sends_all_of_it_and_fin(make_server: MakeServer, join: Join, n: int) -> None:
    server = make_server(fault=Fault(close_after=n))
    peer = join(server)
    data = plenty()[: n + 10]
    early = max(n - 10, 0)  # all but one segment, which goes beyond the limit
    received = exchange(peer, data[:early]) if early else b""
    peer.sendall(data[early:])
    assert same(received + read_to_eof(peer), data[:n])
    peer.close()
    expect_stats(server, ended_by_fault=1, bytes_out=n, bytes_dropped=0)


@pytest.mark.parametrize("n", [0, 1, 10, 3_000_000])
def test_reset_after_delivers_all_of_it_and_rst(
    make_server: MakeServer, join: Join, n: int
) -> None:
    server = make_server(fault=Fault(reset_after=n))
    if n == 0:
        assert is_turned_away(server)
    else:
        peer = join(server)
        data = plenty()[:n]
        assert same(exchange(peer, data, n - 1) + sent_before_reset(peer), data)
    expect_stats(server, ended_by_fault=1, bytes_out=n, bytes_dropped=0)


def test_reset_waits_for_a_peer_that_reads_late(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault=Fault(reset_after=1_000_000), send_buffer=1 << 20)
    peer = join(server, receive_buffer=1 << 17)
    data = plenty()[:1_000_000]
    peer.sendall(data)
    expect_stats(server, bytes_out=1_000_000, bytes_pending=0)
    assert select.select([peer], [], [], QUIET)[0] == [peer]
    assert iterations_at_rest(server, 0.2) < 40
    assert server.stats().connections_open == 1
    assert same(sent_before_reset(peer), data)


def test_reset_is_not_forgotten_when_the_peer_has_ended(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(fault=Fault(reset_after=3, delay=0.05))
    peer = join(server)
    peer.sendall(b"abc")
    peer.shutdown(socket.SHUT_WR)
    assert sent_before_reset(peer) == b"abc"
    expect_stats(server, ended_by_fault=1)


@pytest.mark.parametrize("fault", ["reset_after=100k", "delay=1h", "bandwidth=1"])
def test_a_half_closed_peer_that_is_gone_is_noticed_while_its_replies_wait(
    make_server: MakeServer, fault: str
) -> None:
    server = make_server(fault=fault.replace("1h", "3600s"), idle_timeout=60.0)
    peer = connect(server, receive_buffer=4096)
    peer.sendall(pattern(100_000))
    peer.shutdown(socket.SHUT_WR)
    expect_stats(server, bytes_in=100_000, connections_open=1)
    reset(peer)
    expect_stats(server, ended_by_error=1, connections_open=0, bytes_pending=0)


def test_a_peer_that_is_gone_is_noticed_while_too_much_waits(make_server: MakeServer) -> None:
    server = make_server(fault="delay=3600s", high_water=10_000)
    peer = connect(server)
    peer.sendall(pattern(10_000))
    expect_stats(server, bytes_pending=10_000)
    reset(peer)
    expect_stats(server, ended_by_error=1, connections_open=0, bytes_pending=0)


def test_fewer_bytes_than_the_limit_end_as_ever(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault=Fault(reset_after=100))
    peer = join(server)
    peer.sendall(b"abc")
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b"abc"
    expect_stats(server, ended_by_peer=1)


def test_limit_cuts_frames_anywhere(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault=Fault(close_after=12), frame="line", prefix="> ")
    peer = join(server)
    peer.sendall(b"one\ntwo\nthree\n")
    assert read_to_eof(peer) == b"> one\n> two\n> thr"[:12]


def test_unix_sockets_have_all_of_it_but_rst(
    make_server: MakeServer, join: Join, tmp_path: Path
) -> None:
    server = make_server(f"unix:{tmp_path}/s", fault=Fault(reset_after=3))
    peer = join(server)
    peer.sendall(b"abcdef")
    assert read_to_eof(peer) == b"abc"
    server.set_fault("deny")
    assert read_to_eof(join(server)) == b""
    server.set_fault("slice=1,gap=100ms")
    peer = join(server)
    peer.sendall(b"abc")
    peer.shutdown(socket.SHUT_WR)
    assert [peer.recv(10) for _ in range(4)] == [b"a", b"b", b"c", b""]
    server.set_fault("half_close")
    assert read_to_eof(join(server)) == b""
    expect_stats(server, connections_faulty=4)


def test_abort_ends_whatever_waits(make_server: MakeServer, join: Join) -> None:
    server = make_server(threads=2)
    peers = []
    for fault in ("silent", "no_read", "delay=60s", "bandwidth=1", "slice=1,gap=9"):
        server.set_fault(fault)
        peers.append(join(server))
        peers[-1].sendall(b"hello")
    expect_stats(server, connections_faulty=5)
    server.abort()
    assert all(is_reset(peer) for peer in peers)
    assert server.stats().ended_by_abort == 5


def test_a_frame_that_is_too_long_ends_behind_what_is_delayed(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(fault="delay=0.05", frame="line", max_frame=8)
    peer = join(server)
    peer.sendall(b"short\n" + pattern(100).replace(b"\n", b""))
    assert read_to_eof(peer) == b"short\n"
    peer.close()
    expect_stats(server, ended_by_frame_too_long=1)
