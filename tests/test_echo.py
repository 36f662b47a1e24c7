"""What goes in comes out: every size, every byte, every kind of listener, every number of peers."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from conftest import Join, MakeServer
from peers import connect, exchange, has_ipv6, pattern, read_to_eof, recv_exactly, same, wait_until

import fastecho

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")

READ = 256 * 1024
"""What the core reads at once; its bulk threshold is 32 KiB."""


def finish(peer: socket.socket) -> None:
    """Half-close and hold that not a byte more comes."""
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b""


@pytest.mark.parametrize(
    "size", [1, 2, 63, 64, 1500, 32767, 32768, 32769, 65536, READ - 1, READ, READ + 1, 5_000_000]
)
def test_message_of_any_size_comes_back(peer: socket.socket, size: int) -> None:
    data = pattern(size)
    assert same(exchange(peer, data), data)
    finish(peer)


def test_nothing_is_sent_unasked(server: fastecho.Server, peer: socket.socket) -> None:
    wait_until(lambda: server.stats().connections_open == 1)
    finish(peer)
    assert server.stats().bytes_out == 0


def test_every_byte_value_comes_back(peer: socket.socket) -> None:
    data = bytes(range(256)) * 16 + bytes(range(255, -1, -1)) + b"\0" * 300 + b"\xff" * 300
    assert same(exchange(peer, data), data)
    finish(peer)


def test_bytes_sent_one_at_a_time_come_back_one_at_a_time(peer: socket.socket) -> None:
    for byte in pattern(500):
        peer.sendall(bytes([byte]))
        assert peer.recv(2) == bytes([byte])


def test_many_small_messages_under_way_keep_their_order(peer: socket.socket) -> None:
    messages = [b"%d," % number for number in range(20_000)]
    assert exchange(peer, messages) == b"".join(messages)
    finish(peer)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_many_connections_get_their_own_bytes(
    make_server: MakeServer, join: Join, threads: int
) -> None:
    server = make_server(threads=threads)
    peers = [join(server) for _ in range(200)]
    for turn in range(3):
        for place, peer in enumerate(peers):
            peer.sendall(pattern(3000, seed=turn * 1000 + place))
        for place, peer in enumerate(peers):
            assert same(recv_exactly(peer, 3000), pattern(3000, seed=turn * 1000 + place))
    stats = server.stats()
    assert (stats.connections_accepted, stats.connections_open) == (200, 200)
    assert stats.bytes_in == stats.bytes_out == 200 * 3 * 3000
    for peer in peers:
        finish(peer)
    wait_until(lambda: server.stats().ended_by_peer == 200)


@pytest.mark.parametrize("threads", [1, 2])
def test_bulk_of_several_peers_at_once_comes_back(make_server: MakeServer, threads: int) -> None:
    server = make_server(threads=threads)
    results: list[bool] = []

    def talk(seed: int) -> None:
        data = pattern(4_000_000, seed)
        with connect(server) as peer:
            results.append(exchange(peer, data, timeout=30) == data)

    talkers = [threading.Thread(target=talk, args=(seed,)) for seed in range(6)]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join()
    assert results == [True] * 6


def test_connections_that_come_and_go_are_all_served(server: fastecho.Server) -> None:
    for number in range(300):
        message = b"number %d" % number
        with connect(server) as peer:
            assert exchange(peer, message) == message
    wait_until(lambda: server.stats().connections_closed == 300)


@needs_ipv6
def test_ipv6_listener_takes_ipv6_only(make_server: MakeServer) -> None:
    server = make_server("[::]:0")
    assert server.port is not None
    with connect(("::1", server.port)) as peer:
        assert exchange(peer, b"six") == b"six"
    with pytest.raises(ConnectionRefusedError):
        connect(("127.0.0.1", server.port))


@needs_ipv6
def test_dual_stack_listener_takes_both(make_server: MakeServer) -> None:
    server = make_server(":0")
    assert len(server.sockets) == 1
    assert server.port is not None
    for host in ("127.0.0.1", "::1"):
        with connect((host, server.port)) as peer:
            assert exchange(peer, host.encode()) == host.encode()


def test_unix_socket_echoes_any_size(make_server: MakeServer, join: Join, tmp_path: Path) -> None:
    server = make_server(f"unix:{tmp_path}/echo")
    assert (server.host, server.port) == (None, None)
    peer, data = join(server), pattern(3_000_000)
    assert same(exchange(peer, data), data)
    finish(peer)


def test_one_server_serves_all_its_listeners(
    make_server: MakeServer, join: Join, tmp_path: Path
) -> None:
    places = ["127.0.0.1:0", ("127.0.0.1", 0), f"unix:{tmp_path}/a", f"unix:{tmp_path}/b"]
    if has_ipv6():
        places.append("[::1]:0")
    server = make_server(places, threads=2)
    assert len(server.addresses) == len(places)
    peers = [join(address) for address in server.addresses for _ in range(4)]
    for place, peer in enumerate(peers):
        data = pattern(10_000 + place, seed=place)
        assert same(exchange(peer, data), data)
    assert server.stats().connections_open == len(peers)


@pytest.mark.parametrize("threads", [1, 3])
def test_reuse_port_serves_from_a_socket_for_each_worker(
    make_server: MakeServer, join: Join, threads: int
) -> None:
    server = make_server(threads=threads, reuse_port=True)
    assert len(server.sockets) == threads
    assert len(server.addresses) == 1
    peers = [join(server) for _ in range(60)]
    for place, peer in enumerate(peers):
        data = pattern(2000, seed=place)
        assert same(exchange(peer, data), data)
    # The kernel spreads them by a hash: every worker got some, and serves what it got itself.
    assert all(worker.connections_accepted for worker in server.stats().workers)
    assert all(
        worker.connections_accepted == worker.connections_open for worker in server.stats().workers
    )


def test_two_servers_in_one_process_do_not_know_each_other(
    make_server: MakeServer, join: Join
) -> None:
    first, second = make_server(prefix="1:"), make_server(prefix="2:")
    one, two = join(first), join(second)
    one.sendall(b"x")
    two.sendall(b"x")
    assert (recv_exactly(one, 3), recv_exactly(two, 3)) == (b"1:x", b"2:x")
    first.abort()
    two.sendall(b"y")
    assert recv_exactly(two, 3) == b"2:y"


def test_spinning_server_echoes_too(make_server: MakeServer, join: Join) -> None:
    server = make_server(spin_us=50)
    peers = [join(server) for _ in range(4)]
    for turn in range(50):
        for place, peer in enumerate(peers):
            data = pattern(200, seed=turn * 10 + place)
            assert same(exchange(peer, data), data)
    assert same(exchange(peers[0], pattern(2_000_000)), pattern(2_000_000))
