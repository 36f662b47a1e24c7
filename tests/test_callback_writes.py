"""Connection used from other threads: what arrives, in which order, and what comes too late."""

from __future__ import annotations

import queue
import random
import socket
import struct
import threading
import time

import pytest
from conftest import Join, MakeServer
from diary import Gate, patient, times
from peers import (
    DEADLINE,
    exchange,
    expect_stats,
    is_reset,
    iterations_at_rest,
    read_to_eof,
    recv_exactly,
    same,
    wait_until,
)

import fastecho
from fastecho import Connection, Reason


class Meeting:
    """A server whose callbacks hand over each connection at its first message."""

    def __init__(self, make_server: MakeServer, join: Join, **config: object) -> None:
        self.notes: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.server: fastecho.Server = make_server(
            on_message=lambda connection, _: self.notes.put(connection),
            on_drain=lambda _: self.notes.put("drain"),
            on_close=lambda _, reason: self.notes.put(reason),
            **config,
        )
        self._join = join

    def meet(self) -> tuple[socket.socket, Connection]:
        """Connect; return both ends."""
        peer = self._join(self.server)
        peer.sendall(b"\0\0\0\1\n")
        connection = self.notes.get(timeout=DEADLINE)
        assert isinstance(connection, Connection)
        return peer, connection

    def told(self) -> object:
        """Return what was told next."""
        return self.notes.get(timeout=DEADLINE)


@pytest.fixture
def meeting(make_server: MakeServer, join: Join) -> Meeting:
    """Return a server with default settings and one worker."""
    return Meeting(make_server, join)


def test_what_another_thread_writes_arrives_in_order(meeting: Meeting) -> None:
    peer, connection = meeting.meet()
    number = 20_000
    for one in range(number):
        connection.write(b"%06d," % one)
    assert same(recv_exactly(peer, number * 7), b"".join(b"%06d," % one for one in range(number)))
    assert meeting.server.stats().bytes_out == number * 7


def test_many_writes_wake_the_loop_once(make_server: MakeServer, join: Join) -> None:
    """The worker sits in a callback while they are made, so they come in one go."""
    inside, go_on = threading.Event(), threading.Event()
    handles: queue.SimpleQueue[Connection] = queue.SimpleQueue()

    def answer(connection: Connection, data: bytes) -> None:
        handles.put(connection)
        if data == b"wait":
            inside.set()
            assert go_on.wait(DEADLINE)

    server = make_server(on_message=answer)
    peer = join(server)
    peer.sendall(b"wait")
    assert inside.wait(DEADLINE)
    connection = handles.get()
    before = server.stats()
    for _ in range(1000):
        connection.write(b"x")
    go_on.set()
    assert recv_exactly(peer, 1000) == b"x" * 1000
    after = server.stats()
    assert after.iterations - before.iterations <= 4
    assert after.events - before.events <= 3


def test_threads_that_write_at_once_mix_whole_writes(meeting: Meeting) -> None:
    peer, connection = meeting.meet()

    def write(who: bytes) -> None:
        for number in range(500):
            connection.write(who * (1 + number % 30) + b"\n")

    writers = [threading.Thread(target=write, args=[b"%c" % (97 + one)]) for one in range(4)]
    for writer in writers:
        writer.start()
    size = 4 * sum(2 + number % 30 for number in range(500))
    lines = recv_exactly(peer, size).splitlines()
    for writer in writers:
        writer.join()
    for one in range(4):
        who = b"%c" % (97 + one)
        mine = [line for line in lines if line[:1] == who]
        assert mine == [who * (1 + number % 30) for number in range(500)]


def test_length_frames_get_their_header_from_any_thread(
    make_server: MakeServer, join: Join
) -> None:
    peer, connection = Meeting(make_server, join, frame="length").meet()
    assert connection.writelines([b"abc", b"", bytearray(b"de")])
    frames = [struct.pack(">I", len(one)) + one for one in (b"abc", b"", b"de")]
    assert recv_exactly(peer, 17) == b"".join(frames)


def test_a_writer_is_told_of_high_water_and_then_of_low_water(meeting: Meeting) -> None:
    peer, connection = meeting.meet()
    written = 0
    while connection.write(bytes(50_000)):
        written += 50_000
    written += 50_000
    assert len(recv_exactly(peer, written)) == written
    assert meeting.told() == "drain"
    assert connection.write(b"again")
    assert recv_exactly(peer, 5) == b"again"


def test_a_callback_is_told_of_what_another_thread_has_written(
    make_server: MakeServer, join: Join
) -> None:
    gate = Gate()
    handles: queue.SimpleQueue[Connection] = queue.SimpleQueue()
    results: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def answer(connection: Connection, data: bytes) -> None:
        handles.put(connection)
        gate.hold()
        results.put(connection.write(bytes(6_000)))

    server = make_server(on_message=answer, high_water=10_000)
    join(server).sendall(b"x")
    assert handles.get(timeout=DEADLINE).write(bytes(6_000))
    gate.open()
    assert results.get(timeout=DEADLINE) is False


def test_another_thread_is_told_of_what_the_peer_has_not_taken(meeting: Meeting) -> None:
    _, connection = meeting.meet()
    server = meeting.server
    while server.stats().bytes_pending < server.config.high_water:
        connection.write(bytes(4_000_000))
        wait_until(lambda: iterations_at_rest(server) == 0)
    assert connection.write(b"x") is False


def test_who_writes_on_without_end_loses_the_connection(
    make_server: MakeServer, join: Join
) -> None:
    meeting = Meeting(make_server, join, max_pending=2_000_000)
    peer, connection = meeting.meet()
    while not connection.is_closing():
        connection.write(bytes(100_000))
    told = meeting.told()
    while told == "drain":
        told = meeting.told()
    assert told is Reason.MAX_PENDING
    assert not connection.write(b"x")
    assert is_reset(peer)
    expect_stats(meeting.server, ended_by_max_pending=1, bytes_pending=0)


def test_write_and_close_from_another_thread_sends_all_of_it(meeting: Meeting) -> None:
    peer, connection = meeting.meet()
    data = random.Random(1).randbytes(200_000)
    assert connection.write(data)
    connection.close()
    connection.close()
    assert same(read_to_eof(peer), data)
    peer.close()
    assert meeting.told() is Reason.CLOSE


def test_write_eof_abort_and_reading_from_another_thread(meeting: Meeting) -> None:
    peer, connection = meeting.meet()
    connection.pause_reading()
    connection.write(b"last")
    connection.write_eof()
    connection.write_eof()
    assert read_to_eof(peer) == b"last"
    peer.sendall(b"held")
    with pytest.raises(queue.Empty):
        meeting.notes.get(timeout=0.05)
    connection.resume_reading()
    assert meeting.told() is connection
    connection.abort()
    connection.abort()
    assert meeting.told() is Reason.RESET
    with pytest.raises(BrokenPipeError):  # what Linux makes of a RST behind a FIN
        peer.sendall(b"x")


def test_whoever_comes_too_late_changes_nothing(meeting: Meeting) -> None:
    peer, connection = meeting.meet()
    peer.close()
    assert meeting.told() is Reason.PEER
    assert not connection.write(b"x")
    assert not connection.writelines([b"x", b"y"])
    for act in (connection.write_eof, connection.close, connection.abort):
        act()
    connection.pause_reading()
    connection.resume_reading()
    assert connection.is_closing()
    assert meeting.server.stop()
    assert not connection.write(b"x")
    assert repr(connection) == "<fastecho.Connection 1 closing>"


@patient
def test_a_handle_never_writes_to_the_next_one_in_its_slot(meeting: Meeting) -> None:
    old: list[Connection] = []
    stop = threading.Event()

    def haunt() -> None:
        while not stop.wait(0.0002):  # else it holds the GIL from all others
            for connection in old[-50:]:
                connection.write(b"ghost")
                connection.pause_reading()
                connection.abort()

    ghost = threading.Thread(target=haunt)
    ghost.start()
    try:
        for _ in range(times(1500)):
            peer, connection = meeting.meet()
            connection.write(b"mine")
            connection.close()
            assert read_to_eof(peer) == b"mine"
            peer.close()
            assert meeting.told() is Reason.CLOSE
            old.append(connection)
            del old[:-50]
    finally:
        stop.set()
        ghost.join()
    expect_stats(meeting.server, ended_by_close=times(1500), callback_errors=0)


def test_a_message_of_one_peer_is_written_to_all_others(
    make_server: MakeServer, join: Join
) -> None:
    """A chat: writes to other connections from within a callback, over two workers."""
    everybody: list[Connection] = []
    entrance = threading.Lock()

    def answer(connection: Connection, data: bytes) -> None:
        if data == b"enter\n":
            with entrance:
                everybody.append(connection)
            connection.write(b"welcome\n")
        else:
            for one in everybody:
                one.write(data)

    server = make_server(on_message=answer, frame="line", threads=2)
    peers = [join(server) for _ in range(20)]
    for peer in peers:
        assert exchange(peer, b"enter\n", 8) == b"welcome\n"
    for number, peer in enumerate(peers):
        peer.sendall(b"".join(b"%02d %03d\n" % (number, line) for line in range(50)))
    size = len(peers) * 50 * 7
    for peer in peers:
        lines = recv_exactly(peer, size).splitlines()
        for number in range(len(peers)):
            said = [line for line in lines if line.startswith(b"%02d" % number)]
            assert said == [b"%02d %03d" % (number, line) for line in range(50)]


def test_what_is_written_is_copied(meeting: Meeting) -> None:
    peer, connection = meeting.meet()
    data = bytearray(b"as it was")
    connection.write(data)
    data[:] = b"afterward"
    assert recv_exactly(peer, 9) == b"as it was"
    data.append(1)  # not exported any more
    with pytest.raises(TypeError, match="'str'"):
        connection.write("text")  # type: ignore[arg-type]


def test_a_server_that_is_aborted_under_writers_ends(make_server: MakeServer, join: Join) -> None:
    meeting = Meeting(make_server, join, threads=2)
    met = [meeting.meet() for _ in range(8)]
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for _, connection in met:
                connection.write(bytes(1000))

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    deadline = time.monotonic() + 0.1
    wait_until(lambda: time.monotonic() > deadline)
    meeting.server.abort()
    assert meeting.server.wait(DEADLINE)
    stop.set()
    for writer in writers:
        writer.join()
    reasons = [meeting.told() for _ in range(8)]
    assert set(reasons) <= {Reason.ABORT, Reason.MAX_PENDING, "drain"}
