"""Message callbacks: failures, half-close, ends of connections and of the server."""

from __future__ import annotations

import gc
import logging
import os
import queue
import socket
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import Join, MakeServer
from diary import Diary, patient, times
from peers import (
    DEADLINE,
    connect,
    exchange,
    expect_stats,
    is_reset,
    is_turned_away,
    iterations_at_rest,
    pattern,
    read_to_eof,
    recv_exactly,
    same,
    wait_until,
)
from sanitize import chosen

from fastecho import Connection, Reason


def test_an_exception_is_logged_once_and_resets_its_connection_only(
    make_server: MakeServer, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(_: Connection, data: bytes) -> object:
        if data == b"bad":
            raise ValueError("told")
        return "no bytes" if data == b"text" else data

    diary = Diary(answer)
    server = make_server(**diary.all())
    bystander, culprit, other = join(server), join(server), join(server)
    assert exchange(bystander, b"1") == b"1"
    culprit.sendall(b"bad")
    assert is_reset(culprit)
    other.sendall(b"text")
    assert is_reset(other)
    assert exchange(bystander, b"2") == b"2"
    expect_stats(server, callback_errors=2, ended_by_callback_error=2, connections_open=1)
    said = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert [text.partition(" for ")[0] for text in said] == ["on_message failed"] * 2
    assert "ValueError: told" in caplog.text
    assert "on_message must return bytes-like or None, not str" in caplog.text
    closes = [diary.next() for _ in range(6)]
    assert closes.count(("close", Reason.CALLBACK_ERROR)) == 2


@pytest.mark.parametrize("name", ["on_eof", "on_close"])
def test_an_exception_in_another_callback_is_told_and_counted(
    make_server: MakeServer, join: Join, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError(name)

    server = make_server(on_message=lambda _, data: data, **{name: fail})
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    peer.shutdown(socket.SHUT_WR)
    if name == "on_eof":
        assert is_reset(peer)
    else:
        assert read_to_eof(peer) == b""
    expect_stats(server, callback_errors=1, connections_open=0)
    wait_until(lambda: f"{name} failed for" in caplog.text)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exception_that_asks_for_the_end_stops_the_server_in_order(
    make_server: MakeServer, join: Join, error: type[BaseException]
) -> None:
    def answer(_: Connection, data: bytes) -> bytes:
        if data == b"end":
            raise error
        return data

    server = make_server(on_message=answer, drain_idle=0.0)
    bystander, culprit = join(server), join(server)
    assert exchange(bystander, b"1") == b"1"
    culprit.sendall(b"end")
    assert is_reset(culprit)
    assert read_to_eof(bystander) == b""
    bystander.close()
    assert server.wait(DEADLINE)
    assert server.stats().ended_by_drain == 1


def test_pause_in_the_third_of_a_thousand_lines_that_come_with_fin(
    make_server: MakeServer, join: Join
) -> None:
    def answer(connection: Connection, data: bytes) -> None:
        if data == b"3\n":
            connection.pause_reading()

    diary = Diary(answer)
    server = make_server(frame="line", **diary.all())
    peer = join(server)
    peer.sendall(b"".join(b"%d\n" % number for number in range(1, 1001)))
    peer.shutdown(socket.SHUT_WR)
    notes = [diary.notes.get(timeout=DEADLINE) for _ in range(3)]
    assert [data for _, _, data in notes] == [b"1\n", b"2\n", b"3\n"]
    assert iterations_at_rest(server) == 0
    assert diary.notes.empty()
    notes[0][1].resume_reading()
    assert [diary.next() for _ in range(997)] == [
        ("message", b"%d\n" % number) for number in range(4, 1001)
    ]
    assert diary.next() == ("eof",)
    assert diary.next() == ("close", Reason.PEER)


def test_a_true_answer_to_the_fin_keeps_our_side_open(make_server: MakeServer, join: Join) -> None:
    kept: queue.SimpleQueue[Connection] = queue.SimpleQueue()
    diary = Diary()

    def on_eof(connection: Connection) -> bool:
        kept.put(connection)
        return True

    server = make_server(on_message=diary.on_message, on_eof=on_eof, on_close=diary.on_close)
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    peer.shutdown(socket.SHUT_WR)
    connection = kept.get(timeout=DEADLINE)
    assert iterations_at_rest(server) == 0
    assert connection.write(b"still here")
    assert recv_exactly(peer, 10) == b"still here"
    connection.close()
    assert read_to_eof(peer) == b""
    assert diary.next() == ("message", b"x")
    assert diary.next() == ("close", Reason.CLOSE)


def test_write_eof_sends_fin_and_goes_on_receiving(make_server: MakeServer, join: Join) -> None:
    def answer(connection: Connection, data: bytes) -> None:
        if data == b"bye":
            connection.write(b"last")
            connection.write_eof()

    diary = Diary(answer)
    server = make_server(**diary.all())
    peer = join(server)
    peer.sendall(b"bye")
    assert read_to_eof(peer) == b"last"
    peer.sendall(b"more")
    _, connection, _ = diary.notes.get(timeout=DEADLINE)
    assert diary.next() == ("message", b"more")
    with pytest.raises(RuntimeError, match=r"^write after write_eof\(\)$"):
        connection.write(b"x")
    assert not connection.is_closing()
    peer.close()
    assert diary.next() == ("eof",)
    assert diary.next() == ("close", Reason.PEER)


def test_close_sends_what_was_written_and_delivers_nothing_more(
    make_server: MakeServer, join: Join
) -> None:
    big = pattern(3_000_000)

    def answer(connection: Connection, data: bytes) -> bytes:
        connection.write(big)
        connection.close()
        assert connection.is_closing()
        assert not connection.write(b"dropped")
        return b"dropped as well"

    diary = Diary(answer)
    server = make_server(frame="line", **diary.all())
    peer = join(server)
    peer.sendall(b"one\ntwo\nthree\n")
    assert same(read_to_eof(peer), big)
    assert diary.next() == ("message", b"one\n")
    peer.close()
    assert diary.next() == ("close", Reason.CLOSE)
    expect_stats(server, ended_by_close=1, messages=1)


def test_abort_resets_and_nothing_more_is_delivered(make_server: MakeServer, join: Join) -> None:
    diary = Diary(lambda connection, _: connection.abort())
    server = make_server(frame="line", **diary.all())
    peer = join(server)
    peer.sendall(b"one\ntwo\n")
    assert is_reset(peer)
    assert diary.next() == ("message", b"one\n")
    assert diary.next() == ("close", Reason.RESET)
    expect_stats(server, ended_by_reset=1, messages=1)
    assert server.stop() is True  # a reset that a callback asked for is no failure of the server


def test_abort_takes_what_was_written_in_the_same_callback(
    make_server: MakeServer, join: Join
) -> None:
    def answer(connection: Connection, data: bytes) -> bytes:
        assert connection.write(b"lost")
        connection.abort()
        return b"lost as well"

    server = make_server(on_message=answer)
    peer = join(server)
    peer.sendall(b"x")
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    expect_stats(server, ended_by_reset=1, bytes_out=0)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_whoever_ends_it_in_the_last_frame_is_not_told_of_the_fin(
    make_server: MakeServer, join: Join, end: str
) -> None:
    diary = Diary(lambda connection, _: getattr(connection, end)())
    server = make_server(frame="line", **diary.all())
    peer = join(server)
    peer.sendall(b"a rest")
    peer.shutdown(socket.SHUT_WR)
    assert is_reset(peer) == (end == "abort")
    assert diary.next() == ("message", b"a rest")
    assert diary.next() == ("close", Reason.CLOSE if end == "close" else Reason.RESET)


def test_a_frame_that_is_too_long_is_told_as_the_reason(
    make_server: MakeServer, join: Join
) -> None:
    diary = Diary()
    server = make_server(frame="line", max_frame=10, **diary.all())
    peer = join(server)
    peer.sendall(b"short\n" + b"x" * 11)
    assert read_to_eof(peer) == b"short\n"
    peer.close()
    assert diary.next() == ("message", b"short\n")
    assert diary.next() == ("close", Reason.FRAME_TOO_LONG)


def test_a_peer_that_never_reads_is_reset_at_max_pending(
    make_server: MakeServer, join: Join
) -> None:
    diary = Diary(lambda connection, _: connection.writelines([bytes(100_000)] * 100) or None)
    server = make_server(max_pending=2_000_000, **diary.all())
    peer = join(server)
    peer.sendall(b"x")
    assert diary.next() == ("message", b"x")
    assert diary.next() == ("close", Reason.MAX_PENDING)
    expect_stats(server, ended_by_max_pending=1)


@contextmanager
def traced_memory() -> Iterator[Callable[[], int]]:
    """Give a function that tells how many bytes Python holds, more or less.

    It tells 0 under a sanitizer: that looks for leaks itself, and finds those of tracemalloc.
    """
    if chosen():
        yield lambda: 0
        return
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@patient
def test_handles_are_freed_with_their_connections(make_server: MakeServer, join: Join) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    class Context:
        pass

    def answer(connection: Connection, data: bytes) -> bytes:
        connection.context = Context()
        alive.add(connection.context)
        return data

    server = make_server(on_message=answer, on_close=lambda connection, reason: None)

    def connections(number: int) -> int:
        """Make so many; return the references to what all of them use."""
        for _ in range(number):
            with connect(server) as peer:
                assert exchange(peer, b"x") == b"x"
        expect_stats(server, connections_open=0)
        wait_until(lambda: not gc.collect() and not alive, what="that no handle is left")
        return sys.getrefcount(answer) + sys.getrefcount(None) + sys.getrefcount(Reason.PEER)

    connections(20)
    with traced_memory() as memory:
        references, before = connections(20), memory()
        more = connections(times(200)) - references
        # None is everybody's: other threads and the collector add and drop some.
        assert abs(more) < 100
        assert memory() - before < 100_000


def test_callbacks_run_during_a_drain_and_the_end_waits_for_the_last(
    make_server: MakeServer, join: Join
) -> None:
    diary = Diary()
    server = make_server(drain_idle=0.2, **diary.all())
    peer = join(server)
    assert exchange(peer, b"before") == b"before"
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    assert exchange(peer, b"during") == b"during"
    assert read_to_eof(peer) == b""
    peer.close()
    stopper.join()
    assert [diary.next() for _ in range(2)] == [("message", b"before"), ("message", b"during")]
    rest = [diary.next()]
    while rest[-1][0] != "close":
        rest.append(diary.next())
    assert rest[-1] == ("close", Reason.DRAIN)


def test_a_callback_may_stop_the_server_but_not_wait_for_it(
    make_server: MakeServer, join: Join
) -> None:
    told: list[object] = []

    def answer(_: Connection, data: bytes) -> bytes:
        try:
            server.wait()
        except RuntimeError as error:
            told.append(str(error))
        told.append(server.stop())
        return data

    server = make_server(on_message=answer, drain_idle=0.0)
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    assert read_to_eof(peer) == b""
    peer.close()
    assert server.wait(DEADLINE)
    assert told == ["wait() in a callback would wait for itself", False]


def test_who_is_only_written_to_is_not_idle(make_server: MakeServer, join: Join) -> None:
    listeners: list[Connection] = []

    def answer(connection: Connection, data: bytes) -> None:
        if data == b"I listen":
            listeners.append(connection)
        for one in listeners:
            one.write(data)

    server = make_server(on_message=answer, idle_timeout=0.3)
    listener, speaker = join(server), join(server)
    assert exchange(listener, b"I listen") == b"I listen"
    listener.settimeout(0.05)
    end = time.monotonic() + 0.9
    while time.monotonic() < end:
        speaker.sendall(b"news")
        assert recv_exactly(listener, 4) == b"news"
        with pytest.raises(TimeoutError):  # a pause
            listener.recv(1)
    speaker.close()
    assert read_to_eof(listener) == b""
    expect_stats(server, ended_by_idle_timeout=1)


def test_a_callback_that_takes_long_is_named(
    make_server: MakeServer, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    enough = threading.Event()

    def answer(_: Connection, data: bytes) -> bytes:
        enough.wait({b"fast": 0.0, b"less": 0.15, b"slow": 1.05}[data])
        return data

    server = make_server(on_message=answer, slow_callback_duration=1.0)
    peer = join(server)
    for word in (b"fast", b"less", b"slow"):
        assert exchange(peer, word) == word
    said = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(said) == 1
    assert said[0].startswith("on_message took 1.")


def test_each_other_callback_that_takes_long_is_named(
    make_server: MakeServer, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    drained = threading.Event()

    def answer(connection: Connection, _: bytes) -> None:
        assert not connection.write(bytes(300_000))

    def pause(*_: object) -> None:
        drained.set()
        threading.Event().wait(0.03)

    server = make_server(
        on_message=answer,
        on_drain=pause,
        on_eof=pause,
        on_close=pause,
        high_water=300_000,
        slow_callback_duration=0.02,
    )
    peer = join(server)
    peer.sendall(b"x")
    recv_exactly(peer, 300_000)
    assert drained.wait(DEADLINE)
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b""
    wait_until(lambda: "on_close took" in caplog.text)
    said = [one.getMessage().split()[0] for one in caplog.records if " took " in one.getMessage()]
    assert [name for name in said if name != "on_message"] == ["on_drain", "on_eof", "on_close"]


@pytest.mark.parametrize("wrong", ["raises", "returns text"])
def test_a_callback_that_takes_long_and_fails_is_named_once(
    make_server: MakeServer, join: Join, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    def answer(*_: object) -> str:
        threading.Event().wait(0.03)
        if wrong == "raises":
            raise ValueError
        return "text"

    peer = join(make_server(on_message=answer, slow_callback_duration=0.02))
    peer.sendall(b"x")
    assert is_reset(peer)
    wait_until(lambda: "on_message failed" in caplog.text)
    assert caplog.text.count("on_message took") == 1


def test_a_callback_that_blocks_holds_up_its_own_worker_only(
    make_server: MakeServer, join: Join
) -> None:
    go_on = threading.Event()
    blocked = threading.Event()

    def answer(_: Connection, data: bytes) -> bytes:
        if data == b"wait":
            blocked.set()
            assert go_on.wait(DEADLINE)
        return data

    server = make_server(on_message=answer, threads=2)
    peers = [join(server) for _ in range(4)]
    for peer in peers:
        assert exchange(peer, b"x") == b"x"
    peers[0].sendall(b"wait")
    assert blocked.wait(DEADLINE)
    answered = 0
    for peer in peers[1:]:
        peer.sendall(b"y")
    while answered < 2:  # those of the other worker
        for peer in peers[1:]:
            peer.settimeout(0.01)
            try:
                answered += peer.recv(1) == b"y"
            except TimeoutError:
                pass
    go_on.set()
    peers[0].settimeout(DEADLINE)
    assert recv_exactly(peers[0], 4) == b"wait"


def test_a_fork_in_a_callback_leaves_the_server_to_the_parent(
    make_server: MakeServer, join: Join
) -> None:
    def answer(connection: Connection, data: bytes) -> bytes:
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        _, status = os.waitpid(pid, 0)
        return b"%d" % os.waitstatus_to_exitcode(status)

    server = make_server(on_message=answer)
    peer = join(server)
    assert exchange(peer, b"x") == b"7"
    assert exchange(peer, b"x") == b"7"


def test_on_close_alone_leaves_echoing_to_the_core(make_server: MakeServer, join: Join) -> None:
    diary = Diary()
    server = make_server(on_close=diary.on_close, prefix=b"<", frame="line", threads=2)
    peers = [join(server) for _ in range(4)]
    for peer in peers:
        assert exchange(peer, b"a\n") == b"<a\n"
    peers[0].shutdown(socket.SHUT_WR)
    assert read_to_eof(peers[0]) == b""
    _, connection, reason = diary.notes.get(timeout=DEADLINE)
    assert (connection.id, reason) == (1, Reason.PEER)
    assert (connection.peer.host, connection.peer.port) == peers[0].getsockname()
    assert connection.is_closing()
    assert not connection.write(b"too late")
    connection.close()
    server.abort()
    assert {diary.next() for _ in range(3)} == {("close", Reason.ABORT)}
    assert server.wait(DEADLINE)
    assert diary.notes.empty()
    assert server.stats().callback_errors == 0


@pytest.mark.parametrize("alone", [False, True], ids=["beside on_message", "alone"])
def test_on_close_is_for_those_that_were_served(
    make_server: MakeServer, join: Join, alone: bool
) -> None:
    diary = Diary()
    answers = [False, True]
    callbacks = {"on_close": diary.on_close} if alone else diary.all()
    server = make_server(on_accept=lambda _: answers.pop(0), **callbacks)
    assert is_turned_away(server)
    expect_stats(server, ended_by_denial=1)
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    peer.close()
    if not alone:
        assert diary.next() == ("message", b"x")
        assert diary.next() == ("eof",)
    _, connection, reason = diary.notes.get(timeout=DEADLINE)
    assert (connection.id, reason) == (2, Reason.PEER)
    assert server.stop()
    assert diary.notes.empty()
    assert server.stats().callback_errors == 0


def test_on_close_alone_that_raises_is_told_and_counted_also_after_the_end(
    make_server: MakeServer, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(connection: Connection, reason: Reason) -> None:
        raise KeyError(reason)

    server = make_server(on_close=fail)
    peer, other = join(server), join(server)
    assert [exchange(one, b"x") for one in (peer, other)] == [b"x", b"x"]
    peer.close()
    expect_stats(server, callback_errors=1, connections_open=1)
    server.abort()
    assert server.wait(DEADLINE)
    expect_stats(server, callback_errors=2)
    assert caplog.text.count("on_close failed for") == 2
