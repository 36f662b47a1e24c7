"""Message callbacks: what they are called with, in which order, and what becomes of their answers.

Peers are plain sockets. Ends and failures are in test_callback_ends.py, what other threads write in
test_callback_writes.py.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from math import inf
from typing import Any

import pytest
from conftest import Join, MakeServer
from diary import Diary, patient, times
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
    kept: list[object] = []  # the memory that views show is given away meanwhile

    def answer(_: Connection, data: bytes) -> bytes:
        kept.append(data)
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


@patient
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
    for number in range(times(3000)):
        message = b"%d" % number * (1 + number % 50)
        if len(message) == 13:
            continue
        assert exchange(peer if number % 2 else other, message) == message
    peer.sendall(b"-" * 13)
    assert is_reset(peer)
    assert exchange(other, b"after") == b"after"
    assert len(kept) == 201
    assert all(view == data for view, data in kept)


def test_a_frame_that_comes_in_pieces_is_a_memoryview_as_well(
    make_server: MakeServer, join: Join
) -> None:
    kept: list[object] = []

    def answer(_: Connection, data: memoryview) -> memoryview:
        kept.append(data)
        return data

    server = make_server(on_message=answer, memoryviews=True, frame="line")
    peer = join(server)
    peer.sendall(b"in ")
    expect_stats(server, bytes_in=3)
    assert exchange(peer, b"pieces\n", 10) == b"in pieces\n"
    assert exchange(peer, b"something else\n") == b"something else\n"
    assert all(isinstance(data, memoryview) and data.readonly for data in kept)
    assert kept == [b"in pieces\n", b"something else\n"]


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


def only_data(data: bytes) -> bytes:
    return data


def test_as_much_may_wait_as_high_water(make_server: MakeServer, join: Join) -> None:
    server = make_server(on_message=lambda _, data: data, high_water=65536, max_pending=65536)
    assert exchange(join(server), b"x") == b"x"


def print_both(one: object, other: object) -> None:
    print(one, other)


async def coroutine(connection: Connection, data: bytes) -> bytes:
    return data


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"on_message": print, "prefix": b"x"}, "prefix b'x' cannot be used with on_message"),
        ({"on_message": print, "suffix": b"x"}, "suffix b'x' cannot be used with on_message"),
        ({"on_message": print, "max_pending": 5}, "max_pending 5 is below high_water 262144"),
        ({"on_message": print, "max_pending": inf}, "max_pending inf must be a whole number from"),
        ({"on_message": print, "max_pending": True}, "max_pending True must be a whole number"),
        ({"on_message": print, "max_pending": 2**63}, "max_pending 9223372036854775808 must be a"),
        ({"on_message": print, "slow_callback_duration": 0}, "slow_callback_duration 0 must be"),
        ({"on_message": print, "slow_callback_duration": 1e-10}, "slow_callback_duration 1e-10 mu"),
        ({"on_message": print, "slow_callback_duration": inf}, "slow_callback_duration inf must b"),
        ({"on_message": print, "slow_callback_duration": 1e11}, "slow_callback_duration 10000000"),
        ({"on_message": print, "slow_callback_duration": "1"}, "slow_callback_duration '1' must b"),
        ({"on_message": 3}, "on_message must be callable, not int"),
        ({"on_message": only_data}, "on_message must take (connection, data): too many positional"),
        ({"on_message": print, "on_eof": print_both}, "on_eof must take (connection): missing a"),
        ({"on_close": only_data}, "on_close must take (connection, reason): too many positional"),
        ({"on_accept": print_both}, "on_accept must take (peer): missing a required argument"),
        ({"on_message": coroutine}, "on_message must be a plain function: nobody would await a"),
        ({"on_eof": print}, "on_eof needs on_message beside it"),
        ({"on_drain": print, "on_close": print}, "on_drain needs on_message beside it"),
        ({"memoryviews": True}, "memoryviews needs on_message beside it"),
        ({"max_pending": 1000000}, "max_pending needs on_message beside it"),
        ({"slow_callback_duration": 1.0}, "slow_callback_duration needs a callback beside it"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((TypeError, fastecho.ConfigError)) as caught:
        fastecho.Server(**arguments)
    assert str(caught.value).startswith(sentence)


def test_the_largest_limits_are_taken(make_server: MakeServer, join: Join) -> None:
    server = make_server(
        on_message=lambda _, data: data, max_pending=sys.maxsize, slow_callback_duration=1e6
    )
    assert exchange(join(server), b"x") == b"x"


def test_nobody_makes_a_connection() -> None:
    with pytest.raises(TypeError, match="none can be made"):
        Connection()
    with pytest.raises(TypeError, match="none can be made"):
        Connection.__new__(Connection)


def test_without_message_callbacks_none_of_their_modules_is_imported() -> None:
    code = (
        "import sys, fastecho\nwith fastecho.Server(): "
        "print(sorted({'fastecho.callbacks', 'fastecho.reason', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
