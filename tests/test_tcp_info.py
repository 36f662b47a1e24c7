"""Samples of open connections: what the kernel tells, while connections come and go."""

from __future__ import annotations

import re
import resource
import shutil
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Join, MakeServer
from diary import Gate
from peers import exchange, expect_stats, has_ipv6, port_of, reset, wait_until
from test_queues import ss

import fastecho
from fastecho import ConfigError, Connection, TcpInfo

needs_ss = pytest.mark.skipif(shutil.which("ss") is None, reason="ss is not installed")
ROUND, ENTRIES = 20, 10_000
"""Samples that a worker comes too late for, and the room of each: more than 100 bytes an entry."""


def test_each_open_connection_is_told_with_its_peer(make_server: MakeServer, join: Join) -> None:
    server = make_server(threads=3)
    peers = [join(server) for _ in range(7)]
    for peer in peers:
        for _ in range(3):
            assert exchange(peer, b"x") == b"x"
    found = server.tcp_info()
    assert sorted(one.number for one in found) == list(range(1, 8))
    assert {one.peer for one in found} == {f"127.0.0.1:{port_of(peer)}" for peer in peers}
    for one in found:
        assert 0 < one.rtt < 1
        assert 0 <= one.rttvar < 1
        assert one.retransmissions == 0
    reset(peers.pop())
    expect_stats(server, connections_closed=1)
    assert len(server.tcp_info()) == 6


@needs_ss
def test_round_trip_times_are_those_of_ss(make_server: MakeServer, join: Join) -> None:
    server = make_server()
    peer = join(server)
    for _ in range(5):
        assert exchange(peer, b"x") == b"x"
    ends = ["sport", "=", f":{server.port}", "and", "dport", "=", f":{port_of(peer)}"]

    def told_by_ss() -> tuple[float, ...]:
        (times,) = re.findall(r" rtt:([\d.]+)/([\d.]+) ", ss("-tinHO", *ends))
        return tuple(map(float, times))

    def told_by_us() -> tuple[float, float]:
        (one,) = server.tcp_info()
        return one.rtt * 1e3, one.rttvar * 1e3

    # The peer's last acknowledgement, which is late, changes both once more.
    wait_until(lambda: told_by_us() == pytest.approx(told_by_ss()), 2.0)
    assert told_by_us()[0] != told_by_us()[1]


def test_who_has_sent_its_fin_and_is_served_still_is_among_them(
    make_server: MakeServer, join: Join
) -> None:
    eof = threading.Event()

    def keep(_: Connection) -> bool:
        eof.set()
        return True

    server = make_server(on_message=lambda _, data: data, on_eof=keep)
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    peer.shutdown(socket.SHUT_WR)
    assert eof.wait(20)
    (found,) = server.tcp_info()
    assert found.peer == f"127.0.0.1:{port_of(peer)}"


def test_no_more_than_asked_for_spread_over_all(make_server: MakeServer, join: Join) -> None:
    server = make_server(threads=2)
    peers = [join(server) for _ in range(40)]
    for peer in peers:
        assert exchange(peer, b"x") == b"x"
    for most in (1, 4, 10):
        numbers = sorted(one.number for one in server.tcp_info(most))
        assert 1 <= len(numbers) <= most + 1  # a worker's share is rounded up
    numbers = sorted(one.number for one in server.tcp_info(10))
    assert numbers[0] <= 10
    assert numbers[-1] > 25


@pytest.mark.parametrize("count", [1, 2, 4, 10])
def test_as_many_as_there_are(make_server: MakeServer, join: Join, count: int) -> None:
    server = make_server()
    for _ in range(count):
        assert exchange(join(server), b"x") == b"x"
    assert [len(server.tcp_info(most)) for most in (count, count + 1)] == [count, count]


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6")
def test_ipv6_and_unix(make_server: MakeServer, join: Join, tmp_path: Path) -> None:
    server = make_server(["[::1]:0", f"unix:{tmp_path / 'socket'}"])
    with socket.create_connection(("::1", server.listeners[0].address.port or 0)) as peer:
        assert exchange(peer, b"x") == b"x"
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(tmp_path / "socket"))
            assert exchange(other, b"x") == b"x"
            (found,) = server.tcp_info()
            assert found.peer == f"[::1]:{peer.getsockname()[1]}"


def test_before_the_start_and_after_the_end_there_is_none(make_server: MakeServer) -> None:
    assert fastecho.Server().tcp_info() == []
    server = make_server()
    server.stop()
    assert server.tcp_info() == []


@pytest.mark.parametrize("most", [0, -1, 1_000_001, True, 1.5, "3"])
def test_a_number_out_of_range_is_refused(make_server: MakeServer, most: int) -> None:
    with pytest.raises(ConfigError, match=r"most .* must be a whole number from 1 to 1000000"):
        make_server().tcp_info(most)


def test_in_a_callback_it_would_wait_for_itself(make_server: MakeServer, join: Join) -> None:
    said = list[str]()

    def answer(_: Connection, data: bytes) -> bytes:
        try:
            server.tcp_info()
        except RuntimeError as error:
            said.append(str(error))
        return data

    server = make_server(on_message=answer)
    assert exchange(join(server), b"x") == b"x"
    assert said == ["tcp_info() in a callback would wait for itself"]


def test_a_worker_that_is_kept_is_left_out_and_not_waited_for(
    make_server: MakeServer, join: Join
) -> None:
    gate = Gate()

    def hold(_: Connection, data: bytes) -> bytes:
        if data == b"hold":
            gate.hold()
        return data

    server = make_server(threads=2, on_message=hold)
    kept, other = join(server), join(server)
    for peer in (kept, other):
        assert exchange(peer, b"x") == b"x"
    kept.sendall(b"hold")
    gate.wait()
    (found,) = server.tcp_info()
    assert found.peer == f"127.0.0.1:{port_of(other)}"
    gate.open()
    wait_until(lambda: len(server.tcp_info()) == 2)


def test_answers_that_nobody_waits_for_are_given_back(make_server: MakeServer, join: Join) -> None:
    """What late workers leave would be more each time; what is free is used again."""
    held, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def hold(_: Connection, data: bytes) -> bytes:
        held.release()
        assert go_on.acquire(timeout=20)
        return data

    server = make_server(on_message=hold)
    peer = join(server)
    core, sizes = server._core, list[int]()
    assert core is not None
    for _ in range(4):
        peer.sendall(b"x")
        assert held.acquire(timeout=20)
        for _ in range(ROUND):
            assert core.samples(ENTRIES, 0)[0] == []
        go_on.release()
        assert peer.recv(1) == b"x"
        assert len(server.tcp_info()) == 1  # it has read all of them
        sizes.append(address_space())
    assert sizes[-1] - sizes[0] < ROUND * ENTRIES * 100


def address_space() -> int:
    """Return the bytes of memory that this process has, touched or not."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def test_many_ask_while_connections_come_and_go_and_it_ends(make_server: MakeServer) -> None:
    server = make_server(threads=2)
    over = threading.Event()

    def come_and_go() -> int:
        turns = 0
        while not over.is_set():
            with socket.create_connection((server.host, server.port), 10) as peer:
                assert exchange(peer, b"x") == b"x"
                if turns % 2:
                    reset(peer)
            turns += 1
        return turns

    def ask() -> int:
        asked = 0
        while not server.wait(0):
            assert all(isinstance(one, TcpInfo) for one in server.tcp_info(50))
            asked += 1
        return asked

    with ThreadPoolExecutor(4) as pool:
        peers = [pool.submit(come_and_go) for _ in range(2)]
        askers = [pool.submit(ask) for _ in range(2)]
        wait_until(lambda: server.stats().connections_closed > 200)
        over.set()
        assert all(one.result(20) > 10 for one in peers)
        server.stop()
        assert all(one.result(20) > 10 for one in askers)


def test_a_sample_cannot_be_changed() -> None:
    one = TcpInfo(1, "127.0.0.1:2", 0.0001, 0.00005, 3)
    with pytest.raises(AttributeError):
        one.rtt = 1.0
    with pytest.raises(AttributeError):
        del one.rtt
    assert repr(one) == "<TcpInfo 1 127.0.0.1:2: rtt 0.100 ms, retransmissions 3>"
