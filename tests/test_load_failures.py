"""The load generator against servers that do wrong: each fault counts as what it is, once.

Every test ends with the books: a message that was sent is right, wrong, lost or timed out.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from contextlib import ExitStack

import pytest
from driven import black_hole
from load_servers import Handler, counted, described, echo, exact, framed, hold, refusing, serving
from peers import reset

from fastecho._load import Load


def spoiling(handler: Handler, at: int) -> Handler:
    """Return a handler like `handler`, which flips one bit of byte `at` of what it sends."""

    def spoiled(sock: socket.socket) -> None:
        sent = 0
        inner, outer = socket.socketpair()
        thread = threading.Thread(target=_run, args=(handler, outer), name="handler")
        thread.start()
        pump = threading.Thread(target=_pump, args=(sock, inner), name="pump")
        pump.start()
        while data := bytearray(inner.recv(1 << 16)):
            if sent <= at < sent + len(data):
                data[at - sent] ^= 0x10
            sent += len(data)
            sock.sendall(data)
        thread.join()
        pump.join()
        inner.close()

    return spoiled


def _run(handler: Handler, sock: socket.socket) -> None:
    with sock:
        try:
            handler(sock)
        except OSError:
            pass


def _pump(source: socket.socket, sink: socket.socket) -> None:
    while data := source.recv(1 << 16):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)


# Wrong bytes


@pytest.mark.parametrize("depth", [1, 8])
@pytest.mark.parametrize("at", [0, 63, 64, 64 * 20 + 7])
def test_one_changed_byte_is_one_wrong_message(at: int, depth: int) -> None:
    with serving(spoiling(echo, at)) as server, server.load(depth=depth) as load:
        load.connect()
        result = load.run(0.1)
        assert counted(result) == {"corrupt": 1}
        assert described(result)[0].startswith(
            f"connection 0, message {at // 64}: byte {at % 64} of the reply is 0x"
        )
        assert result["messages"] > at // 64
        assert load.histogram().count == result["messages"]
        assert result["connections_open"] == 1
        assert counted(load.run(0.02)) == {}


@pytest.mark.parametrize("frame", ["line", "length"])
@pytest.mark.parametrize("part", ["head", "prefix", "body", "suffix", "tail"])
def test_every_part_of_a_framed_reply_is_verified(frame: str, part: str) -> None:
    """Header, prefix, payload, suffix and newline: a changed byte in any of them is noticed."""
    head = 4 if frame == "length" else 0
    at = {"head": 3, "prefix": head + 2, "body": head + 40, "suffix": head + 5 + 64 + 1}
    at["tail"] = head + 5 + 64 + 5 - 1
    handler = spoiling(framed(frame, b"front", b"after"), at[part])
    with (
        serving(handler) as server,
        server.load(frame=frame, prefix=b"front", suffix=b"after") as load,
    ):
        load.connect()
        result = load.run(0.05)
        assert counted(result) == {"corrupt": 1}
        assert f"message 0: byte {at[part]} of the reply" in described(result)[0]


@pytest.mark.parametrize("sendfile", [False, True], ids=["send", "sendfile"])
def test_one_changed_byte_in_a_megabyte_is_noticed(sendfile: bool) -> None:
    with (
        serving(spoiling(echo, 777_777)) as server,
        server.load(size=1 << 20, sendfile=sendfile) as load,
    ):
        load.connect()
        result = load.run(0.1)
        assert counted(result) == {"corrupt": 1}
        assert "message 0: byte 777777 of the reply" in described(result)[0]


def test_swapped_replies_are_misplaced() -> None:
    def swap(sock: socket.socket) -> None:
        first, second = exact(sock, 64), exact(sock, 64)
        sock.sendall(second + first)
        echo(sock)

    with serving(swap) as server, server.load(depth=2) as load:
        load.connect()
        result = load.run(0.05)
        assert counted(result) == {"misplaced": 2}
        assert described(result) == [
            "connection 0, message 0: the reply to message 1 came instead",
            "connection 0, message 1: the reply to message 0 came instead",
        ]


def test_a_repeated_reply_is_misplaced() -> None:
    def repeat(sock: socket.socket) -> None:
        sock.sendall(message := exact(sock, 64))
        exact(sock, 64)
        sock.sendall(message)
        echo(sock)

    with serving(repeat) as server, server.load() as load:
        load.connect()
        result = load.run(0.05)
        assert counted(result) == {"misplaced": 1}
        assert "message 1: the reply to message 0 came instead" in described(result)[0]


def test_replies_that_went_to_another_connection_are_wrong() -> None:
    waiting: list[tuple[socket.socket, bytes]] = []
    both = threading.Barrier(2)

    def exchange(sock: socket.socket) -> None:
        waiting.append((sock, exact(sock, 64)))
        both.wait(10)
        (own,) = [message for other, message in waiting if other is not sock]
        sock.sendall(own)
        echo(sock)

    with serving(exchange) as server, server.load(connections=2) as load:
        load.connect()
        assert counted(load.run(0.05)) == {"corrupt": 2}


def test_a_missing_byte_makes_all_that_follows_wrong() -> None:
    def swallow(sock: socket.socket) -> None:
        sock.sendall(exact(sock, 128)[:-1])
        echo(sock)

    with serving(swallow) as server, server.load(depth=4, timeout=0.2) as load:
        load.connect()
        result = load.run(0.1)
        # The last reply never ends; the bytes of it that came were wrong already.
        faults = counted(result)
        assert faults.pop("timed_out", 0) <= 1
        assert list(faults) == ["corrupt"]
        assert result["messages"] == 1
        assert result["connections_open"] == 0


def test_bytes_that_were_not_asked_for_are_extra() -> None:
    def chatter(sock: socket.socket) -> None:
        sock.sendall(exact(sock, 64) + b"surplus")
        echo(sock)

    with serving(chatter) as server, server.load() as load:
        load.connect()
        result = load.run(0.05)
        assert counted(result) == {"extra_bytes": 7}
        assert described(result) == ["connection 0: 7 bytes came although no reply was due"]
        assert result["messages"] > 1


def test_a_greeting_is_extra() -> None:
    def greet(sock: socket.socket) -> None:
        sock.sendall(b"220 ready\r\n")
        hold(sock)

    with serving(greet) as server, server.load(mode="idle", connections=3) as load:
        load.connect()
        assert counted(load.run(0.1)) == {"extra_bytes": 33}


def test_a_server_without_the_prefix_is_noticed() -> None:
    with serving(echo) as server, server.load(frame="line", prefix=b"> ", timeout=0.1) as load:
        load.connect()
        result = load.run(0.05)
        assert result["messages"] == 0
        assert result["corrupt"] == 1
        assert "message 0: byte 0 of the reply" in described(result)[0]


# Connections that end


def test_fin_instead_of_replies_is_closed_and_lost() -> None:
    def leave(sock: socket.socket) -> None:
        sock.sendall(exact(sock, 3 * 64)[:64])

    with serving(leave) as server, server.load(depth=3) as load:
        load.connect()
        result = load.run(5.0)
        # The second round of messages may find the server gone: FIN or RST, by timing.
        faults = counted(result)
        assert faults.pop("closed", 0) + faults.pop("reset", 0) == 1
        assert faults == {"lost": result["sent"] - 1}
        assert result["messages"] == 1
        assert result["elapsed_ns"] < 4_000_000_000


def test_fin_in_the_middle_of_a_reply_loses_it() -> None:
    def cut(sock: socket.socket) -> None:
        sock.sendall(exact(sock, 64)[:63])

    with serving(cut) as server, server.load() as load:
        load.connect()
        result = load.run(5.0)
        assert counted(result) == {"closed": 1, "lost": 1}
        assert described(result) == [
            "connection 0: closed by the server with 1 message outstanding"
        ]


def test_rst_is_reset_and_lost() -> None:
    def abort(sock: socket.socket) -> None:
        exact(sock, 5 * 64)
        reset(sock)

    with serving(abort) as server, server.load(depth=5) as load:
        load.connect()
        result = load.run(5.0)
        assert counted(result) == {"reset": 1, "lost": 5}
        assert described(result) == [
            "connection 0: reset by the server with 5 messages outstanding"
        ]


def test_the_other_connections_go_on_when_one_ends() -> None:
    turn = iter(range(100))

    def one_leaves(sock: socket.socket) -> None:
        if next(turn) != 2:
            echo(sock)
        exact(sock, 64)

    with serving(one_leaves) as server, server.load(connections=5) as load:
        load.connect()
        result = load.run(0.1)
        assert counted(result) == {"closed": 1, "lost": 1}
        assert result["connections_open"] == 4
        assert result["messages"] > 4
        assert result["elapsed_ns"] == 100_000_000
        # connect() brings the fifth back.
        load.connect()
        result = load.run(0.05)
        assert counted(result) == {}
        assert (result["connections_open"], result["connects"]) == (5, 1)


def test_idle_connections_that_end_are_counted() -> None:
    release = threading.Event()

    def leave(sock: socket.socket) -> None:
        release.wait(10)

    with serving(leave) as server, server.load(mode="idle", connections=20) as load:
        load.connect()
        release.set()
        result = load.run(5.0)
        assert counted(result) == {"closed": 20}
        assert len(result["failures"]) == 8
        assert result["connections_open"] == 0
        assert result["elapsed_ns"] < 4_000_000_000


# Servers that stop answering


@pytest.mark.parametrize(
    ("answered", "text"), [(0, "0 bytes of it came"), (64, "0 bytes"), (65, "1 byte of it")]
)
def test_a_silent_server_times_out_within_the_deadline(answered: int, text: str) -> None:
    def stop(sock: socket.socket) -> None:
        sock.sendall(exact(sock, 4 * 64)[:answered])
        hold(sock)

    with serving(stop) as server, server.load(depth=4, timeout=0.15) as load:
        load.connect()
        begin = time.monotonic()
        result = load.run(30.0)
        assert 0.15 <= time.monotonic() - begin < 5.0
        assert counted(result) == {"timed_out": 4}
        assert result["messages"] == answered // 64
        assert "no complete reply within 0.15 s" in described(result)[0]
        assert text in described(result)[0]
        assert result["connections_open"] == 0


def test_a_server_that_falls_silent_at_the_end_is_waited_for_until_the_timeout() -> None:
    """The window is over, the replies are not there: the run ends in time all the same."""
    with serving(hold) as server, server.load(connections=3, timeout=0.2) as load:
        load.connect()
        begin = time.monotonic()
        result = load.run(0.01)
        assert 0.2 <= time.monotonic() - begin < 5.0
        assert counted(result) == {"timed_out": 3}
        assert result["elapsed_ns"] == 10_000_000


def test_a_server_that_reads_nothing_times_out() -> None:
    """The message does not even fit into the kernel's buffers."""
    silent = threading.Event()

    def deaf(sock: socket.socket) -> None:
        silent.wait(10)

    with serving(deaf) as server, server.load(size=32 << 20, timeout=0.2) as load:
        load.connect()
        result = load.run(0.05)
        assert counted(result) == {"timed_out": 1}
        assert 0 < result["bytes_sent"] < 32 << 20
        silent.set()


def test_an_open_loop_ends_with_its_last_connection() -> None:
    def leave(sock: socket.socket) -> None:
        for _ in range(10):
            sock.sendall(exact(sock, 64))

    with serving(leave) as server, server.load(mode="open", rate=1000) as load:
        load.connect()
        result = load.run(50.0)
        assert result["messages"] == 10
        assert counted(result, not_given=result["lost"] - (result["sent"] - 10)).keys() <= {
            "closed", "reset", "lost",
        }  # fmt: skip
        # What was due until then is told, and nothing was due later.
        due = result["elapsed_ns"] // 1_000_000 + 1
        assert abs(result["messages"] + result["lost"] - due) <= 1
        assert due < 10_000
        assert result["unsent"] == 0


# Connecting


def test_refused_connects_are_one_error_that_counts_them() -> None:
    with Load([refusing()], connections=5) as load:
        with pytest.raises(ConnectionRefusedError, match="5 of 5 connections failed"):
            load.connect()
        assert load.connections_open == 0


def test_connects_that_are_not_answered_time_out() -> None:
    """A full accept queue drops SYNs; what did connect stays open."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with Load(
            [(socket.AF_INET, listener.getsockname())], connections=4, timeout=0.2, mode="idle"
        ) as load:
            begin = time.monotonic()
            with pytest.raises(TimeoutError, match="3 of 4 connections failed"):
                load.connect()
            assert 0.2 <= time.monotonic() - begin < 5.0
            assert load.connections_open == 1


def test_refused_reconnects_are_counted_and_tried_again_without_haste() -> None:
    with Load([refusing()], mode="reconnect", connections=2) as load:
        result = load.run(0.3)
        assert counted(result) == {"refused": result["refused"]}
        # 2 at once, then 2 at each look for timeouts.
        assert 4 <= result["refused"] <= 40
        assert described(result)[0] == "connection 0: refused"
        assert (result["connects"], result["sent"], result["connections_open"]) == (0, 0, 0)


def test_a_reconnect_that_is_not_answered_times_out() -> None:
    with ExitStack() as stack:
        hole = black_hole(stack, socket.AF_INET, ("127.0.0.1", 0))
        load = Load([(socket.AF_INET, hole.getsockname())], mode="reconnect", timeout=0.1)
        result = stack.enter_context(load).run(0.05)
    assert (result["connect_timed_out"], result["sent"], result["connects"]) == (1, 0, 0)
    assert described(result) == ["connection 0: not connected within 0.1 s"]


def test_reconnect_goes_on_after_a_connection_failed() -> None:
    turn = iter(range(10**6))

    def fail_twice(sock: socket.socket) -> None:
        message = exact(sock, 64)
        if next(turn) < 2:
            reset(sock)
        else:
            sock.sendall(message)
            hold(sock)

    with serving(fail_twice) as server, server.load(mode="reconnect") as load:
        result = load.run(0.3)
        assert counted(result) == {"reset": 2, "lost": 2}
        assert result["messages"] > 0
        assert result["connects"] == result["messages"] + 2


def test_a_server_that_does_not_answer_our_fin_times_out() -> None:
    finish = threading.Event()

    def keep(sock: socket.socket) -> None:
        echo(sock)
        finish.wait(10)

    with serving(keep) as server, server.load(mode="reconnect", timeout=0.1) as load:
        result = load.run(0.05)
        assert counted(result) == {"other": 1}
        assert result["messages"] == result["sent"] == 1
        assert described(result) == ["connection 0: the server did not answer our FIN within 0.1 s"]
        finish.set()


def test_a_server_that_resets_instead_of_closing_is_noticed() -> None:
    def abort(sock: socket.socket) -> None:
        sock.sendall(exact(sock, 64))
        sock.recv(1)
        reset(sock)

    with serving(abort) as server, server.load(mode="reconnect") as load:
        result = load.run(0.05)
        assert result["reset"] == result["connects"] > 0
        assert counted(result) == {"reset": result["reset"]}


def test_a_silent_server_ends_a_reconnecting_run_in_time() -> None:
    with serving(hold) as server, server.load(mode="reconnect", connections=3, timeout=0.2) as load:
        begin = time.monotonic()
        result = load.run(0.05)
        assert time.monotonic() - begin < 5.0
        assert counted(result) == {"timed_out": 3}


def test_any_other_errno_is_named() -> None:
    """A source address that is not ours."""
    with Load([refusing()], mode="reconnect", sources=("192.0.2.1",)) as load:
        result = load.run(0.03)
        assert result["other"] > 0
        assert f"errno {errno.EADDRNOTAVAIL}" in described(result)[0]
