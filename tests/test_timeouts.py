"""Idle timeout: no byte in either direction for `idle_timeout` seconds ends a connection.

Never early, whatever else wakes the worker: a peer that measures from its last byte to our FIN
finds at least the timeout. Where a test has to keep a connection busy, it measures its own
longest pause as well: a machine that stalls for longer than the timeout proves nothing.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import Join, MakeServer, Serve
from peers import exchange, is_reset, read_to_eof, recv_exactly, reset, wait_until

if TYPE_CHECKING:
    import fastecho

PREFIX = b"p" * 4096
RECEIVE_BUFFER = 1 << 19
"""Bytes; several of loopback's segments of 64 KiB, or the kernel drops and retries for seconds."""


@contextmanager
def chatter(server: fastecho.Server, seconds: float) -> Iterator[None]:
    """Wake the workers 3,000 times a second for some time, at odd moments and without the GIL."""
    from fastecho._load import Load

    assert server.host is not None and server.port is not None
    load = Load(
        [(socket.AF_INET, (server.host, server.port))],
        connections=2 * server.threads,
        mode="open",
        rate=3000.0,
    )
    load.connect()
    try:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(load.run, seconds)
            yield
            assert running.result()["messages"] > 1000 * seconds
    finally:
        load.close()


def end_of(sock: socket.socket) -> float:
    """Wait for FIN; return when it was seen, in time.monotonic()."""
    assert read_to_eof(sock) == b""
    return time.monotonic()


def busy_for(seconds: float, act: Callable[[], object], pause: float, limit: float) -> None:
    """Call `act` every `pause` seconds for `seconds`; try again if the machine stalled.

    An AssertionError or OSError of `act` counts unless the pause before it was `limit` or longer.
    """
    begun = last = time.monotonic()
    while time.monotonic() < begun + seconds:
        act()
        now = time.monotonic()
        assert now - last < limit, "this machine stalls for longer than the timeout"
        last = now
        time.sleep(pause)


def test_a_silent_connection_gets_fin_and_is_counted(make_server: MakeServer, join: Join) -> None:
    server = make_server(idle_timeout=0.1)
    peer = join(server)
    assert not is_reset(peer)
    peer.close()
    wait_until(lambda: server.stats().connections_closed == 1)
    stats = server.stats()
    assert (stats.ended_by_idle_timeout, stats.linger_timeouts) == (1, 0)


@pytest.mark.parametrize("threads", [1, 2])
def test_it_never_comes_early(make_server: MakeServer, join: Join, threads: int) -> None:
    """Many connections, whose last byte falls on all parts of a millisecond."""
    server = make_server(idle_timeout=0.15, threads=threads)
    with chatter(server, 0.4):
        last: dict[socket.socket, float] = {}
        for _ in range(60):
            peer = join(server)
            last[peer] = time.monotonic()
            peer.sendall(b"x")
            recv_exactly(peer, 1)
        ended: dict[socket.socket, float] = {}
        while len(ended) < len(last):
            waiting = [peer for peer in last if peer not in ended]
            readable, _, _ = select.select(waiting, [], [], 10)
            assert readable, "no FIN"
            now = time.monotonic()
            for peer in readable:
                assert peer.recv(1) == b""
                ended[peer] = now
                peer.close()
    early = [0.15 - (ended[peer] - last[peer]) for peer in last]
    assert max(early) <= 0, f"{sum(one > 0 for one in early)} of 60, by {max(early) * 1000:.2f} ms"


def test_it_comes_soon_after_it_is_due(make_server: MakeServer, join: Join) -> None:
    """The earliest of several tries: a stall of the machine can only make one late."""
    server = make_server(idle_timeout=0.05)
    late = []
    for _ in range(10):
        peer = join(server)
        last = time.monotonic()
        assert exchange(peer, b"x") == b"x"
        late.append(end_of(peer) - last - 0.05)
        peer.close()
    assert min(late) < 0.02


def test_a_newcomer_has_the_whole_time(make_server: MakeServer, join: Join) -> None:
    server = make_server(idle_timeout=0.1)
    with chatter(server, 0.6):
        for _ in range(5):
            begun = time.monotonic()
            peer = join(server)
            assert end_of(peer) - begun >= 0.1
            peer.close()


def test_bytes_from_the_peer_postpone_it(make_server: MakeServer, join: Join) -> None:
    """Only input: an incomplete line is not answered."""
    server = make_server(idle_timeout=0.6, frame="line")
    peer = join(server)
    busy_for(1.5, lambda: peer.sendall(b"x"), pause=0.1, limit=0.6)
    last = time.monotonic()
    peer.sendall(b"\n")
    assert read_to_eof(peer).strip(b"x") == b"\n"
    assert time.monotonic() - last >= 0.6
    peer.close()
    wait_until(lambda: server.stats().ended_by_idle_timeout == 1)


def pile_up(server: fastecho.Server, join: Join) -> socket.socket:
    """Return a peer that has sent 2 KB at once and is owed 8 MiB, of which it has read nothing."""
    peer = join(server, receive_buffer=RECEIVE_BUFFER)
    peer.sendall(b"\n" * 2048)
    wait_until(lambda: server.stats().messages == 2048, what="all lines answered")
    stats = server.stats()
    assert stats.bytes_pending + stats.bytes_dropped > 0
    return peer


def make_amplifier(make_server: MakeServer, **config: object) -> fastecho.Server:
    """Start a server that answers one byte with 4097, up to 16 MiB ahead of the peer."""
    return make_server(frame="line", prefix=PREFIX, high_water=1 << 24, **config)


def test_bytes_to_the_peer_postpone_it(make_server: MakeServer, join: Join) -> None:
    """Only output: the peer reads what it is owed, slowly, and sends nothing."""
    server = make_amplifier(make_server, idle_timeout=0.8)
    peer = pile_up(server, join)
    line, left = PREFIX + b"\n", 2048 * 4097
    begun = time.monotonic()
    while left > 0:
        paused = time.monotonic()
        # 256 lines: more than a third of what the kernel holds, so each lets the server send.
        assert recv_exactly(peer, 256 * 4097) == line * 256
        left -= 256 * 4097
        if server.stats().bytes_pending:
            assert server.stats().ended_by_idle_timeout == 0
            time.sleep(0.25)
        assert time.monotonic() - paused < 0.8, "this machine stalls for longer than the timeout"
    assert time.monotonic() - begun > 0.8
    assert read_to_eof(peer) == b""


def test_a_slow_reader_is_not_idle(make_server: MakeServer, join: Join) -> None:
    """What it reads is less than what makes the kernel ask for more, in each timeout's time."""
    server = make_amplifier(make_server, idle_timeout=0.8)
    peer = pile_up(server, join)
    line, begun = PREFIX + b"\n", time.monotonic()
    while time.monotonic() - begun < 2.0:
        paused = time.monotonic()
        assert recv_exactly(peer, 4 * 4097) == line * 4
        time.sleep(0.1)
        assert time.monotonic() - paused < 0.8, "this machine stalls for longer than the timeout"
    assert server.stats().connections_open == 1
    assert server.stats().bytes_dropped == 0


def test_a_peer_that_does_not_read_is_reset(make_server: MakeServer, join: Join) -> None:
    server = make_amplifier(make_server, idle_timeout=0.2)
    begun = time.monotonic()
    peer = pile_up(server, join)
    wait_until(lambda: server.stats().connections_closed == 1)
    assert 0.2 <= time.monotonic() - begun
    assert is_reset(peer)
    stats = server.stats()
    assert stats.ended_by_idle_timeout == 1
    assert stats.bytes_pending == 0
    assert 0 < stats.bytes_dropped < stats.bytes_out == 2048 * 4097


def test_a_peer_that_half_closed_and_does_not_read_is_reset(
    make_server: MakeServer, join: Join
) -> None:
    server = make_amplifier(make_server, idle_timeout=0.2)
    peer = pile_up(server, join)
    peer.shutdown(socket.SHUT_WR)
    wait_until(lambda: server.stats().connections_closed == 1)
    assert is_reset(peer)
    # It had ended in order, but was not told everything: the timeout is the reason.
    assert (server.stats().ended_by_idle_timeout, server.stats().ended_by_peer) == (1, 0)


@pytest.mark.parametrize("half_closed", [False, True], ids=["open", "half-closed"])
def test_a_peer_that_does_not_read_is_reset_while_its_lines_wait_at_high_water(
    make_server: MakeServer, join: Join, half_closed: bool
) -> None:
    server = make_server(
        frame="line", prefix=PREFIX, high_water=100_000, send_buffer=65536, idle_timeout=0.2
    )
    begun = time.monotonic()
    peer = join(server, receive_buffer=RECEIVE_BUFFER)
    peer.sendall(b"\n" * 2048)
    if half_closed:
        peer.shutdown(socket.SHUT_WR)
    wait_until(lambda: server.stats().connections_closed == 1)
    assert 0.2 <= time.monotonic() - begun
    assert is_reset(peer)
    stats = server.stats()
    assert stats.ended_by_idle_timeout == 1
    assert 0 < stats.messages < 2048


def test_a_slow_reader_whose_lines_wait_at_high_water_is_not_idle(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(
        frame="line", prefix=PREFIX, high_water=100_000, send_buffer=65536, idle_timeout=0.6
    )
    peer = join(server, receive_buffer=RECEIVE_BUFFER)
    peer.sendall(b"\n" * 2048)
    wait_until(lambda: server.stats().bytes_pending >= 100_000)
    line = PREFIX + b"\n"

    def read_some() -> None:
        assert recv_exactly(peer, 16 * 4097) == line * 16

    busy_for(1.5, read_some, pause=0.1, limit=0.6)
    stats = server.stats()
    assert (stats.connections_open, stats.bytes_dropped) == (1, 0)
    assert stats.messages < 2048


def test_time_before_the_verdict_does_not_count(make_server: MakeServer, join: Join) -> None:
    answered = threading.Event()
    server = make_server(idle_timeout=0.2, on_accept=lambda _: answered.wait(10) and None)
    peer = join(server)
    peer.sendall(b"early")
    assert not answered.wait(0.5)
    released = time.monotonic()
    answered.set()
    assert read_to_eof(peer) == b"early"
    assert time.monotonic() - released >= 0.2


def test_connections_that_end_otherwise_leave_no_timer(make_server: MakeServer, join: Join) -> None:
    """Half of them end by FIN, half by RST; the others still time out, each once."""
    server = make_server(idle_timeout=0.4)
    peers = [join(server) for _ in range(300)]
    for i, peer in enumerate(peers[:200]):
        if i % 2:
            peer.close()
        else:
            reset(peer)
    for peer in peers[200:]:
        assert not is_reset(peer)
        peer.close()
    wait_until(lambda: server.stats().connections_closed == 300)
    stats = server.stats()
    assert (stats.ended_by_peer, stats.ended_by_error) == (100, 100)
    assert stats.ended_by_idle_timeout == 100


def test_a_server_that_stood_still_looks_before_it_judges(serve_apart: Serve, join: Join) -> None:
    """Its process is stopped for longer than the timeout; what came meanwhile was in time."""
    served = serve_apart(idle_timeout=0.5)
    peers = [join(served.address) for _ in range(50)]
    for peer in peers:
        assert exchange(peer, b"before") == b"before"
    with served.paused():
        begun = time.monotonic()
        for peer in peers:
            peer.sendall(b"meanwhile")
        wait_until(lambda: time.monotonic() - begun > 0.7, what="0.7 s")
    for peer in peers:
        assert recv_exactly(peer, 9) == b"meanwhile"
    assert served.stats().ended_by_idle_timeout == 0


def test_unix_sockets_time_out_as_well(make_server: MakeServer, join: Join, tmp_path: Path) -> None:
    server = make_server(f"unix:{tmp_path / 's'}", idle_timeout=0.1)
    begun = time.monotonic()
    assert end_of(join(server)) - begun >= 0.1


def test_bytes_after_the_end_are_discarded_and_counted(make_server: MakeServer, join: Join) -> None:
    server = make_server(idle_timeout=0.1)
    peer = join(server)
    assert read_to_eof(peer) == b""
    peer.sendall(b"too late")
    peer.close()
    wait_until(lambda: server.stats().connections_closed == 1)
    stats = server.stats()
    assert (stats.bytes_discarded, stats.bytes_in, stats.bytes_out) == (8, 0, 0)


def test_a_server_without_timeout_does_not_wake_for_silent_connections(
    make_server: MakeServer, join: Join
) -> None:
    """No timer stands behind a connection: the loop sleeps until something comes."""
    server = make_server()
    peers = [join(server) for _ in range(10)]
    for peer in peers:
        assert exchange(peer, b"x") == b"x"
    wait_until(lambda: server.stats().messages == 10)
    before = server.stats().iterations
    assert not select.select(peers, [], [], 0.3)[0]
    assert server.stats().iterations == before
