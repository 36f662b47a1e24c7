"""Callbacks that take long: who waits for one is not quiet, and others have their turn."""

from __future__ import annotations

import queue
import socket
import threading
import time

import pytest
from conftest import Join, MakeServer
from peers import DEADLINE, exchange, expect_stats, iterations_at_rest, read_to_eof, recv_exactly

from fastecho import Connection


def send_what_fits(peers: list[socket.socket], size: int) -> int:
    """Send from each as much as the kernel takes, at most size; return the sum."""
    for peer in peers:
        peer.setblocking(False)
    return sum(peer.send(bytes(size)) for peer in peers)


@pytest.mark.parametrize("end", ["idle_timeout", "stop"])
def test_what_was_sent_in_time_is_delivered_however_long_callbacks_take(
    make_server: MakeServer, join: Join, end: str
) -> None:
    """More has come than one round receives, and the time is over when the first callback ends."""
    inside, go_on = threading.Event(), threading.Event()
    received = 0

    def answer(_: Connection, data: bytes) -> bytes | None:
        nonlocal received
        if data == b"hello":
            return data
        if data == b"wait":
            inside.set()
            assert go_on.wait(DEADLINE)
            if end == "stop":
                server.stop()  # from here it only begins the end
            time.sleep(0.25)  # longer than idle_timeout
            return None
        received += len(data)
        time.sleep(0.003)  # longer than a drain's quiet time
        return None

    config = {"idle_timeout": 0.2} if end == "idle_timeout" else {"drain_idle": 0.0}
    server = make_server(on_message=answer, **config)
    slow, *peers = [join(server) for _ in range(13)]
    for peer in peers:
        assert exchange(peer, b"hello") == b"hello"
    slow.sendall(b"wait")
    assert inside.wait(DEADLINE)
    sent = send_what_fits(peers, 250_000)
    assert sent > 2 << 20
    go_on.set()
    for peer in peers:
        peer.setblocking(True)
        assert read_to_eof(peer) == b""
        peer.close()
    assert received == sent
    slow.close()
    ended_by = "ended_by_drain" if end == "stop" else "ended_by_idle_timeout"
    expect_stats(server, **{ended_by: 13, "bytes_discarded": 0})


def test_a_drain_ends_a_half_closed_connection_that_on_eof_kept_open(
    make_server: MakeServer, join: Join
) -> None:
    kept = threading.Event()

    def on_eof(_: Connection) -> bool:
        kept.set()
        return True

    server = make_server(on_message=lambda *_: None, on_eof=on_eof, drain_idle=0.0)
    peer = join(server)
    peer.shutdown(socket.SHUT_WR)
    assert kept.wait(DEADLINE)
    assert iterations_at_rest(server) == 0
    assert server.stop(DEADLINE)
    assert read_to_eof(peer) == b""
    expect_stats(server, ended_by_drain=1)


@pytest.mark.parametrize("who", ["one peer", "two peers"])
def test_a_reply_leaves_before_the_next_slow_callback(
    make_server: MakeServer, join: Join, who: str
) -> None:
    """Two frames of one round: the second's callback sees that the first's reply has arrived."""
    inside, go_on, arrived = threading.Event(), threading.Event(), threading.Event()
    seen: list[bool] = []

    def answer(_: Connection, data: bytes) -> bytes | None:
        if data == b"wait\n":
            inside.set()
            assert go_on.wait(DEADLINE)
            return None
        if data == b"hello\n":
            return data
        seen.append(arrived.wait(2.0) if seen else False)
        time.sleep(0.003)  # a round lasts 2 ms
        return data

    server = make_server(frame="line", on_message=answer)
    first, second, other = (join(server) for _ in range(3))
    for peer in (first, second):
        exchange(peer, b"hello\n")
    other.sendall(b"wait\n")
    assert inside.wait(DEADLINE)
    peers = [first, first] if who == "one peer" else [first, second]
    for peer in peers:
        peer.sendall(b"x\n")
    receivers = queue.SimpleQueue[bytes]()

    def receive(peer: socket.socket) -> None:
        receivers.put(recv_exactly(peer, 2))
        arrived.set()

    threads = [threading.Thread(target=receive, args=[peer]) for peer in {first, peers[1]}]
    for thread in threads:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(DEADLINE)
    if who == "one peer":
        recv_exactly(first, 2)
    assert seen == [False, True]


def test_what_is_asked_for_again_and_again_costs_no_memory(
    make_server: MakeServer, join: Join
) -> None:
    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1])

    grown: list[int] = []

    def answer(connection: Connection, data: bytes) -> bytes:
        before = resident()
        for _ in range(300_000):
            connection.resume_reading()
        grown.append(resident() - before)
        return data

    assert exchange(join(make_server(on_message=answer)), b"x") == b"x"
    assert grown[0] < 1000  # pages; a note of each would be 2,900
