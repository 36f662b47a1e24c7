"""Faults that take time: delay, jitter, bandwidth, pieces, a listener that is slow to accept.

Nothing comes early, in this file to the microsecond. How late it comes is the machine's as well:
`python -m benchmarks.faults` measures that; here a second is enough.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from conftest import Join, MakeServer
from peers import (
    connect,
    exchange,
    expect_stats,
    fill,
    is_reset,
    iterations_at_rest,
    pattern,
    plenty,
    read_to_eof,
    recv_exactly,
    same,
    wait_until,
)

LATE = 1.0
"""Seconds that a loaded machine may add."""


def timed(sock: socket.socket, data: bytes) -> float:
    """Send `data` and return how long its echo took."""
    began = time.monotonic()
    assert exchange(sock, data) == data
    return time.monotonic() - began


def reads(sock: socket.socket, size: int) -> list[tuple[bytes, float]]:
    """Return what each recv gave, and when, until so many bytes have come."""
    got: list[tuple[bytes, float]] = []
    while sum(len(data) for data, _ in got) < size:
        data = sock.recv(1 << 20)
        assert data
        got.append((data, time.monotonic()))
    return got


def has_timerfd() -> bool:
    """Tell whether this process has a timerfd."""
    links = []
    for one in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(one.readlink()))
        except FileNotFoundError:
            continue
    return "anon_inode:[timerfd]" in links


@pytest.mark.parametrize("frame", ["recv", "line"])
def test_delay_holds_each_reply_back(make_server: MakeServer, join: Join, frame: str) -> None:
    server = make_server(fault="delay=50ms", frame=frame)
    peer = join(server)
    for _ in range(3):
        assert 0.05 <= timed(peer, b"hello\n") < 0.05 + LATE


def test_messages_under_way_are_delayed_each_on_its_own(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(fault="delay=100ms")
    peer = join(server)
    began = time.monotonic()
    for i in range(4):
        wait_until(lambda i=i: time.monotonic() >= began + i * 0.03)  # type: ignore[misc]
        peer.sendall(b"%d" % i)
    at = reads(peer, 4)
    assert b"".join(data for data, _ in at) == b"0123"
    assert at[0][1] < began + 0.19 + LATE  # and not 0.4 s, one after the other
    assert at[-1][1] >= began + 0.19


def test_jitter_stays_within_its_bounds_and_reorders_nothing(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(fault="delay=20ms,jitter=10ms,seed=3")
    peer = join(server)
    took = [timed(peer, b"%d" % i) for i in range(20)]
    assert 0.01 <= min(took) < 0.02
    assert max(took) > 0.02
    data = pattern(20_000)
    for at in range(0, len(data), 1000):
        peer.sendall(data[at : at + 1000])
    assert same(recv_exactly(peer, len(data)), data)


def test_normal_jitter_delays(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="delay=20ms,jitter=2ms,distribution=normal")
    peer = join(server)
    took = sorted(timed(peer, b"x") for _ in range(20))
    assert took[0] >= 0.008
    assert took[10] > 0.017


def test_fin_waits_behind_what_is_delayed(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="delay=50ms")
    peer = join(server)
    began = time.monotonic()
    peer.sendall(b"hello")
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b"hello"
    assert time.monotonic() >= began + 0.05
    expect_stats(server, ended_by_peer=1, bytes_dropped=0)


def test_bandwidth_is_kept(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="bandwidth=1M")
    peer = join(server)
    data = pattern(200_000)
    began = time.monotonic()
    assert same(exchange(peer, data), data)
    assert 0.2 <= time.monotonic() - began < 0.2 + LATE
    assert 0.02 <= timed(peer, data[:20_000]) < 0.02 + LATE  # nothing was saved meanwhile


def test_slow_bandwidth_bounds_what_waits(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="bandwidth=1", high_water=100_000)
    peer = join(server, send_buffer=1 << 17)
    assert fill(peer, plenty(), lambda: server.stats().bytes_pending >= 99_999) > 100_000
    assert server.stats().bytes_pending <= 100_000 + 262_144
    assert iterations_at_rest(server) <= 2


def test_many_small_chunks_pause_reading_too(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="delay=300ms")
    peer = join(server)
    data = pattern(10_000)
    segments = [data[at : at + 1] for at in range(len(data))]
    assert same(exchange(peer, segments), data)


def test_slice_gives_a_prompt_reader_one_byte_a_read(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="slice=1")
    peer = join(server)
    began = time.monotonic()
    peer.sendall(b"0123456789")
    got = [data for data, _ in reads(peer, 10)]
    assert b"".join(got) == b"0123456789"
    assert time.monotonic() >= began + 0.009
    assert got.count(b"0") == 1
    assert len(got) >= 8  # a reader that was held up finds two at once


def test_slice_and_gap_are_as_asked(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="slice=4,gap=30ms")
    peer = join(server)
    began = time.monotonic()
    peer.sendall(b"0123456789")
    got = reads(peer, 10)
    assert [data for data, _ in got] == [b"0123", b"4567", b"89"]
    assert [when >= began + i * 0.03 for i, (_, when) in enumerate(got)] == [True] * 3


def test_pieces_are_whole_however_small_the_bandwidth(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="slice=1000,bandwidth=100k")
    peer = join(server)
    data = pattern(5000)
    began = time.monotonic()
    peer.sendall(data)
    got = reads(peer, 5000)
    assert time.monotonic() - began >= 0.05
    assert [len(piece) % 1000 for piece, _ in got] == [0] * len(got)
    assert len(got) >= 3  # a reader that was held up finds two at once
    assert b"".join(piece for piece, _ in got) == data


def test_pieces_without_a_gap_are_not_lost(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="slice=1,gap=0")
    peer = join(server)
    assert same(exchange(peer, data := pattern(5000)), data)


def test_everything_at_once(make_server: MakeServer, join: Join) -> None:
    fault = "delay=5ms,jitter=2ms,bandwidth=500k,slice=1000,gap=0.1ms,reset_after=50k"
    server = make_server(fault=fault.replace("0.1ms", "100us"), threads=2)
    peer = join(server)
    data = pattern(49_999)
    began = time.monotonic()
    assert same(exchange(peer, data), data)
    assert time.monotonic() - began >= 0.1
    peer.sendall(b"xx")
    assert is_reset(peer)


def test_accept_delay_holds_newcomers_in_the_queue(make_server: MakeServer) -> None:
    server = make_server(fault="accept_delay=0.1", threads=2)
    for _ in range(2):
        began = time.monotonic()
        with connect(server) as peer:
            assert exchange(peer, b"x") == b"x"
            assert 0.1 <= time.monotonic() - began < 0.1 + LATE
            again = time.monotonic()
            assert exchange(peer, b"y") == b"y"
            assert time.monotonic() - again < LATE
    expect_stats(server, accept_pauses=0)
    server.set_fault(None)
    with connect(server) as peer:
        assert exchange(peer, b"x") == b"x"


def test_accept_delay_is_never_shorter_for_the_first_to_come(make_server: MakeServer) -> None:
    server = make_server(fault="accept_delay=100ms", threads=4)
    for _ in range(3):
        with connect(server) as first, connect(server) as second:
            assert exchange(first, b"x") == exchange(second, b"x") == b"x"
        began = time.monotonic()
        with connect(server) as later:
            time.sleep(0.05)  # comes meanwhile, and finds another worker
            with connect(server) as last:
                assert exchange(later, b"x") == exchange(last, b"x") == b"x"
        assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize("fault", [None, "accept_delay=20ms"])
@pytest.mark.parametrize("threads", [1, 3])
def test_who_waits_for_accept_delay_finds_a_shorter_one(
    make_server: MakeServer, fault: str | None, threads: int
) -> None:
    server = make_server(fault="accept_delay=60s", threads=threads)
    before = server.stats().iterations
    with connect(server) as peer:
        wait_until(lambda: server.stats().iterations > before)
        iterations_at_rest(server)
        server.set_fault(fault)
        assert exchange(peer, b"x") == b"x"
    with connect(server) as other:
        assert exchange(other, b"x") == b"x"


def test_accept_delay_does_not_lose_whom_a_drain_finds(make_server: MakeServer) -> None:
    server = make_server(fault="accept_delay=60s", drain_idle=0.05)
    with connect(server) as peer:
        peer.sendall(b"x")
        server.close()
        assert recv_exactly(peer, 1) == b"x"
        assert server.stop(5)


def test_drain_waits_for_what_is_delayed(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="delay=200ms", drain_idle=0.01)
    peer = join(server)
    peer.sendall(b"hello")
    wait_until(lambda: server.stats().bytes_in == 5)
    server.close()
    began = time.monotonic()
    assert server.stop(10)
    assert time.monotonic() - began < 5
    assert read_to_eof(peer) == b"hello"
    stats = server.stats()
    assert (stats.ended_by_drain, stats.bytes_dropped) == (1, 0)


def test_drain_does_not_wait_beyond_its_deadline(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="delay=60s")
    peer = join(server)
    peer.sendall(b"hello")
    wait_until(lambda: server.stats().bytes_in == 5)
    assert not server.stop(0.05)
    assert is_reset(peer)
    assert (server.stats().ended_by_abort, server.stats().bytes_dropped) == (1, 5)


def test_what_is_held_back_is_not_idle(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="delay=300ms", idle_timeout=0.05)
    peer = join(server)
    assert exchange(peer, b"hello") == b"hello"
    assert read_to_eof(peer) == b""  # and then it is
    expect_stats(server, ended_by_idle_timeout=1)


def test_a_stalled_connection_is_idle(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="stall_after=2", idle_timeout=0.05)
    peer = join(server)
    peer.sendall(b"hello")
    assert read_to_eof(peer) == b"he"
    expect_stats(server, ended_by_idle_timeout=1)


def test_a_peer_that_resets_takes_its_replies_with_it(make_server: MakeServer) -> None:
    server = make_server(fault="delay=60s")
    peer = connect(server)
    peer.sendall(b"hello")
    wait_until(lambda: server.stats().bytes_pending == 5)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    expect_stats(server, ended_by_error=1, bytes_dropped=5, bytes_pending=0)


def test_timer_exists_while_a_fault_needs_it(make_server: MakeServer) -> None:
    server = make_server(fault="corrupt=0.5")
    with connect(server) as peer:
        exchange(peer, b"x")
        assert not has_timerfd()
        server.set_fault("delay=1ms")
        with connect(server) as second:
            assert exchange(second, b"x") == b"x"
            assert has_timerfd()
            assert iterations_at_rest(server) <= 1
            server.set_fault(None)
            assert has_timerfd()
        expect_stats(server, connections_open=1)
        wait_until(lambda: not has_timerfd())
