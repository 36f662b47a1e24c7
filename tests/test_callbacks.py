"""Message callbacks: what they are called with, in which order, and what becomes of their answers.

Peers are plain sockets. What other threads write is in test_callback_writes.py.
"""

from __future__ import annotations

import gc
import logging
import os
import queue
import socket
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Join, MakeServer
from peers import (
    DEADLINE,
    exchange,
    expect_stats,
    is_reset,
    iterations_at_rest,
    pattern,
    read_to_eof,
    recv_exactly,
    same,
    wait_until,
)

import fastecho
from fastecho import Connection, Reason


class Diary:
    """Callbacks that note what they were called with, in order, and what they answer."""

    def __init__(self, answer: Callable[[Connection, bytes], object] | None = None) -> None:
        self.answer = answer or (lambda _, data: data)
        self.notes: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.threads: set[str] = set()

    def on_message(self, connection: Connection, data: bytes) -> object:
        self.threads.add(threading.current_thread().name)
        self.notes.put(("message", connection, data))
        return self.answer(connection, data)

    def on_eof(self, connection: Connection) -> object:
        self.notes.put(("eof", connection))
        return None

    def on_drain(self, connection: Connection) -> None:
        self.notes.put(("drain", connection))

    def on_close(self, connection: Connection, reason: Reason) -> None:
        self.notes.put(("close", connection, reason))

    def all(self) -> dict[str, Any]:
        """Return every callback, as keywords of Server."""
        names = ("on_message", "on_eof", "on_drain", "on_close")
        return {name: getattr(self, name) for name in names}

    def next(self) -> Any:
        """Return the next note, without its connection."""
        kind, _, *rest = self.notes.get(timeout=DEADLINE)
        return (kind, *rest)


def test_a_message_is_echoed_by_what_the_callback_returns(
    make_server: MakeServer, join: Join
) -> None:
    diary = Diary(lambda _, data: data.upper())
    server = make_server(**diary.all())
    peer = join(server)
    assert exchange(peer, b"abc") == b"ABC"
    assert diary.next() == ("message", b"abc")
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b""
    assert diary.next() == ("eof",)
    assert diary.next() == ("close", Reason.PEER)
    assert diary.threads == {"fastecho-0"}
    expect_stats(server, messages=1, bytes_in=3, bytes_out=3, ended_by_peer=1, callback_errors=0)


@pytest.mark.parametrize(
    "reply", [b"x", bytearray(b"x"), memoryview(b"-x-")[1:2], memoryview(b"x")], ids=repr
)
def test_any_bytes_like_object_is_a_reply(
    make_server: MakeServer, join: Join, reply: bytes
) -> None:
    server = make_server(on_message=lambda *_: reply)
    assert exchange(join(server), b"?") == b"x"


def test_none_and_nothing_are_no_reply(make_server: MakeServer, join: Join) -> None:
    answers = iter([None, b"", b"third"])
    server = make_server(on_message=lambda *_: next(answers), frame="line")
    peer = join(server)
    peer.sendall(b"1\n2\n3\n")
    assert recv_exactly(peer, 5) == b"third"
    expect_stats(server, messages=3, bytes_out=5)


def test_a_line_has_its_line_end_and_the_rest_of_a_stream_has_none(
    make_server: MakeServer, join: Join
) -> None:
    diary = Diary(lambda _, data: b"<" + data + b">")
    server = make_server(frame="line", **diary.all())
    peer = join(server)
    peer.sendall(b"a\r\n\nb\nre")
    peer.sendall(b"st")
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b"<a\r\n><\n><b\n><rest>"
    told = [diary.next() for _ in range(6)]
    lines = [b"a\r\n", b"\n", b"b\n", b"rest"]
    assert told == [*(("message", line) for line in lines), ("eof",), ("close", Reason.PEER)]


def test_a_length_frame_is_its_payload_and_the_reply_gets_a_header(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(frame="length", on_message=lambda _, data: data[::-1])
    peer = join(server)
    peer.sendall(struct.pack(">I", 3) + b"abc" + struct.pack(">I", 0) + struct.pack(">I", 2))
    peer.sendall(b"de" + struct.pack(">I", 9) + b"cut off")
    peer.shutdown(socket.SHUT_WR)
    # An empty reply is no reply: there is nothing to say.
    assert read_to_eof(peer) == struct.pack(">I", 3) + b"cba" + struct.pack(">I", 0) + (
        struct.pack(">I", 2) + b"ed"
    )
    expect_stats(server, messages=3, frames_incomplete=1)


def test_what_is_written_inside_comes_before_what_is_returned(
    make_server: MakeServer, join: Join
) -> None:
    def answer(connection: Connection, data: bytes) -> bytes:
        assert connection.write(b"1")
        assert connection.writelines([b"2", bytearray(b"3")])
        return data

    server = make_server(on_message=answer, frame="line")
    peer = join(server)
    assert exchange(peer, b"a\nb\n", 10) == b"123a\n123b\n"


def test_a_connection_tells_who_it_is_and_keeps_what_is_put_on_it(
    make_server: MakeServer, join: Join
) -> None:
    seen: list[Connection] = []

    def answer(connection: Connection, data: bytes) -> bytes:
        seen.append(connection)
        connection.context = [*(connection.context or []), data]
        return b"."

    server = make_server(on_message=answer)
    first, second = join(server), join(server)
    for peer in (first, second, first):
        assert exchange(peer, b"x") == b"."
    assert seen[0] is seen[2]
    assert [one.id for one in seen] == [1, 2, 1]
    assert seen[0].context == [b"x", b"x"]
    assert seen[1].peer is seen[1].peer
    assert (seen[1].peer.host, seen[1].peer.port) == second.getsockname()
    assert seen[1].peer.listener == server.address
    assert repr(seen[1]) == "<fastecho.Connection 2 open>"


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
    assert "'str'" in caplog.text
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


def test_replies_that_are_not_read_stop_delivery_at_high_water(
    make_server: MakeServer, join: Join
) -> None:
    size = 100_000
    server = make_server(
        frame="line", on_message=lambda *_: bytes(size), high_water=1 << 20, send_buffer=65536
    )
    peer = join(server)
    peer.sendall(b"\n" * 1000)
    wait_until(lambda: server.stats().bytes_pending >= 1 << 20)
    wait_until(lambda: iterations_at_rest(server) == 0)
    # High water, the reply that reached it, and no more.
    assert server.stats().bytes_pending <= (1 << 20) + size
    assert len(recv_exactly(peer, 1000 * size)) == 1000 * size
    expect_stats(server, messages=1000, bytes_pending=0)


def test_a_peer_that_never_reads_is_reset_at_max_pending(
    make_server: MakeServer, join: Join
) -> None:
    diary = Diary(lambda connection, _: connection.writelines([bytes(100_000)] * 100) and None)
    server = make_server(max_pending=2_000_000, **diary.all())
    peer = join(server)
    peer.sendall(b"x")
    assert diary.next() == ("message", b"x")
    assert diary.next() == ("close", Reason.MAX_PENDING)
    expect_stats(server, ended_by_max_pending=1)


def test_many_frames_of_one_peer_do_not_keep_another_waiting(
    make_server: MakeServer, join: Join
) -> None:
    served: list[int] = []

    def answer(connection: Connection, data: bytes) -> bytes:
        served.append(connection.id)
        return data

    server = make_server(frame="line", on_message=answer)
    greedy, modest = join(server), join(server)
    assert exchange(greedy, b"\n") == b"\n"
    lines = 50_000
    sender = threading.Thread(target=greedy.sendall, args=[b"\n" * lines])
    sender.start()
    wait_until(lambda: len(served) > 100)
    assert exchange(modest, b"me\n") == b"me\n"
    when = served.index(2)
    assert len(recv_exactly(greedy, lines)) == lines
    sender.join()
    assert when < lines


@pytest.mark.parametrize("memoryviews", [False, True], ids=["bytes", "memoryviews"])
@pytest.mark.parametrize("frame", ["recv", "line", "length"])
def test_more_than_one_round_of_callbacks_holds_is_answered_exactly(
    make_server: MakeServer, join: Join, frame: str, memoryviews: bool
) -> None:
    """All have sent before the first callback returns: the budgets of a round are used up."""
    inside, go_on = threading.Event(), threading.Event()

    def answer(_: Connection, data: bytes) -> bytes:
        if b"wait" in bytes(data[:8]):
            inside.set()
            assert go_on.wait(DEADLINE)
        return data

    server = make_server(on_message=answer, frame=frame, memoryviews=memoryviews)
    first, *peers = [join(server) for _ in range(60)]
    end = b"\n" if frame == "line" else b""

    def framed(payload: bytes) -> bytes:
        payload += end
        return struct.pack(">I", len(payload)) + payload if frame == "length" else payload

    first.sendall(framed(b"wait"))
    assert inside.wait(DEADLINE)
    sent = []
    for number, peer in enumerate(peers):
        size = 2_000 if number % 20 == 7 else 5
        sent.append(b"".join(framed(b"%d %d" % (number, one) + b"." * size) for one in range(100)))
        peer.sendall(sent[-1])
    go_on.set()
    assert recv_exactly(first, len(framed(b"wait"))) == framed(b"wait")
    for peer, data in zip(peers, sent, strict=True):
        assert same(recv_exactly(peer, len(data)), data)


def test_memoryviews_may_be_kept_and_never_change(make_server: MakeServer, join: Join) -> None:
    kept: list[tuple[memoryview, bytes]] = []

    def answer(connection: Connection, data: memoryview) -> memoryview:
        assert data.readonly
        if len(kept) < 200 or len(data) == 13:
            kept.append((data[1:-1], bytes(data[1:-1])))
        if len(data) == 13:
            connection.abort()
        return data

    server = make_server(on_message=answer, memoryviews=True)
    peer, other = join(server), join(server)
    for number in range(3000):
        message = b"%d" % number * (1 + number % 50)
        if len(message) == 13:
            continue
        assert exchange(peer if number % 2 else other, message) == message
    peer.sendall(b"-" * 13)
    assert is_reset(peer)
    assert exchange(other, b"after") == b"after"
    assert len(kept) == 201
    assert all(view == data for view, data in kept)


def test_handles_are_freed_with_their_connections(make_server: MakeServer, join: Join) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    class Context:
        pass

    def answer(connection: Connection, data: bytes) -> bytes:
        connection.context = Context()
        alive.add(connection.context)
        return data

    server = make_server(on_message=answer)
    for _ in range(50):
        with join(server) as peer:
            assert exchange(peer, b"x") == b"x"
    expect_stats(server, connections_open=0)
    wait_until(lambda: gc.collect() == 0 or not alive)
    wait_until(lambda: not alive, what="that no handle is left")


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


def test_a_callback_that_takes_long_is_named(
    make_server: MakeServer, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    enough = threading.Event()

    def answer(_: Connection, data: bytes) -> bytes:
        if data == b"slow":
            enough.wait(0.15)
        return data

    server = make_server(on_message=answer, slow_callback_duration=0.1)
    peer = join(server)
    assert exchange(peer, b"fast") == b"fast"
    assert exchange(peer, b"slow") == b"slow"
    said = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(said) == 1
    assert said[0].startswith("on_message took 0.1")


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


@pytest.mark.parametrize("frame", ["recv", "line"])
def test_callbacks_of_a_connection_are_of_one_thread_and_never_overlap(
    make_server: MakeServer, join: Join, frame: str
) -> None:
    threads: dict[int, set[int]] = {}
    inside: set[int] = set()

    def answer(connection: Connection, data: bytes) -> bytes:
        assert connection.id not in inside
        inside.add(connection.id)
        threads.setdefault(connection.id, set()).add(threading.get_ident())
        inside.discard(connection.id)
        return data

    server = make_server(on_message=answer, threads=3, frame=frame)
    peers = [join(server) for _ in range(9)]
    for _ in range(20):
        for peer in peers:
            peer.sendall(b"a\nb\n")
        for peer in peers:
            assert recv_exactly(peer, 4) == b"a\nb\n"
    assert len(threads) == 9
    assert all(len(idents) == 1 for idents in threads.values())
    assert len(set.union(*threads.values())) == 3
    assert server.stats().callback_errors == 0


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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"on_message": print, "prefix": b"x"}, "prefix b'x' cannot be used with on_message"),
        ({"on_message": print, "suffix": b"x"}, "suffix b'x' cannot be used with on_message"),
        ({"on_message": print, "max_pending": 5}, "max_pending 5 is below high_water 262144"),
        ({"on_message": print, "slow_callback_duration": 0}, "slow_callback_duration 0 must be"),
        ({"on_message": 3}, "on_message must be callable, not int"),
        ({"on_eof": print}, "on_eof needs on_message beside it"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((TypeError, fastecho.ConfigError)) as caught:
        fastecho.Server(**arguments)
    assert str(caught.value).startswith(sentence)


def test_without_message_callbacks_none_of_their_modules_is_imported() -> None:
    code = (
        "import sys, fastecho\nwith fastecho.Server(): "
        "print(sorted({'fastecho.callbacks', 'fastecho.reason', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


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
