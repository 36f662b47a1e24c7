"""The drain: stop() lets connections finish, ends quiet ones by FIN and busy ones at the deadline.

What a peer can rely on while a server is being stopped:

- Who is connected is echoed as before, until it has been quiet for drain_idle; then FIN, and
  every byte of a reply that was owed comes before it.
- Who was in the accept queue is accepted first. On loopback that is everybody whose connect()
  had succeeded: it gets its echo, or FIN if it sends nothing for drain_idle. Never RST.
- Who comes later is refused, or waits for a retry of its SYN and is refused then.
- At the deadline, and only then, RST.

Not promised: a client behind a full accept queue believes that it is connected although the
kernel has dropped its last ACK; one whose last ACK takes longer than the grace (2 ms on loopback,
100 ms elsewhere) is in the same place. Both are reset by their first byte.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import Join, MakeServer
from peers import connect, exchange, fill, is_reset, pattern, read_to_eof, recv_exactly, wait_until
from programs import Program, many_descriptors
from storms import STORMS, drain_in_a_storm

if TYPE_CHECKING:
    import fastecho


RECEIVE_BUFFER = 1 << 19
"""Bytes; several of loopback's segments of 64 KiB, or the kernel drops and retries for seconds."""


SERVE = """
    import sys, threading, time
    from fastecho import Server

    def tell():
        while server.is_serving():
            time.sleep(0.001)
        print("draining", flush=True)

    server = Server(sys.argv[1], drain_idle=float(sys.argv[2]), threads=2)
    server.start()
    print(server.address, flush=True)
    threading.Thread(target=tell).start()
    print(server.serve_forever(), server.stats().connections_accepted, flush=True)
"""


@contextmanager
def stopping(server: fastecho.Server, timeout: float = 20.0) -> Iterator[Future[bool]]:
    """Run stop(timeout) beside the block, which begins once the drain has begun."""
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(server.stop, timeout)
        wait_until(lambda: not server.is_serving(), what="the drain")
        yield stopped


@pytest.fixture(params=["tcp", "unix"])
def bind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where to listen: the same tests for TCP and for Unix sockets."""
    return "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path / 's'}"


# --- quiet and busy --------------------------------------------------------------------------


def test_a_quiet_connection_gets_fin_after_drain_idle(
    make_server: MakeServer, join: Join, bind: str
) -> None:
    """Quiet before the drain does not count: the time begins with it."""
    server = make_server(bind, drain_idle=0.2, threads=2)
    peers = [join(server) for _ in range(10)]
    for peer in peers:
        assert exchange(peer, b"x") == b"x"
    begun = time.monotonic()
    with stopping(server) as stopped:
        for peer in peers:
            assert not is_reset(peer)
            assert time.monotonic() - begun >= 0.2
            peer.close()
        assert stopped.result(10) is True
    stats = server.stats()
    assert (stats.ended_by_drain, stats.ended_by_abort, stats.linger_timeouts) == (10, 0, 0)


def test_without_connections_it_is_over_at_once(make_server: MakeServer) -> None:
    server = make_server(drain_idle=30.0, threads=2)
    begun = time.monotonic()
    assert server.stop(30) is True
    assert time.monotonic() - begun < 5


def test_a_connection_that_ends_by_itself_is_not_waited_for(
    make_server: MakeServer, join: Join, bind: str
) -> None:
    server = make_server(bind, drain_idle=30.0)
    peer = join(server)
    assert exchange(peer, b"before") == b"before"
    with stopping(server) as stopped:
        assert exchange(peer, b"after") == b"after"
        assert not stopped.done()
        peer.close()
        assert stopped.result(10) is True
    assert server.stats().ended_by_peer == 1


def test_a_busy_connection_is_echoed_until_it_is_quiet(
    make_server: MakeServer, join: Join, bind: str
) -> None:
    server = make_server(bind, drain_idle=0.4)
    peer = join(server)
    with stopping(server) as stopped:
        begun = time.monotonic()
        while time.monotonic() - begun < 1.0:
            last = time.monotonic()
            assert exchange(peer, b"still busy") == b"still busy"
            time.sleep(0.05)
            assert time.monotonic() - last < 0.4, "this machine stalls for longer than drain_idle"
        assert not stopped.done()
        assert not is_reset(peer)
        assert time.monotonic() - last >= 0.4
        peer.close()
        assert stopped.result(10) is True


def test_at_the_deadline_busy_connections_are_reset(make_server: MakeServer, join: Join) -> None:
    """Until then they are echoed, and quiet ones have had their FIN."""
    server = make_server(drain_idle=0.2, threads=2)
    busy, quiet = join(server), join(server)
    assert exchange(quiet, b"x") == b"x"
    begun = time.monotonic()
    with stopping(server, 0.8) as stopped:
        echoed = 0.0
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                assert exchange(busy, b"x") == b"x"
                echoed = time.monotonic()
                time.sleep(0.005)
        assert time.monotonic() - begun >= 0.8
        assert echoed - begun >= 0.6
        assert not is_reset(quiet)
        assert stopped.result(10) is False
    stats = server.stats()
    assert (stats.ended_by_drain, stats.ended_by_abort) == (1, 1)


def test_stop_0_resets_at_once(make_server: MakeServer, join: Join) -> None:
    server = make_server(threads=2)
    peers = [join(server) for _ in range(10)]
    for peer in peers:
        assert exchange(peer, b"x") == b"x"
    begun = time.monotonic()
    assert server.stop(0) is False
    assert time.monotonic() - begun < 5
    assert all(is_reset(peer) for peer in peers)


def test_a_peer_that_keeps_its_end_open_is_waited_for_a_second(
    make_server: MakeServer, join: Join, bind: str
) -> None:
    """It has everything and our FIN: nothing is lost by leaving it, so that is no failure.

    That it has acknowledged our FIN does not give it another second.
    """
    server = make_server(bind, drain_idle=0.05)
    peer = join(server)
    begun = time.monotonic()
    with stopping(server) as stopped:
        assert read_to_eof(peer) == b""
        assert stopped.result(10) is True
    assert 1.0 <= time.monotonic() - begun < 1.9
    stats = server.stats()
    assert (stats.ended_by_drain, stats.linger_timeouts) == (1, 1)


def test_a_server_that_stood_still_looks_before_it_judges() -> None:
    """Its process is stopped for longer than drain_idle; what came meanwhile was in time."""
    with Program(SERVE, "127.0.0.1:0", "0.5") as program:
        address = program.line()
        wait_until(lambda: program.catches(signal.SIGTERM), what="serve_forever")
        peers = [connect(address) for _ in range(50)]
        try:
            for peer in peers:
                assert exchange(peer, b"before") == b"before"
            program.send(signal.SIGTERM)
            assert program.line() == "draining"
            with program.paused():
                begun = time.monotonic()
                for peer in peers:
                    peer.sendall(b"meanwhile")
                wait_until(lambda: time.monotonic() - begun > 0.7, what="0.7 s")
            for peer in peers:
                assert recv_exactly(peer, 9) == b"meanwhile"
        finally:
            close_all(peers)
        assert program.line() == "True 50"


# --- what is owed is delivered ---------------------------------------------------------------


def test_a_connection_with_pending_replies_is_not_quiet(
    make_server: MakeServer, join: Join, bind: str
) -> None:
    """Its peer reads only after drain_idle has long passed, and gets every byte."""
    server = make_server(bind, drain_idle=0.1)
    peer = join(server)
    data = pattern(32 << 20)
    sent = fill(peer, data, blocked=lambda: server.stats().bytes_pending > 0)
    with stopping(server) as stopped:
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() - begun > 0.5, what="half a second")
        assert server.stats().connections_open == 1
        assert recv_exactly(peer, sent) == data[:sent]
        assert not is_reset(peer)
        peer.close()
        assert stopped.result(10) is True
    assert server.stats().bytes_dropped == 0


def test_a_peer_that_does_not_read_is_reset_at_the_deadline(
    make_server: MakeServer, join: Join, bind: str
) -> None:
    server = make_server(bind, drain_idle=0.05)
    peer = join(server)
    fill(peer, pattern(32 << 20), blocked=lambda: server.stats().bytes_pending > 0)
    begun = time.monotonic()
    with stopping(server, 0.4) as stopped:
        assert stopped.result(10) is False
    assert time.monotonic() - begun >= 0.4
    stats = server.stats()
    assert (stats.ended_by_abort, stats.ended_by_drain) == (1, 0)
    assert stats.bytes_dropped > 0


@pytest.mark.parametrize("pause", [0.0, 0.1], ids=["fast", "slow"])
def test_megabytes_in_the_kernel_are_read_before_our_fin(
    make_server: MakeServer, join: Join, pause: float
) -> None:
    """The peer has 3 MB to read when our FIN goes out, and goes on sending all the while.

    The slow one needs longer than the second that an answer to our FIN may take.
    """
    server = make_server(drain_idle=0.05)
    peer = join(server, receive_buffer=RECEIVE_BUFFER)
    data = pattern(3_000_000)
    peer.sendall(data)
    wait_until(lambda: server.stats().bytes_out == len(data), what="everything echoed")
    assert server.stats().bytes_pending == 0
    with stopping(server) as stopped:
        wait_until(lambda: has_fin_sent(peer), what="our FIN")
        received = bytearray()
        while len(received) < len(data):
            received += recv_exactly(peer, 150_000)
            peer.sendall(b"more" * 250)
            time.sleep(pause)
        assert received == data
        assert read_to_eof(peer) == b""
        peer.close()
        assert stopped.result(10) is True
    stats = server.stats()
    assert stats.bytes_discarded == 20 * 1000
    assert (stats.bytes_in, stats.bytes_dropped, stats.linger_timeouts) == (len(data), 0, 0)


def test_a_peer_that_pauses_for_longer_than_we_wait_loses_nothing(
    make_server: MakeServer, join: Join
) -> None:
    """We leave it after a second without progress; what is in the kernel reaches it still."""
    server = make_server(drain_idle=0.05)
    peer = join(server, receive_buffer=RECEIVE_BUFFER)
    data = pattern(3_000_000)
    peer.sendall(data)
    wait_until(lambda: server.stats().bytes_out == len(data), what="everything echoed")
    assert server.stats().bytes_pending == 0
    assert server.stop(20) is True
    assert server.stats().linger_timeouts == 1
    assert recv_exactly(peer, len(data)) == data
    assert not is_reset(peer)


def has_fin_sent(peer: socket.socket) -> bool:
    """Tell whether the other side's socket has sent FIN, or has it queued behind its bytes."""
    here, there = peer.getsockname(), peer.getpeername()
    with open("/proc/net/tcp") as table:
        for line in table:
            words = line.split()
            if words[1].endswith(f":{there[1]:04X}") and words[2].endswith(f":{here[1]:04X}"):
                return words[3] != "01"  # ESTABLISHED
    return True


def test_we_end_first_with_2_mb_pending_and_the_peer_still_sending(
    make_server: MakeServer, join: Join, bind: str
) -> None:
    """A frame that is too long ends it: all earlier replies, FIN, no RST; the rest discarded."""
    server = make_server(bind, frame="line", prefix=b"p" * 4000, max_frame=1000, high_water=8 << 20)
    peer = join(server, receive_buffer=RECEIVE_BUFFER)
    lines = 2000
    peer.sendall(b"\n" * lines + b"x" * 1001)
    wait_until(lambda: server.stats().bytes_pending > 2_000_000, what="2 MB pending")
    received, sent = bytearray(), 0
    while len(received) < lines * 4001:
        received += recv_exactly(peer, 4001 * 20)
        sent += peer.send(b"y" * 5000)
    assert received == (b"p" * 4000 + b"\n") * lines
    assert read_to_eof(peer) == b""
    peer.close()
    wait_until(lambda: server.stats().connections_closed == 1)
    stats = server.stats()
    assert (stats.ended_by_frame_too_long, stats.messages) == (1, lines)
    assert (stats.bytes_dropped, stats.linger_timeouts) == (0, 0)
    assert stats.bytes_in + stats.bytes_discarded == lines + 1001 + sent


def test_bytes_after_our_fin_are_discarded_and_counted(
    make_server: MakeServer, join: Join, bind: str
) -> None:
    server = make_server(bind, drain_idle=0.05)
    peer = join(server)
    assert exchange(peer, b"in time") == b"in time"
    with stopping(server) as stopped:
        assert read_to_eof(peer) == b""
        peer.sendall(b"too late")
        peer.sendall(b"by far")
        peer.close()
        assert stopped.result(10) is True
    stats = server.stats()
    assert (stats.bytes_in, stats.bytes_out) == (7, 7)
    assert stats.bytes_discarded == len("too late" + "by far")


def test_an_unfinished_line_is_dropped_and_counted(make_server: MakeServer, join: Join) -> None:
    server = make_server(frame="line", drain_idle=0.1)
    peer = join(server)
    peer.sendall(b"whole\nunfinished")
    with stopping(server) as stopped:
        assert read_to_eof(peer) == b"whole\n"
        peer.close()
        assert stopped.result(10) is True
    assert server.stats().frames_incomplete == 1


# --- newcomers -------------------------------------------------------------------------------


def test_newcomers_that_wait_for_a_verdict_are_served(
    make_server: MakeServer, join: Join, bind: str
) -> None:
    answer = threading.Event()
    server = make_server(bind, drain_idle=0.1, on_accept=lambda _: answer.wait(10) and None)
    peers = [join(server) for _ in range(3)]
    for peer in peers:
        peer.sendall(b"first words")
    wait_until(lambda: server.stats().connections_accepted == 3)
    with stopping(server) as stopped:
        assert not stopped.done()
        answer.set()
        for peer in peers:
            assert read_to_eof(peer) == b"first words"
            peer.close()
        assert stopped.result(10) is True


def test_a_newcomer_without_verdict_is_reset_at_the_deadline(
    make_server: MakeServer, join: Join
) -> None:
    answer = threading.Event()
    server = make_server(on_accept=lambda _: answer.wait(10) and None)
    peer = join(server)
    wait_until(lambda: server.stats().connections_accepted == 1)
    try:
        assert server.stop(0.1) is False
        assert is_reset(peer)
    finally:
        answer.set()


def test_a_second_stop_does_not_cut_the_time_of_handshakes_short(make_server: MakeServer) -> None:
    """Behind an address that others can reach, accepting goes on for a round trip: 100 ms."""
    server = make_server("0.0.0.0:0")
    begun = time.monotonic()
    with stopping_twice(server) as stopped:
        wait_until(lambda: not server.is_serving(), what="the end of accepting")
        assert time.monotonic() - begun >= 0.1
        assert [one.result(10) for one in stopped] == [True, True]


@contextmanager
def stopping_twice(server: fastecho.Server) -> Iterator[list[Future[bool]]]:
    """Run stop() twice at the same time beside the block."""
    with ThreadPoolExecutor(2) as pool:
        yield [pool.submit(server.stop, 20) for _ in range(2)]


def test_an_inherited_listener_is_left_to_its_owner(make_server: MakeServer) -> None:
    """Others may accept from it: it is neither shut down nor told to drop newcomers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = make_server(f"fd://{listener.fileno()}")
        with connect(listener.getsockname()) as peer:
            assert exchange(peer, b"x") == b"x"
        assert server.stop(10) is True
        with connect(listener.getsockname()) as peer:
            listener.settimeout(10)
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(b"by another")
                assert recv_exactly(peer, 10) == b"by another"


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_the_accept_queue_is_emptied_first(family: str, tmp_path: Path) -> None:
    """A thousand connections wait in the kernel while the server's process stands still."""
    bind = "127.0.0.1:0" if family == "tcp" else f"unix:{tmp_path / 's'}"
    with many_descriptors(4096), Program(SERVE, bind, "0.5") as program:
        address = program.line()
        wait_until(lambda: program.catches(signal.SIGTERM), what="serve_forever")
        with program.paused():
            peers = [connect(address) for _ in range(1000)]
            try:
                for peer in peers:
                    peer.sendall(b"hello")
                program.send(signal.SIGTERM)
            except BaseException:
                close_all(peers)
                raise
        try:
            for peer in peers:
                assert read_to_eof(peer) == b"hello"
        finally:
            close_all(peers)
        assert program.line() == "draining"
        assert program.line() == "True 1000"


def close_all(sockets: list[socket.socket]) -> None:
    """Close them."""
    for sock in sockets:
        sock.close()


# --- a storm ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STORMS)
def test_a_drain_in_a_connect_storm_resets_nobody(name: str, tmp_path: Path) -> None:
    """50 drains over all; who has connected is echoed, whatever the moment."""
    drain_in_a_storm(name, 10, tmp_path)
