"""The end of a connection with message callbacks: what was written before it, what comes after."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Join, MakeServer
from diary import Gate, patient, times
from peers import DEADLINE, expect_stats, is_reset, read_to_eof, recv_exactly, wait_until

import fastecho
from fastecho import Connection, Reason


def elsewhere(act: Callable[[], object]) -> object:
    """Do it in another thread; return its result."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(act()))
    thread.start()
    thread.join(DEADLINE)
    return results[0]


@pytest.mark.parametrize("how", ["close", "write_eof", "on_eof"])
def test_what_another_thread_wrote_before_an_end_in_a_callback_is_sent(
    make_server: MakeServer, join: Join, how: str
) -> None:
    told: list[object] = []

    def answer(connection: Connection, _: bytes) -> None:
        if how != "on_eof":
            connection.write(b"first,")
            told.append(elsewhere(lambda: connection.write(b"second")))
            getattr(connection, how)()

    def on_eof(connection: Connection) -> None:
        if how == "on_eof":
            told.append(elsewhere(lambda: connection.write(b"first,second")))

    peer = join(make_server(on_message=answer, on_eof=on_eof))
    peer.sendall(b"x")
    if how == "on_eof":
        peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b"first,second"
    assert told == [True]


@patient
@pytest.mark.parametrize("how", ["close", "write_eof", "too long"])
def test_every_write_that_was_told_true_arrives(
    make_server: MakeServer, join: Join, how: str
) -> None:
    """A thread writes all the time, until it is told that the connection ends."""
    connections: queue.SimpleQueue[Connection] = queue.SimpleQueue()

    def answer(connection: Connection, data: bytes) -> None:
        if data == b"hello\n":
            connections.put(connection)
        else:
            getattr(connection, how)()

    server = make_server(
        frame="line", max_frame=10, high_water=1 << 30, max_pending=1 << 31, on_message=answer
    )

    def write(connection: Connection, taken: list[int]) -> None:
        try:
            while connection.write(b"12345678"):
                taken[0] += 8
        except RuntimeError:
            assert how == "write_eof"

    for _ in range(max(20, times(20) // 50)):
        peer = join(server)
        peer.sendall(b"hello\n")
        taken = [0]
        connection = connections.get(timeout=DEADLINE)
        writer = threading.Thread(target=write, args=[connection, taken])
        writer.start()
        wait_until(lambda: taken[0])  # noqa: B023
        peer.sendall(b"a line of more than 10 bytes\n" if how == "too long" else b"end\n")
        received = len(read_to_eof(peer))
        peer.close()
        writer.join(DEADLINE)
        assert received == taken[0]


@pytest.mark.parametrize("here", [True, False], ids=["by a callback", "by a thread"])
@pytest.mark.parametrize("size", [0, 32 << 20], ids=["all is sent", "much is pending"])
def test_abort_after_close_ends_it_at_once(
    make_server: MakeServer, join: Join, size: int, here: bool
) -> None:
    notes: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def answer(connection: Connection, data: bytes) -> None:
        if data == b"abort":
            culprit.abort()
        else:
            notes.put(connection)

    server = make_server(on_message=answer, on_close=lambda _, reason: notes.put(reason))
    peer, other = join(server), join(server)
    peer.sendall(b"hello")
    culprit: Connection = notes.get(timeout=DEADLINE)
    culprit.write(bytes(size))
    culprit.close()
    if size == 0:
        assert read_to_eof(peer) == b""
    if here:
        other.sendall(b"abort")
    else:
        culprit.abort()
    assert notes.get(timeout=DEADLINE) is Reason.CLOSE
    expect_stats(server, linger_timeouts=0, connections_open=1)
    if size:
        assert is_reset(peer)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_after_close_by_another_thread_nothing_more_is_delivered(
    make_server: MakeServer, join: Join, how: str
) -> None:
    notes: queue.SimpleQueue[object] = queue.SimpleQueue()

    def answer(connection: Connection, data: bytes) -> None:
        notes.put(data)
        elsewhere(getattr(connection, how))

    server = make_server(
        frame="line",
        on_message=answer,
        on_eof=lambda _: notes.put("eof"),
        on_drain=lambda _: notes.put("drain"),
        on_close=lambda _, reason: notes.put(reason),
    )
    peer = join(server)
    peer.sendall(b"first\nsecond\nthird\n")
    assert is_reset(peer) == (how == "abort")
    peer.close()
    assert notes.get(timeout=DEADLINE) == b"first\n"
    assert notes.get(timeout=DEADLINE) is (Reason.CLOSE if how == "close" else Reason.RESET)
    expect_stats(server, messages=1, connections_open=0)


def test_after_close_by_another_thread_on_drain_is_not_called(
    make_server: MakeServer, join: Join
) -> None:
    """It is due in the round in which another connection's callback has it closed."""
    inside, go_on = threading.Event(), threading.Event()
    connections: queue.SimpleQueue[Connection] = queue.SimpleQueue()
    drained: list[bool] = []

    def answer(connection: Connection, data: bytes) -> None:
        if data == b"hello":
            connections.put(connection)
        elif data == b"wait":
            inside.set()
            assert go_on.wait(DEADLINE)
        else:
            elsewhere(writer.close)

    server = make_server(
        high_water=1024,
        low_water=1023,
        max_frame=1024,
        on_message=answer,
        on_drain=lambda connection: drained.append(connection.is_closing()),
    )
    peer, waiting, closing = (join(server) for _ in range(3))
    peer.sendall(b"hello")
    writer: Connection = connections.get(timeout=DEADLINE)
    written = 0
    while server.stats().bytes_pending < 1024:
        writer.write(bytes(65536))
        written += 65536
        expect_stats(server, bytes_out=written)
    waiting.sendall(b"wait")
    assert inside.wait(DEADLINE)
    closing.sendall(b"close")
    recv_exactly(peer, written - server.stats().bytes_pending)  # the rest finds room
    go_on.set()
    read_to_eof(peer)
    peer.close()
    expect_stats(server, connections_open=2, ended_by_close=1)
    assert True not in drained


@pytest.mark.parametrize("how", ["frame_too_long", "idle_timeout"])
def test_a_connection_that_the_server_ends_is_closing_and_takes_no_more(
    make_server: MakeServer, join: Join, how: str
) -> None:
    connections: queue.SimpleQueue[Connection] = queue.SimpleQueue()
    config = {"max_frame": 10} if how == "frame_too_long" else {"idle_timeout": 0.05}
    server: fastecho.Server = make_server(
        frame="line", on_message=lambda connection, _: connections.put(connection), **config
    )
    peer = join(server)
    peer.sendall(b"hello\n")
    connection = connections.get(timeout=DEADLINE)
    if how == "frame_too_long":
        peer.sendall(b"a line of more than 10 bytes\n")
    assert read_to_eof(peer) == b""
    # It has our FIN and keeps its own end open.
    assert connection.is_closing()
    assert not connection.write(b"x")
    peer.close()
    expect_stats(server, **{f"ended_by_{how}": 1, "connections_open": 0})


@pytest.mark.parametrize("by", ["a thread", "a callback"])
def test_an_end_while_its_input_waits_for_a_later_round_is_in_order(
    make_server: MakeServer, join: Join, by: str
) -> None:
    """What has come is not delivered any more, and holds up neither the end nor the worker."""
    gate, served = Gate(), queue.SimpleQueue[Connection]()

    def end() -> None:
        connection.write(b"bye")
        connection.close()

    def answer(given: Connection, data: bytes) -> None:
        if data == b"hello":
            served.put(given)
        elif data == b"hold":
            if by == "a callback":
                end()
            gate.hold()
            threading.Event().wait(0.003)  # the round is over
        elif data == b"slow":
            threading.Event().wait(0.02)

    server = make_server(on_message=answer)
    holder, slow, peer = [join(server) for _ in range(3)]
    peer.sendall(b"hello")
    connection = served.get(timeout=DEADLINE)
    holder.sendall(b"hold")
    gate.wait()
    slow.sendall(b"slow")
    peer.sendall(b"more")
    if by == "a thread":
        end()
    before = server.stats().iterations
    gate.open()
    assert read_to_eof(peer) == b"bye"
    peer.close()
    expect_stats(server, ended_by_close=1, linger_timeouts=0)
    assert server.stats().iterations - before < 100


def test_an_end_does_not_wait_for_callbacks_of_others(make_server: MakeServer, join: Join) -> None:
    """Their turn takes longer than the second that an end has."""
    served = queue.SimpleQueue[Connection]()

    def answer(connection: Connection, data: bytes) -> None:
        if data == b"hello":
            served.put(connection)
        else:
            threading.Event().wait(0.04)

    server = make_server(on_message=answer)
    peer, *others = [join(server) for _ in range(41)]
    peer.sendall(b"hello")
    connection = served.get(timeout=DEADLINE)
    for other in [*others, peer, *others]:
        other.sendall(b"x")
    connection.write(b"bye")
    connection.close()
    assert read_to_eof(peer) == b"bye"
    assert server.stats().linger_timeouts == 0


def test_the_last_line_without_its_end_is_delivered_whatever_another_callback_asked_for(
    make_server: MakeServer, join: Join, tmp_path: Path
) -> None:
    gate, served = Gate(), queue.SimpleQueue[Connection]()
    got: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def answer(given: Connection, data: bytes) -> None:
        if data == b"hello\n":
            served.put(given)
        elif data == b"hold\n":
            connection.resume_reading()
            gate.hold()
            threading.Event().wait(0.003)  # the round is over
        elif data == b"slow\n":
            threading.Event().wait(0.02)
        else:
            got.put(data)

    server = make_server(
        f"unix:{tmp_path / 'socket'}",
        frame="line",
        on_message=answer,
        on_eof=lambda _: got.put(b"eof"),
    )
    holder, slow, peer = [join(server) for _ in range(3)]
    peer.sendall(b"hello\nlast line")
    connection = served.get(timeout=DEADLINE)
    holder.sendall(b"hold\n")
    gate.wait()
    slow.sendall(b"slow\n")
    peer.shutdown(socket.SHUT_WR)
    gate.open()
    assert [got.get(timeout=DEADLINE) for _ in range(2)] == [b"last line", b"eof"]


@pytest.mark.parametrize("fault", [None, "reset_after=6M"])
def test_an_end_waits_as_long_as_the_peer_reads(
    make_server: MakeServer, join: Join, fault: str | None
) -> None:
    """It reads a little at a time, for longer than the second that it has for each."""
    size = 6_000_000

    def answer(connection: Connection, _: bytes) -> None:
        connection.write(bytes(size))
        connection.close()

    peer = join(make_server(on_message=answer, fault=fault), receive_buffer=1 << 16)
    peer.sendall(b"x")
    received, until = 0, time.monotonic() + 2.5
    while time.monotonic() < until:
        received += len(recv_exactly(peer, 10_000))
        time.sleep(0.02)
    assert received < size
    recv_exactly(peer, size - received)
    assert is_reset(peer) == (fault is not None)
